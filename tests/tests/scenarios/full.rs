//! A set without an idle way answers, and counts its answers.

use detector_common::{
    limits::{OVERFLOW_SOURCES, WAYS},
    verdict::Reason,
};
use detector_tests::{
    packet::flags,
    rows::{MILLISECOND, Rig, SECOND},
};

use crate::*;

/// Who fills the only set.
const FILLING: std::ops::Range<u32> = 0..WAYS as u32;

/// Fills the only set with sources that are busy for a while.
fn fill(rig: &mut Rig) {
    for source in FILLING {
        assert_eq!(rig.reason(&ack(v4(source))), Reason::Conforming);
    }
}

#[test]
fn newcomers_to_a_full_set_share_one_budget() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = { rate = \"10/s\", burst = 4 }"));
    fill(&mut rig);
    // Whoever they are: four at once for each source that the budget is that of.
    let shared = 4 * OVERFLOW_SOURCES as u32;
    let rows: Vec<_> =
        (0..shared + 2).map(|n| (if n % 2 == 0 { v4(100 + n) } else { v6(100 + n) }, n < shared)).collect();
    for (source, passes) in rows {
        let expected =
            if passes { "pass table_full; api.table_full 1" } else { "drop overflow; api.overflow 1" };
        assert_eq!(rig.row(&ack(source)), expected, "{source}");
    }
    // Those who have a way are limited by their own budgets meanwhile.
    for source in FILLING {
        for _ in 0..3 {
            assert_eq!(rig.reason(&ack(v4(source))), Reason::Conforming);
        }
        assert_eq!(rig.reason(&ack(v4(source))), Reason::Packets);
    }
    // As many as there are such sources every tenth of a second, to whoever comes first.
    rig.advance(100 * MILLISECOND / OVERFLOW_SOURCES - 1);
    assert_eq!(rig.reason(&ack(v4(104))), Reason::Overflow);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(104))), Reason::TableFull);
    assert_eq!(rig.reason(&ack(v4(105))), Reason::Overflow);
    // A newcomer gets a way as soon as one is idle.
    rig.advance(SECOND);
    assert_eq!(rig.reason(&ack(v4(105))), Reason::Conforming);
}

/// What needs no budget needs no entry.
#[test]
fn rules_decide_for_newcomers_to_a_full_set() {
    let text = policy_of("packets = { rate = \"10/s\", burst = 1 }")
        + "[[rule]]\nname = \"bad\"\nsource = [\"10.0.1.0/24\"]\naction = \"drop\"\n\
           [[rule]]\nname = \"good\"\nsource = [\"10.0.2.0/24\"]\naction = \"allow\"\n\
           [[service]]\nname = \"open\"\naddresses = [\"203.0.113.11\"]\n";
    let mut rig = Rig::new(1);
    rig.apply(&text);
    fill(&mut rig);
    let open = tcp("10.0.0.99:1", "203.0.113.11:1", flags::ACK).frame();
    assert_eq!(rig.row(&ack(v4(0x101))), "drop denied; api.denied 1");
    assert_eq!(rig.row(&ack(v4(0x201))), "pass allowed; api.allowed 1");
    assert_eq!(rig.row(&open), "pass unlimited; open.unlimited 1");
    for _ in 0..OVERFLOW_SOURCES {
        assert_eq!(rig.row(&ack(v4(0x301))), "pass table_full; api.table_full 1");
    }
    assert_eq!(rig.row(&ack(v4(0x302))), "drop overflow; api.overflow 1");
}

/// The prefixes around a source bound it also while it finds no way.
#[test]
fn newcomers_to_a_full_set_pay_their_parents() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of(
        "packets = { rate = \"10/s\", burst = 100 }\n[profile.customer.parents]\n\
         v4_24 = { packets = { rate = \"10/s\", burst = 18 } }",
    ));
    fill(&mut rig);
    // Those who have a way have spent all but two of what their /24 has.
    const { assert!(WAYS == 16) };
    for expected in [Reason::TableFull, Reason::TableFull, Reason::ParentPackets] {
        assert_eq!(rig.reason(&ack(v4(100))), expected);
    }
    assert_eq!(rig.reason(&ack(v4(0))), Reason::ParentPackets, "they share it with those that have a way");
    assert_eq!(rig.reason(&ack(v4(0x100))), Reason::TableFull, "another /24");
    // What the /24 refused was not charged to the shared budget: that of so many sources, less three.
    let passed = (1..).map(|n| v4(0x200 + (n << 8))).take_while(|&source| rig.passes(&ack(source))).count();
    assert_eq!(passed as u64, 100 * OVERFLOW_SOURCES - 3);
}

/// A source that gets no entry is no new source yet, however often it knocks.
#[test]
fn new_sources_are_paid_for_with_the_entry() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of(
        "packets = { rate = \"10/s\", burst = 100 }\n[profile.customer.parents]\n\
         v4_24 = { new_sources = { rate = \"1/h\", burst = 17 } }",
    ));
    const { assert!(WAYS == 16) };
    fill(&mut rig);
    for _ in 0..50 {
        assert_eq!(rig.reason(&ack(v4(100))), Reason::TableFull);
    }
    rig.advance(SECOND);
    assert_eq!(rig.reason(&ack(v4(100))), Reason::Conforming, "the last new source");
    assert_eq!(rig.reason(&ack(v4(101))), Reason::NewSources, "one more");
}

/// The shared budgets of two classes are apart, and so are those of packets and connections: a slow one stops no other.
#[test]
fn classes_without_a_way_do_not_share_a_budget() {
    let text = policy_of(
        "packets = { rate = \"10/s\", burst = 4 }\nconnections = { rate = \"1/h\", burst = 2 }\n\
         [profile.slow]\npackets = { rate = \"1/h\", burst = 3 }",
    ) + "[[rule]]\nname = \"slow\"\nsource = [\"10.0.1.0/24\"]\naction = { limit = \"slow\" }\n";
    let mut rig = Rig::new(1);
    rig.apply(&text);
    for source in FILLING {
        // Busy beyond the test.
        while rig.passes(&segment(v4(source), flags::SYN)) {}
    }
    let passed = |rig: &mut Rig, source, flags| {
        (0..100).filter(|_| rig.passes(&segment(v4(source), flags))).count() as u64
    };
    for round in 0..5 {
        assert_eq!(
            passed(&mut rig, 0x100, flags::ACK),
            if round == 0 { 3 * OVERFLOW_SOURCES } else { 0 },
            "slow, round {round}"
        );
        assert_eq!(
            passed(&mut rig, 0x200, flags::SYN),
            if round == 0 { 2 * OVERFLOW_SOURCES } else { 0 },
            "SYN, round {round}"
        );
        assert_eq!(passed(&mut rig, 0x200, flags::ACK), 4 * OVERFLOW_SOURCES, "data, round {round}");
        rig.advance(SECOND);
    }
}

#[test]
fn a_full_set_in_shadow_drops_nothing() {
    let mut rig = Rig::new(1);
    rig.apply(&format!(
        "{}[defaults]\nmode = \"shadow\"\n",
        policy_of("packets = { rate = \"10/s\", burst = 1 }")
    ));
    fill(&mut rig);
    for _ in 0..OVERFLOW_SOURCES {
        assert_eq!(rig.row(&ack(v4(100))), "pass table_full; api.table_full 1");
    }
    assert_eq!(rig.row(&ack(v4(101))), "pass overflow (shadow); api.overflow.shadow 1");
}

/// Parents have a table of their own; where it is full their budgets are not charged, and that is counted.
#[test]
fn parents_without_a_way_are_left_out_and_counted() {
    let mut rig = Rig::new(100_000);
    rig.apply(&policy_of(
        "packets = \"1/s\"\n[profile.customer.parents]\nv4_24 = { packets = { rate = \"1/min\", burst = 1 } }",
    ));
    let ways = rig.bench().loaded.maps.parents.len() * WAYS;
    // Twice as many prefixes as there are ways, two sources each; each prefix affords one packet.
    let (mut second_passed, mut left_out) = (0, 0);
    for prefix in 0..2 * ways as u32 {
        let before = rig.counter("parents_full");
        assert_eq!(rig.reason(&ack(v4(prefix << 8 | 1))), Reason::Conforming);
        let full = rig.counter("parents_full") > before;
        left_out += u64::from(full);
        let second = rig.reason(&ack(v4(prefix << 8 | 2)));
        assert_eq!(second, if full { Reason::Conforming } else { Reason::ParentPackets }, "prefix {prefix}");
        second_passed += u64::from(second == Reason::Conforming);
    }
    assert_eq!(second_passed, left_out);
    assert_eq!(rig.counter("parent_created") + left_out, 2 * ways as u64);
    assert!(left_out >= ways as u64, "{left_out} of {} prefixes found no way among {ways}", 2 * ways);
}
