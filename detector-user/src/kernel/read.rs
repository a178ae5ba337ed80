//! Reading the maps: what is active, what was counted, what a source has left.

use std::io;

use aya::maps::{MapError, lpm_trie::Key};
use detector_common::{
    address::{Address, Family},
    counters::COUNTERS,
    limits::{CELLS_MAX, CLASSES_MAX, MANIFEST_BYTES, PARENT_CLASSES_MAX, SERVICES_MAX, WAYS},
    policy::{Class, DEFAULT_ROW, ParentClass, RuleValue, Settings, slot_of, slot_place},
    table::{Key as SourceKey, Set, Unit, Way, set_of},
    verdict::{COUNTER_SLOTS, ServiceCounters},
};

use super::{mapped::Mapped, maps::Maps};
use crate::policy::compile::Manifest;

/// The epoch of the active policy; 0: none.
pub fn epoch(maps: &Maps) -> u32 {
    maps.settings.read(0).epoch as u32
}

/// The settings.
pub fn settings(maps: &Maps) -> Settings {
    maps.settings.read(0)
}

/// The manifest of the active policy; `None` before the first policy.
///
/// # Errors
///
/// The map holds no manifest (`InvalidData`).
pub fn manifest(maps: &Maps) -> io::Result<Option<Manifest>> {
    let epoch = epoch(maps);
    if epoch == 0 {
        return Ok(None);
    }
    let first = slot_place(slot_of(epoch), MANIFEST_BYTES / 4096, 0) as usize;
    let mut length = maps.manifest.read(first)[0] as usize;
    if length + size_of::<u64>() > MANIFEST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the manifest in the kernel is longer than its map",
        ));
    }
    length += size_of::<u64>();
    let chunks = (0..length.div_ceil(4096)).flat_map(|chunk| maps.manifest.read(first + chunk));
    let bytes: Vec<u8> = chunks.flat_map(u64::to_ne_bytes).take(length).skip(size_of::<u64>()).collect();
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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

/// The counters that are not verdicts, summed over CPUs.
pub fn counters(maps: &Maps) -> Result<[u64; COUNTERS], MapError> {
    let mut sums = [0; COUNTERS];
    for (number, sum) in sums.iter_mut().enumerate() {
        *sum = maps.counters.get(&(number as u32), 0)?.iter().sum();
    }
    Ok(sums)
}

/// How a source stands with the active policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Number of the class.
    pub class_number: u16,
    /// The class.
    pub class: Class,
}

/// What the active policy says of a source at a service, by the same lookups as the program's.
pub fn classify(maps: &Maps, source: Address, service: u16) -> Result<Option<Standing>, MapError> {
    let epoch = epoch(maps);
    if epoch == 0 {
        return Ok(None);
    }
    let slot = slot_of(epoch);
    let rule = match source.family {
        Family::V4 => {
            maps.rules_v4.get(&slot, 0).and_then(|rules| rules.get(&Key::new(32, source.v4_bytes()), 0))
        }
        Family::V6 => {
            maps.rules_v6.get(&slot, 0).and_then(|rules| rules.get(&Key::new(128, source.v6_bytes()), 0))
        }
    };
    let value = match rule {
        Ok(value) => RuleValue(value),
        Err(MapError::KeyNotFound) => RuleValue(DEFAULT_ROW),
        Err(error) => return Err(error),
    };
    let cell = slot_place(slot, CELLS_MAX, value.first_cell() + u32::from(service));
    let class_number = maps.cells.read(cell as usize).class as u16;
    Ok(Some(Standing { class_number, class: class(maps, class_number) }))
}

/// The class of a number under the active policy.
pub fn class(maps: &Maps, number: u16) -> Class {
    let slot = slot_of(epoch(maps));
    maps.classes.read(slot_place(slot, CLASSES_MAX, number.into()) as usize)
}

/// The parent class of a number under the active policy.
pub fn parent_class(maps: &Maps, number: u16) -> ParentClass {
    let slot = slot_of(epoch(maps));
    maps.parent_classes.read(slot_place(slot, PARENT_CLASSES_MAX, number.into()) as usize)
}

/// The entry of an address at a service: as a source, or as a prefix around sources.
pub fn entry(maps: &Maps, address: Address, unit: Unit, service: u16) -> Option<Way> {
    let key = SourceKey::new(address, unit, service);
    let hash = key.hash(&maps.settings.read(0).seed);
    let table = match unit {
        Unit::V4Source | Unit::V6Source => &maps.sources,
        Unit::V4Net24 | Unit::V6Net56 | Unit::V6Net48 => &maps.parents,
    };
    table.read(set_of(hash, table.len() as u32) as usize).find(&key, hash).copied()
}

/// Every entry of a table that has an owner.
pub fn entries(table: &Mapped<Set>) -> impl Iterator<Item = Way> {
    (0..table.len()).flat_map(|set| table.read(set).ways).filter(|way| way.meta().is_occupied())
}

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
