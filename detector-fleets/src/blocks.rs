//! Blocks by client. They stand in the order in which their clients came, with a table of their places beside them: who comes again came a
//! moment ago, and a place takes five bytes, so that both mostly are in the processor's caches where a table of the blocks themselves is not.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    block::{Block, KindId},
    source::Source,
};

/// At most 2^32 blocks, one for each client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    places: HashTable<u32>,
    state: RandomState,
}

/// The block of a client.
pub(crate) enum Found<'a> {
    /// It is there.
    Block(&'a mut Block),
    /// It is not, and may come here.
    Room(Room<'a>),
}

/// Where a block comes.
pub(crate) struct Room<'a> {
    blocks: &'a mut Vec<Block>,
    place: hashbrown::hash_table::VacantEntry<'a, u32>,
}

impl Room<'_> {
    /// Adds the block of the client that was looked for.
    pub(crate) fn fill(self, block: Block) {
        self.place.insert(self.blocks.len() as u32);
        self.blocks.push(block);
    }
}

impl Blocks {
    /// None, with memory for so many.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(count),
            places: HashTable::with_capacity(count),
            state: RandomState::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// That of a client.
    pub(crate) fn find(&mut self, source: Source, kind: KindId) -> Found<'_> {
        let Self { blocks, places, state } = self;
        let hash_of = |source: Source, kind: KindId| state.hash_one((source.number(), kind.0));
        let is_it = |place: &u32| blocks[*place as usize].order() == (source, kind);
        let hash_at = |place: &u32| {
            let (source, kind) = blocks[*place as usize].order();
            hash_of(source, kind)
        };
        match places.entry(hash_of(source, kind), is_it, hash_at) {
            Entry::Occupied(entry) => {
                let place = *entry.get() as usize;
                Found::Block(&mut blocks[place])
            }
            Entry::Vacant(place) => Found::Room(Room { blocks, place }),
        }
    }

    /// All of them.
    pub(crate) fn into_blocks(self) -> Vec<Block> {
        self.blocks
    }
}

impl From<Vec<Block>> for Blocks {
    /// Of clients that have one block each.
    fn from(blocks: Vec<Block>) -> Self {
        let mut found = Self::with_capacity(blocks.len());
        for block in blocks {
            if let Found::Room(room) = found.find(block.source, block.kind) {
                room.fill(block);
            }
        }
        found
    }
}

impl Serialize for Blocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.blocks.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}
