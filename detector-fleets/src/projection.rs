//! In which cells a client of a kind is, by numbers, so that millions of sources are counted without hashing.
//!
//! All of it follows from [`Kinds`], so it is not saved. At most about 150 bytes for each kind.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::{
    block::{Block, KindId},
    cells::{Cell, Common, Way},
    family,
    interval::Kinds,
    observation::ServiceId,
};

/// The cells of a client with a category of way, a number of each.
pub type CellNumbers = [u32; Common::PROJECTIONS];

/// Numbers of the cells of one kind of client: of its service, followed by those of all categories of way and of the three ways that are told apart; of its ClientHello, followed by
/// those of the ways; of its SYN; of both.
#[derive(Clone, Copy, Debug)]
struct OfKind {
    service: u32,
    tls: u32,
    syn: u32,
    both: u32,
}

/// What a number stands for: something that clients of this kind have in common.
#[derive(Clone, Copy, Debug)]
enum Stands {
    Service,
    Path(u8),
    Way(Way),
    Tls,
    TlsAndPath(Way),
    Syn,
    Both,
}

/// From the number of a service to that of the first way of all its clients.
const OF_ALL: u32 = 1 + family::PATHS as u32;

const WAYS: [Way; 3] = [Way::Unknown, Way::Straight, Way::Proxied];

/// Numbers of cells.
#[derive(Clone, Debug, Default)]
pub struct Projections {
    kinds: Vec<OfKind>,
    cells: Vec<(KindId, Stands)>,
    services: HashMap<ServiceId, u32, RandomState>,
    tls: HashMap<(ServiceId, u64), u32, RandomState>,
    syn: HashMap<(ServiceId, u64), u32, RandomState>,
    both: HashMap<(ServiceId, u64, u64), u32, RandomState>,
}

impl Projections {
    /// Of these kinds.
    pub fn of(kinds: &Kinds) -> Self {
        let mut projections = Self::default();
        projections.grow(kinds);
        projections
    }

    /// Kinds were added.
    pub fn grow(&mut self, kinds: &Kinds) {
        for number in self.kinds.len()..kinds.len() {
            let id = KindId(number as u32);
            let kind = kinds.kind(id);
            let cells = &mut self.cells;
            let mut add = |stands: &mut dyn Iterator<Item = Stands>| {
                let first = cells.len() as u32;
                cells.extend(stands.map(|stands| (id, stands)));
                first
            };
            let of_service = || {
                std::iter::once(Stands::Service)
                    .chain((0..family::PATHS as u8).map(Stands::Path))
                    .chain(WAYS.map(Stands::Way))
            };
            let of_tls = || std::iter::once(Stands::Tls).chain(WAYS.map(Stands::TlsAndPath));
            let service = *self.services.entry(kind.service).or_insert_with(|| add(&mut of_service()));
            let tls = *self.tls.entry((kind.service, kind.tls_key)).or_insert_with(|| add(&mut of_tls()));
            let syn = self.syn.entry((kind.service, kind.syn_key));
            let syn = *syn.or_insert_with(|| add(&mut std::iter::once(Stands::Syn)));
            let both = add(&mut std::iter::once(Stands::Both));
            self.both.insert((kind.service, kind.tls_key, kind.syn_key), both);
            self.kinds.push(OfKind { service, tls, syn, both });
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cells that a client is in, one of each projection.
    pub fn cells_of(&self, block: &Block) -> CellNumbers {
        let path = family::path(block);
        let way = Way::of(path) as u32;
        let OfKind { service, tls, syn, both } = self.kinds[block.kind.0 as usize];
        [service, tls, syn, both, tls + 1 + way, service + 1 + path as u32, service + OF_ALL + way]
    }

    /// The cell of a number.
    pub fn cell(&self, number: u32, kinds: &Kinds) -> Cell {
        let (kind, stands) = self.cells[number as usize];
        let kind = kinds.kind(kind);
        let common = match stands {
            Stands::Service => Common::Service,
            Stands::Path(path) => Common::Path(path),
            Stands::Way(way) => Common::Way(way),
            Stands::Tls => Common::Tls(kind.tls_key),
            Stands::TlsAndPath(way) => Common::TlsAndPath(kind.tls_key, way),
            Stands::Syn => Common::Syn(kind.syn_key),
            Stands::Both => Common::TlsAndSyn(kind.tls_key, kind.syn_key),
        };
        Cell { service: kind.service, common }
    }

    /// The number of a cell. `None`: nobody was ever in it.
    pub fn number(&self, cell: &Cell) -> Option<u32> {
        let Cell { service, common } = *cell;
        match common {
            Common::Service => self.services.get(&service).copied(),
            Common::Path(path) => Some(self.services.get(&service)? + 1 + u32::from(path)),
            Common::Way(way) => Some(self.services.get(&service)? + OF_ALL + way as u32),
            Common::Tls(tls) => self.tls.get(&(service, tls)).copied(),
            Common::TlsAndPath(tls, way) => Some(self.tls.get(&(service, tls))? + 1 + way as u32),
            Common::Syn(syn) => self.syn.get(&(service, syn)).copied(),
            Common::TlsAndSyn(tls, syn) => self.both.get(&(service, tls, syn)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block::Sizes, family::tests::block, observation::Kind};

    #[test]
    fn cells_have_numbers_and_numbers_cells() {
        let mut kinds = Kinds::default();
        let mut projections = Projections::default();
        for (service, tls_key, syn_key) in [(0, 1, 9), (0, 2, 9), (1, 1, 9), (0, 1, 8)] {
            kinds.number(Kind { service: ServiceId(service), syn_key, tls_key });
            // Kinds come one after the other.
            projections.grow(&kinds);
        }
        for (kind, times) in [(0, [4, 2, 4]), (1, [4, 8, 8]), (2, [4, 8, 8]), (3, [4, 2, 4])] {
            let block = Block { kind: KindId(kind), ..block(1, 0, times, Sizes(0)) };
            let numbers = projections.cells_of(&block);
            let of = kinds.kind(block.kind);
            let path = family::path(&block);
            let commons = [
                Common::Service,
                Common::Tls(of.tls_key),
                Common::Syn(of.syn_key),
                Common::TlsAndSyn(of.tls_key, of.syn_key),
                Common::TlsAndPath(of.tls_key, Way::of(path)),
                Common::Path(path as u8),
                Common::Way(Way::of(path)),
            ];
            for (number, common) in numbers.into_iter().zip(commons) {
                let cell = Cell { service: of.service, common };
                assert_eq!(projections.cell(number, &kinds), cell);
                assert_eq!(projections.number(&cell), Some(number));
            }
        }
        assert_eq!(projections.number(&Cell { service: ServiceId(1), common: Common::Tls(2) }), None);
    }
}
