//! Cells: new sources of a window that have something in common, and what they did.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    block::Block,
    family::{self, Family},
    interval::Kinds,
    limits::{CELLS_MAX, SOURCES_COUNTED_MIN},
    observation::{Kind, ServiceId},
    projection::Projections,
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
    /// Whether a proxy is on the way, whatever the ClientHello is.
    Way(Way),
}

impl Common {
    /// Kinds of it.
    pub const PROJECTIONS: usize = 7;

    /// Of which kind it is.
    pub const fn projection(self) -> usize {
        match self {
            Self::Service => 0,
            Self::Tls(_) => 1,
            Self::Syn(_) => 2,
            Self::TlsAndSyn(..) => 3,
            Self::TlsAndPath(..) => 4,
            Self::Path(_) => 5,
            Self::Way(_) => 6,
        }
    }

    /// Whether a family says something of such a cell: one that defines it does not.
    pub const fn is_tested_by(self, family: Family) -> bool {
        !matches!((self, family), (Self::TlsAndPath(..) | Self::Path(_) | Self::Way(_), Family::Path))
    }

    /// Whether a client with such fingerprints, whose way is of a category, is in such a cell.
    pub fn has(self, kind: &Kind, path: usize) -> bool {
        let (is_tls, is_syn) = (|key| kind.tls_key == key, |key| kind.syn_key == key);
        match self {
            Self::Service => true,
            Self::Tls(tls) => is_tls(tls),
            Self::Syn(syn) => is_syn(syn),
            Self::TlsAndSyn(tls, syn) => is_tls(tls) && is_syn(syn),
            Self::TlsAndPath(tls, way) => is_tls(tls) && Way::of(path) == way,
            Self::Path(category) => usize::from(category) == path,
            Self::Way(way) => Way::of(path) == way,
        }
    }

    /// Whether it says that a proxy is on the way.
    pub const fn is_proxied(self) -> bool {
        match self {
            Self::Path(path) => family::is_proxied(path as usize),
            Self::TlsAndPath(_, way) | Self::Way(way) => matches!(way, Way::Proxied),
            _ => false,
        }
    }

    /// Whether it is of all clients behind proxies, whatever their ClientHello is.
    pub const fn is_of_all_proxied(self) -> bool {
        self.is_proxied() && !matches!(self, Self::TlsAndPath(..))
    }

    /// What the sources of a cell have in common beside the way. `None`: it does not define the way, or not that a proxy is on it.
    pub const fn without_path(self) -> Option<Self> {
        match self {
            Self::TlsAndPath(tls, Way::Proxied) => Some(Self::Tls(tls)),
            Self::Path(path) if family::is_proxied(path as usize) => Some(Self::Service),
            Self::Way(Way::Proxied) => Some(Self::Service),
            _ => None,
        }
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
        self.add_evidence(CellEvidence::of(did));
    }

    fn add_evidence(&mut self, evidence: CellEvidence) {
        self.sources += 1;
        for (counts, evidence) in self.families.iter_mut().zip(evidence.0) {
            if let Some(count) = counts.get_mut(usize::from(evidence)) {
                *count += 1;
            }
        }
    }
}

/// What is counted of a source for each family; beyond the last kind of evidence where that is nothing.
#[derive(Clone, Copy, Debug)]
struct CellEvidence([u16; Family::ALL.len()]);

impl CellEvidence {
    fn of(did: &Block) -> Self {
        Self(
            Family::ALL.map(|family| {
                family.evidence(family.category(did)).map_or(u16::MAX, |evidence| evidence as u16)
            }),
        )
    }
}

/// The new sources of a window, by cells that have [`SOURCES_COUNTED_MIN`] of them, and of each service.
pub type Cells = HashMap<Cell, Counts, RandomState>;

/// The cells of a window that are counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// The cells.
    #[serde(with = "crate::ordered")]
    pub cells: Cells,
    /// From how many new sources on: more than [`SOURCES_COUNTED_MIN`] where there were more cells than [`CELLS_MAX`].
    pub least: u32,
}

/// Counts new sources by cells. `window` is in the order of sources and kinds, and `projections` are those of all its kinds.
pub fn count(window: &[Block], kinds: &Kinds, projections: &Projections) -> Counted {
    let in_cells = sources_in_cells(window, projections);
    let mut sizes = vec![0_u32; projections.len()];
    in_cells.iter().for_each(|(cell, _)| sizes[*cell as usize] += 1);
    let least = least_counted(&sizes);
    // Of what is counted the place among all that is, from 1 on.
    let mut places = vec![0_u32; projections.len()];
    let mut counted: Vec<(Cell, Counts)> = Vec::new();
    for (number, _) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
        let cell = projections.cell(number as u32, kinds);
        if cell.common == Common::Service || sizes[number] >= least {
            counted.push((cell, Counts::default()));
            places[number] = counted.len() as u32;
        }
    }
    for (cell, evidence) in in_cells {
        if let Some(place) = places[cell as usize].checked_sub(1) {
            counted[place as usize].1.add_evidence(evidence);
        }
    }
    Counted { cells: counted.into_iter().collect(), least }
}

/// From how many new sources on a cell is counted, so that at most [`CELLS_MAX`] are.
fn least_counted(sizes: &[u32]) -> u32 {
    let mut large: Vec<u32> = sizes.iter().copied().filter(|&size| size >= SOURCES_COUNTED_MIN).collect();
    if large.len() <= CELLS_MAX {
        return SOURCES_COUNTED_MIN;
    }
    // Equal ones are left out together: which of them it would be depends on nothing that means something.
    *large.select_nth_unstable_by(CELLS_MAX, |one, other| other.cmp(one)).1 + 1
}

/// Each new source in each cell that it is in, with what is counted of all that it did there: 12 bytes, about seven times a source.
fn sources_in_cells(window: &[Block], projections: &Projections) -> Vec<(u32, CellEvidence)> {
    let mut found = Vec::new();
    let mut of_source: Vec<u64> = Vec::new();
    for blocks in window.chunk_by(|one, next| one.source == next.source) {
        if let [block] = blocks {
            if block.is_new() {
                let evidence = CellEvidence::of(block);
                found.extend(projections.cells_of(block).map(|cell| (cell, evidence)));
            }
            continue;
        }
        // Numbers of cells, and below them places of blocks.
        of_source.clear();
        for (place, block) in blocks.iter().enumerate().filter(|(_, block)| block.is_new()) {
            of_source.extend(projections.cells_of(block).map(|cell| u64::from(cell) << 32 | place as u64));
        }
        of_source.sort_unstable();
        for of_cell in of_source.chunk_by(|one, next| one >> 32 == next >> 32) {
            let block = |entry: u64| &blocks[entry as u32 as usize];
            let evidence = match of_cell {
                [alone] => CellEvidence::of(block(*alone)),
                several => {
                    let mut did = *block(several[0]);
                    several[1..].iter().for_each(|more| did.add_of_source(block(*more)));
                    CellEvidence::of(&did)
                }
            };
            found.push(((of_cell[0] >> 32) as u32, evidence));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{NOT_TIMED, Sizes},
        family::tests::block,
        seen::SeenFor,
        source::Source,
    };

    #[test]
    fn of_too_many_cells_the_largest_are_counted() {
        assert_eq!(least_counted(&[4, 5, 900]), SOURCES_COUNTED_MIN);
        let many = |small: usize| [vec![7; CELLS_MAX - 10], vec![6; small], vec![900; 10]].concat();
        assert_eq!(least_counted(&many(0)), SOURCES_COUNTED_MIN);
        assert_eq!(least_counted(&many(1)), 7);
        assert_eq!(least_counted(&vec![7; CELLS_MAX + 1]), 8, "of equal ones none");
    }

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
        window.push(Block { kind: fresh, seen_for: SeenFor::KNOWN, ..other(1000) });
        window.push(Block { kind: rare, ..other(1001) });
        let Counted { cells, least } = count(&window, &kinds, &Projections::of(&kinds));
        assert_eq!(least, SOURCES_COUNTED_MIN);
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
            10,
            "service, two of each key and of both, SYN, the way without times in two forms and with each key"
        );
    }
}
