//! The shape of a client's first packets over QUIC, its Initials: what can be read of them without their keys.
//!
//! What is not certainly an Initial has no shape: the long header of version 1 (RFC 9000, 17.2.2) or 2 (RFC 9369, 3.2) with
//! connection ids, token and length as the standards have them, in a datagram of the size that a client makes it (RFC 9000,
//! 14.1). Only the first packet of a datagram is looked at. Two Initials have the same [`Shape::key`] if and only if they have
//! the same shape.

use core::fmt;

use crate::{
    branchless::bounded,
    hello::mix,
    segment::{SEGMENT_BYTES_MAX, Segment, word_at},
};

/// Bytes of the smallest datagram that a client sends an Initial in (RFC 9000, 14.1).
pub const DATAGRAM_BYTES_MIN: u32 = 1200;

/// Bytes of the largest one that is looked at.
pub const DATAGRAM_BYTES_MAX: u32 = SEGMENT_BYTES_MAX as u32;

/// Sizes of datagrams from this one on are one class: beyond what Ethernet carries.
const SIZE_CLASS_MAX: u16 = 1500;

/// Bytes of a connection id, at most (RFC 9000, 17.2).
const CONNECTION_ID_BYTES_MAX: u64 = 20;

/// Bytes of the connection id that a client makes up for the server, at least (RFC 9000, 7.2).
const FIRST_ID_BYTES_MIN: u8 = 8;

/// Bytes behind the header's length, at least: what header protection takes its sample of (RFC 9001, 5.4.2).
const LENGTH_MIN: u64 = 20;

/// Tokens of fewer bytes are short.
const LONG_TOKEN_BYTES: u64 = 64;

/// A version of QUIC that is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// RFC 9000.
    V1 = 1,
    /// RFC 9369.
    V2 = 2,
}

/// How long a token is, which a server made: of a Retry, or of a connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Token {
    /// There is none.
    None = 0,
    /// Fewer than 64 bytes.
    Short = 1,
    /// 64 bytes or more.
    Long = 2,
}

/// What a client's first Initial looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Its version.
    pub version: Version,
    /// Bytes of the connection id that it is sent to.
    pub destination_id_bytes: u8,
    /// Bytes of the client's own connection id.
    pub source_id_bytes: u8,
    /// Its token.
    pub token: Token,
    /// Bytes of its datagram; 1500 stands for so many or more.
    pub datagram_bytes: u16,
}

/// The first bytes of a datagram, which [`may_begin`] looks at.
pub type Start = [u8; 5];

/// Whether a datagram that starts with these bytes may begin with an Initial: a long header of a version that has such.
#[inline(always)]
pub const fn may_begin(start: Start) -> bool {
    version_of(start).is_some()
}

/// The form, the bit that is always set and the kind of packet; the other bits of the first byte are hidden.
const KIND: u8 = 0xf0;

/// The version of the Initial that may start with these bytes.
#[inline(always)]
const fn version_of([first, a, b, c, d]: Start) -> Option<Version> {
    match (first & KIND, u32::from_be_bytes([a, b, c, d])) {
        (0xc0, 1) => Some(Version::V1),
        (0xd0, 0x6b33_43cf) => Some(Version::V2),
        _ => None,
    }
}

/// The shape of the Initial that a datagram begins with; `None` if it is not certainly one.
#[inline(always)]
pub fn read(datagram: &Segment) -> Option<Shape> {
    let end = datagram.end;
    if end < DATAGRAM_BYTES_MIN as u64 || end > DATAGRAM_BYTES_MAX as u64 {
        return None;
    }
    let start = word_at(&datagram.bytes, 0).to_be_bytes();
    let version = version_of([start[0], start[1], start[2], start[3], start[4]])?;
    let destination_id_bytes = start[5] as u64;
    if destination_id_bytes > CONNECTION_ID_BYTES_MAX {
        return None;
    }
    let at = 6 + destination_id_bytes;
    let source_id_bytes = word_from(datagram, at) >> 56;
    if source_id_bytes > CONNECTION_ID_BYTES_MAX {
        return None;
    }
    let (token_bytes, at) = number(datagram, at + 1 + source_id_bytes);
    // A token that goes beyond the datagram takes the place with it, of which 62 bits overflow nothing.
    let (length, at) = number(datagram, at + token_bytes);
    if at > end || length < LENGTH_MIN || length > end - at {
        return None;
    }
    Some(Shape {
        version,
        destination_id_bytes: destination_id_bytes as u8,
        source_id_bytes: source_id_bytes as u8,
        token: match token_bytes {
            0 => Token::None,
            bytes if bytes < LONG_TOKEN_BYTES => Token::Short,
            _ => Token::Long,
        },
        datagram_bytes: if end < SIZE_CLASS_MAX as u64 { end as u16 } else { SIZE_CLASS_MAX },
    })
}

/// The eight bytes from a place of a datagram on, as a number; a place beyond it is some place of the room.
#[inline(always)]
fn word_from(datagram: &Segment, at: u64) -> u64 {
    word_at(&datagram.bytes, bounded::<{ SEGMENT_BYTES_MAX - 1 }>(at))
}

/// A number of variable length (RFC 9000, 16), and where it ends.
#[inline(always)]
fn number(datagram: &Segment, at: u64) -> (u64, u64) {
    let word = word_from(datagram, at);
    let bytes = 1 << (word >> 62);
    (word << 2 >> 2 >> ((64 - 8 * bytes) & 63), at + bytes)
}

/// Stands in the upper 16 bits of a shape's word, so that few numbers are keys.
const MARK: u64 = 0x5155;

impl Shape {
    /// Whether a connection may begin with it: later Initials may be sent to a connection id that the server chose, which is
    /// shorter than a client's where no token tells of a Retry.
    #[inline(always)]
    pub const fn may_be_first(self) -> bool {
        self.destination_id_bytes >= FIRST_ID_BYTES_MIN || self.token as u8 != Token::None as u8
    }

    /// The key of the fingerprint. Never 0.
    #[inline(always)]
    pub const fn key(self) -> u64 {
        mix(MARK << 48
            | (self.version as u64) << 40
            | (self.destination_id_bytes as u64) << 32
            | (self.source_id_bytes as u64) << 24
            | (self.token as u64) << 16
            | self.datagram_bytes as u64)
    }

    /// The shape of a key; `None`: it is no shape's.
    pub const fn of_key(key: u64) -> Option<Self> {
        let word = unmix(key);
        let version = match word >> 40 & 0xff {
            1 => Version::V1,
            2 => Version::V2,
            _ => return None,
        };
        let token = match word >> 16 & 0xff {
            0 => Token::None,
            1 => Token::Short,
            2 => Token::Long,
            _ => return None,
        };
        let shape = Self {
            version,
            destination_id_bytes: (word >> 32) as u8,
            source_id_bytes: (word >> 24) as u8,
            token,
            datagram_bytes: word as u16,
        };
        let is_shape = word >> 48 == MARK
            && shape.destination_id_bytes as u64 <= CONNECTION_ID_BYTES_MAX
            && shape.source_id_bytes as u64 <= CONNECTION_ID_BYTES_MAX
            && shape.datagram_bytes as u32 >= DATAGRAM_BYTES_MIN
            && shape.datagram_bytes <= SIZE_CLASS_MAX;
        if is_shape { Some(shape) } else { None }
    }
}

/// What [`mix`] makes a word of, the other way round: each of its steps is a bijection.
const fn unmix(word: u64) -> u64 {
    let word = word ^ (word >> 31) ^ (word >> 62);
    let word = word.wrapping_mul(0x3196_42b2_d24d_8ec3);
    let word = word ^ (word >> 27) ^ (word >> 54);
    let word = word.wrapping_mul(0x96de_1b17_3f11_9089);
    word ^ (word >> 30) ^ (word >> 60)
}

const _: () = assert!(0xbf58_476d_1ce4_e5b9_u64.wrapping_mul(0x96de_1b17_3f11_9089) == 1);
const _: () = assert!(0x94d0_49bb_1331_11eb_u64.wrapping_mul(0x3196_42b2_d24d_8ec3) == 1);
const _: () = assert!(mix(0) == 0 && MARK != 0, "only of 0 it makes 0");

/// `version:destination id bytes,source id bytes:token:datagram bytes`.
impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, destination_id_bytes, source_id_bytes, token, datagram_bytes } = *self;
        let token = match token {
            Token::None => "-",
            Token::Short => "short",
            Token::Long => "long",
        };
        let more = if datagram_bytes == SIZE_CLASS_MAX { "+" } else { "" };
        let version = version as u8;
        write!(formatter, "{version}:{destination_id_bytes},{source_id_bytes}:{token}:{datagram_bytes}{more}")
    }
}

#[cfg(test)]
#[path = "initial_tests.rs"]
mod tests;
