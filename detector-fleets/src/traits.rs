//! What the members of a fleet have in common.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    family::{self, Family},
    interval::Kinds,
    limits::KINDS_OF_FLEET_MAX,
    profile::{Active, Population},
    source::Source,
    users::Users,
};

/// The share of a service's sources that a key may match at most, if clients are to be known by it alone.
pub const SELECTIVE_MAX: f64 = 0.001;

/// The share of members that a key matches, at least.
const KEY_OF_MEMBERS_MIN: f64 = 0.5;

/// The share of members behind proxies from which on a fleet is.
pub const PROXIED_MIN: f64 = 0.5;

/// Minutes of an hour in which sources come that keep to a time.
pub const SYNCHRONOUS_MINUTES: usize = 3;

/// Fingerprints of a client that nearly nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// That of the ClientHello.
    pub tls_key: u64,
    /// That of the SYN.
    pub syn_key: u64,
}

/// What members have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traits {
    /// Fingerprints by their share of the members whose ClientHello is known, the most frequent first, at most [`KINDS_OF_FLEET_MAX`].
    pub keys: Vec<(Key, f64)>,
    /// Members whose ClientHello is known.
    pub keyed: u32,
    /// Shares of the categories of [`Family::Path`] and [`Family::Size`], which are the same in windows of all lengths.
    paths: Box<[f64]>,
    sizes: Box<[f64]>,
    /// The share of members behind a proxy, of those whose handshakes were timed.
    pub proxied: f64,
    /// Members whose handshakes were timed.
    pub timed: u32,
    /// Bytes that half of the responses have at least, rounded down to a power of two: the median over members of their most frequent
    /// size. `None`: no exchange of a member was seen.
    pub response_bytes: Option<u32>,
    /// Members of whom an exchange was seen.
    pub sized: u32,
    /// Members in the /24 or /48 of a member, itself among them, at the median.
    pub neighbours: u32,
    /// Exchanges of a member in the window, at the median.
    pub exchanges: u32,
    /// The share of first and last times of members that are in the same [`SYNCHRONOUS_MINUTES`] of an hour.
    pub synchrony: f64,
}

impl Traits {
    /// Those of members of a population; `hidden` are further ones of whom only is known that they are there. `None`: there are none.
    pub fn of(members: &[Active], hidden: &[Source], population: &Population, kinds: &Kinds) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let mut paths = vec![0.0; Family::Path.categories()];
        let mut sizes = vec![0.0; Family::Size.categories()];
        let mut keys: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let (mut keyed, mut timed, mut proxied) = (0, 0, 0);
        let mut neighbours: HashMap<(bool, u64), u32, RandomState> = HashMap::default();
        let neighbourhood = |source: Source| (source.is_v4(), source.neighbourhood());
        for source in hidden {
            *neighbours.entry(neighbourhood(*source)).or_insert(0) += 1;
        }
        let mut responses = Vec::with_capacity(members.len());
        let share = 1.0 / members.len() as f64;
        for active in members {
            let Some((profile, _)) = population.profiles.get(active.profile as usize) else { continue };
            let kind = kinds.kind(profile.kind);
            if kind.tls_key != 0 {
                *keys.entry((kind.tls_key, kind.syn_key)).or_insert(0) += 1;
                keyed += 1;
            }
            let [path, size] =
                [Family::Path, Family::Size].map(|of| usize::from(profile.categories[of as usize]));
            timed += u32::from(Family::Path.evidence(path).is_some());
            proxied += u32::from(family::is_proxied(path));
            paths[path] += share;
            sizes[size] += share;
            responses.extend(family::response_bin(size));
            *neighbours.entry(neighbourhood(active.source)).or_insert(0) += 1;
        }
        let part = |of: u32, all: u32| f64::from(of) / f64::from(all.max(1));
        let mut keys: Vec<_> = keys
            .into_iter()
            .map(|((tls_key, syn_key), members)| (Key { tls_key, syn_key }, part(members, keyed)))
            .collect();
        keys.sort_by(|one, other| other.1.total_cmp(&one.1));
        keys.truncate(KINDS_OF_FLEET_MAX);
        let sized = responses.len() as u32;
        Some(Self {
            keys,
            keyed,
            proxied: part(proxied, timed),
            timed,
            paths: paths.into(),
            sizes: sizes.into(),
            response_bytes: median(responses).map(|bin| 64 << bin),
            sized,
            neighbours: median(
                members.iter().map(|active| neighbours[&neighbourhood(active.source)]).collect(),
            )
            .unwrap_or(0),
            exchanges: median(members.iter().map(|active| active.exchanges).collect()).unwrap_or(0),
            synchrony: synchrony(members.iter()),
        })
    }

    /// These, with what was known before of what is known of fewer than so many members now: a throttled fleet makes no handshakes that could be
    /// timed and gets no answers, which does not make it another one.
    pub fn remembering(self, before: &Self, enough: u32) -> Self {
        let is_hidden = |now: u32, before: u32| now < enough.min(before);
        let mut traits = self;
        if is_hidden(traits.keyed, before.keyed) {
            traits.keys.clone_from(&before.keys);
            traits.keyed = before.keyed;
        }
        if is_hidden(traits.timed, before.timed) {
            traits.paths.clone_from(&before.paths);
            (traits.proxied, traits.timed) = (before.proxied, before.timed);
        }
        if is_hidden(traits.sized, before.sized) {
            traits.sizes.clone_from(&before.sizes);
            (traits.response_bytes, traits.sized) = (before.response_bytes, before.sized);
        }
        traits
    }

    /// Whether most come through proxies, of those whose handshakes were timed.
    pub fn is_proxied(&self) -> bool {
        self.proxied >= PROXIED_MIN
    }

    /// How much two have in common, from 0 to 1: the Bhattacharyya coefficients of keys, ways and sizes (Bhattacharyya 1943), multiplied.
    pub fn similarity(&self, other: &Self) -> f64 {
        let of = |one: &[f64], other: &[f64]| {
            one.iter().zip(other).map(|(one, other)| (one * other).sqrt()).sum::<f64>()
        };
        let share = |key: &Key| other.keys.iter().find(|(of, _)| of == key).map_or(0.0, |(_, share)| *share);
        let keys: f64 = self.keys.iter().map(|(key, own)| (own * share(key)).sqrt()).sum();
        keys * of(&self.paths, &other.paths) * of(&self.sizes, &other.sizes)
    }

    /// The key that members are known by: most of them have it, and nearly nobody had it in clean windows.
    pub fn key(&self, users: &Users) -> Option<Key> {
        let (key, share) = *self.keys.first()?;
        let is_known = key.tls_key != 0 && !users.is_empty();
        let is_rare = users.sources_with(key) <= SELECTIVE_MAX * users.sources();
        (is_known && share >= KEY_OF_MEMBERS_MIN && is_rare).then_some(key)
    }
}

/// The share of first and last times in those minutes of an hour that have most of them.
pub(crate) fn synchrony<'a>(sources: impl Iterator<Item = &'a Active>) -> f64 {
    let mut minutes = [0_u32; 60];
    for minute in sources.flat_map(|active| [active.first_minute, active.last_minute]) {
        minutes[usize::from(minute % 60)] += 1;
    }
    let times: u32 = minutes.iter().sum();
    let of_span =
        |first: usize| (first..first + SYNCHRONOUS_MINUTES).map(|minute| minutes[minute % 60]).sum::<u32>();
    let most = (0..60).map(of_span).max().unwrap_or(0);
    f64::from(most) / f64::from(times.max(1))
}

/// The lower median; `None` of nothing.
fn median(mut of: Vec<u32>) -> Option<u32> {
    let middle = of.len().checked_sub(1)? / 2;
    Some(*of.select_nth_unstable(middle).1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        block::{Block, Sizes},
        family::tests::block,
        observation::{Kind, ServiceId},
        profile::{Clean, populations},
        source::Source,
    };

    const WEB: ServiceId = ServiceId(0);

    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for tls_key in [11, 12] {
            kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
        }
        kinds
    }

    /// Sources at so many addresses from each other, behind proxies or not, with answers of a bin.
    pub(crate) fn traits(apart: u32, is_proxied: bool, response_bin: u32, tls: u32) -> Traits {
        let kinds = kinds();
        let window: Vec<_> = (0..100_u32)
            .map(|number| Block {
                source: Source::of_v4((number * apart).into()),
                kind: crate::block::KindId(tls),
                first_minute: (number % 60) as u16,
                last_minute: (number % 60) as u16,
                ..block(
                    1 + (number / 40) as u16,
                    0,
                    if is_proxied { [4, 8, 8] } else { [4, 2, 4] },
                    Sizes(1 << (4 * response_bin)),
                )
            })
            .collect();
        let population = &populations(&window, &kinds, |_| true)[&WEB];
        Traits::of(&population.sources, &[], population, &kinds).expect("there are members")
    }

    #[test]
    fn members_are_summed_up() {
        let near = traits(1, true, 7, 0);
        assert_eq!((near.neighbours, near.exchanges, near.response_bytes), (100, 2, Some(8192)));
        assert!((near.proxied - 1.0).abs() < 1e-9);
        let far = traits(256, false, 2, 0);
        assert_eq!((far.neighbours, far.response_bytes), (1, Some(256)));
        assert!(far.proxied < 1e-9);
        assert_eq!(Traits::of(&[], &[], &Population::default(), &kinds()), None);
    }

    /// A fleet whose connections are refused: of the same sources nothing is known.
    #[test]
    fn what_a_throttle_hides_is_not_forgotten() {
        let before = traits(1, true, 7, 0);
        assert_eq!((before.keyed, before.timed, before.sized), (100, 100, 100));
        let hidden = Traits {
            keys: Vec::new(),
            keyed: 0,
            proxied: 0.0,
            timed: 3,
            response_bytes: None,
            sized: 0,
            ..before.clone()
        };
        assert_eq!(hidden.remembering(&before, 25), before);
        let straight = traits(1, false, 2, 1);
        assert_eq!(straight.clone().remembering(&before, 25), straight, "what is seen counts");
        let few = Traits { keyed: 10, timed: 10, sized: 10, ..straight.clone() };
        let fewer = Traits { keyed: 5, timed: 5, sized: 5, ..before };
        assert_eq!(few.clone().remembering(&fewer, 25), few, "less was known before");
    }

    #[test]
    fn who_keeps_to_a_minute_is_synchronous() {
        let kinds = kinds();
        let of = |minutes: fn(u32) -> [u16; 2]| {
            let window: Vec<_> = (0..100_u32)
                .map(|number| {
                    let [first_minute, last_minute] = minutes(number);
                    let block = block(1, 0, [4, 2, 4], Sizes(1));
                    Block { source: Source::of_v4(number.into()), first_minute, last_minute, ..block }
                })
                .collect();
            let population = &populations(&window, &kinds, |_| true)[&WEB];
            Traits::of(&population.sources, &[], population, &kinds).map(|traits| traits.synchrony)
        };
        assert_eq!(
            of(|number| [59 + (number % 2) as u16, 300 + (number % 2) as u16]),
            Some(1.0),
            "each full hour"
        );
        assert_eq!(of(|number| [(number % 60) as u16, (120 + number) as u16]), Some(0.06));
    }

    #[test]
    fn those_of_one_actor_are_alike_wherever_they_are() {
        let one = traits(1, true, 7, 0);
        assert!((one.similarity(&traits(999, true, 7, 0)) - 1.0).abs() < 1e-9);
        for other in [traits(1, false, 7, 0), traits(1, true, 6, 0), traits(1, true, 7, 1)] {
            assert!(one.similarity(&other) < 1e-9);
        }
    }

    #[test]
    fn a_key_is_one_that_nearly_nobody_had() {
        let kinds = kinds();
        let clean = |others: u32| {
            let window: Vec<_> = (0..10_000_u32)
                .map(|number| Block {
                    source: Source::of_v4(number.into()),
                    kind: crate::block::KindId(u32::from(number >= others)),
                    ..block(1, 0, [4, 2, 4], Sizes(1))
                })
                .collect();
            let clean = Clean::of(&populations(&window, &kinds, |_| true)[&WEB], usize::MAX);
            Users::of(&[&clean], &kinds)
        };
        let traits = traits(1, true, 7, 0);
        assert_eq!(traits.key(&clean(10)), Some(Key { tls_key: 11, syn_key: 9 }));
        assert_eq!(traits.key(&clean(11)), None);
        assert_eq!(traits.key(&Users::default()), None, "nothing is known of others");
    }
}
