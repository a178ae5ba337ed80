//! What is wrong with a policy and where, for people and for programs.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// The policy can be used, and is probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing to say about a place in a policy.
///
/// Its texts are single lines and safe to print: what they quote of the file is escaped and shortened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1; a byte order mark is not counted.
    pub column: usize,
    /// Characters of this line it is about, at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What is there. Every error has it.
    pub found: Option<String>,
    /// What should be there. Every error has it.
    pub expected: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// Whether only who insists may apply a policy of which this is said.
    pub needs_force: bool,
    /// The line it is about, where that is in a source file and not in the policy.
    #[serde(skip)]
    pub source_line: Option<SourceLine>,
}

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The path of the file, from where the policy's path starts.
    pub file: String,
    /// The line, shortened.
    pub text: String,
}

impl Diagnostic {
    /// Orders diagnostics: the policy before its source files, and each by line and column.
    pub fn place(&self) -> (Option<&str>, usize, usize) {
        (self.source_line.as_ref().map(|source| source.file.as_str()), self.line, self.column)
    }

    /// The diagnostic as people read it, with the line it is about. Name and text are those of the policy; `file` is only
    /// a name.
    pub fn located<'a>(&'a self, file: &'a str, text: &'a str) -> Located<'a> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (file, line) = match &self.source_line {
            Some(source) => (source.file.as_str(), source.text.as_str()),
            None => (file, text.split('\n').nth(self.line.saturating_sub(1)).unwrap_or_default()),
        };
        Located { diagnostic: self, file, line }
    }
}

/// On one line: `12:9: error: …: found …, expected …`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.line, self.column, self.severity, self.message)?;
        let mut separator = ": ";
        if let Some(found) = &self.found {
            write!(formatter, "{separator}found {found}")?;
            separator = ", ";
        }
        if let Some(expected) = &self.expected {
            write!(formatter, "{separator}expected {expected}")?;
        }
        Ok(())
    }
}

/// A diagnostic with its file, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FileDiagnostic {
    /// The path of the policy as it was given, or that of a source file.
    pub file: String,
    /// What is said of it.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
}

/// A diagnostic with its file, the line it is about and a mark under the place.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    diagnostic: &'a Diagnostic,
    file: &'a str,
    line: &'a str,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { diagnostic, file, line } = *self;
        let gutter = " ".repeat(diagnostic.line.to_string().len());
        let indent = " ".repeat(diagnostic.column.saturating_sub(1));

        writeln!(formatter, "{file}:{diagnostic}")?;
        writeln!(formatter, "{gutter} |")?;
        write!(formatter, "{} | ", diagnostic.line)?;
        for character in line.trim_end_matches('\r').chars() {
            write!(formatter, "{}", printable(character))?;
        }
        write!(formatter, "\n{gutter} | {indent}{}", "^".repeat(diagnostic.width.max(1)))?;
        if let Some(help) = &diagnostic.help {
            write!(formatter, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// Every diagnostic as people read it, an empty line between two. Ends with a line feed unless there is none.
pub fn render(file: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let located: Vec<String> =
        diagnostics.iter().map(|diagnostic| format!("{}\n", diagnostic.located(file, text))).collect();
    located.join("\n")
}

/// Diagnostics with their file.
pub fn in_file(file: &str, diagnostics: Vec<Diagnostic>) -> Vec<FileDiagnostic> {
    let placed = |diagnostic: Diagnostic| {
        let source = diagnostic.source_line.as_ref();
        FileDiagnostic { file: source.map_or(file, |source| &source.file).to_owned(), diagnostic }
    };
    diagnostics.into_iter().map(placed).collect()
}

/// A source character that takes one column and cannot steer a terminal.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        _ if is_plain(character) => character,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// Whether a character can be shown as it is.
pub(super) fn is_plain(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || character.escape_debug().len() == 1
}
