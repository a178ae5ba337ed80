//! Fleets: what alarms and members of one look after the other have in common keeps its number as it grows, moves and loses members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    alarm::Finding,
    cells::Cell,
    explanation::Explanation,
    fleet::{FORGOTTEN_S, Fleet, FleetId, MEMBERS_MIN, Member},
    interval::Kinds,
    limits::{FLEETS_MAX, MEMBER_S, MEMBERS_MAX},
    membership::{Group, Known},
    observation::ServiceId,
    profile::{Active, Population},
    source::Source,
    traits::Traits,
    usage::{self, Usage},
    users::Users,
};

/// Part of the members that were active before a fleet is said to be: users among them were there earlier.
const EARLY: usize = 20;

/// The window of a look at a service.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// Where.
    pub service: ServiceId,
    /// From when on minutes of the window are counted, seconds since the Unix epoch: its start, or that of the first interval in it.
    pub start_s: u64,
    /// Its end.
    pub end_s: u64,
    /// Its length, s.
    pub length_s: u64,
    /// Lengths of window with which fleets of the service can be looked for, s, in their order, this one among them.
    pub lengths_s: &'a [u64],
    /// The cells with an alarm.
    pub alarms: &'a [&'a Finding],
    /// Who was active, and asked whether it belongs.
    pub population: &'a Population,
    /// Who was not asked, in the order of sources: it was refused what it would have done, or nothing of it was seen.
    pub not_asked: &'a [Source],
    /// Users, as they were in windows of this length in which nothing was found.
    pub of_users: &'a Users,
    /// Kinds of client.
    pub kinds: &'a Kinds,
}

/// What a window is to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Shorter than the fleet is old: it shows who came, and not who is none.
    Part,
    /// The shortest that has all of the fleet, or the longest there is: it says who belongs.
    Whole,
    /// Longer than that.
    More,
}

impl Looked<'_> {
    fn scope(&self, first_seen_s: u64) -> Scope {
        let age_s = self.end_s.saturating_sub(first_seen_s);
        let own_s = self.length_s;
        let whole = self.lengths_s.iter().find(|&&length_s| length_s >= age_s).or(self.lengths_s.last());
        match own_s.cmp(whole.unwrap_or(&own_s)) {
            std::cmp::Ordering::Less => Scope::Part,
            std::cmp::Ordering::Equal => Scope::Whole,
            std::cmp::Ordering::Greater => Scope::More,
        }
    }
}

/// The fleets that are known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fleets {
    fleets: Vec<Fleet>,
    /// How many there ever were.
    numbered: u64,
    /// Members that found no room.
    left_out: u64,
}

impl Fleets {
    /// All that are not forgotten, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Fleet> {
        self.fleets.iter()
    }

    /// Numbers up to this one were given before, by a memory that was lost.
    pub const fn number_after(&mut self, last: u64) {
        if self.numbered < last {
            self.numbered = last;
        }
    }

    /// Members that found no room, in all.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Services with a fleet that is not quiet.
    pub fn services(&self, now_s: u64) -> BTreeSet<ServiceId> {
        self.fleets.iter().filter(|fleet| fleet.is_live(now_s)).map(|fleet| fleet.service).collect()
    }

    /// The fleets of a service that are not quiet.
    fn live(&self, service: ServiceId, now_s: u64) -> impl Iterator<Item = &Fleet> {
        self.fleets.iter().filter(move |fleet| fleet.service == service && fleet.is_live(now_s))
    }

    /// The fleets of a service that are not quiet, and have members.
    pub fn known(&self, service: ServiceId, now_s: u64) -> Vec<Known> {
        let known = self.live(service, now_s).filter(|fleet| !fleet.members.is_empty());
        let known = known.map(|fleet| Known {
            id: fleet.id,
            members: fleet.members.keys().copied().collect(),
            is_proxied: fleet.traits.as_ref().is_some_and(Traits::is_proxied),
        });
        known.collect()
    }

    /// Their members that were refused what they would have done, since a time, in the order of sources.
    pub fn refused(&self, service: ServiceId, now_s: u64, since_s: u64) -> Vec<Source> {
        let members = self.live(service, now_s).flat_map(|fleet| &fleet.members);
        let refused = members.filter(|(_, member)| member.refused_s >= since_s);
        let mut refused: Vec<_> = refused.map(|(source, _)| *source).collect();
        refused.sort_unstable();
        refused.dedup();
        refused
    }

    /// All members of the fleets of a service that are not quiet, in the order of sources.
    pub fn members(&self, service: ServiceId, now_s: u64) -> Vec<Source> {
        self.refused(service, now_s, 0)
    }

    /// Notes that most of what a source sent was dropped. Whoever is a member asks again and again, and stays one.
    pub fn note_refused(&mut self, service: ServiceId, source: Source, time_s: u64) {
        for fleet in self.fleets.iter_mut().filter(|fleet| fleet.service == service) {
            if let Some(member) = fleet.members.get_mut(&source) {
                member.last_s = member.last_s.max(time_s);
                member.refused_s = member.refused_s.max(time_s);
            }
        }
    }

    /// Whether a look can say more of a service's fleets than shorter windows do: there is an alarm, or a fleet older than those.
    pub fn is_asked(&self, looked: &Looked<'_>) -> bool {
        let of_service = |fleet: &&Fleet| fleet.service == looked.service && fleet.is_live(looked.end_s);
        !looked.alarms.is_empty()
            || self
                .fleets
                .iter()
                .filter(of_service)
                .any(|fleet| looked.scope(fleet.first_seen_s) != Scope::More)
    }

    /// Takes what a look found.
    pub fn update(&mut self, looked: &Looked<'_>, groups: Vec<Group>) {
        for group in groups {
            let alarms: Vec<_> =
                group.alarms.iter().filter_map(|&alarm| looked.alarms.get(alarm).copied()).collect();
            self.take(looked, &alarms, group);
        }
        let of_service = |fleet: &&mut Fleet| fleet.service == looked.service;
        for fleet in self.fleets.iter_mut().filter(of_service) {
            if looked.scope(fleet.first_seen_s) == Scope::Whole {
                fleet.look(looked.start_s, looked.end_s);
            }
        }
        self.forget(looked.end_s);
    }

    fn take(&mut self, looked: &Looked<'_>, alarms: &[&Finding], group: Group) {
        let traits = Traits::of(&group.members, looked.population, looked.kinds);
        let cells: Vec<_> = alarms.iter().map(|alarm| alarm.cell).collect();
        let Some(place) =
            self.join(&group.known).or_else(|| self.alike(looked.service, traits.as_ref(), &cells))
        else {
            // Only an alarm makes a fleet, and only if it is known of enough sources that they belong to it.
            if let Some(explanation) = Explanation::of(alarms, traits.as_ref(), group.synchrony)
                && group.members.len() >= MEMBERS_MIN
            {
                self.begin(looked, explanation, &group);
                let place = self.fleets.len() - 1;
                self.set_members(place, looked, alarms, &group, traits);
                self.fleets[place].cells = cells;
            }
            return;
        };
        let traits = match &self.fleets[place].traits {
            Some(before) => traits.map(|traits| traits.remembering(before, MEMBERS_MIN as u32)),
            None => traits,
        };
        // A few members are not what the fleet is like.
        let is_enough = group.members.len() >= MEMBERS_MIN;
        let of_fleet = traits.as_ref().filter(|_| is_enough).or(self.fleets[place].traits.as_ref());
        if let Some(explanation) = Explanation::of(alarms, of_fleet, group.synchrony) {
            let fleet = &mut self.fleets[place];
            fleet.last_alarm_s = fleet.last_alarm_s.max(looked.end_s);
            fleet.last_seen_s = fleet.last_seen_s.max(looked.end_s);
            fleet.explanation = explanation;
            fleet.cells = cells;
        }
        if looked.scope(self.fleets[place].first_seen_s) != Scope::More {
            self.set_members(place, looked, alarms, &group, traits);
        }
    }

    /// The oldest of known fleets, after the others have become part of it.
    fn join(&mut self, known: &[FleetId]) -> Option<usize> {
        let oldest = *known.iter().min()?;
        let others: Vec<Fleet> =
            self.fleets.extract_if(.., |fleet| known.contains(&fleet.id) && fleet.id != oldest).collect();
        let place = self.fleets.iter().position(|fleet| fleet.id == oldest)?;
        for other in others {
            let fleet = &mut self.fleets[place];
            fleet.first_seen_s = fleet.first_seen_s.min(other.first_seen_s);
            fleet.alarmed_at_s = fleet.alarmed_at_s.min(other.alarmed_at_s);
            fleet.members.extend(other.members);
        }
        Some(place)
    }

    fn alike(&self, service: ServiceId, traits: Option<&Traits>, cells: &[Cell]) -> Option<usize> {
        self.fleets.iter().position(|fleet| fleet.service == service && fleet.is_like(traits, cells))
    }

    fn begin(&mut self, looked: &Looked<'_>, explanation: Explanation, group: &Group) {
        self.numbered += 1;
        let mut first: Vec<_> = group.members.iter().map(|active| active.first_minute).collect();
        let early = first.len() / EARLY;
        let first = (!first.is_empty()).then(|| *first.select_nth_unstable(early).1);
        self.fleets.push(Fleet {
            id: FleetId(self.numbered),
            service: looked.service,
            first_seen_s: looked.start_s + first.map_or(0, |minute| u64::from(minute) * 60),
            alarmed_at_s: looked.end_s,
            last_alarm_s: looked.end_s,
            last_seen_s: looked.end_s,
            most: 0.0,
            members: BTreeMap::new(),
            suspects: Vec::new(),
            innocents: 0.0,
            collateral: 0.0,
            users: 0.0,
            usage: Usage::default(),
            key: None,
            traits: None,
            decided_s: 0,
            cells: Vec::new(),
            explanation,
        });
    }

    fn set_members(
        &mut self,
        place: usize,
        looked: &Looked<'_>,
        alarms: &[&Finding],
        group: &Group,
        traits: Option<Traits>,
    ) {
        let busy = usage::busy_above(looked.population, &group.members);
        let others: usize = self.fleets.iter().map(|fleet| fleet.members.len()).sum();
        let fleet = &mut self.fleets[place];
        let others = others - fleet.members.len();
        let is_part = looked.scope(fleet.first_seen_s) == Scope::Part;
        if !is_part {
            // Who was active in the window and is not among its members is none; of others it says nothing, nor of who was not asked.
            fleet.members.retain(|source, member| {
                member.last_s < looked.start_s
                    || looked.not_asked.binary_search(source).is_ok()
                    || group.members.binary_search_by_key(source, |active| active.source).is_ok()
            });
            fleet.decided_s = looked.end_s;
        }
        for active in &group.members {
            let [first_s, last_s] = [active.first_minute, active.last_minute]
                .map(|minute| looked.start_s + u64::from(minute) * 60);
            // Who came before a longer window said who belongs is not asked again with less: nor is who left before the fleet came.
            let is_decided =
                is_part && first_s < fleet.decided_s && !fleet.members.contains_key(&active.source);
            if is_decided || last_s < fleet.first_seen_s {
                continue;
            }
            let is_full = others + fleet.members.len() >= MEMBERS_MAX;
            if is_full && !fleet.members.contains_key(&active.source) {
                self.left_out += 1;
                continue;
            }
            let is_busy = busy.is_some_and(|above| active.connections > above);
            let Active { exchanges, connections, tls_keys, .. } = *active;
            let before = fleet.members.get(&active.source);
            let last_s = before.map_or(last_s, |before| before.last_s.max(last_s));
            let refused_s = before.map_or(0, |before| before.refused_s);
            let member = Member { last_s, refused_s, exchanges, connections, tls_keys, is_busy };
            fleet.members.insert(active.source, member);
        }
        let is_suspect = |active: &&Active| !fleet.members.contains_key(&active.source);
        fleet.suspects = group.suspects.iter().filter(is_suspect).map(|active| active.source).collect();
        // A window that has but a part of the fleet says less of it than one that had all of it.
        if !is_part || fleet.usage.window_s == 0 {
            fleet.innocents = group.innocents;
            fleet.collateral = group.collateral;
            fleet.users = group.users;
            let (first_seen_s, before) = (fleet.first_seen_s, &fleet.usage);
            fleet.usage = Usage::of(looked, alarms, group, traits.as_ref(), first_seen_s, before);
        }
        if let Some(traits) = traits
            && (group.members.len() >= MEMBERS_MIN || fleet.traits.is_none())
        {
            fleet.key = traits.key(looked.of_users);
            fleet.traits = Some(traits);
        }
    }

    /// Time has come to this: members expire, and fleets are forgotten.
    pub fn forget(&mut self, now_s: u64) {
        for fleet in &mut self.fleets {
            fleet.members.retain(|_, member| member.last_s + MEMBER_S > now_s);
        }
        self.fleets.retain(|fleet| fleet.last_seen_s + FORGOTTEN_S > now_s);
        while self.fleets.len() > FLEETS_MAX {
            let oldest = self.fleets.iter().map(|fleet| (fleet.last_seen_s, fleet.id)).min();
            self.fleets.retain(|fleet| Some((fleet.last_seen_s, fleet.id)) != oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{Block, NOT_TIMED, Sizes},
        cells::Common,
        evidence::Evidence,
        family::{Family, tests::block},
        fleet::QUIET_S,
        observation::Kind,
        profile::populations,
    };

    const WEB: ServiceId = ServiceId(0);
    const HOUR: u64 = 3600;
    const LENGTHS: [u64; 3] = [HOUR, 6 * HOUR, 24 * HOUR];

    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for tls_key in [11, 12, 0] {
            kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
        }
        kinds
    }

    fn alarm(tls_key: u64) -> Finding {
        let of = |family| Evidence {
            family,
            log_factor: 9.0,
            span: crate::span::Span::PROXIED,
            observed: 0.9,
            expected: 0.1,
        };
        Finding {
            cell: Cell { service: WEB, common: Common::Tls(tls_key) },
            sources: 100,
            expected_sources: 1.0,
            z: 9.0,
            evidence: Family::ALL.map(of).into(),
        }
    }

    /// The sources that a number stands for: as many as a fleet has at least.
    fn sources_of(number: u32) -> impl Iterator<Item = Source> {
        let each = MEMBERS_MIN as u32;
        (number * each..(number + 1) * each).map(|address| Source::of_v4(address.into()))
    }

    /// A look at a window of so many hours that ends at an hour, in the last of which sources were members, and what it found.
    fn look(
        fleets: &mut Fleets,
        end_h: u64,
        length_h: u64,
        tls: u32,
        members: std::ops::Range<u32>,
        known: &[u64],
        is_alarm: bool,
    ) {
        let asked = Asked::of([end_h, length_h]);
        let did = Block { kind: crate::block::KindId(tls), ..asked.did };
        look_at(fleets, &Asked { did, ..asked }, members, known, is_alarm);
    }

    /// A window by its end and length in hours, what members did in it, and who was not asked.
    struct Asked {
        window: [u64; 2],
        did: Block,
        not_asked: Vec<Source>,
    }

    impl Asked {
        fn of(window: [u64; 2]) -> Self {
            Self { window, did: block(2, 20, [4, 8, 8], Sizes(1 << 32)), not_asked: Vec::new() }
        }
    }

    fn look_at(
        fleets: &mut Fleets,
        Asked { window, did, not_asked }: &Asked,
        members: std::ops::Range<u32>,
        known: &[u64],
        is_alarm: bool,
    ) {
        let (kinds, [end_h, length_h]) = (kinds(), *window);
        let window: Vec<_> = members
            .flat_map(sources_of)
            .map(|source| Block { source, ..*did })
            .map(|block| block.later_by((length_h as u16 - 1) * 60))
            .collect();
        let population = populations(&window, &kinds, |_| true).remove(&WEB).unwrap_or_default();
        let alarm = alarm(kinds.kind(did.kind).tls_key);
        let alarms = if is_alarm { vec![&alarm] } else { Vec::new() };
        let looked = Looked {
            service: WEB,
            start_s: (end_h - length_h) * HOUR,
            end_s: end_h * HOUR,
            length_s: length_h * HOUR,
            lengths_s: &LENGTHS,
            alarms: &alarms,
            population: &population,
            not_asked,
            of_users: &Users::default(),
            kinds: &kinds,
        };
        let group = Group {
            alarms: if is_alarm { vec![0] } else { Vec::new() },
            known: known.iter().copied().map(FleetId).collect(),
            members: population.sources.clone(),
            suspects: Vec::new(),
            innocents: 0.5,
            collateral: 1e-5,
            users: 4000.0,
            synchrony: 0.0,
        };
        fleets.update(&looked, vec![group]);
    }

    fn told(fleets: &Fleets) -> Vec<(u64, Vec<u64>)> {
        let each = MEMBERS_MIN as u64;
        let members = |fleet: &Fleet| {
            let numbers: BTreeSet<_> = fleet.members.keys().map(|source| source.number() / each).collect();
            assert_eq!(fleet.members.len(), numbers.len() * MEMBERS_MIN, "all that a number stands for");
            numbers.into_iter().collect()
        };
        fleets.iter().map(|fleet| (fleet.id.0, members(fleet))).collect()
    }

    #[test]
    fn only_an_alarm_makes_a_fleet() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], false);
        assert_eq!(told(&fleets), []);
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        assert_eq!(told(&fleets), [(1, vec![0, 1, 2])]);
        let fleet = fleets.iter().next().expect("one fleet");
        assert_eq!(fleet.first_seen_s, 99 * HOUR + 3 * 60, "the window's third minute is its first");
        let members = MEMBERS_MIN as u64;
        assert_eq!((fleet.alarmed_at_s, fleet.exchanges()), (100 * HOUR, 6 * members));
        let member = fleet.members[&Source::of_v4(1.into())];
        assert_eq!(member.last_s, 99 * HOUR + 23 * 60);
        assert_eq!(
            (member.connections, member.tls_keys, member.is_busy, member.is_shared()),
            (1, 1, false, false)
        );
        assert_eq!((fleet.usage.window_s, fleet.usage.keys.len()), (HOUR, 1));
    }

    #[test]
    fn it_keeps_its_number_as_it_moves_and_when_it_comes_back_as_others() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        look(&mut fleets, 103, 1, 0, 2..5, &[1], true);
        assert_eq!(
            told(&fleets),
            [(1, vec![0, 1, 2, 3, 4])],
            "a window shorter than it is old takes nobody out"
        );
        let window_s = |fleets: &Fleets| fleets.iter().next().map(|fleet| fleet.usage.window_s);
        assert_eq!(window_s(&fleets), Some(HOUR), "that of the first look, when an hour had all of it");
        look(&mut fleets, 104, 6, 0, 3..6, &[1], false);
        assert_eq!(told(&fleets), [(1, vec![3, 4, 5])], "one that has all of it does");
        assert_eq!(window_s(&fleets), Some(6 * HOUR));
        look(&mut fleets, 105, 1, 0, 3..6, &[1], true);
        assert_eq!(window_s(&fleets), Some(6 * HOUR), "an hour has only a part of it now");
        look(&mut fleets, 104, 24, 0, 0..9, &[1], true);
        assert_eq!(told(&fleets), [(1, vec![3, 4, 5])], "one that is longer says nothing of members");
        look(&mut fleets, 200, 1, 0, 50..52, &[], true);
        assert_eq!(told(&fleets), [(1, vec![50, 51])], "from elsewhere, after days, it is what it was");
        look(&mut fleets, 200, 1, 1, 60..61, &[], true);
        assert_eq!(told(&fleets), [(1, vec![50, 51]), (2, vec![60])], "other software is another");
        look(&mut fleets, 201, 1, 0, 50..61, &[2, 1], true);
        assert_eq!(told(&fleets), [(1, (50..61).collect())], "until they are seen to be one");
    }

    /// A throttle refuses SYNs: nobody's ClientHello, way or sizes are known any more, and only that the same sources come.
    #[test]
    fn a_fleet_that_is_throttled_stays_what_it_was() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        let fleet = |fleets: &Fleets| fleets.iter().next().cloned().expect("a fleet");
        let before = fleet(&fleets);
        assert!(!before.explanation.is_new_uniform_population, "{:?}", before.explanation);
        let refused = Block { kind: crate::block::KindId(2), ..block(0, 20, [NOT_TIMED; 3], Sizes(0)) };
        look_at(&mut fleets, &Asked { did: refused, ..Asked::of([101, 1]) }, 0..3, &[1], true);
        let throttled = fleet(&fleets);
        assert_eq!(throttled.last_alarm_s, 101 * HOUR);
        assert!(!throttled.explanation.is_new_uniform_population, "{:?}", throttled.explanation);
        assert_eq!(throttled.usage.keys, before.usage.keys);
        let of = |fleet: &Fleet| {
            fleet.traits.clone().map(|traits| (traits.keys, traits.proxied, traits.response_bytes))
        };
        assert_eq!(of(&throttled), of(&before));
    }

    /// Sources are new for a day: one that keeps its own has no alarm after that.
    #[test]
    fn a_fleet_without_an_alarm_is_there_while_enough_of_its_members_are() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..40, &[], true);
        look(&mut fleets, 124, 24, 0, 0..40, &[1], true);
        for day in [148, 172, 196] {
            look(&mut fleets, day, 24, 0, 0..40, &[1], false);
        }
        let times = |fleets: &Fleets| {
            fleets.iter().map(|fleet| (fleet.last_alarm_s / HOUR, fleet.last_seen_s / HOUR)).next()
        };
        assert_eq!(times(&fleets), Some((124, 196)));
        // Two of forty come again, which may be users.
        look(&mut fleets, 220, 24, 0, 0..2, &[1], false);
        assert_eq!(times(&fleets), Some((124, 196)));
        assert_eq!(fleets.services(196 * HOUR + QUIET_S).len(), 0);
    }

    /// Nothing is seen of what they would do, and they ask again and again.
    #[test]
    fn who_is_refused_stays_a_member_and_is_not_asked() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        let refused: Vec<_> = (0..2).flat_map(sources_of).collect();
        refused.iter().for_each(|source| fleets.note_refused(WEB, *source, 130 * HOUR));
        fleets.note_refused(WEB, Source::of_v4(9999.into()), 130 * HOUR);
        fleets.note_refused(ServiceId(1), Source::of_v4(99.into()), 130 * HOUR);
        assert_eq!(fleets.refused(WEB, 100 * HOUR, 130 * HOUR), refused);
        assert_eq!(fleets.refused(WEB, 100 * HOUR, 130 * HOUR + 1), []);
        fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S);
        assert_eq!(told(&fleets), [(1, vec![0, 1])], "the others were not seen for two days");
        let of = |window| Asked { not_asked: refused.clone(), ..Asked::of(window) };
        look_at(&mut fleets, &of([131, 24]), 8..9, &[1], true);
        assert_eq!(told(&fleets), [(1, vec![0, 1, 8])]);
        look_at(&mut fleets, &Asked::of([132, 24]), 8..9, &[1], true);
        assert_eq!(told(&fleets), [(1, vec![8])], "who is asked, and is not found, is none");
    }

    #[test]
    fn whom_a_longer_window_did_not_take_a_shorter_one_does_not_take_either() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        look(&mut fleets, 104, 6, 0, 0..3, &[1], true);
        look(&mut fleets, 104, 1, 0, 0..9, &[1], true);
        assert_eq!(told(&fleets), [(1, vec![0, 1, 2])]);
        look(&mut fleets, 105, 1, 0, 7..9, &[1], true);
        assert_eq!(told(&fleets), [(1, vec![0, 1, 2, 7, 8])], "who comes later is asked");
    }

    #[test]
    fn members_expire_two_days_after_they_were_active_and_fleets_are_forgotten() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..3, &[], true);
        fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S - 1);
        assert_eq!(told(&fleets)[0].1.len(), 3);
        fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S);
        assert_eq!(told(&fleets), [(1, vec![])]);
        assert_eq!(fleets.services(100 * HOUR + QUIET_S - 1).len(), 1);
        assert_eq!(fleets.services(100 * HOUR + QUIET_S).len(), 0);
        fleets.forget(100 * HOUR + FORGOTTEN_S);
        assert_eq!(told(&fleets), []);
    }

    #[test]
    fn the_fleet_that_was_not_seen_for_longest_gives_way() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..1, &[], true);
        let fleet = fleets.fleets[0].clone();
        fleets.fleets = (0..=FLEETS_MAX as u64)
            .map(|number| Fleet {
                id: FleetId(number),
                last_seen_s: fleet.last_seen_s + number % 7 + 1,
                ..fleet.clone()
            })
            .collect();
        fleets.fleets[40].last_seen_s = fleet.last_seen_s;
        fleets.forget(fleet.last_seen_s);
        assert_eq!(fleets.iter().count(), FLEETS_MAX);
        assert!(fleets.iter().all(|fleet| fleet.id != FleetId(40)));
    }
}
