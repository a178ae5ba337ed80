//! Recordings are read, some rows at a time.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use detector_fleets::observation::{Observation, Services};
use parquet::{
    basic::{LogicalType, TimeUnit},
    file::{
        reader::{FileReader as _, SerializedFileReader},
        statistics::Statistics,
    },
};

use super::{
    error::RecordingError,
    names::{METADATA, Names},
    row_group::{RowGroup, Wrong, contained, message},
};

/// A recording that is read, some rows at a time.
pub struct Recording {
    path: PathBuf,
    file: SerializedFileReader<File>,
    columns: Columns,
    names: Names,
    /// Row groups that were begun.
    groups: usize,
    /// The last of them.
    group: Option<RowGroup>,
    /// Rows that were read.
    rows: usize,
}

/// The columns of a file.
pub(super) struct Columns {
    /// Their places, by name.
    places: HashMap<String, usize>,
    /// The unit of the column `time`.
    pub(super) time_unit: TimeUnit,
}

impl Columns {
    fn of(file: &SerializedFileReader<File>) -> Result<Self, String> {
        let schema = file.metadata().file_metadata().schema_descr();
        let name_of = |place: usize| schema.column(place).path().parts().first().cloned().unwrap_or_default();
        let places: HashMap<_, _> = (0..schema.num_columns()).map(|place| (name_of(place), place)).collect();
        let time = *places.get("time").ok_or("it has no column `time`")?;
        let time_unit = match schema.column(time).logical_type_ref() {
            Some(LogicalType::Timestamp(timestamp)) => timestamp.unit,
            other => return Err(format!("its column `time` is no timestamp but {other:?}")),
        };
        Ok(Self { places, time_unit })
    }

    /// The place of a column among all.
    pub(super) fn place(&self, name: &str) -> Result<usize, String> {
        self.places.get(name).copied().ok_or_else(|| format!("it has no column `{name}`"))
    }
}

impl Recording {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// It cannot be read, or has other columns.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let foreign = |found: String| RecordingError::Foreign { path: path.to_owned(), found };
        let file = File::open(path);
        let file = file.map_err(|source| RecordingError::Open { path: path.to_owned(), source })?;
        let file = contained(|| SerializedFileReader::new(file).map_err(message)).map_err(foreign)?;
        let columns = Columns::of(&file).map_err(foreign)?;
        let metadata = file.metadata().file_metadata().key_value_metadata();
        let names = metadata.into_iter().flatten().find(|entry| entry.key == METADATA);
        let names = match names.and_then(|entry| entry.value.as_deref()) {
            Some(json) => Names::of_json(json)
                .map_err(|error| foreign(format!("its metadata `{METADATA}` has no names: {error}")))?,
            None => Names::default(),
        };
        Ok(Self { path: path.to_owned(), file, columns, names, groups: 0, group: None, rows: 0 })
    }

    /// What fingerprints in it are called; none in recordings of other programs.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The earliest time in its first row group, seconds since the Unix epoch; `None`: it has no rows.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn start_s(&self) -> Result<Option<u64>, RecordingError> {
        let Some(metadata) = self.file.metadata().row_groups().iter().find(|group| group.num_rows() > 0)
        else {
            return Ok(None);
        };
        let time = self.columns.place("time").map_err(|found| self.foreign(found))?;
        let least = match metadata.column(time).statistics() {
            Some(Statistics::Int64(statistics)) => statistics.min_opt().copied(),
            _ => None,
        };
        let without = || {
            self.foreign("its column `time` does not tell its least value in the file's statistics".into())
        };
        let least = least.ok_or_else(without)?;
        seconds(least, self.columns.time_unit)
            .map(Some)
            .ok_or_else(|| self.foreign("a time is before 1970".into()))
    }

    /// Puts the next rows in the place of those in `rows`, with the numbers that `services` has for their services. Whether there are any: none
    /// are left at the end.
    ///
    /// # Errors
    ///
    /// They cannot be read, or a row is none.
    pub fn read(
        &mut self,
        services: &mut Services,
        rows: &mut Vec<Observation>,
    ) -> Result<bool, RecordingError> {
        rows.clear();
        loop {
            if let Some(group) = &mut self.group {
                group.read(services, rows).map_err(|wrong| self.told(wrong))?;
                self.rows += rows.len();
                if !rows.is_empty() {
                    return Ok(true);
                }
            }
            if self.groups >= self.file.num_row_groups() {
                return Ok(false);
            }
            let open = || {
                let group = self.file.get_row_group(self.groups).map_err(message)?;
                RowGroup::open(group.as_ref(), &self.columns)
            };
            let group = contained(open).map_err(|found| self.foreign(found))?;
            self.groups += 1;
            self.group = Some(group);
        }
    }

    fn told(&self, wrong: Wrong) -> RecordingError {
        match wrong {
            Wrong::Group(found) => self.foreign(found),
            Wrong::Row(row, found) => {
                RecordingError::Row { path: self.path.clone(), row: self.rows + row + 1, found }
            }
        }
    }

    fn foreign(&self, found: String) -> RecordingError {
        RecordingError::Foreign { path: self.path.clone(), found }
    }
}

/// Seconds since the Unix epoch; `None` before it.
pub(super) fn seconds(time: i64, unit: TimeUnit) -> Option<u64> {
    let time = u64::try_from(time).ok()?;
    Some(match unit {
        TimeUnit::MILLIS => time / 1_000,
        TimeUnit::MICROS => time / 1_000_000,
        TimeUnit::NANOS => time / 1_000_000_000,
    })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
