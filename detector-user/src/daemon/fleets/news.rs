//! What is new of fleets, as events: one that is there for the first time, that grew, that others are a part of, that has an alarm again, that ended.

use std::collections::BTreeMap;

use detector_fleets::fleet::{Fleet, FleetId, QUIET_S};

use crate::{
    actions::plan::{Decision, Step},
    daemon::feed::{Event, FleetEvent, FleetNews},
    fleets::{
        Found, Memory, Report,
        report::{State, no_names},
    },
};

/// A fleet that has half as many members again as were told is told again.
const GROWN: (usize, usize) = (3, 2);

/// An alarm after so long without one is told, s of detection.
const AGAIN_S: u64 = QUIET_S / 4;

/// What was told of a fleet.
#[derive(Debug, Clone, Copy)]
struct Known {
    members: usize,
    last_alarm_s: u64,
    state: State,
}

/// What was told of fleets.
#[derive(Debug, Default)]
pub(super) struct News {
    known: BTreeMap<u64, Known>,
}

impl News {
    /// All that is remembered was told before.
    pub(super) fn after(memory: &Memory) -> Self {
        let now_s = memory.span_s().map_or(0, |(_, to_s)| to_s);
        let known = memory.fleets().map(|fleet| {
            let state = State::of(fleet, now_s);
            (fleet.id.0, Known { members: fleet.members.len(), last_alarm_s: fleet.last_alarm_s, state })
        });
        Self { known: known.collect() }
    }

    /// What is new since the last time. What became part of another fleet while no daemon told is told by nobody.
    pub(super) fn of(&mut self, memory: &Memory, report: &Report) -> Vec<Event> {
        let now_s = memory.span_s().map_or(0, |(_, to_s)| to_s);
        self.of_fleets(now_s, memory.fleets().zip(&report.fleets))
    }

    fn of_fleets<'a>(
        &mut self,
        now_s: u64,
        fleets: impl Iterator<Item = (&'a Fleet, &'a Found)>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let before = std::mem::take(&mut self.known);
        for (fleet, found) in fleets {
            let now = Known {
                members: fleet.members.len(),
                last_alarm_s: fleet.last_alarm_s,
                state: State::of(fleet, now_s),
            };
            let (news, known) = match before.get(&fleet.id.0) {
                None => (Some(FleetNews::Found), now),
                Some(known) => now.since(known),
            };
            events.extend(news.map(|news| Event::Fleet(event(news, found))));
            let parts = parts_since(&before, &fleet.joined);
            if !parts.is_empty() {
                let says = format!("parts of it now, and no fleets any more: {}", parts.join(", "));
                events.push(Event::Fleet(FleetEvent { says, ..event(FleetNews::Joined, found) }));
            }
            self.known.insert(fleet.id.0, known);
        }
        events
    }
}

/// Which of a fleet's parts were told as fleets of their own before.
fn parts_since(before: &BTreeMap<u64, Known>, joined: &[FleetId]) -> Vec<String> {
    joined.iter().filter(|part| before.contains_key(&part.0)).map(|part| part.0.to_string()).collect()
}

impl Known {
    /// What is told of it, and what was told then.
    fn since(self, known: &Self) -> (Option<FleetNews>, Self) {
        if self.state == State::Quiet {
            let news = (known.state == State::Active).then_some(FleetNews::Ended);
            return (news, self);
        }
        if self.last_alarm_s >= known.last_alarm_s + AGAIN_S {
            return (Some(FleetNews::AlarmAgain), self);
        }
        if self.members * GROWN.1 >= known.members * GROWN.0 && self.members > known.members {
            return (Some(FleetNews::Grown), self);
        }
        // A fleet that loses members and gains others has not grown.
        (None, Self { members: known.members, ..self })
    }
}

/// What is told of a decision that changed something; `None`: it goes on as it is, or nothing is known of the fleet any more. `past`: what the
/// history has of one that detection forgot, and how many members that had.
pub(super) fn of_decision(
    decision: &Decision,
    memory: &Memory,
    past: impl FnOnce() -> Option<(Found, u64)>,
) -> Option<Event> {
    let news = match decision.step {
        Step::Suggest => FleetNews::Suggested,
        Step::Throttle => FleetNews::Throttled,
        Step::Tighten => FleetNews::Tightened,
        Step::End => FleetNews::Released,
        Step::Nothing | Step::Renew | Step::Keep => return None,
    };
    let now_s = memory.span_s().map_or(0, |(_, to_s)| to_s);
    let known = memory.fleets().find(|fleet| fleet.id == decision.fleet);
    let known = known.map(|fleet| (Found::of(fleet, memory, now_s, &no_names), fleet.members.len() as u64));
    let (found, members) = known.or_else(past)?;
    Some(Event::Fleet(FleetEvent { says: decision.says.clone(), members, ..event(news, &found) }))
}

fn event(news: FleetNews, found: &Found) -> FleetEvent {
    let hard = found.evidence.iter().filter(|evidence| evidence.family != "novelty");
    let says = hard.max_by(|one, other| one.e_value.total_cmp(&other.e_value));
    FleetEvent {
        news,
        id: found.id.clone(),
        service: found.service.clone(),
        members: found.members.len() as u64,
        suspects: found.suspects.len() as u64,
        exchanges: found.exchanges,
        first_seen: found.first_seen.clone(),
        last_alarm: found.last_alarm.clone(),
        says: says.map_or(String::new(), |evidence| evidence.says.clone()),
        is_new_uniform_population: found.innocent_explanation.is_new_uniform_population,
        predicted_collateral: found.predicted_collateral,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actions::members::LeftOut,
        fleets::{Scale, fixtures},
    };

    #[test]
    fn a_fleet_is_told_when_it_comes_when_it_grows_and_when_it_ends() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        let mut news = News::default();
        let mut told = Vec::new();
        let mut tell = |memory: &Memory, news: &mut News| {
            for event in news.of(memory, &Report::of(memory, &no_names)) {
                let Event::Fleet(event) = event else { panic!("{event:?}") };
                told.push((event.news, event.members));
            }
        };
        for number in 0..fixtures::QUIET_EPOCHS + 4 {
            memory.take(&fixtures::epoch(number));
            tell(&memory, &mut news);
        }
        // A daemon that starts now tells nothing of it again.
        assert!(News::after(&memory).of(&memory, &Report::of(&memory, &no_names)).is_empty());
        let mut epoch = fixtures::epoch(0);
        (epoch.names, epoch.rows) = (Vec::new(), Vec::new());
        for hour in 0..60 {
            epoch.start_s = fixtures::START_S + (fixtures::QUIET_EPOCHS + 6) * 900 + hour * 3600;
            memory.take(&epoch);
            tell(&memory, &mut news);
        }
        let kinds: Vec<_> = told.iter().map(|(news, _)| *news).collect();
        assert_eq!(kinds.first(), Some(&FleetNews::Found), "{told:?}");
        assert_eq!(kinds.last(), Some(&FleetNews::Ended), "{told:?}");
        assert_eq!(kinds.iter().filter(|news| **news == FleetNews::Found).count(), 1, "{told:?}");
        assert_eq!(kinds.iter().filter(|news| **news == FleetNews::Ended).count(), 1, "{told:?}");
        let grown: Vec<_> = told.iter().filter(|(news, _)| *news == FleetNews::Grown).collect();
        assert!(grown.is_sorted_by_key(|(_, members)| *members), "{told:?}");
    }

    #[test]
    fn what_was_a_fleet_and_is_a_part_of_one_is_told_once() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        (0..fixtures::QUIET_EPOCHS + 6).for_each(|number| drop(memory.take(&fixtures::epoch(number))));
        let found = Report::of(&memory, &no_names).fleets.remove(0);
        let fleet = memory.fleets().next().expect("a fleet");
        let [one, other] = [5, 7].map(|id| Fleet { id: FleetId(fleet.id.0 + id), ..fleet.clone() });
        let whole = Fleet { joined: vec![one.id, other.id, FleetId(99)], ..fleet.clone() };
        let mut news = News::default();
        let mut told = |fleets: &[&Fleet]| {
            let events = news.of_fleets(fleet.last_seen_s, fleets.iter().map(|fleet| (*fleet, &found)));
            let of = |event| match event {
                Event::Fleet(FleetEvent { news, says, .. }) => (news, says),
                _ => panic!("{event:?}"),
            };
            events.into_iter().map(of).collect::<Vec<_>>()
        };
        assert!(told(&[fleet, &one, &other]).iter().all(|(news, _)| *news == FleetNews::Found));
        let says = format!("parts of it now, and no fleets any more: {}, {}", one.id.0, other.id.0);
        assert_eq!(told(&[&whole]), [(FleetNews::Joined, says)]);
        assert_eq!(told(&[&whole]), []);
    }

    #[test]
    fn the_end_of_an_action_is_told_also_of_a_fleet_that_was_forgotten() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        (0..fixtures::QUIET_EPOCHS + 6).for_each(|number| drop(memory.take(&fixtures::epoch(number))));
        let found = Report::of(&memory, &no_names).fleets.remove(0);
        let members = found.members.len() as u64;
        let forgotten = fixtures::memory(Scale::MINUTE);
        let id = found.id.parse().map(FleetId).expect("a number");
        let decision = Decision {
            fleet: id,
            step: Step::End,
            says: "detection does not know it any more".to_owned(),
            order: None,
            verdicts: Vec::new(),
            left_out: LeftOut::default(),
            effect: None,
            command: None,
            undo: None,
            before: None,
            standing: None,
        };
        let told = |memory: &Memory, past: Option<(Found, u64)>| match of_decision(&decision, memory, || past)
        {
            Some(Event::Fleet(event)) => {
                Some((event.news, event.id, event.service, event.members, event.says))
            }
            _ => None,
        };
        let says = decision.says.clone();
        let expected =
            |members| Some((FleetNews::Released, id.0.to_string(), "api".to_owned(), members, says.clone()));
        assert_eq!(told(&memory, None), expected(members));
        assert_eq!(told(&forgotten, Some((found, 7))), expected(7), "as many as it had");
        assert_eq!(told(&forgotten, None), None);
    }
}
