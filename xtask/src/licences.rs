//! Licences of dependencies: each is one that is allowed, and those of the shipped binary are listed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::iter::Peekable;
use std::str::SplitWhitespace;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::{cargo, read, say};
use crate::paths;

/// Licences that ask for no more than their notices, in the words of SPDX.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What may stand after `WITH`.
const ALLOWED_EXCEPTIONS: &[&str] = &["LLVM-exception"];

/// Packages that are fine all the same: name, what they declare (an expression, or the name of a file), and why.
const NAMED: &[(&str, &str, &str)] = &[(
    "libfuzzer-sys",
    "(MIT OR Apache-2.0) AND NCSA",
    "only `cargo xtask fuzz` builds it, and that is not shipped",
)];

/// The list of those in the shipped binary.
const LIST: &str = "LICENSES-THIRD-PARTY.md";

const HEAD: &str = "# Licences of what is in the binary

Written by `cargo xtask tidy`: the crates of other people that `detector` for Linux on x86-64 is built with, its eBPF program and what
runs only while it is built included. Rust's standard library (MIT OR Apache-2.0) and SQLite (in libsqlite3-sys, public domain) are in
it too.

| crate | licence | repository |
|---|---|---|
";

/// Checks the licences of all dependencies, and writes (or with `check`, compares) the list.
pub(crate) fn licences(check: bool) -> Result<()> {
    say("tidy", "licences of the dependencies");
    let mut metadata = cargo("metadata");
    metadata.args(["--format-version", "1", "--locked", "--all-features"]);
    let metadata = read("asking cargo for the dependencies", &mut metadata, "mend what cargo reports")?;
    let refused = refused(&serde_json::from_str(&metadata).context("reading what `cargo metadata` says")?)?;
    ensure!(
        refused.is_empty(),
        "expected licences of xtask/src/licences.rs (ALLOWED), found\n  {}\n  next: do without the crate, or read its licence and \
         allow it there, in ALLOWED or with the reason in NAMED",
        refused.join("\n  ")
    );
    let expected = format!("{HEAD}{}", rows(&shipped()?)?);
    let path = paths::root().join(LIST);
    if fs::read_to_string(&path).is_ok_and(|found| found == expected) {
        return Ok(());
    }
    if check {
        bail!("{LIST} is not what the dependencies are\n  next: `cargo xtask tidy` writes it");
    }
    fs::write(&path, expected).with_context(|| format!("writing {}", path.display()))
}

/// The crates of the binary, a line each: name and version, licence, repository.
fn shipped() -> Result<String> {
    let mut tree = cargo("tree");
    tree.args(["--locked", "--package", "detector-user", "--package", "detector-ebpf"]);
    tree.args(["--edges", "normal,build", "--target", "x86_64-unknown-linux-gnu"]);
    tree.args(["--prefix", "none", "--format", "{p}|{l}|{r}|"]);
    read("asking cargo for the crates of the binary", &mut tree, "mend what cargo reports")
}

/// The rows of the list. Our own crates have no repository yet, but a path in parentheses.
fn rows(tree: &str) -> Result<String> {
    let mut rows = BTreeSet::new();
    for line in tree.lines().filter(|line| !line.is_empty() && !line.contains(" (/")) {
        let [package, licence, repository, _] = line.split('|').collect::<Vec<_>>()[..] else {
            bail!("`cargo tree` says `{line}`; expected `NAME VERSION|LICENCE|REPOSITORY|`");
        };
        let name = package.split(' ').next().unwrap_or(package);
        rows.insert((name, licence, repository));
    }
    let mut text = String::new();
    for (name, licence, repository) in rows {
        writeln!(text, "| {name} | {licence} | {repository} |")?;
    }
    Ok(text)
}

/// The packages whose licences are not allowed, for people.
fn refused(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let mut refused = Vec::new();
    for package in packages {
        let text = |key: &str| package[key].as_str();
        let (name, version) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
        let declared = text("license").or(text("license_file")).unwrap_or("no licence");
        let is_named = NAMED.iter().any(|&(named, what, _)| (named, what) == (name, declared));
        if !is_named && text("license").and_then(is_allowed) != Some(true) {
            refused.push(format!("{name} {version}: {declared}"));
        }
    }
    Ok(refused)
}

/// Whether an SPDX expression can be met by licences that are allowed; `None`: it is no expression.
fn is_allowed(expression: &str) -> Option<bool> {
    // Before SPDX, Cargo's `/` said OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed = any(&mut words)?;
    words.next().is_none().then_some(allowed)
}

fn any(words: &mut Peekable<SplitWhitespace<'_>>) -> Option<bool> {
    let mut allowed = all(words)?;
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all(words)?;
    }
    Some(allowed)
}

/// AND binds more closely than OR.
fn all(words: &mut Peekable<SplitWhitespace<'_>>) -> Option<bool> {
    let mut allowed = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words)?;
    }
    Some(allowed)
}

fn one(words: &mut Peekable<SplitWhitespace<'_>>) -> Option<bool> {
    match words.next()? {
        "(" => {
            let allowed = any(words)?;
            words.next_if_eq(&")").map(|_| allowed)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        licence => {
            let is_known = ALLOWED.contains(&licence);
            if words.next_if_eq(&"WITH").is_none() {
                return Some(is_known);
            }
            let exception = words.next()?;
            Some(is_known && ALLOWED_EXCEPTIONS.contains(&exception))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_by_what_is_allowed() {
        for (expression, expected) in [
            ("MIT", Some(true)),
            ("GPL-3.0-only", Some(false)),
            ("MIT/GPL-3.0-only", Some(true)),
            ("GPL-2.0-only / MPL-2.0", Some(false)),
            ("MIT AND GPL-3.0-only", Some(false)),
            ("MIT OR MIT AND GPL-3.0-only", Some(true)),
            ("GPL-3.0-only AND MIT OR ISC", Some(true)),
            ("(MIT OR ISC) AND GPL-3.0-only", Some(false)),
            ("GPL-3.0-only AND (MIT OR ISC)", Some(false)),
            ("((MIT OR GPL-3.0-only) AND Unicode-3.0)", Some(true)),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", Some(true)),
            ("Apache-2.0 WITH Other-exception", Some(false)),
            ("GPL-3.0-only WITH LLVM-exception", Some(false)),
            ("", None),
            ("MIT OR", None),
            ("MIT ISC", None),
            ("(MIT", None),
            ("MIT)", None),
            ("Apache-2.0 WITH", None),
            ("OR MIT", None),
        ] {
            assert_eq!(is_allowed(expression), expected, "{expression}");
        }
    }

    #[test]
    fn a_package_is_named_with_what_it_declares() {
        let package = |name, licence, file| serde_json::json!({ "name": name, "version": "1.2.3", "license": licence, "license_file": file });
        let packages = [
            package("fine", Some("MIT"), None),
            package("libfuzzer-sys", Some("(MIT OR Apache-2.0) AND NCSA"), None),
            package("libfuzzer-sys", Some("NCSA"), None),
            package("own", None, Some("LICENSE")),
            package("silent", None, None),
        ];
        let found = refused(&serde_json::json!({ "packages": packages })).expect("packages");
        assert_eq!(found, ["libfuzzer-sys 1.2.3: NCSA", "own 1.2.3: LICENSE", "silent 1.2.3: no licence"]);
    }

    #[test]
    fn the_list_has_each_crate_of_others_once() {
        let tree = "us v0.1.0 (/src/us)|MIT||\na v1.0.0 (proc-macro)|MIT|https://a.example|\n\na v2.0.0|MIT|https://a.example| (*)\n";
        assert_eq!(rows(tree).expect("rows"), "| a | MIT | https://a.example |\n");
        assert!(rows("a v1.0.0|MIT\n").is_err());
    }
}
