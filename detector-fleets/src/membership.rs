//! Who belongs to what an alarm saw: all sources of a service are asked of which something was seen, and the cut is such that clean windows have nearly none above it.
//!
//! An alarm is about cells, in which there are users, too, and beside which there are members. So the new sources of alarmed cells are
//! where a fleet begins, each with the part that is too many ([`crate::mixture`]). The mixture's own odds are not calibrated for small
//! fleets; how many users would be taken for members is counted in clean windows.
//!
//! Memory: for each active source 32 bytes and its cells in 16 more, and for each different profile of the window, and of clean ones, about
//! 60 bytes and 16 for each fleet; 1 M sources with 300,000 profiles take 90 MB while a look takes.

use crate::{
    alarm::Finding,
    beginnings::{Beginnings, bits_of},
    block::Block,
    cut::{Clean, Cut, Scores},
    family::{self, Family},
    fleet::FleetId,
    interval::Kinds,
    limits::{FLEETS_OF_LOOK_MAX, MEMBERS_MAX, SUSPECTS_MAX},
    mixture::Mixture,
    observation::ServiceId,
    profile::{Active, Population},
    projection::Projections,
    source::Source,
    users::Users,
};

/// Users that are expected above the cut, by members.
pub const INNOCENTS_MAX: f64 = 0.003;

/// The same of those that were no members before, by themselves: above the same cut of all, so that all together have no more.
pub const INNOCENTS_OF_NEWCOMERS_MAX: f64 = 0.03;

/// The same of the lower cut, above which sources are suspects.
pub const INNOCENTS_OF_SUSPECTS_MAX: f64 = 0.2;

/// A source that was at the service so long before a fleet came is none of its, whatever it does now. It is known to a few hours only when either came.
/// Of a fleet that is not known yet nobody is asked who was there so long before the window began.
const EARLIER_S: u64 = 12 * 3600;

/// Odds that a suspect is a member, at least.
const SUSPECT_ODDS_MIN: f64 = 0.1;

/// What is asked about a window.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where.
    pub service: ServiceId,
    /// From when on minutes of the window are counted, seconds since the Unix epoch.
    pub start_s: u64,
    /// Its blocks, in the order of sources and kinds.
    pub window: &'a [Block],
    /// Who was active at the service and is asked.
    pub population: &'a Population,
    /// Users, as they were in windows of the same length in which nothing was found.
    pub users: &'a Users,
    /// Cells with an alarm.
    pub alarms: &'a [&'a Finding],
    /// Fleets that are known.
    pub known: &'a [Known],
    /// Kinds of client.
    pub kinds: &'a Kinds,
    /// The cells that they are in.
    pub projections: &'a Projections,
}

/// A fleet that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub id: FleetId,
    /// When its first members had come, seconds since the Unix epoch.
    pub first_seen_s: u64,
    /// Its members, in the order of sources.
    pub members: Vec<Source>,
    /// Whether it comes through proxies.
    pub is_proxied: bool,
}

/// What was found: a fleet, or the part of one that was in the window.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which of the alarms it is about.
    pub alarms: Vec<usize>,
    /// Which of the known fleets.
    pub known: Vec<FleetId>,
    /// Sources above the cut.
    pub members: Vec<Active>,
    /// Sources above the lower cut only.
    pub suspects: Vec<Active>,
    /// Sources above the cut that are no members since they were there before, in their order.
    pub earlier: Vec<Source>,
    /// Users that are expected among the members.
    pub innocents: f64,
    /// The share of users' connections that is expected to be theirs.
    pub collateral: f64,
    /// Users of the window.
    pub users: f64,
    /// The share of the times of what is too many in the alarmed cells that are in the same minutes of an hour.
    pub synchrony: f64,
}

impl Group {
    /// Both together, which are parts of the same fleet: no source is in both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.alarms.extend(other.alarms);
        self.known.extend(other.known);
        self.members.extend(other.members);
        self.suspects.extend(other.suspects);
        self.earlier.extend(other.earlier);
        self.members.sort_unstable_by_key(|active| active.source);
        self.suspects.sort_unstable_by_key(|active| active.source);
        self.earlier.sort_unstable();
        self.innocents += other.innocents;
        self.collateral += other.collateral;
        self.synchrony = self.synchrony.max(other.synchrony);
        self
    }
}

/// Groups what alarms and known fleets have in common, and finds the members of each. Nothing where there is nothing to compare with.
pub fn attribute(question: &Question<'_>) -> Vec<Group> {
    if question.users.is_empty() || question.population.sources.is_empty() {
        return Vec::new();
    }
    let beginnings = Beginnings::of(question);
    let mut groups = beginnings.groups();
    groups.truncate(FLEETS_OF_LOOK_MAX);
    let weighted = beginnings.weighted(&groups, question);
    let mixture = Mixture::of(&question.population.profiles, question.users, weighted, question.kinds);
    divide(question, &beginnings, &groups, &mixture)
}

/// From which scores on sources are taken for what.
struct Cuts {
    members: Cut,
    /// Who is no member yet. It is asked at each look, and so gets as many chances to be taken for one; and of those that come late users are a
    /// larger part. So they have a bound by themselves, beside that of all together.
    newcomers: Cut,
    suspects: Cut,
}

/// Gives each source above the cut of a group to the group that it is likeliest of.
fn divide(
    question: &Question<'_>,
    beginnings: &Beginnings,
    groups: &[u128],
    mixture: &Mixture,
) -> Vec<Group> {
    let profiles = &question.population.profiles;
    let odds: Vec<_> = (0..groups.len()).map(|group| mixture.odds(group)).collect();
    let likeliest: Vec<usize> = (0..profiles.len())
        .map(|place| {
            let of = |group: &usize| mixture.scores[*group][place] + odds[*group];
            (0..groups.len())
                .max_by(|one, other| of(one).total_cmp(&of(other)).then(other.cmp(one)))
                .unwrap_or(0)
        })
        .collect();
    let members: f64 = mixture.fleets.iter().map(|fleet| fleet.sources).sum();
    let users = (mixture.sources - members).max(0.0);
    let newcomers = beginnings.newcomers(question.population);
    let known = |bit: usize| question.known.get(bit.checked_sub(beginnings.alarms.len())?);
    let came_s: Vec<u64> = groups
        .iter()
        .map(|group| bits_of(*group).filter_map(known).map(|known| known.first_seen_s).min())
        .map(|known| known.unwrap_or(question.start_s))
        .collect();
    let cuts: Vec<Cuts> = (0..groups.len())
        .map(|group| {
            let of_group = || (0..profiles.len()).filter(|&place| likeliest[place] == group);
            let of_window = of_group().map(|place| (mixture.scores[group][place], profiles[place].1.into()));
            let of_newcomers =
                of_group().map(|place| (mixture.scores[group][place], newcomers[place].into()));
            let clean = question.users.profiles();
            let of_clean = mixture.clean_scores[group].iter().zip(clean).map(|(score, (profile, count))| {
                let connections = family::volume_of(profile.categories[Family::Homogeneity as usize].into());
                Clean { score: *score, sources: *count, connections: connections * count }
            });
            let least = SUSPECT_ODDS_MIN.ln() - odds[group];
            let scores = Scores::of(of_window, of_clean, users, least);
            let suspects = scores.cut(least, INNOCENTS_OF_SUSPECTS_MAX, f64::INFINITY);
            let members = scores.members(-odds[group], INNOCENTS_MAX);
            let newcomers = scores.of_others(of_newcomers).members(members.score, INNOCENTS_OF_NEWCOMERS_MAX);
            Cuts { members, newcomers, suspects }
        })
        .collect();
    let mut found: Vec<Group> = groups
        .iter()
        .zip(&cuts)
        .map(|(group, cuts)| Group {
            alarms: bits_of(*group).filter_map(|bit| beginnings.alarms.get(bit).copied()).collect(),
            known: bits_of(*group).filter_map(known).map(|known| known.id).collect(),
            members: Vec::new(),
            suspects: Vec::new(),
            earlier: Vec::new(),
            innocents: cuts.members.innocents,
            collateral: cuts.members.collateral,
            users,
            synchrony: beginnings.synchrony(*group, question.population),
        })
        .collect();
    for (active, bits) in question.population.sources.iter().zip(&beginnings.of_sources) {
        let place = active.profile as usize;
        let group = likeliest[place];
        let (Some(found), Some(cuts)) = (found.get_mut(group), cuts.get(group)) else { continue };
        let score = mixture.scores[group][place];
        let cut = if beginnings.is_known(*bits) { cuts.members } else { cuts.newcomers };
        if active.was_seen_before(came_s[group].saturating_sub(EARLIER_S), question.start_s) {
            if score >= cuts.members.score {
                found.earlier.push(active.source);
            }
            continue;
        }
        if score >= cut.score && found.members.len() < MEMBERS_MAX {
            found.members.push(*active);
        } else if score >= cuts.suspects.score && found.suspects.len() < SUSPECTS_MAX {
            found.suspects.push(*active);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::Sizes,
        cells::{Cell, Common, Way},
        family::tests::block,
        observation::Kind,
        profile::{self, populations},
        seen::SeenFor,
    };

    const WEB: ServiceId = ServiceId(0);

    const START_S: u64 = 20_000 * 86_400;

    /// What users do, `number` stands for chance.
    fn user(number: u32, kind: crate::block::KindId) -> Block {
        let random = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let rtt = 4 + (random / 7 % 4) as u8;
        let did = block(
            1 << (random % 7),
            (random / 28 % 50) as u16,
            [rtt, 2, rtt + (random / 64 % 2) as u8],
            Sizes(1 << (4 * (random / 128 % 6))),
        );
        Block {
            source: Source::of_v4(number.into()),
            kind,
            seen_for: if random / 1024 % 4 == 0 { SeenFor::NEW } else { SeenFor::KNOWN },
            ..did
        }
    }

    fn member(number: u32, kind: crate::block::KindId) -> Block {
        let did = block(2, (number % 3) as u16, [4, 8, 7], Sizes(1 << 12));
        Block { source: Source::of_v4(number.into()), kind, ..did }
    }

    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for tls_key in [11, 12, 13] {
            kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
        }
        kinds
    }

    fn finding(common: Common, sources: u32, expected_sources: f64) -> Finding {
        Finding {
            cell: Cell { service: WEB, common },
            sources,
            expected_sources,
            z: 9.0,
            evidence: Vec::new(),
        }
    }

    /// 6,000 users of three browsers; 300 members, with the first browser's ClientHello, have the addresses from 100,000 on.
    fn asked(alarms: &[&Finding], known: &[Known]) -> Vec<Group> {
        asked_of(alarms, known, |did| did)
    }

    /// The same where sources came at other times.
    fn asked_of(alarms: &[&Finding], known: &[Known], came: fn(Block) -> Block) -> Vec<Group> {
        let kinds = kinds();
        let kind = |number: u32| crate::block::KindId(number % 3);
        let clean = (0..12_000).map(|number| user(200_000 + number, kind(number))).collect::<Vec<_>>();
        let clean = profile::Clean::of(&populations(&clean, &kinds, |_| true)[&WEB], usize::MAX);
        let window: Vec<_> = (0..6000)
            .map(|number| user(number, kind(number)))
            .chain((100_000..100_300).map(|number| member(number, kind(0))))
            .map(came)
            .collect();
        let population = &populations(&window, &kinds, |_| true)[&WEB];
        attribute(&Question {
            service: WEB,
            start_s: START_S,
            window: &window,
            population,
            users: &Users::of(&[&clean], &kinds),
            alarms,
            known,
            kinds: &kinds,
            projections: &Projections::of(&kinds),
        })
    }

    fn is_member(active: &Active) -> bool {
        (100_000..100_300).contains(&active.source.number())
    }

    #[test]
    fn members_are_found_among_users_with_the_same_key() {
        let alarm = finding(Common::Tls(11), 800, 500.0);
        let groups = asked(&[&alarm], &[]);
        let [group] = &groups[..] else { panic!("{} groups", groups.len()) };
        let right = group.members.iter().filter(|active| is_member(active)).count();
        assert!(right >= 297 && group.members.len() <= right + 3, "{right} of {}", group.members.len());
        assert!(group.innocents <= 3.0, "{}", group.innocents);
        assert_eq!((&group.alarms[..], &group.known[..]), (&[0][..], &[][..]));
    }

    fn known(id: u64, sources: std::ops::Range<u32>) -> Known {
        let members = sources.map(|number| Source::of_v4(number.into())).collect();
        Known { id: FleetId(id), first_seen_s: START_S, members, is_proxied: false }
    }

    /// Members come in the same minutes of an hour, or at any as users do.
    #[test]
    fn what_is_too_many_in_a_cell_tells_of_a_schedule() {
        fn late(did: Block) -> Block {
            did.later_by((did.source.number() * 7 % 60) as u16)
        }
        let of = |came: fn(Block) -> Block| {
            let groups = asked_of(&[&finding(Common::Tls(11), 800, 500.0)], &[], came);
            groups.first().map(|group| group.synchrony)
        };
        let scheduled = of(|did| if did.source.number() < 100_000 { late(did) } else { did });
        assert!(scheduled.is_some_and(|synchrony| synchrony > 0.9), "{scheduled:?}");
        let at_any = of(late);
        assert!(at_any.is_some_and(|synchrony| synchrony < 0.2), "{at_any:?}");
    }

    #[test]
    fn known_members_are_a_beginning_and_join_what_they_are_in() {
        let of_fleet = known(1, 100_000..100_200);
        let groups = asked(&[], std::slice::from_ref(&of_fleet));
        assert_eq!(groups.len(), 1);
        assert!(
            groups[0].members.len() >= 297,
            "those that were not known are found: {}",
            groups[0].members.len()
        );
        let alarm = finding(Common::Tls(11), 800, 500.0);
        let groups = asked(&[&alarm], &[of_fleet, known(2, 500_000..500_100)]);
        let told: Vec<_> = groups.iter().map(|group| (&group.alarms[..], &group.known[..])).collect();
        assert_eq!(told, [(&[0][..], &[FleetId(1)][..]), (&[][..], &[FleetId(2)][..])]);
        assert!(groups[1].members.is_empty(), "those of a fleet that is not there");
    }

    #[test]
    fn whoever_is_behind_proxies_is_one_fleet() {
        let of_all =
            finding(Common::Path(Family::Path.category(&member(0, crate::block::KindId(0))) as u8), 300, 0.0);
        let of_key = finding(Common::TlsAndPath(12, Way::Proxied), 30, 0.0);
        assert_eq!(asked(&[&of_all, &of_key], &[]).len(), 1);
        let elsewhere = known(1, 500_000..500_100);
        assert_eq!(asked(&[&of_all], std::slice::from_ref(&elsewhere)).len(), 2);
        assert_eq!(asked(&[&of_all], &[Known { is_proxied: true, ..elsewhere }]).len(), 1);
        let straight = finding(Common::TlsAndPath(12, Way::Straight), 30, 0.0);
        assert_eq!(asked(&[&of_all, &straight], &[]).len(), 2);
    }

    /// The second half of the members have been at the service for two days.
    #[test]
    fn who_was_there_before_a_fleet_came_is_none_of_its() {
        fn earlier(did: Block) -> Block {
            if did.source.number() < 100_150 { did } else { Block { seen_for: SeenFor(8), ..did } }
        }
        let of = |came_s| {
            let of_fleet = Known { first_seen_s: came_s, ..known(1, 100_000..100_300) };
            let groups = asked_of(&[], &[of_fleet], earlier);
            let [group] = &groups[..] else { panic!("{} groups", groups.len()) };
            let in_half = |active: &&Active| active.source.number() >= 100_150;
            let of_half = |of: &[Active]| of.iter().filter(in_half).count();
            (of_half(&group.members) > 140, of_half(&group.suspects))
        };
        const HOUR_S: u64 = 3600;
        assert_eq!(of(START_S - 48 * HOUR_S), (true, 0));
        assert_eq!(of(START_S - 37 * HOUR_S), (true, 0), "a few hours say nothing");
        assert_eq!(of(START_S - 35 * HOUR_S), (false, 0), "they are no suspects either");
    }

    #[test]
    fn without_clean_windows_nobody_is_named() {
        let population = Population::default();
        let question = Question {
            service: WEB,
            start_s: START_S,
            window: &[],
            population: &population,
            users: &Users::default(),
            alarms: &[],
            known: &[],
            kinds: &kinds(),
            projections: &Projections::default(),
        };
        assert!(attribute(&question).is_empty());
    }
}
