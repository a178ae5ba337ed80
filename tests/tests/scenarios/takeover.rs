//! Idle entries are given away, and nothing is forgotten.

use detector_common::{
    address::Address,
    limits::{HISTORY_PACKETS, LONG_IDLE_NS, WAYS},
    table::{Key, Unit, way_of},
    verdict::Reason,
};
use detector_tests::{
    random::Random,
    rows::{MILLISECOND, Rig, SECOND},
};
use detector_user::kernel::read;

use crate::*;

/// One set, five sources for each of its ways in turns, at most one for each with anything spent: each packet has the
/// verdict that it would have in a table without end.
#[test]
fn idle_takeover_loses_nothing() {
    const SOURCES: usize = 5 * WAYS;
    let mut random = Random::announced(5);
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = { rate = \"100/s\", burst = 5 }"));
    assert_eq!(rig.bench().loaded.maps.sources.len(), 1, "the smallest table is one set");
    let mut buckets = vec![Bucket::a_second(100, 5); SOURCES];
    let frames: Vec<_> =
        (0..SOURCES as u32).map(|n| if n % 2 == 0 { ack(v4(n)) } else { ack(v6(n)) }).collect();
    let (mut sent, mut refused) = (0, 0);
    while sent < 20_000 {
        // Storm and calm by turns: limits are reached, and entries become idle.
        rig.advance(random.below(if sent / 100 % 2 == 0 { MILLISECOND / 2 } else { 20 * MILLISECOND }));
        let now = rig.now_ns();
        let busy: Vec<_> = (0..SOURCES).filter(|&source| !buckets[source].is_full(now)).collect();
        assert!(busy.len() <= WAYS);
        // A source with something spent more often than not, so that limits are reached.
        let source =
            if busy.is_empty() || random.once_in(3) { random.index(SOURCES) } else { *random.pick(&busy) };
        if busy.len() == WAYS && !busy.contains(&source) {
            continue;
        }
        let expected = if buckets[source].take(now, 1) { Reason::Conforming } else { Reason::Packets };
        assert_eq!(rig.reason(&frames[source]), expected, "packet {sent} of source {source}");
        sent += 1;
        refused += u64::from(expected == Reason::Packets);
    }
    assert!(refused > 1000, "only {refused} of {sent} packets were over a limit");
    assert!(rig.counter("source_replaced") > 1000, "hardly an entry changed hands");
}

#[test]
fn a_full_set_that_went_idle_serves_new_sources() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = { rate = \"10/s\", burst = 3 }"));
    for round in 0..3 {
        for source in 0..WAYS as u32 {
            let frame = ack(v4(round * WAYS as u32 + source));
            for packet in 0..5 {
                let expected = if packet < 3 { Reason::Conforming } else { Reason::Packets };
                assert_eq!(
                    rig.reason(&frame),
                    expected,
                    "packet {packet} of source {source} in round {round}"
                );
            }
        }
        let (ways, rounds) = (WAYS as u64, u64::from(round) + 1);
        let counted = (rig.counter("source_created"), rig.counter("source_replaced"));
        assert_eq!(counted, (rounds * ways, (rounds - 1) * ways));
        // Three packets at 10/s: idle after 300 ms, not a tick before.
        rig.advance(300 * MILLISECOND - 1);
        assert_eq!(rig.reason(&ack(v4(1000 + round))), Reason::TableFull, "nobody is idle yet");
        rig.advance(1);
    }
}

/// The way that was idle longest goes first: counters of those who come again live longer.
#[test]
fn the_longest_idle_entry_goes_first() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = \"1000/s\""));
    for source in 0..WAYS as u32 {
        assert!(rig.passes(&ack(v4(source))));
        rig.advance(MILLISECOND);
    }
    // The first comes again, so the second is the longest idle.
    assert!(rig.passes(&ack(v4(0))));
    rig.advance(SECOND);
    assert!(rig.passes(&ack(v4(100))));
    let is_known = |source: u32| rig.entry(&v4(source).to_string(), "api").is_some();
    assert!(!is_known(1), "the longest idle source kept its way");
    for source in (0..WAYS as u32).filter(|&source| source != 1).chain([100]) {
        assert!(is_known(source), "source {source} lost its way");
    }
}

/// A source that sent more than spoofed ones do keeps its way while there is another, until it is long idle.
#[test]
fn a_source_with_a_history_goes_last() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = \"1000/s\""));
    for source in 0..WAYS as u32 {
        for _ in 0..if source == 0 { HISTORY_PACKETS } else { HISTORY_PACKETS - 1 } {
            assert!(rig.passes(&ack(v4(source))));
        }
        rig.advance(SECOND);
    }
    let is_known = |rig: &Rig, source: u32| rig.entry(&v4(source).to_string(), "api").is_some();
    let spoofed = |rig: &mut Rig, sources: std::ops::Range<u32>| {
        for source in sources {
            rig.advance(MILLISECOND);
            assert!(rig.passes(&ack(v4(source))));
        }
    };
    spoofed(&mut rig, 100..150);
    assert!(is_known(&rig, 0), "a source with a history lost its way though others were idle");
    assert!((1..WAYS as u32).all(|source| !is_known(&rig, source)), "the others kept theirs");
    rig.advance(LONG_IDLE_NS);
    spoofed(&mut rig, 200..200 + WAYS as u32);
    assert!(!is_known(&rig, 0), "a source that was idle for long kept its way");
}

/// Once every way has had an owner, a newcomer still stands where its search starts.
#[test]
fn a_worn_table_is_as_fast_as_a_fresh_one() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = \"1000/s\""));
    for round in 1..=20 {
        for source in 0..WAYS as u32 {
            assert!(rig.passes(&ack(v4(1000 * round + source))));
            rig.advance(MILLISECOND);
        }
        rig.advance(LONG_IDLE_NS);
        let newcomer = v4(1000 * round + WAYS as u32);
        assert!(rig.passes(&ack(newcomer)));
        let key =
            Key::new(newcomer.into(), Unit::of_source(Address::from(newcomer).family), rig.service("api"));
        let maps = &rig.bench().loaded.maps;
        let (set, hash) = read::set(maps, &maps.sources, &key);
        let first = &set.ways[way_of(hash, 0)];
        assert_eq!(first.owner().map(|(address, _)| address), Some(newcomer.into()), "round {round}");
    }
}

/// A source over its limit keeps its entry and its verdicts while random sources, each of which spends all it has,
/// fill the table around it many times over.
#[test]
fn a_limited_source_is_not_pushed_out_by_a_flood_of_others() {
    const BURST: u64 = 10;
    let mut random = Random::announced(6);
    let mut rig = Rig::new(50);
    rig.apply(&policy_of(&format!("packets = {{ rate = \"100/s\", burst = {BURST} }}")));
    let limited = ack("192.0.2.66".parse().unwrap());
    let mut bucket = Bucket::a_second(100, BURST);
    let generation = |rig: &Rig| {
        let entry = rig.entry("192.0.2.66", "api").expect("the limited source has an entry");
        entry.meta().generation()
    };
    let (mut admitted, mut refused) = (0, 0);
    assert!(bucket.take(rig.now_ns(), 1) && rig.passes(&limited));
    let first_generation = generation(&rig);
    // Three times its rate, with twenty spoofed sources in between.
    for packet in 0..1000 {
        for _ in 0..20 {
            let spoofed = ack(IpAddr::V4(Ipv4Addr::from_bits(random.bits() as u32)));
            (0..BURST).for_each(|_| _ = rig.send(&spoofed));
        }
        rig.advance(SECOND / 300);
        let expected = bucket.take(rig.now_ns(), 1);
        assert_eq!(rig.passes(&limited), expected, "packet {packet} of the limited source");
        assert_eq!(generation(&rig), first_generation, "its entry changed hands before packet {packet}");
        if expected { admitted += 1 } else { refused += 1 }
    }
    assert!(admitted > 300 && refused > 600, "{admitted} admitted, {refused} refused");
    assert!(rig.counter("source_replaced") > 3000, "the flood did not go through the table");
    assert!(rig.counted("api", Reason::Overflow).packets > 10_000, "the flood did not fill the table");
}
