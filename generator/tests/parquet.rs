//! Files have the columns that detection reads, with what the rows have.

use std::fs::File;

use detector_generator::parquet::Writer;
use detector_generator::{Row, Scenario, generate};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, RowAccessor as _};

#[test]
fn files_have_what_the_rows_have() {
    let scenario = Scenario::from_toml("days = 1\nscale = 0.02\nnode = 'edge-7'").expect("a scenario");
    let file = tempfile::tempfile().expect("a file");
    let mut writer = Writer::new(file, &scenario).expect("a writer");
    let mut rows: Vec<(u64, Row)> = Vec::new();
    for epoch in generate(&scenario, 3) {
        rows.extend(epoch.rows.iter().cloned().map(|row| (epoch.time_s, row)));
        writer.write(epoch).expect("written");
    }
    let file: File = writer.finish().expect("ended");
    let reader = SerializedFileReader::new(file).expect("a reader");
    let names: Vec<&str> =
        reader.metadata().file_metadata().schema().get_fields().iter().map(|field| field.name()).collect();
    assert_eq!(
        names.join(" "),
        "time span_s node service source syn_key tls_key packets bytes dropped_packets connections handshakes exchanges \
         request_sizes response_sizes rtt hello_gap finish_gap"
    );
    let mut read = 0;
    for (found, (time_s, row)) in reader.get_row_iter(None).expect("rows").zip(&rows) {
        let found = found.expect("a row");
        read += 1;
        assert_eq!(found.get_timestamp_millis(0).expect("time"), *time_s as i64 * 1_000);
        assert_eq!(found.get_uint(1).expect("span_s"), 60);
        assert_eq!(found.get_string(2).expect("node"), "edge-7");
        assert_eq!(found.get_string(3).expect("service"), "api");
        assert_eq!(*found.get_string(4).expect("source"), row.source.to_string());
        let longs = [row.syn_key, row.tls_key, row.packets, row.bytes, row.dropped_packets];
        for (index, expected) in longs.into_iter().enumerate() {
            assert_eq!(found.get_ulong(5 + index).expect("a number"), expected);
        }
        for (index, expected) in [row.connections, row.handshakes, row.exchanges].into_iter().enumerate() {
            assert_eq!(found.get_uint(10 + index).expect("a number"), expected);
        }
        let lists: [&[u32]; 5] =
            [&row.request_sizes, &row.response_sizes, &row.rtt, &row.hello_gap, &row.finish_gap];
        for (index, expected) in lists.into_iter().enumerate() {
            let list = found.get_list(13 + index).expect("a list");
            let expected: Vec<Field> = expected.iter().map(|count| Field::UInt(*count)).collect();
            assert_eq!(list.elements(), expected);
        }
    }
    assert_eq!(read, rows.len());
    assert!(read > 5_000);
}
