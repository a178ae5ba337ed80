//! What was changed, when, by whom and why: versions of the policy with their texts, and audit entries, in SQLite.
//!
//! The database is opened for each use and closed again: a daemon that lives for months survives a full disk, and a
//! database that is moved, restored or deleted. Nothing here decides about packets: what cannot be recorded is told to
//! the caller, who goes on.
//!
//! - `schema`: the tables. `versions`, `audit`, `incidents`, `fleets`, `fleet_actions`, `hints`: what is written and read. `prune`: what is forgotten.
//! - [`standing`]: what a version is now, by what the kernel has. [`change`]: what differs between two.

mod audit;
mod author;
pub mod change;
mod fleet_actions;
mod fleets;
mod hints;
mod incidents;
mod prune;
mod schema;
pub mod standing;
mod version;
mod versions;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use thiserror::Error;

pub use audit::{Entry, Recorded};
pub use author::Author;
pub use hints::{Heard, Which};
pub use prune::Bounds;
pub use version::{Content, NewVersion, Origin, SourceFile, State, Version};

/// Where the history is unless another place is asked for.
pub const DEFAULT_STATE: &str = "/var/lib/detector";

/// The database in the state directory.
const FILE: &str = "history.db";

/// How long a process waits for another that writes. Writing takes milliseconds, with large source files a second.
const BUSY: Duration = Duration::from_secs(5);

/// The history of one instance.
#[derive(Debug, Clone)]
pub struct History {
    directory: PathBuf,
    /// The directory of the pins names the instance: several may share a state directory.
    pins: String,
    bounds: Bounds,
}

/// Why the history cannot be written or read.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The directory or the file.
    #[error(
        "cannot {what} {path} for the history: {source}; make it writable for this user, or name another directory with \
         --state"
    )]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is none of ours, or broken.
    #[error(
        "the history {path} is no database, or a broken one ({source}): move it away (the next change starts a new one), or \
         restore it from a backup"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A newer version wrote it.
    #[error(
        "the history was written by a newer detector (its schema is {found}, this one knows {known}): use that one, or name \
         another directory with --state"
    )]
    Newer {
        /// The schema found.
        found: usize,
        /// The last schema known.
        known: usize,
    },
    /// There is no such version.
    #[error(
        "there is no version {version} of {pins}, or it was pruned: `detector history` lists the versions"
    )]
    NoVersion {
        /// The version asked for.
        version: u64,
        /// The instance.
        pins: String,
    },
    /// There is no room for more of something.
    #[error("{most} {what} are kept already: expected at most so many; {next}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
        /// What to do.
        next: &'static str,
    },
    /// Nobody ordered anything about a fleet.
    #[error(
        "there is no order about fleet {fleet}, or it has ended: `detector allow fleet:{fleet} --for 1h --reason TEXT` leaves it alone"
    )]
    NoOrder {
        /// The fleet.
        fleet: u64,
    },
    /// There is no such hint.
    #[error("there is no hint {id}, or it has ended: `GET /v1/hints` lists them")]
    NoHint {
        /// The number asked for.
        id: u64,
    },
    /// SQLite.
    #[error(
        "the history cannot be used ({0}): look whether its disk is full or read-only, or name another directory with --state"
    )]
    Database(#[from] rusqlite::Error),
}

impl History {
    /// The history of the instance with these pins, in a state directory. Nothing is made or opened yet.
    pub fn new(directory: impl Into<PathBuf>, pins: &Path) -> Self {
        Self {
            directory: directory.into(),
            pins: pins.components().collect::<PathBuf>().display().to_string(),
            bounds: Bounds::DEFAULT,
        }
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the database.
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Opens the database, made if it is missing.
    fn writer(&self) -> Result<Connection, HistoryError> {
        let path = self.path();
        let directory = || {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
            made.map_err(|source| HistoryError::Io { what: "make", path: self.directory.clone(), source })
        };
        // SQLite would make the file with the mode of the umask.
        let file = || {
            let made = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
            made.map_err(|source| HistoryError::Io { what: "write", path: path.clone(), source })
        };
        directory()?;
        file()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        self.checked(|| {
            let mut connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            if schema::number(&connection)? < schema::MIGRATIONS.len() {
                connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            }
            schema::migrate(&mut connection)?;
            Ok(connection)
        })
    }

    /// Opens the database to read; `None`: there is none yet.
    fn reader(&self) -> Result<Option<Connection>, HistoryError> {
        let path = self.path();
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HistoryError::Io { what: "read", path, source }),
            Ok(_) => {}
        }
        let error = match self.writer() {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => error,
        };
        // The last who closes the database writes all of the log into it. One that lies beside it all the same, as after a
        // power failure or where somebody writes now, has what is newer.
        let is_whole = is_whole(&path).map_err(|source| HistoryError::Io {
            what: "read",
            path: path.clone(),
            source,
        })?;
        if !error.is_read_only() || !is_whole {
            return Err(error);
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = self.checked(|| Ok(Connection::open_with_flags(immutable_uri(&path), flags)?))?;
        match self.checked(|| schema::number(&connection))? {
            0 => Ok(None),
            found if found == schema::MIGRATIONS.len() => Ok(Some(connection)),
            // An older one cannot be brought to the present schema either.
            found if found < schema::MIGRATIONS.len() => Err(error),
            found => Err(HistoryError::Newer { found, known: schema::MIGRATIONS.len() }),
        }
    }

    /// Does something as a whole or not at all.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let mut connection = self.writer()?;
        self.checked(|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Reads; `none` where there is no history yet.
    fn read<T>(
        &self,
        none: impl FnOnce() -> Result<T, HistoryError>,
        work: impl FnOnce(&Connection) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        match self.reader()? {
            None => none(),
            Some(connection) => self.checked(|| work(&connection)),
        }
    }

    /// Tells a broken file from other errors.
    fn checked<T>(&self, work: impl FnOnce() -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        work().map_err(|error| match error {
            HistoryError::Database(source) if is_broken(&source) => {
                HistoryError::Broken { path: self.path(), source }
            }
            other => other,
        })
    }
}

/// Whether the database has everything, without the log beside it.
fn is_whole(database: &Path) -> io::Result<bool> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    match fs::metadata(log) {
        Ok(metadata) => Ok(metadata.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// A file name as SQLite takes it for a file that nobody changes.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for letter in path.display().to_string().chars() {
        match letter {
            '%' => uri += "%25",
            '?' => uri += "%3f",
            '#' => uri += "%23",
            _ => uri.push(letter),
        }
    }
    uri + "?immutable=1"
}

fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

impl HistoryError {
    /// Whether only writing fails.
    fn is_read_only(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
            }
            Self::Database(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::ReadOnly
                        | ErrorCode::CannotOpen
                        | ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                )
            ),
            _ => false,
        }
    }
}
