//! Measures detection on scenarios whose truth is known. `evaluation --help` says how it is asked.

mod chart;
mod core_share;
mod cost;
mod document;
mod figures;
mod measure;
#[cfg(test)]
mod negatives;
mod report;
mod statistics;
mod suite;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use detector_generator::Scenario;
use detector_user::huge_pages::{HugePages, give_back_large_pieces};

use crate::{
    figures::{Figures, Measured, Run},
    measure::FoundFleet,
};

/// As the daemon has it.
#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

/// Threads that run scenarios, at most.
const THREADS_MAX: usize = 2;

/// An ordinary day has 38,000 sources: so many of them are a million.
const MILLION: f64 = 26.0;

/// Measures detection of fleets on simulated scenarios whose truth is known
#[derive(Debug, Parser)]
#[command(name = "cargo xtask evaluate")]
struct Arguments {
    /// Names of scenarios in tests/scenarios; otherwise all that docs/detection.md is about
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Small scenarios and few seeds, in about three minutes; writes no document
    #[arg(long)]
    quick: bool,
    /// How many seeds; 20 if it is not said, with --quick 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// The first seed; most rules were chosen on seeds from 101 on, and docs/detection.md names the others
    #[arg(long, value_name = "N", default_value_t = 1)]
    first_seed: u64,
    /// Print the figures as JSON at the end
    #[arg(long)]
    json: bool,
    /// Print each alarm, and what is nearly one
    #[arg(long)]
    alarms: bool,
    /// Measure what days of a million sources cost, and no scenarios unless they are named
    #[arg(long)]
    cost: bool,
    /// Directory of detection.json, detection.md and detection.svg: scenarios that are measured replace older figures of the same
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Directory of the scenarios; otherwise tests/scenarios
    #[arg(long, value_name = "DIR", hide_default_value = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios"))]
    directory: PathBuf,
}

impl Arguments {
    fn names(&self) -> Vec<String> {
        match (self.scenarios.is_empty(), self.quick, self.cost) {
            (false, ..) => self.scenarios.clone(),
            (true, _, true) => Vec::new(),
            (true, true, false) => suite::quick(),
            (true, false, false) => suite::whole(),
        }
    }

    fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(if self.quick { 3 } else { 20 })
    }
}

fn main() -> Result<()> {
    give_back_large_pieces();
    let arguments = Arguments::parse();
    let docs = arguments.docs.as_deref().filter(|_| !arguments.quick);
    let mut figures = match docs {
        Some(docs) => read(docs)?,
        None => Figures::default(),
    };
    let mut of_now = Figures::default();
    // With --json the standard output is that.
    let tell = |text: String| if arguments.json { eprint!("{text}") } else { print!("{text}") };
    let is_whole = arguments.scenarios.is_empty() && !arguments.quick;
    if arguments.cost || is_whole {
        figures.cost = Some(cost::cost(MILLION)?);
        of_now.cost.clone_from(&figures.cost);
        tell(document::of_cost(figures.cost.as_ref()));
        docs.map_or(Ok(()), |docs| document::write(docs, &figures))?;
    }
    let scenarios: Vec<_> =
        arguments.names().iter().map(|name| scenario(&arguments.directory, name)).collect::<Result<_>>()?;
    for (number, scenario) in scenarios.iter().enumerate() {
        eprintln!("{} of {}: {}, {} days", number + 1, scenarios.len(), scenario.name, scenario.days);
        let measured = measure_all(scenario, &arguments, &tell)?;
        tell(report::of_runs(&measured));
        of_now.put(measured.clone());
        figures.put(measured);
        docs.map_or(Ok(()), |docs| document::write(docs, &figures))?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&of_now).context("writing the figures as JSON")?);
    }
    Ok(())
}

fn read(docs: &Path) -> Result<Figures> {
    let path = docs.join(document::FIGURES);
    if !path.exists() {
        return Ok(Figures::default());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{}: no figures of this program; remove it to begin anew", path.display()))
}

/// A scenario by its name, or by the path of its file.
fn scenario(directory: &Path, name: &str) -> Result<Scenario> {
    let is_path = Path::new(name).extension().is_some();
    let path = if is_path { PathBuf::from(name) } else { directory.join(format!("{name}.toml")) };
    let text = fs::read_to_string(&path).with_context(|| {
        format!("reading the scenario {}: expected a name in tests/scenarios, or a file", path.display())
    })?;
    Scenario::from_toml(&text).with_context(|| format!("in {}", path.display()))
}

/// Runs a scenario with all seeds, two at once, and tells what each run found.
fn measure_all(scenario: &Scenario, arguments: &Arguments, tell: &impl Fn(String)) -> Result<Measured> {
    let seeds: Vec<_> = (arguments.first_seed..).take(arguments.seeds() as usize).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(seeds.len());
    let next = AtomicUsize::new(0);
    let (results, finished) = mpsc::channel();
    let mut runs: Vec<Run> = Vec::new();
    let mut daily_sources = 0.0;
    thread::scope(|scope| {
        for _ in 0..threads {
            let results = results.clone();
            scope.spawn(|| {
                let results = results;
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = measure::measure(scenario, seed, arguments.alarms);
                    if results.send(run).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        for result in finished {
            let (run, found): (Run, Vec<FoundFleet>) = result?;
            tell(report::of_run(&scenario.name, &run, &found));
            runs.push(run);
            eprint!("\r{} of {} seeds ", runs.len(), seeds.len());
        }
        eprintln!();
        anyhow::Ok(())
    })?;
    if runs.len() != seeds.len() {
        bail!("{}: {} of {} runs came to an end", scenario.name, runs.len(), seeds.len());
    }
    runs.sort_by_key(|run| run.seed);
    if let Some(seed) = seeds.first() {
        let truth = detector_generator::generate(scenario, *seed).truth();
        daily_sources = truth.services.iter().map(|service| service.daily_sources_expected).sum();
    }
    Ok(Measured { name: scenario.name.clone(), days: scenario.days, daily_sources, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_asked_for_is_there() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios"));
        for name in suite::whole().iter().chain(&suite::quick()) {
            let read = scenario(directory, name).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!(read.name, *name);
        }
        let error = scenario(directory, "nothing").expect_err("it is not there");
        assert!(error.to_string().contains("nothing.toml"), "{error:#}");
    }

    #[test]
    fn what_is_not_named_is_chosen() {
        let of = |words: &str| Arguments::try_parse_from(words.split_whitespace());
        let names =
            |words: &str| of(words).map(|arguments| (arguments.names().len(), arguments.seeds())).ok();
        assert_eq!(names("evaluation"), Some((suite::whole().len(), 20)));
        assert_eq!(names("evaluation --quick"), Some((suite::quick().len(), 3)));
        assert_eq!(names("evaluation --cost"), Some((0, 20)));
        assert_eq!(names("evaluation --seeds 5 l0 l1"), Some((2, 5)));
        assert_eq!(names("evaluation --seeds 0"), None);
    }
}
