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
