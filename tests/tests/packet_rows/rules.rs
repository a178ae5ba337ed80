//! Which rule a source has, by the most specific prefix.

use detector_tests::{packet::udp, rows::Rig};

use crate::*;

/// Rules at every relation that two prefixes can have.
const RULES: &str = r#"
    version = 1
    [defaults]
    allow = ["192.0.2.0/28", "2001:db8:ffff::/48"]
    [[service]]
    name = "api"
    addresses = ["203.0.113.10", "2001:db8::10"]
    ports = ["tcp/443"]
    profile = "customer"
    [[service]]
    name = "rest"
    addresses = ["203.0.113.10", "2001:db8::10"]
    profile = "customer"
    [profile.customer]
    packets = "1000/s"
    [profile.strict]
    packets = { rate = "1/min", burst = 1 }

    [[rule]]
    name = "around-the-allowed"
    source = ["192.0.2.0/24", "2001:db8:fffe::/47"]
    action = "drop"
    [[rule]]
    name = "inside-the-allowed"
    source = ["192.0.2.5", "2001:db8:ffff:1::/64"]
    action = "drop"

    [[rule]]
    name = "wide"
    source = ["10.0.0.0/8"]
    action = "drop"
    [[rule]]
    name = "narrow"
    source = ["10.1.2.0/24"]
    action = "allow"
    [[rule]]
    name = "middle"
    source = ["10.1.0.0/16"]
    action = { limit = "strict" }

    [[rule]]
    name = "equal-1"
    source = ["172.16.0.0/12", "172.32.0.0/12"]
    action = { limit = "strict" }
    [[rule]]
    name = "equal-2"
    source = ["172.16.0.0/12", "172.32.0.0/12"]
    action = "drop"
    [[rule]]
    name = "equal-3"
    source = ["172.16.0.0/12"]
    action = "allow"

    [[rule]]
    name = "of-one-service"
    service = "api"
    source = ["100.64.0.0/10"]
    action = "drop"
    [[rule]]
    name = "inside-of-the-other-service"
    service = "rest"
    source = ["100.64.1.0/24"]
    action = "allow"

    [[rule]]
    name = "one-host-of-a-source"
    source = ["2001:db8:a:b::bad"]
    action = "drop"
    [[rule]]
    name = "another-host-of-it"
    source = ["2001:db8:a:b::600d"]
    action = "allow"
    [[rule]]
    name = "a-half-of-a-source"
    source = ["2001:db8:a:b:8000::/65"]
    action = "drop"
    [[rule]]
    name = "around-a-divided-source"
    source = ["2001:db8:c::/48"]
    action = "drop"
    [[rule]]
    name = "the-host-inside-it"
    source = ["2001:db8:c:1::1"]
    action = "allow"
"#;

#[test]
fn the_most_specific_prefix_decides_after_defaults_allow() {
    let mut rig = Rig::under(RULES);
    let rows = [
        ("192.0.2.0", "pass", "allowed"),
        ("192.0.2.15", "pass", "allowed"),
        ("192.0.2.16", "drop", "denied"),
        ("192.0.2.5", "pass", "allowed"),
        ("10.0.0.1", "drop", "denied"),
        ("10.255.255.255", "drop", "denied"),
        ("11.0.0.0", "pass", "conforming"),
        ("9.255.255.255", "pass", "conforming"),
        ("10.1.2.0", "pass", "allowed"),
        ("10.1.2.255", "pass", "allowed"),
        ("10.1.3.0", "pass", "conforming"),
        ("172.16.0.1", "pass", "allowed"),
        ("172.32.0.1", "drop", "denied"),
        ("100.64.0.1", "drop", "denied"),
        ("100.64.1.1", "drop", "denied"),
    ];
    for (source, verdict, reason) in rows {
        let expected = first(verdict, reason, &format!("{source}/32"), "api");
        rig.check_each(&[(source, &ack_from(source), &expected)]);
    }
}

#[test]
fn rules_of_a_service_stay_with_it() {
    let mut rig = Rig::under(RULES);
    for (source, verdict, reason) in [
        ("100.64.0.1", "pass", "conforming"),
        ("100.64.1.1", "pass", "allowed"),
        ("10.0.0.1", "drop", "denied"),
    ] {
        let frame = udp(&format!("{source}:1"), "203.0.113.10:1").frame();
        let expected = first(verdict, reason, &format!("{source}/32"), "rest");
        rig.check_each(&[(source, &frame, &expected)]);
    }
}

#[test]
fn a_rule_limits_by_its_own_profile() {
    let entry = "10.1.3.4/32@api packets 1";
    Rig::under(RULES).check_sequence(&[
        (0, "first", &ack_from("10.1.3.4"), &first("pass", "conforming", "10.1.3.4/32", "api")),
        (0, "second", &ack_from("10.1.3.4"), &format!("drop packets; api.packets 1; {entry} refused 1")),
        (
            59_999,
            "too early",
            &ack_from("10.1.3.4"),
            &format!("drop packets; api.packets 1; {entry} refused 1"),
        ),
        (1, "after a minute", &ack_from("10.1.3.4"), &format!("pass conforming; api.conforming 1; {entry}")),
    ]);
}

#[test]
fn ipv6_sources_have_the_class_of_their_prefix() {
    let mut rig = Rig::under(RULES);
    let rows = [
        ("2001:db8:ffff::1", "pass", "allowed", "2001:db8:ffff::/64"),
        ("2001:db8:ffff:1::1", "pass", "allowed", "2001:db8:ffff:1::/64"),
        ("2001:db8:fffe::1", "drop", "denied", "2001:db8:fffe::/64"),
        ("2001:db8:c:1::1", "pass", "allowed", "2001:db8:c:1::/64"),
        ("2001:db8:c:1::2", "drop", "denied", "2001:db8:c:1::/64"),
        ("2001:db8:c:2::1", "drop", "denied", "2001:db8:c:2::/64"),
        ("2001:db8:d::1", "pass", "conforming", "2001:db8:d::/64"),
    ];
    for (source, verdict, reason, prefix) in rows {
        rig.check_each(&[(source, &ack_from(source), &first(verdict, reason, prefix, "api"))]);
    }
}

/// The hosts of one /64 share an entry and its budget, and still each has its own class: it is looked up each time.
#[test]
fn hosts_of_a_divided_source_keep_their_own_classes() {
    let prefix = "2001:db8:a:b::/64@api packets 1";
    let conforming = format!("pass conforming; api.conforming 1; {prefix}");
    let denied = format!("drop denied; api.denied 1; {prefix} refused 1");
    let allowed = format!("pass allowed; api.allowed 1; {prefix}");
    Rig::under(RULES).check_sequence(&[
        (0, "new", &ack_from("2001:db8:a:b::1"), &first("pass", "conforming", "2001:db8:a:b::/64", "api")),
        (0, "the bad one", &ack_from("2001:db8:a:b::bad"), &denied),
        (0, "a neighbour", &ack_from("2001:db8:a:b::bac"), &conforming),
        (0, "the good one", &ack_from("2001:db8:a:b::600d"), &allowed),
        (0, "the lower half", &ack_from("2001:db8:a:b:7fff::"), &conforming),
        (0, "the upper half", &ack_from("2001:db8:a:b:8000::"), &denied),
        (0, "the bad one again", &ack_from("2001:db8:a:b::bad"), &denied),
        (0, "the first again", &ack_from("2001:db8:a:b::1"), &conforming),
    ]);
}
