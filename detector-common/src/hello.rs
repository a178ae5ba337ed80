//! A ClientHello as it arrives: a machine that reads it field by field, stops where a segment ends and goes on in the next.
//!
//! It computes one number, [`Hello::key`], from the inputs of the stable variant of JA4: two hellos have the same key if and
//! only if they have the same stable JA4, collisions of 64 bits aside. Ciphers and extensions are summed (`sum += mix(value)`),
//! so their order does not count and nothing is sorted; signature algorithms are summed with their places. GREASE
//! (RFC 8701) is left out wherever it stands.
//!
//! A hello is read to a key or to [`Phase::Malformed`]; nothing is guessed. Sources: RFC 8446 (4.1.2, 5.1), RFC 5246
//! (7.4.1.2), RFC 7301, RFC 6066.

mod key;

pub use key::VARIANT_EXTENSIONS;
pub(crate) use key::mix;

use key::{term, variant_bit};

use crate::{
    abi_struct,
    limits::HELLO_FIELDS_MAX,
    segment::{SEGMENT_BYTES_MAX, Segment},
};

/// What the machine reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Type and length of the handshake message.
    Message = 0,
    /// The version of old.
    LegacyVersion = 1,
    /// Length of the session id, after the random bytes.
    SessionIdLength = 2,
    /// Length of the list of cipher suites.
    CiphersLength = 3,
    /// A cipher suite.
    Cipher = 4,
    /// Length of the list of compression methods.
    CompressionLength = 5,
    /// Length of all extensions.
    ExtensionsLength = 6,
    /// Type and length of an extension.
    Extension = 7,
    /// Length of the list of protocol names, and of the first one.
    AlpnLengths = 8,
    /// First byte of the first name.
    AlpnFirst = 9,
    /// Last byte of the first name.
    AlpnLast = 10,
    /// Length of the list of signature algorithms.
    SignaturesLength = 11,
    /// A signature algorithm.
    Signature = 12,
    /// Length of the list of versions.
    VersionsLength = 13,
    /// A version.
    Version = 14,
    /// All that the key needs has been read.
    Complete = 15,
    /// The stream does not say TLS here: another protocol, or a dialogue before it.
    NotHello = 16,
    /// Lengths that contradict each other, or an extension twice; or TLS that begins with something else than a ClientHello in a
    /// record: servers may read on to the ClientHello behind it.
    Malformed = 17,
    /// More fields than [`HELLO_FIELDS_MAX`].
    TooLong = 18,
}

impl Phase {
    /// The phase of a number in [`Hello::phase`].
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Message,
            1 => Self::LegacyVersion,
            2 => Self::SessionIdLength,
            3 => Self::CiphersLength,
            4 => Self::Cipher,
            5 => Self::CompressionLength,
            6 => Self::ExtensionsLength,
            7 => Self::Extension,
            8 => Self::AlpnLengths,
            9 => Self::AlpnFirst,
            10 => Self::AlpnLast,
            11 => Self::SignaturesLength,
            12 => Self::Signature,
            13 => Self::VersionsLength,
            14 => Self::Version,
            15 => Self::Complete,
            16 => Self::NotHello,
            18 => Self::TooLong,
            _ => Self::Malformed,
        }
    }

    /// Whether there is nothing more to read.
    #[inline(always)]
    pub const fn is_final(self) -> bool {
        self as u8 >= Self::Complete as u8
    }
}

/// What a client runs TLS over; a part of its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// In TLS records over TCP.
    Tcp = 0,
    /// In CRYPTO frames of QUIC.
    Quic = 1,
}

impl Transport {
    /// The word of JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }
}

/// Bits of [`Hello::flags`].
mod flags {
    /// server_name was seen.
    pub(super) const SNI: u8 = 1 << 0;
    /// application_layer_protocol_negotiation was seen.
    pub(super) const ALPN: u8 = 1 << 1;
    /// It has a name in it.
    pub(super) const ALPN_NAMED: u8 = 1 << 2;
    /// signature_algorithms was seen.
    pub(super) const SIGNATURES: u8 = 1 << 3;
    /// supported_versions was seen.
    pub(super) const VERSIONS: u8 = 1 << 4;
    /// … and a version in it.
    pub(super) const VERSION_NAMED: u8 = 1 << 5;
}

const SERVER_NAME: u16 = 0x0000;
const ALPN: u16 = 0x0010;
const SIGNATURE_ALGORITHMS: u16 = 0x000d;
const SUPPORTED_VERSIONS: u16 = 0x002b;

abi_struct! {
    /// The machine between two bytes.
    #[derive(Default)]
    pub struct Hello: 72 {
        /// Sum over the cipher suites.
        pub ciphers: u64,
        /// Sum over the extensions of the stable variant.
        pub extensions: u64,
        /// Sum over the signature algorithms and their places.
        pub signatures: u64,
        /// What was read of a record's header.
        pub record_carry: u64,
        /// What was read of a field.
        pub carry: u32,
        /// Bytes to skip before the next field.
        pub skip: u32,
        /// Bytes of the message that are not read yet.
        pub message_left: u32,
        /// Bytes of the message behind the extension that is being read.
        pub body_end: u32,
        /// Bytes of the record that are not read yet.
        pub record_left: u32,
        /// Bytes of the list that are not read yet.
        pub list_left: u16,
        /// Fields read so far.
        pub fields: u16,
        /// Cipher suites.
        pub cipher_count: u16,
        /// Extensions of the stable variant.
        pub extension_count: u16,
        /// Signature algorithms.
        pub signature_count: u16,
        /// The version: the highest of supported_versions, else the one of old.
        pub version: u16,
        /// A [`Phase`].
        pub phase: u8,
        /// Bytes of the field.
        pub need: u8,
        /// Bytes of it that were read.
        pub have: u8,
        /// Bytes of a record's header that were read.
        pub record_have: u8,
        /// What was seen.
        pub flags: u8,
        /// Which of [`VARIANT_EXTENSIONS`] were seen, a bit for each.
        pub variant: u8,
        /// First byte of the first protocol name.
        pub alpn_first: u8,
        /// Last byte of the first protocol name.
        pub alpn_last: u8,
    }
}

/// Bytes of a record's header (RFC 8446, 5.1).
const RECORD_HEADER_BYTES: u8 = 5;

/// Bytes of a handshake message's type and length.
pub const MESSAGE_HEADER_BYTES: u8 = 4;

/// The longest record of a plaintext.
const RECORD_BYTES_MAX: u32 = 1 << 14;

/// The longest hello that is read, without type and length.
pub const MESSAGE_BYTES_MAX: u32 = 0xffff;

impl Hello {
    /// Before the first byte of a stream of records: 0 all over, but for [`Self::need`].
    #[inline(always)]
    pub const fn start() -> Self {
        Self {
            ciphers: 0,
            extensions: 0,
            signatures: 0,
            record_carry: 0,
            carry: 0,
            skip: 0,
            message_left: 0,
            body_end: 0,
            record_left: 0,
            list_left: 0,
            fields: 0,
            cipher_count: 0,
            extension_count: 0,
            signature_count: 0,
            version: 0,
            phase: Phase::Message as u8,
            need: MESSAGE_HEADER_BYTES,
            have: 0,
            record_have: 0,
            flags: 0,
            variant: 0,
            alpn_first: 0,
            alpn_last: 0,
        }
    }

    /// Before the first byte of a message that comes without records, as in QUIC.
    pub const fn start_of_message() -> Self {
        Self { record_left: u32::MAX, ..Self::start() }
    }

    /// What is read next.
    #[inline(always)]
    pub const fn phase(&self) -> Phase {
        Phase::from_number(self.phase)
    }

    /// Whether a ClientHello has begun and not ended, as far as can be told: what there is of its first record may be the start of one.
    #[inline(always)]
    pub const fn has_begun(&self) -> bool {
        let is_inside = self.phase != Phase::Message as u8 || self.have != 0 || self.record_left != 0;
        if is_inside || self.record_have == 0 {
            return is_inside;
        }
        let first = (self.record_carry >> (8 * (self.record_have - 1))) as u8;
        is_record(first) || is_ssl2(first)
    }

    /// Reads on in bytes that follow those read before, until they or the hello end.
    pub fn read(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(SEGMENT_BYTES_MAX) {
            let mut segment = Segment::of(piece);
            while step(self, &mut segment) {}
        }
    }
}

/// Whether a value is reserved for GREASE: both bytes equal and of the form `?a` (RFC 8701, 2).
#[inline(always)]
pub const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Reads one field, or what there is of it; whether to go on.
#[inline(always)]
pub fn step(hello: &mut Hello, segment: &mut Segment) -> bool {
    if hello.phase >= Phase::Complete as u8 || segment.left() == 0 {
        return false;
    }
    if hello.record_left == 0 {
        read_record_header(hello, segment);
        return true;
    }
    let skipped = least_of(segment.left(), hello.record_left, hello.skip);
    hello.skip -= skipped;
    advance(hello, segment, skipped);
    let taken = least_of(segment.left(), hello.record_left, (hello.need - hello.have) as u32);
    if hello.skip != 0 || taken == 0 {
        return true;
    }
    let read = segment.next(taken) as u32;
    let value = ((hello.carry as u64) << (8 * taken)) as u32 | read;
    advance(hello, segment, taken);
    hello.have += taken as u8;
    if hello.have < hello.need {
        hello.carry = value;
        return true;
    }
    hello.carry = 0;
    hello.have = 0;
    hello.fields += 1;
    if hello.fields > HELLO_FIELDS_MAX {
        hello.phase = Phase::TooLong as u8;
        return false;
    }
    take_field(hello, value);
    true
}

#[inline(always)]
fn least_of(a: u32, b: u32, c: u32) -> u32 {
    let least = if a < b { a } else { b };
    if least < c { least } else { c }
}

#[inline(always)]
fn advance(hello: &mut Hello, segment: &mut Segment, bytes: u32) {
    segment.position += bytes as u64;
    hello.record_left -= bytes;
    if hello.phase != Phase::Message as u8 {
        hello.message_left = hello.message_left.wrapping_sub(bytes);
    }
}

/// A record may end inside any field, so its header has a carry of its own.
#[inline(always)]
fn read_record_header(hello: &mut Hello, segment: &mut Segment) {
    let missing = (RECORD_HEADER_BYTES - hello.record_have) as u32;
    let left = segment.left();
    let taken = if left < missing { left } else { missing };
    let header = hello.record_carry << (8 * taken) | segment.next(taken);
    segment.position += taken as u64;
    hello.record_carry = header;
    hello.record_have += taken as u8;
    if hello.record_have < RECORD_HEADER_BYTES {
        return;
    }
    hello.record_have = 0;
    hello.record_carry = 0;
    let (kind, major, length) = ((header >> 32) as u8, header >> 24 & 0xff, header as u32 & 0xffff);
    const HANDSHAKE: u8 = 22;
    if kind != HANDSHAKE || major != 3 || length == 0 || length > RECORD_BYTES_MAX {
        let is_first = hello.phase == Phase::Message as u8 && hello.have == 0;
        let is_tls = is_record(kind) && major == 3 || is_ssl2(kind) && header >> 16 & 0xff == 1;
        hello.phase = if is_first && !is_tls { Phase::NotHello } else { Phase::Malformed } as u8;
        return;
    }
    hello.record_left = length;
}

/// Whether it is the type of a record (RFC 8446, 5.1).
const fn is_record(kind: u8) -> bool {
    matches!(kind, 20..=23)
}

/// Whether it may be the first byte of a ClientHello in the form of SSL 2, whose third one is 1 (RFC 5246, E.2).
const fn is_ssl2(first: u8) -> bool {
    first & 0x80 != 0
}

/// Reads a field of `need` bytes next, after `skip` others.
#[inline(always)]
fn expect(hello: &mut Hello, phase: Phase, skip: u32, need: u8) {
    if skip + need as u32 > hello.message_left {
        hello.phase = Phase::Malformed as u8;
        return;
    }
    hello.phase = phase as u8;
    hello.skip = skip;
    hello.need = need;
}

#[inline(always)]
fn fail(hello: &mut Hello) {
    hello.phase = Phase::Malformed as u8;
}

/// Goes on behind the extension that is being read.
#[inline(always)]
fn leave_extension(hello: &mut Hello) {
    if hello.body_end == 0 {
        hello.phase = Phase::Complete as u8;
        return;
    }
    let rest = hello.message_left.wrapping_sub(hello.body_end);
    expect(hello, Phase::Extension, rest, 4);
}

/// Reads a list of numbers of two bytes, which has `room` bytes.
#[inline(always)]
fn enter_list(hello: &mut Hello, phase: Phase, length: u32, room: u32) {
    if length & 1 != 0 || length == 0 || length > room {
        return fail(hello);
    }
    hello.list_left = length as u16;
    expect(hello, phase, 0, 2);
}

/// Reads a list that is all that is left of its extension.
#[inline(always)]
fn enter_whole_list(hello: &mut Hello, phase: Phase, length: u32) {
    let room = hello.message_left.wrapping_sub(hello.body_end);
    if length != room {
        return fail(hello);
    }
    enter_list(hello, phase, length, room);
}

/// Whether the list goes on after a number of two bytes.
#[inline(always)]
fn is_list_left(hello: &mut Hello) -> bool {
    hello.list_left = hello.list_left.wrapping_sub(2);
    hello.list_left != 0
}

#[inline(always)]
fn take_field(hello: &mut Hello, value: u32) {
    let short = value as u16;
    match hello.phase() {
        Phase::Message => {
            const CLIENT_HELLO: u32 = 1;
            if value >> 24 != CLIENT_HELLO {
                return fail(hello);
            }
            hello.message_left = value & 0xff_ffff;
            if hello.message_left > MESSAGE_BYTES_MAX {
                return fail(hello);
            }
            expect(hello, Phase::LegacyVersion, 0, 2);
        }
        Phase::LegacyVersion => {
            hello.version = short;
            const RANDOM_BYTES: u32 = 32;
            expect(hello, Phase::SessionIdLength, RANDOM_BYTES, 1);
        }
        Phase::SessionIdLength => {
            const SESSION_ID_BYTES_MAX: u32 = 32;
            if value > SESSION_ID_BYTES_MAX {
                return fail(hello);
            }
            expect(hello, Phase::CiphersLength, value, 2);
        }
        Phase::CiphersLength => {
            let room = hello.message_left;
            enter_list(hello, Phase::Cipher, value, room);
        }
        Phase::Cipher => {
            if !is_grease(short) {
                hello.ciphers = hello.ciphers.wrapping_add(term(Phase::Cipher, 0, short));
                hello.cipher_count = hello.cipher_count.wrapping_add(1);
            }
            if !is_list_left(hello) {
                expect(hello, Phase::CompressionLength, 0, 1);
            }
        }
        Phase::CompressionLength => {
            if value == hello.message_left {
                hello.phase = Phase::Complete as u8;
                return;
            }
            expect(hello, Phase::ExtensionsLength, value, 2);
        }
        Phase::ExtensionsLength => {
            if value != hello.message_left {
                return fail(hello);
            }
            if value == 0 {
                hello.phase = Phase::Complete as u8;
                return;
            }
            expect(hello, Phase::Extension, 0, 4);
        }
        Phase::Extension => take_extension(hello, (value >> 16) as u16, value & 0xffff),
        Phase::AlpnLengths => {
            let (list, name) = (value >> 8, value & 0xff);
            let body = hello.message_left.wrapping_sub(hello.body_end);
            // The list has the byte of the name's length too, which is read already.
            if list != body.wrapping_add(1) || name > body {
                return fail(hello);
            }
            if name == 0 {
                return leave_extension(hello);
            }
            hello.list_left = name as u16;
            hello.flags |= flags::ALPN_NAMED;
            expect(hello, Phase::AlpnFirst, 0, 1);
        }
        Phase::AlpnFirst => {
            hello.alpn_first = value as u8;
            hello.alpn_last = value as u8;
            if hello.list_left == 1 {
                return leave_extension(hello);
            }
            expect(hello, Phase::AlpnLast, (hello.list_left as u32).wrapping_sub(2) & 0xff, 1);
        }
        Phase::AlpnLast => {
            hello.alpn_last = value as u8;
            leave_extension(hello);
        }
        Phase::SignaturesLength => enter_whole_list(hello, Phase::Signature, value),
        Phase::Signature => {
            if !is_grease(short) {
                let place = hello.signature_count.wrapping_add(1);
                hello.signature_count = place;
                hello.signatures = hello.signatures.wrapping_add(term(Phase::Signature, place, short));
            }
            if !is_list_left(hello) {
                leave_extension(hello);
            }
        }
        Phase::VersionsLength => enter_whole_list(hello, Phase::Version, value),
        Phase::Version => {
            let is_first = hello.flags & flags::VERSION_NAMED == 0;
            if !is_grease(short) && (is_first || short > hello.version) {
                hello.version = short;
                hello.flags |= flags::VERSION_NAMED;
            }
            if !is_list_left(hello) {
                leave_extension(hello);
            }
        }
        Phase::Complete | Phase::NotHello | Phase::Malformed | Phase::TooLong => {}
    }
}

/// Notes an extension and goes into it, or behind it.
#[inline(always)]
fn take_extension(hello: &mut Hello, kind: u16, length: u32) {
    if length > hello.message_left {
        return fail(hello);
    }
    hello.body_end = hello.message_left.wrapping_sub(length);
    let variant = variant_bit(kind);
    hello.variant |= variant;
    if variant == 0 && !is_grease(kind) {
        hello.extension_count = hello.extension_count.wrapping_add(1);
        if kind != SERVER_NAME && kind != ALPN {
            hello.extensions = hello.extensions.wrapping_add(term(Phase::Extension, 0, kind));
        }
    }
    match kind {
        SERVER_NAME => {
            if is_first(hello, flags::SNI) {
                leave_extension(hello);
            }
        }
        ALPN => {
            if is_first(hello, flags::ALPN) {
                // A list without a name is shorter.
                if length < 3 {
                    leave_extension(hello)
                } else {
                    enter_body(hello, length, Phase::AlpnLengths, 3)
                }
            }
        }
        SIGNATURE_ALGORITHMS => {
            if is_first(hello, flags::SIGNATURES) {
                enter_body(hello, length, Phase::SignaturesLength, 2);
            }
        }
        SUPPORTED_VERSIONS => {
            if is_first(hello, flags::VERSIONS) {
                enter_body(hello, length, Phase::VersionsLength, 1);
            }
        }
        _ => leave_extension(hello),
    }
}

/// Notes an extension that may come once (RFC 8446, 4.2).
#[inline(always)]
fn is_first(hello: &mut Hello, flag: u8) -> bool {
    if hello.flags & flag != 0 {
        fail(hello);
        return false;
    }
    hello.flags |= flag;
    true
}

#[inline(always)]
fn enter_body(hello: &mut Hello, length: u32, phase: Phase, need: u8) {
    if length < need as u32 {
        return fail(hello);
    }
    expect(hello, phase, 0, need);
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
