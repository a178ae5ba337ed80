//! `detector hunt`: looks for fleets in recordings.

use std::{
    io::{IsTerminal as _, stderr},
    time::Instant,
};

use detector_fleets::{
    detection::Detection, explanation::Statement, fleet::Fleet, limits::INTERVAL_S, observation::Services,
    source::Source,
};
use serde::Serialize;

use super::{EXIT_DONE, Failure, duration, print_json, print_line, rfc3339, time, warn};
use crate::{cli::HuntArgs, recording::Merged};

/// Whatever it is, the same recordings give the same fleets.
const SECRET: u64 = 0x6465_7465_6374_6f72;

/// Rows between two words about how far it is.
const ROWS_BETWEEN_WORDS: u64 = 1 << 20;

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    /// Rows that were read.
    rows: u64,
    /// Start of the first epoch; null: there are no rows.
    from: Option<String>,
    /// End of the last one.
    to: Option<String>,
    /// Rows that came too late, after the quarter of an hour that they are of.
    late: u64,
    /// Fleets, in the order in which they were found.
    fleets: Vec<Found>,
}

/// A fleet as it was when the recordings ended.
#[derive(Debug, Serialize)]
struct Found {
    /// Its number in this answer.
    id: String,
    service: String,
    first_seen: String,
    alarmed_at: String,
    last_alarm: String,
    /// Those that were active in the last day.
    members: Vec<String>,
    /// Those that may be.
    suspects: Vec<String>,
    /// Of the members, each in the window of at most a day in which it was found last.
    exchanges: u64,
    /// What it is known by; null: nothing that is its own.
    key: Option<FoundKey>,
    evidence: Vec<FoundEvidence>,
    innocent_explanation: Innocent,
    /// Share of the users at the service that acting on it would hit.
    predicted_collateral: f64,
}

/// Fingerprints. Recordings have keys; what they are called is known where they were recorded.
#[derive(Debug, Serialize)]
struct FoundKey {
    ja4: Option<String>,
    syn: Option<String>,
    tls_key: String,
    syn_key: String,
}

#[derive(Debug, Serialize)]
struct FoundEvidence {
    family: &'static str,
    observed: f64,
    expected: f64,
    e_value: f64,
    says: String,
}

#[derive(Debug, Serialize)]
struct Innocent {
    /// The nearest.
    explanation: &'static str,
    /// Why it was rejected, or that it was not.
    why: String,
    /// Nothing tells it from a launch: it is shown and never acted on.
    is_new_uniform_population: bool,
}

/// Looks for fleets.
pub fn hunt(args: &HuntArgs) -> Result<u8, Failure> {
    let mut merged = Merged::open(&args.recordings)?;
    let mut detection = Detection::new(args.sources, SECRET);
    let (mut rows, mut from_s, mut to_s) = (0_u64, None, 0);
    let mut progress = Progress::new(args.json);
    while let Some(row) = merged.next_row()? {
        from_s.get_or_insert(row.time_s);
        to_s = to_s.max(row.time_s + u64::from(row.span_s));
        // What is found is asked for at the end: a fleet keeps what was said of it.
        let _ = detection.observe(&row);
        rows += 1;
        progress.tell(rows, to_s);
    }
    progress.end();
    // The last quarter of an hour may not be over; what there is of it is looked at.
    let _ = detection.go_on_to(to_s + INTERVAL_S);
    let fleets = detection.fleets().map(|fleet| found(fleet, merged.services())).collect();
    let answer = Answer {
        rows,
        from: from_s.map(rfc3339),
        to: from_s.map(|_| rfc3339(to_s)),
        late: detection.late(),
        fleets,
    };
    if answer.late > 0 {
        warn(&format!(
            "{} rows came after the quarter of an hour that they are of and are not counted: rows of a file have to be in order of time",
            answer.late
        ));
    }
    if args.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer, to_s.saturating_sub(from_s.unwrap_or(to_s))));
    }
    Ok(EXIT_DONE)
}

fn found(fleet: &Fleet, services: &Services) -> Found {
    let sources = |sources: &mut dyn Iterator<Item = &Source>| sources.map(ToString::to_string).collect();
    let innocent = &fleet.explanation;
    Found {
        id: fleet.id.0.to_string(),
        service: services.name(fleet.service).to_owned(),
        first_seen: rfc3339(fleet.first_seen_s),
        alarmed_at: rfc3339(fleet.alarmed_at_s),
        last_alarm: rfc3339(fleet.last_alarm_s),
        members: sources(&mut fleet.members.keys()),
        suspects: sources(&mut fleet.suspects.iter()),
        exchanges: fleet.exchanges(),
        key: fleet.key.map(|key| FoundKey {
            ja4: None,
            syn: None,
            tls_key: format!("{:016x}", key.tls_key),
            syn_key: format!("{:016x}", key.syn_key),
        }),
        evidence: innocent.evidence.iter().map(evidence).collect(),
        innocent_explanation: Innocent {
            explanation: innocent.nearest.name(),
            why: innocent.why.clone(),
            is_new_uniform_population: innocent.is_new_uniform_population,
        },
        predicted_collateral: fleet.collateral,
    }
}

fn evidence(statement: &Statement) -> FoundEvidence {
    FoundEvidence {
        family: statement.family.map_or("novelty", |family| family.name()),
        observed: statement.observed,
        expected: statement.expected,
        e_value: statement.e_value,
        says: statement.sentence.clone(),
    }
}

fn text(answer: &Answer, seconds: u64) -> String {
    let rows = answer.rows;
    let Some(from) = &answer.from else { return "no rows".to_owned() };
    let fleets = counted(answer.fleets.len(), "fleet");
    let mut text = format!("{rows} rows from {from} on, {}: {fleets}", duration(seconds));
    for fleet in &answer.fleets {
        let members = fleet.members.len();
        text += &format!(
            "\n\nfleet {} at {}: {}, {}, {} exchanges\n  since {}, alarm {}, last {}",
            fleet.id,
            fleet.service,
            counted(members, "member"),
            counted(fleet.suspects.len(), "suspect"),
            fleet.exchanges,
            fleet.first_seen,
            fleet.alarmed_at,
            fleet.last_alarm
        );
        if let Some(key) = &fleet.key {
            text += &format!("\n  key: ClientHello {}, SYN {}", key.tls_key, key.syn_key);
        }
        for evidence in &fleet.evidence {
            text += &format!("\n  {}: {}", evidence.family, evidence.says);
        }
        let innocent = &fleet.innocent_explanation;
        text += &format!("\n  could it be {}? {}", innocent.explanation, innocent.why);
        text += &format!(
            "\n  of a million connections of users {:.0} would be hit",
            fleet.predicted_collateral * 1e6
        );
        let shown: Vec<_> = fleet.members.iter().take(SHOWN_MEMBERS).map(String::as_str).collect();
        if !shown.is_empty() {
            text += &format!("\n  {}{}", shown.join(" "), if members > SHOWN_MEMBERS { " …" } else { "" });
        }
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Members that are shown to people.
const SHOWN_MEMBERS: usize = 5;

/// Says on a terminal how far it is.
struct Progress {
    is_shown: bool,
    began: Instant,
}

impl Progress {
    fn new(json: bool) -> Self {
        Self { is_shown: !json && stderr().is_terminal(), began: Instant::now() }
    }

    fn tell(&self, rows: u64, to_s: u64) {
        if self.is_shown && rows.is_multiple_of(ROWS_BETWEEN_WORDS) {
            let each_s = rows as f64 / self.began.elapsed().as_secs_f64();
            anstream::eprint!("\r{} M rows, {:.2} M a second, at {} ", rows >> 20, each_s / 1e6, time(to_s));
        }
    }

    fn end(&mut self) {
        if self.is_shown {
            anstream::eprint!("\r{:60}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use detector_fleets::{
        cells::{Cell, Common},
        explanation::{Explanation, Innocent as Nearest},
        family::Family,
        fleet::{FleetId, Member},
        observation::ServiceId,
        traits::Key,
    };
    use serde_json::json;

    use super::*;

    fn fleet() -> (Fleet, Services) {
        let mut services = Services::default();
        services.number("web");
        let service = services.number("api").unwrap_or(ServiceId(0));
        let members = ["198.51.100.7/32", "2001:db8:1:2::/64"]
            .map(|text| (text.parse().expect("a source"), Member { last_s: 1_763_820_000, exchanges: 25 }));
        let statement = |family, sentence: &str| Statement {
            family,
            observed: 0.97,
            expected: 0.5,
            e_value: 1000.0,
            sentence: sentence.to_owned(),
        };
        let fleet = Fleet {
            id: FleetId(3),
            service,
            first_seen_s: 1_763_816_400,
            alarmed_at_s: 1_763_817_300,
            last_alarm_s: 1_763_820_000,
            decided_s: 900,
            members: BTreeMap::from(members),
            suspects: vec!["203.0.113.9/32".parse().expect("a source")],
            innocents: 2.0,
            collateral: 2e-6,
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
        (fleet, services)
    }

    #[test]
    fn a_fleet_is_told_with_all_that_was_found() {
        let (fleet, services) = fleet();
        let told = serde_json::to_value(found(&fleet, &services)).expect("JSON");
        let expected = json!({
            "id": "3",
            "service": "api",
            "first_seen": "2025-11-22T13:00:00Z",
            "alarmed_at": "2025-11-22T13:15:00Z",
            "last_alarm": "2025-11-22T14:00:00Z",
            "members": ["198.51.100.7/32", "2001:db8:1:2::/64"],
            "suspects": ["203.0.113.9/32"],
            "exchanges": 50,
            "key": { "ja4": null, "syn": null, "tls_key": "0000000000000abc", "syn_key": "0000000000000007" },
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
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn people_read_of_a_fleet_on_one_screen() {
        let (fleet, services) = fleet();
        let answer = Answer {
            rows: 1000,
            from: Some("2025-11-21T00:00:00Z".to_owned()),
            to: None,
            late: 0,
            fleets: vec![found(&fleet, &services)],
        };
        let text = text(&answer, 2 * 86_400);
        let parts = [
            "1000 rows from 2025-11-21T00:00:00Z on, 2 d 0 h: 1 fleet\n",
            "fleet 3 at api: 2 members, 1 suspect, 50 exchanges",
            "size: All are alike.",
            "could it be the release of a browser or an SDK? rejected: so",
            "of a million connections of users 2 would be hit",
            "198.51.100.7/32 2001:db8:1:2::/64",
        ];
        parts.into_iter().for_each(|part| assert!(text.contains(part), "{part:?} is missing in\n{text}"));
    }
}
