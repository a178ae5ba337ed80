//! Policies that are well formed and larger than the kernel's tables: where they say too much, and what to do.

use std::collections::BTreeMap;

use super::{accepted, lines};
use crate::policy::compile::{Manifest, Tables, compile};

/// The tables of a policy after an earlier one, or what does not fit, on one line.
fn compiled_after(previous: &Manifest, text: &str) -> Result<Tables, String> {
    let policy = accepted(text).policy;
    compile(&policy, previous, 0).map_err(|error| lines(&[error.diagnostic(text)]).remove(0))
}

#[track_caller]
fn assert_fits(text: &str) {
    let fits = compiled_after(&Manifest::default(), text).map(drop);
    assert_eq!(fits, Ok(()));
}

#[track_caller]
fn assert_oversized(text: &str, expected: &str) {
    let error = compiled_after(&Manifest::default(), text).map(drop);
    assert_eq!(error, Err(expected.to_owned()));
}

fn policy(entries: impl Iterator<Item = String>) -> String {
    format!("version = 1\n{}", entries.collect::<String>())
}

#[test]
fn profiles_with_parents_are_counted_in_the_order_of_the_file() {
    // By name `p100` would come before `p99`. The first has no parents, the others have three.
    let profile = |number| match number {
        0 => "[profile.p0]\npackets = \"9/s\"\n\n\n".to_owned(),
        _ => format!(
            "[profile.p{number}]\nparents.v6_48.packets = \"9/s\"\nparents.v6_56.packets = \"9/s\"\n\
             parents.v4_24.packets = \"9/s\"\n"
        ),
    };
    assert_fits(&policy((0..=255).map(profile)));
    assert_oversized(
        &policy((0..=256).map(profile)),
        "1026:10: error: too many profiles with parents: found 256 of them, expected at most 255 \
         [from this one on they do not fit: merge profiles that do the same]",
    );
}

fn service(number: usize, addresses: &str, ports: &str) -> String {
    format!("[[service]]\nname = \"s{number}\"\naddresses = [{addresses}]\nports = [{ports}]\n")
}

#[test]
fn destination_prefixes_count_once() {
    let addresses = |third: usize, count: usize| -> String {
        (0..count).map(|number| format!("\"10.{third}.{}.{}\", ", number / 256, number % 256)).collect()
    };
    // The third service names what the first has named.
    let with = |count| {
        policy(
            [(0, 0, 600), (1, 1, count), (2, 0, 10)]
                .into_iter()
                .map(|(number, third, count)| service(number, &addresses(third, count), "\"*\"")),
        )
    };
    assert_fits(&with(424));
    assert_oversized(
        &with(430),
        "8:5730: error: too many destination prefixes: found 1030 in all services, expected at most 1024 \
         [from this one on they do not fit: name the wider prefixes that they lie in]",
    );
}

#[test]
fn prefix_lengths_are_of_one_family() {
    let addresses = |lengths: &[u8]| -> String {
        lengths.iter().map(|length| format!("\"128.0.0.0/{length}\", \"8000::/{length}\", ")).collect()
    };
    let eight = addresses(&[32, 8, 16, 24, 9, 10, 11, 12]);
    let with = |more: &[u8]| {
        policy([service(0, &eight, "\"*\""), service(1, &addresses(more), "\"*\"")].into_iter())
    };
    assert_fits(&with(&[12, 8]));
    assert_oversized(
        &with(&[12, 31]),
        "8:43: error: too many different prefix lengths in the addresses of services: found 9: /8, /9, /10, /11, \
         /12, /16, /24, /31, /32, expected at most 8 for each of IPv4 and IPv6 [each length costs every packet a \
         lookup: split this prefix into ones of a length in use]",
    );
}

#[test]
fn the_entry_with_the_most_ports_is_named() {
    let with = |last| {
        let range = format!("\"udp/53\", \"tcp/1-{last}\"");
        policy(
            [service(0, "\"192.0.2.1\"", "\"tcp/1-100\""), service(1, "\"192.0.2.2\", \"::1\"", &range)]
                .into_iter(),
        )
    };
    assert_fits(&with(960));
    assert_oversized(
        &with(1000),
        "9:20: error: too many ports: found 1000 here × 2 destination prefixes, the most of all, expected at most \
         2048 ports in all services, each counted at every destination prefix of its service [write wide ranges as \
         tcp/* or udp/*, or name fewer and wider prefixes]",
    );
}

#[test]
fn a_service_without_ports_can_be_the_one_with_the_most() {
    let addresses: String =
        (0..1024).map(|number| format!("\"10.1.{}.{}\", ", number / 256, number % 256)).collect();
    let text = policy([service(0, &addresses, "\"gre\"").replace("ports = [\"gre\"]\n", "")].into_iter());
    assert_fits(&text);
    let text = text + "[[service]]\nname = \"all\"\naddresses = [\"10.0.0.0/8\"]\nports = [\"gre\"]\n";
    assert_oversized(
        &text.replacen("10.1.0.0", "10.0.0.0/8", 1),
        "2:1: error: too many ports: found 1 here × 1024 destination prefixes, the most of all, expected at most \
         2048 ports in all services, each counted at every destination prefix of its service [write wide ranges as \
         tcp/* or udp/*, or name fewer and wider prefixes]",
    );
}

fn with_rules(services: usize, rules: usize) -> String {
    let service = |number| service(number, &format!("\"10.0.0.{number}\""), "\"*\"");
    let rule = |number| {
        // Later rules have the lower addresses: it is the file's order that counts.
        let address = format!("192.0.{}.{}", 200 - number / 256, 255 - number % 256);
        format!("[[rule]]\nname = \"r{number}\"\nsource = [\"{address}\"]\naction = \"drop\"\n")
    };
    policy((0..services).map(service).chain((0..rules).map(rule)))
}

#[test]
fn cells_are_counted_in_the_order_of_the_file() {
    assert_fits(&with_rules(127, 127));
    assert_oversized(
        &with_rules(127, 130),
        "1019:8: error: too many combinations of rules and services: found 16768 cells, 131 combinations of rules × \
         service numbers 0 to 127, expected at most 16384 cells [from this rule on they do not fit: merge rules that \
         do the same, use fewer services, or fewer rules whose prefixes lie inside each other]",
    );
}

#[test]
fn numbers_of_earlier_services_are_told_of() {
    let retired = BTreeMap::from([("s0".to_owned(), 200)]);
    let previous = Manifest { retired, ..Manifest::default() };
    assert_fits(&with_rules(1, 90));
    let error = compiled_after(&previous, &with_rules(1, 90)).map(drop).unwrap_err();
    assert!(
        error.starts_with("327:8: error: too many combinations of rules and services: found 18291"),
        "{error}"
    );
    let told =
        "services of earlier policies hold numbers up to 200: 182 cells are needed after `detector unload`]";
    assert!(error.ends_with(told), "{error}");
}

#[test]
fn names_and_reasons_have_a_bound() {
    let rule = |number| {
        format!(
            "[[rule]]\nname = \"r{number:04}\"\nsource = [\"192.0.2.1\"]\naction = \"drop\"\nreason = \"{}\"\n",
            "ü".repeat(255)
        )
    };
    assert_fits(&policy((0..400).map(rule)));
    assert_oversized(
        &policy((0..500).map(rule)),
        "2268:8: error: names, reasons and patterns of the policy take too much room: found 284573 bytes, 284392 of them of \
         rules, expected at most 257936 bytes [from this rule on they do not fit: shorten reasons and names, or merge \
         rules that do the same]",
    );
}

/// The table of docs/policy.md against the limits.
#[test]
fn the_manual_tells_what_fits() {
    use crate::policy::{PROFILES_MAX, RULES_MAX, SERVICES_MAX};
    use detector_common::limits;

    let manual = include_str!("../../../../docs/policy.md");
    let ports = limits::PORT_SLOTS / 4;
    for row in [
        format!("| services, profiles, rules | {SERVICES_MAX}, {PROFILES_MAX}, {RULES_MAX} |"),
        format!("| different destination prefixes of all services | {} |", limits::DESTINATION_SLOTS / 4),
        format!(
            "| different prefix lengths of services' addresses | {} for each of IPv4 and IPv6 |",
            limits::PREFIX_LENGTHS_MAX
        ),
        format!("and one or two more for fragments and unreadable packets there | {ports} |"),
        format!("| profiles with `parents` | {} |", limits::LINEAGES_MAX),
        format!("make combinations | {},{:03} |", limits::CELLS_MAX / 1000, limits::CELLS_MAX % 1000),
    ] {
        assert!(manual.lines().any(|line| line.ends_with(&row)), "docs/policy.md lacks: {row}");
    }
}
