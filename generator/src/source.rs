//! Sources: IPv4 addresses and IPv6 /64.
//!
//! All of them are in space that belongs to nobody, so that no real network is accused: IPv4 in 240.0.0.0/4 (RFC 1112, section 4:
//! reserved), IPv6 in 2001:db8::/32 (RFC 3849: documentation).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};

/// Version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// The unit is an address.
    V4,
    /// The unit is a /64.
    V6,
}

/// The unit that is counted: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Of the address or of the prefix's first one.
    pub family: Family,
    /// Its bits, those of an IPv4 address last.
    pub address: u128,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::V4 => write!(f, "{}/32", Ipv4Addr::from_bits(self.address as u32)),
            Family::V6 => write!(f, "{}/64", Ipv6Addr::from_bits(self.address)),
        }
    }
}

/// As text.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kind of network, with address space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Home,
    Mobile,
    Office,
    DataCentre,
    Vpn,
    Relay,
}

impl Network {
    /// First address and bits of the space in 240.0.0.0/4, and the number of the /40 in 2001:db8::/32.
    const fn space(self) -> (u32, u32, u128) {
        match self {
            Self::Home => (0xf000_0000, 26, 1),
            Self::Mobile => (0xf400_0000, 22, 2),
            Self::Office => (0xf480_0000, 22, 3),
            Self::DataCentre => (0xf800_0000, 24, 4),
            Self::Vpn => (0xfa00_0000, 20, 5),
            Self::Relay => (0xfb00_0000, 20, 6),
        }
    }

    /// An address of the network, scattered over its space: the same for the same number.
    pub(crate) const fn v4(self, number: u64) -> Source {
        let (first, bits, _) = self.space();
        Source { family: Family::V4, address: (first + scatter(number, bits) as u32) as u128 }
    }

    /// An address in a /24 of the network: neighbours have the same block.
    pub(crate) const fn v4_in(self, block: u64, host: u8) -> Source {
        let (first, bits, _) = self.space();
        let address = first + ((scatter(block, bits - 8) as u32) << 8 | host as u32);
        Source { family: Family::V4, address: address as u128 }
    }

    /// A /64 of the network: the 24 bits behind its /40 number it, scattered.
    pub(crate) const fn v6(self, number: u64) -> Source {
        let (_, _, block) = self.space();
        let address = 0x2001_0db8_u128 << 96 | block << 88 | (scatter(number, 24) as u128) << 64;
        Source { family: Family::V6, address }
    }
}

/// A permutation of the numbers of so many bits: multiplications by odd numbers and shifts can be undone.
const fn scatter(number: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    let mut word = number & mask;
    word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
    word ^= word >> (bits / 2);
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9) & mask;
    word ^= word >> (bits / 2);
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sources_are_prefixes_of_space_that_belongs_to_nobody() {
        let (v4, v6) = (Network::Relay.v4(1).to_string(), Network::Home.v6(1).to_string());
        assert!(v4.starts_with("251.") && v4.ends_with("/32"), "{v4}");
        assert!(v6.starts_with("2001:db8:1") && v6.ends_with("::/64"), "{v6}");
    }

    #[test]
    fn numbers_are_scattered_without_collisions() {
        for bits in [20, 24, 26] {
            let scattered: HashSet<_> = (0..1_u64 << 20).map(|number| scatter(number, bits)).collect();
            assert_eq!(scattered.len(), 1 << 20);
        }
        assert!((0..=255).all(|host| Network::DataCentre.v4_in(7, host).address >> 8
            == Network::DataCentre.v4_in(7, 0).address >> 8));
        let mut sources = HashSet::new();
        for network in [
            Network::Home,
            Network::Mobile,
            Network::Office,
            Network::DataCentre,
            Network::Vpn,
            Network::Relay,
        ] {
            for number in 0..10_000 {
                assert!(sources.insert(network.v4(number)) && sources.insert(network.v6(number)));
            }
        }
    }
}
