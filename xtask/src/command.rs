//! Running other programs, and what is said when that goes wrong.

use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// A line about what happens now, on standard error beside cargo's own progress.
pub(crate) fn say(habit: &str, text: impl Display) {
    eprintln!("{} {text}", painted("1;32", &format!("{habit}:")));
}

/// The last line of a habit that failed.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("{} {error:#}", painted("1;31", "error:"));
}

/// Whether what goes to standard output is read by a person.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn painted(colour: &str, text: &str) -> String {
    let plain = !io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\x1b[{colour}m{text}\x1b[0m") }
}

/// A command that starts in the root of the workspace and cannot wait for an answer.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::root()).stdin(Stdio::null());
    command
}

/// Cargo, with the toolchain that runs us.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = command("cargo");
    cargo.arg(subcommand);
    cargo
}

/// Runs a command whose output the user sees. `what` was being done; `next` is what to do when it fails.
pub(crate) fn run(what: &str, command: &mut Command, next: &str) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(what, command, next))?;
    if !status.success() {
        bail!("{what}: {status}\n  command: {command:?}\n  next: {next}");
    }
    Ok(())
}

/// Runs a command for what it prints on standard output; its standard error is seen only in the error.
pub(crate) fn read(what: &str, command: &mut Command, next: &str) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| cannot_start(what, command, next))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("{what}: {status}\n  command: {command:?}\n  it said: {}\n  next: {next}", said.trim());
    }
    String::from_utf8(stdout).with_context(|| format!("{what}: the output of {command:?} is not text"))
}

/// The beginning of the error for a command that did not even start.
pub(crate) fn cannot_start(what: &str, command: &Command, next: &str) -> String {
    format!("{what}: cannot start {command:?} (next: {next})")
}
