//! Measures detection on scenarios whose truth is known.
//!
//! `detector-evaluation SCENARIO… [--seed N] [--seeds N] [--alarms]`: for each scenario and seed a line for each fleet of the truth and for
//! each fleet that is none, and with several seeds the means, with what 95 % of them are within.

mod measure;
mod report;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use detector_generator::Scenario;

/// What is asked for.
#[derive(Debug)]
struct Arguments {
    scenarios: Vec<PathBuf>,
    /// The first seed, and how many.
    seed: u64,
    seeds: u64,
    /// Whether alarms, and what is nearly one, are printed.
    has_alarms: bool,
}

impl Arguments {
    fn of(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self { scenarios: Vec::new(), seed: 1, seeds: 1, has_alarms: false };
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().with_context(|| format!("{word} needs a number"))?;
                number.parse().with_context(|| format!("{word} {number}: not a number"))
            };
            match word.as_str() {
                "--seed" => arguments.seed = number()?,
                "--seeds" => arguments.seeds = number()?,
                "--alarms" => arguments.has_alarms = true,
                other if other.starts_with('-') => bail!("{other} is no option"),
                path => arguments.scenarios.push(path.into()),
            }
        }
        if arguments.scenarios.is_empty() {
            bail!("which scenario? files of tests/scenarios");
        }
        Ok(arguments)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::of(std::env::args().skip(1))?;
    for path in &arguments.scenarios {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let scenario = Scenario::from_toml(&text).with_context(|| format!("in {}", path.display()))?;
        let mut runs = Vec::new();
        for seed in arguments.seed..arguments.seed + arguments.seeds {
            let run = measure::measure(&scenario, seed, arguments.has_alarms)?;
            print!("{}", report::of_run(&scenario.name, seed, &run));
            runs.push(run);
        }
        if runs.len() > 1 {
            print!("{}", report::of_runs(&scenario.name, &runs));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let of = |text: &str| Arguments::of(text.split_whitespace().map(str::to_owned));
        let read = of("a.toml --seed 7 b.toml --seeds 20 --alarms").expect("these are some");
        assert_eq!((read.scenarios.len(), read.seed, read.seeds, read.has_alarms), (2, 7, 20, true));
        for wrong in ["", "--seed 7", "a.toml --seed", "a.toml --seed x", "a.toml --other"] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
