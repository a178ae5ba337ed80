//! Recordings are read, a row group at a time.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId, Services},
    source::Source,
};
use parquet::{
    basic::{LogicalType, TimeUnit},
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        reader::{FileReader as _, RowGroupReader, SerializedFileReader},
        statistics::Statistics,
    },
};

use super::{
    error::RecordingError,
    names::{METADATA, Names},
};

/// A recording that is read, a row group at a time.
pub struct Recording {
    path: PathBuf,
    file: SerializedFileReader<File>,
    columns: HashMap<String, Place>,
    names: Names,
    /// The unit of the column `time`.
    time_unit: TimeUnit,
    /// Row groups and rows that were read.
    groups: usize,
    rows: usize,
}

/// Where a column is in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its place among all.
    place: usize,
    /// Definition and repetition level of a value that is there.
    most: (i16, i16),
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
        let file = SerializedFileReader::new(file).map_err(|error| foreign(error.to_string()))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let columns = schema.columns().iter().enumerate().map(|(place, column)| {
            let name = column.path().parts().first().cloned().unwrap_or_default();
            (name, Place { place, most: (column.max_def_level(), column.max_rep_level()) })
        });
        let columns: HashMap<_, _> = columns.collect();
        let time = columns.get("time").ok_or_else(|| foreign("it has no column `time`".into()))?;
        let time_unit = match schema.column(time.place).logical_type_ref() {
            Some(LogicalType::Timestamp(timestamp)) => timestamp.unit,
            other => return Err(foreign(format!("its column `time` is no timestamp but {other:?}"))),
        };
        let metadata = file.metadata().file_metadata().key_value_metadata();
        let names = metadata.into_iter().flatten().find(|entry| entry.key == METADATA);
        let names = match names.and_then(|entry| entry.value.as_deref()) {
            Some(json) => Names::of_json(json)
                .map_err(|error| foreign(format!("its metadata `{METADATA}` has no names: {error}")))?,
            None => Names::default(),
        };
        Ok(Self { path: path.to_owned(), file, columns, names, time_unit, groups: 0, rows: 0 })
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
        let time = self.columns.get("time").map(|place| metadata.column(place.place));
        let least = time.and_then(|column| match column.statistics() {
            Some(Statistics::Int64(statistics)) => statistics.min_opt().copied(),
            _ => None,
        });
        let without = || {
            self.foreign("its column `time` does not tell its least value in the file's statistics".into())
        };
        let least = least.ok_or_else(without)?;
        seconds(least, self.time_unit).map(Some).ok_or_else(|| self.foreign("a time is before 1970".into()))
    }

    /// The rows of the next row group, with the numbers that `services` has for their services; `None` at the end.
    ///
    /// # Errors
    ///
    /// They cannot be read, or a row is none.
    pub fn next_group(
        &mut self,
        services: &mut Services,
    ) -> Result<Option<Vec<Observation>>, RecordingError> {
        if self.groups >= self.file.num_row_groups() {
            return Ok(None);
        }
        let group = self.file.get_row_group(self.groups).map_err(|error| self.broken(&error))?;
        self.groups += 1;
        let rows = self.read_group(group.as_ref(), services)?;
        self.rows += rows.len();
        Ok(Some(rows))
    }

    fn read_group(
        &self,
        group: &dyn RowGroupReader,
        services: &mut Services,
    ) -> Result<Vec<Observation>, RecordingError> {
        let rows = group.metadata().num_rows() as usize;
        let read = Reader { recording: self, group, rows };
        let times = read.column::<Int64Type>("time")?;
        let spans = read.column::<Int32Type>("span_s")?;
        let of_services = read.column::<ByteArrayType>("service")?;
        let sources = read.column::<ByteArrayType>("source")?;
        let [syn_keys, tls_keys, packets, bytes, dropped] =
            ["syn_key", "tls_key", "packets", "bytes", "dropped_packets"]
                .map(|name| read.column::<Int64Type>(name));
        let (syn_keys, tls_keys, packets, bytes, dropped) =
            (syn_keys?, tls_keys?, packets?, bytes?, dropped?);
        let connections = read.column::<Int32Type>("connections")?;
        let handshakes = read.column::<Int32Type>("handshakes")?;
        let exchanges = read.column::<Int32Type>("exchanges")?;
        let request_sizes = read.lists::<SIZE_BINS>("request_sizes")?;
        let response_sizes = read.lists::<SIZE_BINS>("response_sizes")?;
        let rtt = read.lists::<TIME_BINS>("rtt")?;
        let hello_gap = read.lists::<TIME_BINS>("hello_gap")?;
        let finish_gap = read.lists::<TIME_BINS>("finish_gap")?;
        let mut known_services: HashMap<&[u8], ServiceId> = HashMap::new();
        let mut known_sources: HashMap<&[u8], Source> = HashMap::new();
        let mut observations = Vec::with_capacity(rows);
        for row in 0..rows {
            let wrong = |found: String| RecordingError::Row {
                path: self.path.clone(),
                row: self.rows + row + 1,
                found,
            };
            let text = |bytes: &ByteArray| {
                bytes.as_utf8().map(ToOwned::to_owned).map_err(|error| wrong(error.to_string()))
            };
            let name = &of_services[row];
            let service = match known_services.get(name.data()) {
                Some(number) => *number,
                None => {
                    let number = services.number(&text(name)?);
                    let number = number.ok_or_else(|| wrong("there are more than 65,536 services".into()))?;
                    *known_services.entry(name.data()).or_insert(number)
                }
            };
            let name = &sources[row];
            let source = match known_sources.get(name.data()) {
                Some(source) => *source,
                None => {
                    let source = text(name)?
                        .parse()
                        .map_err(|error: detector_fleets::source::NotASource| wrong(error.to_string()))?;
                    *known_sources.entry(name.data()).or_insert(source)
                }
            };
            let time_s =
                seconds(times[row], self.time_unit).ok_or_else(|| wrong("its time is before 1970".into()))?;
            observations.push(Observation {
                time_s,
                span_s: spans[row] as u32,
                source,
                kind: Kind { service, syn_key: syn_keys[row] as u64, tls_key: tls_keys[row] as u64 },
                packets: packets[row] as u64,
                bytes: bytes[row] as u64,
                dropped_packets: dropped[row] as u64,
                connections: connections[row] as u32,
                handshakes: handshakes[row] as u32,
                exchanges: exchanges[row] as u32,
                request_sizes: request_sizes[row],
                response_sizes: response_sizes[row],
                rtt: rtt[row],
                hello_gap: hello_gap[row],
                finish_gap: finish_gap[row],
            });
        }
        Ok(observations)
    }

    fn broken(&self, error: &ParquetError) -> RecordingError {
        self.foreign(error.to_string())
    }

    fn foreign(&self, found: String) -> RecordingError {
        RecordingError::Foreign { path: self.path.clone(), found }
    }
}

/// Seconds since the Unix epoch; `None` before it.
fn seconds(time: i64, unit: TimeUnit) -> Option<u64> {
    let time = u64::try_from(time).ok()?;
    Some(match unit {
        TimeUnit::MILLIS => time / 1_000,
        TimeUnit::MICROS => time / 1_000_000,
        TimeUnit::NANOS => time / 1_000_000_000,
    })
}

/// Values of a column, and of one of lists their repetition levels.
type Values<T> = (Vec<T>, Option<Vec<i16>>);

/// Reads columns of a row group.
struct Reader<'a> {
    recording: &'a Recording,
    group: &'a dyn RowGroupReader,
    rows: usize,
}

impl Reader<'_> {
    /// A value for each row.
    fn column<T: DataType>(&self, name: &str) -> Result<Vec<T::T>, RecordingError> {
        let (values, starts) = self.values::<T>(name)?;
        if values.len() == self.rows && starts.is_none() {
            return Ok(values);
        }
        let found = format!("its column `{name}` has {} values for {} rows", values.len(), self.rows);
        Err(self.recording.foreign(found))
    }

    /// A list of so many values for each row.
    fn lists<const BINS: usize>(&self, name: &str) -> Result<Vec<[u32; BINS]>, RecordingError> {
        let (values, repetitions) = self.values::<Int32Type>(name)?;
        let is_whole = repetitions.is_some_and(|levels| {
            levels.len() == self.rows * BINS
                && levels.iter().enumerate().all(|(at, level)| (*level == 0) == (at % BINS == 0))
        });
        if !is_whole || values.len() != self.rows * BINS {
            let found = format!("a list of its column `{name}` has not {BINS} elements");
            return Err(self.recording.foreign(found));
        }
        let (lists, _) = values.as_chunks::<BINS>();
        Ok(lists.iter().map(|list| list.map(|count| count as u32)).collect())
    }

    /// All values of a column.
    fn values<T: DataType>(&self, name: &str) -> Result<Values<T::T>, RecordingError> {
        let missing = || self.recording.foreign(format!("it has no column `{name}`"));
        let Place { place, most } = *self.recording.columns.get(name).ok_or_else(missing)?;
        let physical = self.group.metadata().column(place).column_type();
        if physical != T::get_physical_type() {
            let found = format!("its column `{name}` is {physical}, not {}", T::get_physical_type());
            return Err(self.recording.foreign(found));
        }
        let reader = self.group.get_column_reader(place).map_err(|error| self.recording.broken(&error))?;
        let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(reader);
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let mut records = 0;
        while records < self.rows {
            let read = reader.read_records(
                self.rows - records,
                (most.0 > 0).then_some(&mut definitions),
                (most.1 > 0).then_some(&mut repetitions),
                &mut values,
            );
            let (more, _, _) = read.map_err(|error| self.recording.broken(&error))?;
            if more == 0 {
                break;
            }
            records += more;
        }
        Ok((values, (most.1 > 0).then_some(repetitions)))
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
