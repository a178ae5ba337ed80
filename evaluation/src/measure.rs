//! A run of a scenario through detection, and how what was found compares with the truth.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use anyhow::{Context as _, Result};
use detector_fleets::{
    detection::{Detection, Look, WINDOWS},
    fleet::{Fleet, FleetId},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};
use detector_generator::{Family, Row, Scenario, Truth};

/// Hours after the start of a fleet at which its members are compared.
pub(crate) const COMPARED_AT_H: [u64; 2] = [6, 24];

/// The part of a found fleet that has to be of a true one for it to be that.
const TRUE_MIN: f64 = 0.1;

const HOUR_S: u64 = 3600;

/// Members against the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Compared {
    /// Sources that were found and are members.
    right: usize,
    /// Sources that were found.
    found: usize,
    /// Members that were active in the last 24 h.
    members: usize,
}

impl Compared {
    /// The part of what was found that is right; nothing that was found is all wrong.
    pub(crate) fn precision(self) -> f64 {
        self.right as f64 / self.found.max(1) as f64
    }

    /// The part of the members that was found.
    pub(crate) fn recall(self) -> f64 {
        self.right as f64 / self.members.max(1) as f64
    }
}

/// A fleet of the truth.
#[derive(Clone, Debug)]
pub(crate) struct TrueFleet {
    pub(crate) name: String,
    pub(crate) level: String,
    /// Of the daily sources of its service.
    pub(crate) share: f64,
    /// From its start to the first alarm of a fleet that is it.
    pub(crate) minutes_to_alarm: Option<u64>,
    /// At [`COMPARED_AT_H`]; `None`: it was over, or the recording was.
    pub(crate) compared: [Option<Compared>; COMPARED_AT_H.len()],
    /// Numbers that it was found under.
    pub(crate) found_as: Vec<u64>,
    /// How many of those that are no suggestion for ever.
    pub(crate) may_be_acted_on: bool,
}

/// A fleet that was found.
#[derive(Clone, Debug)]
pub(crate) struct FoundFleet {
    pub(crate) id: u64,
    /// Hours from the start of the recording to its alarm.
    pub(crate) alarmed_h: f64,
    /// The most members that it had.
    pub(crate) members: usize,
    /// Whether it was never more than a new uniform population.
    pub(crate) is_uniform: bool,
    pub(crate) told: String,
    /// The largest part of its members that was of a true fleet, and of which.
    share: f64,
    of: Option<usize>,
    first_right_s: Option<u64>,
    alarmed_s: u64,
}

impl FoundFleet {
    /// Whether it is none.
    pub(crate) fn is_false(&self) -> bool {
        self.of.is_none()
    }
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) fleets: Vec<TrueFleet>,
    pub(crate) found: Vec<FoundFleet>,
    pub(crate) rows: u64,
    /// Time that detection took, and the longest look, s.
    pub(crate) detecting_s: f64,
    pub(crate) longest_look_s: f64,
}

/// Runs a scenario with a seed.
pub(crate) fn measure(scenario: &Scenario, seed: u64, has_alarms: bool) -> Result<Run> {
    let mut generation = detector_generator::generate(scenario, seed);
    let start_s = generation.truth().start_s;
    let mut detection = Detection::new(2_000_000, seed);
    let mut run = Run::default();
    let mut found: BTreeMap<FleetId, FoundFleet> = BTreeMap::new();
    let mut compared: BTreeMap<(usize, usize), Compared> = BTreeMap::new();
    let mut next_h = 1;
    while let Some(epoch) = generation.next() {
        let began = Instant::now();
        let mut looks = detection.go_on_to(epoch.time_s);
        run.longest_look_s = run.longest_look_s.max(began.elapsed().as_secs_f64());
        if epoch.time_s >= start_s + next_h * HOUR_S {
            next_h += 1;
            if detection.fleets().next().is_some() {
                let truth = generation.truth();
                note(&detection, &truth, epoch.time_s, &mut found);
                compare(&detection, &truth, epoch.time_s, &found, &mut compared);
            }
        }
        let began = Instant::now();
        for row in &epoch.rows {
            run.rows += 1;
            looks.extend(detection.observe(&observation(row, epoch.time_s, epoch.span_s)?));
        }
        run.detecting_s += began.elapsed().as_secs_f64();
        if has_alarms {
            looks.iter().for_each(|look| print_alarms(look, start_s));
        }
    }
    let truth = generation.truth();
    run.fleets = truth
        .fleets
        .iter()
        .enumerate()
        .map(|(number, fleet)| {
            let of = |found: &&FoundFleet| found.of == Some(number);
            let alarm_s = |found: &FoundFleet| {
                if found.alarmed_s >= fleet.start_s { Some(found.alarmed_s) } else { found.first_right_s }
            };
            let alarm_s = found.values().filter(of).filter_map(alarm_s).min();
            TrueFleet {
                name: fleet.name.clone(),
                level: format!("{:?}", fleet.level),
                share: fleet.share,
                minutes_to_alarm: alarm_s.map(|at| at.saturating_sub(fleet.start_s) / 60),
                compared: std::array::from_fn(|at| {
                    let is_over = fleet.end_s <= fleet.start_s + COMPARED_AT_H[at] * HOUR_S;
                    (!is_over).then(|| compared.get(&(number, at)).copied().unwrap_or_default())
                }),
                found_as: found.values().filter(of).map(|found| found.id).collect(),
                may_be_acted_on: found.values().filter(of).any(|found| !found.is_uniform),
            }
        })
        .collect();
    run.found = found
        .into_values()
        .map(|fleet| FoundFleet { alarmed_h: (fleet.alarmed_s - start_s) as f64 / HOUR_S as f64, ..fleet })
        .collect();
    Ok(run)
}

/// The members of each fleet of the truth that were active in the day before a time.
fn active(truth: &Truth, time_s: u64) -> Result<Vec<HashSet<Source>>> {
    let of_fleet = |fleet: &detector_generator::truth::FleetTruth| {
        let active = fleet
            .members
            .iter()
            .filter(|member| member.first_s < time_s && member.last_s + 24 * HOUR_S > time_s);
        active.map(|member| source(member.source)).collect()
    };
    truth.fleets.iter().map(of_fleet).collect()
}

/// Notes what is found, and how much of it is true.
fn note(detection: &Detection, truth: &Truth, time_s: u64, found: &mut BTreeMap<FleetId, FoundFleet>) {
    let active = active(truth, time_s).unwrap_or_default();
    for fleet in detection.fleets() {
        let is_uniform = fleet.explanation.is_new_uniform_population;
        let known = found.entry(fleet.id).or_insert_with(|| FoundFleet {
            id: fleet.id.0,
            alarmed_h: 0.0,
            members: 0,
            is_uniform: true,
            told: String::new(),
            share: 0.0,
            of: None,
            first_right_s: None,
            alarmed_s: fleet.alarmed_at_s,
        });
        known.is_uniform &= is_uniform;
        if fleet.members.len() > known.members || known.told.is_empty() {
            known.members = fleet.members.len();
            known.told = told(fleet);
        }
        for (number, members) in active.iter().enumerate() {
            let right = fleet.members.keys().filter(|source| members.contains(source)).count();
            let share = right as f64 / fleet.members.len().max(1) as f64;
            if share >= TRUE_MIN && share > known.share {
                known.share = share;
                known.of = Some(number);
                known.first_right_s = known.first_right_s.or(Some(time_s));
            }
        }
    }
}

/// A fleet in a line.
fn told(fleet: &Fleet) -> String {
    let families: Vec<_> = fleet
        .explanation
        .evidence
        .iter()
        .map(|one| {
            let family = one.family.map_or("novelty", |family| family.name());
            format!("{family} {:.2}/{:.2} e^{:.1}", one.observed, one.expected, one.e_value.ln())
        })
        .collect();
    format!(
        "{:?}: {}; nearest: {}, {}; {} suspects, {:.1} innocents expected, {}",
        fleet.explanation.cell.common,
        families.join(", "),
        fleet.explanation.nearest.name(),
        fleet.explanation.why,
        fleet.suspects.len(),
        fleet.innocents,
        if fleet.key.is_some() { "with a key" } else { "no key" },
    )
}

/// Compares all that was found of each fleet whose time has come.
fn compare(
    detection: &Detection,
    truth: &Truth,
    time_s: u64,
    found: &BTreeMap<FleetId, FoundFleet>,
    compared: &mut BTreeMap<(usize, usize), Compared>,
) {
    for (number, fleet) in truth.fleets.iter().enumerate() {
        for (at, hours) in COMPARED_AT_H.iter().enumerate() {
            let is_time = (0..HOUR_S).contains(&time_s.saturating_sub(fleet.start_s + hours * HOUR_S));
            if !is_time || time_s < fleet.start_s + hours * HOUR_S {
                continue;
            }
            let members = active(truth, time_s).unwrap_or_default().swap_remove(number);
            let is_it = |fleet: &&Fleet| found.get(&fleet.id).is_some_and(|found| found.of == Some(number));
            let sources: HashSet<Source> =
                detection.fleets().filter(is_it).flat_map(|fleet| fleet.members.keys().copied()).collect();
            let right = sources.intersection(&members).count();
            compared.insert((number, at), Compared { right, found: sources.len(), members: members.len() });
        }
    }
}

fn print_alarms(look: &Look, start_s: u64) {
    let hours = (look.end_s - start_s) as f64 / HOUR_S as f64;
    for finding in look.findings.iter().filter(|finding| finding.is_alarm() || finding.total() > 12.0) {
        let of_family = |one: &detector_fleets::evidence::Evidence| {
            format!("{} {:.1} ({:.2}/{:.2})", one.family.name(), one.log_factor, one.observed, one.expected)
        };
        println!(
            "{hours:7.2} h {:2} h {} {:?}: {} of {:.0}, z {:.1}, {}, total {:.1}",
            WINDOWS[look.window].intervals / 4,
            if finding.is_alarm() { "ALARM" } else { "     " },
            finding.cell.common,
            finding.sources,
            finding.expected_sources,
            finding.z,
            finding.evidence.iter().map(of_family).collect::<Vec<_>>().join(", "),
            finding.total()
        );
    }
}

fn source(of: detector_generator::Source) -> Result<Source> {
    match of.family {
        Family::V4 => Ok(Source::of_v4((of.address as u32).into())),
        Family::V6 => {
            Source::of_v6(of.address.into()).with_context(|| format!("{of} is in ::/32, which is nobody's"))
        }
    }
}

fn observation(row: &Row, time_s: u64, span_s: u32) -> Result<Observation> {
    Ok(Observation {
        time_s,
        span_s,
        source: source(row.source)?,
        kind: Kind { service: ServiceId(row.service), syn_key: row.syn_key, tls_key: row.tls_key },
        packets: row.packets,
        bytes: row.bytes,
        dropped_packets: row.dropped_packets,
        connections: row.connections,
        handshakes: row.handshakes,
        exchanges: row.exchanges,
        request_sizes: row.request_sizes,
        response_sizes: row.response_sizes,
        rtt: row.rtt,
        hello_gap: row.hello_gap,
        finish_gap: row.finish_gap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_found_is_all_wrong() {
        let compared = Compared { right: 90, found: 100, members: 120 };
        assert_eq!((compared.precision(), compared.recall()), (0.9, 0.75));
        let nothing = Compared { members: 120, ..Compared::default() };
        assert_eq!((nothing.precision(), nothing.recall()), (0.0, 0.0));
    }

    /// All the way: a fleet with a tenth of the sources is found, nothing else is.
    #[test]
    fn a_small_scenario_is_measured() {
        let scenario =
            Scenario::from_toml(include_str!("../../tests/scenarios/small-l2.toml")).expect("a scenario");
        let run = measure(&scenario, 1, false).expect("it runs");
        let [fleet] = &run.fleets[..] else { panic!("one fleet") };
        assert!(fleet.minutes_to_alarm.is_some_and(|minutes| minutes <= 120), "{fleet:?}");
        assert!(run.found.iter().all(|found| !found.is_false()), "{:?}", run.found);
    }
}
