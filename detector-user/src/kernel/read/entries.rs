//! Entries of the tables of sources and parents.

use detector_common::{
    address::Address,
    limits::WAYS,
    table::{Key as SourceKey, Lineage, Set, Unit, set_of},
    table_size::sources_for_sets,
    way::{Meta, Way},
};

use crate::kernel::{mapped::Mapped, maps::Maps};

/// The entry of a source at a service.
pub fn source(maps: &Maps, address: Address, service: u16) -> Option<Way> {
    entry(maps, &maps.sources, &SourceKey::new(address, Unit::of_source(address.family), service))
}

/// The keyed hash of a source at a service.
pub fn hash(maps: &Maps, address: Address, service: u16) -> u64 {
    SourceKey::new(address, Unit::of_source(address.family), service).hash(&maps.settings.read(0).seed)
}

/// The entry of a prefix around an address at a service, for the profile of a lineage.
pub fn parent(maps: &Maps, address: Address, unit: Unit, service: u16, lineage: Lineage) -> Option<Way> {
    entry(maps, &maps.parents, &SourceKey::of_parent(address, unit, service, lineage))
}

/// The theoretical arrival time of a source's budget of handshakes at a service, ticks; 0: it has not been charged for long.
/// `scope`: see [`SourceKey::of_client_budget`].
pub fn handshakes_tat(maps: &Maps, address: Address, service: u16, scope: u16) -> u64 {
    let hash = hash(maps, address, service);
    let key = SourceKey::of_client_budget(&maps.settings.read(0).seed, hash, scope);
    entry(maps, &maps.client_budgets, &key).map_or(0, |way| way.packets_tat)
}

/// Whether a source without an entry at a service gets none: every way of its set is limiting its owner or changing hands
/// at `now`, in ticks.
pub fn is_full(maps: &Maps, address: Address, service: u16, now: u64) -> bool {
    let key = SourceKey::new(address, Unit::of_source(address.family), service);
    let (set, _) = set(maps, &maps.sources, &key);
    set.ways.iter().all(|way| way.busy_until() > now || way.meta().is_busy())
}

fn entry(maps: &Maps, table: &Mapped<Set>, key: &SourceKey) -> Option<Way> {
    let (set, hash) = set(maps, table, key);
    set.find(key, hash).copied()
}

/// The set of a key and its hash.
pub fn set(maps: &Maps, table: &Mapped<Set>, key: &SourceKey) -> (Set, u64) {
    let hash = key.hash(&maps.settings.read(0).seed);
    (table.read(set_of(hash, table.len() as u32) as usize), hash)
}

/// Every entry of a table that has an owner. One that changes hands while it is read is left out: the old owner's is gone,
/// and the new owner's has hardly begun.
pub fn entries(table: &Mapped<Set>) -> impl Iterator<Item = Way> {
    numbered_entries(table).map(|(_, way)| way)
}

/// As [`entries`], each with the number of its way.
pub fn numbered_entries(table: &Mapped<Set>) -> impl Iterator<Item = (u32, Way)> {
    let owned = |way: usize| Some((way as u32, owned(table, way / WAYS, way % WAYS)?));
    (0..table.len() * WAYS).filter_map(owned)
}

/// A way that has an owner, its words all of the same one's.
fn owned(table: &Mapped<Set>, set: usize, number: usize) -> Option<Way> {
    let first_word = number * (size_of::<Way>() / size_of::<u64>());
    table.prefetch(set + SETS_AHEAD, first_word);
    let meta = || Meta(table.read_part(set, first_word + META_WORD));
    of_one_owner(meta, || table.read_part(set, first_word))
}

/// A way that is read between two looks at who owns it.
fn of_one_owner(mut meta: impl FnMut() -> Meta, way: impl FnOnce() -> Way) -> Option<Way> {
    let before = meta();
    if !before.is_occupied() {
        return None;
    }
    let way = way();
    let after = meta();
    // Another class of the same owner is no matter.
    let is_same_owner = (after.generation(), after.tag()) == (before.generation(), before.tag());
    is_same_owner.then_some(way)
}

/// A page: the processor's own prefetcher stops at the end of each. A scan is faster by a third with it.
const SETS_AHEAD: usize = 4096 / size_of::<Set>();

/// Place of [`Way::meta`] in a way.
const META_WORD: usize = std::mem::offset_of!(Way, meta) / size_of::<u64>();

/// How full a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Ways there are.
    pub ways: u64,
    /// Ways that have an owner.
    pub occupied: u64,
    /// Ways that have an owner whose budgets are not full: they cannot be taken over.
    pub busy: u64,
}

impl Fill {
    /// How many entries that are being limited it is sized for: beyond that, more than one of a thousand newcomers finds no
    /// place of its own.
    pub fn busy_max(&self) -> u64 {
        sources_for_sets(self.ways / WAYS as u64)
    }
}

/// The tables whose entries hold budgets, with their names.
pub fn budget_tables(maps: &Maps) -> [(&'static str, &Mapped<Set>); 3] {
    [("sources", &maps.sources), ("parents", &maps.parents), ("client_budgets", &maps.client_budgets)]
}

/// How full a table is at `now`, in ticks.
pub fn fill(table: &Mapped<Set>, now: u64) -> Fill {
    let mut fill = Fill { ways: (table.len() * WAYS) as u64, ..Fill::default() };
    for way in entries(table) {
        fill.occupied += 1;
        fill.busy += u64::from(way.busy_until() > now);
    }
    fill
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_changes_hands_while_it_is_read_is_left_out() {
        let address = Address::v4([198, 51, 100, 7]);
        let tag = SourceKey::new(address, Unit::V4Source, 1).tag;
        let free = Meta(0);
        let owned = free.claimed().owned(tag, 1, 1);
        let read = |looks: [Meta; 2]| {
            let mut looks = looks.into_iter();
            of_one_owner(|| looks.next().unwrap(), || Way { meta: owned.0, ..Way::default() })
        };
        assert_eq!(read([free, free]), None, "nobody's");
        assert_eq!(read([owned.claimed(), owned]), None, "changing hands before");
        assert_eq!(read([owned, owned.claimed()]), None, "changing hands after");
        assert_eq!(read([owned, owned.claimed().owned(tag, 1, 1)]), None, "the same source again");
        assert_eq!(read([owned, owned.released()]), None, "given back");
        assert!(read([owned, owned]).is_some());
        assert!(read([owned, owned.with_class(2, 2)]).is_some(), "another class");
    }
}
