//! Debian packages: which are needed and why, which are missing, and how they are installed.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Result, bail};

use crate::command::{command, read, run, say};
use crate::paths;

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compiling the eBPF program, where no toolchain can yet.
    Toolchain,
    /// Compiling bpf-linker, where there is none yet.
    Linker,
    /// The tests, the lab and the bench.
    Tests,
    /// The clients that tests take fingerprints of.
    Clients,
    /// The engine of the fuzzing.
    Fuzz,
}

/// How to see that a package is there.
#[derive(Debug)]
pub(crate) enum Probe {
    /// Its program is found, wherever it came from.
    Program(&'static str),
    /// Debian's package manager has it installed.
    Installed,
    /// Python finds its module, wherever it came from.
    Module(&'static str),
}
use Probe::{Installed, Module, Program};

/// One row of [`PACKAGES`].
#[derive(Debug)]
pub(crate) struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// What needs it.
    pub part: Part,
    probe: Probe,
    why: &'static str,
}

const fn package(part: Part, name: &'static str, probe: Probe, why: &'static str) -> Package {
    Package { name, part, probe, why }
}

/// Everything from Debian.
pub(crate) const PACKAGES: &[Package] = &[
    package(Part::Toolchain, "rustc-web", Installed, "a Rust compiler whose LLVM bpf-linker can read"),
    package(Part::Toolchain, "cargo-web", Installed, "the cargo of that compiler"),
    package(
        Part::Toolchain,
        "rust-web-src",
        Installed,
        "source of `core`, which is compiled for the BPF target",
    ),
    package(Part::Toolchain, "rust-web-clippy", Installed, "lints for the eBPF program"),
    package(Part::Linker, "llvm-22-dev", Installed, "the LLVM that bpf-linker is built on"),
    package(Part::Linker, "libpolly-22-dev", Installed, "a part of LLVM that its configuration names"),
    package(Part::Tests, "iproute2", Program("ip"), "network namespaces and veth pairs"),
    package(Part::Tests, "bpftool", Program("bpftool"), "looking at programs and maps from outside"),
    package(Part::Tests, "curl", Program("curl"), "a real client"),
    package(Part::Tests, "nginx", Program("nginx"), "a real HTTPS service (installed, not started)"),
    package(Part::Tests, "openssl", Program("openssl"), "the certificate of that service, and a client"),
    package(
        Part::Tests,
        "openssh-server",
        Program("sshd"),
        "a session to be locked out of (installed, not started)",
    ),
    package(Part::Tests, "openssh-client", Program("ssh"), "the client of that session"),
    package(Part::Tests, "ca-certificates", Installed, "downloads over HTTPS"),
    package(Part::Tests, "python3", Program("python3"), "small servers and clients in tests"),
    package(Part::Tests, "python3-venv", Module("ensurepip"), "a place for the Python programs of tests"),
    package(Part::Tests, "qemu-system-x86", Program("qemu-system-x86_64"), "booting old kernels"),
    package(Part::Tests, "busybox-static", Installed, "the shell in the booted kernel"),
    package(Part::Tests, "cpio", Program("cpio"), "packing what the booted kernel runs"),
    package(Part::Tests, "xz-utils", Program("xz"), "unpacking modules of the booted kernel"),
    package(Part::Tests, "nftables", Program("nft"), "what the bench compares with: dynamic sets"),
    package(Part::Tests, "iptables", Program("iptables"), "what the bench compares with: hashlimit"),
    package(Part::Clients, "golang-go", Program("go"), "a client on Go's own TLS"),
    package(Part::Clients, "nodejs", Program("node"), "a client on Node"),
    package(Part::Clients, "gnutls-bin", Program("gnutls-cli"), "a client on GnuTLS"),
    package(Part::Clients, "chromium", Program("chromium"), "a browser, without a window"),
    package(Part::Fuzz, "g++", Program("c++"), "compiling libFuzzer"),
];

impl Package {
    fn is_there(&self, installed: &BTreeSet<String>) -> bool {
        match self.probe {
            Program(name) => paths::program(name).is_some(),
            Installed => installed.contains(self.name),
            Module(name) => has_module(name),
        }
    }
}

fn has_module(name: &str) -> bool {
    let mut python = command("python3");
    python.args(["-c", &format!("import {name}")]);
    python.output().is_ok_and(|output| output.status.success())
}

/// The packages of that part which are not there.
pub(crate) fn missing(part: Part) -> Result<Vec<&'static Package>> {
    let installed = if is_debian() { installed()? } else { BTreeSet::new() };
    Ok(PACKAGES.iter().filter(|package| package.part == part && !package.is_there(&installed)).collect())
}

/// Installs the packages, saying what and why before.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    for Package { name, why, .. } in packages {
        say("setup", format!("installing Debian package {name}: {why}"));
    }
    if !is_debian() {
        bail!(
            "this is neither Debian nor Ubuntu, so packages cannot be installed\n  next: install what Debian calls {}, \
             then run `cargo xtask setup` again",
            names.join(" ")
        );
    }
    may_be_root(&format!("apt-get update && apt-get install --no-install-recommends {}", names.join(" ")))?;
    // Once is enough for all parts.
    static REFRESHED: Once = Once::new();
    REFRESHED.call_once(refresh);
    available(&names)?;
    for removed in removals(&names)? {
        say("setup", format!("apt removes {removed}, which conflicts with these packages"));
    }
    // Another apt that runs at the same time may clean our downloads away: the second attempt finds it gone.
    if let Err(error) = apt_install(&names) {
        say("setup", format!("trying once more, because {error:#}"));
        apt_install(&names)?;
    }
    for (package, service) in [("nginx", "nginx"), ("openssh-server", "ssh")] {
        if names.contains(&package) {
            let mut disable = as_root("update-rc.d");
            disable.args([service, "disable"]).stdout(Stdio::null());
            let what = format!("keeping {service} from starting at boot");
            run(&what, &mut disable, "run it by hand")?;
        }
    }
    Ok(())
}

/// Fetches the lists of packages. Some source of the machine may be out of reach while those we need are not, so what
/// fails is the installation, not this.
pub(crate) fn refresh() {
    say("setup", "fetching the lists of packages (apt-get update)");
    let mut update = as_root("apt-get");
    update.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]);
    if let Err(error) =
        run("fetching the lists of packages", &mut update, "going on with the lists there are")
    {
        say("setup", format!("{error:#}"));
    }
}

/// A program started as root: directly, or through sudo.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() {
        return command(program);
    }
    let mut sudo = command("sudo");
    sudo.args(["-n", program]);
    sudo
}

/// An error that names what to run, unless we are root or may become it without an answer.
pub(crate) fn may_be_root(by_hand: &str) -> Result<()> {
    if is_root() || command("sudo").args(["-n", "true"]).output().is_ok_and(|sudo| sudo.status.success()) {
        return Ok(());
    }
    bail!("this needs root, and sudo is missing or asks for a password\n  next: as root, run: {by_hand}")
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_user(&status) == Some("0")
}

/// The second number of `Uid: real effective saved file-system`.
fn effective_user(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)
}

fn is_debian() -> bool {
    speaks_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn speaks_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .any(|system| system == "debian" || system == "ubuntu")
}

fn installed() -> Result<BTreeSet<String>> {
    let mut query = command("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
    let listing = read("asking dpkg what is installed", &mut query, "see whether dpkg-query works")?;
    Ok(listing.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect())
}

/// An error that names the packages apt cannot find.
fn available(names: &[&str]) -> Result<()> {
    let mut policy = command("apt-cache");
    policy.arg("policy").args(names).env("LC_ALL", "C");
    let policy = read("asking apt for the packages", &mut policy, "see whether `apt-cache policy` works")?;
    let absent: Vec<_> = names.iter().filter(|name| !has_candidate(&policy, name)).copied().collect();
    if absent.is_empty() {
        return Ok(());
    }
    bail!(
        "apt does not find {}\n  next: Debian 12 has them in its security archive: see that /etc/apt/sources.list or \
         sources.list.d has `deb http://deb.debian.org/debian-security bookworm-security main`. Elsewhere, for \
         rust and llvm packages: install a nightly toolchain with its rust-src component and bpf-linker, then run \
         `cargo xtask setup` again",
        absent.join(" ")
    )
}

fn has_candidate(policy: &str, name: &str) -> bool {
    let entry = policy.lines().skip_while(|line| line.strip_suffix(':') != Some(name)).skip(1);
    entry
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|candidate| candidate != "(none)")
}

/// What apt would remove to install the packages.
fn removals(names: &[&str]) -> Result<Vec<String>> {
    let mut simulate = command("apt-get");
    simulate.args(["-s", "-qq", "install", "--no-install-recommends"]).args(names);
    let plan = read("asking apt what it would do", &mut simulate, "mend what apt reports")?;
    Ok(plan
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next())
        .map(str::to_owned)
        .collect())
}

/// Installs without starting services: `policy-rc.d` forbids that, and is there only meanwhile.
fn apt_install(names: &[&str]) -> Result<()> {
    const INSTALL: &str = r#"
        guard=/usr/sbin/policy-rc.d
        if [ ! -e "$guard" ]; then
            trap 'rm -f "$guard"' EXIT
            trap 'exit 1' HUP INT TERM
            printf '#!/bin/sh\nexit 101\n' >"$guard"
            chmod 755 "$guard"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
    "#;
    let mut install = as_root("sh");
    install.args(["-c", INSTALL, "apt-install"]).args(names);
    // dpkg's pages of progress would hide what matters; its complaints go to standard error.
    install.stdout(Stdio::null());
    let by_hand = format!("as root, run: apt-get install --no-install-recommends {}", names.join(" "));
    run("installing Debian packages", &mut install, &by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_once_with_a_reason() {
        let names: BTreeSet<_> = PACKAGES.iter().map(|package| package.name).collect();
        assert_eq!(names.len(), PACKAGES.len());
        assert!(PACKAGES.iter().all(|package| !package.why.is_empty()));
    }

    #[test]
    fn debian_and_its_children() {
        assert!(speaks_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(speaks_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!speaks_debian("ID=fedora\nHOME_URL=\"https://debian.example\"\n"));
        assert!(!speaks_debian(""));
    }

    #[test]
    fn a_candidate_is_of_its_package() {
        let policy = "curl:\n  Installed: (none)\n  Candidate: 7.88\n  Version table:\n     7.88 500\n\
            gone:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert!(has_candidate(policy, "curl"));
        assert!(!has_candidate(policy, "gone"));
        assert!(!has_candidate(policy, "never-heard-of"));
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some("0"));
        assert_eq!(effective_user(""), None);
    }
}
