use std::net::SocketAddr;

use detector_common::{fingerprint::ja4_bytes, syn::Syn};

use super::*;
use crate::{
    guard::tests::{host, pair, tables, told_of},
    policy::{
        compile::{Beside, Standard, Tables},
        incident::{Incident, IncidentAction, Incidents},
        target::{matches, target},
    },
};

const PEER: &str = "198.51.100.7";
const EVERY_SYN: &str = "4:*:*:*:*:*:*:*";
const ITS_SYN: &str = "4:64:*:*:*:*:*:*";
const OTHER_SYN: &str = "4:128:*:*:*:*:*:*";
const ITS_JA4: &str = "t13d1516h2_8daaf6152771_b186095e22b6";
const PROFILE: &str = "[profile.openers]\nconnections = \"5/s\"\nhandshakes = \"5/s\"\n\
                       [profile.fewer]\nconnections = \"2/s\"\nhandshakes = \"2/s\"\n";

/// A policy with these rules, `r0` and on: what each is about, and its action.
fn policy(defaults: &str, rules: &[(&str, &str)]) -> Tables {
    let rule = |(number, (about, action)): (usize, &(&str, &str))| {
        format!("[[rule]]\nname = \"r{number}\"\n{about}\naction = {action}\n")
    };
    let rules: String = rules.iter().enumerate().map(rule).collect();
    tables(defaults, &(PROFILE.to_owned() + &rules))
}

/// A policy with one rule about SYNs.
fn about_syn(pattern: &str, action: &str) -> Tables {
    policy("", &[(&syn(pattern), action)])
}

fn syn(pattern: &str) -> String {
    format!("syn = \"{pattern}\"")
}

fn ja4(pattern: &str) -> String {
    format!("ja4 = \"{pattern}\"")
}

/// The same policy with incident rules beside it.
fn beside(tables: &Tables, rules: &[(&str, IncidentAction)]) -> Tables {
    let incident = |(id, (whom, action)): (usize, &(&str, IncidentAction))| Incident {
        id: id as u64,
        action: action.clone(),
        matches: matches(vec![target(whom).unwrap()]).unwrap(),
        service: None,
        until_s: None,
        reason: "test".to_owned(),
        by: "nobody".to_owned(),
        at_s: 1,
        counter: 7,
    };
    let incidents = Incidents { rules: rules.iter().enumerate().map(incident).collect() };
    let beside = Beside::new(incidents, &Standard::of(tables), tables.clocks).unwrap();
    Tables { beside, ..tables.clone() }
}

/// A client as it was seen: at its SYN, and at its ClientHello, if it sent one.
fn seen(with_hello: bool) -> Opening {
    let syn = Syn { version: 4, initial_ttl: 64, ..Syn::EMPTY };
    let syn = Name { key: 1, kind: Kind::Syn as u8, syn, ..Name::NONE };
    let ja4 = ja4_bytes(ITS_JA4);
    let tls = Name { key: 2, kind: Kind::Tls as u8, ja4, stable_ja4: ja4, ..Name::NONE };
    let tls = with_hello.then_some(tls);
    Opening { syn_key: 1, syn: Some(syn), tls_key: tls.map_or(0, |name| name.key), tls }
}

/// What happens to the SSH peer by going from one policy to another.
fn to_ssh(openings: &[Opening], before: &Tables, after: &Tables) -> Vec<(String, String)> {
    let (_root, host) = host();
    told_of(&host, openings.to_vec(), Some(before), after)
}

/// The same to a client of the API at the port of that service.
fn to_client(openings: &[Opening], after: &Tables) -> Vec<(String, String)> {
    let (_root, host) = host();
    let ends = ["198.51.100.9:50000", "192.0.2.5:22"].map(|end| end.parse::<SocketAddr>().unwrap());
    let told = told_of(&host.and_client(ends[0], ends[1]), openings.to_vec(), Some(&policy("", &[])), after);
    told.into_iter().filter(|(who, _)| who == "198.51.100.9").collect()
}

const KNOWN: &str = "(its SYN matches) at ssh";
const UNKNOWN: &str = "(its SYN is not known there and may match) at ssh";

#[test]
fn a_rule_about_the_syn_of_the_ssh_peer_locks_it_out() {
    let (open, known) = (policy("", &[]), [seen(false)]);
    let told = |tables: &Tables| to_ssh(&known, &open, tables);
    let dropped = [pair(PEER, &format!("drop by r0 {KNOWN}"))];
    assert_eq!(told(&about_syn(EVERY_SYN, "\"drop\"")), dropped);
    assert_eq!(told(&about_syn(ITS_SYN, "\"drop\"")), dropped);
    for action in ["{ limit = \"openers\" }", "{ limit = \"openers\", shared = true }"] {
        assert_eq!(
            told(&about_syn(ITS_SYN, action)),
            [pair(PEER, &format!("limit openers by r0 {KNOWN}"))],
            "{action}"
        );
    }
    assert_eq!(told(&about_syn(OTHER_SYN, "\"drop\"")), []);
    assert_eq!(told(&about_syn(EVERY_SYN, "\"allow\"")), []);
    let at = |service: &str, more: &str| {
        let about = format!("{}\nservice = \"{service}\"\n{more}", syn(EVERY_SYN));
        told(&policy("", &[(&about, "\"drop\"")]))
    };
    assert_eq!(at("ssh", ""), dropped);
    assert_eq!(at("host", ""), [], "SSH is another service");
    assert_eq!(at("ssh", "mode = \"shadow\""), []);
    assert_eq!(at("ssh", "until = 1970-01-01T00:00:00Z"), [], "it has ended");
    assert_eq!(
        to_ssh(
            &[seen(false), Opening { syn: None, ..seen(false) }],
            &open,
            &about_syn(OTHER_SYN, "\"drop\"")
        ),
        [pair(PEER, &format!("drop by r0 {UNKNOWN}"))],
        "another client of it has no name yet"
    );
}

#[test]
fn what_is_not_known_of_the_ssh_peer_may_match() {
    let (open, rule) = (policy("", &[]), about_syn(OTHER_SYN, "\"drop\""));
    let dropped = [pair(PEER, &format!("drop by r0 {UNKNOWN}"))];
    assert_eq!(to_ssh(&[], &open, &rule), dropped);
    let hello_alone = Opening { syn_key: 0, syn: None, ..seen(true) };
    assert_eq!(to_ssh(&[hello_alone], &open, &rule), dropped);
    assert_eq!(to_ssh(&[hello_alone, seen(false)], &open, &rule), [], "another connection's SYN is known");
    assert_eq!(
        to_ssh(&[], &open, &about_syn(OTHER_SYN, "{ limit = \"openers\" }")),
        [pair(PEER, &format!("limit openers by r0 {UNKNOWN}"))]
    );
    let (_root, host) = host();
    let (seed, now) = (detector_common::hash::Seed::new([1, 2, 3, 4]), 0);
    let judge = Judge::new(&rule, seed, now);
    let openings = Openings::new(|_, _| Vec::new()).without_doubts();
    assert_eq!(crate::guard::peers_locked_out(&host, &openings, None, &judge), []);
}

#[test]
fn who_is_exempt_from_rules_about_fingerprints_is_not_locked_out() {
    let block = (&*syn(EVERY_SYN), "\"drop\"");
    let source = format!("source = [\"{PEER}\"]");
    for known in [&[][..], &[seen(false)]] {
        let told = |tables: &Tables| to_ssh(known, &policy("", &[]), tables);
        assert_eq!(told(&policy(&format!("allow = [\"{PEER}\"]"), &[block])), []);
        assert_eq!(told(&policy("", &[block, (&source, "\"allow\"")])), []);
        let (allowed, blocked) =
            ((PEER, IncidentAction::Allow), ("syn:4:*:*:*:*:*:*:*", IncidentAction::Block));
        assert_eq!(told(&beside(&policy("", &[]), &[blocked.clone(), allowed.clone()])), []);
        let by_policy = policy("", &[(&source, "\"allow\"")]);
        assert_eq!(
            told(&beside(&by_policy, &[blocked])).len(),
            1,
            "that is no word against an incident rule"
        );
        // Without what exempts it, it is locked out by what is in force already.
        let exempt = beside(&policy("", &[block]), &[allowed]);
        assert_eq!(to_ssh(known, &exempt, &policy("", &[block])).len(), 1);
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let open = policy("", &[]);
    let (its, every) = (syn(ITS_SYN), syn(EVERY_SYN));
    let first_allowed = policy("", &[(&every, "\"drop\""), (&its, "\"allow\"")]);
    assert_eq!(to_ssh(&[seen(false)], &open, &first_allowed), []);
    assert_eq!(to_ssh(&[], &open, &first_allowed).len(), 1, "it may have another SYN");
    let allowed =
        beside(&about_syn(EVERY_SYN, "\"drop\""), &[("syn:4:64:*:*:*:*:*:*", IncidentAction::Allow)]);
    assert_eq!(to_ssh(&[seen(false)], &open, &allowed), []);
    let undone = Tables { beside: None, ..allowed.clone() };
    assert_eq!(to_ssh(&[seen(false)], &allowed, &undone).len(), 1, "to undo is to lock out");
    let block = beside(&open, &[("syn:4:*:*:*:*:*:*:*", IncidentAction::Block)]);
    assert_eq!(
        to_ssh(&[seen(false)], &open, &block),
        [pair(PEER, &format!("drop by the rule on syn:4:*:*:*:*,*:*:*:* {KNOWN}"))]
    );
}

#[test]
fn what_rules_about_fingerprints_do_already_is_no_news() {
    let limit = |profile: &str| format!("{{ limit = \"{profile}\" }}");
    for known in [&[][..], &[seen(false)]] {
        let told = |before: &Tables, after: &Tables| to_ssh(known, before, after).len();
        let [dropped, wide, narrow] =
            ["\"drop\"", &limit("openers"), &limit("fewer")].map(|action| about_syn(ITS_SYN, action));
        for same in [&dropped, &wide, &narrow] {
            assert_eq!(told(same, same), 0);
        }
        assert_eq!((told(&dropped, &wide), told(&narrow, &wide)), (0, 0));
        assert_eq!((told(&wide, &narrow), told(&wide, &dropped)), (1, 1));
    }
    // Of a peer that is known to be stopped already it does not matter by which rule.
    let (one, other) = (about_syn(ITS_SYN, "\"drop\""), about_syn(EVERY_SYN, "\"drop\""));
    assert_eq!(to_ssh(&[seen(false)], &one, &other), []);
    assert_eq!(to_ssh(&[], &one, &other).len(), 1);
}

#[test]
fn rules_about_clienthellos_concern_those_who_ask_over_tls() {
    let of = |about: &str, action: &str| policy("", &[(about, action)]);
    let (its, other) = (ja4(ITS_JA4), ja4("t12*_*_*"));
    let both = format!("{its}\n{}", syn(ITS_SYN));
    let (known, drop, limit) = ([seen(true)], "\"drop\"", "{ limit = \"openers\" }");
    for about in [&its, &both] {
        let tables = of(about, drop);
        assert_eq!(to_ssh(&known, &policy("", &[]), &tables), [], "SSH has no ClientHello");
        assert_eq!(to_ssh(&[], &policy("", &[]), &tables), []);
        let would = "drop by r0 (its ClientHello matches) at ssh";
        assert_eq!(to_client(&known, &tables), [pair("198.51.100.9", would)]);
        assert_eq!(to_client(&known, &of(about, limit)).len(), 1);
        let would = "drop by r0 (its ClientHello is not known there and may match) at ssh";
        assert_eq!(to_client(&[seen(false)], &tables), [pair("198.51.100.9", would)]);
        assert_eq!(to_client(&[], &of(about, limit)), [], "not known, and not dropped");
    }
    assert_eq!(to_client(&known, &of(&other, drop)), []);
    assert_eq!(to_client(&known, &of(&format!("{its}\n{}", syn(OTHER_SYN)), drop)), []);
    assert_eq!(to_client(&known, &of(&syn(ITS_SYN), drop)).len(), 1, "a SYN it sends too");
    // A rule that allows its SYN has the last word where none on its ClientHello has.
    let incident = [("syn:4:64:*:*:*:*:*:*", IncidentAction::Allow)];
    assert_eq!(to_client(&known, &beside(&of(&its, drop), &incident)), []);
    let allowed = policy("", &[(&its, drop), (&syn(ITS_SYN), "\"allow\"")]);
    assert_eq!(to_client(&known, &allowed).len(), 1);
    // Several clients have the key: no rule acts on it.
    let shared = Opening { tls: seen(true).tls.map(|name| Name { conflicts: 1, ..name }), ..seen(true) };
    assert_eq!(to_client(&[shared], &of(&its, drop)), []);
}
