//! Reading the maps: what is active, what was counted, what a source has left.

mod tables;

use std::sync::atomic::{Ordering, fence};

use aya::maps::{MapData, MapError};
use detector_common::{
    address::{Address, Family},
    budget::{Budget, TICKS_PER_NS_LOG2, ticks},
    counters::COUNTERS,
    limits::{
        CELLS_MAX, CLASSES_MAX, ENDS_MAX, INCIDENT_CELLS_MAX, INCIDENT_CLASSES_MAX, MANIFEST_BYTES,
        PARENT_CLASSES_MAX, RULE_COUNTERS, SERVICES_MAX, WAYS,
    },
    policy::{
        Action, Class, DEFAULT_ROW, Generation, ParentClass, RuleDrops, RuleValue, Settings,
        incident_cell_place, incident_tree, is_enforced, slot_place,
    },
    ranges::{NodeV4, NodeV6, find},
    table::{Key as SourceKey, Lineage, Meta, Set, Unit, Way, set_of},
    verdict::{COUNTER_SLOTS, ServiceCounters},
};

use thiserror::Error;

use super::{
    mapped::{Access, Mapped},
    maps::Maps,
};
use crate::{
    clock,
    policy::{
        compile::{Manifest, ManifestRule},
        incident::{Incident, Incidents},
    },
};

/// Looks at the active policy before giving up: each is spoiled only by a policy that is applied meanwhile.
const LOOKS_MAX: usize = 16;

/// A policy that cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It never stayed the same for one look.
    #[error(
        "the policy changed {LOOKS_MAX} times while it was read: somebody applies policies without a pause, try again"
    )]
    Restless,
    /// Its names.
    #[error(
        "the names of the policy in the kernel cannot be read ({0}): apply it again with `detector apply FILE`"
    )]
    Manifest(String),
    /// A number that is none of a table's.
    #[error(
        "the policy in the kernel names {what} {number}, which is none: apply it again with `detector apply FILE`"
    )]
    Dangling {
        /// Of which table.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// A map.
    #[error("cannot read the maps: {}", super::load::chain(.0))]
    Map(#[from] MapError),
}

/// The time of the program's clock, ticks: the kernel's, or the virtual one where it is set.
pub fn now(maps: &Maps) -> u64 {
    match maps.virtual_clock.read(0) {
        0 => ticks(clock::kernel_ns()),
        virtual_ns => ticks(virtual_ns),
    }
}

/// Which policy packets are judged by now.
pub fn generation(maps: &Maps) -> Generation {
    maps.settings.read(0).generation(now(maps))
}

/// The epoch of the active policy; 0: none.
pub fn epoch(maps: &Maps) -> u32 {
    generation(maps).epoch()
}

/// Seconds until the policy that waits to be confirmed is taken back, rounded up; `None`: none waits.
pub fn confirm_in_s(maps: &Maps) -> Option<u64> {
    let deadline = maps.settings.read(0).deadline;
    let left_ns = deadline.checked_sub(now(maps)).filter(|&left| left > 0)? >> TICKS_PER_NS_LOG2;
    Some(left_ns.div_ceil(1_000_000_000))
}

/// The settings.
pub fn settings(maps: &Maps) -> Settings {
    maps.settings.read(0)
}

/// The active policy, during one look at it; [`consistently`] gives it.
pub struct Active<'a> {
    maps: &'a Maps,
    generation: Generation,
}

/// Looks at the active policy, again if another one became active meanwhile: what a look returns is of one policy.
///
/// The slot of a generation is filled anew only when the generation is active no more. So if it still is after the look,
/// all that was read is its own.
pub fn consistently<T, E: From<ReadError>>(
    maps: &Maps,
    mut look: impl FnMut(&Active<'_>) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..LOOKS_MAX {
        let active = Active { maps, generation: generation(maps) };
        fence(Ordering::SeqCst);
        // What went wrong in a look at two policies is no error of either.
        let seen = look(&active);
        fence(Ordering::SeqCst);
        if generation(maps) == active.generation {
            return seen;
        }
    }
    Err(ReadError::Restless.into())
}

/// The incident rules beside the active policy.
pub fn incidents(maps: &Maps) -> Result<Incidents, ReadError> {
    consistently(maps, |active| active.incidents())
}

impl<'a> Active<'a> {
    /// The policy of a generation that nobody changes now.
    pub(super) fn of(maps: &'a Maps, generation: Generation) -> Self {
        Self { maps, generation }
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Its epoch; 0: there is no policy yet.
    pub fn epoch(&self) -> u32 {
        self.generation.epoch()
    }

    /// The epoch at which the policy itself came: incident rules beside it change the other one. 0: there is no policy yet.
    pub fn policy_epoch(&self) -> u32 {
        match self.epoch() {
            0 => 0,
            _ => self.maps.policies.read(self.slot() as usize).epoch as u32,
        }
    }

    /// Its manifest; `None` before the first policy.
    pub fn manifest(&self) -> Result<Option<Manifest>, ReadError> {
        if self.epoch() == 0 {
            return Ok(None);
        }
        let map = &self.maps.manifest;
        let first = slot_place(self.generation.slot(), MANIFEST_BYTES / 4096, 0) as usize;
        let length = map.read(first)[0];
        if length > (MANIFEST_BYTES - size_of::<u64>()) as u64 {
            return Err(ReadError::Manifest(format!("{length} bytes are more than their map has")));
        }
        let json = text(length as usize, |chunk| map.read(first + chunk));
        serde_json::from_slice(&json).map(Some).map_err(|error| ReadError::Manifest(error.to_string()))
    }

    /// The incident rules beside it.
    pub fn incidents(&self) -> Result<Incidents, ReadError> {
        let Some(slot) = self.generation.incidents() else { return Ok(Incidents::default()) };
        let list = mapped::<[u64; 512]>(self.maps.incidents.get(&slot, 0)?)?;
        let length = list.read(0)[0] as usize;
        if length.saturating_add(size_of::<u64>()) > list.len() * 4096 {
            return Err(ReadError::Manifest(format!("{length} bytes are more than their map has")));
        }
        let json = text(length, |chunk| list.read(chunk));
        serde_json::from_slice(&json).map_err(|error| ReadError::Manifest(error.to_string()))
    }

    /// The names of all that may decide about a source.
    pub fn rules(&self) -> Result<Rules, ReadError> {
        Ok(Rules { manifest: self.manifest()?.unwrap_or_default(), incidents: self.incidents()? })
    }

    /// The class of a service's sources that no rule names.
    pub fn standard_class(&self, service: u16) -> Result<Class, ReadError> {
        let cell = self.element(&self.maps.cells, CELLS_MAX, "cell", DEFAULT_ROW + u32::from(service))?;
        self.class(cell.class as u16)
    }

    /// What it says of a source at a service, by the same lookups as the program's; `None` before the first policy.
    pub fn classify(&self, source: Address, service: u16) -> Result<Option<Standing>, ReadError> {
        if self.epoch() == 0 {
            return Ok(None);
        }
        let value = self.rule(self.slot(), source)?;
        let cell = value.first_cell().saturating_add(service.into());
        let cell = self.element(&self.maps.cells, CELLS_MAX, "cell", cell)?;
        let standing = self.lasting(cell.class as u16)?;
        let incident = self.incident_standing(source, service)?;
        let enforced = is_enforced(hash(self.maps, source, service), standing.class.enforced_percent);
        let decides = |incident: &Standing| !standing.class.prevails_over(&incident.class, enforced);
        Ok(Some(incident.filter(decides).unwrap_or(standing)))
    }

    /// What the incident rules say of a source at a service, whether the policy is stricter or not.
    fn incident_standing(&self, source: Address, service: u16) -> Result<Option<Standing>, ReadError> {
        let Some(slot) = self.generation.incidents() else { return Ok(None) };
        let value = self.rule(incident_tree(slot), source)?;
        let number = value.first_cell().saturating_add(service.into());
        if number as usize >= INCIDENT_CELLS_MAX {
            return Err(ReadError::Dangling { what: "cell of incident rules", number });
        }
        let cell = self.maps.cells.read(incident_cell_place(slot, number) as usize);
        let standing = self.lasting(cell.class as u16)?;
        Ok(Some(standing).filter(|standing| standing.class_number != 0))
    }

    /// The value of the most specific source prefix of a tree.
    fn rule(&self, tree: u32, source: Address) -> Result<RuleValue, ReadError> {
        let maps = self.maps;
        Ok(RuleValue(match source.family {
            Family::V4 => {
                let nodes = mapped::<NodeV4>(maps.rules_v4.get(&tree, 0)?)?;
                find::<NodeV4, _>(|number| node(&nodes, number), (source.high >> 32) as u32, DEFAULT_ROW)
            }
            Family::V6 => {
                let nodes = mapped::<NodeV6>(maps.rules_v6.get(&tree, 0)?)?;
                find::<NodeV6, _>(|number| node(&nodes, number), (source.high, source.low), DEFAULT_ROW)
            }
        }))
    }

    /// The class of a number, or the one that follows it where its rule has ended.
    fn lasting(&self, number: u16) -> Result<Standing, ReadError> {
        let mut standing = Standing { class_number: number, class: self.class(number)? };
        let now = now(self.maps);
        for _ in 0..ENDS_MAX {
            if !standing.class.has_ended(now) {
                break;
            }
            let number = standing.class.next;
            standing = Standing { class_number: number, class: self.class(number)? };
        }
        Ok(standing)
    }

    /// The class of a number.
    pub fn class(&self, number: u16) -> Result<Class, ReadError> {
        let number = u32::from(number);
        let classes = CLASSES_MAX + self.generation.incidents().map_or(0, |_| INCIDENT_CLASSES_MAX);
        if number as usize >= classes {
            return Err(ReadError::Dangling { what: "class", number });
        }
        Ok(self.maps.classes.read(self.generation.class_place(number) as usize))
    }

    /// The parent class of a number.
    pub fn parent_class(&self, number: u16) -> Result<ParentClass, ReadError> {
        self.element(&self.maps.parent_classes, PARENT_CLASSES_MAX, "parent class", number.into())
    }

    /// Its classes and those of the incident rules, with their numbers.
    pub fn classes(&self) -> impl Iterator<Item = (u32, Class)> {
        let classes = match (self.epoch(), self.generation.incidents()) {
            (0, _) => 0,
            (_, None) => CLASSES_MAX,
            (_, Some(_)) => CLASSES_MAX + INCIDENT_CLASSES_MAX,
        };
        let place = |number| self.generation.class_place(number) as usize;
        (0..classes as u32).map(move |number| (number, self.maps.classes.read(place(number))))
    }

    /// The classes that can refuse a packet, or could in another mode, now or when other rules have ended.
    pub fn refusing_classes(&self) -> impl Iterator<Item = (u32, Class)> {
        let now = now(self.maps);
        self.classes().filter(move |(_, class)| can_refuse(class) && !class.has_ended(now))
    }

    /// The slot that it stands in.
    pub fn slot(&self) -> u32 {
        self.generation.slot()
    }

    /// The element of a number, of its half of a table.
    pub(super) fn element<T: aya::Pod>(
        &self,
        map: &Mapped<T>,
        size: usize,
        what: &'static str,
        number: u32,
    ) -> Result<T, ReadError> {
        if number as usize >= size {
            return Err(ReadError::Dangling { what, number });
        }
        Ok(map.read(slot_place(self.generation.slot(), size, number) as usize))
    }
}

/// Whether a class can refuse a packet, or could in another mode.
pub fn can_refuse(class: &Class) -> bool {
    let budgets = [class.packets, class.bytes, class.connections];
    let is_limited = budgets.iter().any(Budget::is_limited);
    let has_parents = [class.v4_24, class.v6_56, class.v6_48].iter().any(|&number| number != 0);
    class.action == Action::Deny as u8 || class.action == Action::Limit as u8 && (is_limited || has_parents)
}

/// The names behind the numbers of classes.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Of the policy.
    pub manifest: Manifest,
    /// Incident rules.
    pub incidents: Incidents,
}

/// The rule of a class.
#[derive(Debug, Clone, Copy)]
pub enum RuleOfClass<'a> {
    /// A rule of the policy.
    Policy(&'a ManifestRule),
    /// An incident rule.
    Incident(&'a Incident),
}

impl Rules {
    /// The rule of a class, by the class's number; `None`: it is that of a service's profile, or of `defaults.allow`.
    pub fn of_class(&self, number: u32, class: &Class) -> Option<RuleOfClass<'_>> {
        let rule = usize::from(class.rule);
        if number as usize >= CLASSES_MAX {
            return self.incidents.rules.get(rule).map(RuleOfClass::Incident);
        }
        self.manifest.rules.get(rule).map(RuleOfClass::Policy)
    }
}

impl<'a> RuleOfClass<'a> {
    /// As people are told: the rule's name, or `incident 7`.
    pub fn name(&self) -> String {
        match self {
            Self::Policy(rule) => rule.name.clone(),
            Self::Incident(incident) => format!("incident {}", incident.id),
        }
    }

    /// When it ends, seconds since the Unix epoch.
    pub fn until_s(&self) -> Option<u64> {
        match self {
            Self::Policy(rule) => rule.until_s,
            Self::Incident(incident) => incident.until_s,
        }
    }

    /// Why it is there.
    pub fn reason(&self) -> Option<&'a str> {
        match self {
            Self::Policy(rule) => rule.reason.as_deref(),
            Self::Incident(incident) => Some(&incident.reason),
        }
    }
}

/// How a source stands with the active policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Number of the class.
    pub class_number: u16,
    /// The class.
    pub class: Class,
}

/// The verdicts of a service, summed over CPUs.
pub fn verdicts(maps: &Maps, service: u16) -> Result<ServiceCounters, MapError> {
    let mut sum = ServiceCounters::default();
    if usize::from(service) >= SERVICES_MAX {
        return Ok(sum);
    }
    for cpu in maps.verdicts.get(&service.into(), 0)?.iter() {
        for slot in 0..COUNTER_SLOTS {
            sum.slots[slot].packets += cpu.slots[slot].packets;
            sum.slots[slot].bytes += cpu.slots[slot].bytes;
        }
    }
    Ok(sum)
}

/// What a rule refused, by the number of its counter, summed over CPUs.
pub fn rule_drops(maps: &Maps, counter: u16) -> Result<RuleDrops, MapError> {
    let mut sum = RuleDrops::default();
    if counter == 0 || usize::from(counter) >= RULE_COUNTERS {
        return Ok(sum);
    }
    for cpu in maps.rule_drops.get(&counter.into(), 0)?.iter() {
        sum.dropped += cpu.dropped;
        sum.shadowed += cpu.shadowed;
    }
    Ok(sum)
}

/// The counters that are not verdicts, summed over CPUs.
pub fn counters(maps: &Maps) -> Result<[u64; COUNTERS], MapError> {
    let mut sums = [0; COUNTERS];
    for (number, sum) in sums.iter_mut().enumerate() {
        *sum = maps.counters.get(&(number as u32), 0)?.iter().sum();
    }
    Ok(sums)
}

/// The JSON of so many bytes in chunks whose first word is its length.
fn text(bytes: usize, chunk: impl Fn(usize) -> [u64; 512]) -> Vec<u8> {
    let end = bytes + size_of::<u64>();
    let words = (0..end.div_ceil(4096)).flat_map(chunk);
    words.flat_map(u64::to_ne_bytes).take(end).skip(size_of::<u64>()).collect()
}

fn mapped<N: aya::Pod>(tree: MapData) -> Result<Mapped<N>, MapError> {
    Mapped::new(&tree, Access::Read).map_err(MapError::IoError)
}

fn node<N: aya::Pod>(nodes: &Mapped<N>, number: u32) -> Option<N> {
    ((number as usize) < nodes.len()).then(|| nodes.read(number as usize))
}

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
