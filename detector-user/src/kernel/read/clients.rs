//! Clients as the program counts them.

use detector_common::{
    address::Address, budget::TICKS_PER_NS, client::Client as Counts, table::Unit, way::Meta,
};

use super::entries::numbered_entries;
use crate::kernel::maps::Maps;

/// A source at a service under a pair of fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The number of its way.
    pub way: u32,
    /// Tells this life of the way from the ones before and after: [`Meta::generation`].
    pub life: u8,
    /// Its source.
    pub source: Address,
    /// What the source is.
    pub unit: Unit,
    /// Number of the service.
    pub service: u16,
    /// Connections that began with something else than a ClientHello, modulo 2^32.
    pub connections: u32,
    /// Handshakes, modulo 2^32.
    pub handshakes: u32,
    /// When it was seen last, kernel time in ns.
    pub last_ns: u64,
    /// Its keys, and the rest of what is counted.
    pub counts: Counts,
}

/// Every client of the table, in the order of its ways.
pub fn clients(maps: &Maps) -> impl Iterator<Item = Client> {
    numbered_entries(&maps.clients).filter_map(|(number, way)| {
        let counts = maps.client_counts.read(number as usize);
        let of_source = Meta(counts.tag);
        // The counts follow their entry a moment later.
        let unit = of_source.unit().filter(|_| counts.key == way.prefix)?;
        Some(Client {
            way: number,
            life: way.meta().generation(),
            source: Address { family: unit.family(), high: counts.source, low: 0 },
            unit,
            service: of_source.service(),
            connections: way.connections(),
            handshakes: way.packets(),
            last_ns: way.packets_tat / TICKS_PER_NS,
            counts,
        })
    })
}
