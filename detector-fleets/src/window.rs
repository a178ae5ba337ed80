//! Several intervals as one: each client with the sum of what it did.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{block::Block, interval::Interval, limits::INTERVAL_S};

/// Clients of a window of intervals, in the order of sources and kinds. Minutes are counted from the start of the first interval.
///
/// A merge of lists that are sorted: nothing is hashed, and memory is read in order.
pub fn merge<'a>(intervals: impl IntoIterator<Item = &'a Interval>) -> Vec<Block> {
    let intervals: Vec<_> = intervals.into_iter().collect();
    let Some(start) = intervals.iter().map(|interval| interval.number).min() else { return Vec::new() };
    let mut rest: Vec<_> = intervals
        .iter()
        .map(|interval| {
            let minutes = ((interval.number - start) * (INTERVAL_S / 60)) as u16;
            interval.blocks.iter().map(move |block| block.later_by(minutes))
        })
        .collect();
    let mut heads: Vec<Option<Block>> = rest.iter_mut().map(Iterator::next).collect();
    let head = |heads: &[Option<Block>], list: usize| heads[list].map(|block| Reverse((block.order(), list)));
    let mut queue: BinaryHeap<_> = (0..rest.len()).filter_map(|list| head(&heads, list)).collect();
    let mut merged: Vec<Block> =
        Vec::with_capacity(intervals.iter().map(|one| one.blocks.len()).max().unwrap_or(0));
    while let Some(mut next) = queue.peek_mut() {
        let Reverse((_, list)) = *next;
        let Some(block) = heads[list] else { break };
        match merged.last_mut() {
            Some(last) if last.order() == block.order() => last.add(&block),
            _ => merged.push(block),
        }
        heads[list] = rest[list].next();
        match head(&heads, list) {
            Some(key) => *next = key,
            None => drop(std::collections::binary_heap::PeekMut::pop(next)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        interval::{Kinds, OpenInterval},
        limits::{SIZE_BINS, TIME_BINS},
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
                    open.push(OpenInterval::at(row.time_s));
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
            let merged = merge(&sealed);
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
        }
    }
}
