//! Prefixes around sources: rotation inside a prefix does not help.

use detector_common::verdict::Reason;
use detector_tests::{
    random::Random,
    rows::{MILLISECOND, Rig, SECOND},
};

use crate::*;

/// Fifty sources below their own limits; together over that of their /24.
#[test]
fn sources_of_a_24_are_limited_together() {
    let mut random = Random::announced(7);
    let mut rig = Rig::under(&policy_of(
        "packets = { rate = \"100/s\", burst = 100 }\n[profile.customer.parents]\n\
         v4_24 = { packets = { rate = \"500/s\", burst = 50 } }",
    ));
    let mut parent = Bucket::a_second(500, 50);
    let mut own = vec![Bucket::a_second(100, 100); 50];
    let beside = ack(v4(0x100));
    let mut refused = 0;
    for packet in 0..20_000 {
        rig.advance(random.below(2 * SECOND / 1000));
        let source = random.index(own.len());
        let now = rig.now_ns();
        assert!(own[source].has(now, 1), "the sources stay below their own limits");
        let passes = parent.take(now, 1);
        if passes {
            own[source].charge(1);
        } else {
            refused += 1;
        }
        let expected = if passes { Reason::Conforming } else { Reason::ParentPackets };
        assert_eq!(rig.reason(&ack(v4(source as u32))), expected, "packet {packet} of source {source}");
        if packet % 100 == 0 {
            assert!(rig.passes(&beside), "the /24 beside lost a packet");
        }
    }
    assert!(refused > 8000, "{refused} of 20,000 packets were over the limit of the /24");
}

/// A /56 within its /48: each bounds its own, and what one of them refuses is not charged to the other.
#[test]
fn ipv6_sources_are_limited_by_56_and_48() {
    let mut random = Random::announced(8);
    let mut rig = Rig::under(&policy_of(
        "[profile.customer.parents]\nv6_56 = { packets = { rate = \"300/s\", burst = 30 } }\n\
         v6_48 = { packets = { rate = \"500/s\", burst = 40 } }",
    ));
    let mut near = vec![Bucket::a_second(300, 30); 4];
    let mut far = Bucket::a_second(500, 40);
    let (mut refused_near, mut refused_far) = (0, 0);
    for packet in 0..20_000 {
        // By turns one /56 is loud and all of them are.
        let group = if packet / 500 % 2 == 0 { 0 } else { random.index(near.len()) };
        rig.advance(random.below(2 * SECOND / 800));
        let source = v6((group as u32) << 8 | random.below(10) as u32);
        let now = rig.now_ns();
        let (has_near, has_far) = (near[group].has(now, 1), far.has(now, 1));
        if has_near && has_far {
            near[group].charge(1);
            far.charge(1);
        }
        refused_near += u64::from(!has_near);
        refused_far += u64::from(has_near && !has_far);
        let expected = if has_near && has_far { Reason::Conforming } else { Reason::ParentPackets };
        assert_eq!(rig.reason(&ack(source)), expected, "packet {packet} of {source}");
    }
    assert!(refused_near > 1000 && refused_far > 1000, "{refused_near} by the /56, {refused_far} by the /48");
}

/// One address after another from one prefix: the prefix may bring so many new sources, whatever each of them sends.
#[test]
fn rotation_through_a_prefix_is_bounded_by_new_sources() {
    for (parents, source) in [("v4_24", v4 as fn(u32) -> IpAddr), ("v6_48", v6)] {
        let mut rig = Rig::under(&policy_of(&format!(
            "packets = \"1000/s\"\n[profile.customer.parents]\n\
             {parents} = {{ new_sources = {{ rate = \"50/s\", burst = 20 }} }}"
        )));
        let mut bucket = Bucket::a_second(50, 20);
        let mut known = Vec::new();
        for number in 0..250 {
            rig.advance(MILLISECOND);
            let expected = if bucket.take(rig.now_ns(), 1) { Reason::Conforming } else { Reason::NewSources };
            assert_eq!(rig.reason(&ack(source(number))), expected, "source {number} of a {parents}");
            if expected == Reason::Conforming {
                known.push(number);
            }
        }
        assert_eq!(known.len(), 20 + 12, "20 at once and 50/s for a quarter of a second");
        for number in known {
            assert_eq!(rig.reason(&ack(source(number))), Reason::Conforming, "source {number} is known");
        }
    }
}

/// Parents are of a service: what a prefix spends at one leaves it the other.
#[test]
fn parents_of_two_services_are_apart() {
    let text = policy_of("[profile.customer.parents]\nv4_24 = { packets = { rate = \"1/s\", burst = 1 } }")
        + "[[service]]\nname = \"other\"\naddresses = [\"203.0.113.11\"]\nprofile = \"customer\"\n";
    let mut rig = Rig::under(&text);
    let other = tcp("10.0.0.1:1", "203.0.113.11:1", flags::ACK).frame();
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    assert_eq!(rig.reason(&ack(v4(2))), Reason::ParentPackets);
    assert_eq!(rig.reason(&other), Reason::Conforming);
    assert_eq!(rig.reason(&other), Reason::ParentPackets);
}

/// Two profiles in one /24, a slow one for some of its sources: each limits its own, and neither is in the other's debt.
#[test]
fn profiles_have_parents_of_their_own() {
    let text = policy_of(
        "packets = \"1000/s\"\n[profile.customer.parents]\nv4_24 = { packets = { rate = \"1000/s\", burst = 10 } }\n\
         [profile.strict]\npackets = \"1000/s\"\n[profile.strict.parents]\n\
         v4_24 = { packets = { rate = \"1/h\", burst = 3 } }",
    ) + "[[rule]]\nname = \"wave\"\nsource = [\"10.0.0.0/28\"]\naction = { limit = \"strict\" }\n";
    let mut rig = Rig::under(&text);
    let (strict, customer) = (ack(v4(1)), ack(v4(100)));
    for round in 0..10 {
        // The three of the slow one are spent once, whatever the others are given.
        let passed = (0..5).filter(|_| rig.passes(&strict)).count();
        assert_eq!(passed, if round == 0 { 3 } else { 0 }, "the slow profile in round {round}");
        let passed = (0..15).filter(|_| rig.passes(&customer)).count();
        assert_eq!(passed, 10, "the fast profile in round {round}");
        rig.advance(SECOND);
    }
    // Another profile with parents, before both by name, takes neither's place.
    let other = "[profile.a.parents]\nv4_24 = { packets = \"1/s\" }\n[[rule]]\nname = \"a\"\nsource = [\"10.9.0.0/16\"]\n\
                 action = { limit = \"a\" }\n";
    rig.apply(&(text + other));
    assert_eq!(rig.reason(&strict), Reason::ParentPackets);
    assert_eq!(rig.reason(&customer), Reason::Conforming);
}
