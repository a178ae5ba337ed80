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
    membership::Group,
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
    /// Who was active.
    pub population: &'a Population,
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

    /// Members of the fleets of a service that are not quiet, in the order of sources.
    pub fn known(&self, service: ServiceId, now_s: u64) -> Vec<(FleetId, Vec<Source>)> {
        let of_service = self.fleets.iter().filter(|fleet| fleet.service == service && fleet.is_live(now_s));
        let known = of_service.filter(|fleet| !fleet.members.is_empty());
        known.map(|fleet| (fleet.id, fleet.members.keys().copied().collect())).collect()
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

    /// Takes what a look found. `known` says which fleets those of the groups are.
    pub fn update(&mut self, looked: &Looked<'_>, known: &[FleetId], groups: Vec<Group>) {
        for group in groups {
            let alarms: Vec<_> =
                group.alarms.iter().filter_map(|&alarm| looked.alarms.get(alarm).copied()).collect();
            let known: Vec<_> = group.known.iter().filter_map(|&place| known.get(place).copied()).collect();
            self.take(looked, &known, &alarms, group);
        }
        self.forget(looked.end_s);
    }

    fn take(&mut self, looked: &Looked<'_>, known: &[FleetId], alarms: &[&Finding], group: Group) {
        let traits = Traits::of(&group.members, looked.population, looked.kinds);
        let cells: Vec<_> = alarms.iter().map(|alarm| alarm.cell).collect();
        let Some(place) = self.join(known).or_else(|| self.alike(looked.service, traits.as_ref(), &cells))
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
            // Who was active in the window and is not among its members is none; of others it says nothing.
            fleet.members.retain(|_, member| member.last_s < looked.start_s);
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
            fleet.members.insert(active.source, Member { last_s, exchanges, connections, tls_keys, is_busy });
        }
        let is_suspect = |active: &&Active| !fleet.members.contains_key(&active.source);
        fleet.suspects = group.suspects.iter().filter(is_suspect).map(|active| active.source).collect();
        fleet.innocents = group.innocents;
        fleet.collateral = group.collateral;
        fleet.users = group.users;
        // A window that has but a part of the fleet says less of it than one that had all of it.
        if !is_part || fleet.usage.window_s == 0 {
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
        self.fleets.retain(|fleet| fleet.last_alarm_s + FORGOTTEN_S > now_s);
        while self.fleets.len() > FLEETS_MAX {
            let oldest = self.fleets.iter().map(|fleet| (fleet.last_alarm_s, fleet.id)).min();
            self.fleets.retain(|fleet| Some((fleet.last_alarm_s, fleet.id)) != oldest);
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
        let did = Block { kind: crate::block::KindId(tls), ..block(2, 20, [4, 8, 8], Sizes(1 << 32)) };
        look_at(fleets, [end_h, length_h], &did, members, known, is_alarm);
    }

    /// The same, of sources that did this.
    fn look_at(
        fleets: &mut Fleets,
        [end_h, length_h]: [u64; 2],
        did: &Block,
        members: std::ops::Range<u32>,
        known: &[u64],
        is_alarm: bool,
    ) {
        let kinds = kinds();
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
            of_users: &Users::default(),
            kinds: &kinds,
        };
        let group = Group {
            alarms: if is_alarm { vec![0] } else { Vec::new() },
            known: (0..known.len()).collect(),
            members: population.sources.clone(),
            suspects: Vec::new(),
            innocents: 0.5,
            collateral: 1e-5,
            users: 4000.0,
            synchrony: 0.0,
        };
        let known: Vec<_> = known.iter().copied().map(FleetId).collect();
        fleets.update(&looked, &known, vec![group]);
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
        look_at(&mut fleets, [101, 1], &refused, 0..3, &[1], true);
        let throttled = fleet(&fleets);
        assert_eq!(throttled.last_alarm_s, 101 * HOUR);
        assert!(!throttled.explanation.is_new_uniform_population, "{:?}", throttled.explanation);
        assert_eq!(throttled.usage.keys, before.usage.keys);
        let of = |fleet: &Fleet| {
            fleet.traits.clone().map(|traits| (traits.keys, traits.proxied, traits.response_bytes))
        };
        assert_eq!(of(&throttled), of(&before));
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
    fn members_expire_a_day_after_they_were_active_and_fleets_are_forgotten() {
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
    fn the_fleet_with_the_oldest_alarm_gives_way() {
        let mut fleets = Fleets::default();
        look(&mut fleets, 100, 1, 0, 0..1, &[], true);
        let fleet = fleets.fleets[0].clone();
        fleets.fleets = (0..=FLEETS_MAX as u64)
            .map(|number| Fleet {
                id: FleetId(number),
                last_alarm_s: fleet.last_alarm_s + number % 7 + 1,
                ..fleet.clone()
            })
            .collect();
        fleets.fleets[40].last_alarm_s = fleet.last_alarm_s;
        fleets.forget(fleet.last_alarm_s);
        assert_eq!(fleets.iter().count(), FLEETS_MAX);
        assert!(fleets.iter().all(|fleet| fleet.id != FleetId(40)));
    }
}
