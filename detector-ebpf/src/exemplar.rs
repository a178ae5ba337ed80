//! Exemplars: the bytes of a fingerprint that was not seen before, for the daemon to name.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_ringbuf_output, bpf_xdp_load_bytes},
};
use detector_common::{
    address::Family,
    branchless::bounded,
    budget::{TICKS_PER_NS_LOG2, take, ticks},
    counters::HandshakeEvent,
    fingerprint::{EXEMPLAR_CONTENT_START, ExemplarHeader, Gathered, Kind},
    flow::Scratch,
    limits::{EXEMPLARS_PER_SECOND, GATHERED, INITIAL_EXEMPLARS_PER_SECOND, SYN_EXEMPLARS_PER_SECOND},
    segment::SEGMENT_BYTES_MAX,
    syn::Syn,
};

use crate::{
    account,
    atomic::{self, word},
    frame::Segment,
    hello,
    judge::Packed,
    maps::{EXEMPLARS, GATHERED_HELLOS, SETTINGS},
};

const INTERVAL: u64 = ticks(1_000_000_000 / EXEMPLARS_PER_SECOND);
const INITIAL_INTERVAL: u64 = ticks(1_000_000_000 / INITIAL_EXEMPLARS_PER_SECOND);
const SYN_INTERVAL: u64 = ticks(1_000_000_000 / SYN_EXEMPLARS_PER_SECOND);

/// Whether the budget of exemplars of a kind has one left.
#[inline(always)]
fn may_send(kind: Kind, now: u64) -> bool {
    let Some(settings) = SETTINGS.get_ptr_mut(0) else { return false };
    let (tat, interval) = match kind {
        Kind::Tls => (word!(settings, exemplar_tat), INTERVAL),
        Kind::Initial => (word!(settings, initial_exemplar_tat), INITIAL_INTERVAL),
        Kind::Syn => (word!(settings, syn_exemplar_tat), SYN_INTERVAL),
    };
    let seen = atomic::load(tat);
    let Ok(new) = take(seen, now, interval, ticks(1_000_000_000)) else { return false };
    atomic::swap(tat, seen, new).is_ok()
}

/// Writes what an exemplar begins with.
#[inline(always)]
fn describe(header: &mut ExemplarHeader, scratch: *const Scratch, kind: Kind, key: u64, syn_key: u64) {
    // SAFETY: see `handshake::hand_over`.
    let handed = unsafe { &*scratch };
    let (packet, decision, now) = (&handed.packet, handed.decision, handed.now);
    header.key = key;
    header.syn_key = syn_key;
    header.source[0] = packet.source.high;
    header.source[1] = packet.source.low;
    header.destination[0] = packet.destination.high;
    header.destination[1] = packet.destination.low;
    header.time_ns = now >> TICKS_PER_NS_LOG2;
    header.service = Packed::unpack(decision).service;
    header.source_port = packet.source_port;
    header.destination_port = packet.destination_port;
    header.kind = kind as u8;
    header.version = match packet.source.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    header.reserved = 0;
}

/// Sends the bytes of the segment in the scratch, from its start.
#[inline(always)]
pub(crate) fn send(scratch: *mut Scratch, kind: Kind, key: u64, syn_key: u64) {
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &mut *scratch };
    if !may_send(kind, room.now) {
        return account::handshake_event(HandshakeEvent::ExemplarsHeld);
    }
    describe(&mut room.exemplar, scratch, kind, key, syn_key);
    let bytes = room.segment.end;
    room.exemplar.bytes = bytes as u32;
    let bytes = (bytes.wrapping_sub(1) & (SEGMENT_BYTES_MAX as u64 - 1)) + 1;
    output((&raw mut room.exemplar).cast(), bytes);
}

/// Sends the signature in the scratch, over the bytes of the segment there.
#[inline(always)]
pub(crate) fn send_syn(scratch: *mut Scratch, key: u64) {
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &mut *scratch };
    hello::copy_syn(&raw const room.syn, room.segment.bytes.as_mut_ptr().cast());
    room.segment.end = size_of::<Syn>() as u64;
    send(scratch, Kind::Syn, key, 0);
}

/// Sends the bytes that were gathered of a connection; whether there were any.
#[inline(always)]
pub(crate) fn send_gathered(scratch: *mut Scratch, flow: u64, key: u64, syn_key: u64) -> bool {
    let Some(gathered) = gathered_of(flow) else { return false };
    // SAFETY: an element of the map. Where two connections meet in it, its bytes do not have the key that is said here: the
    // daemon looks.
    let gathered = unsafe { &mut *gathered };
    if gathered.header.key != flow {
        return false;
    }
    // SAFETY: see `handshake::hand_over`.
    if !may_send(Kind::Tls, unsafe { (*scratch).now }) {
        account::handshake_event(HandshakeEvent::ExemplarsHeld);
        return true;
    }
    describe(&mut gathered.header, scratch, Kind::Tls, key, syn_key);
    let bytes = (gathered.header.bytes as u64).wrapping_sub(1);
    output((&raw mut gathered.header).cast(), (bytes & (2 * SEGMENT_BYTES_MAX as u64 - 1)) + 1);
    true
}

#[inline(always)]
fn output(start: *mut core::ffi::c_void, bytes: u64) {
    let whole = EXEMPLAR_CONTENT_START as u64 + bytes;
    // SAFETY: so many bytes lie there, as the verifier sees.
    let lost = unsafe { bpf_ringbuf_output((&raw const EXEMPLARS).cast_mut().cast(), start, whole, 0) } != 0;
    if lost {
        account::handshake_event(HandshakeEvent::ExemplarsLost);
    }
}

#[inline(always)]
fn gathered_of(flow: u64) -> Option<*mut Gathered> {
    GATHERED_HELLOS.get_ptr_mut((flow >> 8) as u32 & (GATHERED as u32 - 1))
}

/// Adds a segment of a ClientHello to those that were gathered of its connection, or begins with it.
#[inline(always)]
pub(crate) fn gather(ctx: *mut xdp_md, flow: u64, segment: &Segment, is_first: bool) {
    let Some(gathered) = gathered_of(flow) else { return };
    // SAFETY: as in `send_gathered`.
    let gathered = unsafe { &mut *gathered };
    if is_first {
        gathered.header.key = flow;
        gathered.header.bytes = 0;
    }
    let start = gathered.header.bytes;
    if gathered.header.key != flow
        || start >= SEGMENT_BYTES_MAX as u32
        || segment.payload > SEGMENT_BYTES_MAX as u32
        || segment.payload == 0
    {
        gathered.header.key = 0;
        return;
    }
    let length = (segment.payload.wrapping_sub(1) & (SEGMENT_BYTES_MAX as u32 - 1)) + 1;
    let start = bounded::<{ SEGMENT_BYTES_MAX - 1 }>(start as u64);
    // SAFETY: below the half of the room, and as many bytes as the other half has.
    let to = unsafe { gathered.content.as_mut_ptr().add(start) };
    // SAFETY: as above.
    if unsafe { bpf_xdp_load_bytes(ctx, segment.payload_start, to.cast(), length) } == 0 {
        gathered.header.bytes = start as u32 + length;
    } else {
        gathered.header.key = 0;
    }
}
