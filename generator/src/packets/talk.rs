//! A client's side of one connection: which packets it still has to send, and what it does when one is lost.

use std::collections::VecDeque;

use super::frame::{ACK, Ends, FIN, PSH, SYN, Segment, tcp, udp};
use super::shape;
use crate::deed::{Connect, Says, What};

const MS_NS: u64 = 1_000_000;

/// Bytes of a full segment.
const SEGMENT_BYTES: u32 = 1400;

/// Bytes of a response that a client acknowledges at a time.
const ACKNOWLEDGED_BYTES: u32 = 2 * SEGMENT_BYTES;

/// Bytes of ChangeCipherSpec and Finished.
const FINISHED_BYTES: u32 = 74;

/// Bytes of the server's part of a handshake.
const SERVER_HELLO_BYTES: u32 = 2900;

/// A packet is sent so often before a client gives up.
const ATTEMPTS_MAX: u32 = 3;

/// How long it waits before it sends one again, the first time; then twice that.
const AGAIN_SYN_NS: u64 = 1000 * MS_NS;
const AGAIN_NS: u64 = 300 * MS_NS;

/// Between two packets of one burst.
const BURST_NS: u64 = MS_NS / 20;

/// A packet to come.
#[derive(Clone, Copy, Debug)]
enum Packet {
    Syn,
    Hello,
    Initial,
    /// So many bytes, which acknowledge so many more of the server's.
    Bytes {
        bytes: u32,
        acknowledges: u32,
        ends_exchange: bool,
    },
    Fin,
}

impl Packet {
    const fn bytes(bytes: u32) -> Self {
        Self::Bytes { bytes, acknowledges: 0, ends_exchange: false }
    }

    const fn acknowledging(bytes: u32) -> Self {
        Self::Bytes { bytes: 0, acknowledges: bytes, ends_exchange: false }
    }

    /// The end of a handshake.
    const FINISHED: Self =
        Self::Bytes { bytes: FINISHED_BYTES, acknowledges: SERVER_HELLO_BYTES, ends_exchange: false };
}

#[derive(Clone, Copy, Debug)]
struct Step {
    packet: Packet,
    /// After the packet before it.
    after_ns: u64,
    not_before_ns: u64,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) is_done: bool,
    /// One of its packets, or of the handshake before it, was dropped.
    pub(super) is_hurt: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Talk {
    ends: Ends,
    /// Its SYN and ClientHello; `None`: it began before anybody looked, or goes over QUIC.
    syn: Option<shape::Syn>,
    hello: Vec<u8>,
    initial: Vec<u8>,
    is_quic: bool,
    rtt_ns: u64,
    sequence: u32,
    acknowledged: u32,
    steps: VecDeque<Step>,
    /// Attempts at the first step so far.
    attempts: u32,
    /// When the last packet was sent.
    now_ns: u64,
    /// No request was sent yet.
    is_fresh: bool,
    is_hurt: bool,
    is_broken: bool,
    has_ended: bool,
}

impl Talk {
    /// One that is there already.
    pub(super) fn known(ends: Ends, number: u64) -> Self {
        Self {
            ends,
            syn: None,
            hello: Vec::new(),
            initial: Vec::new(),
            is_quic: false,
            rtt_ns: 20 * MS_NS,
            sequence: (number as u32).wrapping_mul(0x9e37_79b1) | 1,
            acknowledged: (number as u32).wrapping_mul(0x85eb_ca77) | 1,
            steps: VecDeque::new(),
            attempts: 0,
            now_ns: 0,
            is_fresh: false,
            is_hurt: false,
            is_broken: false,
            has_ended: false,
        }
    }

    /// One that begins over TCP.
    pub(super) fn tcp(ends: Ends, number: u64, connect: &Connect, server_name: &str, at_ns: u64) -> Self {
        let syn = shape::Syn::of(connect.syn_key);
        let ns = |ms: f64| (ms * MS_NS as f64) as u64;
        let [rtt_ns, hello_ns, finish_ns] =
            [connect.delays.rtt, connect.delays.hello_gap, connect.delays.finish_gap].map(ns);
        let hello = match connect.says {
            Says::Hello => shape::hello(connect.tls_key, server_name),
            Says::Unreadable => shape::unreadable(shape::hello(connect.tls_key, server_name)),
            Says::Nothing => Vec::new(),
        };
        let ends = Ends { hops: syn.hops, ..ends };
        let mut talk = Self { syn: Some(syn), hello, rtt_ns, is_fresh: true, ..Self::known(ends, number) };
        talk.then(Packet::Syn, 0, at_ns);
        talk.then(Packet::acknowledging(1), rtt_ns, 0);
        if connect.says != Says::Nothing {
            talk.then(Packet::Hello, hello_ns, 0);
            talk.then(Packet::FINISHED, finish_ns, 0);
        }
        talk
    }

    /// One that begins over QUIC.
    pub(super) fn quic(ends: Ends, number: u64, key: u64, at_ns: u64) -> Self {
        let initial = shape::initial(key, number);
        let mut talk = Self { initial, is_quic: true, is_fresh: true, ..Self::known(ends, number) };
        talk.then(Packet::Initial, 0, at_ns);
        talk.then(Packet::FINISHED, talk.rtt_ns, 0);
        talk
    }

    /// Goes on with something, not before a time; an exchange that nobody can make any more ends at once.
    pub(super) fn add(&mut self, what: &What, not_before_ns: u64) -> Option<Ended> {
        match *what {
            What::Exchange { .. } if self.is_broken => return Some(Ended { is_done: false, is_hurt: true }),
            What::Exchange { request_bytes, response_bytes } => {
                self.exchange(request_bytes, response_bytes, not_before_ns);
            }
            What::End if self.is_broken || self.is_quic => self.has_ended = true,
            What::End => self.then(Packet::Fin, self.rtt_ns, not_before_ns),
            What::Connect(_) | What::ConnectQuic { .. } => {}
        }
        None
    }

    /// The first request comes with the end of the handshake, as a part of it.
    fn exchange(&mut self, request_bytes: u32, response_bytes: u32, not_before_ns: u64) {
        let (mut left, mut after_ns, mut at_ns) = (request_bytes, self.rtt_ns, not_before_ns);
        if self.is_fresh {
            self.is_fresh = false;
            (left, after_ns, at_ns) = (request_bytes.saturating_sub(FINISHED_BYTES).max(6), BURST_NS, 0);
        }
        while left > 0 {
            let bytes = left.min(SEGMENT_BYTES);
            self.then(Packet::bytes(bytes), after_ns, at_ns);
            (left, after_ns, at_ns) = (left - bytes, BURST_NS, 0);
        }
        let mut left = response_bytes.max(1);
        let mut after_ns = self.rtt_ns;
        while left > 0 {
            let bytes = left.min(ACKNOWLEDGED_BYTES);
            left -= bytes;
            let packet = Packet::Bytes { bytes: 0, acknowledges: bytes, ends_exchange: left == 0 };
            self.then(packet, after_ns, 0);
            after_ns = BURST_NS;
        }
    }

    fn then(&mut self, packet: Packet, after_ns: u64, not_before_ns: u64) {
        self.steps.push_back(Step { packet, after_ns, not_before_ns });
    }

    /// When the next packet is sent; `None`: nothing is to be sent.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let step = self.steps.front()?;
        let wait_ns = match (self.attempts, step.packet) {
            (0, _) => return Some(step.not_before_ns.max(self.now_ns + step.after_ns)),
            (attempts, Packet::Syn) => AGAIN_SYN_NS << (attempts - 1),
            (attempts, _) => AGAIN_NS << (attempts - 1),
        };
        Some(self.now_ns + wait_ns)
    }

    /// Whether nothing will come of it any more.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next packet as a frame. `payload`: what its bytes are, as many as a segment has.
    pub(super) fn frame(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let step = self.steps.front()?;
        Some(match step.packet {
            Packet::Syn => {
                let (window, options) =
                    self.syn.as_ref().map_or((0, &[][..]), |syn| (syn.window, &syn.options));
                let (sequence, payload) = (self.sequence, &[][..]);
                tcp(&self.ends, &Segment { sequence, acknowledged: 0, flags: SYN, window, options, payload })
            }
            Packet::Initial => udp(&self.ends, &self.initial),
            Packet::Hello => self.segment(ACK | PSH, self.acknowledged, &self.hello),
            // The shortest packet of QUIC has a header and what hides it.
            Packet::Bytes { bytes, .. } if self.is_quic => {
                udp(&self.ends, &payload[..bytes.max(30) as usize])
            }
            Packet::Bytes { bytes, acknowledges, .. } => {
                let flags = if bytes > 0 { ACK | PSH } else { ACK };
                self.segment(flags, self.acknowledged.wrapping_add(acknowledges), &payload[..bytes as usize])
            }
            Packet::Fin => self.segment(ACK | FIN, self.acknowledged, &[]),
        })
    }

    fn segment(&self, flags: u8, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
        let sequence = self.sequence;
        tcp(&self.ends, &Segment { sequence, acknowledged, flags, window: 502, options: &[], payload })
    }

    /// The next packet was sent at a time, and passed or not.
    pub(super) fn sent(&mut self, at_ns: u64, has_passed: bool, mut ended: impl FnMut(Ended)) {
        self.now_ns = at_ns;
        if !has_passed {
            self.is_hurt = true;
            self.attempts += 1;
            if self.attempts == ATTEMPTS_MAX {
                self.give_up(ended);
            }
            return;
        }
        self.attempts = 0;
        let Some(step) = self.steps.pop_front() else { return };
        match step.packet {
            Packet::Syn => self.sequence = self.sequence.wrapping_add(1),
            Packet::Hello => self.sequence = self.sequence.wrapping_add(self.hello.len() as u32),
            Packet::Initial => {}
            Packet::Bytes { bytes, acknowledges, ends_exchange } => {
                self.sequence = self.sequence.wrapping_add(bytes);
                self.acknowledged = self.acknowledged.wrapping_add(acknowledges);
                if ends_exchange {
                    ended(Ended { is_done: true, is_hurt: self.is_hurt });
                    self.is_hurt = false;
                }
            }
            Packet::Fin => self.has_ended = true,
        }
    }

    /// Nothing that was to come on this connection does.
    fn give_up(&mut self, mut ended: impl FnMut(Ended)) {
        self.is_broken = true;
        for step in std::mem::take(&mut self.steps) {
            match step.packet {
                Packet::Bytes { ends_exchange: true, .. } => ended(Ended { is_done: false, is_hurt: true }),
                Packet::Fin => self.has_ended = true,
                _ => {}
            }
        }
    }
}
