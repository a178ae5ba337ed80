//! What is wrong with a recording.

use std::{io, path::PathBuf};

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
    #[error("cannot write {path}: {source}; make room, or record to another directory")]
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParquetError,
    },
}
