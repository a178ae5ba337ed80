//! Connections in their handshake: begun, advanced by a segment, ended.

use aya_ebpf::bindings::xdp_md;
use detector_common::{
    client::size_bin,
    counters::HandshakeEvent,
    exchange::{ClientSegment, Sizes},
    fingerprint::Kind,
    flow::{self, CHARGED, Flow, GATHERED, Order, Scratch, Stage},
    hello::{Phase, SEGMENT_BYTES_MAX, Transport},
    limits::{
        EXCHANGE_SAMPLE, EXCHANGE_SEGMENTS_MAX, EXEMPLAR_SAMPLE, OTHER_SEGMENTS_MAX, STRAYED_SEGMENTS_MAX,
    },
    packet::Layout,
    table::{Key, Meta, Way},
};

use crate::{
    account,
    admission::{self, Asked},
    atomic::{self, word},
    client, clock, exemplar, fingerprint,
    frame::{ACK, FIN, RST, Segment},
    hello,
    judge::Packed,
    maps::FLOW_STATES,
    pending,
    sighting::{CONNECTION, FOLLOWED, HANDSHAKE, NOT_KNOWN, Sighting, bin_between},
    source::{self, Created, Place, Table},
};

/// A connection that is followed.
pub(crate) struct Followed {
    entry: *mut Way,
    /// Its meta word when it was found: if it has changed hands since, it is not released.
    meta: Meta,
    state: *mut Flow,
    /// What the state's owner says while nobody is at work on it.
    owner: u64,
}

/// How a connection begins.
pub(crate) struct Start {
    /// Number of the client's next byte.
    pub(crate) next_sequence: u32,
    /// Key of the SYN, which is in the scratch; 0: it was not seen.
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
        let entry = source::way(place, attempt);
        let meta = source::meta_of_owner(entry, key)?;
        Some(Self { entry, meta, state, owner: key.prefix })
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

    /// The entry is not given to another connection before the time of a handshake is over.
    #[inline(always)]
    fn keep(&self, now: u64) {
        atomic::store(word!(self.entry, packets_tat), flow::deadline(now));
        atomic::store(word!(self.entry, connections_tat), 0);
    }

    /// The entry is given to another connection where there is no room else, the oldest first.
    #[inline(always)]
    fn lend(&self, now: u64) {
        atomic::store(word!(self.entry, packets_tat), now);
    }
}

/// The state of a connection.
#[inline(always)]
pub(crate) fn find(place: &Place, key: &Key) -> Option<Followed> {
    let attempt = source::attempt_in(Table::Flows, key)?;
    Followed::at(place, attempt, key)
}

/// Begins to follow a connection of a source, whose entry is `way`, or begins anew.
#[inline(always)]
pub(crate) fn open(
    place: &Place,
    key: &Key,
    way: *mut Way,
    scratch: *mut Scratch,
    start: &Start,
) -> Option<Followed> {
    // SAFETY: see `handshake::hand_over`.
    let now = unsafe { (*scratch).now };
    let known = source::attempt_in(Table::Flows, key);
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
    state.notes = 0;
    // Its SYN.
    state.exchanges.segments = (start.syn_ns != 0) as u16;
    flow.unlock();
    if start.syn_ns == 0 {
        flow.keep(now);
    } else {
        // Only a SYN so far.
        flow.lend(now);
        atomic::store(word!(flow.entry, connections_tat), source::HALF_OPEN);
    }
    if known.is_none() {
        pending::count(way, true);
    }
    Some(flow)
}

/// What a segment did to a handshake.
enum Outcome {
    /// It goes on.
    GoOn,
    /// Its ClientHello has been read.
    Read(Read),
    /// The client's first bytes after the ClientHello came.
    Finished {
        /// Key of the SYN; 0: it was not seen.
        syn_key: u64,
        /// Key of the ClientHello.
        tls_key: u64,
        /// See [`Sighting`].
        finish_delay: u8,
        /// The connection is followed further.
        is_followed: bool,
    },
    /// Something came after the handshake.
    Exchanged {
        /// Key of the SYN; 0: it was not seen.
        syn_key: u64,
        /// Key of the ClientHello.
        tls_key: u64,
        /// The exchange that ended.
        ended: Option<Sizes>,
        /// The connection is followed no longer, after so many segments; 0: it is.
        segments: u16,
    },
    /// It may not go on: it is as if the segment had not come.
    Refused,
    /// The same, of a ClientHello that is complete.
    RefusedHello {
        /// Its key; 0: it has none.
        tls_key: u64,
    },
    /// It is over.
    Over,
    /// It is over, and has no ClientHello.
    NoHello {
        /// Key of the SYN; 0: it was not seen.
        syn_key: u64,
    },
    /// It is over, and its ClientHello has no key.
    Unknown(HandshakeEvent),
}

/// A ClientHello that was read.
struct Read {
    tls_key: u64,
    /// Key of the SYN; 0: it was not seen.
    syn_key: u64,
    sighting: Sighting,
    /// Whether it came in several segments, which were gathered.
    is_gathered: bool,
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
    let outcome = take(ctx, scratch, flow.owner, state, segment);
    flow.unlock();
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &*scratch };
    let service = Packed::unpack(room.decision).service;
    match outcome {
        Outcome::GoOn | Outcome::Refused => flow.keep(room.now),
        Outcome::RefusedHello { tls_key } => {
            flow.keep(room.now);
            // So that what is blocked is seen, and does not give way to what is not.
            let sighting = Sighting { counts: CONNECTION, variant: 0, ..Sighting::EMPTY };
            if tls_key != 0 {
                fingerprint::note(Kind::Tls, tls_key, service, room.source_hash, room.now, sighting);
            }
        }
        Outcome::Read(read) => {
            flow.keep(room.now);
            account::handshake_event(HandshakeEvent::HelloRead);
            tell(scratch, flow, &read);
            return read.tls_key;
        }
        Outcome::Finished { syn_key, tls_key, finish_delay, is_followed } => {
            let counts = if is_followed { FOLLOWED } else { 0 };
            let sighting = Sighting { finish_delay, counts, ..Sighting::EMPTY };
            fingerprint::note(Kind::Tls, tls_key, service, room.source_hash, room.now, sighting);
            client::note(syn_key, tls_key, sighting);
            if is_followed {
                flow.lend(room.now);
            } else {
                close(scratch, flow, way);
            }
        }
        Outcome::Exchanged { syn_key, tls_key, ended, segments } => {
            let mut sighting = Sighting { segments: at_most_255(segments), ..Sighting::EMPTY };
            if let Some(Sizes { request, response }) = ended {
                sighting.request_size = size_bin(request as u64) as u8;
                sighting.response_size = size_bin(response as u64) as u8;
            }
            if ended.is_some() || segments != 0 {
                client::note(syn_key, tls_key, sighting);
            }
            if segments == 0 {
                flow.lend(room.now);
            } else {
                close(scratch, flow, way);
            }
        }
        Outcome::Over => close(scratch, flow, way),
        Outcome::NoHello { syn_key } => {
            account::handshake_event(HandshakeEvent::NoHello);
            client::note(syn_key, 0, Sighting { counts: CONNECTION, ..Sighting::EMPTY });
            close(scratch, flow, way);
        }
        Outcome::Unknown(event) => {
            account::handshake_event(event);
            close(scratch, flow, way);
        }
    }
    0
}

/// What a sighting can say of a count.
#[inline(always)]
fn at_most_255(count: u16) -> u8 {
    if count > 255 { 255 } else { count as u8 }
}

/// Counts a ClientHello that was read, and sends it where it is new.
#[inline(always)]
fn tell(scratch: *mut Scratch, flow: &Followed, read: &Read) {
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &*scratch };
    let service = Packed::unpack(room.decision).service;
    let Read { tls_key, syn_key, sighting, is_gathered } = *read;
    client::note(syn_key, tls_key, sighting);
    let is_new = fingerprint::note(Kind::Tls, tls_key, service, room.source_hash, room.now, sighting);
    let is_sample = flow.owner >> 32 & (EXEMPLAR_SAMPLE - 1) == 0;
    if is_new || is_sample {
        if is_gathered {
            exemplar::send_gathered(scratch, flow.owner, tls_key, syn_key);
        } else {
            exemplar::send(scratch, Kind::Tls, tls_key, syn_key);
        }
    }
    if syn_key == 0 {
        return;
    }
    let sighting = Sighting { variant: NOT_KNOWN, ..sighting };
    fingerprint::note(Kind::Syn, syn_key, service, room.source_hash, room.now, sighting);
}

/// Ends a connection, and counts its segments for the fingerprints that it has.
#[inline(always)]
fn close(scratch: *mut Scratch, flow: &Followed, way: *mut Way) {
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &*scratch };
    let service = Packed::unpack(room.decision).service;
    // SAFETY: read without its lock: another CPU may count one more.
    let state = unsafe { &*flow.state };
    let sighting = Sighting { segments: at_most_255(state.exchanges.segments), ..Sighting::EMPTY };
    for (kind, key) in [(Kind::Syn, state.syn_key), (Kind::Tls, state.tls_key)] {
        if key != 0 {
            fingerprint::note(kind, key, service, room.source_hash, room.now, sighting);
        }
    }
    // Free at once, not when its time is over.
    if source::meta(flow.entry) == flow.meta {
        atomic::store(word!(flow.entry, packets_tat), 0);
        source::release(flow.entry, flow.meta);
    }
    pending::count(way, false);
}

/// What a segment does to a state that is locked.
#[inline(always)]
fn take(ctx: *mut xdp_md, scratch: *mut Scratch, owner: u64, state: &mut Flow, segment: &Segment) -> Outcome {
    if state.ack_ns == 0 && segment.flags & ACK != 0 {
        state.ack_ns = clock::precise_ns();
    }
    state.exchanges.segments = state.exchanges.segments.saturating_add(1);
    let order = Order::of(segment.sequence, segment.payload, state.next_sequence);
    let is_after = segment.payload != 0 && matches!(order, Order::Next | Order::Ahead);
    if state.stage == Stage::Exchange as u8 {
        return exchange(state, segment, is_after);
    }
    if segment.payload != 0 {
        if state.stage == Stage::Finish as u8 {
            return if is_after { finish(owner, state, segment) } else { end_of(state, segment) };
        }
        match order {
            Order::Next => return read(ctx, scratch, owner, state, segment),
            // It may be made to look so, by a SYN or bytes that the server does not take: so it is charged, once, like any other.
            Order::Again if !admits(state, 0) => return Outcome::Refused,
            // Whatever byte it has, but for the first one of a ClientHello.
            Order::KeepAlive if begins_hello(scratch) && !admits(state, 0) => return Outcome::Refused,
            Order::Again | Order::KeepAlive => {}
            Order::Overlapping => return unknown(state, HandshakeEvent::HelloStrayed),
            Order::Ahead => {
                // Where it is the rest of a ClientHello, this program does not see when the server has all of it.
                if !admits(state, 0) {
                    return Outcome::Refused;
                }
                state.strayed_segments += 1;
                if state.strayed_segments > STRAYED_SEGMENTS_MAX {
                    return Outcome::Unknown(HandshakeEvent::HelloStrayed);
                }
            }
        }
    }
    end_of(state, segment)
}

/// Whether the segment in the scratch may begin a ClientHello.
#[inline(always)]
fn begins_hello(scratch: *mut Scratch) -> bool {
    // SAFETY: see `handshake::hand_over`.
    Layout::unpack(unsafe { (*scratch).layout }).begins_handshake
}

/// The client's first bytes after its ClientHello. A sample of connections is followed further.
#[inline(always)]
fn finish(owner: u64, state: &mut Flow, segment: &Segment) -> Outcome {
    let now_ns = clock::precise_ns();
    let is_followed = owner >> 20 & (EXCHANGE_SAMPLE - 1) == 0 && segment.flags & (FIN | RST) == 0;
    if is_followed {
        state.stage = Stage::Exchange as u8;
        state.next_sequence = segment.sequence.wrapping_add(segment.payload);
        let (bytes, acknowledged) = (segment.payload, segment.acknowledged);
        state.exchanges.begin(&ClientSegment { at_ns: now_ns, bytes, acknowledged });
    }
    let (syn_key, tls_key) = (state.syn_key, state.tls_key);
    let finish_delay = bin_between(state.hello_ns, now_ns);
    Outcome::Finished { syn_key, tls_key, finish_delay, is_followed }
}

/// A segment after the handshake; `is_after`: it brings bytes that did not come before.
#[inline(always)]
fn exchange(state: &mut Flow, segment: &Segment, is_after: bool) -> Outcome {
    let bytes = if is_after { segment.payload } else { 0 };
    if is_after {
        state.next_sequence = segment.sequence.wrapping_add(segment.payload);
    }
    // A reset may acknowledge nothing.
    let is_ack = segment.flags & ACK != 0;
    let acknowledged = if is_ack { segment.acknowledged } else { state.exchanges.acknowledged };
    let next = ClientSegment { at_ns: clock::precise_ns(), bytes, acknowledged };
    let round_trip_ns = if state.syn_ns == 0 { 0 } else { state.ack_ns.wrapping_sub(state.syn_ns) };
    let mut ended = state.exchanges.take(&next, round_trip_ns);
    let is_over = segment.flags & (FIN | RST) != 0 || state.exchanges.segments >= EXCHANGE_SEGMENTS_MAX;
    let segments = if is_over { state.exchanges.segments } else { 0 };
    if is_over && ended.is_none() {
        ended = state.exchanges.end();
    }
    Outcome::Exchanged { syn_key: state.syn_key, tls_key: state.tls_key, ended, segments }
}

/// Whether a handshake may go on, whose ClientHello has this key; 0: it has none. It is charged once.
#[inline(always)]
fn admits(state: &mut Flow, tls_key: u64) -> bool {
    let is_charged = state.notes & CHARGED != 0;
    let goes_on = admission::admits(Asked::Handshake { syn_key: state.syn_key, tls_key, is_charged });
    if goes_on {
        state.notes |= CHARGED;
    }
    goes_on
}

/// A handshake whose ClientHello cannot be read. It is charged as others are: else it would be a way around the budget.
#[inline(always)]
fn unknown(state: &mut Flow, event: HandshakeEvent) -> Outcome {
    if admits(state, 0) { Outcome::Unknown(event) } else { Outcome::Refused }
}

/// Whether a segment ends its connection. If it does so inside a ClientHello, that is charged: the server may not take it for an end.
#[inline(always)]
fn end_of(state: &mut Flow, segment: &Segment) -> Outcome {
    if segment.flags & (FIN | RST) == 0 {
        return Outcome::GoOn;
    }
    let is_unfinished = state.stage == Stage::Hello as u8 && state.hello.has_begun();
    if is_unfinished { unknown(state, HandshakeEvent::HelloUnfinished) } else { Outcome::Over }
}

/// Reads a segment that brings the client's next byte.
#[inline(always)]
fn read(ctx: *mut xdp_md, scratch: *mut Scratch, owner: u64, state: &mut Flow, segment: &Segment) -> Outcome {
    let Some(rest) = hello::read(ctx, scratch, &state.hello, segment) else {
        return unknown(state, HandshakeEvent::HelloTooLong);
    };
    // SAFETY: see `handshake::hand_over`.
    let hello = unsafe { &(*scratch).hello };
    let phase = hello.phase();
    let unread = match phase {
        Phase::Malformed => Some(HandshakeEvent::HelloMalformed),
        Phase::TooLong => Some(HandshakeEvent::HelloTooLong),
        Phase::Complete | Phase::NotHello => None,
        _ if segment.payload as usize > SEGMENT_BYTES_MAX => Some(HandshakeEvent::HelloTooLong),
        _ => None,
    };
    // Before anything is kept: what is refused is sent again, and asked again.
    if let Some(event) = unread {
        return unknown(state, event);
    }
    if matches!(phase, Phase::Complete) {
        let tls_key = hello.key(Transport::Tcp).unwrap_or(0);
        if !admits(state, tls_key) {
            return Outcome::RefusedHello { tls_key };
        }
    }
    hello::copy(hello, &mut state.hello);
    let end = segment.sequence.wrapping_add(segment.payload);
    match phase {
        Phase::Complete => {
            state.stage = Stage::Finish as u8;
            // What is left of the message may still come; what comes behind it is the client's answer to the server.
            state.next_sequence = end.wrapping_sub(rest).wrapping_add(state.hello.message_left);
            state.hello_ns = clock::precise_ns();
            state.tls_key = state.hello.key(Transport::Tcp).unwrap_or(0);
            let is_gathered = state.notes & GATHERED != 0;
            if is_gathered {
                exemplar::gather(ctx, owner, segment, false);
            }
            let sighting = Sighting {
                round_trip: bin_between(state.syn_ns, state.ack_ns),
                hello_delay: bin_between(state.ack_ns, state.hello_ns),
                variant: state.hello.variant & 0xf,
                counts: HANDSHAKE,
                ..Sighting::EMPTY
            };
            let (tls_key, syn_key) = (state.tls_key, state.syn_key);
            return Outcome::Read(Read { tls_key, syn_key, sighting, is_gathered });
        }
        Phase::NotHello => {
            state.other_segments += 1;
            if state.other_segments > OTHER_SEGMENTS_MAX {
                return Outcome::NoHello { syn_key: state.syn_key };
            }
            hello::start(&mut state.hello);
            state.notes &= !GATHERED;
        }
        _ => {
            exemplar::gather(ctx, owner, segment, state.notes & GATHERED == 0);
            state.notes |= GATHERED;
        }
    }
    state.next_sequence = end;
    end_of(state, segment)
}
