//! The booted kernel: what it says, and how it ends.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{cannot_start, command, say};
use crate::tally::{Counter, Tally};

/// Booting takes seconds and the tests minutes; beyond that it hangs.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// What `/init` prints last, followed by the exit status of the tests.
const MARKER: &str = "guest-exit: ";

/// The machine, with emulated processors: KVM is not everywhere, and a wrong answer of a test does not depend on speed.
pub(crate) fn qemu(kernel: &Path, initramfs: &Path) -> Command {
    let mut qemu = command("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1G",
        "-no-reboot",
        "-nodefaults",
        "-nic",
        "none",
    ]);
    qemu.args(["-display", "none", "-serial", "stdio", "-kernel"]).arg(kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    qemu
}

/// Boots, passes on what the guest says, and counts its tests.
pub(crate) fn run(kernel: &Path, initramfs: &Path) -> Result<Tally> {
    let mut qemu = qemu(kernel, initramfs);
    say("kernels", format!("booting (at most {} minutes)", DEADLINE.as_secs() / 60));
    let started = Instant::now();
    let child = qemu.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| cannot_start("booting", &qemu, "run `cargo xtask setup`"))?;
    let console = child.stdout.take().context("qemu's output was piped a moment ago")?;
    let heard = listen(&pieces(console), started + DEADLINE);
    end(&mut child)?;
    let (tally, exit) = heard?;
    let seconds = started.elapsed().as_secs_f32();
    say("kernels", format!("the guest ran for {seconds:.1} s"));
    judge(tally, exit)
}

/// The tests' sum, if the guest came to its end and agrees with the sum.
fn judge(mut tally: Tally, exit: Option<u8>) -> Result<Tally> {
    let Some(exit) = exit else {
        bail!(
            "the guest stopped before its tests ended\n  next: `cargo xtask kernels --keep` says how to boot it by hand"
        );
    };
    if exit == 0 && tally == Tally::default() {
        bail!("the guest ran no test at all\n  next: see what its test programs print");
    }
    // A test program that died has no result, and a module that was refused is no test.
    if exit != 0 && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Reads the console in a thread of its own, so that silence has an end.
fn pieces(mut console: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut piece) {
            if sender.send(piece[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Passes the console on and counts, until it closes. Returns the sum and the exit status the guest told.
fn listen(pieces: &Receiver<Vec<u8>>, deadline: Instant) -> Result<(Tally, Option<u8>)> {
    let mut counter = Counter::default();
    let mut text = Vec::new();
    loop {
        match pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(piece) => {
                counter.feed(&piece);
                let mut out = io::stdout();
                out.write_all(&piece).and_then(|()| out.flush()).context("passing the guest's output on")?;
                text.extend(piece);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "the guest did not end within {} minutes\n  next: the last test it names above hangs on this kernel",
                DEADLINE.as_secs() / 60
            ),
        }
    }
    Ok((counter.finish(), told_exit(&String::from_utf8_lossy(&text))))
}

fn told_exit(console: &str) -> Option<u8> {
    console.lines().rev().find_map(|line| line.strip_prefix(MARKER))?.trim().parse().ok()
}

/// Ends qemu, if it has not ended by itself.
fn end(child: &mut Child) -> Result<()> {
    if child.try_wait().context("asking whether qemu has ended")?.is_none() {
        child.kill().context("ending qemu")?;
    }
    child.wait().map(drop).context("waiting for qemu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_is_a_line_of_its_own() {
        assert_eq!(told_exit("booted\r\nguest-exit: 0\r\n[    3.1] reboot: Power down\r\n"), Some(0));
        assert_eq!(told_exit("guest-exit: 1\r\n"), Some(1));
        assert_eq!(told_exit("it said guest-exit: 0\r\n"), None);
        assert_eq!(told_exit("Kernel panic"), None);
    }

    #[test]
    fn a_guest_is_judged_by_both() {
        let passed = Tally { passed: 3, ..Tally::default() };
        assert_eq!(judge(passed.clone(), Some(0)).expect("a tally"), passed);
        assert_eq!(judge(passed.clone(), Some(1)).expect("a tally").failed, 1);
        assert!(judge(passed, None).is_err());
        assert!(judge(Tally::default(), Some(0)).is_err());
    }

    #[test]
    fn silence_has_an_end() {
        let (_sender, receiver) = mpsc::channel();
        let error = listen(&receiver, Instant::now()).expect_err("nobody speaks");
        assert!(error.to_string().contains("did not end"));
    }
}
