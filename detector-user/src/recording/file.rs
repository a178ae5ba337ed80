//! Recordings: observations as Parquet, one row group after another.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId, Services},
    source::Source,
};
use parquet::{
    basic::{Compression, LogicalType, TimeUnit, ZstdLevel},
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        reader::{FileReader as _, RowGroupReader, SerializedFileReader},
        statistics::Statistics,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use thiserror::Error;

/// Rows of a row group: so many are held while a file is written.
const GROUP_ROWS: usize = 1 << 16;

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Milliseconds since the Unix epoch. Where a recording is read any unit will do.
    Time,
    /// UTF-8.
    Text,
    /// An unsigned number of 64 bits.
    Long,
    /// An unsigned number of 32 bits.
    Word,
    /// So many unsigned numbers of 32 bits.
    List(usize),
}

impl ColumnType {
    /// For people, in the words of Parquet.
    pub fn name(self) -> String {
        match self {
            Self::Time => "timestamp, ms".to_owned(),
            Self::Text => "utf8".to_owned(),
            Self::Long => "uint64".to_owned(),
            Self::Word => "uint32".to_owned(),
            Self::List(count) => format!("list of {count} uint32"),
        }
    }

    /// How a schema declares a column of a name.
    fn declared(self, name: &str) -> String {
        match self {
            Self::Time => format!("required int64 {name} (TIMESTAMP(MILLIS, true));"),
            Self::Text => format!("required binary {name} (STRING);"),
            Self::Long => format!("required int64 {name} (INTEGER(64, false));"),
            Self::Word => format!("required int32 {name} (INTEGER(32, false));"),
            Self::List(_) => format!(
                "required group {name} (LIST) {{ repeated group list {{ required int32 element (INTEGER(32, false)); }} }}"
            ),
        }
    }
}

/// The columns of a recording: name, type, and what they are. Lists count by size or time: bin *i* of sizes begins at 2^(6 + *i*) bytes,
/// of times at 2^(*i* − 2) ms, the first and the last one are open.
pub const COLUMNS: [(&str, ColumnType, &str); 18] = [
    ("time", ColumnType::Time, "start of the epoch, UTC"),
    ("span_s", ColumnType::Word, "its length, seconds"),
    ("node", ColumnType::Text, "the node that saw it"),
    ("service", ColumnType::Text, "name of the service; `none`: a policy took it away since"),
    ("source", ColumnType::Text, "`198.51.100.7/32`, or an IPv6 /64"),
    ("syn_key", ColumnType::Long, "key of the client's SYN; 0: not known, also over QUIC"),
    (
        "tls_key",
        ColumnType::Long,
        "key of its ClientHello, over QUIC of the shape of its first packet; 0: not known",
    ),
    ("packets", ColumnType::Long, "packets of the source, told of one of its clients"),
    ("bytes", ColumnType::Long, "their bytes, Ethernet headers included"),
    ("dropped_packets", ColumnType::Long, "packets of these that were refused, also in shadow"),
    ("connections", ColumnType::Word, "SYNs of new connections"),
    ("handshakes", ColumnType::Word, "ClientHellos, or first packets of QUIC"),
    (
        "exchanges",
        ColumnType::Word,
        "requests with their responses: those of one connection in eight, times eight; right on average, of one source often 0",
    ),
    (
        "request_sizes",
        ColumnType::List(SIZE_BINS),
        "exchanges that were counted, by the bytes of their requests",
    ),
    ("response_sizes", ColumnType::List(SIZE_BINS), "… of their responses"),
    ("rtt", ColumnType::List(TIME_BINS), "connections by the time from the SYN to the client's first answer"),
    ("hello_gap", ColumnType::List(TIME_BINS), "… from that to the end of the ClientHello"),
    ("finish_gap", ColumnType::List(TIME_BINS), "… from the ClientHello to what the client says next"),
];

fn schema() -> String {
    let declared: Vec<_> = COLUMNS.iter().map(|(name, of, _)| of.declared(name)).collect();
    format!("message observations {{ {} }}", declared.join(" "))
}

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

/// A recording that is being written.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    node: ByteArray,
    rows: Vec<(ByteArray, Observation)>,
}

impl<W: Write + Send> Writer<W> {
    /// Begins one of a node.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn new(output: W, node: &str) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by(concat!("detector ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let schema = Arc::new(parse_message_type(&schema())?);
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties))?;
        Ok(Self { file, node: ByteArray::from(node), rows: Vec::new() })
    }

    /// Adds rows, of services by their names.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write<'a>(
        &mut self,
        rows: impl IntoIterator<Item = Observation>,
        service: impl Fn(ServiceId) -> &'a str,
    ) -> Result<(), ParquetError> {
        let mut names: HashMap<ServiceId, ByteArray> = HashMap::new();
        for row in rows {
            let number = row.kind.service;
            let name = names.entry(number).or_insert_with(|| ByteArray::from(service(number)));
            self.rows.push((name.clone(), row));
            if self.rows.len() >= GROUP_ROWS {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.file.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = Group { writer: self.file.next_row_group()? };
        let texts =
            |of: &dyn Fn(&(ByteArray, Observation)) -> ByteArray| rows.iter().map(of).collect::<Vec<_>>();
        // Unsigned integers are stored as the signed ones of the same bits.
        let longs =
            |of: &dyn Fn(&Observation) -> u64| rows.iter().map(|(_, row)| of(row) as i64).collect::<Vec<_>>();
        let words =
            |of: &dyn Fn(&Observation) -> u32| rows.iter().map(|(_, row)| of(row) as i32).collect::<Vec<_>>();
        group.column::<Int64Type>(&longs(&|row| row.time_s * 1000))?;
        group.column::<Int32Type>(&words(&|row| row.span_s))?;
        group.column::<ByteArrayType>(&texts(&|_| self.node.clone()))?;
        group.column::<ByteArrayType>(&texts(&|(service, _)| service.clone()))?;
        group.column::<ByteArrayType>(&texts(&|(_, row)| {
            ByteArray::from(row.source.to_string().into_bytes())
        }))?;
        group.column::<Int64Type>(&longs(&|row| row.kind.syn_key))?;
        group.column::<Int64Type>(&longs(&|row| row.kind.tls_key))?;
        group.column::<Int64Type>(&longs(&|row| row.packets))?;
        group.column::<Int64Type>(&longs(&|row| row.bytes))?;
        group.column::<Int64Type>(&longs(&|row| row.dropped_packets))?;
        group.column::<Int32Type>(&words(&|row| row.connections))?;
        group.column::<Int32Type>(&words(&|row| row.handshakes))?;
        group.column::<Int32Type>(&words(&|row| row.exchanges))?;
        group.lists(rows.iter().map(|(_, row)| &row.request_sizes))?;
        group.lists(rows.iter().map(|(_, row)| &row.response_sizes))?;
        group.lists(rows.iter().map(|(_, row)| &row.rtt))?;
        group.lists(rows.iter().map(|(_, row)| &row.hello_gap))?;
        group.lists(rows.iter().map(|(_, row)| &row.finish_gap))?;
        group.writer.close()?;
        Ok(())
    }
}

struct Group<'a, W: Write + Send> {
    writer: SerializedRowGroupWriter<'a, W>,
}

impl<W: Write + Send> Group<'_, W> {
    fn column<T: DataType>(&mut self, values: &[T::T]) -> Result<(), ParquetError> {
        self.levels::<T>(values, None, None)
    }

    /// A column of lists: at the first element of each the repetition level is 0, and none is missing.
    fn lists<'a, const BINS: usize>(
        &mut self,
        lists: impl Iterator<Item = &'a [u32; BINS]>,
    ) -> Result<(), ParquetError> {
        let values: Vec<i32> = lists.flatten().map(|count| *count as i32).collect();
        let repetitions: Vec<i16> = (0..values.len()).map(|at| i16::from(at % BINS != 0)).collect();
        self.levels::<Int32Type>(&values, Some(&vec![1; values.len()]), Some(&repetitions))
    }

    fn levels<T: DataType>(
        &mut self,
        values: &[T::T],
        definitions: Option<&[i16]>,
        repetitions: Option<&[i16]>,
    ) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("the schema has fewer columns than are written".into());
        let mut column = self.writer.next_column()?.ok_or_else(missing)?;
        column.typed::<T>().write_batch(values, definitions, repetitions)?;
        column.close()
    }
}

/// A recording that is read, a row group at a time.
pub struct Recording {
    path: PathBuf,
    file: SerializedFileReader<File>,
    columns: HashMap<String, Place>,
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
        Ok(Self { path: path.to_owned(), file, columns, time_unit, groups: 0, rows: 0 })
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
#[path = "file_tests.rs"]
mod tests;
