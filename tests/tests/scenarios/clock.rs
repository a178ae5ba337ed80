//! A clock that goes back, as another CPU's may: refused packets stay refused, nothing wraps around.

use detector_common::{limits::WAYS, verdict::Reason};
use detector_tests::{
    packet::flags,
    random::Random,
    rows::{MILLISECOND, Rig, SECOND},
};

use crate::*;

/// Packets that come with an earlier time than the budget's state admit no more than the later time would.
#[test]
fn an_earlier_clock_does_not_refill() {
    let mut rig = Rig::under(&policy_of(
        "packets = { rate = \"100/s\", burst = 10 }\nbytes = { rate = \"1MB/s\", burst = 100000 }\n\
         connections = { rate = \"10/s\", burst = 10 }",
    ));
    let syn = segment(v4(1), flags::SYN);
    let now = rig.now_ns();
    while rig.passes(&syn) {}
    // Up to the second by which clocks of CPUs may differ; more is taken for the debt of an earlier policy.
    for back in [1, MILLISECOND, 10 * MILLISECOND, 100 * MILLISECOND] {
        rig.set_ns(now - back);
        let before = rig.counted("api", Reason::Conforming).packets;
        rig.repeat(&syn, 10_000);
        assert_eq!(rig.counted("api", Reason::Conforming).packets, before, "{back} ns back");
    }
    rig.set_ns(now);
    assert_eq!(rig.reason(&syn), Reason::Packets);
    rig.set_ns(now + 100 * MILLISECOND);
    assert_eq!(rig.reason(&syn), Reason::Conforming, "and nothing was charged meanwhile");
}

/// Two clocks in turns, one of them behind: together they admit what the one ahead would alone.
#[test]
fn two_clocks_admit_no_more_than_the_one_ahead() {
    const BEHIND_NS: u64 = 8 * MILLISECOND;
    let mut random = Random::announced(9);
    let mut rig = Rig::under(&policy_of("packets = { rate = \"1000/s\", burst = 20 }"));
    let frame = ack(v4(1));
    let start = rig.now_ns();
    let mut ahead = start;
    let mut admitted = u64::from(rig.passes(&frame));
    for _ in 0..20_000 {
        ahead += random.below(MILLISECOND / 2);
        rig.set_ns(if random.once_in(2) { ahead } else { ahead - BEHIND_NS });
        admitted += u64::from(rig.passes(&frame)) + u64::from(rig.passes(&frame));
    }
    let most = 20 + (ahead - start) / MILLISECOND;
    assert!((most - 10..=most).contains(&admitted), "{admitted} admitted, {most} at most");
}

/// A source that is new to a clock that is behind finds its entry, and one whose entry is ahead keeps it.
#[test]
fn an_entry_ahead_of_the_clock_is_not_idle() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = { rate = \"100/s\", burst = 1 }"));
    for source in 0..WAYS as u32 {
        assert!(rig.passes(&ack(v4(source))));
    }
    rig.set_ns(rig.now_ns() - 5 * SECOND);
    assert_eq!(rig.reason(&ack(v4(100))), Reason::TableFull);
    for source in 0..WAYS as u32 {
        let source = v4(source);
        assert_eq!(rig.reason(&ack(source)), Reason::Packets, "{source}");
        assert!(rig.entry(&source.to_string(), "api").is_some());
    }
}

/// Time 0 is a time like every other.
#[test]
fn budgets_are_full_when_the_clock_starts() {
    let mut rig = Rig::under(&policy_of("packets = { rate = \"10/s\", burst = 3 }"));
    rig.set_ns(0);
    let reasons: Vec<_> = (0..4).map(|_| rig.reason(&ack(v4(1)))).collect();
    assert_eq!(reasons, [Reason::Conforming, Reason::Conforming, Reason::Conforming, Reason::Packets]);
}

/// Times have 63 bits, of 1/16 ns each: 18 years of uptime.
#[test]
fn budgets_hold_after_eighteen_years() {
    let mut rig = Rig::under(&policy_of("packets = { rate = \"1/d\", burst = 30 }\nbytes = \"64B/s\""));
    rig.set_ns(18 * 365 * 86_400 * SECOND);
    for _ in 0..30 {
        assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    }
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(86_400 * SECOND - 1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}
