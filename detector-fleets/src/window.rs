//! Several intervals as one: each client with the sum of what it did.

use std::collections::VecDeque;

use crate::{block::Block, interval::Interval, limits::INTERVAL_S};

/// Minutes of an interval.
const MINUTES: u64 = INTERVAL_S / 60;

/// Blocks of some time, in the order of sources and kinds.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Number of the interval from whose start minutes are counted.
    pub number: u64,
    /// The blocks.
    pub blocks: &'a [Block],
}

impl<'a> From<&'a Interval> for Part<'a> {
    fn from(interval: &'a Interval) -> Self {
        Self { number: interval.number, blocks: &interval.blocks }
    }
}

/// Clients of several parts, one after the other in time, in the order of sources and kinds. Minutes are counted from the start of the
/// first one.
///
/// Neighbours are merged until one is left: nothing is hashed, and memory is read in order.
pub fn merge<'a>(parts: impl IntoIterator<Item = Part<'a>>) -> Vec<Block> {
    let parts: Vec<_> = parts.into_iter().collect();
    let Some(start) = parts.first().map(|part| part.number) else { return Vec::new() };
    let later = |part: &Part<'_>| ((part.number - start) * MINUTES) as u16;
    let pairs = parts.chunks(2).map(|pair| match pair {
        [one, other] => both((one.blocks, later(one)), (other.blocks, later(other))),
        alone => {
            alone.iter().flat_map(|one| one.blocks.iter().map(|block| block.later_by(later(one)))).collect()
        }
    });
    let mut merged: Vec<Vec<Block>> = pairs.collect();
    while merged.len() > 1 {
        let mut rest = merged.into_iter();
        merged = Vec::with_capacity(rest.len().div_ceil(2));
        while let Some(one) = rest.next() {
            merged.push(match rest.next() {
                Some(other) => both((&one, 0), (&other, 0)),
                None => one,
            });
        }
    }
    merged.pop().unwrap_or_default()
}

/// Two lists, the earlier one first, and by how many minutes the start of each is later.
fn both((one, one_later): (&[Block], u16), (other, other_later): (&[Block], u16)) -> Vec<Block> {
    let mut merged = Vec::with_capacity(one.len() + other.len());
    let (mut of_one, mut of_other) = (one.iter(), other.iter());
    let (mut next_one, mut next_other) = (of_one.next(), of_other.next());
    while let (Some(first), Some(second)) = (next_one, next_other) {
        let order = first.order().cmp(&second.order());
        if order.is_le() {
            merged.push(first.later_by(one_later));
            next_one = of_one.next();
        } else {
            merged.push(second.later_by(other_later));
        }
        if order.is_eq()
            && let Some(last) = merged.last_mut()
        {
            last.add(&second.later_by(other_later));
        }
        if order.is_ge() {
            next_other = of_other.next();
        }
    }
    merged.extend(next_one.into_iter().chain(of_one).map(|block| block.later_by(one_later)));
    merged.extend(next_other.into_iter().chain(of_other).map(|block| block.later_by(other_later)));
    merged
}

/// Intervals of an hour as one, of those before a number: where windows that begin within them are over. Hours end with the interval whose
/// number is a multiple of four.
pub fn merge_hours(intervals: &mut VecDeque<Interval>, before: u64) {
    let hour = |interval: &Interval| interval.number.saturating_sub(1) / 4;
    let over = intervals.iter().take_while(|interval| interval.number < before).count();
    let rest = intervals.split_off(over);
    let mut parts = std::mem::take(intervals).into_iter().peekable();
    while let Some(first) = parts.next() {
        let mut of_hour = vec![first];
        while let Some(next) = parts.next_if(|next| hour(next) == hour(&of_hour[0])) {
            of_hour.push(next);
        }
        if of_hour.len() > 1 {
            of_hour = vec![Interval {
                number: of_hour[0].number,
                blocks: merge(of_hour.iter().map(Part::from)).into(),
                lost: of_hour.iter().map(|one| one.lost).sum(),
            }];
        }
        intervals.extend(of_hour);
    }
    intervals.extend(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        interval::{Kinds, OpenInterval, Room},
        limits::{BLOCKS_MAX, SIZE_BINS, TIME_BINS},
        observation::{Kind, Observation, ServiceId},
        seen::Seen,
        source::Source,
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row(minute: u64, source: u32, tls_key: u64, exchanges: u32, bin: usize) -> Observation {
        let mut row = Observation {
            time_s: 20_000 * 86_400 + minute * 60,
            span_s: 60,
            source: Source::of_v4(source.into()),
            kind: Kind { service: ServiceId(0), syn_key: 1, tls_key },
            packets: 0,
            bytes: 0,
            dropped_packets: 0,
            connections: 1,
            handshakes: 1,
            exchanges,
            request_sizes: [0; SIZE_BINS],
            response_sizes: [0; SIZE_BINS],
            rtt: [0; TIME_BINS],
            hello_gap: [0; TIME_BINS],
            finish_gap: [0; TIME_BINS],
        };
        row.request_sizes[bin] = exchanges;
        row.rtt[bin % TIME_BINS] = 1;
        row
    }

    #[test]
    fn what_is_refused_again_and_again_is_no_connection() {
        let refused = |dropped_packets, handshakes| {
            let row =
                Observation { packets: 6, dropped_packets, connections: 5, handshakes, ..row(0, 1, 0, 0, 0) };
            Block::of(&row, crate::block::KindId(0), crate::seen::SeenFor::NEW).connections
        };
        assert_eq!([refused(0, 1), refused(3, 1), refused(4, 1), refused(6, 0)], [5, 5, 1, 0]);
    }

    /// Exchanges, connections, first and last minute, and the lowest bin of round trips.
    type Sum = (u32, u32, u64, u64, u8);

    proptest! {
        /// Rows in any order inside their interval, folded and merged, are what a plain sum by client says.
        #[test]
        fn a_window_is_the_sum_of_its_rows(
            rows in proptest::collection::vec((0..300_u64, 0..20_u32, 0..3_u64, 0..50_u32, 0..SIZE_BINS), 0..300),
        ) {
            let mut rows = rows;
            rows.sort_by_key(|row| row.0 / 15);
            let (mut kinds, mut seen) = (Kinds::default(), Seen::for_sources(1000, 1));
            let mut open: Vec<OpenInterval> = Vec::new();
            let mut expected: BTreeMap<(Source, u64), Sum> = BTreeMap::new();
            for &(minute, source, tls_key, exchanges, bin) in &rows {
                let row = row(minute, source, tls_key, exchanges, bin);
                if open.last().is_none_or(|last| last.number() != row.time_s / INTERVAL_S) {
                    open.push(OpenInterval::new(row.time_s / INTERVAL_S, Room { most: BLOCKS_MAX, expected: 0 }));
                }
                open.last_mut().expect("one was pushed").add(&row, &mut kinds, &mut seen);
                let sum = expected.entry((row.source, tls_key)).or_insert((0, 0, minute, minute, u8::MAX));
                sum.0 += exchanges;
                sum.1 += 1;
                sum.2 = sum.2.min(minute);
                sum.3 = sum.3.max(minute);
                sum.4 = sum.4.min((bin % TIME_BINS) as u8);
            }
            let first = open.first().map_or(0, OpenInterval::number) * INTERVAL_S / 60;
            let sealed: Vec<_> = open.into_iter().map(OpenInterval::seal).collect();
            let merged = merge(sealed.iter().map(Part::from));
            prop_assert!(merged.is_sorted_by_key(Block::order));
            let start = 20_000 * 1440;
            let found: BTreeMap<_, _> = merged
                .iter()
                .map(|block| {
                    let minute = |minute: u16| u64::from(minute) + first - start;
                    let told = (block.exchanges.into(), block.connections.into(), minute(block.first_minute), minute(block.last_minute), block.rtt);
                    ((block.source, kinds.kind(block.kind).tls_key), told)
                })
                .collect();
            prop_assert_eq!(found.len(), merged.len(), "each client once");
            prop_assert_eq!(found, expected);
            // Hours that are one say the same, but for sizes, which are kept roughly.
            let mut hours = VecDeque::from(sealed);
            let before = first * 60 / INTERVAL_S + 12;
            merge_hours(&mut hours, before);
            let early = hours.iter().take_while(|one| one.number < before);
            prop_assert!(early.map(|one| (one.number - 1) / 4).is_sorted_by(|one, next| one < next), "one of each hour");
            let again = merge(hours.iter().map(Part::from));
            prop_assert_eq!(again.len(), merged.len());
            for (block, other) in again.iter().zip(&merged) {
                prop_assert_eq!(Block { requests: other.requests, ..*block }, *other);
            }
        }
    }
}
