//! `cargo xtask evaluate`: how well fleets are found, on simulated scenarios whose truth is known.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::paths;

/// Builds the evaluation and runs it. All but quick runs, and those that begin with another seed, write docs/detection.json, detection.md and
/// detection.svg.
pub(crate) fn evaluate(args: &[OsString]) -> Result<()> {
    let is_partial = args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == "--quick" || arg == "--help" || arg.starts_with("--first-seed")
    });
    measure(args, !is_partial)
}

/// What detection costs; writes nothing.
pub(crate) fn cost(args: &[OsString]) -> Result<()> {
    measure(&[&["--cost".into()], args].concat(), false)
}

fn measure(args: &[OsString], writes: bool) -> Result<()> {
    say("evaluate", "build the evaluation");
    let mut build = cargo("build");
    build.args(["--release", "--quiet", "--package", "detector-evaluation"]);
    run("building the evaluation", &mut build, "mend what cargo reports above")?;
    let mut evaluation = Command::new(paths::release("evaluation"));
    evaluation.args(args);
    if writes {
        evaluation.arg("--docs").arg(paths::root().join("docs"));
    }
    run(
        "evaluating",
        &mut evaluation,
        "see what it says above; docs/scenarios.md has what a scenario may say",
    )
}
