//! TOML text to a table that knows where everything is, and the list of what is wrong with it.

use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Severity};
use super::spelling::quoted;

/// Bytes of the text, from the start to before the end.
pub(super) type Span = Range<usize>;

/// Diagnostics of one severity given at most; the last one says how many more there are.
const DIAGNOSTICS_MAX: usize = 200;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// Something to say, before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issue {
    message: String,
    found: Option<String>,
    expected: Option<String>,
    help: Option<String>,
}

impl Issue {
    /// An error: what is wrong and what should be there. What is there is the text of its place unless said.
    pub(super) fn new(message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { message: message.into(), found: None, expected: Some(expected.into()), help: None }
    }

    /// A remark that needs no comparison.
    pub(super) fn remark(message: impl Into<String>) -> Self {
        Self { message: message.into(), found: None, expected: None, help: None }
    }

    pub(super) fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    pub(super) fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// With other help, if there is some.
    pub(super) fn better_help(self, help: Option<String>) -> Self {
        Self { help: help.or(self.help), ..self }
    }
}

/// Collects what is wrong with one text.
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each line starts, the first after a byte order mark.
    lines: Vec<usize>,
    entries: Vec<(Span, Severity, Issue)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let lines =
            std::iter::once(first).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, lines, entries: Vec::new() }
    }

    /// The text reported on.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Refuses the policy for what is at `span`.
    pub(super) fn error(&mut self, span: Span, issue: Issue) {
        let found = issue.found.clone().unwrap_or_else(|| self.snippet(&span));
        self.entries.push((span, Severity::Error, issue.found(found)));
    }

    /// Warns of what is at `span`.
    pub(super) fn warning(&mut self, span: Span, issue: Issue) {
        self.entries.push((span, Severity::Warning, issue));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.entries.iter().any(|(_, severity, _)| *severity == Severity::Error)
    }

    /// The line a place starts on, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.lines.partition_point(|start| *start <= span.start).max(1)
    }

    /// Everything collected, in the order of the text and each thing once.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.entries.sort_by_key(|(span, _, _)| (span.start, span.end));
        self.entries.dedup();
        let errors = self.entries.iter().filter(|(_, severity, _)| *severity == Severity::Error);
        let warnings = self.entries.iter().filter(|(_, severity, _)| *severity == Severity::Warning);
        let mut diagnostics = self.placed(errors.collect());
        diagnostics.extend(self.placed(warnings.collect()));
        diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        diagnostics
    }

    fn placed(&self, entries: Vec<&(Span, Severity, Issue)>) -> Vec<Diagnostic> {
        let shown_max = if entries.len() > DIAGNOSTICS_MAX { DIAGNOSTICS_MAX - 1 } else { DIAGNOSTICS_MAX };
        let shown = entries.iter().take(shown_max);
        let mut placed: Vec<_> =
            shown.map(|(span, severity, issue)| self.place(span, *severity, issue)).collect();
        if let Some((span, severity, _)) = entries.get(shown_max) {
            let hidden = entries.len() - shown_max;
            let rest = Issue::new(format!("{hidden} more of the kind `{severity}`"), "none")
                .found(format!("{} in all", entries.len()))
                .help(format!("correct the first {shown_max} and check again"));
            placed.push(self.place(span, *severity, &rest));
        }
        placed
    }

    /// What there is to say about `span`, with its line and column.
    pub(super) fn place(&self, span: &Span, severity: Severity, issue: &Issue) -> Diagnostic {
        let line = self.line(span);
        let line_start = self.lines.get(line - 1).copied().unwrap_or_default();
        let start = self.text.floor_char_boundary(span.start.max(line_start));
        let end = self.text.floor_char_boundary(span.end.max(start));
        let before = self.text.get(line_start..start).unwrap_or_default();
        let about = self.text.get(start..end).unwrap_or_default();
        Diagnostic {
            severity,
            line,
            column: before.chars().count() + 1,
            width: first_line(about).chars().count().max(1),
            message: issue.message.clone(),
            found: issue.found.clone(),
            expected: issue.expected.clone(),
            help: issue.help.clone(),
        }
    }

    /// The value without quotes that a place is in.
    fn word_around(&self, span: &Span) -> Span {
        let ends = |character: char| character.is_whitespace() || "[]{},=#\"'".contains(character);
        let start = self.text.floor_char_boundary(span.start);
        let (before, after) = self.text.split_at(start);
        let first = before.rfind(ends).map_or(0, |end| self.text.ceil_char_boundary(end + 1));
        let last = after.find(ends).map_or(self.text.len(), |end| start + end);
        first..last
    }

    /// What the text says at a place, fit for a message.
    fn snippet(&self, span: &Span) -> String {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end.max(start));
        match self.text.get(start..end).unwrap_or_default() {
            "" if start == self.text.len() => "end of file".to_owned(),
            "" if self.text.get(start..).is_some_and(|rest| rest.starts_with(['\n', '\r'])) => {
                "end of line".to_owned()
            }
            "" => {
                let next = self.text.get(start..).and_then(|rest| rest.chars().next());
                next.map_or_else(|| "nothing".to_owned(), |next| format!("`{}`", quoted(&next.to_string())))
            }
            about => quoted(first_line(about)),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Reads the text as TOML. Gives nothing where what is missing could be taken for an error of the policy; keys
/// given twice are reported and the first of them kept.
pub(super) fn document<'t>(report: &mut Report<'t>) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(report.text());
    let mut complete = true;
    for error in errors {
        let span = error.span().unwrap_or_default();
        complete &= error.message() == DUPLICATE_KEY;
        let (span, issue) = syntax(error.message(), span, report);
        report.error(span, issue);
    }
    complete.then(|| table.into_inner())
}

/// The parser's whole message for a key that is there already.
const DUPLICATE_KEY: &str = "duplicate key";
/// The parser's message for a value that is neither quoted nor anything else, so also for none at all.
const VALUE_UNQUOTED: &str = "string values must be quoted";

/// The parser's messages for a value that starts like one of a kind and is none: `203.0.113.10`, `tcp/443`.
const SCALARS_INVALID: [&str; 4] =
    ["invalid boolean", "invalid date-time", "invalid float", "invalid integer number"];
const QUOTES_TYPOGRAPHIC: [char; 5] = ['“', '”', '„', '‘', '’'];

/// The parser's message, taken apart: it has only one text for what is wrong and what it expected.
fn syntax(message: &str, span: Span, report: &Report<'_>) -> (Span, Issue) {
    let (wrong, expected) = message.split_once(", expected ").unwrap_or((message, "valid TOML"));
    let in_quotes = "a value, or a text in quotes";
    let issue = match wrong {
        DUPLICATE_KEY => {
            let key = report.snippet(&span);
            Issue::new(format!("duplicate key `{key}`"), "each key once").found("it a second time")
        }
        VALUE_UNQUOTED if span.is_empty() => Issue::new("invalid TOML, missing value", "a value after `=`"),
        VALUE_UNQUOTED => {
            let text = report.snippet(&span);
            let issue = Issue::new(format!("invalid TOML, {wrong}"), in_quotes);
            issue.help(format!("write \"{}\"", text.trim_matches(QUOTES_TYPOGRAPHIC)))
        }
        _ if SCALARS_INVALID.contains(&wrong) => {
            let word = report.word_around(&span);
            let text = report.snippet(&word);
            let is_text = text.contains(['/', ':']) || text.matches('.').count() > 1;
            let issue = Issue::new(
                format!("invalid TOML, {}", if is_text { VALUE_UNQUOTED } else { wrong }),
                in_quotes,
            );
            return (word, issue.help(is_text.then(|| format!("write \"{text}\""))));
        }
        _ => Issue::new(format!("invalid TOML, {}", quoted(wrong)), expected),
    };
    (span, issue)
}
