//! `cargo xtask bench`: what detector costs, beside what people would use instead.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::paths;
use crate::setup::setup;

/// Sets up, builds, measures. A whole run writes docs/performance.md, its chart and the figures behind them, and those of
/// README.md.
pub(crate) fn bench(args: &[OsString]) -> Result<()> {
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
    run("measuring", &mut bench, "see what it says above; `--only PART` measures one part")?;
    if is_partial {
        return Ok(());
    }
    say("docs", "README.md gets the figures");
    let mut docs = cargo("test");
    docs.args(["--release", "--quiet", "--package", "detector-tests", "--test", "docs"]);
    run("writing the figures into README.md", docs.env("DETECTOR_WRITE_DOCS", "1"), "see what it says above")
}
