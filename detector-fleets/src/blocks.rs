//! Blocks by client. They stand in the order in which their clients came, with a table of their places beside them, of five bytes for each of its slots. Who
//! comes again mostly came a minute ago, so that both are rather in the processor's caches than a table of the blocks themselves.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::{
    HashTable,
    hash_table::{Entry, VacantEntry},
};
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
    Vacant(Vacancy<'a>),
}

/// Where a block comes.
pub(crate) struct Vacancy<'a> {
    blocks: &'a mut Vec<Block>,
    place: VacantEntry<'a, u32>,
}

impl Vacancy<'_> {
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

    /// Whether that of a client is there.
    pub(crate) fn has(&self, source: Source, kind: KindId) -> bool {
        let is_it = |place: &u32| self.blocks[*place as usize].order() == (source, kind);
        self.places.find(self.state.hash_one((source, kind)), is_it).is_some()
    }

    /// That of a client.
    pub(crate) fn find(&mut self, source: Source, kind: KindId) -> Found<'_> {
        let Self { blocks, places, state } = self;
        let client = |place: &u32| blocks[*place as usize].order();
        let is_it = |place: &u32| client(place) == (source, kind);
        match places.entry(state.hash_one((source, kind)), is_it, |place| state.hash_one(client(place))) {
            Entry::Occupied(entry) => {
                let place = *entry.get() as usize;
                Found::Block(&mut blocks[place])
            }
            Entry::Vacant(place) => Found::Vacant(Vacancy { blocks, place }),
        }
    }

    /// All of them.
    pub(crate) fn into_blocks(self) -> Vec<Block> {
        self.blocks
    }
}

impl From<Vec<Block>> for Blocks {
    /// Of clients that have one block each; a second one is dropped.
    fn from(blocks: Vec<Block>) -> Self {
        let mut found = Self::with_capacity(blocks.len());
        for block in blocks {
            if let Found::Vacant(vacancy) = found.find(block.source, block.kind) {
                vacancy.fill(block);
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
