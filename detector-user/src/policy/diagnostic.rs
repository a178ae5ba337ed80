//! What is wrong with a policy and where, for people and for programs.

use std::fmt;

use serde::Serialize;

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

impl Diagnostic {
    /// The diagnostic as people read it, with the line it is about; `file` is only a name.
    pub fn located<'a>(&'a self, file: &'a str, text: &'a str) -> Located<'a> {
        Located { diagnostic: self, file, text }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDiagnostic {
    /// The path as it was given.
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
    text: &'a str,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { diagnostic, file, text } = *self;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = text.split('\n').nth(diagnostic.line.saturating_sub(1)).unwrap_or_default();
        let gutter = " ".repeat(diagnostic.line.to_string().len());
        let indent = " ".repeat(diagnostic.column.saturating_sub(1));

        writeln!(formatter, "{file}:{diagnostic}")?;
        writeln!(formatter, "{gutter} |")?;
        write!(formatter, "{} | ", diagnostic.line)?;
        for character in source.trim_end_matches('\r').chars() {
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
    diagnostics.into_iter().map(|diagnostic| FileDiagnostic { file: file.to_owned(), diagnostic }).collect()
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
