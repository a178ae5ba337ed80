//! The commands, one file each. Every one of them ends with an exit code or a [`Failure`].

pub mod apply;
pub mod check;
pub mod confirm;
pub mod explain;
pub mod replay;
pub mod rules;
pub mod schema;
pub mod status;
pub mod top;
pub mod unload;

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::Path,
};

use crate::{
    capture::CaptureError,
    clock,
    kernel::{
        apply::ApplyError, attach::AttachError, links::NamespaceError, load::LoadError, maps::MapsError,
        pins::PinsError, probe::ProbeError, read::ReadError,
    },
    policy::{
        self, Checked, Context, Diagnostic, FileDiagnostic,
        compile::{Clocks, CompileError, Manifest, Tables, compile},
    },
    replay::ReplayError,
};

/// Done, or enforcing.
pub const EXIT_DONE: u8 = 0;
/// Could not be done, or could not tell.
pub const EXIT_FAILED: u8 = 1;
/// Usage, or invalid input.
pub const EXIT_INVALID: u8 = 2;
/// Loaded but not enforcing, or not loaded.
pub const EXIT_NOT_ENFORCING: u8 = 10;
/// Enforcing, but something needs a hand.
pub const EXIT_DEGRADED: u8 = 11;

/// Why a command could not do what it was asked for, and the exit code that says so. As JSON, what a command with
/// `--json` prints then.
#[derive(Debug, serde::Serialize)]
pub struct Failure {
    /// What went wrong and what to do, without a final newline.
    #[serde(rename = "error")]
    pub message: String,
    /// The exit code.
    #[serde(rename = "exit_code")]
    pub code: u8,
    /// What is said about places in a policy; the message has it too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<FileDiagnostic>,
}

impl Failure {
    /// The input is at fault.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self { code: EXIT_INVALID, message: message.to_string(), diagnostics: Vec::new() }
    }

    /// Something else is.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { code: EXIT_FAILED, message: message.to_string(), diagnostics: Vec::new() }
    }

    /// A policy is.
    fn policy(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let message = policy::render(file, text, &diagnostics).trim_end().to_owned();
        Self { message, code: EXIT_INVALID, diagnostics: policy::in_file(file, diagnostics) }
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::failed(error)
    }
}

impl From<PinsError> for Failure {
    fn from(error: PinsError) -> Self {
        Self::failed(error)
    }
}

impl From<MapsError> for Failure {
    fn from(error: MapsError) -> Self {
        Self::failed(error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::failed(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::failed(error)
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Manifest { .. } => Self::invalid(error),
            _ => Self::failed(error),
        }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NoInterface { .. } => Self::invalid(error),
            _ => Self::failed(error),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Capture(CaptureError::Io { .. }) => Self::failed(error),
            ReplayError::Capture(_) | ReplayError::Compile(_) => Self::invalid(error),
            ReplayError::Apply(error) => error.into(),
            _ => Self::failed(error),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(format_args!("cannot write the answer as JSON: {error}"))
    }
}

impl From<aya::maps::MapError> for Failure {
    fn from(error: aya::maps::MapError) -> Self {
        Self::failed(format_args!("cannot read the maps: {}", crate::kernel::load::chain(&error)))
    }
}

impl From<NamespaceError> for Failure {
    fn from(error: NamespaceError) -> Self {
        Self::failed(error)
    }
}

/// A policy's text and what it says.
#[derive(Debug)]
pub struct PolicyFile {
    /// The path as it was given.
    pub name: String,
    /// The text.
    pub text: String,
    /// The policy and its warnings.
    pub checked: Checked,
}

/// Reads and checks a policy.
pub fn read_policy(path: &Path) -> Result<PolicyFile, Failure> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    match parse_policy(path, &text) {
        Ok(checked) => Ok(PolicyFile { name, text, checked }),
        Err(diagnostics) => Err(Failure::policy(&name, &text, diagnostics)),
    }
}

impl PolicyFile {
    /// Compiles the policy; what does not fit is told like any other error of the file.
    pub fn compile(&self, previous: &Manifest, clocks: Clocks) -> Result<Tables, Failure> {
        compile(&self.checked.policy, previous, clocks).map_err(|error| self.does_not_fit(&error))
    }

    /// Refuses what is valid but likely to hurt nearly everyone.
    ///
    /// # Errors
    ///
    /// A warning that needs to be forced.
    pub fn check_force(&self) -> Result<(), Failure> {
        let warnings = self.checked.warnings.iter().filter(|warning| warning.needs_force);
        let warnings: Vec<_> = warnings.cloned().collect();
        if warnings.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::policy(&self.name, &self.text, warnings);
        failure.message += "\nnot applied: this is about nearly everyone; if it is meant, add --force";
        Err(failure)
    }

    /// The failure of a policy that is larger than the kernel's tables.
    pub fn does_not_fit(&self, error: &CompileError) -> Failure {
        Failure::policy(&self.name, &self.text, vec![error.diagnostic(&self.text)])
    }
}

/// Checks the text of the policy of a path, as of now and with its source files.
pub fn parse_policy(path: &Path, text: &str) -> Result<Checked, Vec<Diagnostic>> {
    let folder = path.parent().unwrap_or(path);
    policy::parse_in(text, &Context { now_unix_s: clock::unix_s(), folder, read: &read_at_most })
}

/// The bytes of a file; of one with more than `bytes_max`, one more than that.
fn read_at_most(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a policy.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| {
        Failure::invalid(format_args!("cannot read the policy {}: {error}; name a TOML file", path.display()))
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::invalid(format_args!("{}: not UTF-8 text at byte {at}: save it as UTF-8", path.display()))
    })
}

/// A mode as a policy says it.
pub fn mode_name(enforced_percent: u8) -> String {
    match enforced_percent {
        0 => "shadow".to_owned(),
        100 => "enforce".to_owned(),
        percent => format!("enforce {percent} %"),
    }
}

/// A time in the two largest units that it has.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Prints an answer as JSON.
pub fn print_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print_line(&serde_json::to_string_pretty(answer)?);
    Ok(())
}

/// Prints to standard output; a reader that went away is no failure of the command.
pub fn print_line(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A table for people: no frame, columns two spaces apart; those marked are numbers and stand to the right.
pub fn table(header: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for &number in numbers {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        let told = [59, 60, 3_599, 3_600, 86_399, 86_400, 200_000].map(duration);
        assert_eq!(
            told,
            ["59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h", "2 d 7 h"]
        );
    }
}
