//! Source prefixes of compiled tables as runs of addresses, and two policies side by side.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use detector_common::{
    address::Family,
    policy::{DEFAULT_ROW, RuleValue},
    ranges::{Node, NodeV4, NodeV6},
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

/// All addresses of both families, in order, cut where either policy's row changes.
pub fn pieces(before: &Tables, after: &Tables) -> Vec<Piece> {
    [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| merged(family, &rows(before, family), &rows(after, family)))
        .collect()
}

/// A first address and its row, up to the next first address.
type Row = (u128, u32);

fn rows(tables: &Tables, family: Family) -> Vec<Row> {
    let mut rows = vec![(0, DEFAULT_ROW)];
    match family {
        Family::V4 if tables.header.rules_v4 != 0 => {
            let key = |node: &NodeV4, place: usize| node.keys[place].into();
            walk(&tables.rules_v4, key, 0, &mut rows);
        }
        Family::V6 if tables.header.rules_v6 != 0 => {
            let key = |node: &NodeV6, place: usize| {
                u128::from(node.highs[place]) << 64 | u128::from(node.lows[place])
            };
            walk(&tables.rules_v6, key, 0, &mut rows);
        }
        _ => {}
    }
    rows
}

/// Goes through a tree in the order of its keys. As deep as the tree is.
fn walk<N: Node>(nodes: &[N], key: impl Fn(&N, usize) -> u128 + Copy, number: usize, rows: &mut Vec<Row>) {
    let Some(node) = nodes.get(number) else { return };
    for place in 0..=N::KEYS {
        walk(nodes, key, number * (N::KEYS + 1) + place + 1, rows);
        if place == N::KEYS {
            break;
        }
        let row = (key(node, place), node.value(place));
        // The keys that fill up the last nodes say once more what the last range says.
        rows.pop_if(|last| last.0 == row.0);
        if rows.last().is_none_or(|last| last.1 != row.1) {
            rows.push(row);
        }
    }
}

fn merged(family: Family, before: &[Row], after: &[Row]) -> Vec<Piece> {
    let highest = if family == Family::V4 { u32::MAX.into() } else { u128::MAX };
    let mut pieces: Vec<Piece> = Vec::with_capacity(before.len().max(after.len()));
    let (mut one, mut other) = (0, 0);
    let mut first = 0;
    loop {
        let next = [before.get(one + 1), after.get(other + 1)].into_iter().flatten().map(|row| row.0).min();
        let run = Run { family, first, last: next.map_or(highest, |next| next - 1) };
        pieces.push(Piece { run, before: RuleValue(before[one].1), after: RuleValue(after[other].1) });
        let Some(next) = next else { return pieces };
        one += usize::from(before.get(one + 1).is_some_and(|row| row.0 == next));
        other += usize::from(after.get(other + 1).is_some_and(|row| row.0 == next));
        first = next;
    }
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
            .into_iter()
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
            let pieces = pieces(&tables[0], &tables[1]);
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
