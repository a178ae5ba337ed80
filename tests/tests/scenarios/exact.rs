//! Limits, exact to the packet.

use detector_common::verdict::Reason;
use detector_tests::{
    packet::flags,
    random::Random,
    rows::{MILLISECOND, Rig, SECOND},
};

use crate::*;

/// Rates as they are written, and what they are. Their intervals are whole sixteenths of a nanosecond, so the limiter
/// has nothing to round.
const RATES: &[(&str, u64, u64)] = &[
    ("100/min", 100, 60 * SECOND),
    ("10/s", 10, SECOND),
    ("100/s", 100, SECOND),
    ("2000/s", 2000, SECOND),
    ("10k/s", 10_000, SECOND),
    ("100k/s", 100_000, SECOND),
    ("1M/s", 1_000_000, SECOND),
];

/// Arrivals around the rate, with pauses now and then and several packets at one time.
fn gap_ns(random: &mut Random, interval_ns: u64, burst: u64) -> u64 {
    match random.below(100) {
        0 => random.below(interval_ns * burst.min(50) + 1),
        1..25 => 0,
        25..35 => interval_ns,
        35..40 => interval_ns - 1,
        _ => random.below(interval_ns * 5 / 4),
    }
}

#[test]
fn every_packet_of_both_families_has_the_verdict_of_the_model() {
    let mut random = Random::announced(1);
    let mut rig = Rig::bare();
    for &(rate, count, per_ns) in RATES {
        for burst in [1, 2, 100, 5000] {
            rig.apply(&policy_of(&format!("packets = {{ rate = \"{rate}\", burst = {burst} }}")));
            rig.forget_sources();
            rig.advance(60 * SECOND);
            let (v4, v6) = (ack(v4(1)), ack(v6(1)));
            let mut bucket = Bucket::new(count, per_ns, burst);
            for _ in 0..burst.min(100) {
                assert!(bucket.take(rig.now_ns(), 1) && rig.passes(&v4) && rig.passes(&v6));
            }
            let mut refused = 0;
            for packet in 0..1000 {
                rig.advance(gap_ns(&mut random, per_ns / count, burst));
                let expected = bucket.take(rig.now_ns(), 1);
                refused += u64::from(!expected);
                assert_eq!(rig.passes(&v4), expected, "IPv4 packet {packet} of {rate}, burst {burst}");
                assert_eq!(rig.passes(&v6), expected, "IPv6 packet {packet} of {rate}, burst {burst}");
            }
            assert!(refused > 0 || burst == 5000, "{rate}, burst {burst}: the arrivals test nothing");
        }
    }
}

#[test]
fn a_burst_is_exact_however_large() {
    for burst in [1, 7, 1000, 100_000] {
        let mut rig = Rig::under(&policy_of(&format!("packets = {{ rate = \"1/s\", burst = {burst} }}")));
        let before = rig.counted("api", Reason::Conforming).packets;
        rig.repeat(&ack(v4(1)), burst + 1000);
        assert_eq!(rig.counted("api", Reason::Conforming).packets - before, u64::from(burst));
    }
}

/// A packet a microsecond from one source under 100/s, and a source beside it.
#[test]
fn a_flood_gets_its_rate_and_its_neighbour_loses_nothing() {
    const MICROSECOND: u64 = 1000;
    let mut rig = Rig::under(&policy_of("packets = { rate = \"100/s\", burst = 100 }"));
    let (flood, neighbour) = (ack(v4(1)), ack(v4(2)));
    let mut admitted = 0;
    for microsecond in 0..500_000 {
        admitted += u64::from(rig.passes(&flood));
        if microsecond % 20_000 == 0 {
            assert!(rig.passes(&neighbour), "the neighbour lost a packet at {microsecond} µs");
        }
        rig.advance(MICROSECOND);
    }
    // The last microsecond is the 499,999th, so the packet of half a second is still to come.
    assert_eq!(admitted, 100 + 49);
}

/// Intervals that are not whole are rounded: less than 0.004 % up to a million a second.
#[test]
fn rates_that_do_not_divide_are_off_by_less_than_they_say() {
    for (rate, count) in [("3/s", 3), ("999983/s", 999_983), ("777777/s", 777_777)] {
        let mut rig = Rig::under(&policy_of(&format!("packets = {{ rate = \"{rate}\", burst = {count} }}")));
        let frame = ack(v4(1));
        let before = rig.counted("api", Reason::Conforming).packets;
        let steps = 10;
        rig.repeat(&frame, count);
        for _ in 0..steps {
            rig.advance(SECOND / 2);
            rig.repeat(&frame, count / 2 + 100);
        }
        let admitted = rig.counted("api", Reason::Conforming).packets - before;
        let exact = u64::from(count) * (2 + steps) / 2;
        let error = exact / 25_000 + 1;
        assert!(
            admitted.abs_diff(exact) <= error,
            "{rate}: {admitted} admitted, {exact} are exact, ± {error}"
        );
    }
}

#[test]
fn bytes_are_exact_to_the_byte() {
    let mut random = Random::announced(2);
    for (rate, count, burst) in
        [("16kB/s", 16_000, 1514), ("1MB/s", 1_000_000, 3000), ("8MB/s", 8_000_000, 100_000)]
    {
        let mut rig = Rig::under(&policy_of(&format!("bytes = {{ rate = \"{rate}\", burst = {burst} }}")));
        let mut bucket = Bucket::a_second(count, burst);
        let mut refused = 0;
        for packet in 0..3000 {
            let bytes = if random.once_in(4) { 1514 } else { 74 + random.below(1441) };
            rig.advance(random.below(3 * bytes * SECOND / (2 * count)));
            let (v4, v6) =
                (sized(v4(1), flags::ACK, bytes as usize), sized(v6(1), flags::ACK, bytes as usize));
            let expected = bucket.take(rig.now_ns(), bytes);
            refused += u64::from(!expected);
            assert_eq!(rig.passes(&v4), expected, "packet {packet} of {bytes} bytes at {rate}");
            assert_eq!(rig.passes(&v6), expected, "IPv6 packet {packet} of {bytes} bytes at {rate}");
        }
        assert!(refused > 100, "{rate}: the arrivals test nothing");
    }
}

/// A full budget admits a frame of any length; what is left then is nothing.
#[test]
fn a_frame_longer_than_the_burst_takes_all_of_it() {
    let mut rig = Rig::under(&policy_of("bytes = { rate = \"16kB/s\", burst = 1600 }"));
    let (jumbo, small) = (sized(v4(1), flags::ACK, 9014), sized(v4(1), flags::ACK, 64));
    assert!(rig.passes(&jumbo));
    assert_eq!(rig.reason(&small), Reason::Bytes);
    rig.advance(4 * MILLISECOND - 1);
    assert_eq!(rig.reason(&small), Reason::Bytes);
    rig.advance(1);
    assert!(rig.passes(&small));
    rig.advance(100 * MILLISECOND - 1);
    assert_eq!(rig.reason(&jumbo), Reason::Bytes);
    rig.advance(1);
    assert!(rig.passes(&jumbo));
}

#[test]
fn connections_are_exact_and_data_is_free() {
    let mut random = Random::announced(3);
    let mut rig = Rig::under(&policy_of("connections = { rate = \"20/s\", burst = 60 }"));
    let mut bucket = Bucket::a_second(20, 60);
    let (syn, data) = (segment(v4(1), flags::SYN), ack(v4(1)));
    for packet in 0..5000 {
        rig.advance(random.below(70 * MILLISECOND));
        assert_eq!(rig.passes(&syn), bucket.take(rig.now_ns(), 1), "SYN {packet}");
        assert!(rig.passes(&data));
    }
}

/// Three budgets of a source and three of the prefix around it: a packet is charged to all of them or to none.
#[test]
fn a_dropped_packet_charges_nothing() {
    let mut random = Random::announced(4);
    let mut rig = Rig::under(&policy_of(
        "packets = { rate = \"1000/s\", burst = 10 }\nbytes = { rate = \"500kB/s\", burst = 4000 }\n\
         connections = { rate = \"200/s\", burst = 3 }\n[profile.customer.parents]\n\
         v4_24 = { packets = { rate = \"2000/s\", burst = 25 }, bytes = { rate = \"1MB/s\", burst = 12000 }, \
         connections = { rate = \"400/s\", burst = 7 } }",
    ));
    let own = [Bucket::a_second(1000, 10), Bucket::a_second(500_000, 4000), Bucket::a_second(200, 3)];
    let mut sources = vec![own; 4];
    let mut parent =
        [Bucket::a_second(2000, 25), Bucket::a_second(1_000_000, 12_000), Bucket::a_second(400, 7)];
    let reasons = [Reason::Packets, Reason::Bytes, Reason::Connections];
    let parent_reasons = [Reason::ParentPackets, Reason::ParentBytes, Reason::ParentConnections];
    let mut seen = std::collections::BTreeMap::new();
    for packet in 0..20_000 {
        // Calm and storm, one source and all, small frames and large, data and connections by turns, so that budgets
        // are spent in every order.
        let phase = packet / 100;
        rig.advance(random.below([100_000, 400_000, 3_000_000][phase % 3]));
        let source = if phase % 2 == 0 { 0 } else { random.index(sources.len()) };
        let connection = random.once_in([2, 20][phase / 2 % 2]);
        let bytes = if random.once_in([1, 3, 50][phase / 4 % 3]) { 60 + random.below(1455) } else { 60 };
        let demands = [1, bytes, 1];
        let asked = if connection { 3 } else { 2 };
        let now = rig.now_ns();
        let expected = (0..asked)
            .find(|&kind| !sources[source][kind].has(now, demands[kind]))
            .map(|kind| reasons[kind])
            .or_else(|| {
                (0..asked)
                    .find(|&kind| !parent[kind].has(now, demands[kind]))
                    .map(|kind| parent_reasons[kind])
            })
            .unwrap_or(Reason::Conforming);
        if expected == Reason::Conforming {
            for kind in 0..asked {
                sources[source][kind].charge(demands[kind]);
                parent[kind].charge(demands[kind]);
            }
        }
        let flags = if connection { flags::SYN } else { flags::ACK };
        let frame = sized(v4(source as u32 + 1), flags, bytes as usize);
        assert_eq!(rig.reason(&frame), expected, "packet {packet}");
        *seen.entry(expected).or_insert(0) += 1;
    }
    for reason in reasons.into_iter().chain(parent_reasons).chain([Reason::Conforming]) {
        assert!(seen.get(&reason).is_some_and(|&times| times > 50), "hardly any {reason:?}: {seen:?}");
    }
}
