//! Connections in their handshake: begun, advanced by a segment, ended.

use aya_ebpf::bindings::xdp_md;
use detector_common::{
    client::size_bin,
    counters::HandshakeEvent,
    exchange::{ClientSegment, Sizes, is_closing_alert},
    fingerprint::Kind,
    flow::{CHARGED, Flow, GATHERED, Order, Rank, Scratch, Stage},
    hello::{Phase, Transport},
    limits::{
        EXCHANGE_SAMPLE, EXCHANGE_SEGMENTS_MAX, EXEMPLAR_SAMPLE, OTHER_SEGMENTS_MAX, STRAYED_SEGMENTS_MAX,
    },
    packet::Layout,
    segment::SEGMENT_BYTES_MAX,
    table::Key,
    way::{Meta, Way},
};

use crate::{
    account,
    admission::{self, Asked, Part},
    atomic::{self, word},
    client, clock, exemplar, fingerprint,
    frame::{ACK, FIN, RST, Segment},
    hello,
    judge::Packed,
    maps::FLOW_STATES,
    pending,
    sighting::{CONNECTION, FOLLOWED, HANDSHAKE, NOT_KNOWN, Sighting, bin_between},
    source::{self, BEYOND, Created, HALF_OPEN, Owner, Place, Table},
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

    /// Notes that the connection did something now; `mark`: [`HALF_OPEN`], [`BEYOND`] or 0.
    #[inline(always)]
    fn date(&self, rank: Rank, mark: u64, now: u64) {
        atomic::store(word!(self.entry, packets_tat), rank.time(now));
        atomic::store(word!(self.entry, connections_tat), mark);
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
    let (attempt, is_made) = match source::attempt_in(Table::Flows, key) {
        Some(attempt) => (attempt, false),
        None => match source::create(Table::Flows, key, now, Owner::default()) {
            Created::Made(attempt) => (attempt, true),
            Created::Met(attempt) => (attempt, false),
            Created::Full => {
                account::handshake_event(HandshakeEvent::FlowsFull);
                return None;
            }
        },
    };
    let flow = Followed::at(place, attempt, key)?;
    let seen = atomic::load(word!(flow.state, owner));
    if !flow.lock(seen) {
        if is_made {
            // Another CPU is at work for the connection that had the entry: its state is not there to be taken.
            source::release(flow.entry, flow.meta);
        }
        return None;
    }
    // SAFETY: locked.
    let state = unsafe { &mut *flow.state };
    // A SYN that comes again does not say when the connection began.
    let is_again = !is_made && state.next_sequence == start.next_sequence;
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
    let (rank, mark) = if start.syn_ns == 0 { (Rank::Hello, 0) } else { (Rank::HalfOpen, HALF_OPEN) };
    flow.date(rank, mark, now);
    if is_made {
        pending::count(way, true);
    }
    Some(flow)
}

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Outcome {
    /// It goes on.
    GoOn,
    /// The segment may not go on: it is as if it had not come.
    Refused,
    /// Its ClientHello has been read.
    Read,
    /// It is followed no longer.
    Over,
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
    let is_beyond = state.stage == Stage::Exchange as u8;
    let is_open = is_beyond || state.stage == Stage::Hello as u8 && !state.hello.has_begun();
    let tls_key = if outcome == Outcome::Read { state.tls_key } else { 0 };
    flow.unlock();
    // SAFETY: see `handshake::hand_over`.
    let now = unsafe { (*scratch).now };
    let rank = if is_open { Rank::Open } else { Rank::Hello };
    flow.date(rank, if is_beyond { BEYOND } else { 0 }, now);
    if outcome == Outcome::Over {
        close(scratch, flow, way);
    }
    tls_key
}

/// Counts a sighting of the fingerprint of the packet in the scratch, and whether it is new.
#[inline(always)]
fn note(scratch: *mut Scratch, kind: Kind, key: u64, sighting: Sighting) -> bool {
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &*scratch };
    let service = Packed::unpack(room.decision).service;
    fingerprint::note(kind, key, service, room.source_hash, room.now, sighting)
}

/// What a sighting can say of a count.
#[inline(always)]
fn at_most_255(count: u16) -> u8 {
    if count > 255 { 255 } else { count as u8 }
}

/// Counts the ClientHello that was read, and sends it where it is new.
#[inline(always)]
fn tell(scratch: *mut Scratch, owner: u64, state: &Flow) {
    let sighting = Sighting {
        round_trip: bin_between(state.syn_ns, state.ack_ns),
        hello_delay: bin_between(state.ack_ns, state.hello_ns),
        variant: state.hello.variant & 0xf,
        counts: HANDSHAKE,
        ..Sighting::EMPTY
    };
    client::note(state.syn_key, state.tls_key, sighting);
    let is_new = note(scratch, Kind::Tls, state.tls_key, sighting);
    let is_sample = owner >> 32 & (EXEMPLAR_SAMPLE - 1) == 0;
    if is_new || is_sample {
        if state.notes & GATHERED != 0 {
            exemplar::send_gathered(scratch, owner, state.tls_key, state.syn_key);
        } else {
            exemplar::send(scratch, Kind::Tls, state.tls_key, state.syn_key);
        }
    }
    if state.syn_key != 0 {
        note(scratch, Kind::Syn, state.syn_key, Sighting { variant: NOT_KNOWN, ..sighting });
    }
}

/// Ends a connection, and counts its segments for the fingerprints that it has.
#[inline(always)]
fn close(scratch: *mut Scratch, flow: &Followed, way: *mut Way) {
    // SAFETY: read without its lock: another CPU may count one more.
    let state = unsafe { &*flow.state };
    let sighting = Sighting { segments: at_most_255(state.exchanges.segments), ..Sighting::EMPTY };
    for (kind, key) in [(Kind::Syn, state.syn_key), (Kind::Tls, state.tls_key)] {
        if key != 0 {
            note(scratch, kind, key, sighting);
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
            return if is_after { finish(scratch, owner, state, segment) } else { end_of(state, segment) };
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
                    account::handshake_event(HandshakeEvent::HelloStrayed);
                    return Outcome::Over;
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
    Layout::of_word(unsafe { (*scratch).layout }).begins_handshake()
}

/// The client's first bytes after its ClientHello. A sample of connections is followed further.
#[inline(always)]
fn finish(scratch: *mut Scratch, owner: u64, state: &mut Flow, segment: &Segment) -> Outcome {
    let now_ns = clock::precise_ns();
    let is_followed = owner >> 20 & (EXCHANGE_SAMPLE - 1) == 0 && segment.flags & (FIN | RST) == 0;
    if is_followed {
        state.stage = Stage::Exchange as u8;
        state.next_sequence = segment.sequence.wrapping_add(segment.payload);
        let (bytes, acknowledged) = (segment.payload, segment.acknowledged);
        state.exchanges.begin(&ClientSegment { at_ns: now_ns, bytes, acknowledged });
    }
    let counts = if is_followed { FOLLOWED } else { 0 };
    let finish_delay = bin_between(state.hello_ns, now_ns);
    let sighting = Sighting { finish_delay, counts, ..Sighting::EMPTY };
    note(scratch, Kind::Tls, state.tls_key, sighting);
    client::note(state.syn_key, state.tls_key, sighting);
    if is_followed { Outcome::GoOn } else { Outcome::Over }
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
    let is_closed = segment.flags & (FIN | RST) != 0 || is_closing_alert(segment.payload);
    let is_over = is_closed || state.exchanges.segments >= EXCHANGE_SEGMENTS_MAX;
    let segments = if is_over { state.exchanges.segments } else { 0 };
    if is_over && ended.is_none() {
        ended = state.exchanges.end();
    }
    let mut sighting = Sighting { segments: at_most_255(segments), ..Sighting::EMPTY };
    if let Some(Sizes { request, response }) = ended {
        sighting.request_size = size_bin(request as u64) as u8;
        sighting.response_size = size_bin(response as u64) as u8;
    }
    if ended.is_some() || is_over {
        client::note(state.syn_key, state.tls_key, sighting);
    }
    if is_over { Outcome::Over } else { Outcome::GoOn }
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

/// Whether a handshake may go on of which a part of the ClientHello has come.
#[inline(always)]
fn admits_part(state: &mut Flow) -> bool {
    if state.notes & CHARGED != 0 {
        return true;
    }
    match admission::charge_part(state.syn_key) {
        Part::Refused => false,
        Part::Uncharged => true,
        Part::Charged => {
            state.notes |= CHARGED;
            true
        }
    }
}

/// A handshake whose ClientHello cannot be read. It is charged as others are: else it would be a way around the budget.
#[inline(always)]
fn unknown(state: &mut Flow, event: HandshakeEvent) -> Outcome {
    if !admits(state, 0) {
        return Outcome::Refused;
    }
    account::handshake_event(event);
    Outcome::Over
}

/// Whether a segment ends its connection: where it stands at the client's next byte, since the server takes it nowhere else
/// (RFC 5961, 3; RFC 9293, 3.10.7.4). If it does so inside a ClientHello, that is charged: its checksum may be wrong.
#[inline(always)]
fn end_of(state: &mut Flow, segment: &Segment) -> Outcome {
    let is_next = segment.sequence.wrapping_add(segment.payload) == state.next_sequence;
    if segment.flags & (FIN | RST) == 0 || !is_next {
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
            if tls_key != 0 {
                // So that what is blocked is seen, and does not give way to what is not.
                note(
                    scratch,
                    Kind::Tls,
                    tls_key,
                    Sighting { counts: CONNECTION, variant: 0, ..Sighting::EMPTY },
                );
            }
            return Outcome::Refused;
        }
    } else if hello.has_begun() && !matches!(phase, Phase::NotHello) && !admits_part(state) {
        return Outcome::Refused;
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
            if state.notes & GATHERED != 0 {
                exemplar::gather(ctx, owner, segment, false);
            }
            account::handshake_event(HandshakeEvent::HelloRead);
            tell(scratch, owner, state);
            return Outcome::Read;
        }
        Phase::NotHello => {
            state.other_segments += 1;
            if state.other_segments > OTHER_SEGMENTS_MAX {
                account::handshake_event(HandshakeEvent::NoHello);
                client::note(state.syn_key, 0, Sighting { counts: CONNECTION, ..Sighting::EMPTY });
                return Outcome::Over;
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
