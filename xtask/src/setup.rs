//! `cargo xtask setup`: what is missing is installed, what is there is left alone.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, command, run, say};
use crate::ebpf::{self, Toolchain};
use crate::packages::{self, Part};
use crate::paths;

/// Makes the machine able to build, run and test. It asks nothing and can be repeated.
pub(crate) fn setup() -> Result<()> {
    let toolchain = toolchain()?;
    linker(&toolchain)?;
    debian_packages(Part::Tests, "packages for tests, lab and bench")?;
    bpf_file_system()
}

/// The same with what only tests take: clients that fingerprints are taken of, a browser among them, and Python programs.
pub(crate) fn with_clients() -> Result<()> {
    setup()?;
    debian_packages(Part::Clients, "clients for tests")?;
    python()
}

/// A toolchain that builds eBPF: the chosen one, `bpf`, a nightly, or Debian's. None is fetched with rustup.
fn toolchain() -> Result<Toolchain> {
    // An older linker than the one we build would be replaced.
    let llvm_max = ebpf::linker()?.map_or(ebpf::LLVM, |linker| linker.llvm.max(ebpf::LLVM));
    let name = ebpf::DEFAULT;
    let debian = Path::new("/usr");
    let chosen = env::var(ebpf::CHOICE).is_ok();
    if chosen || ebpf::names()?.iter().any(|known| known == name) {
        match ebpf::find_for(llvm_max) {
            Ok(found) => {
                // A Debian toolchain may lack a part that the lints need, though it builds.
                if found.sysroot == debian {
                    packages::install(&packages::missing(Part::Toolchain)?)?;
                }
                there(&format!("toolchain `{}` ({})", found.name, found.sysroot.display()));
                return Ok(found);
            }
            Err(error) if chosen => return Err(error),
            Err(error) => say("setup", format!("toolchain `{name}` will be linked anew, because {error:#}")),
        }
    }
    if let Some(nightly) = ebpf::capable_nightly(llvm_max)? {
        link(&nightly.sysroot, &format!("`{}` has what it takes", nightly.name))?;
        return ebpf::find_for(llvm_max);
    }
    say("setup", "no toolchain here can build eBPF (it takes rust-src and an LLVM that bpf-linker can read)");
    packages::install(&packages::missing(Part::Toolchain)?)?;
    link(debian, "Debian's Rust has what it takes")?;
    ebpf::find_for(llvm_max)
}

/// Gives a toolchain the name that the build looks for. A link of that name is replaced, a real toolchain is not.
fn link(sysroot: &Path, why: &str) -> Result<()> {
    let name = ebpf::DEFAULT;
    say(
        "setup",
        format!(
            "linking toolchain `{name}` to {}: {why}, and the build looks for that name",
            sysroot.display()
        ),
    );
    let mut link = command("rustup");
    link.args(["toolchain", "link", name]).arg(sysroot);
    run(
        "linking the toolchain for eBPF",
        &mut link,
        &format!("`rustup toolchain uninstall {name}`, then set up again"),
    )
}

/// bpf-linker, on an LLVM that reads what the toolchain writes.
fn linker(toolchain: &Toolchain) -> Result<()> {
    match ebpf::linker()? {
        Some(linker) if linker.llvm >= toolchain.llvm() => {
            there(&format!("bpf-linker for LLVM {} ({})", linker.llvm, linker.path.display()));
            return Ok(());
        }
        Some(linker) => {
            let (old, new) = (linker.llvm, toolchain.llvm());
            say(
                "setup",
                format!(
                    "replacing bpf-linker for LLVM {old}: it cannot read LLVM {new} of `{}`",
                    toolchain.name
                ),
            );
        }
        None => {}
    }
    packages::install(&packages::missing(Part::Linker)?)?;
    let (version, llvm) = (ebpf::LINKER_VERSION, ebpf::LLVM);
    say(
        "setup",
        format!("building bpf-linker {version}: it links the eBPF program (two minutes on two cores)"),
    );
    let mut install = cargo("install");
    install.args(["--quiet", "--locked", "--force", "bpf-linker", "--version", version]);
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    // The first is read by bpf-linker, the second by llvm-sys; `llvm-config` on PATH may be of another LLVM, or absent.
    let prefix = format!("/usr/lib/llvm-{llvm}");
    install.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
    // The project's own settings are not meant for another program.
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        install.env_remove(name);
    }
    run(
        "building bpf-linker",
        &mut install,
        "mend what cargo reports above, then run `cargo xtask setup` again",
    )?;
    if ebpf::linker()?.is_none_or(|linker| linker.llvm < toolchain.llvm()) {
        bail!("bpf-linker was installed but is not found\n  next: put cargo's `bin` directory first on PATH");
    }
    Ok(())
}

/// Debian's packages of a part.
fn debian_packages(part: Part, what: &str) -> Result<()> {
    let missing = packages::missing(part)?;
    if missing.is_empty() {
        there(what);
        return Ok(());
    }
    packages::install(&missing)
}

/// The Python programs of the tests, in a place of their own beside what cargo builds.
fn python() -> Result<()> {
    let wanted = paths::root().join("tests/python/requirements.txt");
    let wanted_text = fs::read_to_string(&wanted).context("reading tests/python/requirements.txt")?;
    let place = paths::target().join("python");
    // Written last: what was begun and not ended is made anew.
    let done = place.join("requirements.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted_text) {
        there("Python programs of the tests");
        return Ok(());
    }
    say("setup", "installing Python programs of the tests: schemathesis, openapi-python-client, aioquic");
    let next = "see whether pip reaches its package index, then run `cargo xtask setup` again";
    let mut make = command("python3");
    make.args(["-m", "venv", "--clear"]).arg(&place);
    run("making a place for Python programs", &mut make, next)?;
    let mut install = command(&place.join("bin/python").to_string_lossy());
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&wanted);
    run("installing Python programs", &mut install, next)?;
    fs::write(&done, wanted_text).context("noting what is installed")
}

/// The file system that holds pinned maps and links.
fn bpf_file_system() -> Result<()> {
    const DIRECTORY: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    if is_mounted(&mounts, DIRECTORY, "bpf") {
        there(DIRECTORY);
        return Ok(());
    }
    if !Path::new(DIRECTORY).is_dir() {
        bail!("there is no {DIRECTORY}\n  next: use a kernel with CONFIG_BPF_SYSCALL, and mount /sys");
    }
    let by_hand = format!("mount -t bpf bpf {DIRECTORY}");
    packages::may_be_root(&by_hand)?;
    say("setup", format!("mounting the BPF file system at {DIRECTORY}: pinned maps and links live there"));
    let mut mount = packages::as_root("mount");
    mount.args(["-t", "bpf", "bpf", DIRECTORY]);
    run("mounting the BPF file system", &mut mount, &format!("as root, run: {by_hand}"))
}

/// Whether a file system of that type is mounted there, by the kernel's list of mounts.
fn is_mounted(mounts: &str, directory: &str, kind: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(directory) && fields.next() == Some(kind)
    })
}

fn there(what: &str) {
    say("setup", format!("already there: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_of_its_place_and_type() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert!(is_mounted(mounts, "/sys/fs/bpf", "bpf"));
        assert!(!is_mounted(mounts, "/sys", "bpf"));
        assert!(!is_mounted(mounts, "/sys/fs/bpf2", "bpf"));
    }
}
