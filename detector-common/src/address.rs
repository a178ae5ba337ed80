//! Addresses as left-aligned numbers, so that a prefix is a mask in both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// An address, its first bit being the highest bit of `high`. An IPv4 address fills the upper half of `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Address {
    /// The family.
    pub family: Family,
    /// Bits 0 to 63 of the address.
    pub high: u64,
    /// Bits 64 to 127 of the address; 0 for IPv4.
    pub low: u64,
}

impl Address {
    /// The address whose bytes stand in an IPv4 header.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self { family: Family::V4, high: (u32::from_be_bytes(bytes) as u64) << 32, low: 0 }
    }

    /// The address whose bytes stand in an IPv6 header.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let all = u128::from_be_bytes(bytes);
        Self { family: Family::V6, high: (all >> 64) as u64, low: all as u64 }
    }

    /// The address under the mask of `length` bits (at most 32 for IPv4, 128 for IPv6).
    #[inline(always)]
    pub const fn prefix(self, length: u8) -> Self {
        let low_length = length.saturating_sub(64);
        Self { family: self.family, high: self.high & mask(length), low: self.low & mask(low_length) }
    }

    /// The first four bytes, as an IPv4 header holds them.
    #[inline(always)]
    pub const fn v4_bytes(self) -> [u8; 4] {
        ((self.high >> 32) as u32).to_be_bytes()
    }

    /// All sixteen bytes, as an IPv6 header holds them.
    #[inline(always)]
    pub const fn v6_bytes(self) -> [u8; 16] {
        (((self.high as u128) << 64) | self.low as u128).to_be_bytes()
    }

    /// The address for people and for the standard library.
    pub const fn to_ip(self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_octets(self.v4_bytes())),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_octets(self.v6_bytes())),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => Self::v6(address.octets()),
        }
    }
}

/// A word whose upper `length` bits are set; all of them from 64 on.
#[inline(always)]
pub const fn mask(length: u8) -> u64 {
    match length {
        0 => 0,
        1..64 => !(u64::MAX >> length),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_cut_where_they_say() {
        let address = Address::from("198.51.100.77".parse::<IpAddr>().unwrap());
        assert_eq!(address.prefix(24).to_ip(), "198.51.100.0".parse::<IpAddr>().unwrap());
        assert_eq!(address.prefix(32), address);
        assert_eq!(address.prefix(0).high, 0);
        let address = Address::from("2001:db8:1:2:3:4:5:6".parse::<IpAddr>().unwrap());
        for (length, text) in
            [(48, "2001:db8:1::"), (56, "2001:db8:1::"), (64, "2001:db8:1:2::"), (80, "2001:db8:1:2:3::")]
        {
            assert_eq!(address.prefix(length).to_ip(), text.parse::<IpAddr>().unwrap());
        }
        assert_eq!(address.prefix(128), address);
    }

    proptest! {
        #[test]
        fn bytes_survive(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
            prop_assert_eq!(Address::v4(v4).v4_bytes(), v4);
            prop_assert_eq!(Address::v6(v6).v6_bytes(), v6);
            prop_assert_eq!(Address::from(Address::v6(v6).to_ip()), Address::v6(v6));
            prop_assert_eq!(Address::from(Address::v4(v4).to_ip()), Address::v4(v4));
        }

        #[test]
        fn masks_equal_those_of_one_wide_number(bytes in any::<[u8; 16]>(), length in 0u8..=128) {
            let wide = u128::from_be_bytes(bytes);
            let kept = if length == 0 { 0 } else { wide >> (128 - length) << (128 - length) };
            prop_assert_eq!(Address::v6(bytes).prefix(length).v6_bytes(), kept.to_be_bytes());
        }
    }
}
