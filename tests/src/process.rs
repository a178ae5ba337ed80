//! Other programs, and waiting: always with a deadline, never longer than its owner lives.

use std::{
    fs, io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long anything may take that usually takes a moment; machines that build at the same time are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Runs a program to its end and returns what it printed on standard output.
///
/// # Errors
///
/// It cannot be started, or fails; the error holds what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = ours(command)
        .output()
        .with_context(|| format!("cannot start {command:?}: `cargo xtask setup` installs what is needed"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("what {command:?} printed is no text"))
}

/// Looks until there is something to see.
///
/// # Errors
///
/// The look fails, or there is still nothing to see after `patience`.
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look().with_context(|| format!("waiting until {what}"))? {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            bail!("waited {} s until {what}, in vain", patience.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// A program that runs beside us. It is killed when this is dropped, and by the kernel when the thread that started it
/// dies.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
}

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = ours(command).spawn().with_context(|| {
            format!("cannot start {command:?}: `cargo xtask setup` installs what is needed")
        })?;
        Ok(Self { child, what: format!("{command:?}") })
    }

    /// Whether it sleeps for a time.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn is_asleep(&mut self) -> Result<bool> {
        if let Some(status) = self.ended()? {
            bail!("it ended: {status}");
        }
        let path = format!("/proc/{}/syscall", self.id());
        let syscall = fs::read_to_string(path).context("reading what a process waits for")?;
        Ok(syscall.split(' ').next() == Some(&libc::SYS_clock_nanosleep.to_string()))
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its end, if it has ended.
    ///
    /// # Errors
    ///
    /// The kernel cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking for the end of {}", self.what))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It still runs after `patience`.
    pub fn end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.what);
        wait_until(&what, patience, || self.ended())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended ({status}), signal {signal} comes too late", self.what);
        }
        let id = i32::try_from(self.child.id()).context("process numbers are below 2^22")?;
        // SAFETY: no precondition. The process was not waited for, so the number is still its own.
        let result = unsafe { libc::kill(id, signal) };
        if result != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("signalling {}", self.what));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has a program read nothing, be in a process group of its own (a Ctrl-C on the terminal is for us, who clean up in
/// order), and be killed by the kernel when the thread that starts it dies: not even SIGKILL leaves it behind.
pub(crate) fn ours(command: &mut Command) -> &mut Command {
    let die_with_us = || {
        // SAFETY: changes only the calling process.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(die_with_us) };
    // Where Debian keeps what root uses is not on the PATH of everybody.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    command.env("PATH", path).stdin(Stdio::null()).process_group(0)
}

/// The exit code of a program that was not killed.
///
/// # Errors
///
/// A signal ended it.
pub fn code(status: ExitStatus) -> Result<i32> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(code),
        (None, signal) => bail!("ended by signal {signal:?}"),
    }
}

/// Whether a process lives.
pub fn is_alive(id: u32) -> bool {
    std::path::Path::new("/proc").join(id.to_string()).exists()
}
