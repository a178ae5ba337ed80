//! Clients: what one source shows at one service under one pair of fingerprints. The rows that detection works on
//! begin here.

use crate::abi_struct;

/// Bins of a client's histograms of times.
pub const DELAY_BINS: usize = 12;

/// Bins of a client's histograms of sizes.
pub const SIZE_BINS: usize = 16;

/// The bin of a time of a [`crate::fingerprint::time_bin`]: bin *i* begins at 2^(18 + i) ns, about 2^(i − 2) ms; the first and the
/// last one are open.
#[inline(always)]
pub const fn delay_bin(time_bin: u32) -> usize {
    let bin = time_bin.saturating_sub(2) as usize;
    if bin < DELAY_BINS { bin } else { DELAY_BINS - 1 }
}

/// The bin of a size: bin *i* begins at 2^(6 + i) bytes; the first and the last one are open.
#[inline(always)]
pub const fn size_bin(bytes: u64) -> usize {
    let bits = 64 - (bytes | 1).leading_zeros() as usize;
    let bin = bits.saturating_sub(7);
    if bin < SIZE_BINS { bin } else { SIZE_BINS - 1 }
}

abi_struct! {
    /// What is kept of a client beside its entry in the table. All counts wrap.
    pub struct Client: 192 {
        /// Prefix of the entry that this is of. It changes hands with the entry, a moment later.
        pub key: u64,
        /// Prefix of the source; see [`crate::way::Way::prefix`].
        pub source: u64,
        /// Service and unit of the source; see [`crate::table::Key::tag`].
        pub tag: u64,
        /// Key of its SYN; 0: unknown.
        pub syn_key: u64,
        /// Key of its ClientHello, over QUIC of the shape of its first Initial; 0: unknown, or it sends none.
        pub tls_key: u64,
        /// Connections that were followed beyond their handshake: one in [`crate::limits::EXCHANGE_SAMPLE`].
        pub followed: u32,
        /// Segments of theirs that were looked at, from the SYN on.
        pub segments: u32,
        /// Exchanges in these segments; see [`crate::exchange`].
        pub exchanges: u32,
        /// 0.
        pub reserved: u32,
        /// From the SYN to the first answer to the server's; a count for each [`delay_bin`].
        pub round_trip: [u16; DELAY_BINS],
        /// From that answer to the end of the ClientHello.
        pub hello_delay: [u16; DELAY_BINS],
        /// From the ClientHello to what the client says next.
        pub finish_delay: [u16; DELAY_BINS],
        /// Bytes of requests; a count for each [`size_bin`].
        pub request_sizes: [u16; SIZE_BINS],
        /// Bytes of responses.
        pub response_sizes: [u16; SIZE_BINS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{TIME_BINS, time_bin};

    #[test]
    fn delays_are_in_bins_of_milliseconds() {
        const MS: u64 = 1 << 20;
        let bin = |ns| delay_bin(time_bin(ns));
        assert_eq!((bin(0), bin(MS / 2 - 1), bin(MS / 2)), (0, 0, 1));
        assert_eq!((bin(MS), bin(100 * MS), bin(400 * MS)), (2, 8, 10));
        assert_eq!((bin(511 * MS), bin(512 * MS), bin(u64::MAX)), (10, 11, 11));
        assert_eq!(delay_bin(TIME_BINS as u32 - 1), DELAY_BINS - 1);
    }

    #[test]
    fn sizes_are_in_bins_that_double() {
        assert_eq!((size_bin(0), size_bin(127), size_bin(128)), (0, 0, 1));
        assert_eq!((size_bin(1023), size_bin(1024)), (3, 4));
        assert_eq!((size_bin((1 << 21) - 1), size_bin(1 << 21), size_bin(u64::MAX)), (14, 15, 15));
    }
}
