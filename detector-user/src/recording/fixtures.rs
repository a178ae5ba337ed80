//! Rows for tests.

use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};

/// A row whose counts follow from a number.
pub(crate) fn row(time_s: u64, number: u64) -> Observation {
    let count = number as u32;
    Observation {
        time_s,
        span_s: 60,
        source: Source::of_v4((0x0a00_0000 + count).into()),
        kind: Kind { service: ServiceId(0), syn_key: u64::MAX - number, tls_key: number },
        packets: number << 33,
        bytes: number * 1000,
        dropped_packets: number / 2,
        connections: count + 1,
        handshakes: count + 2,
        exchanges: u32::MAX - count,
        request_sizes: std::array::from_fn::<_, SIZE_BINS, _>(|bin| count + bin as u32),
        response_sizes: std::array::from_fn::<_, SIZE_BINS, _>(|bin| count * bin as u32),
        rtt: std::array::from_fn::<_, TIME_BINS, _>(|bin| count ^ bin as u32),
        hello_gap: std::array::from_fn::<_, TIME_BINS, _>(|bin| count | bin as u32),
        finish_gap: std::array::from_fn::<_, TIME_BINS, _>(|bin| bin as u32),
    }
}
