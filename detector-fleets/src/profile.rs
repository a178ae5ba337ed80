//! What is asked of a source before it is said whether it belongs to a fleet: its profile in a window, and those of windows in which
//! nothing was found.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    block::{Block, KindId},
    family::Family,
    interval::Kinds,
    limits::{CLEAN_PROFILES_MAX, CLEAN_WINDOWS_MAX},
    observation::ServiceId,
    seen::SeenFor,
    source::Source,
};

/// What a profile says beside its kind and whether it is new: a category of each family, and how many neighbours there are.
pub const FEATURES: usize = Family::ALL.len() + 1;

/// The place of neighbours among features, after the families.
pub const NEIGHBOURS: usize = Family::ALL.len();

/// Classes of neighbours: 1 source in its /24 or /48, itself; 2; 3–4; 5–8; 9–16; more.
const NEIGHBOUR_CLASSES: usize = 6;

/// How many categories a feature has.
pub const fn categories_of(feature: usize) -> usize {
    if feature == NEIGHBOURS { NEIGHBOUR_CLASSES } else { Family::ALL[feature].categories() }
}

/// Whether a feature goes with the SYN of a client and not with its ClientHello. Whatever ends TCP sent that: those behind a privacy relay have
/// the relay's way and its neighbours.
pub const fn goes_with_syn(feature: usize) -> bool {
    feature == Family::Path as usize || feature == NEIGHBOURS
}

/// The class of so many sources.
fn neighbour_class(sources: u32) -> u8 {
    let doublings = u32::BITS - sources.saturating_sub(1).leading_zeros();
    (doublings as usize).min(NEIGHBOUR_CLASSES - 1) as u8
}

/// What a source did at a service in a window, by categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Its client with the most connections.
    pub kind: KindId,
    /// Whether it was new there, see [`Block::is_new`].
    pub is_new: bool,
    /// The category of each family, by all that it did there.
    pub categories: [u16; Family::ALL.len()],
    /// The class of how many sources of its /24 or /48 were active there and are new if it is, or known if it is.
    pub neighbours: u8,
}

const _: () = assert!(size_of::<Profile>() == 12);

impl Profile {
    /// That of a source by its clients at one service. `None`: it has none.
    pub fn of<'a>(clients: impl Iterator<Item = &'a Block> + Clone) -> Option<(Self, Block)> {
        let rank = |client: &&Block| (client.connections, client.exchanges, u32::MAX - client.kind.0);
        let first = clients.clone().max_by_key(rank)?;
        let mut did = *first;
        clients.filter(|client| client.kind != first.kind).for_each(|client| did.add_of_source(client));
        let categories = Family::ALL.map(|family| family.category(&did) as u16);
        Some((Self { kind: first.kind, is_new: did.is_new(), categories, neighbours: 0 }, did))
    }

    /// Its category of each feature.
    pub fn features(&self) -> [u16; FEATURES] {
        let [homogeneity, path, size] = self.categories;
        [homogeneity, path, size, self.neighbours.into()]
    }
}

/// A source that was active in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Who.
    pub source: Source,
    /// Number of its profile, see [`Population::profiles`].
    pub profile: u32,
    /// Exchanges at the service.
    pub exchanges: u32,
    /// Connections there, at most 65,535.
    pub connections: u16,
    /// Different ClientHellos there, those over QUIC by their shape, at most 255. Unknown ones do not count.
    pub tls_keys: u8,
    /// First minute of the window in which it was active.
    pub first_minute: u16,
    /// Last one.
    pub last_minute: u16,
    /// For how long it had been seen at the service then.
    pub seen_for: SeenFor,
    /// Number of its first block in the window, and how many it has: those at other services, too.
    first_block: u32,
    blocks: u16,
}

/// The sources that were active at a service in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Profiles, each once, and how many sources have it.
    pub profiles: Vec<(Profile, u32)>,
    /// The sources by address.
    pub sources: Vec<Active>,
}

const _: () = assert!(size_of::<Active>() == 32);

impl Active {
    /// Whether it was seen at the service before a time, in a window whose minutes are counted from `start_s`.
    pub fn was_seen_before(&self, time_s: u64, start_s: u64) -> bool {
        let last_s = start_s + u64::from(self.last_minute) * 60;
        last_s.saturating_sub(self.seen_for.seconds()) < time_s
    }
}

impl Population {
    /// Sources of which nothing was seen but that they came: no ClientHello, no handshake that was timed and no exchange that was followed, in
    /// their order. What is not known of them has one cause, and would count as often as there are features. None where most sources have
    /// no ClientHello: there they are as users are.
    pub fn unseen(&self, kinds: &Kinds) -> Vec<Source> {
        let has_key = |profile: &Profile| kinds.kind(profile.kind).tls_key != 0;
        let keyed = self.profiles.iter().filter(|(profile, _)| has_key(profile));
        if keyed.map(|(_, count)| *count as usize).sum::<usize>() * 2 < self.sources.len() {
            return Vec::new();
        }
        let is_seen = |profile: &Profile| {
            let is_evident =
                |family: Family| family.evidence(profile.categories[family as usize].into()).is_some();
            has_key(profile) || is_evident(Family::Path) || is_evident(Family::Size)
        };
        let seen: Vec<_> = self.profiles.iter().map(|(profile, _)| is_seen(profile)).collect();
        let unseen = self.sources.iter().filter(|active| !seen[active.profile as usize]);
        unseen.map(|active| active.source).collect()
    }

    /// Leaves out sources, which are given in their order.
    pub fn leave_out(&mut self, sources: &[Source]) {
        let Self { profiles, sources: all } = self;
        all.retain(|active| {
            let is_kept = sources.binary_search(&active.source).is_err();
            if !is_kept && let Some((_, count)) = profiles.get_mut(active.profile as usize) {
                *count -= 1;
            }
            is_kept
        });
    }

    /// The blocks of a source at a service, in the window that the population is of.
    pub fn blocks<'a>(
        active: &Active,
        window: &'a [Block],
        kinds: &'a Kinds,
        service: ServiceId,
    ) -> impl Iterator<Item = &'a Block> + Clone {
        let from = active.first_block as usize;
        let blocks = window.get(from..from + usize::from(active.blocks)).unwrap_or_default();
        blocks.iter().filter(move |block| kinds.kind(block.kind).service == service)
    }
}

/// The populations of a window by services, by those of its blocks that count. `window` is in the order of sources and kinds.
pub fn populations(
    window: &[Block],
    kinds: &Kinds,
    counts: impl Fn(&Block) -> bool,
) -> BTreeMap<ServiceId, Population> {
    let mut found: BTreeMap<ServiceId, (Population, HashMap<Profile, u32, RandomState>)> = BTreeMap::new();
    let mut first_block = 0;
    let (mut near, mut services) = (Vec::new(), Vec::new());
    // Sources are in the order of their addresses, so neighbours follow each other.
    for neighbours in window.chunk_by(|one, next| is_near(one.source, next.source)) {
        near.clear();
        for blocks in neighbours.chunk_by(|one, next| one.source == next.source) {
            services.clear();
            let counted = blocks.iter().filter(|block| counts(block));
            services.extend(counted.map(|block| kinds.kind(block.kind).service));
            services.sort_unstable();
            services.dedup();
            near.extend(services.iter().filter_map(|&service| {
                let clients = |block: &&Block| kinds.kind(block.kind).service == service && counts(block);
                active(service, blocks.iter().filter(clients), [first_block, blocks.len() as u32], kinds)
            }));
            first_block += blocks.len() as u32;
        }
        let mut alike: BTreeMap<(ServiceId, bool), u32> = BTreeMap::new();
        for (service, profile, _) in &near {
            *alike.entry((*service, profile.is_new)).or_insert(0) += 1;
        }
        for (service, profile, active) in &near {
            let neighbours = neighbour_class(alike[&(*service, profile.is_new)]);
            let profile = Profile { neighbours, ..*profile };
            let (population, numbers) = found.entry(*service).or_default();
            let next = population.profiles.len() as u32;
            let number = *numbers.entry(profile).or_insert(next);
            if number == next {
                population.profiles.push((profile, 0));
            }
            population.profiles[number as usize].1 += 1;
            population.sources.push(Active { profile: number, ..*active });
        }
    }
    found.into_iter().map(|(service, (population, _))| (service, population)).collect()
}

fn is_near(one: Source, other: Source) -> bool {
    one.is_v4() == other.is_v4() && one.neighbourhood() == other.neighbourhood()
}

/// What a source was at a service, by its clients there. Its blocks of all services are so many from a number in the window on; its neighbours and
/// the number of its profile are said later.
fn active<'a>(
    service: ServiceId,
    clients: impl Iterator<Item = &'a Block> + Clone,
    [first_block, blocks]: [u32; 2],
    kinds: &Kinds,
) -> Option<(ServiceId, Profile, Active)> {
    let (profile, did) = Profile::of(clients.clone())?;
    let mut tls_keys: Vec<_> =
        clients.map(|block| kinds.kind(block.kind).tls_key).filter(|key| *key != 0).collect();
    tls_keys.sort_unstable();
    tls_keys.dedup();
    let active = Active {
        source: did.source,
        profile: 0,
        exchanges: did.exchanges.into(),
        connections: did.connections,
        tls_keys: u8::try_from(tls_keys.len()).unwrap_or(u8::MAX),
        first_minute: did.first_minute,
        last_minute: did.last_minute,
        seen_for: did.seen_for,
        first_block,
        blocks: u16::try_from(blocks).unwrap_or(u16::MAX),
    };
    Some((service, profile, active))
}

/// Profiles of a window in which nothing was found, of all its sources or of every so manieth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clean {
    /// Profiles, each once, in their order, and how many sources had it; estimated where not all were kept.
    pub profiles: Box<[(Profile, f32)]>,
    /// Connections by kind, in their order, each source's at most 65,535 and under its kind with the most: of all sources, since one may make
    /// most of them.
    pub connections: Box<[(KindId, f32)]>,
}

impl Clean {
    /// Of a population: so many profiles at most. Sources are taken by address at even distances, so that the same window leaves the
    /// same behind.
    pub fn of(population: &Population, most: usize) -> Self {
        let step = population.sources.len().div_ceil(most.max(1)).max(1);
        let mut counts = vec![0_u32; population.profiles.len()];
        population.sources.iter().step_by(step).for_each(|active| counts[active.profile as usize] += 1);
        let of_profiles = population.profiles.iter().zip(counts).filter(|(_, count)| *count > 0);
        let mut profiles: Box<[_]> =
            of_profiles.map(|((profile, _), count)| (*profile, count as f32 * step as f32)).collect();
        profiles.sort_unstable_by_key(|(profile, _)| *profile);
        let mut connections: BTreeMap<KindId, u64> = BTreeMap::new();
        for active in &population.sources {
            let (profile, _) = population.profiles[active.profile as usize];
            *connections.entry(profile.kind).or_insert(0) += u64::from(active.connections);
        }
        let connections = connections.into_iter().map(|(kind, count)| (kind, count as f32)).collect();
        Self { profiles, connections }
    }

    /// Those of all services of a window, [`CLEAN_PROFILES_MAX`] / [`CLEAN_WINDOWS_MAX`] profiles together at most.
    pub fn of_all(populations: &BTreeMap<ServiceId, Population>) -> BTreeMap<ServiceId, Self> {
        let most = CLEAN_PROFILES_MAX / CLEAN_WINDOWS_MAX / populations.len().max(1);
        populations.iter().map(|(service, population)| (*service, Self::of(population, most))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{NOT_TIMED, Sizes},
        family::tests::block,
        observation::Kind,
    };

    const WEB: ServiceId = ServiceId(0);
    const API: ServiceId = ServiceId(1);

    #[test]
    fn a_source_has_one_profile_for_each_service_by_all_that_it_did_there() {
        let mut kinds = Kinds::default();
        let mut kind = |service, tls_key| kinds.number(Kind { service, syn_key: 9, tls_key });
        let (fresh, api, resumed) = (kind(WEB, 1), kind(API, 1), kind(WEB, 2));
        let did = |kind, exchanges, connections, times| Block {
            kind,
            connections,
            ..block(exchanges, 0, times, Sizes(1))
        };
        let window = [
            did(fresh, 2, 1, [6, 8, 9]),
            did(api, 40, 9, [NOT_TIMED; 3]),
            did(resumed, 2, 3, [6, 2, 6]),
            Block { source: Source::of_v4(8.into()), ..did(resumed, 1, 1, [6, 2, 6]) },
        ];
        let found = populations(&window, &kinds, |_| true);
        let of_web = &found[&WEB];
        let (profile, count) = of_web.profiles[0];
        assert_eq!((profile.kind, count), (resumed, 1), "the client with the most connections");
        let both = Block { connections: 4, ..block(4, 0, [6, 2, 6], Sizes(2)) };
        assert_eq!(profile.categories, Family::ALL.map(|family| family.category(&both) as u16));
        assert_eq!(of_web.sources.iter().map(|active| active.exchanges).collect::<Vec<_>>(), [4, 1]);
        let clients = of_web.sources.iter().map(|active| (active.connections, active.tls_keys));
        assert_eq!(clients.collect::<Vec<_>>(), [(4, 2), (1, 1)]);
        let blocks = Population::blocks(&of_web.sources[0], &window, &kinds, WEB);
        assert_eq!(blocks.map(|block| block.kind).collect::<Vec<_>>(), [fresh, resumed]);
        assert_eq!(found[&API].sources.len(), 1);
        assert_eq!(populations(&window, &kinds, |block| kinds.kind(block.kind).service == API).len(), 1);
    }

    #[test]
    fn neighbours_are_those_of_the_same_newness_in_a_prefix() {
        let mut kinds = Kinds::default();
        let mut kind = |service| kinds.number(Kind { service, syn_key: 9, tls_key: 1 });
        let (web, api) = (kind(WEB), kind(API));
        let did = |address: u32, kind, is_new| Block {
            source: Source::of_v4(address.into()),
            kind,
            seen_for: if is_new { SeenFor::NEW } else { SeenFor::KNOWN },
            ..block(1, 0, [6, 2, 6], Sizes(1))
        };
        let new = (0..5).map(|host| did(host, web, true));
        let others = [did(5, web, false), did(6, web, false), did(7, api, true), did(256, web, true)];
        let window: Vec<_> = new.chain(others).collect();
        let found = populations(&window, &kinds, |_| true);
        let of = |service| {
            let population: &Population = &found[&service];
            let class = |active: &Active| population.profiles[active.profile as usize].0.neighbours;
            population.sources.iter().map(class).collect::<Vec<_>>()
        };
        assert_eq!(of(WEB), [3, 3, 3, 3, 3, 1, 1, 0], "five are new, two are known, one is elsewhere");
        assert_eq!(of(API), [0]);
        assert_eq!(
            [1, 2, 3, 4, 5, 8, 9, 16, 17, 60_000].map(neighbour_class),
            [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        );
    }

    #[test]
    fn of_whom_nothing_was_seen_is_told_and_left_out() {
        let mut kinds = Kinds::default();
        let mut kind = |tls_key| kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
        let (known, unknown) = (kind(1), kind(0));
        let did = |address: u32, kind, times, sizes| Block {
            source: Source::of_v4(address.into()),
            kind,
            ..block(1, 0, times, Sizes(sizes))
        };
        let mut window = vec![
            did(0, unknown, [NOT_TIMED; 3], 0),
            did(600, unknown, [6, 2, 6], 0),
            did(900, unknown, [NOT_TIMED; 3], 1),
            did(1200, unknown, [NOT_TIMED; 3], 0),
        ];
        let of = |window: &[Block]| populations(window, &kinds, |_| true).remove(&WEB).expect("sources");
        assert_eq!(of(&window).unseen(&kinds), [], "nobody says hello there");
        window.extend((0..4).map(|number| did(3000 + 300 * number, known, [NOT_TIMED; 3], 0)));
        let mut population = of(&window);
        let unseen = population.unseen(&kinds);
        assert_eq!(unseen.iter().map(|source| source.number()).collect::<Vec<_>>(), [0, 1200]);
        population.leave_out(&unseen);
        let counts: Vec<_> = population.profiles.iter().map(|(_, count)| *count).collect();
        assert_eq!((population.sources.len(), counts), (6, vec![0, 1, 1, 4]));
    }

    #[test]
    fn clienthellos_are_counted_once_whatever_the_syn_and_unknown_ones_are_not() {
        let mut kinds = Kinds::default();
        let mut kind = |syn_key, tls_key| kinds.number(Kind { service: WEB, syn_key, tls_key });
        let window = [kind(9, 1), kind(8, 1), kind(9, 2), kind(9, 0)]
            .map(|kind| Block { kind, ..block(1, 0, [6, 2, 6], Sizes(1)) });
        assert_eq!(populations(&window, &kinds, |_| true)[&WEB].sources[0].tls_keys, 2);
    }

    #[test]
    fn what_is_kept_of_a_window_has_a_bound_and_stands_for_all() {
        let mut kinds = Kinds::default();
        let kind = kinds.number(Kind { service: WEB, syn_key: 9, tls_key: 1 });
        let window: Vec<_> = (0..1000_u32)
            .map(|number| Block {
                source: Source::of_v4(number.into()),
                kind,
                ..block(1 << (number % 7), 0, [6, 2, 6], Sizes(1))
            })
            .collect();
        let population = &populations(&window, &kinds, |_| true)[&WEB];
        for most in [1000, 300, 5] {
            let clean = Clean::of(population, most);
            let sum: f32 = clean.profiles.iter().map(|(_, count)| count).sum();
            assert!((1000.0..=1200.0).contains(&sum), "{sum} of {most}");
            assert!(clean.profiles.len() <= most);
        }
    }
}
