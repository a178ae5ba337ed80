//! Sources in one number.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A source: an IPv4 address, or an IPv6 /64 by its upper half. In one number, since there are millions: those of IPv4 are below 2^32, and
/// no /64 is, since `::/32` is reserved (RFC 4291, 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source(u64);

/// What is not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a source: expected an IPv4 address, or an IPv6 prefix of 64 bits outside ::/32")]
pub struct NotASource(pub String);

impl Source {
    /// That of an address of IPv4.
    pub fn of_v4(address: Ipv4Addr) -> Self {
        Self(u32::from(address).into())
    }

    /// That of an address of IPv6: the /64 that it is in. `None`: it is in `::/32`.
    pub fn of_v6(address: Ipv6Addr) -> Option<Self> {
        let source = Self((u128::from(address) >> 64) as u64);
        (!source.is_v4()).then_some(source)
    }

    /// What [`Display`](fmt::Display) writes of a source, `198.51.100.7/32` or `2001:db8:1:2::/64`; `None`: other text, which may be a source for [`FromStr`].
    /// Recordings have millions of these, and to read them as any text takes several times as long.
    pub fn of_written(text: &[u8]) -> Option<Self> {
        if let Some(octets) = text.strip_suffix(b"/32") {
            let mut octets = octets.split(|byte| *byte == b'.').map(octet);
            let [first, second, third, fourth] =
                [octets.next()??, octets.next()??, octets.next()??, octets.next()??];
            return octets.next().is_none().then(|| Self::of_v4(Ipv4Addr::new(first, second, third, fourth)));
        }
        let (mut number, mut bits_left) = (0, u64::BITS);
        for part in text.strip_suffix(b"::/64")?.split(|byte| *byte == b':') {
            bits_left = bits_left.checked_sub(u16::BITS)?;
            number |= u64::from(group(part)?) << bits_left;
        }
        // Zeros before the end are part of `::`.
        let is_last_zero = (number >> bits_left) as u16 == 0;
        (number > u32::MAX.into() && !is_last_zero).then_some(Self(number))
    }

    /// That of a [number](Self::number): each is one.
    pub const fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number, which orders sources by address, those of IPv4 first.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Whether it is of IPv4.
    pub const fn is_v4(self) -> bool {
        self.0 <= u32::MAX as u64
    }

    /// A number of the prefix around it, its /24 or /48; those of both families differ.
    pub const fn neighbourhood(self) -> u64 {
        if self.is_v4() { self.0 >> 8 } else { self.0 & !0xffff }
    }
}

/// A number below 256 without leading zeros.
fn octet(digits: &[u8]) -> Option<u8> {
    if !matches!(digits, [_] | [b'1'..=b'9', _] | [b'1'..=b'9', _, _]) {
        return None;
    }
    let with =
        |number: u16, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'));
    u8::try_from(digits.iter().try_fold(0, with)?).ok()
}

/// Of an IPv6 address: hexadecimal in lower case, without leading zeros.
fn group(digits: &[u8]) -> Option<u16> {
    if !matches!(digits, [_] | [b'1'..=b'9' | b'a'..=b'f', _, ..]) || digits.len() > 4 {
        return None;
    }
    digits.iter().try_fold(0, |number: u16, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u16::from(digit))
    })
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_v4() {
            write!(formatter, "{}/32", Ipv4Addr::from(self.0 as u32))
        } else {
            write!(formatter, "{}/64", Ipv6Addr::from(u128::from(self.0) << 64))
        }
    }
}

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let not_one = || NotASource(text.to_owned());
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        if let Ok(v4) = address.parse() {
            return if matches!(length, "" | "32") { Ok(Self::of_v4(v4)) } else { Err(not_one()) };
        }
        let v6: Ipv6Addr = address.parse().map_err(|_| not_one())?;
        let is_prefix = u128::from(v6) & u128::from(u64::MAX) == 0;
        // An address without a length is in its /64.
        if !(length.is_empty() || length == "64" && is_prefix) {
            return Err(not_one());
        }
        Self::of_v6(v6).ok_or_else(not_one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_none_is_refused() {
        for text in
            ["", "198.51.100.7/24", "2001:db8::1/64", "2001:db8::/48", "::1", "::/64", "198.51.100/32", "x"]
        {
            assert_eq!(text.parse::<Source>(), Err(NotASource(text.to_owned())));
        }
        assert_eq!(
            "2001:db8::7".parse::<Source>().map(|source| source.to_string()),
            Ok("2001:db8::/64".to_owned())
        );
    }

    #[test]
    fn what_is_nearly_written_is_not() {
        for text in [
            "198.51.100.07/32",
            "198.51.100.00/32",
            "198.51.100.256/32",
            "198.51.100.1000/32",
            "198.51.100.99999/32",
            "198.51.100./32",
            "198.51.100/32",
            "198.51.100.7.1/32",
            "198.51.100.+7/32",
            "198.51.100.7",
            "198.51.100.7/3",
            "2001:db8:1:2:3::/64",
            "2001:db8:0::/64",
            "2001:0db8::/64",
            "2001:DB8::/64",
            "2001:db8g::/64",
            "2001:12345::/64",
            "2001::db8::/64",
            "0:0:1:2::/64",
            "2001:db8::/48",
            "::/64",
            "0::/64",
        ] {
            assert_eq!(Source::of_written(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn neighbours_share_a_prefix() {
        let of = |text: &str| text.parse::<Source>().expect("a source").neighbourhood();
        assert_eq!(of("198.51.100.7"), of("198.51.100.200"));
        assert_ne!(of("198.51.100.7"), of("198.51.101.7"));
        assert_eq!(of("2001:db8:1:2::/64"), of("2001:db8:1:ffff::/64"));
        assert_ne!(of("2001:db8:1:2::/64"), of("2001:db8:2:2::/64"));
    }

    proptest! {
        #[test]
        fn texts_are_read_as_they_are_written(v4 in any::<u32>(), v6 in (1_u64 << 32)..) {
            for source in [Source::of_v4(v4.into()), Source::of_v6((u128::from(v6) << 64).into()).expect("not in ::/32")] {
                let text = source.to_string();
                prop_assert_eq!(text.parse(), Ok(source));
                prop_assert_eq!(Source::of_written(text.as_bytes()), Some(source));
            }
        }

        #[test]
        fn what_is_written_is_a_source_and_nothing_else(text in "[0-3]?[0-9]{0,7}(\\.([0-9]{1,3}|[0-9]{0,9})){2,4}(/32|/3|32|/32/32|)") {
            let written = text.parse().ok().filter(|source: &Source| source.to_string() == text);
            prop_assert_eq!(Source::of_written(text.as_bytes()), written);
        }

        #[test]
        fn a_prefix_that_is_written_is_a_source_and_nothing_else(text in "([0-9a-f]{0,5}:){1,5}:(/64|/6|64|/64/64|)") {
            let written = text.parse().ok().filter(|source: &Source| source.to_string() == text);
            prop_assert_eq!(Source::of_written(text.as_bytes()), written);
        }

        #[test]
        fn a_number_is_a_source(number in any::<u64>()) {
            prop_assert_eq!(Source::of_number(number).number(), number);
        }
    }
}
