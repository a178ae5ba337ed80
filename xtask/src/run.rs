//! `cargo xtask run`: detector in a lab of its own, or for real.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::command::say;
use crate::paths;
use crate::setup::setup;
use crate::test::{DETECTOR_BIN, build};

/// Sets up, builds, and becomes what is to run: a signal meant for us then reaches the one who has to clean up.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup()?;
    build()?;
    let mut child = if is_real(args) { real(args) } else { lab(args) };
    say("run", format!("{child:?}"));
    child.stdin(Stdio::inherit());
    // On success this does not return.
    let error = child.exec();
    bail!("cannot start {child:?}: {error}\n  next: see whether `cargo build --release` makes that file")
}

/// Whether the arguments name an interface.
fn is_real(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--iface" || arg.to_string_lossy().starts_with("--iface="))
}

fn real(args: &[OsString]) -> Command {
    // Files that the arguments name are relative to where the user is, not to the workspace.
    let mut detector = Command::new(paths::release("detector"));
    detector.arg("run").args(args);
    detector
}

fn lab(args: &[OsString]) -> Command {
    let mut lab = Command::new(paths::release("lab"));
    lab.args(args).stdin(Stdio::null()).env(DETECTOR_BIN, paths::release("detector"));
    lab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_makes_it_real() {
        let real = |args: &[&str]| is_real(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(real(&["--sources", "1000", "--iface", "eth0"]));
        assert!(real(&["--iface=eth0"]));
        assert!(!real(&["--seconds", "15"]));
        assert!(!real(&[]));
    }
}
