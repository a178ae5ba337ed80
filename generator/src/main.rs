//! `generate SCENARIO --out DIR`: a scenario as Parquet, a file a day, with `truth.json`.

use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use detector_generator::parquet::Writer;
use detector_generator::truth::Census;
use detector_generator::{Scenario, generate};

const DAY_S: u64 = 86_400;

/// Simulates a scenario: observations-YYYYMMDD.parquet for each day, and truth.json
#[derive(Parser)]
#[command(name = "generate")]
struct Options {
    /// The scenario, as in tests/scenarios
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    /// Directory that gets the files; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Days instead of the scenario's
    #[arg(long, value_name = "N")]
    days: Option<u32>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let scenario = read(&options)?;
    let seed = options.seed.unwrap_or(u64::from(scenario.seed));
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make the directory {}", options.out.display()))?;
    let began = Instant::now();
    let mut generation = generate(&scenario, seed);
    let beginning = generation.truth();
    let mut census = Census::default();
    let (mut rows, mut bytes) = (0_u64, 0);
    for day in 0..scenario.days {
        let start_s = beginning.start_s + u64::from(day) * DAY_S;
        let path = options.out.join(format!("observations-{}.parquet", date(start_s)));
        let what = || format!("cannot write {}", path.display());
        let file = BufWriter::new(File::create(&path).with_context(what)?);
        let mut writer = Writer::new(file, &scenario).with_context(what)?;
        for epoch in generation.by_ref().take((DAY_S / u64::from(scenario.epoch_s)) as usize) {
            rows += epoch.rows.len() as u64;
            census.add(&beginning, &epoch);
            writer.write(epoch).with_context(what)?;
        }
        writer.finish().with_context(what)?.flush().with_context(what)?;
        bytes += fs::metadata(&path).with_context(what)?.len();
        progress(day + 1, scenario.days, rows, bytes, began);
    }
    let mut truth = generation.truth();
    truth.days_counted = census.finish(&beginning);
    let path = options.out.join("truth.json");
    let what = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(&path).with_context(what)?);
    serde_json::to_writer_pretty(&mut file, &truth).with_context(what)?;
    writeln!(file).and_then(|()| file.flush()).with_context(what)?;
    println!(
        "{}: {} days with seed {seed}, {rows} rows, {} MB in {}; {} fleets in truth.json",
        scenario.name,
        scenario.days,
        bytes / 1_000_000,
        options.out.display(),
        truth.fleets.len(),
    );
    Ok(())
}

fn read(options: &Options) -> Result<Scenario> {
    let path: &Path = &options.scenario;
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the scenario {}", path.display()))?;
    let mut scenario = Scenario::from_toml(&text).with_context(|| format!("in {}", path.display()))?;
    scenario.days = options.days.unwrap_or(scenario.days);
    scenario.checked().context("with --days")
}

/// A line that grows, for who watches.
fn progress(day: u32, days: u32, rows: u64, bytes: u64, began: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (mega_rows, mega_bytes) = (rows as f64 / 1e6, bytes / 1_000_000);
    eprint!("\r{day} of {days} days, {mega_rows:.1} M rows, {mega_bytes} MB, {seconds:.0} s ");
    if day == days {
        eprintln!();
    }
}

/// YYYYMMDD of a time, UTC: the calendar from days, as in Howard Hinnant's `civil_from_days`.
fn date(time_s: u64) -> String {
    let days = time_s / DAY_S + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}")
}
