//! A small world for tests: users of two services, and after two days a fleet at one of them.

use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};

use super::{
    memory::{Epoch, Memory},
    scale::Scale,
};

/// When it begins, s of detection: a midnight.
pub(crate) const START_S: u64 = 20_410 * 86_400;

/// An epoch is told each quarter of an hour.
const EPOCH_EVERY_S: u64 = 15 * 60;

/// Epochs before the fleet comes: four days.
pub(crate) const QUIET_EPOCHS: u64 = 4 * 96;

/// Sources of the fleet.
pub(crate) const FLEET: u32 = 300;

/// A memory that has seen nothing, small enough for many of them.
pub(crate) fn memory(scale: Scale) -> Memory {
    Memory::new(scale, 10_000, 7)
}

/// A number without a pattern (SplitMix64).
const fn noise(number: u64) -> u64 {
    let word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn one<const BINS: usize>(bin: u64, count: u32) -> [u32; BINS] {
    std::array::from_fn(|place| if place as u64 == bin { count } else { 0 })
}

/// A user, by what chance gives it.
fn user(time_s: u64, number: u32, chance: u64) -> Observation {
    let part = |shift: u64, most: u64| (chance >> shift) % most;
    let exchanges = 1 << part(0, 7);
    let (rtt, tls_key) = (4 + part(8, 5), 1 + part(16, 3));
    Observation {
        time_s,
        span_s: 60,
        source: Source::of_v4((0x0a00_0000 + number * 259).into()),
        kind: Kind { service: ServiceId((part(24, 4) == 0).into()), syn_key: 1 + part(28, 2), tls_key },
        packets: 10,
        bytes: 1000,
        dropped_packets: 0,
        connections: exchanges,
        handshakes: 1,
        exchanges,
        request_sizes: one::<SIZE_BINS>(1 + part(32, 5), exchanges),
        response_sizes: one::<SIZE_BINS>(3 + part(40, 8), exchanges),
        rtt: one::<TIME_BINS>(rtt, 1),
        hello_gap: one::<TIME_BINS>(0, 1),
        finish_gap: one::<TIME_BINS>(rtt, 1),
    }
}

/// One of the fleet: behind a proxy, and all alike.
fn member(time_s: u64, number: u32) -> Observation {
    Observation {
        source: Source::of_v4((0xc633_0000 + number).into()),
        kind: Kind { service: ServiceId(0), syn_key: 77, tls_key: 777 },
        connections: 2,
        handshakes: 2,
        exchanges: 2,
        request_sizes: one::<SIZE_BINS>(4, 2),
        response_sizes: one::<SIZE_BINS>(9, 2),
        rtt: one::<TIME_BINS>(3, 2),
        hello_gap: one::<TIME_BINS>(8, 2),
        finish_gap: one::<TIME_BINS>(8, 2),
        ..user(time_s, 0, 0)
    }
}

/// The epoch of a number: users of whom most were there before, and once its time has come a third of the fleet.
pub(crate) fn epoch(number: u64) -> Epoch {
    let start_s = START_S + number * EPOCH_EVERY_S;
    let mut rows = Vec::new();
    for place in 0..60 {
        let chance = noise(number * 64 + place);
        let is_new = place < 12;
        let user_number = if is_new { 5000 + number * 12 + place } else { (chance >> 45) % 5000 };
        rows.push(user(start_s, user_number as u32, chance));
    }
    if number >= QUIET_EPOCHS {
        let third = (number % 3) as u32 * FLEET / 3;
        rows.extend((third..third + FLEET / 3).map(|member_number| member(start_s, member_number)));
    }
    let names = if number == 0 { vec!["api".to_owned(), "web".to_owned()] } else { Vec::new() };
    Epoch { start_s, names, rows, lost: 0 }
}
