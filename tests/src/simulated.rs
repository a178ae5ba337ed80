//! Simulated days in which a fleet comes, as if they had just ended.

use std::{
    fs::File,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use detector_generator::{Scenario, parquet::Writer};

/// Days of a few thousand sources, of whom some become a fleet in the middle of the fourth.
const SCENARIO: &str = include_str!("../scenarios/small-l2.toml");

/// Hours until the fleet is there for six.
const HOURS: u64 = 90;

/// Records it.
///
/// # Errors
///
/// The scenario is not valid, or the file cannot be written.
pub fn record(to: &Path) -> Result<()> {
    let scenario = Scenario::from_toml(SCENARIO)?;
    let epochs = || detector_generator::generate(&scenario, 1);
    let start_s = epochs().next().context("an epoch")?.time_s;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let later_s = (now_s - start_s) / 900 * 900 - HOURS * 3600;
    let mut writer = Writer::new(File::create(to)?, &scenario)?;
    for mut epoch in epochs().take(HOURS as usize * 60) {
        epoch.time_s += later_s;
        writer.write(epoch)?;
    }
    writer.finish()?;
    Ok(())
}
