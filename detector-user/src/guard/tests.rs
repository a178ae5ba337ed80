use super::*;
use crate::policy::{
    compile::{Manifest, compile},
    parse,
};
use crate::traffic::Flow;
use detector_common::{address::Address, hash::Seed};
use std::{fs, net::IpAddr};

const HEAD: &str = r#"
[[service]]
name = "ssh"
addresses = ["192.0.2.5"]
ports = ["tcp/22"]
[[service]]
name = "host"
addresses = ["192.0.2.0/24"]
ports = ["*"]
[[service]]
name = "away"
addresses = ["203.0.113.0/24"]
ports = ["*"]
[profile.wide]
packets = "1000/s"
[profile.narrow]
packets = "10/s"
"#;

/// The policy with these defaults and rules.
pub(super) fn tables(defaults: &str, rules: &str) -> Tables {
    let text = format!("version = 1\n[defaults]\n{defaults}\n{HEAD}\n{rules}");
    let checked = parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics:?}"));
    compile(&checked.policy, &Manifest::default(), 0).unwrap()
}

fn rule(service: &str, source: &str, action: &str) -> String {
    format!("[[rule]]\nname = \"r\"\nservice = \"{service}\"\nsource = [\"{source}\"]\naction = {action}\n")
}

/// A host at 192.0.2.5 with a peer of each kind.
pub(super) fn host() -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("proc/7/status", "PPid:\t1\n"),
        ("proc/7/environ", "SSH_CONNECTION=198.51.100.7 50022 192.0.2.5 22\0"),
        ("proc/net/route", "Iface\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n"),
        ("etc/resolv.conf", "nameserver 198.51.100.53\n"),
        ("proc/net/fib_trie", "|-- 127.0.0.1\n/32 host LOCAL\n|-- 192.0.2.5\n/32 host LOCAL\n"),
    ] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let host = Host::at(root.path(), 7);
    (root, host)
}

/// Who is locked out by going from one policy to another, and how; nothing is known of how they open connections.
fn told(before: Option<&Tables>, after: &Tables) -> Vec<(String, String)> {
    let (_root, host) = host();
    told_of(&host, Vec::new(), before, after)
}

/// The same of a host whose peers are known to open connections so.
pub(super) fn told_of(
    host: &Host,
    openings: Vec<Opening>,
    before: Option<&Tables>,
    after: &Tables,
) -> Vec<(String, String)> {
    let openings = Openings::new(move |_, _| openings.clone());
    let loaded = Loaded { tables: before.cloned(), seed: Seed::new([1, 2, 3, 4]), now: 1 };
    let lockouts = lockouts(host, &openings, loaded.judge().as_ref(), &loaded.judge_by(after));
    lockouts
        .into_iter()
        .map(|lockout| (lockout.who, format!("{} at {}", lockout.would, lockout.service)))
        .collect()
}

fn after(rules: &str) -> Vec<(String, String)> {
    told(Some(&tables("", "")), &tables("", rules))
}

pub(super) fn pair(who: &str, what: &str) -> (String, String) {
    (who.to_owned(), what.to_owned())
}

#[test]
fn the_ssh_peer_must_not_be_dropped_nor_limited_where_it_is_connected() {
    let (drop, limit) = ("\"drop\"", "{ limit = \"narrow\" }");
    assert_eq!(after(&rule("ssh", "198.51.100.0/29", drop)), [pair("198.51.100.7", "drop by r at ssh")]);
    assert_eq!(
        after(&rule("ssh", "198.51.100.7", limit)),
        [pair("198.51.100.7", "limit narrow by r at ssh")]
    );
    assert_eq!(after(&rule("host", "198.51.100.7", drop)), []);
    assert_eq!(after(&rule("ssh", "198.51.100.8", drop)), []);
    assert_eq!(after(&rule("ssh", "198.51.100.7", "\"allow\"")), []);
    let shadow = rule("ssh", "198.51.100.7", drop) + "mode = \"shadow\"\n";
    assert_eq!(after(&shadow), []);
    let allowed = tables("allow = [\"198.51.100.7\"]", &rule("ssh", "198.51.100.0/29", drop));
    assert_eq!(told(Some(&tables("", "")), &allowed), []);
}

#[test]
fn resolvers_must_get_their_answers_through() {
    let resolver = "198.51.100.53";
    assert_eq!(
        after(&rule("host", resolver, "{ limit = \"wide\" }")),
        [pair(resolver, "limit wide by r at host")]
    );
    assert_eq!(after(&rule("ssh", resolver, "{ limit = \"wide\" }")), [], "no answer goes to that port");
    assert_eq!(after(&rule("ssh", resolver, "\"drop\"")), [pair(resolver, "drop by r at ssh")]);
    assert_eq!(after(&rule("away", resolver, "\"drop\"")), [], "not an address of this host");
}

#[test]
fn gateways_must_not_be_limited_without_ports_nor_dropped() {
    let gateway = "192.0.2.1";
    assert_eq!(
        after(&rule("host", gateway, "{ limit = \"wide\" }")),
        [pair(gateway, "limit wide by r at host")]
    );
    assert_eq!(after(&rule("ssh", gateway, "{ limit = \"wide\" }")), []);
    assert_eq!(after(&rule("ssh", gateway, "\"drop\"")), [pair(gateway, "drop by r at ssh")]);
}

#[test]
fn what_is_in_force_already_is_no_news() {
    let limited =
        |profile: &str| tables("", &rule("ssh", "198.51.100.7", &format!("{{ limit = \"{profile}\" }}")));
    let dropped = tables("", &rule("ssh", "198.51.100.7", "\"drop\""));
    assert_eq!(told(Some(&limited("wide")), &limited("wide")), []);
    assert_eq!(told(Some(&limited("narrow")), &limited("wide")), []);
    assert_eq!(told(Some(&dropped), &limited("narrow")), []);
    assert_eq!(told(Some(&limited("wide")), &limited("narrow")).len(), 1);
    assert_eq!(told(Some(&limited("wide")), &dropped).len(), 1);
    assert_eq!(told(None, &dropped).len(), 1);
}

#[test]
fn what_was_always_allowed_must_still_pass() {
    let before = tables("allow = [\"198.18.0.0/30\", \"2001:db8::/48\"]", "");
    let rules = rule("away", "198.18.0.0/24", "\"drop\"");
    assert_eq!(told(Some(&before), &tables("", "")), []);
    assert_eq!(told(Some(&before), &tables("", &rules)), [pair("198.18.0.0/30", "drop by r at away")]);
    let part = tables("allow = [\"198.18.0.0/31\"]", &rules);
    assert_eq!(told(Some(&before), &part), [pair("198.18.0.2/31", "drop by r at away")]);
    let shadow = tables("mode = \"shadow\"", &rules);
    assert_eq!(told(Some(&before), &shadow), []);
}

fn flow(host: u8, packets: u32) -> Flow {
    let source = Address::from(IpAddr::from([198, 18, 0, host]));
    // The third service.
    Flow { source, service: 3, packets, bytes: 0, connections: 0, refused: 0 }
}

fn guard() -> Guard {
    let watching = Watching { directory: "/nonexistent".into(), sample: None };
    Guard { host: Host::at("/nonexistent", 1), max_drop: Share(0.05), watching, tells_waiting: |_, _| {} }
}

#[test]
fn a_change_is_refused_by_the_share_that_it_newly_drops() {
    let loaded = Loaded { tables: Some(tables("", "")), seed: Seed::new([1, 2, 3, 4]), now: 0 };
    let after = tables("", &rule("away", "198.18.0.1", "\"drop\""));
    let (before, after) = (loaded.judge().unwrap(), loaded.judge_by(&after));
    let told = |dropped: u32, other: u32| {
        let window = Duration::from_secs(60);
        let traffic = Traffic { window, flows: vec![flow(1, dropped), flow(2, other), flow(3, 0)] };
        impact(&before, &after, &traffic, 5)
    };
    let six_percent = told(3_600, 56_400);
    assert_eq!((six_percent.sources, six_percent.sources_changed, six_percent.starts), (3, 1, 1));
    assert!((six_percent.newly_dropped_per_s - 60.0).abs() < 1e-6, "{six_percent:?}");
    assert!((six_percent.newly_dropped_share - 0.06).abs() < 1e-6);
    assert_eq!(six_percent.moves[0].packets, 3_600);
    let victims: Vec<_> = six_percent.victims.iter().map(|victim| victim.source.as_str()).collect();
    assert_eq!(victims, ["198.18.0.1/32"]);
    let refusal = Refusal { blast: guard().blast(six_percent), ..Refusal::default() };
    let message = refusal.into_result().unwrap_err().message;
    for part in
        ["6.0 %", "60 of 1000 a second", "5.0 %", "198.18.0.1/32 at away: count → drop by r, 60 of 60"]
    {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    assert_eq!(guard().blast(told(3_000, 57_000)), None, "5 % is allowed");
    assert_eq!(guard().blast(told(590, 0)), None, "all packets of an idle host");
    // Back again nothing is dropped newly.
    let traffic = Traffic { window: Duration::from_secs(60), flows: vec![flow(1, 3_600)] };
    let back = impact(&after, &before, &traffic, 5);
    assert_eq!((back.newly_dropped_per_s, back.stops, back.relieved.len()), (0.0, 1, 1));
    // A change of nothing changes nothing.
    let same = impact(&after, &after, &traffic, 5);
    assert_eq!((same.sources_changed, same.starts, same.stops, same.victims.len()), (0, 0, 0, 0));
}
