//! For build scripts: compiles a crate of this workspace to an eBPF object, so that a plain `cargo build` makes a
//! complete binary.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// Names the rustup toolchain to build eBPF objects with, where the choice below is not wanted.
const TOOLCHAIN_VARIABLE: &str = "DETECTOR_EBPF_TOOLCHAIN";

/// Compiles the package `name`, whose folder is `folder` below the workspace, to `$OUT_DIR/NAME`.
///
/// # Errors
///
/// Outside of a build script; without a toolchain that can build eBPF; with an error in the package.
pub fn build(name: &str, folder: &str) -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the workspace")?;
    println!("cargo:rerun-if-changed={}", root.join("detector-common/src").display());
    let toolchain = toolchain()?;
    let linker = root.join("detector-ebpf/bpf-linker-v3");
    println!("cargo:rerun-if-changed={}", linker.display());
    // SAFETY: a build script has one thread.
    unsafe { env::set_var("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker) };
    // SAFETY: as above. Unlocks `-Z build-std` and `core_intrinsics` on a toolchain that is not nightly.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let folder = root.join(folder);
    let root_dir = folder.to_str().context("the path of the workspace is no text")?;
    let package = Package { name, root_dir, no_default_features: false, features: &[] };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
        .with_context(|| format!("cannot build {name}; `cargo xtask setup` installs what it needs"))
}

/// The first toolchain that has the source of `core`: the one asked for, `bpf` (made by `cargo xtask setup`), nightly.
fn toolchain() -> Result<String> {
    if let Ok(asked) = env::var(TOOLCHAIN_VARIABLE) {
        return Ok(asked);
    }
    for name in ["bpf", "nightly"] {
        if has_core_source(name) {
            return Ok(name.to_owned());
        }
    }
    bail!("no toolchain can build eBPF (neither `bpf` nor a nightly with rust-src): run `cargo xtask setup`")
}

fn has_core_source(toolchain: &str) -> bool {
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
}
