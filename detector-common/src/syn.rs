//! The signature of a SYN: what an operating system or a proxy writes into its first packet.
//!
//! Fields and text are those of p0f 3 (Zalewski, README of p0f 3.09b, section 5):
//! `ver:ittl:olen:mss:wsize,scale:olayout:quirks:pclass`. Two SYNs have the same [`Syn::key`] if and only if they have the same
//! text, collisions of 64 bits aside. Sources: RFC 791, 8200, 9293 (3.1), 7323, 2018, 3168.

use core::fmt;

use crate::{abi_struct, branchless::bounded, hello::mix, segment::Segment};

/// Bytes of options in the longest TCP header.
pub const OPTION_BYTES_MAX: usize = 40;

/// Bytes from the network header on within which the TCP header has to end for the signature to be read.
pub const HEADER_BYTES_MAX: usize = 256;

/// Bits of [`Syn::quirks`], in the order of the text.
pub mod quirks {
    /// *Don't fragment* is set.
    pub const DF: u64 = 1 << 0;
    /// … and the identification is not 0.
    pub const NONZERO_ID: u64 = 1 << 1;
    /// *Don't fragment* is not set, and the identification is 0.
    pub const ZERO_ID: u64 = 1 << 2;
    /// Explicit congestion notification, in IP or TCP.
    pub const ECN: u64 = 1 << 3;
    /// The reserved bit of IPv4 is set.
    pub const RESERVED: u64 = 1 << 4;
    /// The flow label of IPv6 is not 0.
    pub const FLOW: u64 = 1 << 5;
    /// The sequence number is 0.
    pub const ZERO_SEQ: u64 = 1 << 6;
    /// An acknowledgement number without ACK.
    pub const NONZERO_ACK: u64 = 1 << 7;
    /// ACK without an acknowledgement number. Not in a SYN of a client.
    pub const ZERO_ACK: u64 = 1 << 8;
    /// An urgent pointer without URG.
    pub const NONZERO_URGENT: u64 = 1 << 9;
    /// URG.
    pub const URG: u64 = 1 << 10;
    /// PSH.
    pub const PSH: u64 = 1 << 11;
    /// The timestamp is 0.
    pub const ZERO_TIMESTAMP: u64 = 1 << 12;
    /// The echoed timestamp is not 0.
    pub const NONZERO_ECHO: u64 = 1 << 13;
    /// Bytes other than 0 behind the end of the options.
    pub const TRAILING: u64 = 1 << 14;
    /// A window scale above 14.
    pub const EXCESSIVE_SCALE: u64 = 1 << 15;
    /// Options that are malformed.
    pub const BAD: u64 = 1 << 16;

    /// The words of the text.
    pub const NAMES: [&str; 17] = [
        "df", "id+", "id-", "ecn", "0+", "flow", "seq-", "ack+", "ack-", "uptr+", "urgf+", "pushf+", "ts1-",
        "ts2+", "opt+", "exws", "bad",
    ];
}

/// What the window is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WindowUnit {
    /// Bytes.
    Bytes = 0,
    /// Multiples of the maximum segment size.
    Mss = 1,
    /// Multiples of the maximum packet size that the MSS means.
    Mtu = 2,
}

abi_struct! {
    /// A signature.
    pub struct Syn: 72 {
        /// Kinds of the options in their order; 0, the end of the options, may be the last one.
        pub layout: [u8; OPTION_BYTES_MAX],
        /// Bits of [`quirks`].
        pub quirks: u64,
        /// Maximum segment size; 0: none was said.
        pub mss: u16,
        /// Window, in [`WindowUnit`]s.
        pub window: u16,
        /// Where the next option starts, from the network header on. 0 when they have been read.
        pub position: u16,
        /// Where the options end.
        pub end: u16,
        /// Bytes of IPv4 options, or of IPv6 extension headers.
        pub ip_options_bytes: u16,
        /// Options.
        pub options: u8,
        /// Bytes behind the end of the options.
        pub padding_bytes: u8,
        /// 4 or 6.
        pub version: u8,
        /// The hop limit that the packet started with: 32, 64, 128 or 255.
        pub initial_ttl: u8,
        /// Window scale; 0: none was said.
        pub scale: u8,
        /// A [`WindowUnit`].
        pub window_unit: u8,
        /// 1: the SYN has a payload.
        pub payload: u8,
        /// 0.
        pub reserved: [u8; 7],
    }
}

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

impl Segment {
    #[inline(always)]
    fn byte(&self, at: u32) -> u32 {
        self.bytes[bounded::<{ HEADER_BYTES_MAX - 1 }>(at as u64)] as u32
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u32 {
        self.byte(at) << 8 | self.byte(at + 1)
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        self.half(at) << 16 | self.half(at + 2)
    }
}

/// Reads the fields of a SYN before its options into an empty signature. `headers` begin with the network header, `transport` is where the TCP header
/// begins, `payload` whether there are bytes behind it. The caller has seen that the headers are whole.
#[inline(always)]
pub fn begin(syn: &mut Syn, headers: &Segment, transport: u32, payload: bool) {
    let mut quirks = 0;
    let version = headers.byte(0) >> 4;
    let (ttl, ip_header_bytes) = if version == 4 {
        let (id, fragment) = (headers.half(4), headers.half(6));
        let df = fragment & 0x4000 != 0;
        quirks |= if df { quirks::DF } else { 0 };
        quirks |= if df && id != 0 { quirks::NONZERO_ID } else { 0 };
        quirks |= if !df && id == 0 { quirks::ZERO_ID } else { 0 };
        quirks |= if fragment & 0x8000 != 0 { quirks::RESERVED } else { 0 };
        quirks |= if headers.byte(1) & 3 != 0 { quirks::ECN } else { 0 };
        (headers.byte(8), 20)
    } else {
        let start = headers.word(0);
        quirks |= if start & 0xf_ffff != 0 { quirks::FLOW } else { 0 };
        quirks |= if start >> 20 & 3 != 0 { quirks::ECN } else { 0 };
        (headers.byte(7), 40)
    };
    let flags = headers.byte(transport + 13);
    let (ack, urgent) = (headers.word(transport + 8), headers.half(transport + 18));
    quirks |= if headers.word(transport + 4) == 0 { quirks::ZERO_SEQ } else { 0 };
    quirks |= if flags & 0x10 == 0 && ack != 0 { quirks::NONZERO_ACK } else { 0 };
    quirks |= if flags & 0x10 != 0 && ack == 0 { quirks::ZERO_ACK } else { 0 };
    quirks |= if flags & 0x20 == 0 && urgent != 0 { quirks::NONZERO_URGENT } else { 0 };
    quirks |= if flags & 0x20 != 0 { quirks::URG } else { 0 };
    quirks |= if flags & 0x08 != 0 { quirks::PSH } else { 0 };
    quirks |= if flags & 0xc0 != 0 { quirks::ECN } else { 0 };
    syn.quirks = quirks;
    syn.window = headers.half(transport + 14) as u16;
    syn.position = (transport + 20) as u16;
    syn.end = (transport + (headers.byte(transport + 12) >> 4) * 4) as u16;
    syn.ip_options_bytes = transport.wrapping_sub(ip_header_bytes) as u16;
    syn.version = version as u8;
    syn.initial_ttl = initial_ttl(ttl);
    syn.payload = payload as u8;
}

/// The hop limit that a packet started with, of those in use, the nearest above.
#[inline(always)]
const fn initial_ttl(ttl: u32) -> u8 {
    match ttl {
        0..=32 => 32,
        33..=64 => 64,
        65..=128 => 128,
        _ => 255,
    }
}

/// Reads one option; whether to go on. When it says no, [`finish`] is next.
#[inline(always)]
pub fn step(syn: &mut Syn, headers: &Segment) -> bool {
    let (at, end) = (syn.position as u32, syn.end as u32);
    if at >= end || syn.options as usize >= OPTION_BYTES_MAX {
        return false;
    }
    let kind = headers.byte(at) as u8;
    let place = (syn.options as usize).min(OPTION_BYTES_MAX - 1);
    syn.layout[place] = kind;
    syn.options += 1;
    if kind == NOP {
        syn.position += 1;
        return true;
    }
    if kind == END {
        syn.padding_bytes = (end - at - 1) as u8;
        return false;
    }
    // Without a length of its own it is as bad as with a wrong one.
    let length = if at + 1 < end { headers.byte(at + 1) } else { 0 };
    let is_right = match kind {
        MSS => length == 4,
        SCALE => length == 3,
        SACK_PERMITTED => length == 2,
        SACK => matches!(length, 10..=34),
        TIMESTAMPS => length == 10,
        _ => length >= 2,
    };
    if !is_right || at + length > end {
        syn.quirks |= quirks::BAD;
        return false;
    }
    if kind == MSS {
        syn.mss = headers.half(at + 2) as u16;
    }
    if kind == SCALE {
        syn.scale = headers.byte(at + 2) as u8;
        syn.quirks |= if syn.scale > 14 { quirks::EXCESSIVE_SCALE } else { 0 };
    }
    if kind == TIMESTAMPS {
        syn.quirks |= if headers.word(at + 2) == 0 { quirks::ZERO_TIMESTAMP } else { 0 };
        syn.quirks |= if headers.word(at + 6) != 0 { quirks::NONZERO_ECHO } else { 0 };
    }
    syn.position += length as u16;
    true
}

/// Looks at the bytes behind the end of the options, and says the window in the unit that it is a multiple of.
#[inline(always)]
pub fn finish(syn: &mut Syn, headers: &Segment) {
    // The last words of the options that hold padding, byte by byte as they are few.
    let mut trailing = 0;
    let mut at = 0;
    while at < OPTION_BYTES_MAX as u32 {
        let is_padding = at < syn.padding_bytes as u32;
        let byte = headers.byte((syn.end as u32).wrapping_sub(1 + at));
        trailing |= if is_padding { byte } else { 0 };
        at += 1;
    }
    syn.quirks |= if trailing != 0 { quirks::TRAILING } else { 0 };
    syn.position = 0;
    syn.end = 0;
    let (mss, window) = (syn.mss as u32, syn.window as u32);
    // As p0f: below, every window is a multiple of something.
    const MSS_MIN: u32 = 100;
    if mss < MSS_MIN || window == 0 {
        return;
    }
    let mtu = mss + if syn.version == 4 { 40 } else { 60 };
    if window % mss == 0 {
        syn.window = (window / mss) as u16;
        syn.window_unit = WindowUnit::Mss as u8;
    } else if window % mtu == 0 {
        syn.window = (window / mtu) as u16;
        syn.window_unit = WindowUnit::Mtu as u8;
    }
}

impl Syn {
    /// Before anything was read.
    pub const EMPTY: Self = Self {
        layout: [0; OPTION_BYTES_MAX],
        quirks: 0,
        mss: 0,
        window: 0,
        position: 0,
        end: 0,
        ip_options_bytes: 0,
        options: 0,
        padding_bytes: 0,
        version: 0,
        initial_ttl: 0,
        scale: 0,
        window_unit: 0,
        payload: 0,
        reserved: [0; 7],
    };

    /// The signature of a SYN. `headers`: from the network header to the end of the TCP header; `transport`: where the latter
    /// begins; `payload`: whether there are bytes behind it. `None` where the headers are not whole, too long, or of no
    /// version of IP.
    pub fn of(headers: &[u8], transport: usize, payload: bool) -> Option<Self> {
        let ip_header_bytes = match headers.first()? >> 4 {
            4 => 20,
            6 => 40,
            _ => return None,
        };
        let length = usize::from(headers.get(transport + 12)? >> 4) * 4;
        if length < 20
            || transport < ip_header_bytes
            || headers.len() < transport + length
            || transport + length > HEADER_BYTES_MAX
        {
            return None;
        }
        let segment = Segment::of(headers);
        let mut syn = Self::EMPTY;
        begin(&mut syn, &segment, transport as u32, payload);
        while step(&mut syn, &segment) {}
        finish(&mut syn, &segment);
        Some(syn)
    }

    /// The key of the fingerprint. Never 0.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        let mut key = mix(self.quirks | (self.mss as u64) << 32 | (self.window as u64) << 48);
        key = mix(key
            ^ (self.ip_options_bytes as u64
                | (self.options as u64) << 16
                | (self.padding_bytes as u64) << 24
                | (self.version as u64) << 32
                | (self.initial_ttl as u64) << 40
                | (self.scale as u64) << 48
                | ((self.window_unit << 1 | self.payload) as u64) << 56));
        let mut word = 0;
        while word < OPTION_BYTES_MAX / 8 {
            let mut bytes = [0; 8];
            let mut at = 0;
            while at < 8 {
                bytes[at] = self.layout[word * 8 + at];
                at += 1;
            }
            key = mix(key.wrapping_add(u64::from_le_bytes(bytes)));
            word += 1;
        }
        if key == 0 { 1 } else { key }
    }
}

impl Default for Syn {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for Syn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}:{}:", self.version, self.initial_ttl, self.ip_options_bytes, self.mss)?;
        match self.window_unit {
            unit if unit == WindowUnit::Mss as u8 => write!(out, "mss*{}", self.window)?,
            unit if unit == WindowUnit::Mtu as u8 => write!(out, "mtu*{}", self.window)?,
            _ => write!(out, "{}", self.window)?,
        }
        write!(out, ",{}:", self.scale)?;
        for (place, kind) in self.layout.iter().take(usize::from(self.options)).enumerate() {
            if place > 0 {
                out.write_str(",")?;
            }
            match *kind {
                END => write!(out, "eol+{}", self.padding_bytes)?,
                NOP => out.write_str("nop")?,
                MSS => out.write_str("mss")?,
                SCALE => out.write_str("ws")?,
                SACK_PERMITTED => out.write_str("sok")?,
                SACK => out.write_str("sack")?,
                TIMESTAMPS => out.write_str("ts")?,
                kind => write!(out, "?{kind}")?,
            }
        }
        out.write_str(":")?;
        let mut is_first = true;
        for (bit, name) in quirks::NAMES.iter().enumerate() {
            if self.quirks & 1 << bit != 0 {
                out.write_str(if is_first { "" } else { "," })?;
                out.write_str(name)?;
                is_first = false;
            }
        }
        out.write_str(if self.payload == 0 { ":0" } else { ":+" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{string::ToString, vec, vec::Vec};

    /// A SYN of Linux over IPv4.
    fn linux() -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 57, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        bytes.extend([0xc0, 0, 1, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0, 0xa0, 2]);
        bytes.extend([0xfa, 0xf0, 0, 0, 0, 0]);
        bytes.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 1, 1, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
        bytes
    }

    fn text(change: impl FnOnce(&mut Vec<u8>)) -> std::string::String {
        let mut bytes = linux();
        change(&mut bytes);
        Syn::of(&bytes, 20, false).expect("a signature").to_string()
    }

    #[test]
    fn texts_are_those_of_p0f() {
        assert_eq!(text(|_| {}), "4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0");
        assert_eq!(
            text(|syn| syn[34..36].copy_from_slice(&64000_u16.to_be_bytes())),
            "4:64:0:1460:64000,7:mss,sok,ts,nop,ws:df,id+:0"
        );
        assert_eq!(
            text(|syn| syn[34..36].copy_from_slice(&3000_u16.to_be_bytes())),
            "4:64:0:1460:mtu*2,7:mss,sok,ts,nop,ws:df,id+:0"
        );
        assert_eq!(text(|syn| syn[8] = 127), "4:128:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0");
        assert_eq!(
            text(|syn| {
                syn[6] = 0x80;
                syn[4] = 0;
                syn[5] = 0;
                syn[1] = 2;
            }),
            "4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:id-,ecn,0+:0"
        );
        assert_eq!(
            text(|syn| {
                syn[24..28].fill(0);
                syn[31] = 9;
                syn[33] = 0x2a;
                syn[48..52].fill(0);
                syn[55] = 1;
                syn[59] = 15;
            }),
            "4:64:0:1460:mss*44,15:mss,sok,ts,nop,ws:df,id+,seq-,ack+,urgf+,pushf+,ts1-,ts2+,exws:0"
        );
        assert_eq!(
            text(|syn| syn
                .splice(40.., [2, 4, 5, 0xb4, 253, 4, 1, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0])
                .for_each(drop)),
            "4:64:0:1460:mss*44,0:mss,?253,eol+11:df,id+,opt+:0"
        );
        assert_eq!(
            text(|syn| {
                syn[32] = 0x60;
                syn.splice(40.., [2, 5, 5, 0xb4]).for_each(drop);
            }),
            "4:64:0:0:64240,0:mss:df,id+,bad:0"
        );
    }

    #[test]
    fn the_end_of_the_options_may_be_their_last_byte() {
        assert_eq!(
            text(|syn| {
                syn[32] = 0x70;
                syn.splice(40.., [2, 4, 5, 0xb4, 4, 2, 1, 0]).for_each(drop);
            }),
            "4:64:0:1460:mss*44,0:mss,sok,nop,eol+0:df,id+:0"
        );
    }

    #[test]
    fn ipv6_has_a_flow_label_and_extension_headers() {
        let mut bytes = vec![0x60, 0x0a, 0xbc, 0xde, 0, 48, 0, 64];
        bytes.extend([0; 32]);
        bytes.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend(&linux()[20..]);
        let syn = Syn::of(&bytes, 48, true).expect("a signature");
        assert_eq!(syn.to_string(), "6:64:8:1460:mss*44,7:mss,sok,ts,nop,ws:flow:+");
        assert_ne!(syn.key(), Syn::of(&bytes, 48, false).expect("a signature").key());
    }

    #[test]
    fn headers_that_are_not_whole_have_none() {
        let bytes = linux();
        for length in 0..bytes.len() {
            assert_eq!(Syn::of(&bytes[..length], 20, false), None);
        }
        assert_eq!(Syn::of(&[&[0x45][..], &[0; 239], &bytes[20..]].concat(), 240, false), None);
    }

    #[test]
    fn headers_of_no_version_of_ip_have_none() {
        let with_version = |version: u8| {
            let mut bytes = linux();
            bytes[0] = version << 4 | 5;
            Syn::of(&bytes, 20, false).map(|syn| syn.version)
        };
        let known: Vec<u8> = (0..16).filter_map(with_version).collect();
        // One of IPv6 is longer than these.
        assert_eq!(known, [4]);
    }

    proptest! {
        #[test]
        fn keys_are_equal_as_texts_are(
            flips in proptest::collection::vec((0..60_usize, any::<u8>()), 0..3),
            others in proptest::collection::vec((0..60_usize, any::<u8>()), 0..3),
            data_offset in 5..=10_u8,
        ) {
            let changed = |flips: &[(usize, u8)]| {
                let mut bytes = linux();
                for (at, value) in flips {
                    bytes[*at] = *value;
                }
                bytes[0] = 0x45;
                bytes[32] = data_offset << 4;
                Syn::of(&bytes, 20, false).expect("a signature")
            };
            let (one, two) = (changed(&flips), changed(&others));
            prop_assert_eq!(one.key() == two.key(), one.to_string() == two.to_string(), "{} {}", one, two);
        }
    }
}
