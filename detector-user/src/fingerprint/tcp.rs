//! One TCP connection, as far as its ClientHello.

use detector_common::syn::Syn;

use super::{
    hello::{DIALOGUE_BYTES_MAX, HELLO_BYTES_MAX, Search, search},
    packet::Tcp,
};
use crate::{
    assembly::{Assembly, Bounds},
    recent::Held,
};

/// What is kept of one direction: a dialogue, then a ClientHello with the headers of its records.
const BOUNDS: Bounds = Bounds { bytes: DIALOGUE_BYTES_MAX + HELLO_BYTES_MAX + 4 * 1024, runs: 64 };

/// Who of the two sends: the one with the lower address and port, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lower,
    Higher,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Lower => Self::Higher,
            Self::Higher => Self::Lower,
        }
    }
}

/// A ClientHello over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The handshake message.
    pub(super) message: Vec<u8>,
    /// Whether each of its segments started where the one before ended.
    pub(super) in_order: bool,
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// The frame that it begins with.
    pub(super) number: u64,
    /// Who asked for it, if that was seen; once the ClientHello is found, who sent it.
    client: Option<Side>,
    /// Signature of the client's SYN.
    pub(super) syn: Option<Syn>,
    /// The sequence number of that SYN.
    syn_sequence: Option<u32>,
    /// Who sent the first segment that was seen.
    first: Option<Side>,
    /// Its ClientHello was found.
    pub(super) has_hello: bool,
    /// Nothing more is expected of it.
    is_done: bool,
    lower: Stream,
    higher: Stream,
}

impl Held for Connection {
    fn held_bytes(&self) -> usize {
        self.lower.assembly.held_bytes() + self.higher.assembly.held_bytes()
    }
}

impl Connection {
    /// Whether a segment asks for another connection between the same two.
    pub(super) fn is_ended_by(&self, segment: &Tcp<'_>) -> bool {
        let is_new = segment.is_syn && !segment.is_ack && self.syn_sequence != Some(segment.sequence);
        is_new && self.first.is_some()
    }

    /// Takes the segment of a frame, and gives the ClientHello that it completes.
    pub(super) fn take(&mut self, side: Side, segment: &Tcp<'_>, number: u64) -> Option<Hello> {
        if self.first.is_none() {
            (self.first, self.number) = (Some(side), number);
        }
        let mut sequence = segment.sequence;
        if segment.is_syn {
            sequence = sequence.wrapping_add(1);
            let client = if segment.is_ack { side.other() } else { side };
            self.client.get_or_insert(client);
            if !segment.is_ack && self.syn_sequence.is_none() {
                self.syn = segment.syn;
                self.syn_sequence = Some(segment.sequence);
            }
            let start = if segment.is_ack { segment.acknowledgement } else { sequence };
            self.stream(client).begin(start);
        }
        if self.is_done || self.client.is_some_and(|client| client != side) {
            return None;
        }
        let hello = self.stream(side).take(sequence, segment.payload, segment.payload_bytes);
        if hello.is_some() {
            (self.client, self.has_hello) = (Some(side), true);
        }
        let is_over = |stream: &Stream| stream.is_over;
        let is_expected = match self.client {
            Some(client) => !is_over(self.stream(client)),
            None => !is_over(&self.lower) || !is_over(&self.higher),
        };
        if !is_expected {
            self.is_done = true;
            (self.lower, self.higher) = (Stream::default(), Stream::default());
        }
        hello
    }

    /// Who asked for the connection: who was seen to, else whose port is no server's, else who was seen first.
    pub(super) fn client_of(&self, lower_port: u16, higher_port: u16) -> Side {
        self.client.unwrap_or_else(|| match lower_port.cmp(&higher_port) {
            std::cmp::Ordering::Less => Side::Higher,
            std::cmp::Ordering::Greater => Side::Lower,
            std::cmp::Ordering::Equal => self.first.unwrap_or(Side::Lower),
        })
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Lower => &mut self.lower,
            Side::Higher => &mut self.higher,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    /// The sequence number of its first byte; of a stream whose start was not seen, the first one that was.
    base: Option<u32>,
    /// Whether that is where the client began.
    is_from_start: bool,
    assembly: Assembly,
    /// Where the search goes on, and how many bytes it takes.
    from: usize,
    needed: usize,
    /// Where the next segment in order starts.
    next: usize,
    /// Where the last segment ends that came elsewhere.
    disordered_end: usize,
    /// There is nothing to find any more.
    is_over: bool,
}

impl Stream {
    /// The client's first byte will have this sequence number.
    fn begin(&mut self, sequence: u32) {
        if self.base.is_none() {
            self.base = Some(sequence);
            self.is_from_start = true;
        }
    }

    fn take(&mut self, sequence: u32, payload: &[u8], payload_bytes: usize) -> Option<Hello> {
        if self.is_over || payload_bytes == 0 {
            return None;
        }
        let base = *self.base.get_or_insert(sequence);
        let distance = sequence.wrapping_sub(base).cast_signed();
        let (offset, payload, end) = match usize::try_from(distance) {
            Ok(offset) => (offset, payload, offset + payload_bytes),
            Err(_) => self.before(distance.unsigned_abs() as usize, sequence, payload, payload_bytes)?,
        };
        if offset != self.next {
            self.disordered_end = self.disordered_end.max(end);
        }
        self.next = self.next.max(end);
        self.assembly.insert(offset, payload, BOUNDS);
        self.search()
    }

    /// A segment that starts so many bytes before the first one: where it starts, what of it counts, and where it ends.
    fn before<'a>(
        &mut self,
        bytes: usize,
        sequence: u32,
        payload: &'a [u8],
        payload_bytes: usize,
    ) -> Option<(usize, &'a [u8], usize)> {
        if self.is_from_start {
            // Sent again, perhaps with more behind, which then comes out of order.
            let end = payload_bytes.saturating_sub(bytes);
            self.disordered_end = self.disordered_end.max(end);
            return Some((0, payload.get(bytes..)?, end));
        }
        if self.assembly.end() + bytes > BOUNDS.bytes {
            return None;
        }
        // The capture begins with segments out of order.
        self.assembly.shift(bytes);
        self.base = Some(sequence);
        (self.from, self.needed) = (0, 0);
        self.next += bytes;
        self.disordered_end = self.next;
        Some((0, payload, payload_bytes))
    }

    fn search(&mut self) -> Option<Hello> {
        let start = self.assembly.start();
        if start.len() < self.needed {
            return None;
        }
        match search(start, self.from) {
            Search::Found { start, message } => {
                self.is_over = true;
                Some(Hello { message, in_order: self.disordered_end <= start })
            }
            Search::NotYet { from, needed } => {
                (self.from, self.needed) = (from, needed);
                self.is_over = needed > BOUNDS.bytes;
                None
            }
            Search::Never => {
                self.is_over = true;
                None
            }
        }
    }
}
