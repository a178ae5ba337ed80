//! What is kept of one client in a quarter of an hour, in forty bytes.

use serde::{Deserialize, Serialize};

use crate::{
    limits::{INTERVAL_S, SIZE_BINS, TIME_BINS},
    observation::Observation,
    seen::SeenFor,
    source::Source,
};

/// A kind of client, by its place in [`crate::interval::Kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KindId(pub u32);

/// Stands in [`Block::rtt`] and its like for "no connection of it was timed".
pub const NOT_TIMED: u8 = u8::MAX;

/// Counts of a histogram of sizes, four bits each, lowest bin lowest. They stop at 15, and where one would go beyond, all are halved
/// first: what is kept is which sizes are frequent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes(pub u64);

impl Sizes {
    const BITS: u32 = 4;
    const MOST: u32 = 15;

    /// The count of a bin.
    pub const fn count(self, bin: usize) -> u32 {
        (self.0 >> (bin as u32 * Self::BITS)) as u32 & Self::MOST
    }

    /// Of counts without a bound.
    pub fn of(counts: &[u32; SIZE_BINS]) -> Self {
        let most = counts.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return Self(0);
        }
        // Rounded up, so that none vanishes.
        let shift = (u32::BITS - most.leading_zeros()).saturating_sub(Self::BITS);
        let kept = |count: u32| u64::from(count.div_ceil(1 << shift).min(Self::MOST));
        let word = |bin: usize| kept(counts[bin]) << (bin as u32 * Self::BITS);
        Self((0..SIZE_BINS).map(word).sum())
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        // Eight counts at once, each in a byte: sums are at most 30.
        const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
        const ONE: u64 = 0x0101_0101_0101_0101;
        let even = (self.0 & LOW) + (other.0 & LOW);
        let odd = (self.0 >> 4 & LOW) + (other.0 >> 4 & LOW);
        let is_kept = (even | odd) & !LOW == 0;
        let [even, odd] = if is_kept { [even, odd] } else { [even, odd].map(|sums| (sums + ONE) >> 1 & LOW) };
        Self(even | odd << 4)
    }

    /// The bin with most of the counts, among equals the lowest; `None`: there are none.
    pub fn top(self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        (0..SIZE_BINS).rev().max_by_key(|&bin| self.count(bin))
    }
}

/// One client in one interval, or in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Who.
    pub source: Source,
    /// As what.
    pub kind: KindId,
    /// For how long the source had been seen at the service.
    pub seen_for: SeenFor,
    /// Exchanges, at most 65,535.
    pub exchanges: u16,
    /// Connections, at most 65,535.
    pub connections: u16,
    /// First minute in which it was active, counted from the start of the interval or window.
    pub first_minute: u16,
    /// Last one.
    pub last_minute: u16,
    /// Lowest bin of its round trips, or [`NOT_TIMED`]. Lowest, since loss, early connections and retries only add time.
    pub rtt: u8,
    /// … from the end of the TCP handshake to the ClientHello.
    pub hello_gap: u8,
    /// … from the ClientHello to what comes next.
    pub finish_gap: u8,
    /// Sizes of requests.
    pub requests: Sizes,
    /// Sizes of responses.
    pub responses: Sizes,
}

const _: () = assert!(size_of::<Block>() == 40);

impl Block {
    /// That of one observation, in the interval that its epoch starts in.
    pub fn of(row: &Observation, kind: KindId, seen_for: SeenFor) -> Self {
        let minute = (row.time_s % INTERVAL_S / 60) as u16;
        // Who is refused asks again and again: of that only what came further is a connection.
        let connections =
            if row.is_refused() { row.connections.min(row.handshakes) } else { row.connections };
        Self {
            source: row.source,
            kind,
            seen_for,
            exchanges: saturated(row.exchanges),
            connections: saturated(connections),
            first_minute: minute,
            last_minute: minute,
            rtt: lowest(&row.rtt),
            hello_gap: lowest(&row.hello_gap),
            finish_gap: lowest(&row.finish_gap),
            requests: Sizes::of(&row.request_sizes),
            responses: Sizes::of(&row.response_sizes),
        }
    }

    /// Adds what the same client did at another time; minutes of both are counted from the same start.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.kind, other.kind);
        self.add_of_source(other);
    }

    /// Adds what another client of the same source did; its kind stays what it was.
    pub fn add_of_source(&mut self, other: &Self) {
        debug_assert_eq!(self.source, other.source);
        if other.last_minute >= self.last_minute {
            // What is known of it last counts.
            self.seen_for = other.seen_for;
        }
        self.exchanges = self.exchanges.saturating_add(other.exchanges);
        self.connections = self.connections.saturating_add(other.connections);
        self.first_minute = self.first_minute.min(other.first_minute);
        self.last_minute = self.last_minute.max(other.last_minute);
        self.rtt = self.rtt.min(other.rtt);
        self.hello_gap = self.hello_gap.min(other.hello_gap);
        self.finish_gap = self.finish_gap.min(other.finish_gap);
        self.requests = self.requests.plus(other.requests);
        self.responses = self.responses.plus(other.responses);
    }

    /// The same with minutes counted from an earlier start.
    #[must_use]
    pub fn later_by(mut self, minutes: u16) -> Self {
        self.first_minute += minutes;
        self.last_minute += minutes;
        self
    }

    /// Whether the source was not seen at the service more than [`crate::limits::NEW_S`] before.
    pub const fn is_new(&self) -> bool {
        self.seen_for.is_new()
    }

    /// Minutes from its first to its last activity; 0: one minute only.
    pub const fn life_minutes(&self) -> u16 {
        self.last_minute - self.first_minute
    }

    /// In the order in which blocks are kept.
    pub const fn order(&self) -> (Source, KindId) {
        (self.source, self.kind)
    }
}

fn saturated(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The lowest bin that is not empty.
fn lowest(counts: &[u32; TIME_BINS]) -> u8 {
    counts.iter().position(|&count| count != 0).map_or(NOT_TIMED, |bin| bin as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = [u32; SIZE_BINS]> {
        proptest::array::uniform16(prop_oneof![3 => Just(0_u32), 2 => 0..40_u32, 1 => 0..100_000_u32])
    }

    proptest! {
        #[test]
        fn sizes_keep_what_is_frequent(counts in counts(), others in counts()) {
            let sizes = Sizes::of(&counts);
            for (bin, &count) in counts.iter().enumerate() {
                prop_assert_eq!(sizes.count(bin) == 0, count == 0, "none comes and none vanishes");
            }
            if counts.iter().all(|&count| count <= 15) {
                prop_assert_eq!(std::array::from_fn(|bin| sizes.count(bin)), counts, "small ones are exact");
            }
            if let Some(top) = sizes.top() {
                let most = counts.iter().copied().max().unwrap_or(0);
                prop_assert!(counts[top] * 8 >= most * 7 || counts[top] + 1 >= most, "{} of {most}", counts[top]);
            }
            let sum = sizes.plus(Sizes::of(&others));
            for bin in 0..SIZE_BINS {
                prop_assert_eq!(sum.count(bin) == 0, counts[bin] == 0 && others[bin] == 0);
            }
            let sums = std::array::from_fn(|bin| sizes.count(bin) + Sizes::of(&others).count(bin));
            prop_assert_eq!(sum, Sizes::of(&sums));
        }
    }
}
