//! What the language takes and what it refuses, by the exact words.

mod oversized;
mod sample;
mod structure;
mod syntax;
mod values;
mod warned;
mod wild;

use super::{Checked, parse};

/// The policy with everything.
const SAMPLE: &str = include_str!("sample.toml");

/// Diagnostics on one line each, with the help after them.
fn lines(diagnostics: &[super::Diagnostic]) -> Vec<String> {
    let line = |diagnostic: &super::Diagnostic| match &diagnostic.help {
        Some(help) => format!("{diagnostic} [{help}]"),
        None => diagnostic.to_string(),
    };
    diagnostics.iter().map(line).collect()
}

#[track_caller]
fn accepted(text: &str) -> Checked {
    parse(text).unwrap_or_else(|diagnostics| panic!("{:#?}", lines(&diagnostics)))
}

#[track_caller]
fn assert_refused(text: &str, expected: &[&str]) {
    let diagnostics = parse(text).expect_err("the policy should be refused");
    assert_eq!(lines(&diagnostics), expected, "in:\n{text}");
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
