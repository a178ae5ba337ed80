//! `cargo xtask bench`: what detector costs, beside what people would use instead.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::evaluate::{cost, evaluate};
use crate::paths;
use crate::setup::setup;

/// The part that measures detection on days of a million sources, see docs/detection.md, "Cost".
const DETECTION: &str = "detection";

/// Sets up, builds, measures. A whole run writes docs/performance.md, its chart and the figures behind them, those of README.md, and what detection
/// costs in docs/detection.md.
pub(crate) fn bench(args: &[OsString]) -> Result<()> {
    if is_only_detection(args) {
        let json = args.iter().filter(|arg| *arg == "--json").cloned();
        return cost(&json.collect::<Vec<_>>());
    }
    setup()?;
    say("build", "release binaries of the bench");
    let mut build = cargo("build");
    build.args(["--release", "--package", "detector-bench"]);
    run(
        "building the bench",
        &mut build,
        "mend what cargo reports above; for the eBPF part, `cargo xtask setup`",
    )?;
    let mut bench = Command::new(paths::release("bench"));
    bench.args(args);
    let is_partial = args.iter().any(|arg| arg == "--quick" || arg.to_string_lossy().starts_with("--only"));
    if !is_partial {
        bench.arg("--docs").arg(paths::root().join("docs"));
    }
    run(
        "measuring",
        &mut bench,
        "see what it says above; `--only PART` measures one part, `--only detection` that of detection",
    )?;
    if is_partial {
        return Ok(());
    }
    say("docs", "README.md gets the figures");
    let mut docs = cargo("test");
    docs.args(["--release", "--quiet", "--package", "detector-tests", "--test", "docs"]);
    run(
        "writing the figures into README.md",
        docs.env("DETECTOR_WRITE_DOCS", "1"),
        "see what it says above",
    )?;
    evaluate(&["--cost".into()])
}

fn is_only_detection(args: &[OsString]) -> bool {
    let line: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    line.windows(2).any(|pair| pair[0] == "--only" && pair[1] == DETECTION)
        || line.iter().any(|arg| *arg == format!("--only={DETECTION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_is_a_part_by_itself() {
        let is_it =
            |line: &str| is_only_detection(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert!(is_it("--only detection --json") && is_it("--quick --only=detection"));
        assert!(!is_it("") && !is_it("--only flood") && !is_it("--quick"));
    }
}
