//! What detection costs: days of a million sources, the last with a fleet, in time of one core and in memory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    slice,
};

use anyhow::{Context as _, Result, ensure};
use detector_fleets::{
    detection::Detection,
    limits::INTERVAL_S,
    profile::{self, Population},
    window::{Part, merge},
};
use detector_generator::{Epoch, Scenario};
use detector_user::{
    fleets::{Memory, Scale, saved},
    recording::{Merged, writer::Writer},
};

use crate::{
    core_share::{Samples, running_s},
    figures::Cost,
    measure::observations,
};

/// Until the last day everything is learned that is looked at then: what is usual in windows of a day, who was there before, and users.
const DAYS: u32 = 4;

/// Of the daemon's memory.
const SOURCES: u64 = 20_000_000;

/// Hours whose rows come epoch by epoch, as in the daemon. Those of the four hours after them, in which windows of all lengths are looked at and learned from,
/// are recorded, and read as `hunt` does.
const LIVE_HOURS: u32 = DAYS * 24 - 4;

/// Of a thousand rows each: some milliseconds.
const READS_A_SAMPLE: u32 = 8;

/// Days with about so many sources, and a fleet of a tenth of them on the last; `scale` is of ordinary days, which have 38,000.
fn days(scale: f64) -> Result<Scenario> {
    let start_h = (DAYS - 1) * 24;
    Scenario::from_toml(&format!(
        "name = 'cost'\ndays = {DAYS}\nscale = {scale}\n[[fleet]]\nlevel = 'L3'\nshare = 0.1\nstart_h = {start_h}\n"
    ))
    .context("the days of the cost")
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
    let directory = tempfile::tempdir().context("a directory for recordings")?;
    let mut generation = detector_generator::generate(&days(scale)?, 1);
    let folding = live(&mut memory, generation.by_ref().take((LIVE_HOURS * 60) as usize), &mut cost)?;
    let (recordings, recorded) = recorded(generation, directory.path())?;
    // What it takes without the generator, but for what the allocator keeps of what was freed.
    let path = directory.path().join("memory");
    saved::write(&path, &memory)?;
    drop(memory);
    forget_memory()?;
    let (mut memory, _) = saved::read(&path)?.context("what was saved is not there")?;
    cost.restored_bytes = memory_bytes()?;
    forget_memory()?;
    let (read, hunting) = hunted(&mut memory, &recordings, &mut cost)?;
    [cost.core_share, cost.hunted_core_share] =
        [&folding, &hunting].map(|samples| samples.share(&[&folding, &hunting]));
    ensure!(read == recorded, "{read} of {recorded} rows were read");
    cost.rows = memory.rows();
    cost.memory_bytes = memory_bytes()?;
    cost.sources = sources(memory.detection());
    cost.members = memory.fleets().map(|fleet| fleet.members.len() as u64).max().unwrap_or(0);
    Ok(cost)
}

/// Takes epochs, as the daemon does. How much of the core this thread had.
fn live(memory: &mut Memory, epochs: impl Iterator<Item = Epoch>, cost: &mut Cost) -> Result<Samples> {
    let (mut seconds, mut count, mut samples) = (0.0, 0, Samples::default());
    for epoch in epochs {
        let rows = observations(&epoch)?;
        count += rows.len();
        seconds += timed(|| drop(memory.observe(&rows))).0;
        samples.take();
        look(memory, epoch.time_s + u64::from(epoch.span_s), cost);
    }
    cost.rows_a_second = count as f64 / seconds.max(1e-9);
    Ok(samples)
}

/// Looks at the interval that is over when this time has come.
fn look(memory: &mut Memory, time_s: u64, cost: &mut Cost) {
    cost.look_s = cost.look_s.max(timed(|| drop(memory.go_on_to(time_s))).0);
}

/// A recording for each quarter of an hour, so that what is looked at between can be told from what is read, each with the time at which it
/// is over; and how many rows they have.
fn recorded(epochs: impl Iterator<Item = Epoch>, directory: &Path) -> Result<(Vec<(PathBuf, u64)>, u64)> {
    let (mut recordings, mut count): (Vec<(PathBuf, u64)>, u64) = (Vec::new(), 0);
    let mut writer: Option<Writer<File>> = None;
    for epoch in epochs {
        let end_s = (epoch.time_s / INTERVAL_S + 1) * INTERVAL_S;
        if recordings.last().is_none_or(|(_, last_s)| *last_s != end_s) {
            let path = directory.join(format!("{end_s}.parquet"));
            let next = Writer::new(File::create(&path).context("a recording")?, "cost")?;
            writer.replace(next).map(Writer::finish).transpose()?;
            recordings.push((path, end_s));
        }
        if let Some(writer) = &mut writer {
            let rows = observations(&epoch)?;
            count += rows.len() as u64;
            writer.write(rows, |_| "api")?;
        }
    }
    writer.map(Writer::finish).transpose()?;
    Ok((recordings, count))
}

/// Reads recordings into a memory: how many rows they had, and how much of the core this thread had.
fn hunted(memory: &mut Memory, recordings: &[(PathBuf, u64)], cost: &mut Cost) -> Result<(u64, Samples)> {
    let (mut seconds, mut rows, mut samples) = (0.0, Vec::new(), Samples::default());
    let before = memory.rows();
    for (path, end_s) in recordings {
        let (open_s, recording) = timed(|| Merged::open(slice::from_ref(path)));
        let mut recording = recording?;
        seconds += open_s;
        let mut has_more = true;
        while has_more {
            let (read_s, more) = timed(|| -> Result<bool> {
                for _ in 0..READS_A_SAMPLE {
                    if !recording.read(&mut rows)? {
                        return Ok(false);
                    }
                    drop(memory.observe_recorded(&mut rows, recording.services())?);
                }
                Ok(true)
            });
            seconds += read_s;
            has_more = more?;
            samples.take();
        }
        seconds += timed(|| drop(recording)).0;
        look(memory, *end_s, cost);
    }
    let count = memory.rows() - before;
    cost.hunted_rows_a_second = count as f64 / seconds.max(1e-9);
    Ok((count, samples))
}

/// Sources of the last day at all services.
fn sources(detection: &Detection) -> u64 {
    let window = merge(detection.intervals().map(Part::from));
    let populations = profile::populations(&window, detection.kinds(), |_| true);
    populations.values().map(|Population { sources, .. }| sources.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_days_have_a_cost_and_their_fleet_is_found() {
        let cost = cost(0.05).expect("it is measured");
        assert!(cost.sources > 1000 && cost.rows > cost.sources && cost.members > 50, "{cost:?}");
        assert!(cost.core_share > 0.0 && cost.hunted_core_share > 0.0, "{cost:?}");
        assert!(cost.rows_a_second > 0.0 && cost.look_s > 0.0 && cost.hunted_rows_a_second > 0.0, "{cost:?}");
        assert!(cost.memory_bytes > 72_000_000 && cost.restored_bytes > 72_000_000, "{cost:?}");
    }
}
