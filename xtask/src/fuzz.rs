//! `cargo xtask fuzz`: inputs that nobody thought of, led by what of the code they reach.
//!
//! The layout is that of cargo-fuzz, which runs it too. Nothing is asked of it here: the engine builds with a stable
//! toolchain, whose LLVM has what guides it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{cargo, command, read, run, say};
use crate::packages::{self, Part};
use crate::paths;
use crate::tally::Tally;

/// What is fuzzed: binaries of the crate, each with its folder among the seeds. The first one has a dictionary.
const TARGETS: [&str; 6] = ["policy", "client_hello", "hello", "syn", "quic", "flows"];

/// How long `cargo xtask test` fuzzes each, seconds.
const TEST_SECONDS: u32 = 10;

/// Bytes of an input: room for a policy with everything twice, while thousands are read each second.
const INPUT_BYTES_MAX: u32 = 8192;

/// What no input may take: a hundred times what the slowest of them took.
const INPUT_SECONDS_MAX: u32 = 5;

/// What cargo-fuzz passes to rustc: counters at every edge and comparison of the code, and its own assertions.
const RUSTFLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cdebug-assertions",
];

/// How long, or with which inputs alone.
#[derive(Args)]
pub(crate) struct Options {
    /// How long to look for inputs, for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// What to fuzz; without it everything, one after the other
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
    /// Try these inputs instead, once
    #[arg(value_name = "FILE", requires = "target")]
    inputs: Vec<PathBuf>,
}

/// Sets up, builds, fuzzes.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    let programs = build()?;
    match &options.target {
        None => TARGETS.iter().try_for_each(|target| search(&programs, target, options.seconds)),
        Some(target) if options.inputs.is_empty() => search(&programs, target, options.seconds),
        Some(target) => try_inputs(&programs.join(target), &options.inputs),
    }
}

/// What of it every test run does: all seeds, and a short search of each target. Each is one test for the tally.
pub(crate) fn shortly() -> Result<Tally> {
    let programs = build()?;
    let mut tally = Tally::default();
    for target in TARGETS {
        search(&programs, target, TEST_SECONDS)?;
        tally += Tally { passed: 1, ..Tally::default() };
    }
    Ok(tally)
}

/// Builds the targets, in a directory of their own: the flags are those of no other build. Gives where they are.
fn build() -> Result<PathBuf> {
    packages::install(&packages::missing(Part::Fuzz)?)?;
    say("fuzz", "building (a minute or two the first time)");
    let directory = paths::target().join("fuzz");
    let next = "install rustc 1.84 or later";
    let mut ask = command("rustc");
    let host = read("asking rustc for this machine's name", ask.args(["--print", "host-tuple"]), next)?;
    let host = host.trim();
    let mut build = cargo("build");
    build.args(["--quiet", "--profile", "fuzz", "--package", "detector-fuzz", "--bins"]);
    build.args(["--features", "engine", "--target-dir"]).arg(&directory);
    // With a target named, what runs while it is built is built without the flags.
    build.args(["--target", host]).env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    run("building what is fuzzed", &mut build, "mend what cargo reports above")?;
    Ok(directory.join(host).join("fuzz"))
}

/// Tries the seeds and what was found in earlier runs, and looks for more.
fn search(programs: &Path, target: &str, seconds: u32) -> Result<()> {
    say("fuzz", format!("{target}: the seeds, then {seconds} seconds of what comes of them"));
    let (found, failed) = (folder("corpus", target)?, folder("findings", target)?);
    let log = paths::target().join("fuzz").join(format!("{target}.log"));
    let mut fuzz = command(&programs.join(target).to_string_lossy());
    // What is new goes into the first folder.
    fuzz.arg(&found).arg(paths::root().join("fuzz/seeds").join(target));
    fuzz.arg(option("artifact_prefix", failed.join("").display()));
    if target == TARGETS[0] {
        fuzz.arg(option("dict", paths::root().join(format!("fuzz/{target}.dict")).display()));
    }
    fuzz.args([
        option("max_total_time", seconds),
        option("max_len", INPUT_BYTES_MAX),
        option("timeout", INPUT_SECONDS_MAX),
        option("verbosity", 0),
        option("print_funcs", 0),
        option("print_final_stats", 1),
    ]);
    fuzz.stderr(File::create(&log).with_context(|| format!("creating {}", log.display()))?);
    let ended = run("fuzzing", &mut fuzz, "read what the engine says above");
    let said = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let Err(error) = ended else {
        let tried = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
        let tried =
            tried.with_context(|| format!("the engine did not say what it did, see {}", log.display()))?;
        say("fuzz", format!("{} inputs tried, everything holds", tried.trim()));
        return Ok(());
    };
    eprintln!("{said}");
    match said.lines().find_map(|line| line.split_once("Test unit written to ")) {
        Some((_, input)) => bail!(
            "an input for which something does not hold: {input}\n  next: mend what is shown above, see that `cargo xtask \
             fuzz --target {target} {input}` passes, and keep it as a test"
        ),
        None => Err(error),
    }
}

fn try_inputs(target: &Path, inputs: &[PathBuf]) -> Result<()> {
    let mut fuzz = command(&target.to_string_lossy());
    for input in inputs {
        let place =
            input.canonicalize().with_context(|| format!("looking for the input {}", input.display()))?;
        fuzz.arg(place);
    }
    fuzz.arg(option("timeout", INPUT_SECONDS_MAX));
    run("trying the inputs", &mut fuzz, "mend what is shown above for the last of them")
}

/// An option of libFuzzer.
fn option(name: &str, value: impl std::fmt::Display) -> OsString {
    format!("-{name}={value}").into()
}

/// A folder for what a search leaves.
fn folder(name: &str, target: &str) -> Result<PathBuf> {
    let folder = paths::target().join("fuzz").join(name).join(target);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}
