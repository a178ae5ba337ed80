//! `cargo xtask tidy`: format, lints, documentation.

use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::ebpf::{self, Toolchain};
use crate::licences::licences;
use crate::paths;
use crate::test::HOST_CRATES;

/// Formats and lists licences (or with `check`, compares), lints, and builds the documentation; a warning is an error.
pub(crate) fn tidy(check: bool) -> Result<()> {
    format(check)?;
    licences(check)?;
    lint_host()?;
    document_host()?;
    let toolchain = ebpf::find()?;
    lint_ebpf(&toolchain)?;
    document_ebpf(&toolchain)
}

fn format(check: bool) -> Result<()> {
    say("tidy", "format");
    let mut format = cargo("fmt");
    format.arg("--all");
    if check {
        format.arg("--check");
    }
    run("formatting", &mut format, "`cargo xtask tidy` formats everything")
}

/// In release, as the tests are: the eBPF object that detector-user embeds is then built once.
fn lint_host() -> Result<()> {
    say("tidy", "clippy on the host crates");
    let mut clippy = cargo("clippy");
    clippy.args(["--release", "--all-targets"]).args(HOST_CRATES).args(["--", "-D", "warnings"]);
    let next = "mend what clippy reports above";
    run("linting the host crates", &mut clippy, next)?;
    // Its engine and the tests of what it includes are not built.
    let mut clippy = cargo("clippy");
    clippy.args(["--release", "--package", "detector-fuzz", "--lib", "--", "-D", "warnings"]);
    run("linting what is fuzzed", &mut clippy, next)
}

fn document_host() -> Result<()> {
    say("tidy", "documentation of the host crates");
    let mut doc = cargo("doc");
    doc.args(["--release", "--no-deps", "--document-private-items"]).args(HOST_CRATES);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run("building the documentation", &mut doc, "mend what rustdoc reports above")
}

fn lint_ebpf(toolchain: &Toolchain) -> Result<()> {
    say("tidy", format!("clippy on the eBPF crates with toolchain `{}`", toolchain.name));
    let mut clippy = cargo_ebpf(toolchain, "clippy");
    clippy.args(["--", "-D", "warnings"]);
    run(
        "linting the eBPF crates",
        &mut clippy,
        "mend what clippy reports above; if the toolchain has no clippy, add it (Debian: rust-web-clippy)",
    )
}

fn document_ebpf(toolchain: &Toolchain) -> Result<()> {
    say("tidy", "documentation of the eBPF crates");
    let mut doc = cargo_ebpf(toolchain, "doc");
    doc.args(["--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", format!("-D warnings {}", architecture()));
    run("building the documentation of the eBPF crates", &mut doc, "mend what rustdoc reports above")
}

/// A subcommand of cargo on the eBPF crates, as aya-build compiles it: for its target, with the toolchain that can.
fn cargo_ebpf(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut cargo = ebpf::program(&toolchain.name, "cargo");
    cargo.args([subcommand, "--release", "--package", "detector-ebpf", "--package", "detector-bench-ebpf"]);
    cargo.args(["--target", "bpfel-unknown-none"]);
    cargo.args(["-Z", "build-std=core", "--target-dir"]).arg(paths::target().join("ebpf-tidy"));
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", architecture());
    cargo
}

/// The architecture whose kernel structs aya-ebpf's bindings are to have.
fn architecture() -> String {
    format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH)
}
