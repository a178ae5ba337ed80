use std::{fs::File, path::Path, sync::Arc};

use parquet::{file::writer::SerializedFileWriter, schema::parser::parse_message_type};

use super::*;
use crate::recording::{
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
    let (mut recording, mut services, mut rows) = (Recording::open(path)?, Services::default(), Vec::new());
    while let Some(group) = recording.next_group(&mut services)? {
        rows.extend(group);
    }
    Ok((rows, services))
}

#[test]
fn rows_are_read_as_they_were_written() {
    let mut rows: Vec<_> =
        (0..GROUP_ROWS as u64 + 10).map(|number| row(START_S + number / 100, number)).collect();
    rows[1].kind.service = ServiceId(1);
    rows[2].source = "2001:db8:1:2::/64".parse().expect("a source");
    let file = written(&rows);
    let (found, services) = read(file.path()).expect("a recording");
    assert_eq!(found, rows);
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
