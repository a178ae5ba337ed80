//! Fingerprints of clients: what the program counts of each, and the exemplars that it sends of new ones.

use crate::{abi_struct, syn::Syn};

/// What a fingerprint is taken from. The numbers are those of units of a key's tag that no prefix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A ClientHello over TCP: [`crate::hello::Hello::key`].
    Tls = 5,
    /// A SYN: [`crate::syn::Syn::key`].
    Syn = 6,
    /// A client's first packet over QUIC, which the program cannot look into: [`crate::initial::Shape::key`].
    Initial = 7,
}

impl Kind {
    /// The kind of a number; `None` for another number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            5 => Some(Self::Tls),
            6 => Some(Self::Syn),
            7 => Some(Self::Initial),
            _ => None,
        }
    }

    /// The word of JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Syn => "syn",
            Self::Initial => "initial",
        }
    }
}

/// Registers of the count of distinct sources, a power of two: the count errs by 1.04 / √256 = 6.5 % (Flajolet, Fusy,
/// Gandouet & Meunier 2007).
pub const REGISTERS: usize = 256;

/// Bins of a histogram of times.
pub const TIME_BINS: usize = 16;

/// Times below 2^17 ns, 131 µs, are all in the first bin; each further bin is twice as long, and the last one has no end: it
/// begins at 2.1 s.
pub const FIRST_BIN_NS_LOG2: u32 = 16;

/// The bin of a time.
#[inline(always)]
pub const fn time_bin(ns: u64) -> u32 {
    let mut rest = ns >> FIRST_BIN_NS_LOG2;
    let mut bin = 0;
    // Unrolled: bits of the logarithm from the highest to the lowest.
    if rest >= 1 << 8 {
        rest >>= 8;
        bin += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        bin += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        bin += 2;
    }
    if rest >= 1 << 1 {
        bin += 1;
    }
    if bin >= TIME_BINS as u32 { TIME_BINS as u32 - 1 } else { bin }
}

abi_struct! {
    /// What is kept of a fingerprint at a service beside its entry in the table.
    pub struct Sightings: 472 {
        /// The key that this is of. It changes hands with the entry, a moment later.
        pub key: u64,
        /// Sets of extensions that come and go, [`crate::hello::Hello::variant`], of which an exemplar was sent: bit *v* for set *v*.
        /// Of a SYN and of an Initial: 1 once one was. The daemon clears it to be sent exemplars again.
        pub variants: u64,
        /// Segments of its connections while they were followed, counted where that ends.
        pub segments: u64,
        /// Distinct sources: HyperLogLog, a register a byte.
        pub sources: [u8; REGISTERS],
        /// From the SYN to the client's first answer: a round trip to where TCP ends. A count for each [`time_bin`].
        pub round_trip: [u32; TIME_BINS],
        /// From that answer to the end of the ClientHello: with a proxy between, a round trip to the client behind it.
        pub hello_delay: [u32; TIME_BINS],
        /// From the ClientHello to what the client says next: a round trip to the client and the server's time.
        pub finish_delay: [u32; TIME_BINS],
    }
}

/// JA4s that are remembered of a fingerprint beside the last one: a client shows two to four.
pub const EARLIER_JA4S: usize = 3;

/// Bytes of a JA4.
pub const JA4_BYTES: usize = 36;

abi_struct! {
    /// What a fingerprint is called. The program does not read it.
    pub struct Name: 288 {
        /// The key that this is the name of; 0: none.
        pub key: u64,
        /// The JA4 of a ClientHello without the extensions that come and go; zeros behind its end. Of an Initial: that of the last
        /// client.
        pub stable_ja4: [u8; 40],
        /// The JA4 of the last exemplar.
        pub ja4: [u8; 40],
        /// Other JA4s of earlier ones, the latest first; zeros where there were no more.
        pub earlier_ja4: [[u8; 40]; EARLIER_JA4S],
        /// The signature of a SYN.
        pub syn: Syn,
        /// Exemplars of the key that had another stable JA4.
        pub conflicts: u32,
        /// A [`Kind`].
        pub kind: u8,
        /// 0.
        pub reserved: u8,
        /// Of an Initial: stable JA4s that were behind it.
        pub clients: u16,
    }
}

const _: () = assert!(JA4_BYTES <= 40);

impl Name {
    /// What a fingerprint is called from now on that had a name `before` and is told to have this one: its stable JA4 is the one
    /// that it had first. Another one is a conflict, and changes nothing else.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if self.stable_ja4 != before.stable_ja4 {
            return Self { conflicts: before.conflicts.saturating_add(1), ..*before };
        }
        self.conflicts = before.conflicts;
        self.earlier_ja4 = [[0; 40]; EARLIER_JA4S];
        let own = self.ja4;
        let known = [before.ja4].into_iter().chain(before.earlier_ja4);
        let others = known.filter(|ja4| *ja4 != own && *ja4 != [0; 40]);
        self.earlier_ja4.iter_mut().zip(others).for_each(|(to, ja4)| *to = ja4);
        self
    }

    /// No name.
    pub const NONE: Self = Self {
        key: 0,
        stable_ja4: [0; 40],
        ja4: [0; 40],
        earlier_ja4: [[0; 40]; EARLIER_JA4S],
        syn: Syn::EMPTY,
        conflicts: 0,
        kind: 0,
        reserved: 0,
        clients: 0,
    };
}

/// A JA4 as it stands in a [`Name`]; what is too long is cut.
pub fn ja4_bytes(text: &str) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    bytes
}

/// The JA4 that stands so in a [`Name`]; `None`: there is none.
pub fn ja4_text(bytes: &[u8; 40]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    core::str::from_utf8(&bytes[..end]).ok().filter(|text| !text.is_empty())
}

/// The register of a source's hash, and what it is raised to.
#[inline(always)]
pub const fn register_of(hash: u64) -> (usize, u8) {
    let place = hash as usize & (REGISTERS - 1);
    // The lowest bit that is set, of 56; the highest of them stands for none.
    let rest = hash >> 8 | 1 << 55;
    (place, rest.trailing_zeros() as u8 + 1)
}

abi_struct! {
    /// What stands before the bytes of an exemplar in the ring buffer.
    pub struct ExemplarHeader: 72 {
        /// The fingerprint's key; of an Initial, that of the first one of its connection. While segments are gathered: the
        /// connection that they are of.
        pub key: u64,
        /// Of a ClientHello: key of the SYN of its connection, 0 if that was not seen.
        pub syn_key: u64,
        /// Source address; see [`crate::address::Address`].
        pub source: [u64; 2],
        /// Destination address.
        pub destination: [u64; 2],
        /// Kernel time, ns since boot (or virtual).
        pub time_ns: u64,
        /// Bytes that follow: of TLS records from the first of the ClientHello on, a [`crate::syn::Syn`], or a datagram of QUIC.
        pub bytes: u32,
        /// Service.
        pub service: u16,
        /// Source port.
        pub source_port: u16,
        /// Destination port.
        pub destination_port: u16,
        /// A [`Kind`].
        pub kind: u8,
        /// 4 or 6.
        pub version: u8,
        /// 0.
        pub reserved: u32,
    }
}

/// Where the bytes of an exemplar start: behind the header and the two words that a [`crate::segment::Segment`] begins with.
pub const EXEMPLAR_CONTENT_START: usize = size_of::<ExemplarHeader>() + 2 * size_of::<u64>();

/// Bytes of an exemplar: those of two segments.
pub const EXEMPLAR_BYTES_MAX: usize = 2 * crate::segment::SEGMENT_BYTES_MAX;

/// Segments of one ClientHello, gathered until it is whole.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// [`ExemplarHeader::bytes`] says how many there are so far.
    pub header: ExemplarHeader,
    /// 0, so that the bytes start where they do in a [`crate::flow::Scratch`].
    pub reserved: [u64; 2],
    /// The bytes.
    pub content: [u8; EXEMPLAR_BYTES_MAX],
}

const _: () = assert!(core::mem::offset_of!(Gathered, content) == EXEMPLAR_CONTENT_START);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_double() {
        assert_eq!(time_bin(0), 0);
        assert_eq!(time_bin((1 << 17) - 1), 0);
        for bin in 1..TIME_BINS as u32 {
            let start = 1_u64 << (FIRST_BIN_NS_LOG2 + bin);
            assert_eq!(time_bin(start), bin);
            assert_eq!(time_bin(start - 1), bin - 1);
        }
        assert_eq!(time_bin(u64::MAX), TIME_BINS as u32 - 1);
    }

    #[test]
    fn a_key_has_the_stable_ja4_that_it_had_first_and_conflicts_are_counted() {
        let told = |stable: &str, ja4: &str| Name {
            key: 7,
            stable_ja4: ja4_bytes(stable),
            ja4: ja4_bytes(ja4),
            ..Name::NONE
        };
        let mut name = told("stable", "a");
        for ja4 in ["b", "a", "a", "c", "d", "e"] {
            name = told("stable", ja4).after(&name);
        }
        let others = ["c", "d", "e", "f"].map(|ja4| told("other", ja4));
        name = others.iter().fold(name, |name, other| other.after(&name));
        assert_eq!((ja4_text(&name.stable_ja4), ja4_text(&name.ja4)), (Some("stable"), Some("e")));
        assert_eq!(name.earlier_ja4.each_ref().map(ja4_text), [Some("d"), Some("c"), Some("a")]);
        name = told("stable", "c").after(&name);
        assert_eq!((ja4_text(&name.ja4), name.conflicts, name.key), (Some("c"), 4, 7));
        assert_eq!(name.earlier_ja4.each_ref().map(ja4_text), [Some("e"), Some("d"), Some("a")]);
        assert_eq!(name.after(&name), name, "what is known already is no news");
    }

    #[test]
    fn registers_count_zeros() {
        assert_eq!(register_of(0x1_05), (5, 1));
        assert_eq!(register_of(0x8_ff), (255, 4));
        assert_eq!(register_of(0), (0, 56));
        assert_eq!(register_of(u64::MAX << 63), (0, 56));
    }
}
