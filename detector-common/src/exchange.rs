//! Exchanges of a connection over TLS, seen from the client's side alone: a burst of its bytes after it was silent for a round
//! trip and was sent something is a request; what it acknowledges until the next one is the response.
//!
//! Nothing is opened, so this counts what looks like an exchange. Bursts below [`REQUEST_BYTES_MIN`] are none: acknowledgements of
//! HTTP/2 settings and pings, closing alerts.

use crate::abi_struct;

/// Bytes of the shortest burst that is a request: an HTTP/2 HEADERS frame in a TLS record is longer, SETTINGS with ACK (31
/// bytes), PING (39) and WINDOW_UPDATE (35) are shorter.
pub const REQUEST_BYTES_MIN: u32 = 64;

/// A first burst below this, answered by less than [`FINISH_ANSWER_BYTES_MAX`], is no request but the end of a TLS 1.2 handshake: key
/// exchange, ChangeCipherSpec and Finished have 93 bytes with X25519, 126 with P-256.
pub const FINISH_BYTES_MAX: u32 = 200;

/// What answers it: ChangeCipherSpec and Finished, 51 bytes, and a session ticket of a few hundred.
pub const FINISH_ANSWER_BYTES_MAX: u32 = 512;

/// A first burst below this is the end of a handshake whatever answers it: Finished and a request take more, and OpenSSL's two session
/// tickets after one of TLS 1.3 (Finished with ChangeCipherSpec: 64 or 80 bytes) are longer than [`FINISH_ANSWER_BYTES_MAX`].
pub const FINISH_ALONE_BYTES_MAX: u32 = 100;

/// Bytes of a closing alert in one record: 24 with TLS 1.3, 23 with ChaCha20 and TLS 1.2. Nothing else that a client sends is that short: the
/// shortest HTTP/2 frame takes 30. With AES-GCM and TLS 1.2 it has 31, as SETTINGS with ACK have with TLS 1.3, and says nothing.
const CLOSING_ALERT_BYTES: [u32; 2] = [23, 24];

/// Whether bytes of a client are the alert that closes a connection. Where the server closed it before, nothing comes after it: the server
/// answers with a reset, and the client has nothing to finish.
#[inline(always)]
pub const fn is_closing_alert(bytes: u32) -> bool {
    bytes == CLOSING_ALERT_BYTES[0] || bytes == CLOSING_ALERT_BYTES[1]
}

/// Longest time that is taken for a round trip, ns: a client that was waited for longer is silent.
pub const ROUND_TRIP_NS_MAX: u64 = 1_000_000_000;

abi_struct! {
    /// The exchanges of a connection so far.
    #[derive(Default)]
    pub struct Exchanges: 24 {
        /// When the last segment with bytes came, ns of the precise clock.
        pub last_ns: u64,
        /// Bytes of the request.
        pub request_bytes: u32,
        /// What the client had acknowledged when it began.
        pub acknowledged_before: u32,
        /// What it has acknowledged now.
        pub acknowledged: u32,
        /// Segments of the connection that were looked at.
        pub segments: u16,
        /// 1: a request ended before.
        pub has_ended_one: u8,
        /// 0.
        pub reserved: u8,
    }
}

/// A segment of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientSegment {
    /// When it came, ns of the precise clock.
    pub at_ns: u64,
    /// Bytes in it that did not come before.
    pub bytes: u32,
    /// Its acknowledgement number (RFC 9293, 3.1).
    pub acknowledged: u32,
}

/// Bytes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the request.
    pub request: u32,
    /// Of the response, as far as it was acknowledged.
    pub response: u32,
}

impl Exchanges {
    /// Begins with the first bytes after the ClientHello.
    #[inline(always)]
    pub fn begin(&mut self, first: &ClientSegment) {
        self.last_ns = first.at_ns;
        self.request_bytes = first.bytes;
        self.acknowledged_before = first.acknowledged;
        self.acknowledged = first.acknowledged;
        self.has_ended_one = 0;
    }

    /// Takes the next segment; the exchange that ended before it. `round_trip_ns`: of the connection, 0 if not known.
    #[inline(always)]
    pub fn take(&mut self, segment: &ClientSegment, round_trip_ns: u64) -> Option<Sizes> {
        let round_trip_ns = if round_trip_ns < ROUND_TRIP_NS_MAX { round_trip_ns } else { ROUND_TRIP_NS_MAX };
        let mut ended = None;
        if segment.bytes != 0 {
            let is_answered = segment.acknowledged != self.acknowledged_before;
            let is_silent = segment.at_ns.wrapping_sub(self.last_ns) >= round_trip_ns;
            if !(is_answered && is_silent) {
                self.request_bytes = self.request_bytes.wrapping_add(segment.bytes);
                self.last_ns = segment.at_ns;
            } else if segment.bytes >= REQUEST_BYTES_MIN {
                self.acknowledged = segment.acknowledged;
                ended = self.end();
                self.has_ended_one = 1;
                self.request_bytes = segment.bytes;
                self.acknowledged_before = segment.acknowledged;
                self.last_ns = segment.at_ns;
            }
        }
        self.acknowledged = segment.acknowledged;
        ended
    }

    /// The exchange that ends with the connection, or is not followed any further; `None`: there was none.
    #[inline(always)]
    pub fn end(&self) -> Option<Sizes> {
        let sizes = Sizes {
            request: self.request_bytes,
            response: self.acknowledged.wrapping_sub(self.acknowledged_before),
        };
        let is_finish = self.has_ended_one == 0
            && (sizes.request < FINISH_ALONE_BYTES_MAX
                || sizes.request < FINISH_BYTES_MAX && sizes.response < FINISH_ANSWER_BYTES_MAX);
        if is_finish || sizes.request < REQUEST_BYTES_MIN { None } else { Some(sizes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    const RTT: u64 = 20_000_000;

    /// Segments as (milliseconds, bytes, acknowledged since the first); the exchanges that they make.
    fn exchanges(segments: &[(u64, u32, u32)]) -> Vec<(u32, u32)> {
        // Numbers wrap.
        let start = u32::MAX - 700;
        let segment = |&(ms, bytes, acknowledged): &(u64, u32, u32)| ClientSegment {
            at_ns: ms * 1_000_000,
            bytes,
            acknowledged: start.wrapping_add(acknowledged),
        };
        let mut followed = Exchanges::default();
        followed.begin(&segment(&segments[0]));
        let mut ended: Vec<_> =
            segments[1..].iter().filter_map(|next| followed.take(&segment(next), RTT)).collect();
        ended.extend(followed.end());
        ended.iter().map(|sizes| (sizes.request, sizes.response)).collect()
    }

    #[test]
    fn a_request_with_the_end_of_the_handshake_is_one_exchange() {
        // TLS 1.3: Finished and request at once, in one segment or two, then answers are acknowledged.
        assert_eq!(exchanges(&[(0, 380, 0), (25, 0, 1400), (26, 0, 2000)]), [(380, 2000)]);
        assert_eq!(exchanges(&[(0, 74, 0), (0, 300, 0), (25, 0, 1400), (26, 24, 1400)]), [(374, 1400)]);
    }

    #[test]
    fn the_last_flight_of_a_tls_1_2_handshake_is_none() {
        assert_eq!(exchanges(&[(0, 126, 0), (25, 0, 258), (25, 400, 258), (60, 0, 9258)]), [(400, 9000)]);
        assert_eq!(exchanges(&[(0, 93, 0), (25, 0, 51)]), vec![]);
    }

    /// As curl and nginx do it over TLS 1.3: the request after both tickets.
    #[test]
    fn neither_is_a_finished_that_two_tickets_answer() {
        assert_eq!(exchanges(&[(0, 80, 0), (25, 833, 542), (50, 0, 9_824)]), [(833, 9_282)]);
        assert!(is_closing_alert(24) && !is_closing_alert(31) && !is_closing_alert(0));
    }

    #[test]
    fn each_burst_after_an_answer_is_another_one() {
        let kept_alive =
            [(0, 380, 0), (25, 0, 900), (5_000, 320, 900), (5_030, 0, 2900), (9_000, 2_000, 2900)];
        assert_eq!(exchanges(&kept_alive), [(380, 900), (320, 2000), (2000, 0)]);
        // An upload is one request, however many segments, and though the server acknowledges it with settings meanwhile.
        assert_eq!(
            exchanges(&[(0, 1400, 0), (5, 1400, 40), (10, 1400, 40), (15, 1400, 40), (50, 0, 540)]),
            [(5600, 540)]
        );
    }

    #[test]
    fn what_is_too_short_for_a_request_is_none() {
        // HTTP/2: SETTINGS with ACK after the server's; WINDOW_UPDATE; PING.
        assert_eq!(
            exchanges(&[(0, 500, 0), (25, 31, 60), (40, 35, 20_000), (70, 39, 40_000), (100, 0, 60_000)]),
            [(500, 60_000)]
        );
    }
}
