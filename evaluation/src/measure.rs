//! A run of a scenario through detection, and how what was found compares with the truth.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result};
use detector_fleets::{
    detection::{Detection, Look, WINDOWS},
    fleet::{Fleet, FleetId},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};
use detector_generator::{Epoch, Family, Row, Scenario, Truth};

use crate::figures::{COMPARED_AT_H, Compared, FalseFleet, Run, TrueFleet};

/// The part of a found fleet that has to be of true ones for it to be no false one, and of a true one for it to be that.
const TRUE_MIN: f64 = 0.1;

/// The part of a true fleet that a found one, which is no false one, has among its members if it is that beside others: a small fleet can be
/// found as one with larger ones.
const COVERED_MIN: f64 = 0.5;

const HOUR_S: u64 = 3600;

/// Sources that detection remembers.
const SOURCES: u64 = 2_000_000;

/// A fleet that was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundFleet {
    pub(crate) id: u64,
    /// Hours from the start of the recording to its alarm.
    pub(crate) alarmed_h: f64,
    /// The most members that it had.
    pub(crate) members: usize,
    /// Whether it was never more than a new uniform population.
    pub(crate) is_uniform: bool,
    /// Whether it might ever have been acted on.
    pub(crate) may_be_acted_on: bool,
    pub(crate) told: String,
    /// Which fleets of the truth it is, and since when.
    of: BTreeMap<usize, u64>,
    alarmed_s: u64,
}

impl FoundFleet {
    /// Whether it is none.
    pub(crate) fn is_false(&self) -> bool {
        self.of.is_empty()
    }
}

/// Exchanges by source on the day after the first fleet began.
#[derive(Debug, Default)]
struct Day {
    start_s: u64,
    of_sources: HashMap<Source, u64>,
}

impl Day {
    fn add(&mut self, row: &Observation) {
        if (self.start_s..self.start_s + 24 * HOUR_S).contains(&row.time_s) && row.exchanges > 0 {
            *self.of_sources.entry(row.source).or_insert(0) += u64::from(row.exchanges);
        }
    }

    /// The share of legitimate exchanges that acting on what was found would cost.
    fn collateral(&self, detection: &Detection, members: &HashSet<Source>) -> f64 {
        let acted_on = detection.fleets().filter(|fleet| fleet.may_be_acted_on());
        let hit: HashSet<_> = acted_on.flat_map(|fleet| fleet.members.keys().copied()).collect();
        let legitimate = || self.of_sources.iter().filter(|(source, _)| !members.contains(source));
        let all: u64 = legitimate().map(|(_, exchanges)| exchanges).sum();
        let cost: u64 =
            legitimate().filter(|(source, _)| hit.contains(source)).map(|(_, exchanges)| exchanges).sum();
        cost as f64 / all.max(1) as f64
    }
}

/// A run that is going on.
struct Measurement {
    detection: Detection,
    start_s: u64,
    found: BTreeMap<FleetId, FoundFleet>,
    compared: BTreeMap<(usize, usize), Compared>,
    day: Day,
    collateral: Option<f64>,
    next_h: u64,
    rows: u64,
}

impl Measurement {
    /// Takes an epoch. What looks found before it.
    fn take(&mut self, epoch: &Epoch, truth: impl Fn() -> Truth) -> Result<Vec<Look>> {
        let mut looks = self.detection.go_on_to(epoch.time_s);
        if !looks.is_empty() {
            note(&self.detection, &mut self.found);
            // One that is part of another soon after is what it was when it began.
            if self.found.values().any(|found| found.is_false() && found.alarmed_s + HOUR_S > epoch.time_s) {
                match_with(&self.detection, &truth(), epoch.time_s, &mut self.found);
            }
        }
        if epoch.time_s >= self.start_s + self.next_h * HOUR_S {
            self.next_h += 1;
            if self.detection.fleets().next().is_some() {
                self.compare(&truth(), epoch.time_s);
            }
        }
        if epoch.time_s == self.day.start_s + 24 * HOUR_S {
            let members = truth()
                .fleets
                .iter()
                .flat_map(|fleet| &fleet.members)
                .map(|member| source(member.source))
                .collect::<Result<_>>()?;
            self.collateral = Some(self.day.collateral(&self.detection, &members));
        }
        let rows = observations(epoch)?;
        rows.iter().for_each(|row| self.day.add(row));
        self.rows += rows.len() as u64;
        looks.extend(self.detection.observe_all(&rows));
        Ok(looks)
    }

    fn compare(&mut self, truth: &Truth, time_s: u64) {
        match_with(&self.detection, truth, time_s, &mut self.found);
        compare(&self.detection, truth, time_s, &self.found, &mut self.compared);
    }
}

/// Runs a scenario with a seed: what was measured, and what was found.
pub(crate) fn measure(scenario: &Scenario, seed: u64, has_alarms: bool) -> Result<(Run, Vec<FoundFleet>)> {
    let mut generation = detector_generator::generate(scenario, seed);
    let beginning = generation.truth();
    let start_s = beginning.start_s;
    let first_s = beginning.fleets.iter().map(|fleet| fleet.start_s).min();
    let mut measurement = Measurement {
        detection: Detection::new(SOURCES, seed),
        start_s,
        found: BTreeMap::new(),
        compared: BTreeMap::new(),
        day: Day { start_s: first_s.unwrap_or(u64::MAX / 2), ..Day::default() },
        collateral: None,
        next_h: 1,
        rows: 0,
    };
    while let Some(epoch) = generation.next() {
        let looks = measurement.take(&epoch, || generation.truth())?;
        if has_alarms {
            looks.iter().for_each(|look| print_alarms(look, start_s));
        }
    }
    let truth = generation.truth();
    let last_s = start_s + u64::from(scenario.days) * 24 * HOUR_S;
    measurement.compare(&truth, last_s);
    let Measurement { found, compared, collateral, rows, .. } = measurement;
    let found: Vec<_> = found
        .into_values()
        .map(|fleet| FoundFleet { alarmed_h: (fleet.alarmed_s - start_s) as f64 / HOUR_S as f64, ..fleet })
        .collect();
    let false_fleets = found.iter().filter(|fleet| fleet.is_false()).map(|fleet| FalseFleet {
        alarmed_h: fleet.alarmed_h,
        members: fleet.members,
        is_uniform: fleet.is_uniform,
        may_be_acted_on: fleet.may_be_acted_on,
    });
    let run = Run {
        seed,
        fleets: true_fleets(&truth, last_s, &found, &compared),
        false_fleets: false_fleets.collect(),
        collateral,
        rows,
    };
    Ok((run, found))
}

fn true_fleets(
    truth: &Truth,
    last_s: u64,
    found: &[FoundFleet],
    compared: &BTreeMap<(usize, usize), Compared>,
) -> Vec<TrueFleet> {
    let of_truth = |(number, fleet): (usize, &detector_generator::truth::FleetTruth)| {
        let found_as = || found.iter().filter(move |found| found.of.contains_key(&number));
        // What is compared each hour is known so much late: one that was it soon after its alarm was it at its alarm.
        let alarm_s = |found: &FoundFleet| {
            let since_s = *found.of.get(&number)?;
            let was_it = found.alarmed_s >= fleet.start_s && since_s <= found.alarmed_s + HOUR_S;
            Some(if was_it { found.alarmed_s } else { since_s })
        };
        let alarm_s = found_as().filter_map(alarm_s).min();
        TrueFleet {
            name: fleet.name.clone(),
            level: format!("{:?}", fleet.level),
            sources: fleet.daily_sources,
            share: fleet.share,
            minutes_to_alarm: alarm_s.map(|at| at.saturating_sub(fleet.start_s) / 60),
            compared: std::array::from_fn(|at| {
                let is_over = fleet.end_s.min(last_s) < fleet.start_s + COMPARED_AT_H[at] * HOUR_S;
                (!is_over).then(|| compared.get(&(number, at)).copied().unwrap_or_default())
            }),
            found_as: found_as().map(|found| found.id).collect(),
            may_be_acted_on: found_as().any(|found| found.may_be_acted_on),
        }
    };
    truth.fleets.iter().enumerate().map(of_truth).collect()
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

/// Notes what is found.
fn note(detection: &Detection, found: &mut BTreeMap<FleetId, FoundFleet>) {
    for fleet in detection.fleets() {
        let known = found.entry(fleet.id).or_insert_with(|| FoundFleet {
            id: fleet.id.0,
            is_uniform: true,
            alarmed_s: fleet.alarmed_at_s,
            ..FoundFleet::default()
        });
        known.is_uniform &= fleet.explanation.is_new_uniform_population;
        known.may_be_acted_on |= fleet.may_be_acted_on();
        if fleet.members.len() > known.members || known.told.is_empty() {
            known.members = fleet.members.len();
            known.told = told(fleet);
        }
    }
}

/// Which of what was found is which fleet of the truth, or which of them: those are found as one.
fn match_with(detection: &Detection, truth: &Truth, time_s: u64, found: &mut BTreeMap<FleetId, FoundFleet>) {
    let active = active(truth, time_s).unwrap_or_default();
    for fleet in detection.fleets() {
        let Some(known) = found.get_mut(&fleet.id) else { continue };
        for number in matching(&fleet.members.keys().copied().collect(), &active) {
            known.of.entry(number).or_insert(time_s);
        }
    }
}

/// Which of the true fleets, by their active members, something with these members is.
fn matching(members: &HashSet<Source>, active: &[HashSet<Source>]) -> Vec<usize> {
    let right = |of: &HashSet<Source>| members.intersection(of).count() as f64;
    let found = members.len().max(1) as f64;
    let is_it = |of: &HashSet<Source>| {
        right(of) >= TRUE_MIN * found || (!of.is_empty() && right(of) >= COVERED_MIN * of.len() as f64)
    };
    // A source is of one fleet of the truth only.
    if active.iter().map(right).sum::<f64>() < TRUE_MIN * found {
        return Vec::new();
    }
    (0..active.len()).filter(|&number| is_it(&active[number])).collect()
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
        "{:?}: {}; nearest: {}, {}; {} suspects, {:.1} innocents expected, collateral {:.5} %, {}",
        fleet.explanation.cell.common,
        families.join(", "),
        fleet.explanation.nearest.name(),
        fleet.explanation.why,
        fleet.suspects.len(),
        fleet.innocents,
        fleet.collateral * 100.0,
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
            let active = active(truth, time_s).unwrap_or_default();
            let members = &active[number];
            let is_it =
                |fleet: &&Fleet| found.get(&fleet.id).is_some_and(|found| found.of.contains_key(&number));
            // Members are those of two days, and of the truth those of one are asked for.
            let sources = detection.fleets().filter(is_it).flat_map(|fleet| &fleet.members);
            let sources = sources.filter(|(_, member)| member.last_s + 24 * HOUR_S > time_s);
            let sources: HashSet<Source> = sources.map(|(source, _)| *source).collect();
            let right = sources.intersection(members).count();
            // Members of another fleet that was found as one with it are no mistake about who is an actor's.
            let of_others = sources
                .iter()
                .filter(|source| !members.contains(source) && active.iter().any(|of| of.contains(source)));
            let found = sources.len() - of_others.count();
            compared.insert((number, at), Compared { right, found, members: members.len() });
        }
    }
}

fn print_alarms(look: &Look, start_s: u64) {
    let hours = (look.end_s - start_s) as f64 / HOUR_S as f64;
    for finding in look.findings.iter().filter(|finding| finding.is_alarm() || finding.total() > 12.0) {
        let of_family = |one: &detector_fleets::evidence::Evidence| {
            format!("{} {:.1} ({:.2}/{:.2})", one.family.name(), one.log_factor, one.observed, one.expected)
        };
        eprintln!(
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

/// The rows of an epoch.
pub(crate) fn observations(epoch: &Epoch) -> Result<Vec<Observation>> {
    epoch.rows.iter().map(|row| observation(row, epoch.time_s, epoch.span_s)).collect()
}

pub(crate) fn observation(row: &Row, time_s: u64, span_s: u32) -> Result<Observation> {
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

    #[test]
    fn several_fleets_can_be_found_as_one() {
        let sources = |from: u32, number: u32| -> HashSet<Source> {
            (from..from + number).map(|at| Source::of_v4((0x0a00_0000 + at).into())).collect()
        };
        let truth = [sources(0, 5000), sources(10_000, 400), sources(20_000, 1000)];
        let of = |members: &[HashSet<Source>]| {
            matching(&members.iter().flatten().copied().collect::<HashSet<_>>(), &truth)
        };
        assert_eq!(of(&[sources(0, 4000), sources(10_000, 300)]), [0, 1], "the small one is covered");
        assert_eq!(of(&[sources(0, 4000), sources(10_000, 100)]), [0], "a few of the small one are not it");
        assert_eq!(of(&[sources(20_000, 100), sources(90_000, 800)]), [2]);
        assert!(of(&[sources(10_000, 400), sources(90_000, 4000)]).is_empty(), "nine of ten are nobody's");
        assert!(of(&[]).is_empty());
    }
}
