//! What the language takes and what it refuses, by the exact words.

mod fingerprints;
mod firing;
mod oversized;
mod sample;
mod schema;
mod source_files;
mod structure;
mod syntax;
mod trials;
mod values;
mod warned;
mod wild;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Checked, Context, Diagnostic, parse, parse_in};

/// The policy with everything.
const SAMPLE: &str = include_str!("sample.toml");

/// Diagnostics on one line each, with the help after them.
fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |diagnostic: &Diagnostic| match &diagnostic.help {
        Some(help) => format!("{diagnostic} [{help}]"),
        None => diagnostic.to_string(),
    };
    diagnostics.iter().map(line).collect()
}

#[track_caller]
fn accepted(text: &str) -> Checked {
    let checked = parse(text).unwrap_or_else(|diagnostics| panic!("{:#?}", lines(&diagnostics)));
    schema::assert_takes(text);
    checked
}

#[track_caller]
fn assert_refused(text: &str, expected: &[&str]) {
    let diagnostics = parse(text).expect_err("the policy should be refused");
    assert_eq!(lines(&diagnostics), expected, "in:\n{text}");
}

/// Reads a policy at a time, and beside it files that are only here.
fn parse_with(now_unix_s: u64, files: &[(&str, &[u8])], text: &str) -> Result<Checked, Vec<Diagnostic>> {
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    let read = |path: &Path, _: usize| {
        let bytes = path.to_str().and_then(|path| files.get(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes.to_vec())
    };
    parse_in(text, &Context { now_unix_s, folder: Path::new("etc"), read: &read })
}

#[track_caller]
fn assert_warned(text: &str, expected: &[&str]) {
    assert_eq!(lines(&accepted(text).warnings), expected, "in:\n{text}");
}

/// One test for each kind of error: the text of a policy, and everything it is refused for.
macro_rules! refused {
    ($($name:ident: $text:expr => [$($line:expr),* $(,)?];)*) => {
        $(#[test] fn $name() { $crate::policy::tests::assert_refused(&$text, &[$($line),*]); })*
    };
}
use refused;
