//! What holds for every input. What does not is a panic, which ends the fuzzing with the input that it came from.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;

use crate::input::Input;
use crate::policy::{
    BURST_BYTES_MIN, BYTES_PER_S_MAX, BYTES_PER_S_MIN, Budget, Budgets, COUNT_PER_S_MAX, Checked, Context,
    Diagnostic, Matches, NAME_CHARS_MAX, NAME_RESERVED, PROFILES_MAX, Policy, Profile, REFILL_NS_MAX,
    RULES_MAX, SERVICES_MAX, Severity,
    compile::{Clocks, Manifest, Tables, compile},
    difference::{Difference, difference},
    in_file, parse_in,
    patterns::{Moment, PATTERNS_MAX, Patterns},
    render, target,
};

/// Between the ends of rules in the seeds: 2026-06-01T00:00:00Z.
const NOW_S: u64 = 1_780_272_000;
const CLOCKS: Clocks =
    Clocks { tick_ns: 4_000_000, kernel_ns: 3_600_000_000_000, unix_ns: NOW_S * 1_000_000_000 };
const FILE: &str = "policy.toml";

/// Reads, compiles and tells of an input, and asks whether everything holds that is promised of it.
///
/// # Panics
///
/// Something does not hold.
pub fn hold_for(input: &Input<'_>) {
    let first = parse(input);
    assert_eq!(first, parse(input), "the same policy is read differently the second time");
    let diagnostics = match first {
        Ok(Checked { policy, warnings }) => {
            assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning), "{warnings:?}");
            assert_promised(&policy);
            warnings.into_iter().chain(compiled(&policy, input)).collect()
        }
        Err(diagnostics) => {
            let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
            assert!(diagnostics.iter().any(is_error), "refused without an error: {diagnostics:?}");
            diagnostics
        }
    };
    for diagnostic in &diagnostics {
        assert_placed(diagnostic, input);
    }
    assert_rendered(diagnostics, input);
}

fn parse(input: &Input<'_>) -> Result<Checked, Vec<Diagnostic>> {
    let read = |path: &Path, _: usize| input.read(path);
    // Without a folder, names of files are the paths that messages tell.
    parse_in(&input.policy, &Context { now_unix_s: NOW_S, folder: Path::new(""), read: &read })
}

/// Compiles a policy more than once; what is wrong if it does not fit.
fn compiled(policy: &Policy, input: &Input<'_>) -> Option<Diagnostic> {
    let (first, second) =
        (compile(policy, &Manifest::default(), CLOCKS), compile(policy, &Manifest::default(), CLOCKS));
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert_same(&first, &second);
            let again = compile(policy, &first.manifest, CLOCKS);
            assert_same(&first, &again.expect("a policy fits in the place of itself"));
            assert_eq!(difference(&first, &second, 0), Difference::default());
            None
        }
        (Err(first), Err(second)) => {
            assert_eq!(first, second, "the same policy is refused differently the second time");
            let diagnostic = first.diagnostic(&input.policy);
            assert_eq!(diagnostic.severity, Severity::Error);
            // Before any address, port or name stands a key.
            assert!((diagnostic.line, diagnostic.column) > (1, 1), "without a place: {diagnostic:?}");
            Some(diagnostic)
        }
        (first, second) => panic!("the same policy fits once: {:?}, {:?}", first.err(), second.err()),
    }
}

fn assert_same(one: &Tables, other: &Tables) {
    assert_eq!(one.header, other.header);
    assert!(one.destinations == other.destinations, "destinations differ");
    assert!(one.ports == other.ports, "ports differ");
    assert_eq!(one.cells, other.cells);
    assert_eq!(one.classes, other.classes);
    assert_eq!(one.parent_classes, other.parent_classes);
    assert_eq!(one.rules_v4, other.rules_v4);
    assert_eq!(one.rules_v6, other.rules_v6);
    assert_eq!(one.manifest, other.manifest);
}

/// What a [`Policy`] promises to whoever relies on it.
fn assert_promised(policy: &Policy) {
    let Policy { mode: _, allow, services, profiles, rules, fleets: _ } = policy;
    assert!(services.len() <= SERVICES_MAX && profiles.len() <= PROFILES_MAX && rules.len() <= RULES_MAX);
    assert_prefixes(allow);
    assert_names(services.iter().map(|service| service.name.as_str()));
    assert_names(profiles.keys().map(String::as_str));
    assert_names(rules.iter().map(|rule| rule.name.as_str()));
    for service in services {
        assert!(!service.addresses.is_empty() && !service.ports.is_empty(), "{service:?}");
        assert!(service.profile.iter().all(|name| profiles.contains_key(name)), "{service:?}");
        assert_prefixes(&service.addresses);
    }
    for rule in rules {
        match &rule.matches {
            Matches::Sources(sources) => assert!(!sources.is_empty(), "{rule:?}"),
            Matches::Fingerprints(patterns) => assert_patterns(patterns),
        }
        assert!(
            rule.service.iter().all(|name| services.iter().any(|service| service.name == *name)),
            "{rule:?}"
        );
        if let Some(name) = rule.action.profile() {
            let profile = profiles.get(name).unwrap_or_else(|| panic!("{rule:?}"));
            if let Some(patterns) = rule.matches.patterns() {
                assert!(charged(&profile.budgets, patterns).is_some(), "{rule:?}");
            }
        }
        assert!(!rule.action.is_shared() || rule.matches.patterns().is_some(), "{rule:?}");
        assert_prefixes(rule.matches.sources());
    }
    profiles.values().for_each(assert_bounded);
}

/// The budget that a limit of a rule about fingerprints charges.
fn charged<'a>(budgets: &'a Budgets, patterns: &Patterns) -> Option<&'a Budget> {
    match patterns.acts_at() {
        Moment::Syn => budgets.connections.as_ref(),
        Moment::ClientHello => budgets.handshakes.as_ref(),
    }
}

/// Each is told as what is read as the same.
fn assert_patterns(patterns: &Patterns) {
    assert!(!patterns.is_empty());
    assert!(patterns.ja4.len() <= PATTERNS_MAX && patterns.syn.len() <= PATTERNS_MAX);
    for pattern in &patterns.ja4 {
        assert_eq!(pattern.to_string().parse().as_ref(), Ok(pattern));
    }
    for pattern in &patterns.syn {
        assert_eq!(pattern.to_string().parse().as_ref(), Ok(pattern));
    }
    for target in patterns.targets() {
        let read = target.contains('|') || target::target(&target).is_ok();
        assert!(read, "{target} is no target");
    }
}

fn assert_names<'a>(names: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for name in names {
        let is_name_character = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        assert!(name.bytes().all(is_name_character), "{name:?} is no name");
        assert!((1..=NAME_CHARS_MAX).contains(&name.len()) && name != NAME_RESERVED, "{name:?} is no name");
        assert!(seen.insert(name), "{name:?} twice");
    }
}

fn assert_prefixes(prefixes: &[IpNet]) {
    for prefix in prefixes {
        assert_eq!(*prefix, prefix.trunc(), "bits are set after the length");
        let IpNet::V6(v6) = prefix else { continue };
        let is_mapped = v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some();
        assert!(!is_mapped, "{prefix} is mapped");
    }
}

fn assert_bounded(profile: &Profile) {
    let assert_budget = |budget: &Budget, per_s_max: u64| {
        let Budget { rate, burst } = *budget;
        assert!(rate.count >= 1 && rate.per_ns >= 1 && burst >= 1, "{budget:?}");
        let most = u128::from(per_s_max) * u128::from(rate.per_ns);
        assert!(u128::from(rate.count) * 1_000_000_000 <= most, "{budget:?}");
        let refill_ns = u128::from(burst) * u128::from(rate.per_ns) / u128::from(rate.count);
        assert!(refill_ns <= u128::from(REFILL_NS_MAX), "{budget:?}");
    };
    let assert_budgets = |budgets: &Budgets| {
        let Budgets { packets, bytes, connections, handshakes } = budgets;
        let counts = packets.iter().chain(connections).chain(handshakes);
        counts.for_each(|budget| assert_budget(budget, COUNT_PER_S_MAX));
        if let Some(budget) = bytes {
            assert_budget(budget, BYTES_PER_S_MAX);
            assert!(budget.burst >= BURST_BYTES_MIN, "{budget:?}");
            let least = u128::from(BYTES_PER_S_MIN) * u128::from(budget.rate.per_ns);
            assert!(u128::from(budget.rate.count) * 1_000_000_000 >= least, "{budget:?}");
        }
    };
    assert_budgets(&profile.budgets);
    for parent in profile.parents.levels().into_iter().flatten() {
        assert_budgets(&parent.budgets);
        parent.new_sources.iter().for_each(|budget| assert_budget(budget, COUNT_PER_S_MAX));
    }
}

/// A diagnostic is about a place inside its text, and everything it says is on one line.
fn assert_placed(diagnostic: &Diagnostic, input: &Input<'_>) {
    let text = match &diagnostic.source_line {
        None => &*input.policy,
        Some(source) => {
            let bytes = input.file(source.file.as_bytes()).expect("a place is in a file that was read");
            str::from_utf8(bytes).expect("a place is in a file of text")
        }
    };
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').nth(diagnostic.line - 1);
    let characters = line.unwrap_or_else(|| panic!("no such line: {diagnostic:?}")).chars().count();
    // The end of a line is a place of width 1.
    let end = diagnostic.column + diagnostic.width;
    assert!(diagnostic.column >= 1 && diagnostic.width >= 1, "{diagnostic:?}");
    assert!(end <= characters + 2, "beyond the end of its line of {characters} characters: {diagnostic:?}");
    let Diagnostic { message, found, expected, help, .. } = diagnostic;
    assert!(!message.is_empty());
    for said in [Some(message), found.as_ref(), expected.as_ref(), help.as_ref()].into_iter().flatten() {
        assert!(!said.contains(char::is_control), "{diagnostic:?}");
    }
    if diagnostic.severity == Severity::Error {
        assert!(found.is_some() && expected.is_some(), "{diagnostic:?}");
    }
}

/// What people and programs are shown.
fn assert_rendered(diagnostics: Vec<Diagnostic>, input: &Input<'_>) {
    let rendered = render(FILE, &input.policy, &diagnostics);
    assert!(
        !rendered.contains(|character: char| character.is_control() && character != '\n'),
        "{rendered:?}"
    );
    let lines = diagnostics.iter().map(|diagnostic| 4 + usize::from(diagnostic.help.is_some()));
    let between = diagnostics.len().saturating_sub(1);
    assert_eq!(rendered.lines().count(), lines.sum::<usize>() + between, "{rendered}");
    for placed in in_file(FILE, diagnostics) {
        let json = serde_json::to_value(&placed).expect("a diagnostic has a JSON form");
        assert_eq!(json["file"], placed.file);
    }
}
