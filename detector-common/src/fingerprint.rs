//! Fingerprints of clients: what the program counts of each, and the exemplars that it sends of new ones.

use crate::abi_struct;

/// What a fingerprint is taken from. The numbers are those of units of a key's tag that no prefix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A ClientHello over TCP: [`crate::hello::Hello::key`].
    Tls = 5,
    /// A SYN: [`crate::syn::Syn::key`].
    Syn = 6,
}

impl Kind {
    /// The word of JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Syn => "syn",
        }
    }
}

/// Registers of the count of distinct sources, a power of two: the count errs by 1.04 / √256 = 6.5 % (Flajolet, Fusy,
/// Gandouet & Meunier 2007).
pub const REGISTERS: usize = 256;

/// Bins of a histogram of times.
pub const TIME_BINS: usize = 16;

/// Times below 2^16 ns, 66 µs, are all in the first bin; each further bin is twice as long, and the last one has no end: it
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
        rest >>= 1;
        bin += 1;
    }
    let bin = bin + rest as u32;
    if bin >= TIME_BINS as u32 { TIME_BINS as u32 - 1 } else { bin }
}

abi_struct! {
    /// What is kept of a fingerprint at a service beside its entry in the table.
    pub struct Profile: 464 {
        /// The key that this is of. It changes hands with the entry, a moment later.
        pub key: u64,
        /// Sets of extensions that come and go, [`crate::hello::Hello::variant`], that were seen: bit *v* for set *v*.
        pub variants: u64,
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

/// The register of a source's hash, and what it is raised to.
#[inline(always)]
pub const fn register_of(hash: u64) -> (usize, u8) {
    let place = hash as usize & (REGISTERS - 1);
    // The lowest bit that is set, of 56; the highest of them stands for none.
    let rest = hash >> 8 | 1 << 55;
    (place, rest.trailing_zeros() as u8 + 1)
}

