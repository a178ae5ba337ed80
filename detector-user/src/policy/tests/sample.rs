//! What the sample means, and how diagnostics look.

use super::{SAMPLE, accepted, assert_warned};
use crate::policy::{
    Action, Budget, Budgets, Matches, Mode, ParentBudgets, Parents, Ports, Profile, Rate, Rule, Service,
    parse, patterns::Patterns, render,
};

const NS_PER_S: u64 = 1_000_000_000;

fn per_s(count: u64, burst: u64) -> Option<Budget> {
    Some(Budget { rate: Rate { count, per_ns: NS_PER_S }, burst })
}

fn nets(prefixes: &[&str]) -> Vec<ipnet::IpNet> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

#[test]
fn the_sample_has_no_warnings() {
    assert_warned(SAMPLE, &[]);
}

#[test]
fn defaults_and_services() {
    let policy = accepted(SAMPLE).policy;
    assert_eq!(policy.mode, Mode::Shadow);
    assert_eq!(policy.allow, nets(&["192.0.2.0/28", "2001:db8:ffff::/48"]));
    let api = Service {
        name: "api".to_owned(),
        addresses: nets(&["203.0.113.10/32", "2001:db8::10/128"]),
        ports: vec![
            Ports::Range { protocol: 6, first: 443, last: 443 },
            Ports::Range { protocol: 17, first: 8000, last: 8010 },
            Ports::Protocol(1),
            Ports::Protocol(58),
            Ports::Protocol(47),
        ],
        profile: Some("customer".to_owned()),
        fleets: None,
    };
    let rest = Service {
        name: "everything-else".to_owned(),
        addresses: nets(&["198.51.100.0/24"]),
        ports: vec![Ports::Any],
        profile: None,
        fleets: None,
    };
    assert_eq!(policy.services, [api, rest]);
}

#[test]
fn profiles() {
    let profiles = accepted(SAMPLE).policy.profiles;
    let per_minute = Some(Budget { rate: Rate { count: 100, per_ns: 60 * NS_PER_S }, burst: 2 });
    let packets = |packets| Budgets { packets, ..Budgets::default() };
    let customer = Profile {
        budgets: Budgets {
            packets: per_s(2_000, 4_000),
            bytes: per_s(8_000_000, 16_000_000),
            connections: per_s(20, 20),
            handshakes: per_s(10, 30),
        },
        parents: Parents {
            v4_24: Some(ParentBudgets {
                budgets: Budgets {
                    packets: per_s(50_000, 50_000),
                    bytes: per_s(12_500_000, 12_500_000),
                    connections: None,
                    handshakes: None,
                },
                new_sources: None,
            }),
            v6_56: Some(ParentBudgets { budgets: packets(per_s(10_000, 10_000)), new_sources: None }),
            v6_48: Some(ParentBudgets {
                budgets: Budgets { connections: per_minute, ..Budgets::default() },
                new_sources: per_s(100, 300),
            }),
        },
    };
    let strict = Profile { budgets: packets(per_s(500, 64)), parents: Parents::default() };
    assert_eq!(
        profiles.into_iter().collect::<Vec<_>>(),
        [("customer".to_owned(), customer), ("strict".to_owned(), strict)]
    );
}

#[test]
fn rules() {
    let partner = Rule {
        name: "partner".to_owned(),
        service: Some("api".to_owned()),
        matches: Matches::Sources(nets(&["198.51.100.0/24", "2001:db8:1::/64"])),
        action: Action::Allow,
        mode: None,
        until_s: None,
        reason: None,
    };
    let incident = Rule {
        name: "INC-4711".to_owned(),
        service: None,
        matches: Matches::Sources(nets(&["198.18.0.0/15"])),
        action: Action::Limit("strict".to_owned()),
        mode: Some(Mode::Percent(10)),
        until_s: Some(1_796_104_800),
        reason: Some("scraper wave".to_owned()),
    };
    let bogons = Rule {
        name: "bogons:2026.1".to_owned(),
        service: None,
        matches: Matches::Sources(nets(&["240.0.0.0/8"])),
        action: Action::Drop,
        mode: None,
        until_s: None,
        reason: None,
    };
    let scraper = Rule {
        name: "scraper".to_owned(),
        service: Some("api".to_owned()),
        matches: Matches::Fingerprints(Patterns {
            ja4: ["t13d1516h2_8daaf6152771_*", "t13i*_*_*"].map(|text| text.parse().unwrap()).to_vec(),
            syn: vec!["4:64:0:*:mss*44,*:mss,sok,ts,nop,ws:*:0".parse().unwrap()],
        }),
        action: Action::LimitShared("customer".to_owned()),
        mode: None,
        until_s: None,
        reason: None,
    };
    assert_eq!(accepted(SAMPLE).policy.rules, [partner, incident, bogons, scraper]);
}

#[test]
fn the_least_policy_enforces_and_has_nothing() {
    let policy = accepted("version = 1\n").policy;
    assert_eq!(policy.mode, Mode::Enforce);
    assert!(policy.allow.is_empty() && policy.services.is_empty() && policy.rules.is_empty());
    assert!(policy.profiles.is_empty());
}

#[test]
fn default_bursts_are_a_second_and_not_too_small() {
    let text = "version = 1\n[profile.p]\npackets = \"5.1/s\"\nbytes = \"64B/s\"\nconnections = \"1/d\"\n";
    let checked = accepted(text);
    let budgets = &checked.policy.profiles["p"].budgets;
    let burst = |budget: Option<Budget>| budget.map(|budget| budget.burst);
    assert_eq!(burst(budgets.packets), Some(6));
    assert_eq!(burst(budgets.bytes), Some(65_536));
    assert_eq!(burst(budgets.connections), Some(1));
}

#[test]
fn an_empty_list_of_allowed_prefixes_allows_none() {
    assert!(accepted("version = 1\ndefaults.allow = []\n").policy.allow.is_empty());
}

#[test]
fn diagnostics_show_the_line_and_the_place() {
    let text = "version = 1\r\ndefaults.mode = \t\"shadwo\" # \u{1F980}\r\nfast = 1\r\n";
    let diagnostics = parse(text).expect_err("an unknown mode is refused");
    assert_eq!(
        render("policy.toml", text, &diagnostics),
        "\
policy.toml:2:18: error: unknown mode: found \"shadwo\", expected \"enforce\", \"shadow\" or { enforce = PERCENT }
  |
2 | defaults.mode =  \"shadwo\" # \u{1F980}
  |                  ^^^^^^^^
  = help: did you mean `shadow`?

policy.toml:3:1: error: unknown field in the policy: found `fast`, expected `version`, `defaults`, `service`, \
         `profile`, `rule` or `fleets`
  |
3 | fast = 1
  | ^^^^
"
    );
}

#[test]
fn source_lines_cannot_steer_a_terminal() {
    let text = "version = 2 # \u{202e}\u{1b}[2J\n";
    let rendered = render("p", text, &parse(text).expect_err("control characters are refused"));
    assert!(!rendered.contains(['\u{1b}', '\u{202e}']), "{rendered:?}");
}

#[test]
fn diagnostics_serialize_for_programs() {
    let diagnostics = parse("version = 3\n").expect_err("another version is refused");
    let json = serde_json::to_string(&diagnostics).unwrap();
    assert_eq!(
        json,
        "[{\"severity\":\"error\",\"line\":1,\"column\":11,\"width\":1,\
         \"message\":\"unsupported version of the policy language\",\"found\":\"3\",\
         \"expected\":\"version = 1\",\"help\":null,\"needs_force\":false}]"
    );
}
