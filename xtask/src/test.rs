//! `cargo xtask test`: everything that has to pass, and one line that sums it up.

use std::ffi::OsString;
use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{cannot_start, cargo, complain, run, say, stdout_is_terminal};
use crate::fuzz;
use crate::kernels;
use crate::paths;
use crate::setup::with_clients;
use crate::tally::{Counter, Tally};

/// Says to tests where the binary under test is.
pub(crate) const DETECTOR_BIN: &str = "DETECTOR_BIN";

/// Says to tests that nothing that setup installs may be missing: what then cannot run is a failure.
const NO_SKIP: &str = "DETECTOR_NO_SKIP";

/// All host crates but the one that is built for fuzzing only. Always the same selection, so that cargo resolves the same
/// features and builds nothing twice.
pub(crate) const HOST_CRATES: [&str; 7] = [
    "--workspace",
    "--exclude",
    "detector-ebpf",
    "--exclude",
    "detector-bench-ebpf",
    "--exclude",
    "detector-fuzz",
];

const SUM_UP: &str = "mend the tests named above; `cargo xtask test -- NAME` runs some of them";

/// Sets up, tests, prints the closing line.
pub(crate) fn test(args: &[OsString]) -> Result<()> {
    with_clients()?;
    let tally = everything(args)?;
    close(tally)
}

/// Runs the tests on this kernel and, unless only some are asked for, fuzzes for a moment and runs those on the oldest
/// supported kernel.
fn everything(args: &[OsString]) -> Result<Tally> {
    build()?;
    let mut tally = here(args)?;
    if args.is_empty() {
        tally += fuzz::shortly().unwrap_or_else(|error| failed(&error));
        // What this kernel was found to do is not lost when the other does not boot.
        tally += kernels::oldest().unwrap_or_else(|error| failed(&error));
    } else {
        say("test", "fuzzing and old kernels are left out, because arguments ask for some tests only");
    }
    Ok(tally)
}

fn failed(error: &anyhow::Error) -> Tally {
    complain(error);
    Tally { failed: 1, ..Tally::default() }
}

/// Prints what was skipped and the closing line; failed tests are an error.
pub(crate) fn close(tally: Tally) -> Result<()> {
    for skip in &tally.skips {
        println!("not run: {skip}");
    }
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} of the tests failed\n  next: {SUM_UP}", tally.failed);
    }
    Ok(())
}

/// Builds the release binaries: the one under test and the lab.
pub(crate) fn build() -> Result<()> {
    say("build", "release binaries (a minute or two the first time)");
    let mut build = cargo("build");
    build.args(["--release", "--bins"]).args(HOST_CRATES);
    run(
        "building detector",
        &mut build,
        "mend what cargo reports above; for the eBPF part, `cargo xtask setup`",
    )
}

/// Tests run in release, as the binaries are built: one set of artefacts, and the load they make is worth its name.
fn here(args: &[OsString]) -> Result<Tally> {
    say("test", "on this kernel");
    let mut test = cargo("test");
    test.args(["--release", "--no-fail-fast"]);
    if !names_a_package(args) {
        test.args(HOST_CRATES);
    }
    let colour = if stdout_is_terminal() { "always" } else { "never" };
    test.args(["--color", colour]);
    // Only a test's shown output tells that it skipped itself.
    let (of_cargo, of_tests) = split(args);
    test.args(of_cargo).args(["--", "--show-output", "--color", colour]).args(of_tests);
    test.env(DETECTOR_BIN, paths::release("detector")).env(NO_SKIP, "1");
    count(&mut test, &mut io::stdout())
}

fn names_a_package(args: &[OsString]) -> bool {
    let (of_cargo, _of_tests) = split(args);
    of_cargo.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg.starts_with("-p") || arg.starts_with("--package")
    })
}

/// Cargo's arguments and, after another `--`, the test programs' own.
fn split(args: &[OsString]) -> (&[OsString], &[OsString]) {
    match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[]),
    }
}

/// Runs tests, passes their output on as it comes, and counts.
fn count(test: &mut Command, out: &mut impl Write) -> Result<Tally> {
    let what = "running the tests";
    let mut child =
        test.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(what, test, "install cargo"))?;
    let mut output = child.stdout.take().context("the tests' output was piped a moment ago")?;
    let mut counter = Counter::default();
    let mut piece = [0; 8192];
    loop {
        let length = output.read(&mut piece).context("reading the tests' output")?;
        if length == 0 {
            break;
        }
        counter.feed(&piece[..length]);
        out.write_all(&piece[..length]).and_then(|()| out.flush()).context("passing the tests' output on")?;
    }
    let status = child.wait().context("waiting for the tests")?;
    let mut tally = counter.finish();
    if !status.success() && tally == Tally::default() {
        bail!("{what}: {status}\n  command: {test:?}\n  next: mend what cargo reports above");
    }
    // A test program that dies, or does not compile, has no result to count.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn arguments_find_their_reader() {
        let both = args("-p detector-common gcra -- --test-threads 1");
        let (of_cargo, of_tests) = split(&both);
        assert_eq!(of_cargo, args("-p detector-common gcra"));
        assert_eq!(of_tests, args("--test-threads 1"));
        assert_eq!(split(&args("gcra")).1, args(""));
    }

    #[test]
    fn a_named_package_replaces_the_workspace() {
        assert!(names_a_package(&args("-p detector-common")));
        assert!(names_a_package(&args("--package=detector-common")));
        assert!(!names_a_package(&args("gcra -- -p")));
    }

    #[test]
    fn a_test_program_that_dies_is_a_failure() {
        let mut dies = Command::new("sh");
        dies.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101"]);
        assert_eq!(
            count(&mut dies, &mut io::sink()).expect("a tally"),
            Tally { passed: 2, failed: 1, ..Tally::default() }
        );
        let mut nothing = Command::new("false");
        assert!(count(&mut nothing, &mut io::sink()).is_err());
    }
}
