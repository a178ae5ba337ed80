//! Fleets: what alarms and members of one look after the other have in common keeps its number as it grows, moves and loses members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    alarm::Finding,
    cells::Cell,
    explanation::Explanation,
    family::Family,
    fleet::{FORGOTTEN_S, Fleet, FleetId, MEMBERS_MIN, Member, SIMILARITY_MIN, Suspect},
    interval::Kinds,
    limits::{FLEETS_MAX, FLEETS_OF_LOOK_MAX, JOINED_MAX, MEMBER_S, MEMBERS_MAX},
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
    pub(crate) fleets: Vec<Fleet>,
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
            first_seen_s: fleet.first_seen_s,
            members: fleet.members.keys().copied().collect(),
            is_proxied: fleet.traits.as_ref().is_some_and(Traits::is_proxied),
        });
        let mut known: Vec<_> = known.collect();
        // Of more than can be told apart those with the most members are asked about.
        if known.len() > FLEETS_OF_LOOK_MAX {
            known.sort_by_key(|known| (std::cmp::Reverse(known.members.len()), known.id));
            known.truncate(FLEETS_OF_LOOK_MAX);
            known.sort_by_key(|known| known.id);
        }
        known
    }

    /// Their members that were refused what they would have done, since a time, in the order of sources.
    pub fn refused(&self, service: ServiceId, now_s: u64, since_s: u64) -> Vec<Source> {
        self.members_that(service, now_s, |member| member.refused_s >= since_s)
    }

    /// All members of the fleets of a service that are not quiet, in the order of sources.
    pub fn members(&self, service: ServiceId, now_s: u64) -> Vec<Source> {
        self.members_that(service, now_s, |_| true)
    }

    fn members_that(&self, service: ServiceId, now_s: u64, is_one: impl Fn(&Member) -> bool) -> Vec<Source> {
        let members = self.live(service, now_s).flat_map(|fleet| &fleet.members);
        let mut wanted: Vec<_> =
            members.filter(|(_, member)| is_one(member)).map(|(source, _)| *source).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Notes that most of what a source sent was dropped. Whoever is a member asks again and again, and stays one.
    pub fn note_refused(&mut self, service: ServiceId, source: Source, time_s: u64) {
        let live = |fleet: &&mut Fleet| fleet.service == service && fleet.is_live(time_s);
        for fleet in self.fleets.iter_mut().filter(live) {
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
        for group in self.of_one_fleet(looked, groups) {
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

    /// Those of a look that are of one fleet as one group: an alarm may have no member in common with the fleet that it is about, and two that are
    /// new may be alike.
    fn of_one_fleet(&self, looked: &Looked<'_>, groups: Vec<Group>) -> Vec<Group> {
        let known: Vec<Vec<FleetId>> = groups.iter().map(|group| group.known.clone()).collect();
        // Fleets that a group has in common become one.
        let oldest = |id: FleetId| {
            known.iter().find(|known| known.contains(&id)).and_then(|known| known.iter().min()).copied()
        };
        let mut one: Vec<(Option<FleetId>, Option<Traits>, Group)> = Vec::with_capacity(groups.len());
        for group in groups {
            let traits = Traits::of(&group.members, &[], looked.population, looked.kinds);
            let of = group.known.iter().min().copied().or_else(|| {
                let cells: Vec<_> =
                    group.alarms.iter().filter_map(|&alarm| Some(looked.alarms.get(alarm)?.cell)).collect();
                let id = self.fleets[self.alike(looked.service, traits.as_ref(), &cells)?].id;
                Some(oldest(id).unwrap_or(id))
            });
            let is_same =
                |(other, like, _): &&mut (Option<FleetId>, Option<Traits>, Group)| match (of, *other) {
                    (None, None) => like
                        .as_ref()
                        .zip(traits.as_ref())
                        .is_some_and(|(one, other)| one.similarity(other) >= SIMILARITY_MIN),
                    (of, other) => of == other,
                };
            match one.iter_mut().find(is_same) {
                Some((.., before)) => *before = before.clone().and(group),
                None => one.push((of, traits, group)),
            }
        }
        one.into_iter().map(|(.., group)| group).collect()
    }

    fn take(&mut self, looked: &Looked<'_>, alarms: &[&Finding], group: Group) {
        let hidden = self.hidden(looked, &group.known);
        let traits = Traits::of(&group.members, &hidden, looked.population, looked.kinds);
        let cells: Vec<_> = alarms.iter().map(|alarm| alarm.cell).collect();
        let Some(place) =
            self.join(&group.known).or_else(|| self.alike(looked.service, traits.as_ref(), &cells))
        else {
            // Only an alarm makes a fleet, and only if it is known of enough sources that they belong to it.
            let of_alarms = of_alarms(looked, alarms, &group);
            let explained = of_alarms.as_ref().or(traits.as_ref());
            if let Some(explanation) = Explanation::of(alarms, explained, group.synchrony)
                && group.members.len() >= MEMBERS_MIN
            {
                self.begin(looked, explanation, &group);
                let place = self.fleets.len() - 1;
                self.set_members(place, looked, alarms, &group, traits, 0);
                self.fleets[place].cells = cells;
            }
            return;
        };
        let remembering = |traits: Traits| match &self.fleets[place].traits {
            Some(before) => traits.remembering(before, MEMBERS_MIN as u32),
            None => traits,
        };
        let traits = traits.map(remembering);
        // A few members are not what the fleet is like.
        let is_enough = group.members.len() >= MEMBERS_MIN;
        let of_fleet = traits.as_ref().filter(|_| is_enough).or(self.fleets[place].traits.as_ref());
        let of_alarms = of_alarms(looked, alarms, &group).map(remembering);
        if let Some(explanation) = Explanation::of(alarms, of_alarms.as_ref().or(of_fleet), group.synchrony) {
            let fleet = &mut self.fleets[place];
            fleet.last_alarm_s = fleet.last_alarm_s.max(looked.end_s);
            fleet.last_seen_s = fleet.last_seen_s.max(looked.end_s);
            // That people behind a relay would not do this is not taken back by an alarm that says less, as those of a throttled fleet do.
            if !explanation.is_relay() || fleet.explanation.is_new_uniform_population {
                fleet.explanation = explanation;
            }
            fleet.cells = cells;
        }
        // An alarm without members says nothing of those that are known.
        let says_who = !group.members.is_empty() || !group.known.is_empty();
        if says_who && looked.scope(self.fleets[place].first_seen_s) != Scope::More {
            self.set_members(place, looked, alarms, &group, traits, hidden.len());
        }
    }

    /// Members of some fleets that were active in the window and not asked.
    fn hidden(&self, looked: &Looked<'_>, known: &[FleetId]) -> Vec<Source> {
        let of_known = self.fleets.iter().filter(|fleet| known.contains(&fleet.id));
        let members = of_known.flat_map(|fleet| &fleet.members);
        let hidden = members.filter(|(source, member)| {
            member.last_s >= looked.start_s && looked.not_asked.binary_search(source).is_ok()
        });
        hidden.map(|(source, _)| *source).collect()
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
            fleet.last_alarm_s = fleet.last_alarm_s.max(other.last_alarm_s);
            fleet.last_seen_s = fleet.last_seen_s.max(other.last_seen_s);
            fleet.most = fleet.most.max(other.most);
            if fleet.explanation.is_new_uniform_population && !other.explanation.is_new_uniform_population {
                fleet.explanation = other.explanation;
            }
            fleet.joined.extend(other.joined.into_iter().chain([other.id]));
            fleet.joined.sort_unstable();
            fleet.joined.drain(..fleet.joined.len().saturating_sub(JOINED_MAX));
            for (source, member) in other.members {
                let own = fleet.members.entry(source).or_insert(member);
                own.last_s = own.last_s.max(member.last_s);
                own.refused_s = own.refused_s.max(member.refused_s);
            }
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
            joined: Vec::new(),
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
        hidden: usize,
    ) {
        let busy = usage::busy_above(looked.population, &group.members);
        let others: usize = self.fleets.iter().map(|fleet| fleet.members.len()).sum();
        // Those of this fleet that the memory of sources takes for others are no users, either.
        let mut not_users = self.members(looked.service, looked.end_s);
        not_users
            .extend(group.members.iter().map(|active| active.source).chain(group.earlier.iter().copied()));
        not_users.sort_unstable();
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
        let suspect = |active: &Active| {
            let is_busy = busy.is_some_and(|above| active.connections > above);
            Suspect { source: active.source, is_shared: usage::is_shared(active.tls_keys, is_busy) }
        };
        fleet.suspects = group.suspects.iter().filter(is_suspect).map(suspect).collect();
        // A window that has but a part of the fleet, or in which most of it was refused, says less of it than one that had all of it.
        let is_most = !is_part && group.members.len() >= hidden;
        let is_first = fleet.usage.window_s == 0;
        if is_most || is_first {
            fleet.innocents = group.innocents;
            fleet.collateral = group.collateral;
            fleet.users = group.users;
            let (first_seen_s, before) = (fleet.first_seen_s, &fleet.usage);
            fleet.usage = Usage::of(looked, alarms, group, traits.as_ref(), first_seen_s, before);
        }
        if !is_part || is_first {
            fleet.usage.look_at_users(looked, &not_users);
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
            if !fleet.is_live(now_s) {
                // No look says anything of them any more.
                fleet.suspects.clear();
            }
        }
        self.fleets.retain(|fleet| fleet.last_seen_s + FORGOTTEN_S > now_s);
        while self.fleets.len() > FLEETS_MAX {
            let oldest = self.fleets.iter().map(|fleet| (fleet.last_seen_s, fleet.id)).min();
            self.fleets.retain(|fleet| Some((fleet.last_seen_s, fleet.id)) != oldest);
        }
    }
}

/// What those members of a group have in common that its alarms are about; `None`: they are too few. Of a fleet that has become part of something else
/// the others say nothing of what is alarming now.
fn of_alarms(looked: &Looked<'_>, alarms: &[&Finding], group: &Group) -> Option<Traits> {
    let is_about = |active: &&Active| {
        let profile = looked.population.profiles.get(active.profile as usize);
        profile.is_some_and(|(profile, _)| {
            let (kind, path) = (looked.kinds.kind(profile.kind), profile.categories[Family::Path as usize]);
            alarms.iter().any(|alarm| alarm.cell.common.has(&kind, path.into()))
        })
    };
    let members: Vec<_> = group.members.iter().filter(is_about).copied().collect();
    if members.len() < MEMBERS_MIN {
        return None;
    }
    Traits::of(&members, &[], looked.population, looked.kinds)
}
