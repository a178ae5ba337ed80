//! What was measured, as JSON. Fields are added, not renamed: other tools read it.

use serde::{Deserialize, Serialize};

/// All that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Scenarios in the order in which they were asked for.
    pub(crate) scenarios: Vec<Measured>,
    /// What days of a million sources cost.
    pub(crate) cost: Option<Cost>,
}

impl Figures {
    /// Takes a scenario's figures in the place of older ones.
    pub(crate) fn put(&mut self, measured: Measured) {
        match self.scenarios.iter_mut().find(|known| known.name == measured.name) {
            Some(known) => *known = measured,
            None => self.scenarios.push(measured),
        }
    }

    pub(crate) fn of(&self, name: &str) -> Option<&Measured> {
        self.scenarios.iter().find(|measured| measured.name == name)
    }
}

/// A scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) days: u32,
    /// Sources of an ordinary day, of all services together and without fleets.
    pub(crate) daily_sources: f64,
    /// Runs by seed.
    pub(crate) runs: Vec<Run>,
}

/// A run of a scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// Fleets of the truth.
    pub(crate) fleets: Vec<TrueFleet>,
    /// Fleets that were found and are none.
    pub(crate) false_fleets: Vec<FalseFleet>,
    /// The share of legitimate exchanges of the day after the first fleet began that sources made which a fleet that may be acted on has
    /// among its members at the end of that day, and which are none. `None`: there was no fleet.
    pub(crate) collateral: Option<f64>,
    pub(crate) rows: u64,
}

/// A fleet of the truth.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrueFleet {
    pub(crate) name: String,
    pub(crate) level: String,
    /// Sources of a day.
    pub(crate) sources: u32,
    /// Of the daily sources of its service.
    pub(crate) share: f64,
    /// From its start to the first alarm of a fleet that is it; `None`: there was no alarm.
    pub(crate) minutes_to_alarm: Option<u64>,
    /// Members at [`COMPARED_AT_H`] hours after its start; `None`: it was over, or the recording was.
    pub(crate) compared: [Option<Compared>; COMPARED_AT_H.len()],
    /// Numbers that it was found under.
    pub(crate) found_as: Vec<u64>,
    /// Whether one of those may ever be acted on.
    pub(crate) may_be_acted_on: bool,
}

/// Hours after the start of a fleet at which its members are compared.
pub(crate) const COMPARED_AT_H: [u64; 3] = [6, 24, 168];

/// Members against the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// Sources that were found and are members.
    pub(crate) right: usize,
    /// Sources that were found.
    pub(crate) found: usize,
    /// Members that were active in the last 24 h.
    pub(crate) members: usize,
}

impl Compared {
    /// The part of what was found that is right; nothing that was found is all wrong.
    pub(crate) fn precision(self) -> f64 {
        self.right as f64 / self.found.max(1) as f64
    }

    /// The part of the members that was found.
    pub(crate) fn recall(self) -> f64 {
        self.right as f64 / self.members.max(1) as f64
    }
}

/// A fleet that is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FalseFleet {
    /// Hours from the start of the recording to its alarm.
    pub(crate) alarmed_h: f64,
    /// The most members that it had.
    pub(crate) members: usize,
    /// Whether it was never more than a new uniform population.
    pub(crate) is_uniform: bool,
    /// Whether it might ever have been acted on: no new uniform population, and with a predicted collateral that is low enough.
    pub(crate) may_be_acted_on: bool,
}

/// What detection costs, in time of one core.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Sources of the last day.
    pub(crate) sources: u64,
    /// Rows of all days.
    pub(crate) rows: u64,
    /// Members of the largest fleet that was found.
    pub(crate) members: u64,
    /// Rows that are taken in a second, without looks.
    pub(crate) rows_a_second: f64,
    /// The part of the core that was had while they were taken in.
    pub(crate) core_share: f64,
    /// Rows that are read from recordings and taken in a second, without looks.
    pub(crate) hunted_rows_a_second: f64,
    /// The part of the core that was had while they were read and taken in.
    pub(crate) hunted_core_share: f64,
    /// The longest look at all windows that end with an interval: learning, evidence, who belongs and why, s.
    pub(crate) look_s: f64,
    /// The most memory that the process had in the four hours of rows after it had read what was saved, bytes.
    pub(crate) memory_bytes: u64,
    /// The most that it had while it read what was saved, bytes.
    pub(crate) restored_bytes: u64,
}
