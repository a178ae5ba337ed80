use std::{fs::File, path::Path, sync::Arc};

use detector_fleets::observation::ServiceId;
use parquet::{
    basic::{Compression, Encoding},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{
        properties::{WriterProperties, WriterVersion},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};

use proptest::prelude::*;

use super::*;
use crate::recording::{
    columns::{COLUMNS, ColumnType, schema},
    fixtures::row,
    writer::{GROUP_ROWS, Group, Writer},
};

const START_S: u64 = 1_763_816_400;

fn written(rows: &[Observation]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = Writer::new(file.reopen().expect("the file"), "edge-1").expect("a writer");
    let service = |number: ServiceId| if number.0 == 0 { "api" } else { "web" };
    writer.write(rows.iter().copied(), service).expect("written");
    writer.finish().expect("finished");
    file
}

fn read(path: &Path) -> Result<(Vec<Observation>, Services), RecordingError> {
    let (mut recording, mut services) = (Recording::open(path)?, Services::default());
    let (mut rows, mut some) = (Vec::new(), Vec::new());
    while recording.read(&mut services, &mut some)? {
        rows.append(&mut some);
    }
    Ok((rows, services))
}

#[test]
fn rows_are_read_as_they_were_written() {
    let mut rows: Vec<_> =
        (0..GROUP_ROWS as u64 + 10).map(|number| row(START_S + number / 100, number)).collect();
    rows[1].kind.service = ServiceId(1);
    // The first of another row group.
    rows[GROUP_ROWS].kind.service = ServiceId(1);
    rows[2].source = "2001:db8:1:2::/64".parse().expect("a source");
    let file = written(&rows);
    let (found, services) = read(file.path()).expect("a recording");
    assert!(found == rows);
    assert_eq!([ServiceId(0), ServiceId(1)].map(|number| services.name(number).to_owned()), ["api", "web"]);
    let recording = Recording::open(file.path()).expect("it");
    assert_eq!((recording.file.num_row_groups(), recording.names()), (2, &Names::default()));
}

#[test]
fn what_is_no_recording_is_told_with_what_is_wrong() {
    let refused = |path: &Path| read(path).map(|(rows, _)| rows.len()).expect_err("refused").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.parquet");
    assert!(refused(&path).contains("No such file"), "{}", refused(&path));
    std::fs::write(&path, "not parquet at all").expect("a file");
    assert!(
        refused(&path).contains("expected a recording that `detector record` wrote"),
        "{}",
        refused(&path)
    );
    // Cut off before its end, as after a crash.
    let whole = std::fs::read(written(&[row(START_S, 1)]).path()).expect("bytes");
    std::fs::write(&path, &whole[..whole.len() - 20]).expect("a file");
    assert!(refused(&path).starts_with(&format!("{}: ", path.display())), "{}", refused(&path));

    let with = |schema: &str, times: &[i64]| {
        let schema = Arc::new(parse_message_type(schema).expect("a schema"));
        let file = File::create(&path).expect("a file");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).expect("a writer");
        {
            let mut group = Group { writer: writer.next_row_group().expect("a group") };
            group.column::<Int64Type>(times).expect("times");
            group.writer.close().expect("closed");
        }
        writer.close().expect("closed");
    };
    with("message m { required int64 other; }", &[1]);
    assert!(refused(&path).contains("it has no column `time`"), "{}", refused(&path));
    with("message m { required int64 time; }", &[1]);
    assert!(refused(&path).contains("`time` is no timestamp"), "{}", refused(&path));
    with("message m { required int64 time (TIMESTAMP(MICROS, true)); }", &[1]);
    assert!(refused(&path).contains("it has no column `span_s`"), "{}", refused(&path));
}

/// A file of rows with these sources, and lists of so many elements in the column `rtt`.
fn with_sources(path: &Path, sources: &[&str], rtt_bins: usize) {
    with_schema(path, &schema(), WriterProperties::default(), sources, rtt_bins, None);
}

/// The same by another schema of the same columns. `missing` names a column and a row: its value is missing there, or the first element of its list.
fn with_schema(
    path: &Path,
    schema: &str,
    properties: WriterProperties,
    sources: &[&str],
    rtt_bins: usize,
    missing: Option<(&str, usize)>,
) {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let most = SchemaDescriptor::new(schema.clone());
    let most = most.columns().iter().map(|column| (column.max_def_level(), column.max_rep_level()));
    let most: Vec<_> = most.collect();
    let file = File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("a writer");
    {
        let mut group = Group { writer: writer.next_row_group().expect("a group") };
        let rows = sources.len();
        for ((name, of, _), (most, repeated)) in COLUMNS.into_iter().zip(most) {
            let text = |row: usize| ByteArray::from(if name == "source" { sources[row] } else { "x" });
            let bins = match of {
                ColumnType::List(_) if name == "rtt" => rtt_bins,
                ColumnType::List(bins) => bins,
                _ => 1,
            };
            let is_missing = |at: usize| missing == Some((name, at / bins)) && at.is_multiple_of(bins);
            let definitions: Vec<i16> =
                (0..rows * bins).map(|at| if is_missing(at) { most - 1 } else { most }).collect();
            let there = rows * bins - usize::from(missing.is_some_and(|(of, _)| of == name));
            let repetitions: Vec<i16> =
                (0..rows * bins).map(|at| i16::from(!at.is_multiple_of(bins))).collect();
            let definitions = Some(definitions.as_slice());
            let repetitions = (repeated > 0).then_some(repetitions.as_slice());
            let done = match of {
                ColumnType::Time | ColumnType::Long => {
                    group.levels::<Int64Type>(&vec![7; there], definitions, repetitions)
                }
                ColumnType::Word => group.levels::<Int32Type>(&vec![7; there], definitions, repetitions),
                ColumnType::Text => {
                    let texts: Vec<_> = (0..there).map(text).collect();
                    group.levels::<ByteArrayType>(&texts, definitions, repetitions)
                }
                ColumnType::List(_) => group.levels::<Int32Type>(&vec![3; there], definitions, repetitions),
            };
            done.expect("a column");
        }
        group.writer.close().expect("closed");
    }
    writer.close().expect("closed");
}

#[test]
fn a_row_that_is_none_is_told_by_its_number() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut sources = vec!["198.51.100.7/32"; 5000];
    with_sources(file.path(), &sources, 12);
    assert_eq!(read(file.path()).expect("rows").0.len(), 5000);
    sources[4321] = "198.51.100.7/24";
    with_sources(file.path(), &sources, 12);
    let refused = read(file.path()).expect_err("refused").to_string();
    assert!(refused.contains(", row 4322: \"198.51.100.7/24\" is not a source"), "{refused}");
}

/// Sources in dictionaries, plain and in the encodings of the second version.
#[test]
fn texts_of_every_encoding_are_read() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let texts: Vec<_> = (1..=3000).map(|row| format!("2001:db8:{:x}:{row:x}::/64", row % 7)).collect();
    let with = |more: &[&'static str]| -> Vec<_> {
        texts.iter().map(String::as_str).chain(more.iter().copied()).collect()
    };
    // The last one is nobody's; its number is that of a text that is none, where there is one.
    let (sources, wrong) = (with(&["ffff:ffff:ffff:ffff::/64"]), with(&["x", "y"]));
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in [
            None,
            Some(Encoding::PLAIN),
            Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
            Some(Encoding::DELTA_BYTE_ARRAY),
        ] {
            for schema in [schema(), schema().replace("required", "optional")] {
                let properties = || {
                    let properties = WriterProperties::builder().set_writer_version(version);
                    match encoding {
                        None => properties,
                        Some(encoding) => properties
                            .set_column_dictionary_enabled("source".into(), false)
                            .set_column_encoding("source".into(), encoding),
                    }
                    .build()
                };
                with_schema(file.path(), &schema, properties(), &sources, 12, None);
                let rows = read(file.path()).expect("rows").0;
                let found: Vec<_> = rows.iter().map(|row| row.source.to_string()).collect();
                assert!(found == sources, "{version:?} {encoding:?}");
                with_schema(file.path(), &schema, properties(), &wrong, 12, None);
                let refused = read(file.path()).expect_err("refused").to_string();
                assert!(refused.contains(", row 3001: \"x\" is not a source"), "{refused}");
            }
        }
    }
}

#[test]
fn a_list_of_another_length_is_told() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for bins in [11, 13, 24] {
        with_sources(file.path(), &["198.51.100.7/32"; 24], bins);
        let refused = read(file.path()).expect_err("refused").to_string();
        assert!(refused.contains("a list of its column `rtt` has not 12 elements"), "{refused}");
    }
}

/// As pyarrow writes them: with Snappy, whatever may be missing is optional, and pages are of the second version if that is asked for.
#[test]
fn recordings_of_other_programs_are_read_and_what_is_missing_in_them_is_told() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let optional = schema().replace("required", "optional");
    let sources = ["198.51.100.7/32"; 3000];
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let properties = WriterProperties::builder().set_writer_version(version);
        let properties = || properties.clone().set_compression(Compression::SNAPPY).build();
        with_schema(file.path(), &optional, properties(), &sources, 12, None);
        let (rows, _) = read(file.path()).expect("rows");
        assert_eq!((rows.len(), rows[2999].rtt, rows[2999].packets), (3000, [3; 12], 7));
        for (column, told) in [
            ("packets", "its column `packets` has fewer values than there are rows"),
            ("source", "its column `source` has fewer values than there are rows"),
            ("rtt", "a list of its column `rtt` has not 12 elements, or one of them is missing"),
        ] {
            with_schema(file.path(), &optional, properties(), &sources, 12, Some((column, 2500)));
            let refused = read(file.path()).expect_err("refused").to_string();
            assert!(refused.contains(told), "{refused}");
        }
    }
    let lists = schema().replace("required int32 span_s (INTEGER(32, false));", "repeated int32 span_s;");
    with_schema(file.path(), &lists, WriterProperties::default(), &sources, 12, None);
    let refused = read(file.path()).expect_err("refused").to_string();
    assert!(refused.contains("its column `span_s` has lists, not one value for each row"), "{refused}");
}

proptest! {
    /// Disks fail, and files are cut off. The library panics at one in thirty of these files.
    #[test]
    fn damaged_files_are_read_or_refused(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kept in proptest::option::of(any::<prop::sample::Index>()),
        is_at_the_end in any::<bool>(),
        is_plain in any::<bool>(),
    ) {
        let rows: Vec<_> = (0..1500).map(|number| row(START_S + number / 100, number)).collect();
        let file = written(&rows);
        if is_plain {
            let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
            with_schema(file.path(), &schema(), properties, &["2001:db8:1:2::/64"; 200], 12, None);
        }
        let mut bytes = std::fs::read(file.path()).expect("bytes");
        // Most of what the file says of itself is in its last part.
        let from = if is_at_the_end { bytes.len() * 3 / 4 } else { 0 };
        for (at, byte) in damage {
            let at = from + at.index(bytes.len() - from);
            bytes[at] = byte;
        }
        if let Some(kept) = kept {
            bytes.truncate(kept.index(bytes.len()));
        }
        std::fs::write(file.path(), &bytes).expect("written");
        if let Err(error) = read(file.path()) {
            let told = error.to_string();
            prop_assert!(told.starts_with(&file.path().display().to_string()), "{}", told);
        }
    }
}

#[test]
fn times_of_any_unit_are_seconds() {
    let units = [(TimeUnit::MILLIS, 1_000), (TimeUnit::MICROS, 1_000_000), (TimeUnit::NANOS, 1_000_000_000)];
    for (unit, each) in units {
        assert_eq!(seconds(START_S as i64 * each + each - 1, unit), Some(START_S));
    }
    assert_eq!(seconds(-1, TimeUnit::MILLIS), None);
}

#[test]
fn fingerprints_have_the_names_that_were_written() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = Writer::new(file.reopen().expect("the file"), "edge-1").expect("a writer");
    writer.write([row(START_S, 7)], |_| "api").expect("written");
    let names = |key: &str, ja4: &str| {
        let json = serde_json::json!({ "ja4": { (key): ja4 }, "syn": { "18446744073709551608": "4:64:0:*:mss*44,7:mss:df:0" } });
        serde_json::from_value::<Names>(json).expect("names")
    };
    writer.name(names("7", "t13d1516h2_8daaf6152771_02713d6af862"));
    writer.name(names("9", "t13d190900_9dc949149365_97f8aa674fd9"));
    writer.finish().expect("finished");
    let recording = Recording::open(file.path()).expect("a recording");
    assert_eq!(
        (recording.names().ja4(7), recording.names().syn(u64::MAX - 7)),
        (Some("t13d1516h2_8daaf6152771_02713d6af862"), Some("4:64:0:*:mss*44,7:mss:df:0"))
    );
    assert!(recording.names().ja4(9).is_some());
}
