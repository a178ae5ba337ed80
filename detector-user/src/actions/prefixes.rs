//! Which sources some prefixes touch.

use std::net::IpAddr;

use detector_fleets::source::Source;
use ipnet::IpNet;

/// Sources that prefixes touch: a prefix inside a /64 of IPv6 touches all of that source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// First and last number of sources, in order, with a gap between any two.
    ranges: Vec<(u64, u64)>,
}

impl Prefixes {
    /// Those of some prefixes.
    pub fn of(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all: Vec<_> = prefixes.into_iter().filter_map(range).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }

    /// Whether one of them touches a source.
    pub fn touch(&self, source: Source) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= source.number());
        let before = after.checked_sub(1).and_then(|place| self.ranges.get(place));
        before.is_some_and(|(_, last)| source.number() <= *last)
    }
}

/// Numbers of the sources that a prefix touches. `None`: there are none, it is in `::/32`.
fn range(prefix: IpNet) -> Option<(u64, u64)> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    };
    let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
    match prefix {
        IpNet::V4(_) => Some((first, last)),
        // Numbers below are those of IPv4.
        IpNet::V6(_) => (last > u64::from(u32::MAX)).then_some((first.max(1 << 32), last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_touches_the_sources_in_it_and_the_one_that_it_is_in() {
        let nets = ["192.0.2.0/24", "192.0.3.7/32", "2001:db8:1::/48", "2001:db8:2:3::4/128", "::/32"];
        let prefixes = Prefixes::of(nets.map(|text| text.parse().unwrap()));
        for inside in ["192.0.2.0", "192.0.2.255", "192.0.3.7", "2001:db8:1:ffff::/64", "2001:db8:2:3::/64"] {
            assert!(prefixes.touch(source(inside)), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "192.0.3.8", "2001:db8:2:4::/64", "0.0.0.0"] {
            assert!(!prefixes.touch(source(outside)), "{outside}");
        }
        assert!(!Prefixes::default().touch(source("192.0.2.1")));
        let all = Prefixes::of(["::/0".parse().unwrap()]);
        assert!(all.touch(source("2001:db8::/64")) && !all.touch(source("255.255.255.255")));
    }

    proptest! {
        #[test]
        fn they_touch_what_one_of_them_holds(nets in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..20), asked in any::<u32>()) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(address, bits)| IpNet::new(std::net::Ipv4Addr::from(address).into(), bits).unwrap().trunc())
                .collect();
            let address = std::net::Ipv4Addr::from(asked);
            let held = nets.iter().any(|net| net.contains(&IpAddr::from(address)));
            prop_assert_eq!(Prefixes::of(nets).touch(Source::of_v4(address)), held);
        }
    }
}
