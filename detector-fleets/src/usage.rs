//! What a fleet uses, what its population normally did, and what acting on it would cost others.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    alarm::Finding,
    block::KindId,
    family::{Family, volume_of},
    fleets::Looked,
    limits::{BUSY_OF_MEMBERS, BUSY_SHARE, KEYS_OF_USAGE_MAX, SHARED_TLS_KEYS_MIN, TOP_SHARE},
    membership::Group,
    profile::{Active, Population},
    source::Source,
    traits::{Key, Traits},
    users::Users,
};

/// How a pair of fingerprints is used at a service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyUse {
    /// Which.
    pub key: Key,
    /// The share of the fleet's members that have it, 0 to 1.
    pub members: f64,
    /// The share of the sources of clean windows that had it, or of those that are none of a fleet's in the last window that had all of this one, if
    /// that is more, 0 to 1: clean windows are half a day old or older, and know nothing of what people have since.
    pub baseline: f64,
    /// The share of their connections that those made, 0 to 1.
    pub baseline_connections: f64,
    /// Whether it is one of the most frequent that [`TOP_SHARE`] of those sources have.
    pub is_top: bool,
}

/// What was measured of a fleet and of the users around it, in the last window that was asked for its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Length of the window, s; 0: none was asked.
    pub window_s: u64,
    /// For how long of it the fleet was there, s.
    pub present_s: u64,
    /// Connections of members in it.
    pub connections: u64,
    /// Exchanges of members in it, estimated from the connections that were followed.
    pub exchanges: u64,
    /// Connections a second that were expected of the population: sources that the fleet's cell had, each with what a new user did.
    pub normal_connections_s: f64,
    /// Fingerprints of members, the most frequent first, at most [`KEYS_OF_USAGE_MAX`]. Unknown ones are not among them.
    pub keys: Vec<KeyUse>,
}

impl Usage {
    /// That of a group, with what was expected of its population before where no alarm says it anew. Of fingerprints nothing is said yet, see
    /// [`Self::look_at_users`].
    pub fn of(
        looked: &Looked<'_>,
        alarms: &[&Finding],
        group: &Group,
        traits: Option<&Traits>,
        first_seen_s: u64,
        before: &Self,
    ) -> Self {
        let sum = |of: fn(&Active) -> u64, sources: &[Active]| sources.iter().map(of).sum::<u64>();
        let exchanges = |active: &Active| u64::from(active.exchanges);
        let connections = |active: &Active| u64::from(active.connections);
        let window_s = looked.length_s;
        // The first among equals, as the explanation has it.
        let strongest = alarms.iter().rev().max_by(|one, other| one.total().total_cmp(&other.total()));
        let normal_connections_s = strongest.map_or(before.normal_connections_s, |alarm| {
            let sources = alarm.expected_sources.max(group.innocents);
            sources * connections_of_new_user(looked.of_users) / window_s.max(1) as f64
        });
        Self {
            window_s,
            present_s: looked.end_s.saturating_sub(first_seen_s).min(window_s),
            connections: sum(connections, &group.members),
            exchanges: sum(exchanges, &group.members),
            normal_connections_s,
            keys: traits.map_or_else(Vec::new, keys),
        }
    }

    /// Says anew how the fingerprints are used by users: whoever is not among these sources, which are in their order.
    pub fn look_at_users(&mut self, looked: &Looked<'_>, not_users: &[Source]) {
        if self.keys.is_empty() {
            return;
        }
        let frequent = Frequent::of(looked, not_users);
        for used in &mut self.keys {
            *used = frequent.use_of(used.key, used.members);
        }
    }

    /// Connections of members, a second, since the fleet is there.
    pub fn connections_s(&self) -> f64 {
        self.connections as f64 / self.present_s.max(1) as f64
    }
}

/// Whether many clients are behind a source: it has several ClientHellos, or makes more connections than nearly all users.
pub fn is_shared(tls_keys: u8, is_busy: bool) -> bool {
    tls_keys >= SHARED_TLS_KEYS_MIN || is_busy
}

/// More connections than this are those of at most [`BUSY_SHARE`] of the sources that are no members, and [`BUSY_OF_MEMBERS`] times those of half
/// of the members. Both are in the order of sources. `None`: all are members, or none.
pub fn busy_above(population: &Population, members: &[Active]) -> Option<u16> {
    let mut of_members: Vec<u16> = members.iter().map(|active| active.connections).collect();
    let middle = of_members.len().checked_sub(1)? / 2;
    let of_member = of_members.select_nth_unstable(middle).1.saturating_mul(BUSY_OF_MEMBERS);
    let mut members = members.iter().map(|active| active.source).peekable();
    let mut of_users: Vec<u16> = population
        .sources
        .iter()
        .filter(|active| members.next_if_eq(&active.source).is_none())
        .map(|active| active.connections)
        .collect();
    let above = (of_users.len() as f64 * BUSY_SHARE) as usize;
    let place = of_users.len().checked_sub(above + 1)?;
    Some(of_member.max(*of_users.select_nth_unstable(place).1))
}

/// Connections of a new user in a window, by the classes of volume in clean ones: the middle of each, of the open one its beginning.
/// 1 where nothing is known.
fn connections_of_new_user(users: &Users) -> f64 {
    let new = users.profiles().iter().filter(|(profile, _)| profile.is_new);
    let (mut sources, mut connections) = (0.0, 0.0);
    for (profile, count) in new {
        sources += count;
        let category = usize::from(profile.categories[Family::Homogeneity as usize]);
        connections += count * volume_of(category);
    }
    if sources > 0.0 { connections / sources } else { 1.0 }
}

/// Pairs of fingerprints by how many users have each: sources, and connections of theirs.
type ByKey = HashMap<(u64, u64), [f64; 2], RandomState>;

/// Pairs of fingerprints of users: the shares of sources and of connections that have each, and whether it is one of the most frequent of clean windows.
struct Frequent {
    clean: ByKey,
    present: ByKey,
    top: HashSet<(u64, u64), RandomState>,
}

impl Frequent {
    fn of(looked: &Looked<'_>, not_users: &[Source]) -> Self {
        let key_of = |kind: KindId| {
            let kind = looked.kinds.kind(kind);
            (kind.tls_key, kind.syn_key)
        };
        let (mut clean, mut present) = (ByKey::default(), ByKey::default());
        for (profile, count) in looked.of_users.profiles() {
            clean.entry(key_of(profile.kind)).or_default()[0] += count;
        }
        for (kind, count) in looked.of_users.connections() {
            clean.entry(key_of(kind)).or_default()[1] += count;
        }
        let mut not_users = not_users.iter().peekable();
        let mut by_profile = vec![[0.0; 2]; looked.population.profiles.len()];
        for active in &looked.population.sources {
            while not_users.next_if(|source| **source < active.source).is_some() {}
            if not_users.peek() == Some(&&active.source) {
                continue;
            }
            if let Some(counts) = by_profile.get_mut(active.profile as usize) {
                counts[0] += 1.0;
                counts[1] += f64::from(active.connections);
            }
        }
        for ((profile, _), counts) in looked.population.profiles.iter().zip(by_profile) {
            let of_key = present.entry(key_of(profile.kind)).or_default();
            of_key[0] += counts[0];
            of_key[1] += counts[1];
        }
        let mut frequent: Vec<_> = clean.iter().map(|(key, [sources, _])| (*key, *sources)).collect();
        frequent.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        let sources: f64 = frequent.iter().map(|(_, sources)| sources).sum();
        let mut more_frequent = 0.0;
        let mut top = HashSet::default();
        for (key, own) in frequent {
            if more_frequent < TOP_SHARE * sources {
                top.insert(key);
            }
            more_frequent += own;
        }
        Self { clean: shares(clean), present: shares(present), top }
    }

    /// `members`: the share of members that have it.
    fn use_of(&self, key: Key, members: f64) -> KeyUse {
        let of = (key.tls_key, key.syn_key);
        let [clean, present] =
            [&self.clean, &self.present].map(|users| users.get(&of).copied().unwrap_or_default());
        let [baseline, baseline_connections] = [0, 1].map(|which| f64::max(clean[which], present[which]));
        KeyUse { key, members, baseline, baseline_connections, is_top: self.top.contains(&of) }
    }
}

/// What part of all each has.
fn shares(mut users: ByKey) -> ByKey {
    let all = [0, 1].map(|which| users.values().map(|counts| counts[which]).sum::<f64>().max(1.0));
    for counts in users.values_mut() {
        *counts = [counts[0] / all[0], counts[1] / all[1]];
    }
    users
}

/// The fingerprints of members, of whose users nothing is said yet.
fn keys(traits: &Traits) -> Vec<KeyUse> {
    let known = traits.keys.iter().filter(|(key, _)| key.tls_key != 0);
    let used =
        |&(key, members)| KeyUse { key, members, baseline: 1.0, baseline_connections: 1.0, is_top: true };
    known.take(KEYS_OF_USAGE_MAX).map(used).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{Block, Sizes},
        cells::{Cell, Common},
        family::tests::block,
        interval::Kinds,
        observation::{Kind, ServiceId},
        profile::{Clean, populations},
        source::Source,
    };

    const WEB: ServiceId = ServiceId(0);

    /// The first is a fleet's, the others are browsers'.
    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for tls_key in [11, 12, 13] {
            kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
        }
        kinds
    }

    fn source(number: u32, kind: u32, connections: u16) -> Block {
        Block {
            source: Source::of_v4(number.into()),
            kind: KindId(kind),
            connections,
            ..block(2 * connections, 0, [4, 2, 4], Sizes(1))
        }
    }

    fn population(window: &[Block]) -> Population {
        populations(window, &kinds(), |_| true).remove(&WEB).expect("sources")
    }

    /// 1,000 users with 2 connections, of which the last 20 have 100; members have the addresses from 5,000 on.
    fn window(members: impl Iterator<Item = u16>) -> Vec<Block> {
        let user =
            |number: u32| source(number, 1 + u32::from(number < 100), if number < 980 { 2 } else { 100 });
        let members = members.enumerate().map(|(number, count)| source(5000 + number as u32, 0, count));
        (0..1000).map(user).chain(members).collect()
    }

    fn group(population: &Population, innocents: f64) -> Group {
        let is_member = |active: &&Active| active.source.number() >= 5000;
        Group {
            alarms: vec![0],
            known: Vec::new(),
            members: population.sources.iter().filter(is_member).copied().collect(),
            suspects: Vec::new(),
            earlier: Vec::new(),
            innocents,
            collateral: 0.0,
            users: 1000.0,
            synchrony: 0.0,
        }
    }

    #[test]
    fn busy_is_who_makes_more_connections_than_nearly_all_users() {
        let of = |window: &[Block]| {
            let population = population(window);
            busy_above(&population, &group(&population, 0.0).members)
        };
        let alone = |connections| source(6000, 0, connections);
        assert_eq!(of(&window(std::iter::repeat_n(1, 900))), Some(4), "members do not count");
        let users: Vec<_> = (0..100).map(|number| source(number, 1, number as u16 + 1)).collect();
        assert_eq!(of(&[&users[..], &[alone(1)]].concat()), Some(95));
        assert_eq!(of(&[&users[..], &[alone(40)]].concat()), Some(160), "a member does more than users");
        assert_eq!(of(&[users[0], alone(0)]), Some(1));
        assert_eq!((of(&users), of(&[alone(7)])), (None, None), "no members, or no users");
    }

    #[test]
    fn many_are_behind_a_source_with_three_clienthellos_or_a_crowd_of_connections() {
        assert!(!is_shared(2, false) && is_shared(3, false) && is_shared(1, true));
    }

    /// A look at an hour.
    fn looked<'a>(population: &'a Population, of_users: &'a Users, kinds: &'a Kinds) -> Looked<'a> {
        Looked {
            service: WEB,
            start_s: 0,
            end_s: 3600,
            length_s: 3600,
            lengths_s: &[3600],
            alarms: &[],
            population,
            not_asked: &[],
            of_users,
            kinds,
        }
    }

    fn users(population: &Population, kinds: &Kinds) -> Users {
        Users::of(&[&Clean::of(population, usize::MAX)], kinds)
    }

    fn usage(innocents: f64, alarms: &[&Finding], before: &Usage) -> Usage {
        let kinds = kinds();
        let population = population(&window([4; 100].into_iter()));
        let before_it = self::population(&window(std::iter::empty()));
        let group = group(&population, innocents);
        let traits = Traits::of(&group.members, &[], &population, &kinds);
        let users = users(&before_it, &kinds);
        let looked = looked(&population, &users, &kinds);
        let mut usage = Usage::of(&looked, alarms, &group, traits.as_ref(), 1800, before);
        assert!(usage.keys.iter().all(|used| used.is_top), "nobody's key before users were looked at");
        let members: Vec<_> = group.members.iter().map(|active| active.source).collect();
        usage.look_at_users(&looked, &members);
        usage
    }

    /// How the keys of all users of a window are used, if none of them is a member.
    fn used(population: &Population, before: &Population) -> Vec<KeyUse> {
        let kinds = kinds();
        let users = users(before, &kinds);
        let traits = Traits::of(&population.sources, &[], population, &kinds).expect("sources");
        let mut usage = Usage { keys: keys(&traits), ..Usage::default() };
        usage.look_at_users(&looked(population, &users, &kinds), &[]);
        usage.keys
    }

    fn alarm(expected_sources: f64) -> Finding {
        let cell = Cell { service: WEB, common: Common::Tls(11) };
        Finding { cell, sources: 100, expected_sources, z: 9.0, evidence: Vec::new() }
    }

    #[test]
    fn the_normal_use_is_that_of_the_expected_sources_and_stays_where_no_alarm_says_it_anew() {
        let alarm = alarm(36.0);
        let found = usage(1.0, &[&alarm], &Usage::default());
        // All of the clean window are new: 980 with 2 connections, and 20 with 33 or more.
        let each = (980.0 * 2.0 + 20.0 * 33.0) / 1000.0;
        assert!((found.normal_connections_s - 36.0 * each / 3600.0).abs() < 1e-12, "{found:?}");
        assert_eq!((found.window_s, found.connections, found.exchanges), (3600, 400, 800));
        assert!((found.connections_s() - 400.0 / 1800.0).abs() < 1e-12, "since it is there");
        let more = usage(72.0, &[&alarm], &Usage::default()).normal_connections_s;
        assert!((more - 72.0 * each / 3600.0).abs() < 1e-12, "users that are expected among members: {more}");
        let later = usage(1.0, &[], &found);
        assert!((later.normal_connections_s - found.normal_connections_s).abs() < 1e-12);
    }

    #[test]
    fn it_is_told_how_the_keys_of_members_are_used() {
        let found = usage(1.0, &[], &Usage::default());
        let [own] = &found.keys[..] else { panic!("one key: {found:?}") };
        assert_eq!((own.key, own.members.round()), (Key { tls_key: 11, syn_key: 9 }, 1.0));
        assert!(own.baseline.abs() < 1e-12 && !own.is_top, "nobody else has it");
        // A tenth of the users has the browser of kind 2, all others that of kind 1.
        let before = population(&window(std::iter::empty()));
        let told: Vec<_> = used(&before, &before)
            .iter()
            .map(|one| (one.key.tls_key, (one.baseline * 10.0).round(), one.is_top))
            .collect();
        assert_eq!(told, [(12, 9.0, true), (13, 1.0, false)]);
        // One source of kind 2 makes nearly all connections.
        let mut window = window(std::iter::empty());
        let of_two = window.iter_mut().find(|block| block.kind == KindId(2)).expect("one");
        of_two.connections = 40_000;
        let all: f64 = window.iter().map(|block| f64::from(block.connections)).sum();
        let own: f64 = window
            .iter()
            .filter(|block| block.kind == KindId(2))
            .map(|block| f64::from(block.connections))
            .sum();
        let after = population(&window);
        for (now, clean) in [(&before, &after), (&after, &before)] {
            let told = used(now, clean);
            let share =
                told.iter().find(|one| one.key.tls_key == 13).map_or(0.0, |one| one.baseline_connections);
            assert!((share - own / all).abs() < 1e-4 && share > 0.9, "whichever is more: {share}");
        }
    }

    /// A browser that was released after the clean windows, and that a fleet has, too.
    #[test]
    fn what_people_have_since_is_nobody_s_key() {
        let before = population(&window(std::iter::empty()));
        let mut window = window(std::iter::empty());
        window.iter_mut().take(50).for_each(|block| block.kind = KindId(0));
        let told = used(&population(&window), &before);
        let new = told.iter().find(|one| one.key.tls_key == 11).map(|one| one.baseline);
        assert_eq!(new, Some(0.05), "{told:?}");
    }
}
