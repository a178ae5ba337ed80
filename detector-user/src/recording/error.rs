//! What is wrong with a recording.

use std::{
    fmt::{self, Display, Formatter},
    io,
    path::PathBuf,
};

use parquet::errors::ParquetError;
use thiserror::Error;

/// A recording cannot be written or read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file is not there, or cannot be read.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else than a recording.
    #[error(
        "{path}: {found}; expected a recording that `detector record` wrote, or Parquet with its columns (docs/reference.md)"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// A row is none.
    #[error("{path}, row {row}: {found}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The number of the row, from 1.
        row: usize,
        /// What is wrong with it.
        found: String,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}{loss}; make room, or record to another directory")]
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParquetError,
        /// What became of its rows.
        loss: Loss,
    },
}

/// What became of the rows of a file that cannot be written.
#[derive(Debug, Default)]
pub struct Loss {
    /// Rows that can be read.
    pub kept: u64,
    /// Rows that cannot.
    pub lost: u64,
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.kept > 0 {
            write!(f, "; its first {} rows are kept", self.kept)?;
        }
        if self.lost > 0 {
            write!(f, "; {} rows are lost", self.lost)?;
        }
        Ok(())
    }
}

impl RecordingError {
    /// The same, and so many other rows are lost.
    pub(super) const fn and_lost(mut self, rows: u64) -> Self {
        if let Self::Write { loss, .. } = &mut self {
            loss.lost += rows;
        }
        self
    }
}
