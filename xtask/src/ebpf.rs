//! Which toolchain and which linker build the eBPF program.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{command, read};
use crate::paths;

/// Names another toolchain than [`DEFAULT`]; detector-user's build script reads it too.
pub(crate) const CHOICE: &str = "DETECTOR_EBPF_TOOLCHAIN";

/// The name under which the build looks for the toolchain. `setup` links it to what it found or installed.
pub(crate) const DEFAULT: &str = "bpf";

/// The version of bpf-linker that `setup` installs.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// The LLVM that `setup` builds bpf-linker with.
pub(crate) const LLVM: u32 = 22;

/// The oldest minor version of Rust 1 that compiles the workspace.
const RUST_MINOR_MIN: u32 = 95;

const SETUP: &str = "run `cargo xtask setup`";

/// A toolchain known to rustup.
pub(crate) struct Toolchain {
    /// The name rustup gives it.
    pub name: String,
    /// The directory that holds its `bin` and `lib`.
    pub sysroot: PathBuf,
    version: Version,
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    release: String,
    llvm: u32,
}

/// The bpf-linker on this machine.
pub(crate) struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// The LLVM it reads bitcode with.
    pub llvm: u32,
}

/// Prints which toolchain and linker build the eBPF program.
pub(crate) fn tell() -> Result<()> {
    let toolchain = find()?;
    println!(
        "toolchain `{}`: rust {}, LLVM {}, {}",
        toolchain.name,
        toolchain.version.release,
        toolchain.version.llvm,
        toolchain.sysroot.display()
    );
    let Some(linker) = linker()? else {
        bail!("bpf-linker is missing\n  next: {SETUP}");
    };
    println!("linker: LLVM {}, {}", linker.llvm, linker.path.display());
    Ok(())
}

/// The toolchain that builds the eBPF program, or an error that says how to get one.
pub(crate) fn find() -> Result<Toolchain> {
    find_for(linker_llvm()?)
}

/// The same, for a linker that reads the bitcode of LLVM up to that version.
pub(crate) fn find_for(llvm_max: u32) -> Result<Toolchain> {
    let name = env::var(CHOICE).unwrap_or_else(|_| DEFAULT.into());
    if !names()?.contains(&name) {
        bail!("there is no toolchain `{name}` to build eBPF with\n  next: {SETUP}");
    }
    let toolchain = Toolchain::inspect(&name)?;
    if let Some(defect) = toolchain.defect(llvm_max) {
        bail!(
            "toolchain `{name}` cannot build eBPF: {defect}\n  next: {SETUP}, or name another one in {CHOICE}"
        );
    }
    Ok(toolchain)
}

/// The first nightly toolchain that can build eBPF.
pub(crate) fn capable_nightly(llvm_max: u32) -> Result<Option<Toolchain>> {
    for name in names()?.iter().filter(|name| name.starts_with("nightly")) {
        let toolchain = Toolchain::inspect(name)?;
        if toolchain.defect(llvm_max).is_none() {
            return Ok(Some(toolchain));
        }
    }
    Ok(None)
}

/// The names of all toolchains rustup knows.
pub(crate) fn names() -> Result<Vec<String>> {
    let mut list = command("rustup");
    list.args(["toolchain", "list"]);
    let listing = read("asking rustup for its toolchains", &mut list, "install rustup: https://rustup.rs")?;
    Ok(listing.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// A program of that toolchain.
pub(crate) fn program(toolchain: &str, program: &str) -> Command {
    let mut command = command("rustup");
    command.args(["run", toolchain, program]);
    // Some versions of rustup would fetch what they do not find.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    // Cargo, which started us, has set these for its own toolchain.
    for name in ["RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN"]
    {
        command.env_remove(name);
    }
    command
}

/// The newest LLVM whose bitcode the linker reads: the linker of this machine, or the one `setup` would install.
fn linker_llvm() -> Result<u32> {
    Ok(linker()?.map_or(LLVM, |linker| linker.llvm))
}

/// The bpf-linker on this machine.
pub(crate) fn linker() -> Result<Option<Linker>> {
    let Some(path) = paths::program("bpf-linker") else { return Ok(None) };
    let mut ldd = command("ldd");
    ldd.arg(&path);
    let libraries =
        read("asking which LLVM bpf-linker uses", &mut ldd, "see whether bpf-linker is a program")?;
    // One that carries its LLVM within does not tell which; bpf-linker's releases carry LLVM 22 or newer.
    let llvm = linked_llvm(&libraries).unwrap_or(LLVM);
    Ok(Some(Linker { path, llvm }))
}

impl Toolchain {
    /// Asks a toolchain what it is.
    pub(crate) fn inspect(name: &str) -> Result<Self> {
        let what = format!("asking toolchain `{name}` for its version");
        let next = format!("see whether `rustup run {name} rustc -vV` works");
        let version = read(&what, program(name, "rustc").arg("-vV"), &next)?;
        let sysroot = read(&what, program(name, "rustc").args(["--print", "sysroot"]), &next)?;
        let Some(version) = Version::parse(&version) else {
            bail!("{what}: it answered without release or LLVM version:\n{version}");
        };
        Ok(Self { name: name.to_owned(), sysroot: sysroot.trim().into(), version })
    }

    /// The version of its LLVM.
    pub(crate) fn llvm(&self) -> u32 {
        self.version.llvm
    }

    /// Why it cannot build eBPF, if so.
    pub(crate) fn defect(&self, llvm_max: u32) -> Option<String> {
        // The BPF target has no compiled `core`: it is built from source.
        let core = Path::new("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !self.sysroot.join(core).is_file() {
            return Some(format!(
                "it has no source of the standard library ({})",
                self.sysroot.join(core).display()
            ));
        }
        self.version.defect(llvm_max)
    }
}

impl Version {
    fn parse(answer: &str) -> Option<Self> {
        let field = |name| answer.lines().find_map(|line| line.strip_prefix(name));
        let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
        Some(Self { release: field("release: ")?.to_owned(), llvm })
    }

    fn defect(&self, llvm_max: u32) -> Option<String> {
        let Self { release, llvm } = self;
        let minor = release.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        if minor.is_none_or(|minor| minor < RUST_MINOR_MIN) {
            return Some(format!("it is Rust {release}, and 1.{RUST_MINOR_MIN} is needed"));
        }
        // LLVM reads bitcode of its own and earlier versions only.
        (*llvm > llvm_max).then(|| format!("its LLVM {llvm} is newer than bpf-linker's {llvm_max}"))
    }
}

/// The major version in `libLLVM.so.22.1` or `libLLVM-22.so`.
fn linked_llvm(libraries: &str) -> Option<u32> {
    let (_before, rest) = libraries.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_and_judged() {
        let answer = "rustc 1.97.0-nightly\nbinary: rustc\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let version = Version::parse(answer).expect("a version");
        assert_eq!(version, Version { release: "1.97.0-nightly".into(), llvm: 22 });
        assert_eq!(version.defect(22), None);
        assert!(version.defect(21).expect("a defect").contains("newer than bpf-linker's 21"));
        assert_eq!(Version::parse("release: 1.97.0"), None);
    }

    #[test]
    fn an_old_rust_is_refused() {
        let old = Version { release: "1.63.0".into(), llvm: 14 };
        assert!(old.defect(22).expect("a defect").contains("Rust 1.63.0"));
    }

    #[test]
    fn the_linker_tells_its_llvm() {
        assert_eq!(linked_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)"), Some(22));
        assert_eq!(linked_llvm("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so"), Some(19));
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
