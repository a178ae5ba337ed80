//! Cells: new sources of a window that have something in common, and what they did.

use std::collections::HashMap;

use foldhash::fast::{FixedState, RandomState};
use serde::{Deserialize, Serialize};
use std::hash::BuildHasher as _;

use crate::{
    block::Block,
    family::{self, Family},
    interval::Kinds,
    limits::SOURCES_COUNTED_MIN,
    observation::ServiceId,
};

/// What the sources of a cell have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Common {
    /// Nothing: all of the service.
    Service,
    /// The ClientHello.
    Tls(u64),
    /// The SYN.
    Syn(u64),
    /// Both.
    TlsAndSyn(u64, u64),
    /// The ClientHello, and whether a proxy is on the way to the client.
    TlsAndPath(u64, Way),
    /// The category of the way to the client.
    Path(u8),
}

impl Common {
    /// Kinds of it.
    pub const PROJECTIONS: usize = 6;

    /// Of which kind it is.
    pub const fn projection(self) -> usize {
        match self {
            Self::Service => 0,
            Self::Tls(_) => 1,
            Self::Syn(_) => 2,
            Self::TlsAndSyn(..) => 3,
            Self::TlsAndPath(..) => 4,
            Self::Path(_) => 5,
        }
    }

    /// Whether a family says something of such a cell: one that defines it does not.
    pub const fn is_tested_by(self, family: Family) -> bool {
        !matches!((self, family), (Self::TlsAndPath(..) | Self::Path(_), Family::Path))
    }
}

/// What is known of the way to a client. Not how long it is: exits of one actor are at all distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    /// Nothing: no handshake was timed.
    Unknown,
    /// No proxy is on it.
    Straight,
    /// There is one.
    Proxied,
}

impl Way {
    /// That of a category of [`Family::Path`].
    pub const fn of(path: usize) -> Self {
        match Family::Path.evidence(path) {
            None => Self::Unknown,
            Some(0) => Self::Straight,
            Some(_) => Self::Proxied,
        }
    }
}

/// A cell, by what its sources have in common at a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Where.
    pub service: ServiceId,
    /// What.
    pub common: Common,
}

/// Sources of a cell, by the categories of what they did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many.
    pub sources: u32,
    families: [Box<[u32]>; Family::ALL.len()],
}

impl Default for Counts {
    fn default() -> Self {
        Self { sources: 0, families: Family::ALL.map(|family| vec![0; family.evidences()].into()) }
    }
}

impl Counts {
    /// Those of a family, a count for each kind of evidence.
    pub fn of(&self, family: Family) -> &[u32] {
        &self.families[family as usize]
    }

    /// Adds a source by all that it did in the cell.
    pub fn add(&mut self, did: &Block) {
        self.sources += 1;
        for family in Family::ALL {
            if let Some(evidence) = family.evidence(family.category(did)) {
                self.families[family as usize][evidence] += 1;
            }
        }
    }
}

/// The new sources of a window, by cells that have [`SOURCES_COUNTED_MIN`] of them, and of each service.
pub type Cells = HashMap<Cell, Counts, RandomState>;

/// Counts new sources by cells. `window` is in the order of sources and kinds.
pub fn count(window: &[Block], kinds: &Kinds) -> Cells {
    let hasher = FixedState::default();
    let mut sizes: HashMap<u64, u32, RandomState> = HashMap::default();
    for_each_source(window, kinds, |cell, _| *sizes.entry(hasher.hash_one(cell)).or_insert(0) += 1);
    let mut cells = Cells::default();
    for_each_source(window, kinds, |cell, did| {
        let is_counted =
            cell.common == Common::Service || sizes[&hasher.hash_one(cell)] >= SOURCES_COUNTED_MIN;
        if is_counted {
            cells.entry(cell).or_default().add(did);
        }
    });
    cells
}

/// Calls for each new source of each cell once, with all that it did there.
fn for_each_source(window: &[Block], kinds: &Kinds, mut call: impl FnMut(Cell, &Block)) {
    let mut of_source = Vec::new();
    for blocks in window.chunk_by(|one, next| one.source == next.source) {
        of_source.clear();
        of_source.extend(blocks.iter().filter(|block| block.is_new).flat_map(|block| {
            let kind = kinds.kind(block.kind);
            let commons = commons(kind.tls_key, kind.syn_key, family::path(block) as u8);
            commons.map(|common| (Cell { service: kind.service, common }, *block))
        }));
        of_source.sort_by_key(|(cell, _)| *cell);
        for of_cell in of_source.chunk_by(|(one, _), (next, _)| one == next) {
            let (cell, mut did) = of_cell[0];
            for (_, more) in &of_cell[1..] {
                did.add_of_source(more);
            }
            call(cell, &did);
        }
    }
}

/// What a new source has in common with others, by its client.
pub(crate) fn commons(tls_key: u64, syn_key: u64, path: u8) -> [Common; Common::PROJECTIONS] {
    [
        Common::Service,
        Common::Tls(tls_key),
        Common::Syn(syn_key),
        Common::TlsAndSyn(tls_key, syn_key),
        Common::TlsAndPath(tls_key, Way::of(path.into())),
        Common::Path(path),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{NOT_TIMED, Sizes},
        family::tests::block,
        observation::Kind,
        source::Source,
    };

    #[test]
    fn a_source_is_counted_once_in_each_cell_with_all_that_it_did_there() {
        let mut kinds = Kinds::default();
        let mut kind = |tls_key, syn_key| kinds.number(Kind { service: ServiceId(0), syn_key, tls_key });
        let (fresh, resumed, rare) = (kind(1, 9), kind(2, 9), kind(3, 9));
        let mut window = Vec::new();
        for number in 0..SOURCES_COUNTED_MIN {
            for kind in [fresh, resumed] {
                let of_client = block(2, 0, [NOT_TIMED; 3], Sizes(0));
                window.push(Block { source: Source::of_v4(number.into()), kind, ..of_client });
            }
        }
        // One that is known, and one of a kind that nobody else is.
        let other = |number: u32| Block {
            source: Source::of_v4(number.into()),
            connections: 40,
            ..block(0, 0, [6, 2, 6], Sizes(1))
        };
        window.push(Block { kind: fresh, is_new: false, ..other(1000) });
        window.push(Block { kind: rare, ..other(1001) });
        let cells = count(&window, &kinds);
        let counts = |common| cells.get(&Cell { service: ServiceId(0), common });
        let volumes = |common| {
            let counts: &Counts = counts(common).expect("the cell is counted");
            let of_volumes = counts.of(Family::Homogeneity).chunks(family::LIVES);
            (counts.sources, of_volumes.map(|of_lives| of_lives.iter().sum::<u32>()).collect::<Vec<_>>())
        };
        assert_eq!(volumes(Common::Tls(1)), (5, vec![5, 0, 0, 0, 0, 0, 0]));
        assert_eq!(volumes(Common::Syn(9)), (6, vec![0, 5, 0, 0, 0, 0, 1]), "of both clients together");
        assert_eq!(volumes(Common::Service), (6, vec![0, 5, 0, 0, 0, 0, 1]));
        assert!(counts(Common::Tls(3)).is_none() && counts(Common::TlsAndSyn(2, 9)).is_some());
        assert_eq!(
            cells.len(),
            9,
            "service, two of each key and of both, SYN, the way without times alone and with each key"
        );
    }
}
