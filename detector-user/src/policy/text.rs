//! TOML text to a table that knows where everything is, and the list of what is wrong with it.

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Severity, SourceLine};
use super::spelling::quoted;
pub(super) use super::texts::Span;
use super::texts::Texts;

/// Diagnostics of one severity given at most; the last one says how many more there are.
const DIAGNOSTICS_MAX: usize = 200;
/// Places told of that have the same wrong with them; the last of them says how many more there are.
pub(super) const MANY_MAX: usize = 20;
/// Characters shown of a line of a source file.
const LINE_CHARS_MAX: usize = 200;

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
    needs_force: bool,
}

impl Issue {
    /// An error: what is wrong and what should be there. What is there is the text of its place unless said.
    pub(super) fn new(message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            found: None,
            expected: Some(expected.into()),
            help: None,
            needs_force: false,
        }
    }

    /// A remark that needs no comparison.
    pub(super) fn remark(message: impl Into<String>) -> Self {
        Self { message: message.into(), found: None, expected: None, help: None, needs_force: false }
    }

    pub(super) fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    pub(super) fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// Something that only who insists may apply.
    pub(super) fn needs_force(self) -> Self {
        Self { needs_force: true, ..self }
    }

    /// As it is told of a text in which nothing is in quotes.
    pub(super) fn unquoted(self) -> Self {
        let unquoted = |text: Option<String>| text.map(|text| text.replace('"', "`"));
        Self { expected: unquoted(self.expected), help: unquoted(self.help), ..self }
    }

    /// Message, what was expected and help in one line, for what stands in no file.
    pub(super) fn one_line(self) -> String {
        let expected = self.expected.map(|expected| format!(": expected {expected}")).unwrap_or_default();
        let help = self.help.map(|help| format!("; {help}")).unwrap_or_default();
        format!("{}{expected}{help}", self.message)
    }

    /// Makes this one speak for `count` places, this and later ones.
    pub(super) fn count_from_here(&mut self, count: usize) {
        self.message = format!("{count} times from here on: {}", self.message);
    }

    /// With other help, if there is some.
    pub(super) fn better_help(self, help: Option<String>) -> Self {
        Self { help: help.or(self.help), ..self }
    }
}

/// Collects what is wrong with a policy.
pub(super) struct Report<'t> {
    text: &'t str,
    texts: Texts<'t>,
    entries: Vec<(Span, Severity, Issue)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, texts: Texts::new(text), entries: Vec::new() }
    }

    /// The text of the policy.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Where the text of a source file starts, if it has been added.
    pub(super) fn file(&self, file: &str) -> Option<usize> {
        self.texts.find(file)
    }

    /// Adds a source file, and tells where its text starts.
    pub(super) fn add_file(&mut self, file: String, text: String) -> usize {
        self.texts.add(file, text)
    }

    /// The text that starts there.
    pub(super) fn file_text(&self, base: usize) -> &str {
        &self.texts.at(&(base..base)).0.text
    }

    /// Bytes of all source files.
    pub(super) fn file_bytes(&self) -> usize {
        self.texts.file_bytes()
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

    /// Reports the first of many places that have the same wrong with them, and how many more there are.
    pub(super) fn many<T>(
        &mut self,
        severity: Severity,
        mut places: impl Iterator<Item = (Span, T)>,
        issue: impl Fn(&Self, T) -> Issue,
    ) {
        for shown in 1..=MANY_MAX {
            let Some((span, item)) = places.next() else { return };
            let mut issue = issue(self, item);
            let hidden = if shown == MANY_MAX { places.by_ref().count() } else { 0 };
            if hidden > 0 {
                issue.count_from_here(hidden + 1);
            }
            match severity {
                Severity::Error => self.error(span, issue),
                Severity::Warning => self.warning(span, issue),
            }
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.entries.iter().any(|(_, severity, _)| *severity == Severity::Error)
    }

    /// The line a place starts on, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        let (text, span) = self.texts.at(span);
        text.line(span.start).0
    }

    /// Everything collected, in the order of the text and each thing once.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.entries.sort_by_key(|(span, _, _)| (span.start, span.end));
        self.entries.dedup();
        let errors = self.entries.iter().filter(|(_, severity, _)| *severity == Severity::Error);
        let warnings = self.entries.iter().filter(|(_, severity, _)| *severity == Severity::Warning);
        let mut diagnostics = self.placed(errors.collect());
        diagnostics.extend(self.placed(warnings.collect()));
        diagnostics.sort_by(|one, other| one.place().cmp(&other.place()));
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
        let (source, span) = self.texts.at(span);
        let text = &source.text;
        let (line, line_start) = source.line(span.start);
        let start = text.floor_char_boundary(span.start.max(line_start));
        let end = text.floor_char_boundary(span.end.max(start));
        let before = text.get(line_start..start).unwrap_or_default();
        let about = text.get(start..end).unwrap_or_default();
        let whole_line = || first_line(text.get(line_start..).unwrap_or_default());
        let source_line = source
            .file
            .clone()
            .map(|file| SourceLine { file, text: whole_line().chars().take(LINE_CHARS_MAX).collect() });
        Diagnostic {
            severity,
            line,
            column: before.chars().count() + 1,
            width: first_line(about).chars().count().max(1),
            message: issue.message.clone(),
            found: issue.found.clone(),
            expected: issue.expected.clone(),
            help: issue.help.clone(),
            needs_force: issue.needs_force,
            source_line,
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
        let (source, span) = self.texts.at(span);
        let text = &source.text;
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end.max(start));
        match text.get(start..end).unwrap_or_default() {
            "" if start == text.len() => "end of file".to_owned(),
            "" if text.get(start..).is_some_and(|rest| rest.starts_with(['\n', '\r'])) => {
                "end of line".to_owned()
            }
            "" => {
                let next = text.get(start..).and_then(|rest| rest.chars().next());
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
