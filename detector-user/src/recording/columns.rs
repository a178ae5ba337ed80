//! The columns of a recording.

use detector_fleets::limits::{SIZE_BINS, TIME_BINS};

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
    ("connections", ColumnType::Word, "SYNs of new connections, and first Initials over QUIC"),
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

/// The schema of a file with these columns.
pub(super) fn schema() -> String {
    let declared: Vec<_> = COLUMNS.iter().map(|(name, of, _)| of.declared(name)).collect();
    format!("message observations {{ {} }}", declared.join(" "))
}
