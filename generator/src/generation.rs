//! From a scenario to epochs.

use crate::deed::Deed;
use crate::limiter::Limiter;
use crate::population::Populations;
use crate::random::Key;
use crate::row::Epoch;
use crate::rows::Rows;
use crate::scenario::Scenario;
use crate::time::{DAY_S, Window};
use crate::truth::Truth;

/// The epochs of a recording, one after the other.
#[derive(Debug)]
pub struct Generation {
    scenario: Scenario,
    seed: u64,
    populations: Populations,
    limiters: Vec<Limiter>,
    rows: Rows,
    /// When the next epoch begins, seconds since the recording began.
    next_s: u32,
}

/// Generates a scenario: the same seed gives the same rows in the same order, on the same platform (the last bits of logarithms differ
/// between platforms). What is held is the state of the populations and a day of visits to come, whatever the length of the recording;
/// and for the truth, each source that a fleet has had.
///
/// A scenario that was changed after it was read is to be [`Scenario::checked`] again.
pub fn generate(scenario: &Scenario, seed: u64) -> Generation {
    let key = Key::root(seed).named("own_limiter");
    let limiters = scenario.own_limiter.iter().enumerate().map(|(index, it)| Limiter {
        key: key.at(index as u64),
        service: scenario.service_index(it.service.as_deref()),
        window: Window::hours(it.start_h, it.length_h, 0.0),
        packets_a_minute: it.packets_a_minute,
    });
    Generation {
        populations: Populations::new(scenario, seed),
        limiters: limiters.collect(),
        rows: Rows::new(scenario.exchange_sample),
        scenario: scenario.clone(),
        seed,
        next_s: 0,
    }
}

impl Generation {
    /// What is true of the epochs so far.
    pub fn truth(&self) -> Truth {
        Truth::new(&self.scenario, self.seed, &self.populations)
    }

    /// The next epoch, with everything that is done in it. What the rows say does not depend on who asks.
    pub fn next_with_deeds(&mut self) -> Option<(Epoch, Vec<Deed>)> {
        self.rows.deeds = Some(Vec::new());
        let epoch = self.next();
        let deeds = self.rows.deeds.take().unwrap_or_default();
        epoch.map(|epoch| (epoch, deeds))
    }
}

impl Iterator for Generation {
    type Item = Epoch;

    fn next(&mut self) -> Option<Epoch> {
        if self.next_s >= self.scenario.days * DAY_S {
            return None;
        }
        let span = self.next_s..self.next_s + self.scenario.epoch_s;
        self.next_s = span.end;
        self.populations.step(&span, &mut self.rows);
        let mut rows = self.rows.take();
        for limiter in &self.limiters {
            limiter.act(&span, self.scenario.exchange_sample, &mut rows);
        }
        Some(Epoch {
            time_s: u64::from(self.scenario.start_s) + u64::from(span.start),
            span_s: self.scenario.epoch_s,
            rows,
        })
    }
}
