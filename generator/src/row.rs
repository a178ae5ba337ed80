//! What an edge node reports: the columns of the observations, as numbers.

use crate::source::Source;

/// Bins of sizes.
pub const SIZE_BINS: usize = 16;

/// Bins of times.
pub const DELAY_BINS: usize = 12;

/// What one client of one source did at one service in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Index of the service in the scenario.
    pub service: u16,
    /// Where it came from.
    pub source: Source,
    /// Key of its SYN; 0: not known.
    pub syn_key: u64,
    /// Key of its ClientHello, over QUIC of the shape of its first Initial; 0: not known.
    pub tls_key: u64,
    /// Inbound packets.
    pub packets: u64,
    /// Inbound bytes, with the headers of IP and TCP.
    pub bytes: u64,
    /// Of the packets, those that were dropped.
    pub dropped_packets: u64,
    /// SYNs of new flows; over QUIC, first Initials.
    pub connections: u32,
    /// ClientHellos.
    pub handshakes: u32,
    /// Exchanges, estimated: those of the connections that were followed, times [`crate::Scenario::exchange_sample`].
    pub exchanges: u32,
    /// Requests of the connections that were followed, by bytes: see [`size_bin`].
    pub request_sizes: [u32; SIZE_BINS],
    /// Their responses.
    pub response_sizes: [u32; SIZE_BINS],
    /// From the SYN's answer to the client's, one for each connection over TCP that was answered: see [`delay_bin`].
    pub rtt: [u32; DELAY_BINS],
    /// From that to the ClientHello.
    pub hello_gap: [u32; DELAY_BINS],
    /// From the ClientHello to what the client says next.
    pub finish_gap: [u32; DELAY_BINS],
}

impl Row {
    pub(crate) const fn new(service: u16, source: Source, syn_key: u64, tls_key: u64) -> Self {
        Self {
            service,
            source,
            syn_key,
            tls_key,
            packets: 0,
            bytes: 0,
            dropped_packets: 0,
            connections: 0,
            handshakes: 0,
            exchanges: 0,
            request_sizes: [0; SIZE_BINS],
            response_sizes: [0; SIZE_BINS],
            rtt: [0; DELAY_BINS],
            hello_gap: [0; DELAY_BINS],
            finish_gap: [0; DELAY_BINS],
        }
    }
}

/// All rows of one span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// When it starts, seconds since 1970.
    pub time_s: u64,
    /// Its length.
    pub span_s: u32,
    /// One row for each service, source, SYN key and TLS key that was active.
    pub rows: Vec<Row>,
}

/// Bin *i* is [2^(6 + i), 2^(7 + i)) bytes; the first and the last one are open.
#[inline]
pub fn size_bin(bytes: f64) -> usize {
    binary_exponent(bytes).saturating_sub(6).clamp(0, SIZE_BINS as i32 - 1) as usize
}

/// Bin *i* is [2^(i − 2), 2^(i − 1)) ms; the first and the last one are open.
#[inline]
pub fn delay_bin(ms: f64) -> usize {
    binary_exponent(ms).saturating_add(2).clamp(0, DELAY_BINS as i32 - 1) as usize
}

/// ⌊log2⌋ of a positive number: the exponent of its representation.
#[inline]
const fn binary_exponent(number: f64) -> i32 {
    ((number.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_begin_where_the_columns_say() {
        assert_eq!([0.0, 64.0, 127.9, 128.0, 4096.0, 1e12].map(size_bin), [0, 0, 0, 1, 6, 15]);
        assert_eq!([0.0, 0.25, 0.49, 0.5, 1.0, 100.0, 1e9].map(delay_bin), [0, 0, 0, 1, 2, 8, 11]);
    }
}
