//! Source files: a prefix or an address a line, with comments.

use ipnet::IpNet;

use super::context::Context;
use super::diagnostic::is_plain;
use super::fields::Field;
use super::text::{At, Issue, MANY_MAX, Report};
use super::{SOURCE_FILES_BYTES_MAX, prefix};

const FILE_EXPECTED: &str = "a text file with a prefix or an address on each line";
const LINE_EXPECTED: &str =
    "a prefix or an address such as 192.0.2.0/24 or 2001:db8::1, and `#` before comments";

/// Adds the prefixes of the file that a field names.
pub(super) fn read(
    field: Field<'_, '_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
    prefixes: &mut Vec<At<IpNet>>,
) -> Option<()> {
    let base = text(field, context, report)?;
    let list = List::parse(report.file_text(base), base, prefixes);
    if list.lines_with_prefix == 0 {
        let issue = Issue::new("source file without a prefix", "at least one prefix or address");
        report.error(field.span(), issue);
    }
    for (span, issue) in list.wrong {
        report.error(span, issue);
    }
    Some(())
}

/// Where the text of the file starts among the texts of the report.
fn text(field: Field<'_, '_>, context: &Context<'_>, report: &mut Report<'_>) -> Option<usize> {
    let path = field.text("the path of a file", report)?;
    if path.value.is_empty() || !path.value.chars().all(is_plain) {
        report.error(path.span, Issue::new("not the path of a source file", "a path on one line"));
        return None;
    }
    let path_there = context.folder.join(path.value);
    let file = path_there.display().to_string();
    if let Some(base) = report.file(&file) {
        return Some(base);
    }
    let bytes_max = SOURCE_FILES_BYTES_MAX - report.file_bytes();
    let bytes = match (context.read)(&path_there, bytes_max) {
        Ok(bytes) => bytes,
        Err(error) => {
            let issue = Issue::new(format!("cannot read the source file {file}: {error}"), FILE_EXPECTED);
            report.error(
                path.span,
                issue.help("a relative path starts from the folder of the policy".to_owned()),
            );
            return None;
        }
    };
    if bytes.len() > bytes_max {
        let mib = SOURCE_FILES_BYTES_MAX >> 20;
        let issue = Issue::new(
            format!("source file {file} is too large"),
            format!("at most {mib} MiB in all source files of the policy"),
        );
        let issue = issue.found(format!("more than the {bytes_max} bytes left of them"));
        report.error(path.span, issue.help("merge neighbouring prefixes into wider ones".to_owned()));
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(report.add_file(file, text)),
        Err(error) => {
            let issue = Issue::new(format!("source file {file} is not UTF-8 text"), FILE_EXPECTED);
            let issue = issue.found(not_utf8(error.as_bytes(), error.utf8_error().valid_up_to(), &file));
            report.error(path.span, issue.help("save it as UTF-8".to_owned()));
            None
        }
    }
}

/// The first byte that is no text, with its place as in other messages.
fn not_utf8(bytes: &[u8], at: usize, file: &str) -> String {
    let before = String::from_utf8_lossy(&bytes[..at]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("the byte {:#04x} at {file}:{line}:{column}", bytes[at])
}

/// What is in a source file besides its prefixes.
#[derive(Default)]
struct List {
    /// Lines that are neither empty nor comments.
    lines_with_prefix: usize,
    /// The first of the lines that cannot be read, the last of them counting the rest.
    wrong: Vec<(std::ops::Range<usize>, Issue)>,
}

impl List {
    /// Reads the text of a file that starts at `base`.
    fn parse(text: &str, base: usize, prefixes: &mut Vec<At<IpNet>>) -> Self {
        let mut list = Self::default();
        let mut hidden = 0;
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut line_start = start;
        for line in text[start..].split('\n') {
            let content = line.split('#').next().unwrap_or_default();
            let entry = content.trim_ascii();
            let entry_start = base + line_start + (content.len() - content.trim_ascii_start().len());
            line_start += line.len() + 1;
            if entry.is_empty() {
                continue;
            }
            list.lines_with_prefix += 1;
            let span = entry_start..entry_start + entry.len();
            match prefix::parse(entry) {
                Ok(value) => prefixes.push(At { value, span }),
                Err(_) if list.wrong.len() == MANY_MAX => hidden += 1,
                Err(issue) => list.wrong.push((span, of_line(entry, issue))),
            }
        }
        if let Some((_, last)) = list.wrong.last_mut().filter(|_| hidden > 0) {
            last.count_from_here(hidden + 1);
        }
        list
    }
}

/// What is wrong with a line, said as it is written in a file: without quotes.
fn of_line(entry: &str, issue: Issue) -> Issue {
    let separates = |character: char| character.is_whitespace() || "\"',;[]".contains(character);
    let mut words = entry.split(separates).filter(|word| !word.is_empty());
    if let Some(first) = words.next()
        && first != entry
        && prefix::parse(first).is_ok()
    {
        let issue = Issue::new("more on the line than a prefix", LINE_EXPECTED);
        return issue.help(format!("write {first} alone; comments start with `#`"));
    }
    issue.unquoted()
}
