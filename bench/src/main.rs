//! `bench`: what detector costs, beside what people would use instead. `cargo xtask bench` builds and runs it.

mod apply;
mod decision;
mod drive;
mod exactness;
mod flood;
mod handshakes;
mod machine;
mod mix;
mod performance;
mod pipeline;
mod report;
mod sampling;
mod snapshot;
mod subject;
mod targets;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::report::Report;

/// What detector costs, beside what people would use instead.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Fewer and shorter runs: for a look, not for the documentation
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Measure only these parts, and write no documentation
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write docs/performance.md and its chart from the report in this folder
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// ns of one packet through one program
    Decision,
    /// ns of one packet over a veth pair into a receiver
    Pipeline,
    /// one source from two CPUs at once
    Exactness,
    /// spoofed sources beside limited and well-behaved ones
    Flood,
    /// TLS handshakes from the SYN on
    Handshakes,
    /// reading the whole table
    Snapshot,
    /// replacing the policy
    Apply,
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    ensure!(detector_tests::netns::is_root(), "the bench loads programs into the kernel: run it as root");
    let is_asked = |part| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report { machine: machine::machine()?, quick: options.quick, ..Report::default() };
    let quick = options.quick;
    if is_asked(Part::Decision) {
        report.decision = decision::measure(quick).context("decision")?;
    }
    if is_asked(Part::Pipeline) {
        report.pipeline = pipeline::measure(quick).context("pipeline")?;
    }
    if is_asked(Part::Exactness) {
        report.exactness = exactness::measure(quick).context("exactness")?;
    }
    if is_asked(Part::Flood) {
        report.flood.scenes = flood::measure(quick).context("flood")?;
    }
    if is_asked(Part::Handshakes) {
        report.handshakes = handshakes::measure(quick).context("handshakes")?;
    }
    if is_asked(Part::Snapshot) {
        report.snapshot.readers = snapshot::measure(quick).context("snapshot")?;
    }
    if is_asked(Part::Apply) {
        report.apply.changes = apply::measure(quick).context("apply")?;
    }
    report.memory = machine::memory();
    if let Some(folder) = &options.docs {
        ensure!(options.only.is_empty(), "the documentation is written from all parts: leave out --only");
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("performance.json", serde_json::to_string_pretty(&report)? + "\n")?;
        write("performance.md", performance::markdown(&report))?;
        write("performance.svg", performance::chart(&report))?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", performance::tables(&report));
    }
    Ok(())
}

/// Says what is being measured, on standard error: a run takes minutes.
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("bench: {what}");
}
