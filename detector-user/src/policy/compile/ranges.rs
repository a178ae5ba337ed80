//! Source prefixes cut into ranges, and the ranges into the nodes that the kernel searches; see
//! [`detector_common::ranges`].

use detector_common::{
    address::{Address, Family},
    policy::{DEFAULT_ROW, RuleValue},
    ranges::{Node, NodeV4, NodeV6},
};

/// A prefix, its length and what it says.
pub(super) type Prefix = (Address, u8, RuleValue);

/// The nodes for prefixes of IPv4, ordered by address and then by length.
pub(super) fn nodes_v4(prefixes: &[Prefix]) -> Vec<NodeV4> {
    debug_assert!(prefixes.iter().all(|(address, ..)| address.family == Family::V4));
    let ranges = ranges(
        u32::MAX.into(),
        prefixes.iter().map(|&(address, length, value)| {
            let first = address.high >> 32;
            (first.into(), (first | u64::from(u32::MAX) >> length).into(), value.0)
        }),
        |first| first as u32,
    );
    nodes(&ranges)
}

/// The nodes for prefixes of IPv6, ordered by address and then by length.
pub(super) fn nodes_v6(prefixes: &[Prefix]) -> Vec<NodeV6> {
    debug_assert!(prefixes.iter().all(|(address, ..)| address.family == Family::V6));
    let ranges = ranges(
        u128::MAX,
        prefixes.iter().map(|&(address, length, value)| {
            let first = u128::from(address.high) << 64 | u128::from(address.low);
            (first, first | u128::MAX.checked_shr(length.into()).unwrap_or(0), value.0)
        }),
        |first| ((first >> 64) as u64, first as u64),
    );
    nodes(&ranges)
}

/// Keys of the first addresses of ranges and what they say, in ascending order, up to the highest address. Every range ends where the next one begins.
fn ranges<K: Copy + PartialEq>(
    highest: u128,
    prefixes: impl Iterator<Item = (u128, u128, u32)>,
    key: impl Fn(u128) -> K,
) -> Vec<(K, u32)> {
    let mut ranges = vec![(key(0), DEFAULT_ROW)];
    // Ends and values of the prefixes around where we are, the most specific last.
    let mut around: Vec<(u128, u32)> = Vec::new();
    let begin = |ranges: &mut Vec<(K, u32)>, first: u128, value: u32| {
        let first = key(first);
        ranges.pop_if(|last| last.0 == first);
        if ranges.last().is_none_or(|last| last.1 != value) {
            ranges.push((first, value));
        }
    };
    let leave = |ranges: &mut Vec<(K, u32)>, around: &mut Vec<(u128, u32)>, before: Option<u128>| {
        while let Some(&(last, _)) = around.last()
            && before.is_none_or(|before| last < before)
        {
            around.pop();
            if last < highest {
                begin(ranges, last + 1, around.last().map_or(DEFAULT_ROW, |&(_, value)| value));
            }
        }
    };
    for (first, last, value) in prefixes {
        leave(&mut ranges, &mut around, Some(first));
        begin(&mut ranges, first, value);
        around.push((last, value));
    }
    leave(&mut ranges, &mut around, None);
    ranges
}

/// The nodes for ranges in ascending order.
fn nodes<N: Node + Default>(ranges: &[(N::Key, u32)]) -> Vec<N> {
    let mut filling = Filling {
        nodes: vec![N::default(); ranges.len().div_ceil(N::KEYS)],
        ranges: ranges.iter().copied(),
        // What stands in for ranges beyond the last.
        beyond: (N::HIGHEST, ranges.last().map_or(DEFAULT_ROW, |&(_, value)| value)),
    };
    filling.fill(0);
    filling.nodes
}

struct Filling<N: Node, I> {
    nodes: Vec<N>,
    ranges: I,
    beyond: (N::Key, u32),
}

impl<N: Node, I: Iterator<Item = (N::Key, u32)>> Filling<N, I> {
    /// Fills a node and its children in the order of the keys. As deep as the tree, a few levels.
    fn fill(&mut self, number: usize) {
        if number >= self.nodes.len() {
            return;
        }
        let first_child = number * (N::KEYS + 1) + 1;
        for place in 0..N::KEYS {
            self.fill(first_child + place);
            let (key, value) = self.ranges.next().unwrap_or(self.beyond);
            self.nodes[number].put(place, key, value);
        }
        self.fill(first_child + N::KEYS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use detector_common::ranges::find;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The value of the longest prefix, asked one by one.
    fn naive(prefixes: &[Prefix], address: Address) -> u32 {
        let around = prefixes.iter().filter(|&&(prefix, length, _)| address.prefix(length) == prefix);
        around.max_by_key(|&&(_, length, _)| length).map_or(DEFAULT_ROW, |&(.., value)| value.0)
    }

    fn found_v4(nodes: &[NodeV4], address: Address) -> u32 {
        find::<NodeV4, _>(|number| nodes.get(number as usize), (address.high >> 32) as u32, DEFAULT_ROW)
    }

    fn found_v6(nodes: &[NodeV6], address: Address) -> u32 {
        find::<NodeV6, _>(|number| nodes.get(number as usize), (address.high, address.low), DEFAULT_ROW)
    }

    /// Prefixes that lie inside and beside each other: few bits differ.
    fn prefixes(family: Family) -> impl Strategy<Value = Vec<Prefix>> {
        let most: u8 = if family == Family::V4 { 32 } else { 128 };
        vec((address(family), 0..=most, 1..50_u32), 0..400).prop_map(|prefixes| {
            let unique: BTreeMap<_, _> = prefixes
                .into_iter()
                .map(|(address, length, value)| ((address.prefix(length), length), RuleValue(value)))
                .collect();
            unique.into_iter().map(|((address, length), value)| (address, length, value)).collect()
        })
    }

    fn address(family: Family) -> impl Strategy<Value = Address> {
        let ends = [0_u128, 1, u128::MAX, u128::MAX - 1];
        let any = prop_oneof![
            any::<u128>(),
            prop::sample::select(ends.to_vec()),
            (0..16_u128, 0..125_u32).prop_map(|(few, shift)| few << shift),
            (0..16_u128, 0..125_u32).prop_map(|(few, shift)| !(few << shift)),
        ];
        any.prop_map(move |bits| match family {
            Family::V4 => Address::v4(((bits >> 96) as u32).to_be_bytes()),
            Family::V6 => Address::v6(bits.to_be_bytes()),
        })
    }

    /// The first and the last address of every prefix, and their neighbours.
    fn edges(prefixes: &[Prefix]) -> Vec<Address> {
        let of = |&(address, length, _): &Prefix| {
            let bits = u128::from_be_bytes(address.v6_bytes());
            let last = bits | u128::MAX.checked_shr(length.into()).unwrap_or(0);
            let all = [bits, bits.wrapping_sub(1), last, last.wrapping_add(1)];
            all.map(|bits| match address.family {
                Family::V4 => Address::v4(((bits >> 96) as u32).to_be_bytes()),
                Family::V6 => Address::v6(bits.to_be_bytes()),
            })
        };
        prefixes.iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn the_longest_prefix_of_ipv4_is_found(
            prefixes in prefixes(Family::V4), others in vec(address(Family::V4), 50),
        ) {
            let nodes = nodes_v4(&prefixes);
            for address in edges(&prefixes).into_iter().chain(others) {
                prop_assert_eq!(found_v4(&nodes, address), naive(&prefixes, address), "{:?}", address.to_ip());
            }
        }

        #[test]
        fn the_longest_prefix_of_ipv6_is_found(
            prefixes in prefixes(Family::V6), others in vec(address(Family::V6), 50),
        ) {
            let nodes = nodes_v6(&prefixes);
            for address in edges(&prefixes).into_iter().chain(others) {
                prop_assert_eq!(found_v6(&nodes, address), naive(&prefixes, address), "{:?}", address.to_ip());
            }
        }
    }

    /// A list of prefixes without gaps is one range.
    #[test]
    fn equal_neighbours_are_one_range() {
        let prefixes: Vec<_> =
            (0..1000_u32).map(|n| (Address::v4((n << 8).to_be_bytes()), 24, RuleValue(7))).collect();
        assert_eq!(nodes_v4(&prefixes).len(), 1);
    }

    /// Every size up to some nodes more than two full levels: the last nodes are filled only in part.
    #[test]
    fn trees_of_every_size_are_searched() {
        for count in 0..600_u32 {
            let prefixes: Vec<_> =
                (0..count).map(|n| (Address::v4((n * 512).to_be_bytes()), 24, RuleValue(n + 1))).collect();
            let nodes = nodes_v4(&prefixes);
            for n in 0..count {
                assert_eq!(found_v4(&nodes, Address::v4((n * 512 + 7).to_be_bytes())), n + 1, "of {count}");
                assert_eq!(found_v4(&nodes, Address::v4((n * 512 + 256).to_be_bytes())), DEFAULT_ROW);
            }
        }
    }
}
