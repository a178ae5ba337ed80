//! Which service a packet is for: two small hashes, filled by the daemon so that few probes always suffice.
//!
//! 1. destination address → *destination* (a number), the longest prefix first. The lengths in use are listed in the
//!    policy's header, so a policy of plain addresses costs one probe.
//! 2. (destination, protocol, port) → service. Prefixes that contain a prefix have their ports entered there too, so
//!    the longest match decides alone.

use crate::{
    abi_struct,
    address::{Address, Family},
    limits::{DESTINATION_SLOTS, PORT_SLOTS, PROBES_MAX},
    packet::{Packet, Ports},
    policy::{NO_LENGTH, PolicyHeader},
};

abi_struct! {
    /// A slot of the hash of destination prefixes.
    #[derive(Default)]
    pub struct DestinationSlot: 24 {
        /// Bits 0 to 63 of the prefix.
        pub high: u64,
        /// Bits 64 to 127 of the prefix.
        pub low: u64,
        /// The destination's number, 1 and up; 0: the slot is empty.
        pub destination: u16,
        /// Length of the prefix.
        pub length: u8,
        /// A [`Family`].
        pub family: u8,
        /// Bit *n* is set when the destination has ports of kind *n*; see [`PortKind`].
        pub kinds: u32,
    }
}

abi_struct! {
    /// A slot of the hash of ports.
    #[derive(Default)]
    pub struct PortSlot: 16 {
        /// See [`port_key`]; 0: the slot is empty.
        pub key: u64,
        /// The service.
        pub service: u64,
    }
}

/// What a key of the hash of ports stands for, the most exact first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortKind {
    /// One port of TCP or UDP.
    Port = 0,
    /// Every packet of a protocol.
    Protocol = 1,
    /// Every packet.
    Any = 2,
    /// Later fragments of a protocol.
    Fragment = 3,
    /// Packets whose protocol could not be read.
    Unread = 4,
}

/// The key of a destination's ports. Never 0, since destinations count from 1.
#[inline(always)]
pub const fn port_key(destination: u16, kind: PortKind, protocol: u8, port: u16) -> u64 {
    (destination as u64) << 32 | (kind as u64) << 24 | (protocol as u64) << 16 | port as u64
}

/// The first slot to probe for a destination prefix. The daemon and the program agree on it through the seed.
#[inline(always)]
pub const fn destination_place(seed: u64, prefix: Address, length: u8) -> u32 {
    let mut hash = (prefix.high ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= prefix.low.wrapping_add(length as u64).wrapping_add((prefix.family as u64) << 8);
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash >> 40) as u32 & (DESTINATION_SLOTS as u32 - 1)
}

/// The first slot to probe for a port key.
#[inline(always)]
pub const fn port_place(seed: u64, key: u64) -> u32 {
    let hash = (key ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as u32 & (PORT_SLOTS as u32 - 1)
}

/// The two hashes of one policy: maps in the kernel, vectors on the host.
pub trait ServiceTables {
    /// The slot at a place below [`DESTINATION_SLOTS`].
    fn destination(&self, place: u32) -> Option<&DestinationSlot>;
    /// The slot at a place below [`PORT_SLOTS`].
    fn port(&self, place: u32) -> Option<&PortSlot>;
}

/// The service that a packet is for; `None`: none of the policy.
#[inline(always)]
pub fn find<T: ServiceTables>(tables: &T, header: &PolicyHeader, packet: &Packet) -> Option<u16> {
    let destination = find_destination(tables, header, packet.destination)?;
    let (first, second, third) = match packet.ports {
        Ports::Known => (PortKind::Port, PortKind::Protocol, PortKind::Any),
        Ports::None => (PortKind::Protocol, PortKind::Any, PortKind::Any),
        Ports::InFirstFragment => (PortKind::Fragment, PortKind::Any, PortKind::Any),
        Ports::Unread => (PortKind::Unread, PortKind::Unread, PortKind::Unread),
    };
    if let Some(service) = find_port(tables, header, destination, first, packet) {
        return Some(service);
    }
    if second as u8 == first as u8 {
        return None;
    }
    if let Some(service) = find_port(tables, header, destination, second, packet) {
        return Some(service);
    }
    if third as u8 == second as u8 {
        return None;
    }
    find_port(tables, header, destination, third, packet)
}

#[inline(always)]
fn find_destination<'a, T: ServiceTables>(
    tables: &'a T,
    header: &PolicyHeader,
    address: Address,
) -> Option<&'a DestinationSlot> {
    let lengths = if matches!(address.family, Family::V4) { header.lengths_v4 } else { header.lengths_v6 };
    for length in lengths {
        if length == NO_LENGTH {
            return None;
        }
        let prefix = address.prefix(length);
        let place = destination_place(header.service_seed, prefix, length);
        for probe in 0..PROBES_MAX as u32 {
            let slot = tables.destination((place + probe) & (DESTINATION_SLOTS as u32 - 1))?;
            if slot.destination == 0 {
                break;
            }
            if slot.high == prefix.high
                && slot.low == prefix.low
                && slot.length == length
                && slot.family == address.family as u8
            {
                return Some(slot);
            }
        }
    }
    None
}

#[inline(always)]
fn find_port<T: ServiceTables>(
    tables: &T,
    header: &PolicyHeader,
    destination: &DestinationSlot,
    kind: PortKind,
    packet: &Packet,
) -> Option<u16> {
    if destination.kinds & 1 << kind as u32 == 0 {
        return None;
    }
    let (protocol, port) = match kind {
        PortKind::Port => (packet.protocol, packet.destination_port),
        PortKind::Protocol | PortKind::Fragment => (packet.protocol, 0),
        PortKind::Any | PortKind::Unread => (0, 0),
    };
    let key = port_key(destination.destination, kind, protocol, port);
    let place = port_place(header.service_seed, key);
    for probe in 0..PROBES_MAX as u32 {
        let slot = tables.port((place + probe) & (PORT_SLOTS as u32 - 1))?;
        if slot.key == key {
            return Some(slot.service as u16);
        }
        if slot.key == 0 {
            return None;
        }
    }
    None
}
