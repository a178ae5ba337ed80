//! The habits of the project as commands: `cargo xtask COMMAND`.
//!
//! This crate builds with nothing but a stable toolchain, because `setup` installs everything else. It therefore knows
//! detector-user only as a binary that cargo builds.

mod bench;
mod ci;
mod command;
mod ebpf;
mod evaluate;
mod fuzz;
mod generate;
mod initramfs;
mod kernels;
mod licences;
mod packages;
mod paths;
mod run;
mod setup;
mod tally;
mod test;
mod tidy;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The habits of the detector project")]
struct Cli {
    #[command(subcommand)]
    habit: Habit,
}

#[derive(Subcommand)]
enum Habit {
    /// Install what is missing to build, run and test; says what and why; safe to repeat
    Setup,
    /// Run detector: in a lab of its own, or for real on the interfaces named with `--iface`
    ///
    /// With `--iface` among the arguments, all of them go to `detector run`; without it, all go to the lab: `--seconds N`
    /// ends it by itself, `--fleet` grows a fleet in it instead, which is found and throttled after about eight minutes,
    /// and `--json` prints the summary as JSON, and nothing before it.
    Run {
        /// Arguments of `detector run`, or of the lab: `--seconds N`, `--fleet`, `--json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run everything that has to pass; the last line of output sums it up
    Test {
        /// Arguments of `cargo test`; with any given, the kernels are not booted
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the tests that must hold on old kernels, on Debian's kernels in qemu
    Kernels(kernels::Options),
    /// Give what reads policies and packets inputs that nobody thought of, and see that what is promised holds
    Fuzz(fuzz::Options),
    /// Say which toolchain and linker build the eBPF program
    Ebpf,
    /// Format, hold the licences of dependencies against those allowed, lint the host crates and the eBPF crates, and check the documentation
    Tidy {
        /// Change nothing: a file that is not formatted, or a list of licences that is old, is an error
        #[arg(long)]
        check: bool,
    },
    /// Measure what detector costs, beside what people would use instead
    ///
    /// A whole run writes docs/performance.md, its figures in README.md, and what detection costs into docs/detection.md; one with
    /// `--quick` or `--only` writes nothing.
    Bench {
        /// Arguments of the bench: `--quick` (fewer and shorter runs), `--json`, `--only PART`, where PART is decision, pipeline,
        /// exactness, flood, handshakes, snapshot or apply; or detection, what days of a million sources cost
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Simulate a scenario: `SCENARIO --out DIR [--seed N] [--days N]` writes observations as Parquet, and truth.json
    #[command(disable_help_flag = true)]
    Generate {
        /// Arguments of the generator; `--help` has all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure how well fleets are found, on simulated scenarios; all but `--quick` writes docs/detection.md
    #[command(disable_help_flag = true)]
    Evaluate {
        /// Arguments of the evaluation: names of scenarios, `--quick`, `--seeds N`, `--json`, `--cost`; `--help` has all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Do what continuous integration does: set up, check, test, and run the lab for a moment
    Ci,
}

fn main() -> ExitCode {
    let done = match Cli::parse().habit {
        Habit::Setup => setup::with_clients(),
        Habit::Run { args } => run::run(&args),
        Habit::Test { args } => test::test(&args),
        Habit::Kernels(options) => kernels::kernels(&options),
        Habit::Fuzz(options) => fuzz::fuzz(&options),
        Habit::Ebpf => ebpf::tell(),
        Habit::Tidy { check } => tidy::tidy(check),
        Habit::Bench { args } => bench::bench(&args),
        Habit::Generate { args } => generate::generate(&args),
        Habit::Evaluate { args } => evaluate::evaluate(&args),
        Habit::Ci => ci::ci(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::complain(&error);
            ExitCode::FAILURE
        }
    }
}
