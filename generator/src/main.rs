//! `generate SCENARIO --out DIR`: a scenario as Parquet, a file a day, with `truth.json`; and a part of it as packets.

use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use detector_generator::packets::capture::{Capture, CaptureTruth, PACKETS_MAX};
use detector_generator::parquet::Writer;
use detector_generator::truth::{Census, Truth};
use detector_generator::{Epoch, Generation, Scenario, generate};

const DAY_S: u64 = 86_400;

/// Name of the capture.
const CAPTURE: &str = "packets.pcap";

/// A capture begins so long before the fleet does, if nobody says otherwise.
const BEFORE_FLEET_S: u64 = 15 * 60;

/// Simulates a scenario: observations-YYYYMMDD.parquet for each day, truth.json, and packets.pcap: what clients send around the time at
/// which the first fleet begins
#[derive(Parser)]
#[command(name = "generate")]
struct Options {
    /// The scenario: the name of one in tests/scenarios, or the path of a file
    #[arg(value_name = "SCENARIO")]
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
    /// Hour of the recording at which packets.pcap begins, instead of a quarter of an hour before the first fleet, or of the first hour
    #[arg(long, value_name = "H")]
    pcap_from_h: Option<f64>,
    /// Minutes that packets.pcap has, in whole epochs; 0: it is not written. With more than 500,000 packets it is not kept
    #[arg(long, value_name = "N", default_value_t = 30)]
    pcap_minutes: u64,
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
    let mut packets = Packets::begin(&options, &scenario, &beginning)?;
    let mut census = Census::default();
    let (mut rows, mut bytes) = (0_u64, 0);
    for day in 0..scenario.days {
        let start_s = beginning.start_s + u64::from(day) * DAY_S;
        let path = options.out.join(format!("observations-{}.parquet", date(start_s)));
        let what = || format!("cannot write {}", path.display());
        let file = BufWriter::new(File::create(&path).with_context(what)?);
        let mut writer = Writer::new(file, &scenario).with_context(what)?;
        for time_s in (start_s..start_s + DAY_S).step_by(scenario.epoch_s as usize) {
            let Some(epoch) = packets.next(&mut generation, time_s)? else { break };
            rows += epoch.rows.len() as u64;
            census.add(&beginning, &epoch);
            writer.write(epoch).with_context(what)?;
        }
        writer.finish().with_context(what)?.flush().with_context(what)?;
        bytes += fs::metadata(&path).with_context(what)?.len();
        progress(day + 1, scenario.days, rows, bytes, began);
    }
    let (captured, said) = packets.finish()?;
    let mut truth = generation.truth();
    truth.days_counted = census.finish(&beginning);
    truth.capture = captured;
    write_truth(&options.out, &truth)?;
    println!(
        "{}: {} days with seed {seed}, {rows} rows, {} MB in {}; {} fleets in truth.json; {said}",
        scenario.name,
        scenario.days,
        bytes / 1_000_000,
        options.out.display(),
        truth.fleets.len(),
    );
    Ok(())
}

fn write_truth(directory: &Path, truth: &Truth) -> Result<()> {
    let path = directory.join("truth.json");
    let what = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(&path).with_context(what)?);
    serde_json::to_writer_pretty(&mut file, truth).with_context(what)?;
    writeln!(file).and_then(|()| file.flush()).with_context(what)
}

/// The part of a recording that is written as packets.
struct Packets {
    path: PathBuf,
    span_s: Range<u64>,
    /// `None`: there are too many packets, or none were asked for.
    capture: Option<Capture<BufWriter<File>>>,
}

impl Packets {
    fn begin(options: &Options, scenario: &Scenario, truth: &Truth) -> Result<Self> {
        let span_s = span_s(options, scenario, truth)?;
        let path = options.out.join(CAPTURE);
        let mut packets = Self { path, span_s, capture: None };
        if !packets.span_s.is_empty() {
            let file = File::create(&packets.path).with_context(|| packets.what())?;
            let capture = Capture::new(scenario, packets.span_s.clone(), BufWriter::new(file));
            packets.capture = Some(capture.with_context(|| packets.what())?);
        } else if packets.path.exists() {
            // One of another recording would be taken for a part of this one.
            fs::remove_file(&packets.path).with_context(|| packets.what())?;
        }
        Ok(packets)
    }

    fn what(&self) -> String {
        format!("cannot write {}", self.path.display())
    }

    /// The next epoch, at a time, which is taken into the capture if it is of that part.
    fn next(&mut self, generation: &mut Generation, time_s: u64) -> Result<Option<Epoch>> {
        let Some(capture) = self.capture.as_mut().filter(|_| self.span_s.contains(&time_s)) else {
            return Ok(generation.next());
        };
        let Some((epoch, deeds)) = generation.next_with_deeds() else { return Ok(None) };
        let fits =
            capture.add(&epoch, &deeds).with_context(|| format!("cannot write {}", self.path.display()))?;
        if !fits {
            self.capture = None;
            fs::remove_file(&self.path).with_context(|| self.what())?;
        }
        Ok(Some(epoch))
    }

    /// What is true of the capture, and what is said of it.
    fn finish(mut self) -> Result<(Option<CaptureTruth>, String)> {
        let minutes = (self.span_s.end - self.span_s.start) / 60;
        let Some(capture) = self.capture.take() else {
            let said = match minutes {
                0 => format!("no {CAPTURE}, as asked for"),
                _ => format!(
                    "no {CAPTURE}, since its {minutes} minutes have more than {PACKETS_MAX} packets: choose fewer with --pcap-minutes, or a smaller scale"
                ),
            };
            return Ok((None, said));
        };
        let (_, truth) = capture.finish().with_context(|| self.what())?;
        let said = format!("{} packets of {minutes} minutes in {CAPTURE}", truth.packets);
        Ok((Some(truth), said))
    }
}

/// Which part of the recording is written as packets, seconds since 1970, in whole epochs.
fn span_s(options: &Options, scenario: &Scenario, truth: &Truth) -> Result<Range<u64>> {
    let epoch_s = u64::from(scenario.epoch_s);
    let end_s = truth.start_s + u64::from(scenario.days) * DAY_S;
    let first = truth.fleets.iter().map(|fleet| fleet.start_s).min().filter(|start_s| *start_s < end_s);
    let from_s = match options.pcap_from_h {
        Some(hour) => truth.start_s.saturating_add((hour.max(0.0) * 3600.0) as u64),
        None => {
            first.map_or(truth.start_s, |start_s| start_s.saturating_sub(BEFORE_FLEET_S).max(truth.start_s))
        }
    };
    ensure!(
        from_s < end_s,
        "--pcap-from-h is beyond the recording: expected an hour from 0 to below {}",
        u64::from(scenario.days) * 24
    );
    let from_s = from_s - from_s % epoch_s;
    let length_s = (options.pcap_minutes.saturating_mul(60)).next_multiple_of(epoch_s);
    Ok(from_s..from_s.saturating_add(length_s).min(end_s))
}

fn read(options: &Options) -> Result<Scenario> {
    let named = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios"));
    let is_name = options.scenario.components().count() == 1 && options.scenario.extension().is_none();
    let path =
        if is_name { named.join(&options.scenario).with_extension("toml") } else { options.scenario.clone() };
    let text = fs::read_to_string(&path).with_context(|| {
        format!("cannot read the scenario {}: expected a name in tests/scenarios, or a file", path.display())
    })?;
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
