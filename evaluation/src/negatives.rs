//! What is no fleet, by name; and that an alarm stands on the evidence that it states. Most scenarios are small, so that all of it is soon done.

use std::collections::{BTreeMap, BTreeSet};

use detector_fleets::{
    alarm::FAMILY_MIN,
    detection::Detection,
    family::Family,
    fleet::Fleet,
    observation::{Kind, Observation, ServiceId},
};
use detector_generator::{Epoch, Row, Scenario, Source, Truth};

use crate::{
    figures::Run,
    measure::{measure, observation},
};

/// A seed that no rule was chosen on.
const SEED: u64 = 1;

const HOUR_S: u64 = 3600;

fn scenario(text: &str) -> Scenario {
    Scenario::from_toml(text).expect("a scenario")
}

macro_rules! scenario {
    ($name:literal) => {
        scenario(include_str!(concat!("../../tests/scenarios/small-", $name, ".toml")))
    };
}

fn run(scenario: &Scenario) -> Run {
    measure(scenario, SEED, false).expect("it runs").0
}

/// Nothing is found in a scenario that may be acted on.
fn is_left_alone(scenario: &Scenario) {
    let run = run(scenario);
    assert!(run.rows > 200_000, "{}: {} rows", scenario.name, run.rows);
    let acted_on: Vec<_> = run.false_fleets.iter().filter(|found| found.may_be_acted_on).collect();
    assert!(acted_on.is_empty(), "{} with seed {SEED}: {acted_on:?}", scenario.name);
}

#[test]
fn browser_release() {
    is_left_alone(&scenario!("browser-release"));
}

#[test]
fn sdk_release() {
    is_left_alone(&scenario!("sdk-release"));
}

#[test]
fn flash_crowd() {
    is_left_alone(&scenario!("flash-crowd"));
}

#[test]
fn cgnat() {
    let scenario = scenario!("cgnat-renumbering");
    is_left_alone(&scenario);
    let mut detection = Detection::new(100_000, SEED);
    let mut looks = Vec::new();
    for epoch in detector_generator::generate(&scenario, SEED) {
        for row in &epoch.rows {
            looks.extend(detection.observe(&observation(row, epoch.time_s, epoch.span_s).expect("a row")));
        }
    }
    let seen = looks.iter().flat_map(|look| &look.findings).map(|finding| finding.sources).max();
    assert!(seen > Some(40), "the new addresses are seen, and taken for what they are: {seen:?}");
}

#[test]
fn one_sdk_app() {
    is_left_alone(&scenario!("app-launch"));
}

#[test]
fn cron() {
    is_left_alone(&scenario!("cron-bursts"));
}

#[test]
fn vpn_rollout() {
    is_left_alone(&scenario!("vpn-rollout"));
}

#[test]
fn failover() {
    is_left_alone(&scenario!("regional-failover"));
}

#[test]
fn privacy_relay() {
    is_left_alone(&scenario!("privacy-relay"));
}

#[test]
fn own_limiter() {
    is_left_alone(&scenario!("own-limiter"));
}

/// 25,000 identical devices at once look like a fleet in homes: they are reported with the innocent explanation, and never acted on.
#[test]
fn device_launch() {
    let run = run(&scenario(include_str!("../../tests/scenarios/hard-negative-device-launch.toml")));
    let launched: Vec<_> = run.false_fleets.iter().filter(|found| found.members > 20_000).collect();
    assert!(!launched.is_empty(), "it is reported: {:?}", run.false_fleets);
    assert!(
        run.false_fleets.iter().all(|found| found.is_uniform && !found.may_be_acted_on),
        "{:?}",
        run.false_fleets
    );
}

/// What is found in rows.
fn found(epochs: impl Iterator<Item = Epoch>) -> Vec<Fleet> {
    found_by(Detection::new(100_000, SEED), epochs).fleets().cloned().collect()
}

fn found_by(mut detection: Detection, epochs: impl Iterator<Item = Epoch>) -> Detection {
    for epoch in epochs {
        for row in &epoch.rows {
            detection.observe(&observation(row, epoch.time_s, epoch.span_s).expect("a row"));
        }
        detection.go_on_to(epoch.time_s + u64::from(epoch.span_s));
    }
    detection
}

#[test]
fn the_same_rows_give_the_same_fleets_in_the_same_order() {
    let scenario = scenario!("l3");
    let all = || found(detector_generator::generate(&scenario, SEED));
    let first = all();
    assert!(!first.is_empty());
    assert_eq!(first, all());
}

/// Fingerprints that are made up use up numbers for a while only, and what has other numbers afterwards is what it was.
#[test]
fn kinds_that_nothing_is_kept_of_are_forgotten_and_nothing_else() {
    const MADE_UP: usize = 5000;
    let scenario = scenario!("l4");
    let mut epochs = detector_generator::generate(&scenario, SEED);
    let all = found(epochs.by_ref());
    assert!(!all.is_empty());
    let mut detection = Detection::new(100_000, SEED);
    let truth = epochs.truth();
    let first = detector_generator::generate(&scenario, SEED).find_map(|epoch| epoch.rows.into_iter().next());
    let first = observation(&first.expect("a row"), truth.start_s, scenario.epoch_s).expect("a row");
    for number in 1..=MADE_UP as u64 {
        let kind = Kind { service: ServiceId(9), syn_key: number, tls_key: number };
        detection.observe(&Observation { kind, ..first });
    }
    let mut most = 0;
    for epoch in detector_generator::generate(&scenario, SEED) {
        // When there is something that follows from the numbers: a known fleet, and who users are.
        if epoch.time_s > all[0].alarmed_at_s {
            detection.forget_kinds(MADE_UP);
        }
        most = most.max(detection.kinds().len());
        detection = found_by(detection, std::iter::once(epoch));
    }
    assert!(most > MADE_UP && detection.kinds().len() < MADE_UP, "{most}, then {}", detection.kinds().len());
    let forgetful: Vec<_> = detection.fleets().cloned().collect();
    assert!(all == forgetful, "what was found is another");
}

/// After a day its sources are new no more, and alarms are about new ones; and a few of them are taken for others that were there before. On this seed
/// they had all others forgotten by and by, when they were learned as users.
#[test]
fn a_fleet_that_keeps_its_sources_keeps_its_members() {
    let scenario = scenario(include_str!("../../tests/scenarios/same-sources-l0.toml"));
    let run = measure(&scenario, 11, false).expect("it runs").0;
    let after_a_week = run.fleets[0].compared[2].expect("it lasts a week");
    assert!(after_a_week.precision() > 0.99 && after_a_week.recall() > 0.95, "{after_a_week:?}");
}

/// Whatever new sources do that are users: rows by source, with the time from the start of the recording.
type Conduct = BTreeMap<Source, Vec<(u64, Row)>>;

/// What is known of a scenario with a fleet: in some families members can do what new users of the same time do, and in the others what they did.
struct Removal {
    members: Conduct,
    users: Conduct,
    /// Those that the alarm named.
    stated: Vec<Family>,
}

impl Removal {
    /// Of a scenario's fleet and of what was found of it.
    fn of(scenario: &Scenario, found: &Fleet) -> Self {
        let mut generation = detector_generator::generate(scenario, SEED);
        let start_s = generation.truth().fleets[0].start_s;
        let mut before = BTreeSet::new();
        let mut rows = Conduct::new();
        for epoch in generation.by_ref() {
            for row in epoch.rows {
                if epoch.time_s < start_s {
                    before.insert(row.source);
                }
                rows.entry(row.source).or_default().push((epoch.time_s, row));
            }
        }
        let truth: Truth = generation.truth();
        let of_fleet: BTreeSet<_> = truth.fleets[0].members.iter().map(|member| member.source).collect();
        let (members, mut users): (Conduct, Conduct) =
            rows.into_iter().partition(|(source, _)| of_fleet.contains(source));
        users.retain(|source, _| !before.contains(source));
        let strong = found.explanation.evidence.iter().filter(|one| one.e_value.ln() >= FAMILY_MIN);
        Self { members, users, stated: strong.filter_map(|one| one.family).collect() }
    }

    /// The rows without the evidence of some families.
    fn removed(&self, scenario: &Scenario, families: &[Family]) -> impl Iterator<Item = Epoch> {
        let epoch_s = u64::from(scenario.epoch_s);
        let mut planned: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        // Users stand in for members one after the other, all of them before one does twice.
        let users = self.users.values().cycle();
        for ((source, own), user) in self.members.iter().zip(users) {
            let conduct = if families.contains(&Family::Homogeneity) { user } else { own };
            let row_of = |family, place: usize| {
                let rows = if families.contains(&family) { user } else { own };
                &rows[place % rows.len()].1
            };
            for (place, (time_s, row)) in conduct.iter().enumerate() {
                let (way, sizes) = (row_of(Family::Path, place), row_of(Family::Size, place));
                let row = Row {
                    source: *source,
                    syn_key: own[0].1.syn_key,
                    tls_key: own[0].1.tls_key,
                    rtt: way.rtt,
                    hello_gap: way.hello_gap,
                    finish_gap: way.finish_gap,
                    request_sizes: sizes.request_sizes,
                    response_sizes: sizes.response_sizes,
                    ..row.clone()
                };
                planned.entry(time_s / epoch_s).or_default().push(row);
            }
        }
        let members: BTreeSet<_> = self.members.keys().copied().collect();
        detector_generator::generate(scenario, SEED).map(move |mut epoch| {
            epoch.rows.retain(|row| !members.contains(&row.source));
            epoch.rows.extend(planned.remove(&(epoch.time_s / epoch_s)).unwrap_or_default());
            epoch
        })
    }
}

/// As many new sources with the same keys at the same time, that do what users do where the alarm said that they do not.
#[test]
fn without_the_stated_evidence_there_is_no_alarm() {
    for scenario in [scenario!("l0"), scenario!("l1"), scenario!("l3")] {
        let before = found(detector_generator::generate(&scenario, SEED));
        let fleet = before.first().expect("the fleet is found");
        let removal = Removal::of(&scenario, fleet);
        assert!(removal.stated.len() >= 2, "{:?}", removal.stated);
        let after = found(removal.removed(&scenario, &removal.stated));
        let alarm_h = |fleet: &Fleet| fleet.alarmed_at_s / HOUR_S;
        assert!(
            after.is_empty(),
            "{}: {:?}",
            scenario.name,
            after.iter().map(|one| (alarm_h(one), &one.explanation)).collect::<Vec<_>>()
        );
    }
}

/// It is not that rows were changed which clears an alarm: without one of three families it stands on the others.
#[test]
fn an_alarm_stands_while_two_of_its_families_do() {
    let scenario = scenario!("l3");
    let before = found(detector_generator::generate(&scenario, SEED));
    let removal = Removal::of(&scenario, before.first().expect("the fleet is found"));
    for family in [Family::Homogeneity, Family::Path, Family::Size] {
        assert!(removal.stated.contains(&family), "{:?}", removal.stated);
        let fleets = found(removal.removed(&scenario, &[family]));
        let is_member = |source: &&detector_fleets::source::Source| before[0].members.contains_key(source);
        let again = fleets.first().map(|fleet| fleet.members.keys().filter(is_member).count());
        assert!(again > Some(before[0].members.len() / 2), "without {family:?}: {again:?}");
    }
}
