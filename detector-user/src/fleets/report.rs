//! What is told of fleets: to programs as JSON, to the API, to the history. One shape for all.

use std::collections::{BTreeMap, BTreeSet};

use detector_fleets::{
    explanation::Statement,
    fleet::{FORGOTTEN_S, Fleet, QUIET_S},
    observation::ServiceId,
    traits::Key,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{memory::Memory, scale::Scale};
use crate::commands::{duration, rfc3339};

/// All fleets that are known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Fleets)]
pub struct Report {
    /// Rows that were looked at.
    pub rows: u64,
    /// Start of the first epoch; null: there are no rows.
    pub from: Option<String>,
    /// End of the last one.
    pub to: Option<String>,
    /// Length of an epoch, as `run --fleet-epoch` takes it. Windows, delays and memory are so many epochs: with `60s` a day is a day.
    pub epoch: String,
    /// Rows that came too late, after the quarter of an hour that they are of.
    pub late: u64,
    /// Counts of sources or clients that found no room, in their epoch or in their quarter of an hour.
    pub lost: u64,
    /// Sources that were forgotten since there was no room for all: they are new when they come again.
    pub forgotten: u64,
    /// Members that found no room.
    pub left_out: u64,
    /// Services that rows were of.
    pub services: Vec<Learning>,
    /// Fleets, in the order in which they were found.
    pub fleets: Vec<Found>,
}

/// How far detection is with a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Learning {
    /// Its name.
    pub service: String,
    /// Until when what is usual is being learned, if nothing is missing of the time: no fleet is found before. Of windows of a day it takes
    /// longer.
    pub learning_until: String,
}

/// A fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Fleet)]
pub struct Found {
    /// Its number, which it keeps.
    pub id: String,
    /// Its target.
    pub service: String,
    /// Whether it was seen in the last day.
    pub state: State,
    /// When one in twenty of its first members had come: users among them were there earlier.
    pub first_seen: String,
    /// The first alarm.
    pub alarmed_at: String,
    /// The last one.
    pub last_alarm: String,
    /// When it was last seen: it had an alarm, or enough of its members were there. Alarms are about sources that are new, and sources are so for
    /// a day. Empty in what a version before told that did not know.
    #[serde(default)]
    pub last_seen: String,
    /// Those that were active in the last two days.
    pub members: Vec<String>,
    /// Those that may be.
    pub suspects: Vec<String>,
    /// How many different /24 and /48 members are in.
    pub prefixes: u64,
    /// Of the members, each in the window of at most a day in which it was found last.
    pub exchanges: u64,
    /// Of a member at the median, in the last window; null: not known.
    pub median_exchanges: Option<u32>,
    /// What it is known by; null: nothing that is its own.
    pub key: Option<FoundKey>,
    /// What speaks for it, at the last alarm that could not be people behind a relay, if there was one.
    pub evidence: Vec<FoundEvidence>,
    /// What else it could be.
    pub innocent_explanation: Innocent,
    /// Share of the users' connections at the service that acting on it would hit.
    pub predicted_collateral: f64,
    /// When it would be a fleet no more.
    pub clears: String,
    /// Numbers of fleets that were found to be parts of it, at most 64: they are no fleets of their own any more, and are told as they were last.
    #[serde(default)]
    pub parts: Vec<String>,
}

/// Whether a fleet is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FleetState)]
pub enum State {
    /// It was seen in the last day: it had an alarm, or enough of its members were there.
    Active,
    /// It was not.
    Quiet,
}

impl State {
    /// That of a fleet at a time of detection, s.
    pub fn of(fleet: &Fleet, now_s: u64) -> Self {
        if fleet.is_live(now_s) { Self::Active } else { Self::Quiet }
    }

    /// As JSON writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quiet => "quiet",
        }
    }
}

/// Fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetKey)]
pub struct FoundKey {
    /// Of the ClientHello; null: not known, as in recordings, which have keys only.
    pub ja4: Option<String>,
    /// Of the SYN; null: not known.
    pub syn: Option<String>,
    /// What the program counts the ClientHello by, hexadecimal.
    pub tls_key: String,
    /// … the SYN.
    pub syn_key: String,
}

/// What one family says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetEvidence)]
pub struct FoundEvidence {
    /// Its name; `novelty` opens the gate, and never counts as one of the two that an alarm needs.
    pub family: String,
    /// What was observed: a share of sources, of novelty a number of them.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
    /// How much likelier it is of a fleet than of users.
    pub e_value: f64,
    /// The same for people.
    pub says: String,
}

/// What is innocent and looks like it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetInnocent)]
pub struct Innocent {
    /// The nearest.
    pub explanation: String,
    /// Why it was rejected, or that it was not.
    pub why: String,
    /// It was not rejected: the fleet is shown, and acted on only where an operator orders it and insists.
    pub is_new_uniform_population: bool,
}

/// What fingerprints are called at a service: the JA4 of a ClientHello, and a SYN, where they are known.
pub type Names<'a> = dyn Fn(&str, Key) -> (Option<String>, Option<String>) + 'a;

/// No names, for who does not tell them.
pub const fn no_names(_service: &str, _key: Key) -> (Option<String>, Option<String>) {
    (None, None)
}

impl Report {
    /// What there is to tell of a memory.
    pub fn of(memory: &Memory, names: &Names<'_>) -> Self {
        let scale = memory.scale();
        let detection = memory.detection();
        let time = |inner_s| rfc3339(scale.unix_s(inner_s));
        let now_s = memory.span_s().map_or(0, |(_, to_s)| to_s);
        let learning = memory.services().names().iter().zip(0..).filter_map(|(name, number)| {
            let from_s = detection.learned_from_s(ServiceId(number))?;
            Some(Learning { service: name.clone(), learning_until: time(from_s) })
        });
        let found = |fleet| Found::of(fleet, memory, now_s, names);
        Self {
            rows: memory.rows(),
            from: memory.span_s().map(|(from_s, _)| time(from_s)),
            to: memory.span_s().map(|(_, to_s)| time(to_s)),
            epoch: scale.to_string(),
            late: detection.late(),
            lost: memory.lost(),
            forgotten: detection.seen().replaced(),
            left_out: detection.left_out(),
            services: learning.collect(),
            fleets: memory.fleets().map(found).collect(),
        }
    }

    /// How many fleets there are by service and state, in order.
    pub fn counts(&self) -> BTreeMap<(&str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for fleet in &self.fleets {
            *counts.entry((fleet.service.as_str(), fleet.state.name())).or_default() += 1;
        }
        counts
    }

    /// A fleet by its number.
    pub fn fleet(&self, id: &str) -> Option<&Found> {
        self.fleets.iter().find(|fleet| fleet.id == id)
    }

    /// The fleet that one with this number is a part of.
    pub fn whole_of(&self, id: &str) -> Option<&Found> {
        self.fleets.iter().find(|fleet| fleet.parts.iter().any(|part| part == id))
    }
}

impl Found {
    /// What there is to tell of a fleet at a time of detection, s.
    pub fn of(fleet: &Fleet, memory: &Memory, now_s: u64, names: &Names<'_>) -> Self {
        let scale = memory.scale();
        let time = |inner_s| rfc3339(scale.unix_s(inner_s));
        let service = memory.services().name(fleet.service);
        let why = &fleet.explanation;
        let prefixes: BTreeSet<_> =
            fleet.members.keys().map(|source| (source.is_v4(), source.neighbourhood())).collect();
        Self {
            id: fleet.id.0.to_string(),
            service: service.to_owned(),
            state: State::of(fleet, now_s),
            first_seen: time(fleet.first_seen_s),
            alarmed_at: time(fleet.alarmed_at_s),
            last_alarm: time(fleet.last_alarm_s),
            last_seen: time(fleet.last_seen_s),
            members: fleet.members.keys().map(ToString::to_string).collect(),
            suspects: fleet.suspects.iter().map(|suspect| suspect.source.to_string()).collect(),
            prefixes: prefixes.len() as u64,
            exchanges: fleet.exchanges(),
            median_exchanges: fleet.traits.as_ref().map(|traits| traits.exchanges),
            key: fleet.key.map(|key| FoundKey::of(key, service, names)),
            evidence: why.evidence.iter().map(evidence).collect(),
            innocent_explanation: Innocent {
                explanation: why.nearest.name().to_owned(),
                why: why.why.clone(),
                is_new_uniform_population: why.is_new_uniform_population,
            },
            predicted_collateral: fleet.collateral,
            clears: clears(fleet, scale),
            parts: fleet.joined.iter().map(|part| part.0.to_string()).collect(),
        }
    }
}

impl FoundKey {
    fn of(key: Key, service: &str, names: &Names<'_>) -> Self {
        let (ja4, syn) = names(service, key);
        Self { ja4, syn, tls_key: format!("{:016x}", key.tls_key), syn_key: format!("{:016x}", key.syn_key) }
    }
}

fn evidence(statement: &Statement) -> FoundEvidence {
    FoundEvidence {
        family: statement.family.map_or("novelty", |family| family.name()).to_owned(),
        observed: statement.observed,
        expected: statement.expected,
        e_value: statement.e_value,
        says: statement.sentence.clone(),
    }
}

/// A length of time of detection, outside and for people.
fn outside(scale: Scale, inner_s: u64) -> String {
    duration(scale.unix_s(inner_s))
}

fn clears(fleet: &Fleet, scale: Scale) -> String {
    let speaks = fleet.explanation.evidence.iter().filter(|one| one.e_value >= ODDS_MIN);
    let hard: Vec<_> = speaks.filter_map(|one| one.family).map(|family| family.name()).collect();
    format!(
        "no alarm where fewer than two families say 100 : 1 (now {}), or no more sources are new than expected; quiet {} after a tenth of \
         its members or an alarm was last seen, forgotten after {}",
        hard.join(", "),
        outside(scale, QUIET_S),
        outside(scale, FORGOTTEN_S)
    )
}

/// What a family has to say at least for an alarm.
const ODDS_MIN: f64 = 99.0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use detector_fleets::{
        cells::{Cell, Common},
        explanation::{Explanation, Innocent as Nearest},
        family::Family,
        fleet::{FleetId, Member, Suspect},
    };
    use serde_json::json;

    use super::*;
    use crate::fleets::{fixtures, text::screen};

    fn fleet() -> (Fleet, Memory) {
        let mut memory = fixtures::memory(Scale::MINUTE);
        memory.number("web");
        let service = memory.number("api").unwrap_or(ServiceId(0));
        let members = ["198.51.100.7/32", "2001:db8:1:2::/64"].map(|text| {
            (
                text.parse().expect("a source"),
                Member {
                    last_s: 1_763_820_000,
                    refused_s: 0,
                    exchanges: 25,
                    connections: 5,
                    tls_keys: 1,
                    is_busy: false,
                },
            )
        });
        let statement = |family, sentence: &str| Statement {
            family,
            observed: 0.97,
            expected: 0.5,
            e_value: 1000.0,
            sentence: sentence.to_owned(),
        };
        let fleet = Fleet {
            joined: Vec::new(),
            collateral: 2e-6,
            usage: detector_fleets::usage::Usage::default(),
            id: FleetId(3),
            service,
            first_seen_s: 1_763_816_400,
            alarmed_at_s: 1_763_817_300,
            last_alarm_s: 1_763_820_000,
            last_seen_s: 1_763_820_600,
            most: 0.0,
            decided_s: 900,
            members: BTreeMap::from(members),
            suspects: vec![Suspect { source: "203.0.113.9/32".parse().expect("a source"), is_shared: false }],
            innocents: 2.0,
            users: 1_000_000.0,
            key: Some(Key { tls_key: 0xabc, syn_key: 7 }),
            traits: None,
            cells: Vec::new(),
            explanation: Explanation {
                cell: Cell { service, common: Common::Tls(0xabc) },
                evidence: vec![
                    statement(None, "Many are new."),
                    statement(Some(Family::Size), "All are alike."),
                ],
                nearest: Nearest::Release,
                why: "rejected: so".to_owned(),
                is_new_uniform_population: false,
            },
        };
        (fleet, memory)
    }

    #[test]
    fn a_fleet_is_told_with_all_that_was_found() {
        let (fleet, memory) = fleet();
        let name = |service: &str, key: Key| (Some(format!("{service} {:x}", key.tls_key)), None);
        let found = Found::of(&fleet, &memory, 1_763_820_600 + QUIET_S, &name);
        let told = serde_json::to_value(&found).expect("JSON");
        let expected = json!({
            "id": "3",
            "service": "api",
            "state": "quiet",
            "first_seen": "2025-11-22T13:00:00Z",
            "alarmed_at": "2025-11-22T13:15:00Z",
            "last_alarm": "2025-11-22T14:00:00Z",
            "last_seen": "2025-11-22T14:10:00Z",
            "members": ["198.51.100.7/32", "2001:db8:1:2::/64"],
            "suspects": ["203.0.113.9/32"],
            "prefixes": 2,
            "exchanges": 50,
            "median_exchanges": null,
            "key": { "ja4": "api abc", "syn": null, "tls_key": "0000000000000abc", "syn_key": "0000000000000007" },
            "evidence": [
                { "family": "novelty", "observed": 0.97, "expected": 0.5, "e_value": 1000.0, "says": "Many are new." },
                { "family": "size", "observed": 0.97, "expected": 0.5, "e_value": 1000.0, "says": "All are alike." },
            ],
            "innocent_explanation": {
                "explanation": "the release of a browser or an SDK",
                "why": "rejected: so",
                "is_new_uniform_population": false,
            },
            "predicted_collateral": 2e-6,
            "clears": "no alarm where fewer than two families say 100 : 1 (now size), or no more sources are new than expected; quiet 1 d 0 h after a tenth of its members or an alarm was last seen, forgotten after 14 d 0 h",
            "parts": [],
        });
        assert_eq!(told, expected);
        assert_eq!(
            serde_json::from_value::<Found>(told).expect("a fleet"),
            found,
            "it is read as it is written"
        );
    }

    #[test]
    fn people_read_of_a_fleet_on_one_screen() {
        let (fleet, memory) = fleet();
        let text = screen(&Found::of(&fleet, &memory, 1_763_820_000, &no_names));
        let parts = [
            "fleet 3 at api: active\n  2 members in 2 prefixes of /24 or /48, 1 suspect, 50 exchanges in a day\n",
            "key: ClientHello 0000000000000abc, SYN 0000000000000007",
            "size: All are alike.",
            "could it be the release of a browser or an SDK? rejected: so",
            "of a million connections of users 2 would be hit",
            "198.51.100.7/32 2001:db8:1:2::/64",
        ];
        parts.into_iter().for_each(|part| assert!(text.contains(part), "{part:?} is missing in\n{text}"));
    }

    #[test]
    fn times_of_short_epochs_are_those_outside() {
        let scale = "1s".parse().expect("a scale");
        let mut memory = fixtures::memory(scale);
        let start_s = scale.inner_s(1_763_816_400_000);
        memory.take(&crate::fleets::Epoch { start_s, names: vec!["api".to_owned()], ..Default::default() });
        let report = Report::of(&memory, &no_names);
        assert_eq!(
            (report.from.as_deref(), report.to.as_deref(), report.epoch.as_str()),
            (Some("2025-11-22T13:00:00Z"), Some("2025-11-22T13:00:01Z"), "1s")
        );
    }
}
