//! Users as they were in clean windows: how likely one of them has a profile.
//!
//! P(tls) P(syn | tls) P(new | tls) P(path | new, syn) P(neighbours | new, syn) Π P(family | new, tls), each with some sources that are as all
//! users are. The way to a client goes with its SYN, since whatever ends TCP on it sent that: those behind a privacy relay have the relay's. What
//! does not depend on the keys of a window is kept from look to look: clean windows change rarely.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::{
    block::KindId,
    interval::Kinds,
    profile::{self, Clean, FEATURES, Profile},
    traits::Key,
};

/// Sources of all users that have a key of those that clean windows do not have, all such keys together.
const UNSEEN_KEYS: f64 = 5.0;

/// Sources that a key has beside its own, and that do as all users do: for its SYN and newness, and for each feature.
const USERS_OF_KEY: f64 = 5.0;
const USERS_OF_FEATURE: f64 = 30.0;

/// Sources that are spread over all categories of a feature, or over new and known.
const UNIFORM_SOURCES: f64 = 10.0;

/// Users, as they were in clean windows.
#[derive(Clone, Debug, Default)]
pub struct Users {
    profiles: Box<[(Profile, f64)]>,
    /// For each profile the log of how likely it is of a user with its keys.
    logs: Box<[f64]>,
    /// The kinds that profiles have.
    kinds: Box<[KindId]>,
    /// Connections by kind.
    connections: HashMap<KindId, f64, RandomState>,
    sources: f64,
    tls: Counted,
    syn: Counted,
    of_both: HashMap<[u32; 2], f64, RandomState>,
    /// By newness, whatever the key is.
    of_new: [f64; 2],
    /// By the number of the TLS key and newness, and by that of the SYN.
    of_tls: Vec<[f64; 2]>,
    of_syn: Vec<[f64; 2]>,
    /// By newness, feature and category.
    of_categories: [[Vec<f64>; FEATURES]; 2],
    /// By the number of the TLS key or the SYN, whatever the feature goes with, newness, feature and category.
    of_features: HashMap<[u32; 4], f64, RandomState>,
}

/// Keys with a number each, and how many sources have them.
#[derive(Clone, Debug, Default)]
struct Counted {
    numbers: HashMap<u64, u32, RandomState>,
    sources: Vec<f64>,
}

impl Counted {
    fn add(&mut self, key: u64, count: f64) -> u32 {
        let next = self.sources.len() as u32;
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.sources.push(0.0);
        }
        self.sources[number as usize] += count;
        number
    }
}

impl Users {
    /// Those of clean windows.
    pub fn of(clean: &[&Clean], kinds: &Kinds) -> Self {
        let mut all: Vec<_> = clean.iter().flat_map(|clean| clean.profiles.iter().copied()).collect();
        all.sort_unstable_by_key(|(profile, _)| *profile);
        let same = all.chunk_by(|(one, _), (next, _)| one == next);
        let sum = |same: &[(Profile, f32)]| same.iter().map(|(_, count)| f64::from(*count)).sum();
        let mut users = Self::of_profiles(same.map(|same| (same[0].0, sum(same))).collect(), kinds);
        for (kind, connections) in clean.iter().flat_map(|clean| &clean.connections) {
            *users.connections.entry(*kind).or_insert(0.0) += f64::from(*connections);
        }
        users
    }

    pub(crate) fn of_profiles(profiles: Vec<(Profile, f64)>, kinds: &Kinds) -> Self {
        let mut users = Self {
            of_categories: std::array::from_fn(|_| {
                std::array::from_fn(|feature| vec![0.0; profile::categories_of(feature)])
            }),
            ..Self::default()
        };
        for (profile, count) in &profiles {
            users.add(profile, *count, kinds);
        }
        let log = |(profile, _): &(Profile, f64)| {
            let kind = kinds.kind(profile.kind);
            let number = |counted: &Counted, key| counted.numbers.get(&key).copied();
            let keys = [number(&users.tls, kind.tls_key), number(&users.syn, kind.syn_key)];
            users.log_with_keys(profile, keys)
        };
        users.logs = profiles.iter().map(log).collect();
        let mut of_kinds: Vec<_> = profiles.iter().map(|(profile, _)| profile.kind).collect();
        of_kinds.sort_unstable();
        of_kinds.dedup();
        users.kinds = of_kinds.into();
        users.profiles = profiles.into();
        users
    }

    fn add(&mut self, profile: &Profile, count: f64, kinds: &Kinds) {
        let kind = kinds.kind(profile.kind);
        let new = usize::from(profile.is_new);
        self.sources += count;
        let tls = self.tls.add(kind.tls_key, count);
        let syn = self.syn.add(kind.syn_key, count);
        *self.of_both.entry([tls, syn]).or_insert(0.0) += count;
        self.of_new[new] += count;
        self.of_tls.resize(self.tls.sources.len(), [0.0; 2]);
        self.of_tls[tls as usize][new] += count;
        self.of_syn.resize(self.syn.sources.len(), [0.0; 2]);
        self.of_syn[syn as usize][new] += count;
        for (feature, category) in profile.features().into_iter().enumerate() {
            self.of_categories[new][feature][usize::from(category)] += count;
            let key = if profile::goes_with_syn(feature) { syn } else { tls };
            let place = [key, new as u32, feature as u32, category.into()];
            *self.of_features.entry(place).or_insert(0.0) += count;
        }
    }

    /// Profiles of clean windows, each once and in order, and how many sources had them.
    pub fn profiles(&self) -> &[(Profile, f64)] {
        &self.profiles
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    /// Sources of all clean windows together.
    pub const fn sources(&self) -> f64 {
        self.sources
    }

    /// Connections of clean windows by kind, as they were counted.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (KindId, f64)> {
        self.connections.iter().map(|(kind, connections)| (*kind, *connections))
    }

    /// Sources of those that had a key.
    pub fn sources_with(&self, key: Key) -> f64 {
        let numbers = (self.tls.numbers.get(&key.tls_key), self.syn.numbers.get(&key.syn_key));
        let (Some(&tls), Some(&syn)) = numbers else { return 0.0 };
        self.of_both.get(&[tls, syn]).copied().unwrap_or(0.0)
    }

    /// The share of users that are new or not.
    pub(crate) fn share_of_new(&self, is_new: bool) -> f64 {
        (self.of_new[usize::from(is_new)] + UNIFORM_SOURCES / 2.0) / (self.sources + UNIFORM_SOURCES)
    }

    /// The share of users with a category of a feature.
    pub(crate) fn share_of_category(&self, feature: usize, category: usize) -> f64 {
        let own: f64 = self.of_categories.iter().map(|of| of[feature][category]).sum();
        let uniform = UNIFORM_SOURCES / profile::categories_of(feature) as f64;
        (own + uniform) / (self.sources + UNIFORM_SOURCES)
    }

    /// The log of how likely a user with the profile's keys is new or not, and does this. `keys`: the numbers of its TLS key and its SYN, if
    /// users have them.
    fn log_with_keys(&self, profile: &Profile, [tls, syn]: [Option<u32>; 2]) -> f64 {
        let new = usize::from(profile.is_new);
        let of_new = self.of_new[new];
        let own_of_tls = tls.map_or([0.0; 2], |tls| self.of_tls[tls as usize]);
        let own_of_syn = syn.map_or([0.0; 2], |syn| self.of_syn[syn as usize]);
        let of_tls: f64 = own_of_tls.iter().sum();
        let newness =
            (own_of_tls[new] + USERS_OF_KEY * self.share_of_new(profile.is_new)) / (of_tls + USERS_OF_KEY);
        let of_feature = |(feature, category): (usize, u16)| {
            let (key, own_of_key) =
                if profile::goes_with_syn(feature) { (syn, own_of_syn[new]) } else { (tls, own_of_tls[new]) };
            let all = self.of_categories[new][feature][usize::from(category)];
            let uniform = UNIFORM_SOURCES / profile::categories_of(feature) as f64;
            let parent = (all + uniform) / (of_new + UNIFORM_SOURCES);
            let place = |key| [key, new as u32, feature as u32, category.into()];
            let own = key.and_then(|key| self.of_features.get(&place(key)).copied()).unwrap_or(0.0);
            (own + USERS_OF_FEATURE * parent) / (own_of_key + USERS_OF_FEATURE)
        };
        newness.ln() + profile.features().into_iter().enumerate().map(of_feature).product::<f64>().ln()
    }
}

/// Users beside the keys of a window: each key of either has a number, those of users first.
#[derive(Debug)]
pub(crate) struct Keyed<'a> {
    users: &'a Users,
    /// By the number of a kind: the numbers of its keys, and the log of how likely a user has them.
    kinds: Vec<([u32; 2], f64)>,
    /// How many keys there are of each.
    pub(crate) lengths: [usize; 2],
}

impl<'a> Keyed<'a> {
    pub(crate) fn of(users: &'a Users, profiles: &[(Profile, u32)], kinds: &Kinds) -> Self {
        let mut of_window: Vec<_> = profiles.iter().map(|(profile, _)| profile.kind).collect();
        of_window.sort_unstable();
        of_window.dedup();
        let all = || users.kinds.iter().chain(&of_window);
        let mut more: [BTreeMap<u64, u32>; 2] = Default::default();
        let mut lengths = [users.tls.sources.len(), users.syn.sources.len()];
        let mut keyed = Self { users, kinds: vec![([0; 2], 0.0); kinds.len()], lengths };
        for &id in all() {
            let kind = kinds.kind(id);
            let places = [(&users.tls, kind.tls_key), (&users.syn, kind.syn_key)].into_iter().zip(&mut more);
            let numbers = places.zip(&mut lengths).map(|(((counted, key), more), length)| {
                let next = || {
                    *length += 1;
                    *length as u32 - 1
                };
                counted.numbers.get(&key).copied().unwrap_or_else(|| *more.entry(key).or_insert_with(next))
            });
            for (place, number) in keyed.kinds[id.0 as usize].0.iter_mut().zip(numbers) {
                *place = number;
            }
        }
        keyed.lengths = lengths;
        for &id in all() {
            keyed.kinds[id.0 as usize].1 = keyed.log_of_keys(keyed.kinds[id.0 as usize].0);
        }
        keyed
    }

    /// The numbers of the keys of a kind.
    pub(crate) fn keys(&self, kind: KindId) -> [u32; 2] {
        self.kinds[kind.0 as usize].0
    }

    /// The share of users with a TLS key, by its number.
    pub(crate) fn share_of_tls(&self, number: usize) -> f64 {
        self.share_of(&self.users.tls, number, self.lengths[0])
    }

    /// The share of users with a SYN.
    pub(crate) fn share_of_syn(&self, number: usize) -> f64 {
        self.share_of(&self.users.syn, number, self.lengths[1])
    }

    fn share_of(&self, counted: &Counted, number: usize, length: usize) -> f64 {
        let own = counted.sources.get(number).copied().unwrap_or(0.0);
        (own + UNSEEN_KEYS / length as f64) / (self.users.sources + UNSEEN_KEYS)
    }

    fn log_of_keys(&self, keys: [u32; 2]) -> f64 {
        let [tls, syn] = keys.map(|key| key as usize);
        let of_tls = self.users.tls.sources.get(tls).copied().unwrap_or(0.0);
        let own = self.users.of_both.get(&keys).copied().unwrap_or(0.0);
        let of_syn = (own + USERS_OF_KEY * self.share_of_syn(syn)) / (of_tls + USERS_OF_KEY);
        self.share_of_tls(tls).ln() + of_syn.ln()
    }

    /// The log of how likely a user has a profile of the window.
    pub(crate) fn log(&self, profile: &Profile) -> f64 {
        let ([tls, syn], log) = self.kinds[profile.kind.0 as usize];
        let of_users = |counted: &Counted, number| (number as usize) < counted.sources.len();
        let keys =
            [of_users(&self.users.tls, tls).then_some(tls), of_users(&self.users.syn, syn).then_some(syn)];
        log + self.users.log_with_keys(profile, keys)
    }

    /// The same for the profiles of clean windows, in their order.
    pub(crate) fn clean_logs(&self) -> impl Iterator<Item = f64> {
        let of_profiles = self.users.profiles.iter().zip(&self.users.logs);
        of_profiles.map(|((profile, _), log)| self.kinds[profile.kind.0 as usize].1 + log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mixture::tests::{counted, kinds, user},
        observation::{Kind, ServiceId},
    };

    /// What is kept of clean windows says the same of a profile as what is found out of it in a window.
    #[test]
    fn what_is_kept_is_what_is_found() {
        let profiles = counted((0..5000).map(user));
        let clean = profiles.iter().map(|(profile, count)| (*profile, f64::from(*count))).collect();
        let mut kinds = kinds();
        let users = Users::of_profiles(clean, &kinds);
        // The window has a key that clean windows do not have.
        let other = kinds.number(Kind { service: ServiceId(0), syn_key: 7, tls_key: 99 });
        let stranger = Profile { kind: other, ..user(1) };
        let window = [profiles, vec![(stranger, 1)]].concat();
        let keyed = Keyed::of(&users, &window, &kinds);
        assert_eq!(keyed.lengths, [4, 2]);
        for ((profile, _), log) in users.profiles().iter().zip(keyed.clean_logs()) {
            assert_eq!(keyed.log(profile), log, "{profile:?}");
        }
        let shares: f64 = (0..keyed.lengths[0]).map(|tls| keyed.share_of_tls(tls)).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        let likelier = keyed.log(&user(1)) - keyed.log(&stranger);
        assert!(likelier > 5.0, "a user with a user's key is likelier by {likelier}");
        assert_eq!(users.sources(), 5000.0);
        assert_eq!(users.sources_with(Key { tls_key: 99, syn_key: 7 }), 0.0);
        let of_keys: f64 = [(1, 7), (2, 7), (3, 8)]
            .map(|(tls_key, syn_key)| users.sources_with(Key { tls_key, syn_key }))
            .iter()
            .sum();
        assert_eq!(of_keys, 5000.0);
    }
}
