//! What the daemon tells of fleets, as a file for commands: they read it also when the daemon is dead.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{report::Report, store::StoreError};
use crate::policy::FleetMode;

/// What is known of fleets, and how well that is known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetsTold)]
pub struct Told {
    /// How detection is.
    pub detection: Health,
    /// What it knows.
    #[serde(flatten)]
    pub report: Report,
    /// What is done about fleets, and why; by number.
    #[serde(default)]
    pub actions: Vec<ActionTold>,
}

impl Told {
    /// What is done about a fleet.
    pub fn action(&self, fleet: &str) -> Option<&ActionTold> {
        self.actions.iter().find(|action| action.fleet == fleet)
    }
}

/// What is done about a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetAction)]
pub struct ActionTold {
    /// The fleet's number.
    pub fleet: String,
    /// What was decided last: `nothing`, `suggest`, `throttle`, `tighten`, `renew`, `keep` or `end`.
    pub step: String,
    /// Why.
    pub says: String,
    /// The number of the operator's order that this follows; null: there is none. An order that is not done yet, or that a guard stops, is heard
    /// when its number stands here.
    pub order: Option<u64>,
    /// What every guard says.
    pub guards: Vec<GuardTold>,
    /// Members that an action leaves out.
    pub left_out: LeftOutTold,
    /// The command that would do what is suggested.
    pub command: Option<String>,
    /// What is in force; null: nothing.
    pub throttle: Option<ThrottleTold>,
}

impl ActionTold {
    /// In one word, for lists.
    pub fn word(&self) -> &str {
        match (&self.throttle, self.step.as_str()) {
            (Some(_), _) => "throttled",
            (None, "suggest") => "suggested",
            (None, _) => "none",
        }
    }
}

/// How many members of a fleet an action leaves out, each for the first reason that holds for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetLeftOut)]
pub struct LeftOutTold {
    /// An operator lets them pass.
    pub allowed: u64,
    /// They are customers by hints.
    pub customers: u64,
    /// Many clients are behind them.
    pub shared: u64,
    /// They came when enough had come, and wait.
    pub waiting: u64,
}

/// What a guard says of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetGuard)]
pub struct GuardTold {
    /// Which.
    pub guard: String,
    /// What was found.
    pub figure: f64,
    /// What may be.
    pub bound: f64,
    /// Whether it lets the action be.
    pub passed: bool,
    /// The same for people.
    pub says: String,
}

/// A throttle that is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetThrottle)]
pub struct ThrottleTold {
    /// Members that are charged.
    pub members: u64,
    /// Members that are held out, to measure the effect.
    pub held_out: u64,
    /// Members that found no room in the kernel, or are charged as another fleet's.
    pub without_room: u64,
    /// Pairs of fingerprints whose clients are charged at their ClientHello.
    pub keys: u64,
    /// Percent of sources that are held out.
    pub held_out_percent: u8,
    /// Packets that all share, and how many at once.
    pub packets: String,
    /// Connections that all share, and how many at once.
    pub connections: String,
    /// Since when, seconds since the Unix epoch.
    pub since_s: u64,
    /// When it ends unless it is renewed, likewise.
    pub until_s: u64,
    /// Packets that the budgets refused since.
    pub dropped: u64,
    /// The share that was cut of what members would have done, by those that are held out; null: not known.
    pub cut: Option<f64>,
    /// The command that takes it back.
    pub undo: String,
}

/// How detection is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = FleetsDetection)]
pub struct Health {
    /// In one word.
    pub state: Looking,
    /// `off`, `observe`, `suggest` or `throttle`: of services that say nothing else.
    #[schema(value_type = String)]
    pub mode: FleetMode,
    /// Active fleets: those that were seen in the last day of detection.
    #[serde(default)]
    pub fleets: u64,
    /// Fleets that are throttled, active or not.
    #[serde(default)]
    pub throttled: u64,
    /// Of this: seconds since the Unix epoch.
    pub at_s: u64,
    /// When all that is remembered was last on disk as a whole, seconds since the Unix epoch; epochs since are there, too. Null: never.
    pub saved_at_s: Option<u64>,
    /// Epochs since the daemon started.
    pub epochs: u64,
    /// Epochs that were lost, since detection was busy.
    pub epochs_lost: u64,
    /// Seconds that the last look for fleets took.
    pub look_seconds: f64,
    /// What is wrong; null: nothing.
    pub problem: Option<String>,
    /// Who stopped all actions on fleets, and why; null: they are not stopped.
    pub stopped: Option<String>,
}

/// What detection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FleetsLooking)]
pub enum Looking {
    /// Nothing: the policy says so, or no daemon ran yet.
    #[default]
    Off,
    /// It learns what is usual: no fleet is found at any service before that is over.
    Learning,
    /// It looks for fleets.
    Watching,
    /// It ended, see `problem`.
    Failed,
}

impl Looking {
    /// As JSON writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Learning => "learning",
            Self::Watching => "watching",
            Self::Failed => "failed",
        }
    }
}

/// The file in the directory of an instance.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("told.json")
}

/// Writes it, so that whoever reads finds this or the one before.
///
/// # Errors
///
/// It cannot be written.
pub fn write(directory: &Path, told: &Told) -> Result<(), StoreError> {
    let json = serde_json::to_vec(told).map_err(io::Error::other);
    replace(&path(directory), 0o600, |path, mode| {
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path)?;
        io::Write::write_all(&mut file, &json?)
    })
}

/// Writes a file beside another one, and then in its place.
///
/// # Errors
///
/// It cannot be written.
pub fn replace(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&Path, u32) -> io::Result<()>,
) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    write(&new, mode).and_then(|()| fs::rename(&new, path)).map_err(|source| StoreError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads it. `None`: no daemon told anything here yet.
///
/// # Errors
///
/// It cannot be read, or is none.
pub fn read(directory: &Path) -> Result<Option<Told>, StoreError> {
    let path = path(directory);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { what: "read", path, source }),
    };
    let told = serde_json::from_slice(&bytes);
    told.map(Some).map_err(|error| StoreError::Damaged { path, found: error.to_string() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(figure: f64, bound: f64) -> GuardTold {
        GuardTold { guard: "collateral".to_owned(), figure, bound, passed: true, says: String::new() }
    }

    proptest! {
        /// Who compares what is told with what was told before compares equal figures.
        #[test]
        fn figures_are_read_as_they_were_written(figure in any::<f64>(), bound in 0.0..1.0_f64) {
            prop_assume!(figure.is_finite());
            let written = guard(figure, bound);
            let json = serde_json::to_string(&written).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<GuardTold>(&json).expect("a guard"), written);
        }
    }
}
