//! Recordings are written: rows as Parquet, one row group after another.

use std::{collections::HashMap, io::Write, sync::Arc};

use detector_fleets::observation::{Observation, ServiceId};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter},
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use super::{
    columns::schema,
    names::{METADATA, Names},
};

/// Rows of a row group: so many are held while a file is written.
pub(super) const GROUP_ROWS: usize = 1 << 16;

/// A recording that is being written.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    node: ByteArray,
    rows: Vec<(ByteArray, Observation)>,
    names: Names,
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
        Ok(Self { file, node: ByteArray::from(node), rows: Vec::new(), names: Names::default() })
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

    /// Adds what fingerprints in the rows are called.
    pub fn name(&mut self, names: Names) {
        self.names.add(names);
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
        if let Some(names) = self.named()? {
            self.file.append_key_value_metadata(names);
        }
        self.file.into_inner()
    }

    fn named(&self) -> Result<Option<KeyValue>, ParquetError> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let json =
            serde_json::to_string(&self.names).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(Some(KeyValue::new(METADATA.to_owned(), json)))
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

impl Writer<Vec<u8>> {
    /// Rows of the row groups that are written.
    pub(super) fn grouped(&self) -> u64 {
        self.file.flushed_row_groups().iter().map(|group| group.num_rows() as u64).sum()
    }

    /// The bytes since the last time, and a footer that may stand after them.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn take(&mut self) -> Result<(Vec<u8>, Vec<u8>), ParquetError> {
        self.file.flush()?;
        let bytes = std::mem::take(self.file.inner_mut());
        let properties = self.file.properties();
        // The writer counts the rows, and knows the orders.
        let metadata = FileMetaData::new(
            properties.writer_version().as_num(),
            0,
            Some(properties.created_by().to_owned()),
            self.named()?.map(|names| vec![names]),
            Arc::new(self.file.schema_descr().clone()),
            None,
        );
        let metadata = ParquetMetaData::new(metadata, self.file.flushed_row_groups().to_vec());
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata).finish()?;
        Ok((bytes, footer))
    }
}

/// A row group that is being written.
pub(super) struct Group<'a, W: Write + Send> {
    pub(super) writer: SerializedRowGroupWriter<'a, W>,
}

impl<W: Write + Send> Group<'_, W> {
    pub(super) fn column<T: DataType>(&mut self, values: &[T::T]) -> Result<(), ParquetError> {
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

    pub(super) fn levels<T: DataType>(
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
