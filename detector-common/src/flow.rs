//! A connection in its handshake: what is kept of it from the SYN to the first bytes after the ClientHello.

use crate::{
    abi_struct,
    budget::ticks,
    exchange::Exchanges,
    fingerprint::{EXEMPLAR_CONTENT_START, ExemplarHeader},
    hash::{Seed, keyed},
    hello::Hello,
    limits::{HANDSHAKE_NS_MAX, LONG_IDLE_NS},
    packet::Packet,
    segment::Segment,
    syn::Syn,
};

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The client has not sent all of its ClientHello.
    Hello = 0,
    /// It has; its next bytes end the handshake.
    Finish = 1,
    /// The handshake is over; the exchanges are counted.
    Exchange = 2,
}

abi_struct! {
    /// The state of a connection in its handshake.
    #[derive(Default)]
    pub struct Flow: 152 {
        /// The ClientHello as far as it has come.
        pub hello: Hello,
        /// Key of the entry that the state belongs to; its lowest bit is 1 while a CPU is at work here.
        pub owner: u64,
        /// When the SYN came, ns of the precise clock; 0: it was not seen, or came twice.
        pub syn_ns: u64,
        /// When the SYN of the other side was acknowledged; 0: not yet.
        pub ack_ns: u64,
        /// When the last byte of the ClientHello came that its key needs.
        pub hello_ns: u64,
        /// Key of the SYN's signature; 0: unknown.
        pub syn_key: u64,
        /// Key of the ClientHello; 0: unknown so far.
        pub tls_key: u64,
        /// What follows the handshake.
        pub exchanges: Exchanges,
        /// The next sequence number of the client.
        pub next_sequence: u32,
        /// A [`Stage`].
        pub stage: u8,
        /// Segments that were no ClientHello: another protocol, or a dialogue before.
        pub other_segments: u8,
        /// Segments that did not follow the ones before.
        pub strayed_segments: u8,
        /// [`GATHERED`], [`CHARGED`].
        pub notes: u8,
    }
}

/// Note of a [`Flow`]: segments of its ClientHello are gathered for an exemplar.
pub const GATHERED: u8 = 1;

/// Note of a [`Flow`]: its handshake has been charged to its source.
pub const CHARGED: u8 = 2;

/// The hash by which a connection is known, under the secret of the tables.
#[inline(always)]
pub fn hash(seed: &Seed, packet: &Packet) -> u64 {
    let source = keyed(seed, packet.source.high, packet.source.low);
    let both = keyed(seed, source ^ packet.destination.high, packet.destination.low);
    let ports =
        packet.source_port as u64 | (packet.destination_port as u64) << 16 | (packet.protocol as u64) << 32;
    keyed(seed, both, ports)
}

/// Which connections give way to others first; among equals the one that was silent for longest does. None keeps its place whatever
/// comes: then whoever holds them all would have the others go unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Rank {
    /// Its ClientHello has begun, or was read.
    Hello = 0,
    /// It is open, or over QUIC.
    Open = 1,
    /// Nothing came after its SYN.
    HalfOpen = 2,
}

impl Rank {
    /// The time of the entry of a connection that did something now, ticks: as if it was silent for [`HANDSHAKE_NS_MAX`] longer than
    /// those of the rank above.
    #[inline(always)]
    pub const fn time(self, now: u64) -> u64 {
        now.saturating_sub(self as u64 * ticks(HANDSHAKE_NS_MAX))
    }

    /// When the connection of an entry did something last, ticks.
    #[inline(always)]
    pub const fn last(self, time: u64) -> u64 {
        time + self as u64 * ticks(HANDSHAKE_NS_MAX)
    }
}

const _: () = assert!(
    Rank::HalfOpen as u64 * HANDSHAKE_NS_MAX < LONG_IDLE_NS,
    "ranks are told apart as long as entries are"
);

/// Where a segment of a stream stands to what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It begins with the next byte.
    Next,
    /// All of it came before.
    Again,
    /// One byte, the last that came: asks whether the other side is still there (RFC 9293, 3.8.4), and is not to be read.
    KeepAlive,
    /// It begins before the next byte and ends after it.
    Overlapping,
    /// Bytes before it have not come.
    Ahead,
}

impl Order {
    /// Where a segment of `bytes` bytes stands (sequence numbers wrap: RFC 9293, 3.4).
    #[inline(always)]
    pub const fn of(sequence: u32, bytes: u32, next: u32) -> Self {
        let ahead = sequence.wrapping_sub(next) as i32;
        let end_ahead = sequence.wrapping_add(bytes).wrapping_sub(next) as i32;
        if ahead == 0 {
            Self::Next
        } else if ahead > 0 {
            Self::Ahead
        } else if end_ahead == 0 && bytes == 1 {
            Self::KeepAlive
        } else if end_ahead <= 0 {
            Self::Again
        } else {
            Self::Overlapping
        }
    }
}

/// What the main program hands to the one that follows handshakes, and that one's room to work; each CPU has its own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The packet.
    pub packet: Packet,
    /// Its [`crate::packet::Layout`].
    pub layout: u64,
    /// The decision on it.
    pub decision: u64,
    /// Length of its frame.
    pub bytes: u64,
    /// Now, ticks.
    pub now: u64,
    /// The [`crate::generation::Generation`] that it was judged by.
    pub generation: u64,
    /// The keyed hash of the source at the service.
    pub source_hash: u64,
    /// Slot of the fleet that the source belongs to; 0: none.
    pub fleet: u64,
    /// Key of the SYN of the client whose ClientHello is asked about; 0: unknown.
    pub syn_key: u64,
    /// Key of that ClientHello; 0: unknown.
    pub tls_key: u64,
    /// Working copy of a ClientHello.
    pub hello: Hello,
    /// Working copy of a signature.
    pub syn: Syn,
    /// What an exemplar of the bytes would begin with.
    pub exemplar: ExemplarHeader,
    /// Bytes of the frame.
    pub segment: Segment,
}

const _: () = assert!(size_of::<Scratch>().is_multiple_of(8));
const _: () = assert!(
    core::mem::offset_of!(Scratch, segment) + core::mem::offset_of!(Segment, bytes)
        == core::mem::offset_of!(Scratch, exemplar) + EXEMPLAR_CONTENT_START,
    "an exemplar is sent from where it stands"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stand_somewhere_also_where_numbers_wrap() {
        for next in [1000, 0, 3, u32::MAX, u32::MAX - 3] {
            let at = |offset: i32, bytes| Order::of(next.wrapping_add_signed(offset), bytes, next);
            assert_eq!(at(0, 1), Order::Next);
            assert_eq!(at(1, 1), Order::Ahead);
            assert_eq!(at(-10, 10), Order::Again);
            assert_eq!((at(-1, 1), at(-2, 1), at(-2, 2)), (Order::KeepAlive, Order::Again, Order::Again));
            assert_eq!(at(-10, 11), Order::Overlapping);
        }
    }
}
