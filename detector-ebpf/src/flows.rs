//! Connections in their handshake: begun, advanced by a segment, ended.

use aya_ebpf::bindings::xdp_md;
use detector_common::{
    counters::HandshakeEvent,
    flow::{self, Flow, Order, Scratch, Stage},
    hello::{Phase, SEGMENT_BYTES_MAX, Transport},
    limits::{OTHER_SEGMENTS_MAX, STRAYED_SEGMENTS_MAX},
    table::{Key, Way},
};

use crate::{
    account,
    atomic::{self, word},
    clock,
    frame::{ACK, FIN, RST, Segment},
    hello,
    maps::FLOW_STATES,
    source::{self, Created, Place, Table},
};

/// A connection that is followed.
pub(crate) struct Followed {
    entry: *mut Way,
    state: *mut Flow,
    /// What the state's owner says while nobody is at work on it.
    owner: u64,
}

/// How a connection begins.
pub(crate) struct Start {
    /// Number of the client's next byte.
    pub(crate) next_sequence: u32,
    /// Key of the SYN; 0: it was not seen.
    pub(crate) syn_key: u64,
    /// When it came.
    pub(crate) syn_ns: u64,
}

/// The lowest bit of a state's owner says that a CPU is at work on it. No flow's key has it.
const LOCKED: u64 = 1;

impl Followed {
    #[inline(always)]
    fn at(place: &Place, attempt: usize, key: &Key) -> Option<Self> {
        let state = FLOW_STATES.get_ptr_mut(source::number_of(place, attempt))?;
        Some(Self { entry: source::way(place, attempt), state, owner: key.prefix })
    }

    /// Whether the state is ours now; it was `seen`.
    #[inline(always)]
    fn lock(&self, seen: u64) -> bool {
        let is_locked =
            seen & LOCKED == 0 && atomic::swap(word!(self.state, owner), seen, self.owner | LOCKED).is_ok();
        if !is_locked {
            account::handshake_event(HandshakeEvent::FlowRaced);
        }
        is_locked
    }

    #[inline(always)]
    fn unlock(&self) {
        atomic::store(word!(self.state, owner), self.owner);
    }

    /// The entry is not given to another connection before this time is over.
    #[inline(always)]
    fn keep(&self, now: u64) {
        atomic::store(word!(self.entry, packets_tat), flow::deadline(now));
    }
}

/// The state of a connection.
#[inline(always)]
pub(crate) fn find(place: &Place, key: &Key) -> Option<Followed> {
    let attempt = source::attempt_of(place, key)?;
    Followed::at(place, attempt, key)
}

/// Begins to follow a connection of a source, whose entry is `way`, or begins anew.
#[inline(always)]
pub(crate) fn open(place: &Place, key: &Key, way: *mut Way, now: u64, start: &Start) -> Option<Followed> {
    let known = source::attempt_of(place, key);
    let attempt = match known {
        Some(attempt) => attempt,
        None => match source::create(Table::Flows, key, now, 0, 0) {
            Created::Made(attempt) | Created::Met(attempt) => attempt,
            Created::Full => {
                account::handshake_event(HandshakeEvent::FlowsFull);
                return None;
            }
        },
    };
    let flow = Followed::at(place, attempt, key)?;
    let seen = atomic::load(word!(flow.state, owner));
    if !flow.lock(seen) {
        return None;
    }
    // SAFETY: locked.
    let state = unsafe { &mut *flow.state };
    // A SYN that comes again does not say when the connection began.
    let is_again = known.is_some() && state.next_sequence == start.next_sequence;
    state.syn_ns = if is_again { 0 } else { start.syn_ns };
    atomic::store(word!(flow.state, ack_ns), 0);
    atomic::store(word!(flow.state, hello_ns), 0);
    atomic::store(word!(flow.state, tls_key), 0);
    state.syn_key = start.syn_key;
    hello::start(&mut state.hello);
    state.next_sequence = start.next_sequence;
    state.stage = Stage::Hello as u8;
    state.other_segments = 0;
    state.strayed_segments = 0;
    flow.unlock();
    flow.keep(now);
    if known.is_none() {
        source::count_pending(way, true);
    }
    Some(flow)
}

/// What a segment did to a handshake.
enum Outcome {
    /// It goes on.
    GoOn,
    /// Its ClientHello has been read.
    Read,
    /// It is over.
    Over,
    /// It is over, and its ClientHello has no key.
    Unknown(HandshakeEvent),
}

/// Takes a segment of a connection. The key of the ClientHello that it completes, else 0.
#[inline(always)]
pub(crate) fn advance(
    ctx: *mut xdp_md,
    scratch: *mut Scratch,
    flow: &Followed,
    way: *mut Way,
    segment: &Segment,
) -> u64 {
    if !flow.lock(flow.owner) {
        return 0;
    }
    // SAFETY: locked.
    let state = unsafe { &mut *flow.state };
    let outcome = take(ctx, scratch, state, segment);
    flow.unlock();
    // SAFETY: see `handshake::hand_over`.
    let scratch = unsafe { &*scratch };
    match outcome {
        Outcome::GoOn => flow.keep(scratch.now),
        Outcome::Read => {
            flow.keep(scratch.now);
            account::handshake_event(HandshakeEvent::HelloRead);
            return scratch.hello.key(Transport::Tcp).unwrap_or(0);
        }
        Outcome::Over => close(flow, way),
        Outcome::Unknown(event) => {
            account::handshake_event(event);
            close(flow, way);
        }
    }
    0
}

#[inline(always)]
fn close(flow: &Followed, way: *mut Way) {
    source::release(flow.entry, source::meta(flow.entry));
    source::count_pending(way, false);
}

/// What a segment does to a state that is locked.
#[inline(always)]
fn take(ctx: *mut xdp_md, scratch: *mut Scratch, state: &mut Flow, segment: &Segment) -> Outcome {
    if state.ack_ns == 0 && segment.flags & ACK != 0 {
        state.ack_ns = clock::precise_ns();
    }
    let order = Order::of(segment.sequence, segment.payload, state.next_sequence);
    if segment.payload != 0 {
        let is_after = matches!(order, Order::Next | Order::Ahead);
        if state.stage == Stage::Finish as u8 {
            return if is_after { Outcome::Over } else { end_of(state, segment) };
        }
        match order {
            Order::Next => return read(ctx, scratch, state, segment),
            Order::Again => {}
            Order::Overlapping => return Outcome::Unknown(HandshakeEvent::HelloStrayed),
            Order::Ahead => {
                state.strayed_segments += 1;
                if state.strayed_segments > STRAYED_SEGMENTS_MAX {
                    return Outcome::Unknown(HandshakeEvent::HelloStrayed);
                }
            }
        }
    }
    end_of(state, segment)
}

/// Whether a segment ends its connection.
#[inline(always)]
fn end_of(state: &Flow, segment: &Segment) -> Outcome {
    if segment.flags & (FIN | RST) == 0 {
        return Outcome::GoOn;
    }
    let is_unfinished = state.stage == Stage::Hello as u8 && state.hello.has_begun();
    if is_unfinished { Outcome::Unknown(HandshakeEvent::HelloUnfinished) } else { Outcome::Over }
}

/// Reads a segment that brings the client's next byte.
#[inline(always)]
fn read(ctx: *mut xdp_md, scratch: *mut Scratch, state: &mut Flow, segment: &Segment) -> Outcome {
    let Some(rest) = hello::read(ctx, scratch, &mut state.hello, segment) else {
        return Outcome::Unknown(HandshakeEvent::HelloTooLong);
    };
    let end = segment.sequence.wrapping_add(segment.payload);
    match state.hello.phase() {
        Phase::Complete => {
            state.stage = Stage::Finish as u8;
            // What is left of the message may still come; what comes behind it is the client's answer to the server.
            state.next_sequence = end.wrapping_sub(rest).wrapping_add(state.hello.message_left);
            state.hello_ns = clock::precise_ns();
            return Outcome::Read;
        }
        Phase::NotHello => {
            state.other_segments += 1;
            if state.other_segments > OTHER_SEGMENTS_MAX {
                account::handshake_event(HandshakeEvent::NoHello);
                return Outcome::Over;
            }
            hello::start(&mut state.hello);
        }
        Phase::Malformed => return Outcome::Unknown(HandshakeEvent::HelloMalformed),
        Phase::TooLong => return Outcome::Unknown(HandshakeEvent::HelloTooLong),
        _ if segment.payload as usize > SEGMENT_BYTES_MAX => {
            return Outcome::Unknown(HandshakeEvent::HelloTooLong);
        }
        _ => {}
    }
    state.next_sequence = end;
    end_of(state, segment)
}
