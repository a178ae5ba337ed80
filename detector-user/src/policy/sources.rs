//! The source prefixes of a policy in the order of their addresses, so that a million of them are compared in one pass.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::model::Mode;
use super::raw::{RawPolicy, RawRule};
use super::text::At;

/// The place of a rule in the order of deciding about one prefix: allow, drop, limit, and then the order of the file.
pub(super) type Rank = u16;
/// That of `defaults.allow`.
const ALLOW: Rank = 0;

/// Where the sources of rules lie to each other.
pub(super) struct Sources<'a> {
    /// The rules by rank, that of `defaults.allow` not among them.
    rules: Vec<RankedRule<'a>>,
    /// Ordered by address, then the wider first, then by rank.
    entries: Vec<Entry>,
    prefixes: Vec<Prefix>,
    /// Services that rules are about, and one for rules about every service.
    pub(super) services: usize,
}

/// A rule and what is asked of it for each of its prefixes.
pub(super) struct RankedRule<'a> {
    pub(super) rule: &'a RawRule,
    /// Its number in the order of the file.
    pub(super) index: usize,
    /// The number of its service; 0 for every service.
    pub(super) service: usize,
    pub(super) mode: Mode,
}

/// A prefix as one rule names it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Of IPv4 in the upper bits.
    first_address: u128,
    /// Its place among the sources of its rule.
    pub(super) place: u32,
    pub(super) rank: Rank,
    is_v6: bool,
    length: u8,
}

impl Entry {
    fn new(prefix: IpNet, rank: Rank, place: usize) -> Self {
        let (first_address, is_v6) = match prefix.network() {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, false),
            IpAddr::V6(address) => (address.to_bits(), true),
        };
        Self { first_address, place: place as u32, rank, is_v6, length: prefix.prefix_len() }
    }

    fn last_address(&self) -> u128 {
        self.first_address | u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    fn contains(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6
            && self.length <= other.length
            && (self.first_address..=self.last_address()).contains(&other.first_address)
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.is_v6, self.first_address, self.length) == (other.is_v6, other.first_address, other.length)
    }
}

/// A prefix that something names.
struct Prefix {
    first_entry: u32,
    /// The next wider prefix; itself where there is none.
    around: u32,
    /// The prefix, this or one around it, that `defaults.allow` names; [`NONE`] without.
    allowed: u32,
}

const NONE: u32 = u32::MAX;

impl<'a> Sources<'a> {
    pub(super) fn new(raw: &'a RawPolicy) -> Self {
        let mut services = HashMap::new();
        let mut rules: Vec<_> = raw.rules.iter().enumerate().collect();
        let rank = |rule: &RawRule| rule.action.as_ref().map(|action| action.value.rank());
        rules.sort_by_key(|(index, rule)| (rank(rule), *index));
        let ranked = rules.into_iter().map(|(index, rule)| {
            let next = services.len() + 1;
            let service = service_of(rule).map_or(0, |name| *services.entry(name).or_insert(next));
            RankedRule { rule, index, service, mode: rule.mode.unwrap_or(raw.mode) }
        });
        let rules: Vec<_> = ranked.collect();

        let allowed =
            raw.allow.iter().enumerate().map(|(place, prefix)| Entry::new(prefix.value, ALLOW, place));
        let of_rule = |(rank, ranked): (Rank, &RankedRule<'a>)| {
            let sources = ranked.rule.sources.iter().enumerate();
            sources.map(move |(place, source)| Entry::new(source.value, rank, place))
        };
        let mut entries: Vec<_> = allowed.chain((ALLOW + 1..).zip(&rules).flat_map(of_rule)).collect();
        entries.sort_unstable_by_key(|entry| {
            (entry.is_v6, entry.first_address, entry.length, entry.rank, entry.place)
        });
        let prefixes = prefixes(&entries);
        Self { rules, entries, prefixes, services: services.len() + 1 }
    }

    /// Numbers of the prefixes, in their order.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.prefixes.len() as u32
    }

    /// The rules that name a prefix with their entries, by rank. Twice if they name it twice.
    pub(super) fn named(&self, number: u32) -> impl Iterator<Item = (Entry, &RankedRule<'a>)> {
        let (first, end) = (self.first_entry(number), self.first_entry(number + 1));
        let entries = &self.entries[first..end];
        entries.iter().filter_map(|entry| Some((*entry, self.rule(entry.rank)?)))
    }

    fn first_entry(&self, number: u32) -> usize {
        self.prefixes.get(number as usize).map_or(self.entries.len(), |prefix| prefix.first_entry as usize)
    }

    /// The rule of a rank; none is that of `defaults.allow`.
    pub(super) fn rule(&self, rank: Rank) -> Option<&RankedRule<'a>> {
        self.rules.get(usize::from(rank.checked_sub(ALLOW + 1)?))
    }

    /// The rules by rank.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Rank, &RankedRule<'a>)> {
        (ALLOW + 1..).zip(&self.rules)
    }

    /// The place in `defaults.allow` of what contains a prefix.
    pub(super) fn allowed(&self, number: u32) -> Option<usize> {
        let allowed = self.prefixes.get(number as usize)?.allowed;
        let prefix = self.prefixes.get(allowed as usize)?;
        Some(self.entries[prefix.first_entry as usize].place as usize)
    }

    /// The prefix and all of the named ones that contain it, the narrowest first.
    pub(super) fn around(&self, number: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(number), |&number| {
            let around = self.prefixes[number as usize].around;
            (around != number).then_some(around)
        })
    }

    /// Whether prefixes that come after one, by their numbers in order, make up all of it.
    pub(super) fn make_up(&self, number: u32, after: &[u32]) -> bool {
        let entry = |number: u32| &self.entries[self.prefixes[number as usize].first_entry as usize];
        let whole = entry(number);
        let mut next = whole.first_address;
        for part in after.iter().map(|&number| entry(number)) {
            // What starts later leaves a gap; with this first, no more is looked at than lies in `whole`.
            if part.is_v6 != whole.is_v6 || part.first_address > next {
                return false;
            }
            if part.first_address < next {
                continue;
            }
            if part.last_address() == whole.last_address() {
                return true;
            }
            next = part.last_address() + 1;
        }
        false
    }
}

fn prefixes(entries: &[Entry]) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(entries.len());
    // Those around the current one, the narrowest last.
    let mut around: Vec<(u32, Entry)> = Vec::new();
    let mut first_entry = 0;
    for same in entries.chunk_by(Entry::is_same) {
        let (number, entry) = (prefixes.len() as u32, same[0]);
        while around.last().is_some_and(|(_, outer)| !outer.contains(&entry)) {
            around.pop();
        }
        let outer = around.last().map(|(outer, _)| *outer);
        let inherited = outer.map_or(NONE, |outer| prefixes[outer as usize].allowed);
        let allowed = if entry.rank == ALLOW { number } else { inherited };
        prefixes.push(Prefix { first_entry, around: outer.unwrap_or(number), allowed });
        around.push((number, entry));
        first_entry += same.len() as u32;
    }
    prefixes
}

fn service_of(rule: &RawRule) -> Option<&str> {
    rule.service.as_ref().map(|service| service.value.as_str())
}

impl RankedRule<'_> {
    /// Its source at a place of the list.
    pub(super) fn source(&self, place: u32) -> Option<&At<IpNet>> {
        self.rule.sources.get(place as usize)
    }

    /// Whether rules about both services, numbered as here, can be about the same packets.
    pub(super) fn shares(&self, other: &Self) -> bool {
        self.service == 0 || other.service == 0 || self.service == other.service
    }
}
