//! Source prefixes of compiled tables as runs of addresses, and two policies side by side.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use detector_common::{
    address::Family,
    policy::{DEFAULT_ROW, RuleValue},
    ranges::{Node, NodeV6},
};
use ipnet::IpNet;

use super::Tables;

/// Addresses of a family from the first to the last, as numbers of 32 or 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The family.
    pub family: Family,
    /// The first.
    pub first: u128,
    /// The last.
    pub last: u128,
}

/// A run of addresses that are all of one row in each of two policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The addresses.
    pub run: Run,
    /// Their row in the one.
    pub before: RuleValue,
    /// Their row in the other.
    pub after: RuleValue,
}

/// All addresses of both families, in order, cut where either policy's row changes. One after the other: two policies of a
/// million prefixes have four million of them.
pub fn pieces<'a>(before: &'a Tables, after: &'a Tables) -> impl Iterator<Item = Piece> + 'a {
    [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| merged(family, rows(before, family), rows(after, family)))
}

/// A first address and its row, up to the next first address.
type Row = (u128, u32);

/// The rows of a family; the first one is that of address 0.
fn rows(tables: &Tables, family: Family) -> impl Iterator<Item = Row> + '_ {
    let keys: Box<dyn Iterator<Item = Row> + '_> = match family {
        Family::V4 if tables.header.rules_v4 != 0 => {
            Box::new(InOrder::of(&tables.rules_v4, |node, place| node.keys[place].into()))
        }
        Family::V6 if tables.header.rules_v6 != 0 => {
            let key = |node: &NodeV6, place: usize| {
                u128::from(node.highs[place]) << 64 | u128::from(node.lows[place])
            };
            Box::new(InOrder::of(&tables.rules_v6, key))
        }
        _ => Box::new(std::iter::empty()),
    };
    let mut all = std::iter::once((0, DEFAULT_ROW)).chain(keys).peekable();
    let mut last = None;
    std::iter::from_fn(move || {
        loop {
            let row = all.next()?;
            // The keys that fill up the last nodes say once more what the last range says.
            let is_last_of_its_key = all.peek().is_none_or(|next| next.0 != row.0);
            if is_last_of_its_key && last.replace(row.1) != Some(row.1) {
                return Some(row);
            }
        }
    })
}

/// The keys of a tree with their values, in their order.
struct InOrder<'a, N, K> {
    nodes: &'a [N],
    key: K,
    /// Nodes from the root down, each with the place of its next key.
    path: Vec<(usize, usize)>,
}

impl<'a, N: Node, K: Fn(&N, usize) -> u128> InOrder<'a, N, K> {
    fn of(nodes: &'a [N], key: K) -> Self {
        let mut tree = Self { nodes, key, path: Vec::new() };
        tree.descend(0);
        tree
    }

    /// Goes from a node to the least of its keys.
    fn descend(&mut self, mut number: usize) {
        while number < self.nodes.len() {
            self.path.push((number, 0));
            number = child::<N>(number, 0);
        }
    }
}

impl<N: Node, K: Fn(&N, usize) -> u128> Iterator for InOrder<'_, N, K> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            let (number, place) = self.path.pop()?;
            if place == N::KEYS {
                continue;
            }
            self.path.push((number, place + 1));
            self.descend(child::<N>(number, place + 1));
            let node = &self.nodes[number];
            return Some(((self.key)(node, place), node.value(place)));
        }
    }
}

/// The node of the keys before a key of a node.
fn child<N: Node>(number: usize, place: usize) -> usize {
    number * (N::KEYS + 1) + place + 1
}

fn merged(
    family: Family,
    before: impl Iterator<Item = Row>,
    after: impl Iterator<Item = Row>,
) -> impl Iterator<Item = Piece> {
    let highest = if family == Family::V4 { u32::MAX.into() } else { u128::MAX };
    let (mut before, mut after) = (before.peekable(), after.peekable());
    let row_of_zero = |row: Option<Row>| RuleValue(row.map_or(DEFAULT_ROW, |row| row.1));
    let (mut one, mut other) = (row_of_zero(before.next()), row_of_zero(after.next()));
    let mut first = Some(0);
    std::iter::from_fn(move || {
        let start = first?;
        let next = [before.peek(), after.peek()].into_iter().flatten().map(|row| row.0).min();
        let run = Run { family, first: start, last: next.map_or(highest, |next| next - 1) };
        let piece = Piece { run, before: one, after: other };
        one = before.next_if(|row| Some(row.0) == next).map_or(one, |row| RuleValue(row.1));
        other = after.next_if(|row| Some(row.0) == next).map_or(other, |row| RuleValue(row.1));
        first = next;
        Some(piece)
    })
}

/// The fewest prefixes that make up a run.
pub fn prefixes_of_run(run: Run) -> impl Iterator<Item = IpNet> {
    let bits: u32 = if run.family == Family::V4 { 32 } else { 128 };
    let mut next = Some(run.first);
    std::iter::from_fn(move || {
        let first = next.filter(|&first| first <= run.last)?;
        let aligned = first.trailing_zeros().min(bits);
        // How many there are from here on, less one: all of them may be one more than the number holds.
        let left = run.last - first;
        let fitting = left.checked_add(1).map_or(128, u128::ilog2);
        let host_bits = aligned.min(fitting);
        let span = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |addresses| addresses - 1);
        next = (first + span).checked_add(1);
        let address = match run.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(first as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(first)),
        };
        IpNet::new(address, (bits - host_bits) as u8).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        compile::{Manifest, compile},
        parse,
    };
    use proptest::prelude::*;

    fn tables(prefixes: &[&str]) -> Tables {
        let sources: Vec<_> = prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
        let text = format!(
            "version = 1\n[[service]]\nname = \"a\"\naddresses = [\"203.0.113.10\"]\nports = [\"*\"]\n\
             [[rule]]\nname = \"r\"\nsource = [{}]\naction = \"drop\"\n",
            sources.join(", ")
        );
        compile(&parse(&text).unwrap().policy, &Manifest::default(), 0).unwrap()
    }

    fn text(run: Run) -> Vec<String> {
        prefixes_of_run(run).map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn two_policies_are_cut_where_either_changes() {
        let (before, after) = (tables(&["198.51.100.0/24", "2001:db8::/32"]), tables(&["198.51.100.0/25"]));
        let changed: Vec<_> = pieces(&before, &after)
            .filter(|piece| {
                (piece.before == RuleValue(DEFAULT_ROW)) != (piece.after == RuleValue(DEFAULT_ROW))
            })
            .flat_map(|piece| text(piece.run))
            .collect();
        assert_eq!(changed, ["198.51.100.128/25", "2001:db8::/32"]);
    }

    #[test]
    fn everything_is_one_prefix() {
        let all = |family, last| text(Run { family, first: 0, last });
        assert_eq!(all(Family::V4, u32::MAX.into()), ["0.0.0.0/0"]);
        assert_eq!(all(Family::V6, u128::MAX), ["::/0"]);
    }

    proptest! {
        #[test]
        fn prefixes_make_up_their_run(one in any::<u32>(), other in any::<u32>()) {
            let run = Run { family: Family::V4, first: one.min(other).into(), last: one.max(other).into() };
            let mut next = run.first;
            for prefix in prefixes_of_run(run) {
                let IpNet::V4(prefix) = prefix else { panic!("{prefix}") };
                prop_assert_eq!(u128::from(prefix.network().to_bits()), next);
                next = u128::from(prefix.broadcast().to_bits()) + 1;
            }
            prop_assert_eq!(next, run.last + 1);
        }

        #[test]
        fn every_address_finds_its_rows(
            lists in proptest::collection::vec(proptest::collection::vec((any::<u32>(), 8_u8..=32), 1..40), 2),
            others in proptest::collection::vec(any::<u32>(), 40),
        ) {
            let texts: Vec<Vec<String>> = lists.iter().map(|list| list.iter().map(|&(address, length)| {
                ipnet::Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc().to_string()
            }).collect()).collect();
            let tables: Vec<_> = texts
                .iter()
                .map(|list| tables(&list.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let pieces: Vec<_> = pieces(&tables[0], &tables[1]).collect();
            let edges = lists.iter().flatten().map(|&(address, _)| address);
            for address in edges.chain(others) {
                let found = pieces.iter().find(|piece| {
                    piece.run.family == Family::V4
                        && (piece.run.first..=piece.run.last).contains(&u128::from(address))
                }).unwrap();
                let address = detector_common::address::Address::v4(address.to_be_bytes());
                prop_assert_eq!(found.before, tables[0].row(address));
                prop_assert_eq!(found.after, tables[1].row(address));
            }
        }
    }
}
