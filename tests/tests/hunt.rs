//! `detector hunt` on recordings that another program wrote: the simulated ones, which share no code with it.

use std::{collections::BTreeSet, fs, fs::File, process::Command};

use anyhow::{Context as _, Result};
use detector_generator::{Scenario, parquet::Writer};
use detector_tests::daemon::{answer, binary};
use serde_json::Value;

/// An ordinary week of few sources.
const SCENARIO: &str = include_str!("../scenarios/small-quiet.toml");

#[test]
fn recordings_of_other_programs_are_read_and_a_quiet_morning_has_no_fleet() -> Result<()> {
    let scenario = Scenario::from_toml(SCENARIO)?;
    let directory = tempfile::tempdir()?;
    let (mut rows, mut first_s, mut services) = (0_u64, None, BTreeSet::new());
    // In files of five hours each, named against their order.
    for (epochs, name) in [(300, "b"), (300, "a")] {
        let file = File::create(directory.path().join(name).with_extension("parquet"))?;
        let mut writer = Writer::new(file, &scenario)?;
        let skipped = if name == "b" { 0 } else { 300 };
        for epoch in detector_generator::generate(&scenario, 1).skip(skipped).take(epochs) {
            first_s.get_or_insert(epoch.time_s);
            rows += epoch.rows.len() as u64;
            services.extend(epoch.rows.iter().map(|row| row.service));
            writer.write(epoch)?;
        }
        writer.finish()?;
    }
    assert!(rows > 10_000 && !services.is_empty(), "{rows} rows of {services:?}");
    let mut hunt = Command::new(binary()?);
    let (code, out, err) = answer(hunt.arg("hunt").arg(directory.path()).arg("--json"))?;
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out)?;
    assert_eq!((found["rows"].as_u64(), found["late"].as_u64()), (Some(rows), Some(0)), "{found}");
    assert_eq!(found["fleets"], serde_json::json!([]));
    let from = found["from"].as_str().context("a start")?;
    let expected = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(first_s.context("an epoch")?),
    );
    assert_eq!(from, expected.to_string());

    // Ten hours are too few to find any: who reads it is told so.
    let (_, screen, _) = answer(Command::new(binary()?).arg("hunt").arg(directory.path()))?;
    assert!(
        screen.contains(": 0 fleets\n  api: learning what is usual, and no fleet is found before 2"),
        "{screen}"
    );

    // One that was cut off, as by a crash.
    let path = directory.path().join("a.parquet");
    let bytes = fs::read(&path)?;
    fs::write(&path, &bytes[..bytes.len() / 2])?;
    let (code, _, err) = answer(Command::new(binary()?).arg("hunt").arg(directory.path()))?;
    assert!(code == 2 && err.contains("a.parquet"), "{code}: {err}");
    Ok(())
}
