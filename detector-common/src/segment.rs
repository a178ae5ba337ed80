//! Bytes of a packet as they are read field by field: the part of a stream in which a ClientHello is ([`crate::hello`]), the headers of a SYN
//! ([`crate::syn`]), or a datagram ([`crate::initial`]).

use crate::{abi_struct, branchless::bounded};

/// Bytes of a stretch of a stream that are read at a time; the rest of a longer segment is not looked at.
pub const SEGMENT_BYTES_MAX: usize = 4096;

/// So far may a read begin before the end of the bytes and go beyond.
const SPARE_BYTES: usize = 8;

abi_struct! {
    /// Bytes that a client sent in order, and how far they are read.
    pub struct Segment: 4120 {
        /// The next byte to read.
        pub position: u64,
        /// Where the bytes end, at most [`SEGMENT_BYTES_MAX`].
        pub end: u64,
        /// The bytes; eight more than are used, so that a read of a word need not ask where they end.
        pub bytes: [u8; SEGMENT_BYTES_MAX + SPARE_BYTES],
    }
}

impl Segment {
    /// The first [`SEGMENT_BYTES_MAX`] of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut segment = Self { position: 0, end: 0, bytes: [0; SEGMENT_BYTES_MAX + SPARE_BYTES] };
        let end = bytes.len().min(SEGMENT_BYTES_MAX);
        segment.bytes[..end].copy_from_slice(&bytes[..end]);
        segment.end = end as u64;
        segment
    }

    /// Bytes that are not read yet.
    #[inline(always)]
    pub(crate) const fn left(&self) -> u32 {
        self.end.saturating_sub(self.position) as u32
    }

    /// The next `count` bytes, 1 to 8, as a number.
    #[inline(always)]
    pub(crate) fn next(&self, count: u32) -> u64 {
        let start = bounded::<{ SEGMENT_BYTES_MAX - 1 }>(self.position);
        word_at(&self.bytes, start) >> (64_u32.wrapping_sub(8 * count) & 63)
    }
}

/// The eight bytes from a place on, as a number.
#[inline(always)]
pub(crate) fn word_at(bytes: &[u8; SEGMENT_BYTES_MAX + SPARE_BYTES], start: usize) -> u64 {
    let mut word = [0; SPARE_BYTES];
    word.copy_from_slice(&bytes[start..start + SPARE_BYTES]);
    u64::from_be_bytes(word)
}
