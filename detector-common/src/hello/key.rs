//! The key of a ClientHello, and what is told apart among clients of one key.

use super::{Hello, Phase, Transport, flags};

/// Extensions that come and go between hellos of one client: padding (RFC 7685) by the length of the server's name,
/// pre_shared_key and early_data (RFC 8446) and session_ticket (RFC 5077) by what happened before. Each has a bit in
/// [`Hello::variant`].
pub const VARIANT_EXTENSIONS: [u16; 4] = [0x0015, 0x0029, 0x002a, 0x0023];

impl Hello {
    /// The key of the fingerprint; `None` until the hello was read. Never 0.
    #[inline(always)]
    pub const fn key(&self, transport: Transport) -> Option<u64> {
        if self.phase != Phase::Complete as u8 {
            return None;
        }
        let head = (transport as u64)
            | (version_code(self.version) as u64) << 8
            | ((self.flags & flags::SNI) as u64) << 16
            | (least(self.cipher_count, COUNT_MAX) as u64) << 24
            | (least(self.extension_count, COUNT_MAX) as u64) << 32
            | (self.alpn_characters() as u64) << 40;
        let mut key = mix(head ^ KEY_SEED);
        key = mix(key.wrapping_add(self.ciphers));
        key = mix(key.wrapping_add(self.extensions));
        key = mix(key.wrapping_add(self.signatures));
        Some(if key == 0 { 1 } else { key })
    }

    /// The two characters of JA4 for the first protocol name.
    #[inline(always)]
    pub(super) const fn alpn_characters(&self) -> u16 {
        if self.flags & flags::ALPN_NAMED == 0 {
            return u16::from_be_bytes(*b"00");
        }
        let (first, last) = (self.alpn_first, self.alpn_last);
        if is_alphanumeric(first) && is_alphanumeric(last) {
            return u16::from_be_bytes([first, last]);
        }
        u16::from_be_bytes([hex_digit(first >> 4), hex_digit(last & 0xf)])
    }
}

/// Counts are written in two digits.
const COUNT_MAX: u16 = 99;

#[inline(always)]
const fn least(a: u16, b: u16) -> u16 {
    if a < b { a } else { b }
}

#[inline(always)]
const fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

#[inline(always)]
const fn hex_digit(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}

/// One number for each version that JA4 has characters for, and 0 for all others.
#[inline(always)]
const fn version_code(version: u16) -> u8 {
    match version {
        0x0300..=0x0304 => version as u8 + 1,
        _ => 0,
    }
}

const KEY_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection. Without a secret, since a key is the same on every
/// machine; who wants another one's key sends its hello.
#[inline(always)]
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A value of a list, as it is summed. `place`: 0 where the order does not count.
#[inline(always)]
pub(super) const fn term(list: Phase, place: u16, value: u16) -> u64 {
    mix(((list as u64) << 32 | (place as u64) << 16 | value as u64).wrapping_add(KEY_SEED))
}

/// The bit of an extension in [`Hello::variant`]; 0 for all others.
#[inline(always)]
pub(super) const fn variant_bit(kind: u16) -> u8 {
    let [padding, pre_shared_key, early_data, session_ticket] = VARIANT_EXTENSIONS;
    ((kind == padding) as u8)
        | ((kind == pre_shared_key) as u8) << 1
        | ((kind == early_data) as u8) << 2
        | ((kind == session_ticket) as u8) << 3
}
