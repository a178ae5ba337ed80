//! The commands, one file each. Every one of them ends with an exit code or a [`Failure`].

pub mod amount;
pub mod apply;
pub mod check;
pub mod completions;
pub mod confirm;
pub mod effective;
pub mod events;
pub mod explain;
pub mod fingerprint;
mod fleet_order;
pub mod fleets;
pub mod history;
pub mod hunt;
pub mod incident;
pub mod man;
pub mod plan;
mod policy_file;
pub mod record;
pub mod replay;
pub mod rollback;
pub mod rules;
pub mod schema;
pub mod show;
pub mod status;
pub mod token;
pub mod top;
pub mod unload;
pub mod victims;

use std::{fmt, fs, path::Path};

pub use policy_file::{PolicyFile, SourceFiles, parse_policy, read_policy};

use crate::{
    capture::CaptureError,
    fleets::{StoreError, memory::NotAdded},
    history::HistoryError,
    kernel::{
        apply::ApplyError, attach::AttachError, links::NamespaceError, load::LoadError, maps::MapsError,
        pins::PinsError, probe::ProbeError, read::ReadError,
    },
    policy::{self, Diagnostic, FileDiagnostic},
    recording::RecordingError,
    replay::ReplayError,
};

/// Done, or enforcing.
pub const EXIT_DONE: u8 = 0;
/// Could not be done, or could not tell.
pub const EXIT_FAILED: u8 = 1;
/// Usage, or invalid input.
pub const EXIT_INVALID: u8 = 2;
/// `replay --expect-pass`: something that should pass is limited, or nothing of it was seen.
pub const EXIT_UNEXPECTED: u8 = 3;
/// Loaded but not enforcing, or not loaded.
pub const EXIT_NOT_ENFORCING: u8 = 10;
/// Enforcing, but something needs a hand.
pub const EXIT_DEGRADED: u8 = 11;

/// What a failure is about: which HTTP status the API answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The input.
    Input,
    /// Something else that is done, or waits to be ended.
    Conflict,
    /// Nothing is loaded, or there is no policy yet.
    Unavailable,
    /// Something else.
    Other,
}

/// Why a command could not do what it was asked for, and the exit code that says so. As JSON, what a command with
/// `--json` prints then.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
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
    /// What it is about.
    #[serde(skip)]
    pub cause: Cause,
}

impl Failure {
    /// The input is at fault.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(EXIT_INVALID, Cause::Input, message)
    }

    /// Something else is.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(EXIT_FAILED, Cause::Other, message)
    }

    /// Something else is done, or waits to be ended.
    pub fn conflict(message: impl fmt::Display) -> Self {
        Self::new(EXIT_FAILED, Cause::Conflict, message)
    }

    /// Nothing is loaded, or there is no policy yet.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(EXIT_FAILED, Cause::Unavailable, message)
    }

    fn new(code: u8, cause: Cause, message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code, diagnostics: Vec::new(), cause }
    }

    /// A policy is.
    fn policy(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let message = policy::render(file, text, &diagnostics).trim_end().to_owned();
        Self { diagnostics: policy::in_file(file, diagnostics), ..Self::invalid(message) }
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::failed(error)
    }
}

impl From<PinsError> for Failure {
    fn from(error: PinsError) -> Self {
        match error {
            PinsError::NotLoaded { .. } => Self::unavailable(error),
            PinsError::Locked { .. } => Self::conflict(error),
            _ => Self::failed(error),
        }
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
            ApplyError::Manifest { .. } | ApplyError::Incidents(_) => Self::invalid(error),
            ApplyError::NoPolicy => Self::unavailable(error),
            ApplyError::Pending { .. } | ApplyError::FirstTrial => Self::conflict(error),
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

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Io { .. } => Self::failed(error),
            _ => Self::invalid(error),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Capture(error) => error.into(),
            ReplayError::Compile(_) => Self::invalid(error),
            ReplayError::Apply(error) => error.into(),
            _ => Self::failed(error),
        }
    }
}

impl From<RecordingError> for Failure {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::Foreign { .. } | RecordingError::Row { .. } => Self::invalid(error),
            RecordingError::Open { .. } | RecordingError::Write { .. } => Self::failed(error),
        }
    }
}

impl From<NotAdded> for Failure {
    fn from(error: NotAdded) -> Self {
        Self::invalid(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { .. } => Self::failed(error),
            _ => Self::invalid(error),
        }
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::NoVersion { .. }
            | HistoryError::NoOrder { .. }
            | HistoryError::NoHint { .. }
            | HistoryError::Full { .. } => Self::invalid(error),
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

/// Tells people what went wrong beside what was asked for.
pub fn warn(text: &str) {
    let warning = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    anstream::eprintln!("{warning}warning{warning:#}: {text}");
}

/// What people call the active policy: its version, or where it has none the number of the kernel.
pub fn version_name(version: u64, epoch: u32) -> String {
    if version == 0 { format!("policy {epoch}") } else { format!("version {version}") }
}

/// A time for people: UTC, to the second.
pub fn time(unix_s: u64) -> String {
    rfc3339(unix_s).replace('T', " ").replace('Z', "")
}

/// A time for programs: UTC, to the second (RFC 3339).
pub fn rfc3339(unix_s: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s.min(TIME_S_MAX));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The last second of the year 9999: later times have no form.
const TIME_S_MAX: u64 = 253_402_300_799;

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

/// Prints one of many answers as JSON: an object a line.
pub fn print_json_line(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print_line(&serde_json::to_string(answer)?);
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
