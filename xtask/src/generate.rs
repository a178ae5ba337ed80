//! `cargo xtask generate`: simulated observations with known truth.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::paths;

/// Builds the generator and runs it where the caller is, so that paths are the caller's.
pub(crate) fn generate(args: &[OsString]) -> Result<()> {
    say("generate", "build the generator");
    let mut build = cargo("build");
    build.args(["--release", "--quiet", "--package", "detector-generator", "--bins"]);
    run("building the generator", &mut build, "mend what cargo reports above")?;
    let mut generate = Command::new(paths::release("generate"));
    generate.args(args);
    run("generating", &mut generate, "see what it says above; docs/scenarios.md has what a scenario may say")
}
