//! What detection costs: a day of a million sources, in time of one core and in memory.

use std::fs;

use anyhow::{Context as _, Result};
use detector_fleets::{
    alarm::Finding,
    cells::{Cell, Common},
    detection::Detection,
    limits::INTERVAL_S,
    membership::{self, Question},
    observation::{Observation, ServiceId},
    profile::{self, Clean},
    projection::Projections,
    users::Users,
    window::{Part, merge},
};
use detector_generator::Scenario;
use rustix::time::{ClockId, clock_gettime};

use crate::{figures::Cost, measure::observation};

const SERVICE: ServiceId = ServiceId(0);

/// A day with about so many sources; `scale` is of an ordinary day, which has 38,000.
fn day(scale: f64) -> Result<Scenario> {
    Scenario::from_toml(&format!("name = 'cost'\ndays = 1\nscale = {scale}\n")).context("the day of the cost")
}

/// Time that this thread was running, s.
fn running_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Time that something takes of this thread, and what comes of it.
fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let began = running_s();
    let done = what();
    (running_s() - began, done)
}

/// The most memory that this process ever had, bytes.
fn memory_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("/proc/self/status has no VmHWM in kB")? * 1024)
}

/// Measures a day of `scale` ordinary ones.
pub(crate) fn cost(scale: f64) -> Result<Cost> {
    let mut cost = Cost::default();
    // As the daemon has it: of 20 M sources.
    let mut detection = Detection::new(20_000_000, 1);
    let (mut taking_s, mut end_s) = (0.0, 0);
    for epoch in detector_generator::generate(&day(scale)?, 1) {
        end_s = epoch.time_s + u64::from(epoch.span_s);
        let (look_s, _) = timed(|| detection.go_on_to(epoch.time_s));
        cost.look_s = cost.look_s.max(look_s);
        let rows: Vec<Observation> = epoch
            .rows
            .iter()
            .map(|row| observation(row, epoch.time_s, epoch.span_s))
            .collect::<Result<_>>()?;
        cost.rows += rows.len() as u64;
        taking_s += timed(|| rows.iter().for_each(|row| drop(detection.observe(row)))).0;
    }
    cost.look_s = cost.look_s.max(timed(|| detection.go_on_to(end_s)).0);
    cost.rows_a_second = cost.rows as f64 / taking_s.max(1e-9);
    (cost.attribution_s, cost.sources) = attribution(&detection);
    cost.memory_bytes = memory_bytes()?;
    Ok(cost)
}

/// Asks who of all sources of the day belongs to an alarm about the most frequent ClientHello. Its time, and how many were asked.
fn attribution(detection: &Detection) -> (f64, u64) {
    let kinds = detection.kinds();
    let window = merge(detection.intervals().map(Part::from));
    let populations = profile::populations(&window, kinds, |_| true);
    let Some(population) = populations.get(&SERVICE) else { return (0.0, 0) };
    let users = Users::of(&[&Clean::of(population, population.profiles.len())], kinds);
    let most = population.profiles.iter().max_by_key(|(_, count)| *count);
    let tls_key = most.map_or(0, |(profile, _)| kinds.kind(profile.kind).tls_key);
    let alarm = Finding {
        cell: Cell { service: SERVICE, common: Common::Tls(tls_key) },
        sources: 1000,
        expected_sources: 900.0,
        z: 9.0,
        evidence: Vec::new(),
    };
    let (seconds, _) = timed(|| {
        let populations = profile::populations(&window, kinds, |_| true);
        populations.get(&SERVICE).map(|population| {
            membership::attribute(&Question {
                service: SERVICE,
                start_s: detection.intervals().next().map_or(0, |first| first.number * INTERVAL_S),
                window: &window,
                population,
                users: &users,
                alarms: &[&alarm],
                known: &[],
                kinds,
                projections: &Projections::of(kinds),
            })
        })
    });
    (seconds, population.sources.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_day_has_a_cost() {
        let cost = cost(0.02).expect("it is measured");
        assert!(cost.sources > 300 && cost.rows > cost.sources, "{cost:?}");
        assert!(cost.rows_a_second > 0.0 && cost.look_s > 0.0 && cost.attribution_s > 0.0, "{cost:?}");
        assert!(cost.memory_bytes > 1_000_000, "{cost:?}");
    }
}
