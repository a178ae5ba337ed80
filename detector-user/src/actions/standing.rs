//! What is in force about a fleet: what the kernel is told, and what is remembered of it until the next plan.

use detector_fleets::{fleet::FleetId, source::Source, traits::Key};
use serde::{Deserialize, Serialize};

use super::budget::SharedBudgets;
use crate::{
    fleets::Scale,
    policy::{Budget, Rate, utc_text},
};

/// What the kernel does about a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The fleet.
    pub fleet: FleetId,
    /// Where its budgets are: 1 to [`SLOTS_MAX`](super::limits::SLOTS_MAX).
    pub slot: u8,
    /// The service's number in the maps.
    pub service: u16,
    /// Sources whose every packet and connection there is charged to the shared budgets; in order, each once.
    pub members: Vec<Source>,
    /// Pairs of fingerprints whose clients are charged at their ClientHello, wherever they come from.
    pub keys: Vec<Key>,
    /// What they all may use together.
    pub budgets: SharedBudgets,
    /// Percent of the sources for which it is done, by a keyed hash of the source; the others are held out.
    pub enforced_percent: u8,
    /// When it ends by itself, seconds since the Unix epoch.
    pub until_s: u64,
}

impl Action {
    /// For people and the audit: what is done, without saying to whom; times and rates as they are outside.
    pub fn text(&self, scale: Scale) -> String {
        let SharedBudgets { packets, connections } = self.budgets;
        let budget = |Budget { rate, burst }: Budget| {
            let rate = Rate { per_ns: scale.outer_ns(rate.per_ns), ..rate };
            format!("{rate} burst {burst}")
        };
        format!(
            "{} members, {} keys, packets {}, connections {}, {} %, until {}",
            self.members.len(),
            self.keys.len(),
            budget(packets),
            budget(connections),
            self.enforced_percent,
            utc_text(scale.end_unix_s(self.until_s))
        )
    }
}

/// How tight the budgets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// As they were made.
    Throttled,
    /// Smaller, since they had no effect.
    Tightened,
}

/// How many members came to an action in an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// When the hour began, seconds since the Unix epoch.
    pub began_s: u64,
    /// How many came since.
    pub came: u32,
}

/// An action that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What the kernel does.
    pub action: Action,
    /// How tight it is.
    pub rung: Rung,
    /// Since when it is there, seconds since the Unix epoch.
    pub since_s: u64,
    /// Since when its budgets are what they are: what is measured counts from here.
    pub budgets_since_s: u64,
    /// When the fleet was seen that it was renewed by, likewise.
    pub evidence_s: u64,
    /// How it grew.
    pub growth: Growth,
    /// The operator's order that it follows; `None`: it is the daemon's own.
    pub order: Option<u64>,
}
