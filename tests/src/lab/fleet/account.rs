//! How everybody fared, by their own account and by detector's; and whether that is what was promised.

use std::{collections::BTreeSet, sync::Mutex};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Story, curl::Answer, lock};
use crate::{
    daemon::Site,
    lab::{
        Verdict,
        view::{GREEN, RED, Style, number},
    },
};

/// The share of the fleet's requests that has to be cut: 5 % of its members are held out, and so few of its exits are there that this
/// may be 8 % of them by chance.
const CUT_MIN: f64 = 0.90;

/// People among a hundred members, at most: detection promises less than one, of the few hundred that are here.
const INNOCENTS_MAX_PERCENT: usize = 1;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    People,
    Actor,
}

/// Requests that were answered, and that were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) answered: u64,
    pub(super) failed: u64,
}

impl Count {
    pub(super) const fn all(self) -> u64 {
        self.answered + self.failed
    }

    const fn since(self, before: Self) -> Self {
        Self { answered: self.answered - before.answered, failed: self.failed - before.failed }
    }

    /// The share that failed; of none nothing.
    fn cut(self) -> f64 {
        self.failed as f64 / self.all().max(1) as f64
    }
}

/// What all count together.
#[derive(Debug, Default)]
struct Counts {
    people: Count,
    actor: Count,
    /// The same a second ago.
    before: (Count, Count),
    /// The actor's when it was throttled.
    until_throttled: Option<Count>,
    /// What went wrong for people first.
    complaint: Option<String>,
    /// What went wrong with the lab itself first.
    problem: Option<String>,
}

/// What all did so far.
#[derive(Debug, Default)]
pub(super) struct Account(Mutex<Counts>);

impl Account {
    /// Adds how requests ended.
    pub(super) fn add(&self, who: Who, asked: usize, answers: Result<Vec<Answer>>) {
        let mut counts = lock(&self.0);
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                let problem = format!("{asked} requests could not be made: {error:#}");
                counts.problem.get_or_insert(problem);
                return;
            }
        };
        for Answer { source, complaint } in answers {
            let count = match who {
                Who::People => &mut counts.people,
                Who::Actor => &mut counts.actor,
            };
            match complaint {
                None => count.answered += 1,
                Some(_) => count.failed += 1,
            }
            if who == Who::People
                && let Some(complaint) = complaint
            {
                counts.complaint.get_or_insert_with(|| format!("{source}: {complaint}"));
            }
        }
    }

    /// From now on the fleet is throttled.
    pub(super) fn throttled(&self) {
        let mut counts = lock(&self.0);
        counts.until_throttled = Some(counts.actor);
    }

    /// What people and the actor did, in all and since it was asked last.
    pub(super) fn second(&self) -> [(Count, Count); 2] {
        let mut counts = lock(&self.0);
        let (people, actor) = counts.before;
        counts.before = (counts.people, counts.actor);
        [(counts.people, counts.people.since(people)), (counts.actor, counts.actor.since(actor))]
    }
}

/// What happened.
#[derive(Debug)]
pub(super) struct Summary {
    story: Story,
    people: Count,
    before: Count,
    after: Count,
    /// Members that detector names, and how many of them are people.
    members: usize,
    innocents: usize,
    /// Packets of those people that were dropped.
    refused: u64,
    /// Packets that were dropped for the fleet's sake, and for another reason.
    dropped: u64,
    dropped_otherwise: u64,
    complaint: Option<String>,
    faults: Vec<String>,
}

impl Summary {
    /// Draws up the account.
    pub(super) fn new(site: &Site<'_>, account: &Account, story: &Story) -> Result<Self> {
        let counts = lock(&account.0);
        let metrics = site.metrics()?;
        let dropped = |reason: &[(&str, &str)]| {
            metrics.sum("detector_packets_total", &[&[("verdict", "drop")], reason].concat())
        };
        let of_fleet = dropped(&[("reason", "fleet")]);
        let exits: BTreeSet<&str> = story.exits.iter().map(String::as_str).collect();
        let told = story.told["fleets"].as_array().context("detector tells fleets")?;
        let members: Vec<&str> = told
            .iter()
            .flat_map(|fleet| fleet["members"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let innocents: Vec<&str> = members.iter().copied().filter(|member| !exits.contains(member)).collect();
        let mut refused = 0;
        for person in &innocents {
            let address = person.split('/').next().unwrap_or_default();
            let (_, explained) = site.ask_json(&["explain", address])?;
            refused += explained["services"][0]["seen"]["dropped"].as_u64().unwrap_or(0);
        }
        let mut summary = Self {
            story: story.clone(),
            people: counts.people,
            before: counts.until_throttled.unwrap_or(counts.actor),
            after: counts.actor.since(counts.until_throttled.unwrap_or(counts.actor)),
            members: members.len(),
            innocents: innocents.len(),
            refused,
            dropped: of_fleet,
            dropped_otherwise: dropped(&[]) - of_fleet,
            complaint: counts.complaint.clone(),
            faults: Vec::new(),
        };
        summary.faults = summary.faults(counts.problem.as_deref());
        Ok(summary)
    }

    fn faults(&self, problem: Option<&str>) -> Vec<String> {
        let Story { learned, found, throttled, .. } = self.story;
        let mut faults: Vec<String> = problem.map(str::to_owned).into_iter().collect();
        let mut fault = |is_one: bool, says: String| faults.extend(is_one.then_some(says));
        fault(self.people.failed > 0, format!("{} requests of people failed", number(self.people.failed)));
        let are_many = self.innocents * 100 > self.members * INNOCENTS_MAX_PERCENT;
        fault(are_many, format!("{} people are taken for members", self.innocents));
        let otherwise = number(self.dropped_otherwise);
        fault(
            self.dropped_otherwise > 0,
            format!("{otherwise} packets were dropped though no source reached a limit"),
        );
        fault(learned.is_some() && found.is_none(), "the fleet was not found".to_owned());
        fault(found.is_some() && throttled.is_none(), "the fleet was found and not throttled".to_owned());
        let cut = self.after.cut();
        fault(
            self.after.all() > 0 && cut < CUT_MIN,
            format!("only {:.1} % of the fleet's requests were cut", cut * 100.0),
        );
        // Each request that a budget refuses has lost a packet: otherwise it is the lab that fails, which would look like a cut.
        let is_otherwise = self.after.failed > self.dropped;
        let (failed, dropped) = (number(self.after.failed), number(self.dropped));
        fault(
            is_otherwise,
            format!("{failed} of the fleet's requests failed, but only {dropped} packets were dropped"),
        );
        faults
    }

    /// How it ended.
    pub(super) fn verdict(&self) -> Verdict {
        if self.faults.is_empty() { Verdict::Kept } else { Verdict::Broken }
    }

    /// The account for programs. Times are minutes of detection since the start.
    pub(super) fn json(&self) -> Value {
        let Story { now_min, learned, found, throttled, newcomers, ref exits, .. } = self.story;
        let rounded = |minutes: Option<f64>| minutes.map(f64::round);
        let count = |count: Count| json!({ "answered": count.answered, "failed": count.failed });
        json!({
            "kept": self.faults.is_empty(),
            "faults": self.faults,
            "minutes": { "end": now_min.round(), "learned": rounded(learned), "found": rounded(found),
                "throttled": rounded(throttled), "newcomers": rounded(newcomers) },
            "people": count(self.people),
            "fleet": { "exits": exits.len(), "before_throttle": count(self.before), "throttled": count(self.after),
                "cut": self.after.cut(), "packets_dropped": self.dropped },
            "members": { "all": self.members, "people": self.innocents, "packets_of_people_dropped": self.refused },
            "dropped_otherwise": self.dropped_otherwise,
        })
    }

    /// The same in sentences.
    pub(super) fn text(&self, style: Style) -> String {
        let Story { learned, found, throttled, ref exits, .. } = self.story;
        let mut text = format!(
            "\nPeople made {} requests; {} failed.\n",
            number(self.people.all()),
            number(self.people.failed)
        );
        text.extend(self.complaint.iter().map(|complaint| format!("  {complaint}\n")));
        if let Some(learned) = learned {
            text.push_str(&format!("One actor came by {} exits, each below every limit.\n", exits.len()));
            if let Some(found) = found {
                text.push_str(&format!(
                    "It was found {:.0} minutes of detection's time after its first request; {} members are known, {} of them people, \
                     of whom {} packets were dropped and came again.\n",
                    found - learned, number(self.members as u64), self.innocents, number(self.refused)
                ));
            }
        }
        if throttled.is_some() {
            text.push_str(&format!(
                "Until it was throttled, {} of its {} requests were answered; since then {} of {}: {:.1} % are cut. \
                 {} packets were dropped for that, and {} for any other reason.\n",
                number(self.before.answered), number(self.before.all()),
                number(self.after.answered), number(self.after.all()), self.after.cut() * 100.0,
                number(self.dropped), number(self.dropped_otherwise)
            ));
        }
        let (colour, says) = if !self.faults.is_empty() {
            (RED, format!("This is not what was promised: {}.", self.faults.join("; ")))
        } else if throttled.is_some() {
            (
                GREEN,
                "The fleet was found, explained and throttled, and every request of people was answered."
                    .to_owned(),
            )
        } else {
            (GREEN, "People lost nothing; it ended before a fleet was found.".to_owned())
        };
        text.push_str(&style.paint(colour, &says));
        text
    }
}
