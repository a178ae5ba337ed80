//! The whole of the active policy, as it was compiled: for what compares it with another.

use aya::Pod;
use detector_common::{
    budget::TICKS_PER_NS,
    limits::{CELLS_MAX, CLASSES_MAX, DESTINATION_SLOTS, PARENT_CLASSES_MAX, PORT_SLOTS},
    policy::slot_place,
    ranges::{NodeV4, NodeV6},
};

use super::{Active, ReadError, active::mapped};
use crate::{
    clock,
    kernel::mapped::Mapped,
    policy::compile::{Beside, Clocks, Standard, Tables},
};

impl Active<'_> {
    /// Its tables and those of the incident rules; `None` before the first policy. A copy: 17 bytes for each source prefix of IPv4, 46 of IPv6, and half a megabyte.
    ///
    /// # Errors
    ///
    /// A map cannot be read, or the names of the policy.
    pub fn tables(&self) -> Result<Option<Tables>, ReadError> {
        let Some(manifest) = self.manifest()? else { return Ok(None) };
        let (maps, slot) = (self.maps, self.slot());
        let header = maps.policies.read(slot as usize);
        let rules_v4 = match header.rules_v4 {
            0 => Vec::new(),
            _ => all(&mapped::<NodeV4>(maps.rules_v4.get(&slot, 0)?)?),
        };
        let rules_v6 = match header.rules_v6 {
            0 => Vec::new(),
            _ => all(&mapped::<NodeV6>(maps.rules_v6.get(&slot, 0)?)?),
        };
        let clocks = Clocks {
            tick_ns: super::settings(maps).clock_tick_ns,
            kernel_ns: super::now(maps) / TICKS_PER_NS,
            unix_ns: clock::unix_ns(),
        };
        let mut tables = Tables {
            header,
            destinations: half(&maps.destinations, slot, DESTINATION_SLOTS),
            ports: half(&maps.ports, slot, PORT_SLOTS),
            cells: half(&maps.cells, slot, CELLS_MAX),
            classes: half(&maps.classes, slot, CLASSES_MAX),
            parent_classes: half(&maps.parent_classes, slot, PARENT_CLASSES_MAX),
            rules_v4,
            rules_v6,
            manifest,
            clocks,
            beside: None,
        };
        tables.beside = Beside::new(self.incidents()?, &Standard::of(&tables), clocks)
            .map_err(|error| ReadError::Manifest(error.to_string()))?;
        Ok(Some(tables))
    }
}

fn half<T: Pod>(map: &Mapped<T>, slot: u32, size: usize) -> Vec<T> {
    (0..size as u32).map(|index| map.read(slot_place(slot, size, index) as usize)).collect()
}

fn all<T: Pod>(map: &Mapped<T>) -> Vec<T> {
    (0..map.len()).map(|index| map.read(index)).collect()
}
