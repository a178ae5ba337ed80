//! `cargo xtask tidy`: format, lints, documentation.

use anyhow::Result;

use crate::command::{cargo, run, say};
use crate::ebpf;
use crate::paths;
use crate::test::HOST_CRATES;

/// Formats (or with `check`, compares), lints, and builds the documentation; a warning is an error.
pub(crate) fn tidy(check: bool) -> Result<()> {
    format(check)?;
    lint_host()?;
    lint_ebpf()?;
    document()
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
    run("linting the host crates", &mut clippy, "mend what clippy reports above")
}

/// As aya-build compiles it, with the toolchain that can.
fn lint_ebpf() -> Result<()> {
    let toolchain = ebpf::find()?;
    say("tidy", format!("clippy on detector-ebpf with toolchain `{}`", toolchain.name));
    let mut clippy = ebpf::program(&toolchain.name, "cargo");
    clippy.args(["clippy", "--release", "--package", "detector-ebpf", "--target", "bpfel-unknown-none"]);
    clippy.args(["-Z", "build-std=core", "--target-dir"]).arg(paths::target().join("ebpf-clippy"));
    clippy.args(["--", "-D", "warnings"]);
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy.env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH));
    run(
        "linting detector-ebpf",
        &mut clippy,
        "mend what clippy reports above; if the toolchain has no clippy, add it (Debian: rust-web-clippy)",
    )
}

fn document() -> Result<()> {
    say("tidy", "documentation");
    let mut doc = cargo("doc");
    doc.args(["--release", "--no-deps", "--document-private-items"]).args(HOST_CRATES);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run("building the documentation", &mut doc, "mend what rustdoc reports above")
}
