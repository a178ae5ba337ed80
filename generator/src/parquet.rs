//! Observations as Parquet: the columns, names and types that detection reads.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::row::{Epoch, Row};
use crate::scenario::Scenario;
use crate::source::Source;

/// Rows of a row group: so many are held.
const GROUP_ROWS: usize = 1 << 17;

/// Lists are of exactly 16 or 12 elements, none of them missing.
const SCHEMA: &str = "
message observations {
  required int64 time (TIMESTAMP(MILLIS, true));
  required int32 span_s (INTEGER(32, false));
  required binary node (STRING);
  required binary service (STRING);
  required binary source (STRING);
  required int64 syn_key (INTEGER(64, false));
  required int64 tls_key (INTEGER(64, false));
  required int64 packets (INTEGER(64, false));
  required int64 bytes (INTEGER(64, false));
  required int64 dropped_packets (INTEGER(64, false));
  required int32 connections (INTEGER(32, false));
  required int32 handshakes (INTEGER(32, false));
  required int32 exchanges (INTEGER(32, false));
  required group request_sizes (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
  required group response_sizes (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
  required group rtt (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
  required group hello_gap (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
  required group finish_gap (LIST) { repeated group list { required int32 element (INTEGER(32, false)); } }
}";

/// A file that is being written.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    node: ByteArray,
    services: Vec<ByteArray>,
    /// Rows of the group to come, with the times and lengths of their epochs.
    rows: Vec<Row>,
    times_ms: Vec<i64>,
    spans_s: Vec<i32>,
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file with the names of a scenario.
    pub fn new(output: W, scenario: &Scenario) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by("detector-generator".into())
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let services = scenario.service.iter().map(|service| ByteArray::from(service.name.as_str()));
        Ok(Self {
            file: SerializedFileWriter::new(output, schema, Arc::new(properties))?,
            node: ByteArray::from(scenario.node.as_str()),
            services: services.collect(),
            rows: Vec::with_capacity(GROUP_ROWS),
            times_ms: Vec::with_capacity(GROUP_ROWS),
            spans_s: Vec::with_capacity(GROUP_ROWS),
        })
    }

    /// Adds the rows of an epoch.
    pub fn write(&mut self, epoch: Epoch) -> Result<(), ParquetError> {
        self.times_ms.extend(epoch.rows.iter().map(|_| epoch.time_s as i64 * 1_000));
        self.spans_s.extend(epoch.rows.iter().map(|_| epoch.span_s as i32));
        self.rows.extend(epoch.rows);
        if self.rows.len() >= GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.file.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = &self.rows;
        let mut group = Group { writer: self.file.next_row_group()? };
        group.column::<Int64Type>(&self.times_ms)?;
        group.column::<Int32Type>(&self.spans_s)?;
        group.column::<ByteArrayType>(&vec![self.node.clone(); rows.len()])?;
        group.column::<ByteArrayType>(&each(rows, |row| self.services[usize::from(row.service)].clone()))?;
        group.column::<ByteArrayType>(&sources(rows))?;
        // Unsigned integers are stored as the signed ones of the same bits.
        group.column::<Int64Type>(&each(rows, |row| row.syn_key as i64))?;
        group.column::<Int64Type>(&each(rows, |row| row.tls_key as i64))?;
        group.column::<Int64Type>(&each(rows, |row| row.packets as i64))?;
        group.column::<Int64Type>(&each(rows, |row| row.bytes as i64))?;
        group.column::<Int64Type>(&each(rows, |row| row.dropped_packets as i64))?;
        group.column::<Int32Type>(&each(rows, |row| row.connections as i32))?;
        group.column::<Int32Type>(&each(rows, |row| row.handshakes as i32))?;
        group.column::<Int32Type>(&each(rows, |row| row.exchanges as i32))?;
        group.lists(rows, |row| &row.request_sizes)?;
        group.lists(rows, |row| &row.response_sizes)?;
        group.lists(rows, |row| &row.rtt)?;
        group.lists(rows, |row| &row.hello_gap)?;
        group.lists(rows, |row| &row.finish_gap)?;
        group.writer.close()?;
        self.rows.clear();
        self.times_ms.clear();
        self.spans_s.clear();
        Ok(())
    }
}

fn each<T>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// Sources as text, each made once.
fn sources(rows: &[Row]) -> Vec<ByteArray> {
    let mut known: HashMap<Source, ByteArray> = HashMap::new();
    each(rows, |row| row.source)
        .into_iter()
        .map(|source| {
            known.entry(source).or_insert_with(|| ByteArray::from(source.to_string().into_bytes())).clone()
        })
        .collect()
}

struct Group<'a, W: Write + Send> {
    writer: SerializedRowGroupWriter<'a, W>,
}

impl<W: Write + Send> Group<'_, W> {
    fn column<T: DataType>(&mut self, values: &[T::T]) -> Result<(), ParquetError> {
        self.levels::<T>(values, None, None)
    }

    /// A column of lists: each begins at its first element (repetition level 0), and all elements are there.
    fn lists<const N: usize>(
        &mut self,
        rows: &[Row],
        of: impl Fn(&Row) -> &[u32; N],
    ) -> Result<(), ParquetError> {
        let mut values = Vec::with_capacity(rows.len() * N);
        let mut repetitions = Vec::with_capacity(rows.len() * N);
        for row in rows {
            values.extend(of(row).map(|count| count as i32));
            repetitions.push(0);
            repetitions.extend([1; N].into_iter().skip(1));
        }
        let definitions = vec![1; values.len()];
        self.levels::<Int32Type>(&values, Some(&definitions), Some(&repetitions))
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
