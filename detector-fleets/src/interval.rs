//! A quarter of an hour: observations are folded into blocks, one for each client, and sealed.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    block::{Block, KindId},
    blocks::{Blocks, Found},
    limits::{BARE_BLOCKS_MAX, KINDS_MAX},
    observation::{Kind, Observation},
    seen::Seen,
};

/// The kinds of client that were seen, each with a number.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    kinds: Vec<Kind>,
    numbers: HashMap<Kind, KindId, RandomState>,
}

impl Kinds {
    /// The number of a kind, which is given one where it has none. Where [`KINDS_MAX`] have one, that of clients of the service whose
    /// fingerprints are unknown.
    pub fn number(&mut self, kind: Kind) -> KindId {
        if let Some(number) = self.numbers.get(&kind) {
            return *number;
        }
        let unknown = Kind { syn_key: 0, tls_key: 0, ..kind };
        if self.kinds.len() >= KINDS_MAX && kind != unknown {
            return self.number(unknown);
        }
        let number = KindId(self.kinds.len() as u32);
        self.kinds.push(kind);
        self.numbers.insert(kind, number);
        number
    }

    /// The number of a kind that has one.
    pub(crate) fn known(&self, kind: &Kind) -> Option<KindId> {
        self.numbers.get(kind).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Keeps those that are in use, in their order, under new numbers: for each old number the new one, which is nobody's where the kind is
    /// not kept.
    pub(crate) fn keep(&mut self, is_in_use: &[bool]) -> Vec<KindId> {
        let mut kept = Self::default();
        let numbers = self.kinds.iter().zip(is_in_use).map(|(kind, is_in_use)| {
            let next = KindId(kept.len() as u32);
            if *is_in_use { kept.number(*kind) } else { next }
        });
        let numbers = numbers.collect();
        *self = kept;
        numbers
    }

    /// The kind of a number that was given.
    pub fn kind(&self, number: KindId) -> Kind {
        self.kinds[number.0 as usize]
    }
}

impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kinds.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kinds = Vec::deserialize(deserializer)?;
        let numbers = kinds.iter().zip(0..).map(|(kind, number)| (*kind, KindId(number))).collect();
        Ok(Self { kinds, numbers })
    }
}

/// Blocks of one interval, or of the intervals of an hour, in the order of sources and kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Number of the interval, or the first one: its start in seconds since the Unix epoch, by [`INTERVAL_S`](crate::limits::INTERVAL_S).
    pub number: u64,
    /// The blocks.
    pub blocks: Box<[Block]>,
    /// Observations of clients that found no room.
    pub lost: u64,
}

/// How many blocks an interval has room for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// At most.
    pub most: usize,
    /// For so many there is memory from the beginning.
    pub expected: usize,
}

/// An interval that observations come into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenInterval {
    number: u64,
    room: usize,
    blocks: Blocks,
    /// Those of them that began as [bare](Observation::is_bare) ones.
    bare: usize,
    lost: u64,
}

impl OpenInterval {
    /// The interval of a number, see [`Interval::number`].
    pub fn new(number: u64, room: Room) -> Self {
        let Room { most, expected } = room;
        Self { number, room: most, blocks: Blocks::with_capacity(expected.min(most)), bare: 0, lost: 0 }
    }

    /// How many blocks it has.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Its number, see [`Interval::number`].
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether a client is here already.
    pub(crate) fn has(&self, row: &Observation, kinds: &Kinds) -> bool {
        kinds.known(&row.kind).is_some_and(|kind| self.blocks.has(row.source, kind))
    }

    /// Adds what a client did.
    pub fn add(&mut self, row: &Observation, kinds: &mut Kinds, seen: &mut Seen) {
        let kind = kinds.number(row.kind);
        let is_bare = row.is_bare();
        let is_full = self.blocks.len() >= self.room || (is_bare && self.bare >= BARE_BLOCKS_MAX);
        match self.blocks.find(row.source, kind) {
            // What was known of it when the interval began is known.
            Found::Block(block) => block.add(&Block::of(row, kind, block.seen_for)),
            Found::Vacant(_) if is_full => self.lost += 1,
            Found::Vacant(vacancy) => {
                let seen_for = seen.note(row.kind.service, row.source, row.time_s);
                vacancy.fill(Block::of(row, kind, seen_for));
                self.bare += usize::from(is_bare);
            }
        }
    }

    /// Shows all numbers of kinds.
    pub(crate) fn each_kind(&mut self, mut show: impl FnMut(&mut KindId)) {
        let mut blocks = std::mem::take(&mut self.blocks).into_blocks();
        blocks.iter_mut().for_each(|block| show(&mut block.kind));
        self.blocks = blocks.into();
    }

    /// No more observations come.
    pub fn seal(self) -> Interval {
        let mut blocks = self.blocks.into_blocks().into_boxed_slice();
        blocks.sort_unstable_by_key(Block::order);
        Interval { number: self.number, blocks, lost: self.lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{SIZE_BINS, TIME_BINS},
        observation::ServiceId,
        source::Source,
    };

    fn row(source: u32, syn_key: u64, handshakes: u32) -> Observation {
        Observation {
            time_s: 900,
            span_s: 60,
            source: Source::of_v4(source.into()),
            kind: Kind { service: ServiceId(0), syn_key, tls_key: 1 },
            packets: 1,
            bytes: 60,
            dropped_packets: 0,
            connections: 1,
            handshakes,
            exchanges: 0,
            request_sizes: [0; SIZE_BINS],
            response_sizes: [0; SIZE_BINS],
            rtt: [0; TIME_BINS],
            hello_gap: [0; TIME_BINS],
            finish_gap: [0; TIME_BINS],
        }
    }

    #[test]
    fn a_flood_of_made_up_sources_takes_its_own_room_and_nobodys_memory() {
        let (mut kinds, mut seen) = (Kinds::default(), Seen::for_sources(200_000, 1));
        let mut open = OpenInterval::new(1, Room { most: 100_000, expected: 0 });
        let (syns, initials) = (BARE_BLOCKS_MAX as u32, 10);
        for number in 0..syns {
            open.add(&row(number, 7, 0), &mut kinds, &mut seen);
        }
        for number in syns..syns + initials {
            open.add(&row(number, 0, 1), &mut kinds, &mut seen);
        }
        assert_eq!((open.blocks.len(), open.lost), (BARE_BLOCKS_MAX, u64::from(initials)));
        assert!(seen.len() <= BARE_BLOCKS_MAX, "{}", seen.len());
        // Who is among them is counted on, and who greets comes in.
        open.add(&row(5, 7, 0), &mut kinds, &mut seen);
        for number in 0..100_000 {
            open.add(&row(1_000_000 + number, 7, 1), &mut kinds, &mut seen);
        }
        let of_others = 100_000 - BARE_BLOCKS_MAX as u64;
        assert_eq!(open.lost, u64::from(initials) + 100_000 - of_others, "and there is an end for them, too");
        let sealed = open.seal();
        assert_eq!(
            (sealed.blocks.len(), sealed.lost),
            (100_000, BARE_BLOCKS_MAX as u64 + u64::from(initials))
        );
    }

    #[test]
    fn a_client_is_there_once_it_was_added() {
        let (mut kinds, mut seen) = (Kinds::default(), Seen::for_sources(1000, 1));
        let mut open = OpenInterval::new(1, Room { most: 10, expected: 0 });
        let has = |open: &OpenInterval, kinds: &Kinds| {
            [(1, 7), (1, 8), (2, 7)].map(|(source, syn_key)| open.has(&row(source, syn_key, 1), kinds))
        };
        assert_eq!(has(&open, &kinds), [false; 3]);
        open.add(&row(1, 7, 1), &mut kinds, &mut seen);
        assert_eq!(has(&open, &kinds), [true, false, false]);
    }

    #[test]
    fn kinds_beyond_what_is_told_apart_are_unknown_ones() {
        let mut kinds = Kinds::default();
        let kind = |key| Kind { service: ServiceId(3), syn_key: key, tls_key: key };
        for key in 1..=KINDS_MAX as u64 {
            kinds.number(kind(key));
        }
        let unknown = kinds.number(kind(KINDS_MAX as u64 + 1));
        assert_eq!(kinds.kind(unknown), kind(0));
        assert_eq!(kinds.number(kind(KINDS_MAX as u64 + 2)), unknown);
        let known = kinds.number(kind(77));
        assert_eq!(kinds.kind(known), kind(77), "those that are known stay so");
    }
}
