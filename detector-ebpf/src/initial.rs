//! Connections of QUIC, met by their first Initial. What is in it is encrypted: its shape is counted, and the datagrams of some
//! connections go to the daemon, which opens them.
//!
//! A connection has an entry in the table of those in their handshake, and no state beside it: until
//! [`INITIAL_NS_MAX`] after its last Initial, whatever comes as one is more of the same ClientHello. The entry is dated and not kept: it
//! gives way to others, the oldest first, so that a flood of made-up Initials takes no room from handshakes over TCP.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use detector_common::{
    budget::ticks,
    counters::HandshakeEvent,
    fingerprint::Kind,
    flow::{self, Rank, Scratch},
    initial::{self, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, Shape},
    limits::{EXEMPLAR_SAMPLE, INITIAL_NS_MAX, INITIALS_SENT_MAX},
    packet::Layout,
    table::Key,
    way::Way,
};

use crate::{
    account,
    admission::{self, Asked},
    atomic::{self, word},
    client, exemplar, fingerprint, frame, hello,
    judge::Packed,
    maps::SCRATCH,
    sighting::{HANDSHAKE, Sighting},
    source::{self, Created, OF_QUIC, Owner, Table},
};

/// Where in the entry of a connection the key of its shape is.
#[inline(always)]
fn shape_key(entry: *mut Way) -> *mut u64 {
    word!(entry, outcomes)
}

/// Where in it two numbers are, in the upper half, since the lower one is 0 in an entry without a history: in its lowest byte how
/// many of its datagrams are still to be sent, above it how many Initials came after the first.
#[inline(always)]
fn to_be_sent(entry: *mut Way) -> *mut u64 {
    word!(entry, traffic)
}

/// One datagram to be sent, as [`to_be_sent`] counts.
const DATAGRAM: u64 = 1 << 32;

/// One Initial that came, as it counts too.
const CAME: u64 = 1 << 40;

/// Follows the connection that the packet in the scratch may be an Initial of.
#[inline(always)]
pub(crate) fn follow(ctx: &XdpContext, scratch: *mut Scratch) {
    let shape_key = meet_initial(ctx.ctx);
    if shape_key != 0 {
        begin(scratch, shape_key);
    }
}

/// A connection has begun: its first Initial is in the scratch. Charges it, and counts its shape.
#[inline(always)]
fn begin(scratch: *mut Scratch, shape_key: u64) {
    if !admission::admits(Asked::Handshake { syn_key: 0, tls_key: 0, is_charged: false }) {
        forget();
        return;
    }
    account::handshake_event(HandshakeEvent::InitialRead);
    // SAFETY: see `handshake::hand_over`.
    let handed = unsafe { &*scratch };
    let service = Packed::unpack(handed.decision).service;
    let sighting = Sighting { variant: 0, counts: HANDSHAKE, ..Sighting::EMPTY };
    let is_new =
        fingerprint::note(Kind::Initial, shape_key, service, handed.source_hash, handed.now, sighting);
    client::note(0, shape_key, sighting);
    send_first(is_new as u64);
}

/// Reads the packet in the scratch and finds its connection. The key of the shape if the connection begins with it, else 0; a
/// later Initial is sent to the daemon, if those of its connection are.
///
/// A function of numbers with external linkage, so that the verifier walks it once, and for its stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn meet_initial(ctx: *mut xdp_md) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    let Some(shape) = read(ctx, scratch) else {
        account::handshake_event(HandshakeEvent::InitialMalformed);
        return 0;
    };
    // SAFETY: see `handshake::hand_over`.
    let handed = unsafe { &*scratch };
    match meet(&connection_of(handed), shape, handed.now) {
        Some(Met::First(entry)) => {
            atomic::store(shape_key(entry), shape.key());
            atomic::store(to_be_sent(entry), 0);
            shape.key()
        }
        Some(Met::Later(entry)) => {
            // A client may make many connections between the same ports, told apart by what only their server knows.
            let came = (atomic::add(to_be_sent(entry), CAME) >> CAME.trailing_zeros()) + 1;
            if came.is_multiple_of(INITIALS_SENT_MAX) && shape.may_be_first() {
                return shape.key();
            }
            if is_next_to_be_sent(entry) {
                exemplar::send(scratch, Kind::Initial, atomic::load(shape_key(entry)), 0);
            }
            0
        }
        None => 0,
    }
}

/// Sends the first datagram of a connection, if its shape is new or the connection is one of the sample, and has the next
/// ones sent. What it returns means nothing.
///
/// A function of numbers, as [`meet_initial`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_first(is_new: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: see `handshake::hand_over`.
    let key = connection_of(unsafe { &*scratch });
    let is_sample = key.prefix >> 32 & (EXEMPLAR_SAMPLE - 1) == 0;
    if is_new == 0 && !is_sample {
        return 0;
    }
    let Some(place) = source::place_in(Table::Flows, &key) else { return 0 };
    let Some(attempt) = source::attempt_in(Table::Flows, &key) else { return 0 };
    let entry = source::way(&place, attempt);
    atomic::store(to_be_sent(entry), (INITIALS_SENT_MAX - 1) * DATAGRAM);
    exemplar::send(scratch, Kind::Initial, atomic::load(shape_key(entry)), 0);
    0
}

/// Forgets the connection of the packet in the scratch: its first Initial is dropped, and asked again when it is sent again. What it
/// returns means nothing.
///
/// A function of numbers, as [`meet_initial`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget() -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: see `handshake::hand_over`.
    let key = connection_of(unsafe { &*scratch });
    let Some(place) = source::place_in(Table::Flows, &key) else { return 0 };
    if let Some(attempt) = source::attempt_in(Table::Flows, &key) {
        let entry = source::way(&place, attempt);
        if let Some(meta) = source::meta_of_owner(entry, &key) {
            source::release(entry, meta);
        }
    }
    0
}

/// The key of the connection of the packet in the scratch.
#[inline(always)]
fn connection_of(handed: &Scratch) -> Key {
    Key::of_flow(flow::hash(&source::seed(), &handed.packet))
}

/// Copies the datagram to the scratch, and reads its shape.
#[inline(always)]
fn read(ctx: *mut xdp_md, scratch: *mut Scratch) -> Option<Shape> {
    // SAFETY: see `handshake::hand_over`.
    let layout = Layout::of_word(unsafe { (*scratch).layout });
    let datagram = frame::datagram(&XdpContext::new(ctx), layout)?;
    let is_readable = (DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&datagram.bytes)
        && hello::load(ctx, scratch, datagram.start, datagram.bytes);
    if !is_readable {
        return None;
    }
    // SAFETY: see `handshake::hand_over`.
    initial::read(unsafe { &(*scratch).segment })
}

/// The entry of a connection, and which of its Initials it was met by.
enum Met {
    First(*mut Way),
    Later(*mut Way),
}

/// Finds the entry of a connection that an Initial of this shape came of, or makes it. `None`: it has none.
#[inline(always)]
fn meet(key: &Key, shape: Shape, now: u64) -> Option<Met> {
    let place = source::place_in(Table::Flows, key)?;
    if let Some(attempt) = source::attempt_in(Table::Flows, key) {
        let entry = source::way(&place, attempt);
        let last = word!(entry, packets_tat);
        let seen = atomic::load(last);
        if Rank::Open.last(seen) + ticks(INITIAL_NS_MAX) >= now {
            atomic::store(last, Rank::Open.time(now));
            return Some(Met::Later(entry));
        }
        // Another connection between the same ports. Two CPUs that have Initials of it at once begin it once.
        if !may_begin_with(shape) {
            return None;
        }
        let begins = atomic::swap(last, seen, Rank::Open.time(now)).is_ok();
        return Some(if begins { Met::First(entry) } else { Met::Later(entry) });
    }
    if !may_begin_with(shape) {
        return None;
    }
    let (attempt, begins) =
        match source::create(Table::Flows, key, now, Owner { class: OF_QUIC, ..Owner::default() }) {
            Created::Made(attempt) => (attempt, true),
            Created::Met(attempt) => (attempt, false),
            Created::Full => {
                account::handshake_event(HandshakeEvent::FlowsFull);
                return None;
            }
        };
    let entry = source::way(&place, attempt);
    atomic::store(word!(entry, packets_tat), Rank::Open.time(now));
    Some(if begins { Met::First(entry) } else { Met::Later(entry) })
}

/// Whether a connection may begin with an Initial of this shape. Where not, its first one was not seen, or long ago.
#[inline(always)]
fn may_begin_with(shape: Shape) -> bool {
    let may_be_first = shape.may_be_first();
    if !may_be_first {
        account::handshake_event(HandshakeEvent::InitialLate);
    }
    may_be_first
}

/// Whether another datagram of a connection is to be sent; it counts as sent.
#[inline(always)]
fn is_next_to_be_sent(entry: *mut Way) -> bool {
    let seen = atomic::load(to_be_sent(entry));
    // Lost to another CPU, which sends its own: one fewer is sent.
    let left = seen & (CAME - DATAGRAM);
    left != 0 && atomic::swap(to_be_sent(entry), seen, seen - DATAGRAM).is_ok()
}
