//! Which sources of rules are told never to fire, against asking each address.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::{collection::vec, prelude::*};

use super::accepted;

/// Prefixes of 16 addresses, so that each can be asked.
const BITS: u32 = 4;

#[derive(Debug, Clone)]
struct Rule {
    /// 0 is every service.
    service: u32,
    action: usize,
    ends: bool,
    sources: Vec<Prefix>,
}

/// First address and number of bits.
type Prefix = (u32, u32);

fn prefix() -> impl Strategy<Value = Prefix> {
    (0..1_u32 << BITS, 0..=BITS).prop_map(|(address, bits)| (address >> (BITS - bits) << (BITS - bits), bits))
}

fn rule() -> impl Strategy<Value = Rule> {
    (0..3_u32, 0..3_usize, prop::bool::weighted(0.2), vec(prefix(), 1..5))
        .prop_map(|(service, action, ends, sources)| Rule { service, action, ends, sources })
}

fn addresses(prefix: Prefix) -> std::ops::Range<u32> {
    prefix.0..prefix.0 + (1 << (BITS - prefix.1))
}

fn contains(outer: Prefix, inner: Prefix) -> bool {
    outer.1 <= inner.1 && addresses(outer).contains(&inner.0)
}

fn text(allow: &[Prefix], rules: &[Rule]) -> String {
    let list = |prefixes: &[Prefix]| -> String {
        prefixes
            .iter()
            .map(|(address, bits)| format!("\"192.0.2.{address}/{}\",", 32 - BITS + bits))
            .collect()
    };
    let mut text =
        format!("version = 1\n[defaults]\nallow = [{}]\n[profile.p]\npackets = \"9/s\"\n", list(allow));
    for service in ["s1", "s2"] {
        let _ = writeln!(text, "[[service]]\nname = \"{service}\"\naddresses = [\"::/0\"]\nprofile = \"p\"");
    }
    for (number, rule) in rules.iter().enumerate() {
        let action = ["\"allow\"", "\"drop\"", "{ limit = \"p\" }"][rule.action];
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"r{number}\"\nsource = [{}]\naction = {action}",
            list(&rule.sources)
        );
        if rule.service > 0 {
            let _ = writeln!(text, "service = \"s{}\"", rule.service);
        }
        if rule.ends {
            text += "until = 2036-01-01T00:00:00Z\n";
        }
    }
    text
}

/// Whether something else always decides about a source of a rule.
fn is_idle(allow: &[Prefix], rules: &[Rule], number: usize, source: Prefix) -> bool {
    let own = &rules[number];
    if allow.iter().any(|allowed| contains(*allowed, source)) {
        return true;
    }
    let lasting = || rules.iter().enumerate().filter(|(_, rule)| !rule.ends);
    let first = lasting().any(|(other_number, other)| {
        let covers = other.service == 0 || other.service == own.service;
        covers && other.sources.contains(&source) && (other.action, other_number) < (own.action, number)
    });
    let made_up_by = |service: u32| {
        addresses(source).all(|address| {
            let mut narrower =
                lasting().filter(|(_, rule)| rule.service == service).flat_map(|(_, rule)| &rule.sources);
            narrower.any(|&prefix| prefix.1 > source.1 && addresses(prefix).contains(&address))
        })
    };
    first || made_up_by(0) || made_up_by(own.service)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_never_fires(allow in vec(prefix(), 0..2), rules in vec(rule(), 1..6)) {
        let text = text(&allow, &rules);
        let checked = accepted(&text);
        let mut expected = BTreeSet::new();
        for (number, rule) in rules.iter().enumerate() {
            let idle: Vec<_> = rule.sources.iter().filter(|source| is_idle(&allow, &rules, number, **source)).collect();
            if idle.len() == rule.sources.len() {
                expected.insert(format!("rule `r{number}` can never fire: "));
            } else if !idle.is_empty() {
                expected.insert(format!("rule `r{number}` can never fire here: "));
            }
        }
        let told = checked.warnings.iter().filter_map(|warning| {
            let (rule, _) = warning.message.split_once(": ")?;
            rule.contains("can never fire").then(|| format!("{rule}: "))
        });
        prop_assert_eq!(told.collect::<BTreeSet<_>>(), expected, "in:\n{}", text);
        let repeats = rules.iter().filter(|rule| rule.sources.iter().collect::<BTreeSet<_>>().len() < rule.sources.len());
        let told = checked.warnings.iter().filter(|warning| warning.message.contains(" again")).count();
        prop_assert_eq!(told, repeats.count(), "in:\n{}", text);
    }
}
