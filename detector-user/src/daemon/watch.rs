//! Noticing what the program and other processes do to the policy: a look every second, and after each change of our own.

use std::collections::BTreeSet;

use super::feed::{Event, Feed};
use crate::{
    clock,
    kernel::{
        maps::Maps,
        read::{self, ReadError},
    },
    policy::incident::Incident,
};

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<Seen>,
    /// Rules of this policy whose end was told.
    told: BTreeSet<String>,
    /// Whether the last look failed.
    is_failing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Of what packets are judged by.
    epoch: u32,
    /// Of the policy in it.
    policy_epoch: u32,
    /// Of the policy before that one: active again when a trial is taken back.
    policy_epoch_before: u32,
    incidents: Vec<Incident>,
    file: String,
    confirm_in_s: Option<u64>,
    ends: Vec<(String, u64)>,
    at_s: u64,
}

impl Watch {
    /// Looks, and tells what is new. The first look only remembers.
    pub(super) fn look(&mut self, maps: &Maps, feed: &Feed) {
        let now = match self.read(maps) {
            Ok(now) => now,
            Err(error) => {
                // Once until it can be read again. A policy that is replaced all the time is read a second later.
                if !self.is_failing {
                    tracing::warn!(
                        "what happens to the policy is not told until it can be read again: {error}"
                    );
                }
                self.is_failing = true;
                return;
            }
        };
        self.is_failing = false;
        if let Some(epoch) = self.taken_back(&now) {
            tracing::warn!(
                epoch,
                "nobody confirmed the policy: it was taken back, and the one before became active"
            );
        }
        for event in self.compare(&now) {
            feed.tell(event);
        }
        self.seen = Some(now);
    }

    /// The names are read only where the policy is another one.
    fn read(&self, maps: &Maps) -> Result<Seen, ReadError> {
        // In this order no policy is seen with the trial of a later one.
        let (confirm_in_s, epoch, at_s) = (read::confirm_in_s(maps), read::epoch(maps), clock::unix_s());
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.epoch == epoch) {
            return Ok(Seen { confirm_in_s, at_s, ..seen.clone() });
        }
        read::consistently(maps, |active| {
            let manifest = active.manifest()?.unwrap_or_default();
            let ends = manifest.rules.iter().filter_map(|rule| Some((rule.name.clone(), rule.until_s?)));
            Ok(Seen {
                epoch: active.epoch(),
                policy_epoch: active.policy_epoch(),
                policy_epoch_before: active.policy_epoch_before(),
                incidents: active.incidents()?.rules,
                file: manifest.file.clone(),
                confirm_in_s: read::confirm_in_s(maps),
                ends: ends.collect(),
                at_s,
            })
        })
    }

    fn compare(&mut self, now: &Seen) -> Vec<Event> {
        let Some(before) = &self.seen else { return Vec::new() };
        let mut events = Vec::new();
        let is_same = before.policy_epoch == now.policy_epoch;
        let ended = ended_trial(before, now);
        if let Some(Ended { confirmed, epoch }) = ended {
            events.push(Event::TrialEnded { confirmed, epoch });
        }
        // What is active since a trial ended was told with that.
        if !is_same && ended.is_none_or(|ended| ended.epoch != now.policy_epoch) {
            let (epoch, file, confirm_in_s) = (now.policy_epoch, now.file.clone(), now.confirm_in_s);
            events.push(Event::PolicyApplied { epoch, file, confirm_in_s });
        }
        if !is_same {
            self.told.clear();
        }
        let came = |until_s: u64| before.at_s < until_s && until_s <= now.at_s;
        for (rule, _) in now.ends.iter().filter(|(_, until_s)| came(*until_s)) {
            // Once, also where the clock of the wall is set back.
            if self.told.insert(rule.clone()) {
                events.push(Event::RuleEnded { rule: rule.clone() });
            }
        }
        events.extend(incidents(before, now));
        events
    }

    /// The policy that became active since nobody confirmed the one on trial, whoever settled that.
    fn taken_back(&self, now: &Seen) -> Option<u32> {
        let before = self.seen.as_ref()?;
        // Both are whole seconds.
        let is_over = now.at_s + 1 >= before.at_s + before.confirm_in_s?;
        let ended = ended_trial(before, now)?;
        (is_over && !ended.confirmed).then_some(ended.epoch)
    }

    /// Whether an incident rule has ended and is still there.
    pub(super) fn has_ended_incidents(&self) -> bool {
        let has_ended = |seen: &Seen| seen.incidents.iter().any(|incident| incident.has_ended(seen.at_s));
        self.seen.as_ref().is_some_and(has_ended)
    }
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    /// Whether the policy was to stay.
    confirmed: bool,
    /// The policy that was active then.
    epoch: u32,
}

/// How the trial of the look before ended; `None`: there was none, or it goes on.
///
/// One policy that came since says by the one before it what the end was. After two of them it is lost: the trial is told as
/// confirmed.
fn ended_trial(before: &Seen, now: &Seen) -> Option<Ended> {
    before.confirm_in_s?;
    let is_same = now.policy_epoch == before.policy_epoch;
    if is_same && now.confirm_in_s.is_some() {
        return None;
    }
    let went_back = [now.policy_epoch, now.policy_epoch_before].contains(&before.policy_epoch_before);
    let confirmed = is_same || !went_back;
    let epoch = if confirmed { before.policy_epoch } else { before.policy_epoch_before };
    Some(Ended { confirmed, epoch })
}

/// What became of incident rules between two looks. One that has ended is gone at the next change, or at the daemon's.
fn incidents(before: &Seen, now: &Seen) -> Vec<Event> {
    let is_in = |incident: &Incident, seen: &Seen| seen.incidents.iter().any(|other| other.id == incident.id);
    let mut events = Vec::new();
    for incident in before.incidents.iter().filter(|incident| !incident.has_ended(before.at_s)) {
        if incident.has_ended(now.at_s) {
            events.push(Event::RuleEnded { rule: format!("incident {}", incident.id) });
        } else if !is_in(incident, now) && now.policy_epoch != 0 {
            // Without a policy, as after a first trial, nothing is in force and nobody undid a thing.
            events.push(Event::IncidentUndone { id: incident.id });
        }
    }
    for incident in now.incidents.iter().filter(|incident| !is_in(incident, before)) {
        events.push(Event::IncidentAdded {
            id: incident.id,
            action: incident.action.to_string(),
            target: incident.matches.targets(1).concat(),
            target_count: incident.matches.count(),
            until_s: incident.until_s,
            by: incident.by.clone(),
            reason: incident.reason.clone(),
        });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Matches, incident::IncidentAction};

    fn seen(epoch: u32, confirm_in_s: Option<u64>, at_s: u64) -> Seen {
        let ends = vec![("INC-1".to_owned(), 100), ("INC-2".to_owned(), 200)];
        let file = "policy.toml".to_owned();
        Seen {
            epoch,
            policy_epoch: epoch,
            policy_epoch_before: epoch.saturating_sub(1),
            incidents: Vec::new(),
            file,
            confirm_in_s,
            ends,
            at_s,
        }
    }

    /// As [`seen`], with incident rules and their ends.
    fn beside(incidents: &[(u64, Option<u64>)], at_s: u64) -> Seen {
        let incident = |&(id, until_s): &(u64, Option<u64>)| Incident {
            id,
            action: IncidentAction::Block,
            matches: Matches::Sources(vec!["192.0.2.1/32".parse().unwrap()]),
            service: None,
            until_s,
            reason: "test".to_owned(),
            by: "nobody".to_owned(),
            at_s: 0,
            counter: 0,
        };
        Seen { incidents: incidents.iter().map(incident).collect(), ends: Vec::new(), ..seen(1, None, at_s) }
    }

    fn told(looks: &[Seen]) -> Vec<Event> {
        let mut watch = Watch::default();
        let mut events = Vec::new();
        for look in looks {
            events.extend(watch.compare(look));
            watch.seen = Some(look.clone());
        }
        events
    }

    #[test]
    fn a_trial_ends_in_one_of_two_ways() {
        let trial = [seen(1, None, 1), seen(2, Some(5), 2)];
        let applied =
            Event::PolicyApplied { epoch: 2, file: "policy.toml".to_owned(), confirm_in_s: Some(5) };
        let ended = |confirmed, epoch| Event::TrialEnded { confirmed, epoch };
        let [first, second] = trial.clone();
        assert_eq!(told(&[first, second, seen(2, None, 3)]), [applied.clone(), ended(true, 2)]);
        let [first, second] = trial;
        let back = Seen { policy_epoch_before: 2, ..seen(1, None, 3) };
        assert_eq!(told(&[first, second, back]), [applied, ended(false, 1)]);
    }

    #[test]
    fn a_trial_and_the_policy_after_it_are_both_told() {
        let ended = |confirmed, epoch| Event::TrialEnded { confirmed, epoch };
        let applied = |epoch, confirm_in_s| Event::PolicyApplied {
            epoch,
            file: "policy.toml".to_owned(),
            confirm_in_s,
        };
        let after_trial = |now| told(&[seen(2, Some(5), 2), now]);
        assert_eq!(after_trial(seen(3, None, 3)), [ended(true, 2), applied(3, None)], "confirmed");
        assert_eq!(after_trial(seen(3, Some(5), 3)), [ended(true, 2), applied(3, Some(5))], "the next trial");
        let after_the_first = |confirm_in_s| Seen { policy_epoch_before: 1, ..seen(3, confirm_in_s, 3) };
        assert_eq!(after_trial(after_the_first(None)), [ended(false, 1), applied(3, None)], "taken back");
        assert_eq!(after_trial(after_the_first(Some(5))), [ended(false, 1), applied(3, Some(5))]);
        assert_eq!(after_trial(seen(4, None, 3)), [ended(true, 2), applied(4, None)], "two more came");
    }

    #[test]
    fn nobody_confirmed_what_is_taken_back_at_its_end() {
        let back = |before, now| Watch { seen: Some(before), ..Watch::default() }.taken_back(&now);
        assert_eq!(back(seen(2, Some(2), 10), seen(1, None, 12)), Some(1));
        assert_eq!(back(seen(2, Some(5), 10), seen(1, None, 11)), None, "by hand");
        assert_eq!(back(seen(2, Some(2), 10), seen(2, None, 12)), None, "confirmed");
        assert_eq!(back(seen(2, Some(2), 10), seen(2, Some(1), 12)), None, "it waits");
        assert_eq!(back(seen(2, None, 10), seen(3, None, 12)), None, "it never waited");
        assert_eq!(back(seen(2, Some(2), 10), seen(3, None, 12)), None, "confirmed, and another came");
        let other = Seen { policy_epoch_before: 1, ..seen(3, None, 12) };
        assert_eq!(back(seen(2, Some(2), 10), other), Some(1), "and another came");
    }

    #[test]
    fn without_a_policy_no_incident_rule_was_undone() {
        let before = Seen { confirm_in_s: Some(1), ..beside(&[(1, None)], 1) };
        let none = Seen { epoch: 0, policy_epoch: 0, ..beside(&[], 2) };
        assert_eq!(told(&[before, none]), [Event::TrialEnded { confirmed: false, epoch: 0 }]);
    }

    #[test]
    fn incident_rules_come_end_and_are_undone_and_that_is_told_once() {
        let looks = [
            beside(&[], 1),
            Seen { epoch: 2, ..beside(&[(1, Some(5)), (2, None)], 2) },
            // The daemon lets go what has ended, a look later.
            Seen { epoch: 2, ..beside(&[(1, Some(5)), (2, None)], 5) },
            Seen { epoch: 3, ..beside(&[(2, None)], 6) },
            Seen { epoch: 4, ..beside(&[(3, Some(8))], 7) },
            Seen { epoch: 5, ..beside(&[], 9) },
        ];
        let text = |event: &Event| match event {
            Event::IncidentAdded { id, .. } => format!("added {id}"),
            Event::IncidentUndone { id } => format!("undone {id}"),
            Event::RuleEnded { rule } => format!("ended {rule}"),
            other => format!("{other:?}"),
        };
        let told: Vec<_> = told(&looks).iter().map(text).collect();
        assert_eq!(
            told,
            ["added 1", "added 2", "ended incident 1", "undone 2", "added 3", "ended incident 3"]
        );
    }

    #[test]
    fn the_end_of_a_rule_is_told_once() {
        let ended = |rule: &str| Event::RuleEnded { rule: rule.to_owned() };
        let looks = [seen(1, None, 99), seen(1, None, 100), seen(1, None, 98), seen(1, None, 101)];
        assert_eq!(told(&looks), [ended("INC-1")]);
        assert_eq!(told(&[seen(1, None, 150), seen(1, None, 199)]), []);
        assert_eq!(told(&[seen(1, None, 99), seen(1, None, 300)]), [ended("INC-1"), ended("INC-2")]);
    }
}
