//! Any text at all: no panic, and diagnostics that hold what they promise.

use proptest::prelude::*;

use super::SAMPLE;
use crate::policy::{
    Severity,
    compile::{Manifest, compile},
    parse, render,
};

/// Pieces that together are often nearly a policy.
const PIECES: [&str; 45] = [
    "version = 1\n",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "=",
    ",",
    ".",
    "\n",
    "\r\n",
    "#",
    " ",
    "\\",
    "\u{0}",
    "\u{feff}",
    "é",
    "service",
    "profile",
    "rule",
    "defaults",
    "parents",
    "packets",
    "source",
    "\"9/s\"",
    "\"tcp/1-2\"",
    "\"::/0\"",
    "\"192.0.2.1\"",
    "-1",
    "0x10",
    "1.5e9",
    "true",
    "2026-12-01",
    "99999999999999999999",
    "[[service]]\n",
    "ja4",
    "syn",
    "\"t13d1516h2_*_*\"",
    "\"4:64:*:*:*:*:*:*\"",
    "*",
];

/// Strings for the values of a policy.
const VALUES: [&str; 30] = [
    "0",
    "-1",
    "9223372036854775807",
    "\"\"",
    "\"/\"",
    "\"9/s\"",
    "\"0.1/d\"",
    "\"999999999999TB/s\"",
    "\"1.5kB/s\"",
    "\"64B/s\"",
    "\"::ffff:0.0.0.0/96\"",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "[]",
    "[\"::/0\"]",
    "[\"0.0.0.0/0\", \"::1\"]",
    "{}",
    "{ limit = \"strict\" }",
    "{ rate = \"9/s\", burst = 1 }",
    "\"allow\"",
    "\"drop\"",
    "\"tcp/0-65535\"",
    "[\"*\"]",
    "true",
    "\"t*_*_*\"",
    "\"q*_*_*\"",
    "[\"*_8daaf6152771_*\", \"*_8daaf6152771_*\"]",
    "\"*:*:*:*:*:*:*:+\"",
    "[\"6:64:0:1440:mss*44,7:mss,sok,ts,nop,ws:flow:0\"]",
    "{ limit = \"strict\", shared = true }",
];

fn check(text: &str) {
    if parse(text).is_ok() {
        super::schema::assert_takes(text);
    }
    let (diagnostics, errors_wanted) = match parse(text) {
        Ok(checked) => match compile(&checked.policy, &Manifest::default(), 0) {
            Ok(_) => (checked.warnings, false),
            Err(error) => (vec![error.diagnostic(text)], true),
        },
        Err(diagnostics) => (diagnostics, true),
    };
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    assert_eq!(errors.count() > 0, errors_wanted, "in {text:?}: {diagnostics:?}");
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').collect();
    for diagnostic in &diagnostics {
        let line = lines.get(diagnostic.line - 1).unwrap_or_else(|| panic!("{diagnostic:?} in {text:?}"));
        assert!((1..=line.chars().count() + 1).contains(&diagnostic.column), "{diagnostic:?} in {text:?}");
        assert!(diagnostic.width >= 1);
        assert!(!diagnostic.to_string().contains(char::is_control), "{diagnostic:?}");
        if diagnostic.severity == Severity::Error {
            assert!(diagnostic.found.is_some() && diagnostic.expected.is_some(), "{diagnostic:?}");
        }
    }
    render("policy.toml", text, &diagnostics);
}

/// The sample with the characters from `start` replaced.
fn mutated(start: prop::sample::Index, length: usize, new: &str) -> String {
    let characters: Vec<char> = SAMPLE.chars().collect();
    let start = start.index(characters.len());
    let end = (start + length).min(characters.len());
    characters[..start].iter().copied().chain(new.chars()).chain(characters[end..].iter().copied()).collect()
}

/// The sample with the value of one line replaced.
fn revalued(line: prop::sample::Index, value: &str) -> String {
    let index = line.index(SAMPLE.lines().count());
    let lines = SAMPLE.lines().enumerate().map(|(number, line)| match line.split_once('=') {
        Some((key, _)) if number == index => format!("{key}= {value}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_source_files(lines in prop::collection::vec("[0-9a-f.:/#,\"; \t\r\u{feff}\u{a0}é]{0,12}", 0..40)) {
        let list = lines.join("\n");
        let text = format!("{SAMPLE}[[rule]]\nname = \"list\"\naction = \"drop\"\nsource_file = \"list\"\n");
        let result = super::parse_with(0, &[("etc/list", list.as_bytes())], &text);
        let diagnostics = result.map_or_else(|errors| errors, |checked| checked.warnings);
        let lines: Vec<_> = list.strip_prefix('\u{feff}').unwrap_or(&list).split('\n').collect();
        for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.source_line.is_some()) {
            let line = lines[diagnostic.line - 1];
            prop_assert!((1..=line.chars().count()).contains(&diagnostic.column), "{:?} in {:?}", diagnostic, list);
            prop_assert!(!diagnostic.to_string().contains(char::is_control), "{:?}", diagnostic);
        }
        render("policy.toml", &text, &diagnostics);
    }

    #[test]
    fn random_pieces(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        check(&pieces.concat());
    }

    #[test]
    fn random_mutations(start in any::<prop::sample::Index>(), length in 0_usize..40, new in ".{0,6}") {
        check(&mutated(start, length, &new));
    }

    #[test]
    fn random_cuts_and_pieces(
        start in any::<prop::sample::Index>(),
        length in 0_usize..200,
        new in prop::sample::select(&PIECES[..]),
    ) {
        check(&mutated(start, length, new));
    }

    #[test]
    fn random_values(line in any::<prop::sample::Index>(), value in prop::sample::select(&VALUES[..])) {
        check(&revalued(line, value));
    }

    #[test]
    fn random_scalars(line in any::<prop::sample::Index>(), value in "[\"\\[]?[0-9a-zA-Z./:%*-]{0,12}[\"\\]]?") {
        check(&revalued(line, &value));
    }

    #[test]
    fn shuffled_lines(order in Just(SAMPLE.lines().collect::<Vec<_>>()).prop_shuffle()) {
        check(&order.join("\n"));
    }
}

#[test]
fn every_prefix_of_the_sample() {
    for (end, _) in SAMPLE.char_indices() {
        check(&SAMPLE[..end]);
    }
}

#[test]
fn deep_and_long_texts() {
    check(&format!("{}=1", "a.".repeat(100_000)));
    check(&format!("[{}", "a.".repeat(200)));
    check(&"[".repeat(100_000));
    check(&format!("x = {}", "{a=".repeat(10_000)));
    check(&"[[a]]\n[[a.a]]\n[[a.a.a]]\n".repeat(100));
    check(&format!("x = \"{}\"", "é".repeat(100_000)));
    check(&format!("version = 1\nx = [{}]", "1,".repeat(100_000)));
}
