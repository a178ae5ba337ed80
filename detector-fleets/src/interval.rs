//! A quarter of an hour: observations are folded into blocks, one for each client, and sealed.

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::RandomState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    block::{Block, KindId},
    limits::{BLOCKS_MAX, INTERVAL_S, KINDS_MAX},
    observation::{Kind, Observation},
    seen::Seen,
    source::Source,
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
    /// Number of the interval, or the first one: its start in seconds since the Unix epoch, by [`INTERVAL_S`].
    pub number: u64,
    /// The blocks.
    pub blocks: Box<[Block]>,
    /// Observations of clients that found no room.
    pub lost: u64,
}

/// An interval that observations come into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenInterval {
    number: u64,
    #[serde(with = "crate::ordered")]
    blocks: HashMap<(Source, KindId), Block, RandomState>,
    lost: u64,
}

impl OpenInterval {
    /// The interval that a time is in.
    pub fn at(time_s: u64) -> Self {
        Self { number: time_s / INTERVAL_S, blocks: HashMap::default(), lost: 0 }
    }

    /// Its number, see [`Interval::number`].
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Adds what a client did.
    pub fn add(&mut self, row: &Observation, kinds: &mut Kinds, seen: &mut Seen) {
        let kind = kinds.number(row.kind);
        let is_full = self.blocks.len() >= BLOCKS_MAX;
        match self.blocks.entry((row.source, kind)) {
            Entry::Occupied(mut entry) => {
                // What was known of it when the interval began is known.
                let seen_for = entry.get().seen_for;
                entry.get_mut().add(&Block::of(row, kind, seen_for));
            }
            Entry::Vacant(entry) => {
                let seen_for = seen.note(row.kind.service, row.source, row.time_s);
                if is_full {
                    self.lost += 1;
                } else {
                    entry.insert(Block::of(row, kind, seen_for));
                }
            }
        }
    }

    /// Shows all numbers of kinds.
    pub(crate) fn each_kind(&mut self, mut show: impl FnMut(&mut KindId)) {
        let shown = std::mem::take(&mut self.blocks).into_iter().map(|((source, _), mut block)| {
            show(&mut block.kind);
            ((source, block.kind), block)
        });
        self.blocks = shown.collect();
    }

    /// No more observations come.
    pub fn seal(self) -> Interval {
        let mut blocks: Box<[Block]> = self.blocks.into_values().collect();
        blocks.sort_unstable_by_key(Block::order);
        Interval { number: self.number, blocks, lost: self.lost }
    }
}
