//! A row group of a recording, some rows at a time.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
};

use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId, Services},
    source::{NotASource, Source},
};
use parquet::{
    basic::{TimeUnit, Type},
    column::{page::PageReader, reader::ColumnReaderImpl},
    data_type::{DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::reader::RowGroupReader,
    schema::types::{ColumnDescPtr, ColumnDescriptor},
};

use super::{
    elements::{Elements, Lists, WithValues},
    reader::{Columns, seconds},
    texts::Texts,
};

/// Rows that are read at once: what their columns take stays in the processor's caches. Columns of a whole row group take dozens of megabytes, and
/// page faults and copies were 40 % of the time that it took to read them.
pub(super) const ROWS: usize = 1024;

/// What is wrong with a row group.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It cannot be read, or has other columns.
    Group(String),
    /// A row is wrong: which of those that are read at once, from 0, and why.
    Row(usize, String),
}

/// A row group that is being read.
pub(super) struct RowGroup {
    rows_left: usize,
    time_unit: TimeUnit,
    /// Services of this group by the numbers in their column.
    named: Arc<Mutex<Services>>,
    /// The service of the row before, by both numbers.
    service: Option<(i64, ServiceId)>,
    wrong_services: WrongTexts,
    wrong_sources: WrongTexts,
    times: Column<Int64Type>,
    spans: Column<Int32Type>,
    services: Column<Int64Type>,
    sources: Column<Int64Type>,
    syn_keys: Column<Int64Type>,
    tls_keys: Column<Int64Type>,
    packets: Column<Int64Type>,
    bytes: Column<Int64Type>,
    dropped_packets: Column<Int64Type>,
    connections: Column<Int32Type>,
    handshakes: Column<Int32Type>,
    exchanges: Column<Int32Type>,
    request_sizes: Column<Int32Type>,
    response_sizes: Column<Int32Type>,
    rtt: Column<Int32Type>,
    hello_gap: Column<Int32Type>,
    finish_gap: Column<Int32Type>,
}

impl RowGroup {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// It has other columns.
    pub(super) fn open(group: &dyn RowGroupReader, columns: &Columns) -> Result<Self, String> {
        let named = Arc::new(Mutex::new(Services::default()));
        let [wrong_services, wrong_sources] = [WrongTexts::default(), WrongTexts::default()];
        Ok(Self {
            rows_left: group.metadata().num_rows() as usize,
            time_unit: columns.time_unit,
            named: named.clone(),
            service: None,
            wrong_services: wrong_services.clone(),
            wrong_sources: wrong_sources.clone(),
            times: Column::open(group, columns, "time")?,
            spans: Column::open(group, columns, "span_s")?,
            services: Column::open_texts(group, columns, "service", move |name| {
                let number = service(name, &mut named.lock().unwrap_or_else(PoisonError::into_inner));
                number.map_or_else(|wrong| wrong_services.number(wrong), |ServiceId(number)| number.into())
            })?,
            sources: Column::open_texts(group, columns, "source", move |text| {
                source(text).map_or_else(|wrong| wrong_sources.number(wrong), Source::number)
            })?,
            syn_keys: Column::open(group, columns, "syn_key")?,
            tls_keys: Column::open(group, columns, "tls_key")?,
            packets: Column::open(group, columns, "packets")?,
            bytes: Column::open(group, columns, "bytes")?,
            dropped_packets: Column::open(group, columns, "dropped_packets")?,
            connections: Column::open(group, columns, "connections")?,
            handshakes: Column::open(group, columns, "handshakes")?,
            exchanges: Column::open(group, columns, "exchanges")?,
            request_sizes: Column::open_lists::<SIZE_BINS>(group, columns, "request_sizes")?,
            response_sizes: Column::open_lists::<SIZE_BINS>(group, columns, "response_sizes")?,
            rtt: Column::open_lists::<TIME_BINS>(group, columns, "rtt")?,
            hello_gap: Column::open_lists::<TIME_BINS>(group, columns, "hello_gap")?,
            finish_gap: Column::open_lists::<TIME_BINS>(group, columns, "finish_gap")?,
        })
    }

    /// Adds the next rows to `observations`, with the numbers that `services` has for their services; none at the end.
    ///
    /// # Errors
    ///
    /// They cannot be read, or one is none.
    pub(super) fn read(
        &mut self,
        services: &mut Services,
        observations: &mut Vec<Observation>,
    ) -> Result<(), Wrong> {
        let rows = self.rows_left.min(ROWS);
        self.rows_left -= rows;
        contained(|| self.read_columns(rows)).map_err(Wrong::Group)?;
        for row in 0..rows {
            observations.push(self.row(row, services).map_err(|found| Wrong::Row(row, found))?);
        }
        Ok(())
    }

    fn read_columns(&mut self, rows: usize) -> Result<(), String> {
        for column in [
            &mut self.times,
            &mut self.services,
            &mut self.sources,
            &mut self.syn_keys,
            &mut self.tls_keys,
            &mut self.packets,
            &mut self.bytes,
            &mut self.dropped_packets,
        ] {
            column.read(rows)?;
        }
        for column in [&mut self.spans, &mut self.connections, &mut self.handshakes, &mut self.exchanges] {
            column.read(rows)?;
        }
        for column in [&mut self.request_sizes, &mut self.response_sizes] {
            column.read(rows * SIZE_BINS)?;
        }
        for column in [&mut self.rtt, &mut self.hello_gap, &mut self.finish_gap] {
            column.read(rows * TIME_BINS)?;
        }
        Ok(())
    }

    fn row(&mut self, row: usize, services: &mut Services) -> Result<Observation, String> {
        let service = self.service(row, services)?;
        // Unsigned integers are stored as the signed ones of the same bits.
        Ok(Observation {
            time_s: seconds(self.times.values[row], self.time_unit).ok_or("its time is before 1970")?,
            span_s: self.spans.values[row] as u32,
            source: self.source(row)?,
            kind: Kind {
                service,
                syn_key: self.syn_keys.values[row] as u64,
                tls_key: self.tls_keys.values[row] as u64,
            },
            packets: self.packets.values[row] as u64,
            bytes: self.bytes.values[row] as u64,
            dropped_packets: self.dropped_packets.values[row] as u64,
            connections: self.connections.values[row] as u32,
            handshakes: self.handshakes.values[row] as u32,
            exchanges: self.exchanges.values[row] as u32,
            request_sizes: self.request_sizes.list(row),
            response_sizes: self.response_sizes.list(row),
            rtt: self.rtt.list(row),
            hello_gap: self.hello_gap.list(row),
            finish_gap: self.finish_gap.list(row),
        })
    }

    fn service(&mut self, row: usize, services: &mut Services) -> Result<ServiceId, String> {
        let of_group = self.services.values[row];
        if let Some((before, number)) = self.service
            && before == of_group
        {
            return Ok(number);
        }
        if let Some(wrong) = self.wrong_services.told(of_group as u64) {
            return Err(wrong);
        }
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let number = services.number(named.name(ServiceId(of_group as u16))).ok_or_else(too_many_services)?;
        self.service = Some((of_group, number));
        Ok(number)
    }

    fn source(&self, row: usize) -> Result<Source, String> {
        let number = self.sources.values[row] as u64;
        self.wrong_sources.told(number).map_or(Ok(Source::of_number(number)), Err)
    }
}

/// What is wrong with texts that have no number. The highest numbers stand for them: as sources those are in ff00::/8, multicast, which is nobody's.
#[derive(Clone, Default)]
struct WrongTexts(Arc<Mutex<Vec<String>>>);

impl WrongTexts {
    /// So many are told apart: the first that a row has ends the reading, and others before it are of no row.
    const MOST: usize = 1 << 16;

    /// The number of another one.
    fn number(&self, wrong: String) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < Self::MOST {
            all.push(wrong);
        }
        u64::MAX - (all.len() - 1) as u64
    }

    /// What is wrong with the text of a number; `None`: nothing.
    fn told(&self, number: u64) -> Option<String> {
        let at = (u64::MAX - number) as usize;
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (at < Self::MOST).then(|| all().get(at).cloned()).flatten()
    }
}

fn service(name: &[u8], services: &mut Services) -> Result<ServiceId, String> {
    let name = str::from_utf8(name).map_err(|error| format!("its service is no text: {error}"))?;
    services.number(name).ok_or_else(too_many_services)
}

fn source(text: &[u8]) -> Result<Source, String> {
    if let Some(source) = Source::of_written(text) {
        return Ok(source);
    }
    let text = str::from_utf8(text).map_err(|error| format!("its source is no text: {error}"))?;
    text.parse().map_err(|error: NotASource| error.to_string())
}

fn too_many_services() -> String {
    "there are more than 65,536 services".to_owned()
}

/// A column of a row group, with the values of the rows that were read last.
struct Column<T: DataType> {
    name: &'static str,
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl<T: DataType> Column<T> {
    /// One with a value for each row.
    fn open(group: &dyn RowGroupReader, columns: &Columns, name: &'static str) -> Result<Self, String> {
        let (descriptor, pages) = pages_of_values(group, columns, name, T::get_physical_type())?;
        Ok(Self::new(name, ColumnReaderImpl::new(descriptor, Box::new(pages))))
    }

    fn new(name: &'static str, reader: ColumnReaderImpl<T>) -> Self {
        Self { name, reader, values: Vec::new(), definitions: Vec::new(), repetitions: Vec::new() }
    }

    /// Reads so many values, which takes the place of those that were read before.
    fn read(&mut self, count: usize) -> Result<(), String> {
        let Self { name, reader, values, definitions, repetitions } = self;
        values.clear();
        definitions.clear();
        repetitions.clear();
        reader.read_records(count, Some(definitions), Some(repetitions), values).map_err(message)?;
        if values.len() == count {
            return Ok(());
        }
        Err(format!("its column `{name}` has fewer values than there are rows"))
    }
}

impl Column<Int64Type> {
    /// One with a text for each row, which is read as its `number`.
    fn open_texts(
        group: &dyn RowGroupReader,
        columns: &Columns,
        name: &'static str,
        number: impl FnMut(&[u8]) -> u64 + Send + 'static,
    ) -> Result<Self, String> {
        let (descriptor, pages) = pages_of_values(group, columns, name, Type::BYTE_ARRAY)?;
        // Its numbers are there where its texts are.
        let of_numbers = parquet::schema::types::Type::primitive_type_builder(name, Type::INT64).build();
        let of_numbers = ColumnDescriptor::new(
            Arc::new(of_numbers.map_err(message)?),
            descriptor.max_def_level(),
            0,
            descriptor.path().clone(),
        );
        let numbers = Texts::new(Box::new(pages), descriptor, number);
        Ok(Self::new(name, ColumnReaderImpl::new(Arc::new(of_numbers), Box::new(numbers))))
    }
}

impl Column<Int32Type> {
    /// One with a list of so many values for each row.
    fn open_lists<const BINS: usize>(
        group: &dyn RowGroupReader,
        columns: &Columns,
        name: &'static str,
    ) -> Result<Self, String> {
        let (descriptor, pages) = pages(group, columns, name, Type::INT32)?;
        let lists = Lists::of(name, BINS, &descriptor)?;
        // Its elements, each of which is there and none of which is in a list.
        let of_elements = ColumnDescriptor::new(descriptor.self_type_ptr(), 0, 0, descriptor.path().clone());
        let elements = Box::new(Elements::new(pages, lists));
        Ok(Self::new(name, ColumnReaderImpl::new(Arc::new(of_elements), elements)))
    }

    fn list<const BINS: usize>(&self, row: usize) -> [u32; BINS] {
        let (lists, _) = self.values.as_chunks::<BINS>();
        lists[row].map(|count| count as u32)
    }
}

/// What a column is, and its pages.
fn pages(
    group: &dyn RowGroupReader,
    columns: &Columns,
    name: &str,
    expected: Type,
) -> Result<(ColumnDescPtr, Box<dyn PageReader>), String> {
    let place = columns.place(name)?;
    let column = group.metadata().column(place);
    let physical = column.column_type();
    if physical != expected {
        return Err(format!("its column `{name}` is {physical}, not {expected}"));
    }
    Ok((column.column_descr_ptr(), group.get_column_page_reader(place).map_err(message)?))
}

/// The same of a column that has a value for each row.
fn pages_of_values(
    group: &dyn RowGroupReader,
    columns: &Columns,
    name: &str,
    expected: Type,
) -> Result<(ColumnDescPtr, WithValues), String> {
    let (descriptor, pages) = pages(group, columns, name, expected)?;
    if descriptor.max_rep_level() != 0 {
        return Err(format!("its column `{name}` has lists, not one value for each row"));
    }
    Ok((descriptor, WithValues(pages)))
}

/// What is made of the bytes of a file. The library panics at some that are damaged: without the dictionary that their values stand in, or shorter than their
/// levels or texts.
///
/// # Errors
///
/// Those of `read`, and that it panicked.
pub(super) fn contained<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it is damaged".to_owned()))
}

/// What an error says, without the `Parquet error: ` that stands before it where it is displayed.
pub(super) fn message(error: ParquetError) -> String {
    match error {
        ParquetError::General(message) => message,
        other => other.to_string(),
    }
}
