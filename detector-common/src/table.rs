//! The set-associative table of sources, and of the prefixes around them.
//!
//! A plain array whose elements are sets of [`WAYS`] ways of one cache line each. A keyed hash picks the set and the
//! way where the search starts; a source takes any way of its set. There is no list, no timer and no sweep: a way whose
//! budgets are full again (all its times are past) may be taken over, since a new entry would say the same. A way that
//! is limiting its source cannot be taken.
//!
//! What an entry holds, and how ways change hands, is in [`crate::way`].

use crate::{
    address::{Address, Family},
    fingerprint::Kind,
    hash::{Seed, keyed, place},
    limits::WAYS,
    way::{OCCUPIED, SERVICE_MASK, UNIT_SHIFT, Way},
};

/// What a way's prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Unit {
    /// An IPv4 source, /32.
    V4Source = 0,
    /// An IPv6 source, /64.
    V6Source = 1,
    /// Parent of an IPv4 source, /24.
    V4Net24 = 2,
    /// Near parent of an IPv6 source, /56.
    V6Net56 = 3,
    /// Far parent of an IPv6 source, /48.
    V6Net48 = 4,
}

impl Unit {
    /// The unit of the sources of a family.
    #[inline(always)]
    pub const fn of_source(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4Source,
            Family::V6 => Self::V6Source,
        }
    }

    /// Length of the prefix, bits.
    #[inline(always)]
    pub const fn length(self) -> u8 {
        match self {
            Self::V4Source => 32,
            Self::V6Source => 64,
            Self::V4Net24 => 24,
            Self::V6Net56 => 56,
            Self::V6Net48 => 48,
        }
    }

    /// The family of the prefix.
    pub const fn family(self) -> Family {
        match self {
            Self::V4Source | Self::V4Net24 => Family::V4,
            Self::V6Source | Self::V6Net56 | Self::V6Net48 => Family::V6,
        }
    }

    /// The unit of a number in a way or trace; `None` for another number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::V4Source,
            1 => Self::V6Source,
            2 => Self::V4Net24,
            3 => Self::V6Net56,
            4 => Self::V6Net48,
            _ => return None,
        })
    }
}

/// Number of a profile among those that name parents. A prefix has a budget for each of them: budgets of different
/// rates must not share a state. Profiles keep their numbers over policies, and with them parents keep their budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage(pub u8);

const _: () = assert!(Unit::V6Net56.length() <= 56, "the lowest byte of a parent's prefix is free");

/// Which entry of a table: a prefix at a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The prefix, left-aligned: see [`Address::high`]. Of a parent with the number of its [`Lineage`] in the lowest byte,
    /// which no prefix of that length reaches.
    pub prefix: u64,
    /// Service and unit, as the lowest 16 bits of [`Meta`](crate::way::Meta) hold them.
    pub tag: u64,
}

impl Key {
    /// The entry of the prefix of `unit` around an address, at a service.
    #[inline(always)]
    pub const fn new(address: Address, unit: Unit, service: u16) -> Self {
        let prefix = address.high & crate::address::mask(unit.length());
        Self { prefix, tag: OCCUPIED | (unit as u64) << UNIT_SHIFT | service as u64 & SERVICE_MASK }
    }

    /// The entry of a parent, for the profile of that lineage.
    #[inline(always)]
    pub const fn of_parent(address: Address, unit: Unit, service: u16, lineage: Lineage) -> Self {
        let Self { prefix, tag } = Self::new(address, unit, service);
        Self { prefix: prefix | lineage.0 as u64, tag }
    }

    /// The hash that picks set and first way.
    #[inline(always)]
    pub const fn hash(&self, seed: &Seed) -> u64 {
        keyed(seed, self.prefix, self.tag)
    }

    /// The entry of a connection, by a hash of its addresses and ports. The lowest bit of its prefix is 0.
    #[inline(always)]
    pub const fn of_flow(hash: u64) -> Self {
        Self { prefix: hash & !1, tag: OCCUPIED }
    }

    /// The entry of a budget of handshakes of a source, by the source's hash. `scope`: 0 for the budget of the source's class,
    /// else the number of the counter of the rule whose budget it is.
    #[inline(always)]
    pub const fn of_client_budget(seed: &Seed, source_hash: u64, scope: u16) -> Self {
        Self { prefix: keyed(seed, source_hash, scope as u64), tag: OCCUPIED }
    }

    /// The entry of a client: a source, by its hash, under a pair of fingerprints.
    #[inline(always)]
    pub const fn of_client(seed: &Seed, source_hash: u64, syn_key: u64, tls_key: u64) -> Self {
        Self { prefix: keyed(seed, keyed(seed, source_hash, syn_key), tls_key), tag: OCCUPIED }
    }

    /// The entry of a fingerprint at a service.
    #[inline(always)]
    pub const fn of_fingerprint(kind: Kind, key: u64, service: u16) -> Self {
        Self { prefix: key, tag: OCCUPIED | (kind as u64) << UNIT_SHIFT | service as u64 & SERVICE_MASK }
    }
}

/// The set of a hash in a table of `sets`.
#[inline(always)]
pub const fn set_of(hash: u64, sets: u32) -> u32 {
    place(hash, sets)
}

/// The way of a hash at attempt 0 to [`WAYS`] − 1: in a row from the one that the lowest bits name; the set came from the highest.
#[inline(always)]
pub const fn way_of(hash: u64, attempt: usize) -> usize {
    (hash as usize).wrapping_add(attempt) & (WAYS - 1)
}

/// The attempt that meets a way: the inverse of [`way_of`].
#[inline(always)]
pub const fn attempt_at(hash: u64, way: usize) -> usize {
    way.wrapping_sub(hash as usize) & (WAYS - 1)
}

/// One element of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// See [`way_of`] for the order of search.
    pub ways: [Way; WAYS],
}

const _: () = assert!(size_of::<Set>() == WAYS * 64);

impl Default for Set {
    fn default() -> Self {
        Self { ways: [Way::default(); WAYS] }
    }
}

// SAFETY: an array of plain structs without padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Set {}

impl Set {
    /// The entry of a key in this set, as a reader sees it.
    pub fn find(&self, key: &Key, hash: u64) -> Option<&Way> {
        (0..WAYS)
            .map(|attempt| &self.ways[way_of(hash, attempt)])
            .find(|way| way.meta().has_tag(key.tag) && way.prefix == key.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_way_is_tried_once() {
        for hash in [0, 5, u64::MAX] {
            let mut ways: Vec<_> = (0..WAYS).map(|attempt| way_of(hash, attempt)).collect();
            assert!((0..WAYS).all(|attempt| attempt_at(hash, ways[attempt]) == attempt));
            ways.sort_unstable();
            assert_eq!(ways, (0..WAYS).collect::<Vec<_>>());
        }
    }
}
