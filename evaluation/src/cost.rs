//! What detection costs: days of a million sources, the last with a fleet, in time of one core and in memory.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use detector_fleets::{
    detection::Detection,
    observation::{Observation, Services},
    profile::{self, Population},
    window::{Part, merge},
};
use detector_generator::Scenario;
use detector_user::{
    fleets::{Memory, Scale, saved},
    recording::{Recording, writer::Writer},
};
use rustix::time::{ClockId, clock_gettime};

use crate::{figures::Cost, measure::observation};

/// Until the last day everything is learned that is looked at then: what is usual in windows of a day, who was there before, and users.
const DAYS: u32 = 4;

/// Of the daemon's memory.
const SOURCES: u64 = 20_000_000;

/// Epochs that are written to a recording and read from it: an hour of the last day.
const RECORDED_EPOCHS: std::ops::Range<u32> = ((DAYS - 1) * 24 + 12) * 60..((DAYS - 1) * 24 + 13) * 60;

/// Days with about so many sources, and a fleet of a tenth of them on the last; `scale` is of ordinary days, which have 38,000.
fn days(scale: f64) -> Result<Scenario> {
    let start_h = (DAYS - 1) * 24;
    Scenario::from_toml(&format!(
        "name = 'cost'\ndays = {DAYS}\nscale = {scale}\n[[fleet]]\nlevel = 'L3'\nshare = 0.1\nstart_h = {start_h}\n"
    ))
    .context("the days of the cost")
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

/// The most memory that this process had since it was [forgotten](forget_memory), bytes.
fn memory_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("/proc/self/status has no VmHWM in kB")? * 1024)
}

/// Forgets how much memory this process had: 5 to `clear_refs` (proc_pid_clear_refs(5)).
fn forget_memory() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("writing /proc/self/clear_refs")
}

/// Measures days of `scale` ordinary ones.
pub(crate) fn cost(scale: f64) -> Result<Cost> {
    let mut cost = Cost::default();
    let mut memory = Memory::new(Scale::MINUTE, SOURCES, 1);
    let directory = tempfile::tempdir().context("a directory for a recording")?;
    let path = directory.path().join("rows.parquet");
    let mut recording = Writer::new(fs::File::create(&path).context("a recording")?, "cost")
        .context("beginning a recording")?;
    let (mut taking_s, mut end_s, mut recorded) = (0.0, 0, 0);
    for (number, epoch) in (0..).zip(detector_generator::generate(&days(scale)?, 1)) {
        end_s = epoch.time_s + u64::from(epoch.span_s);
        let (look_s, _) = timed(|| memory.go_on_to(epoch.time_s));
        cost.look_s = cost.look_s.max(look_s);
        let rows: Vec<Observation> = epoch
            .rows
            .iter()
            .map(|row| observation(row, epoch.time_s, epoch.span_s))
            .collect::<Result<_>>()?;
        cost.rows += rows.len() as u64;
        taking_s += timed(|| rows.iter().for_each(|row| drop(memory.observe(row)))).0;
        if RECORDED_EPOCHS.contains(&number) {
            recorded += rows.len();
            recording.write(rows, |_| "api").context("writing a recording")?;
        }
    }
    cost.look_s = cost.look_s.max(timed(|| memory.go_on_to(end_s)).0);
    cost.rows_a_second = cost.rows as f64 / taking_s.max(1e-9);
    cost.memory_bytes = memory_bytes()?;
    cost.sources = sources(memory.detection());
    cost.members = memory.fleets().map(|fleet| fleet.members.len() as u64).max().unwrap_or(0);
    recording.finish().context("ending a recording")?;
    cost.read_rows_a_second = reading(&path, recorded)?;
    cost.restored_bytes = restoring(&directory.path().join("memory"), memory)?;
    Ok(cost)
}

/// Sources of the last day at all services.
fn sources(detection: &Detection) -> u64 {
    let window = merge(detection.intervals().map(Part::from));
    let populations = profile::populations(&window, detection.kinds(), |_| true);
    populations.values().map(|Population { sources, .. }| sources.len() as u64).sum()
}

/// Rows that are read from a recording in a second.
fn reading(path: &Path, expected: usize) -> Result<f64> {
    let (mut count, mut services) = (0, Services::default());
    let (seconds, read) = timed(|| -> Result<()> {
        let mut recording = Recording::open(path)?;
        while let Some(rows) = recording.next_group(&mut services)? {
            count += rows.len();
        }
        Ok(())
    });
    read?;
    ensure!(count == expected, "{count} of {expected} rows were read");
    Ok(count as f64 / seconds.max(1e-9))
}

/// The most memory that a process has while it reads a memory that was saved, bytes.
fn restoring(path: &Path, memory: Memory) -> Result<u64> {
    saved::write(path, &memory)?;
    drop(memory);
    forget_memory()?;
    let restored = saved::read(path)?;
    ensure!(restored.is_some(), "what was saved is not there");
    memory_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_days_have_a_cost_and_their_fleet_is_found() {
        let cost = cost(0.05).expect("it is measured");
        assert!(cost.sources > 1000 && cost.rows > cost.sources && cost.members > 50, "{cost:?}");
        assert!(cost.rows_a_second > 0.0 && cost.look_s > 0.0 && cost.read_rows_a_second > 0.0, "{cost:?}");
        assert!(cost.memory_bytes > 1_000_000 && cost.restored_bytes > 1_000_000, "{cost:?}");
    }
}
