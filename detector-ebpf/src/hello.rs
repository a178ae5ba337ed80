//! Bytes of a frame, copied to this CPU's scratch and read there: SYNs and ClientHellos.
//!
//! The loops are `bpf_loop`s over state in a map value: the verifier walks one step of each, whatever there is to read.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_loop, bpf_xdp_load_bytes},
};
use detector_common::{
    flow::Scratch,
    hello::{self, Hello},
    limits::HELLO_FIELDS_MAX,
    packet::Layout,
    segment::SEGMENT_BYTES_MAX,
    syn::{self, HEADER_BYTES_MAX, OPTION_BYTES_MAX, Syn},
};

use crate::{atomic, frame::Segment};

/// Steps of the machine for a segment: a field takes one, or one more where a record or a segment cuts it.
const STEPS_MAX: u32 = 2 * HELLO_FIELDS_MAX as u32;

const WORDS: usize = size_of::<Hello>() / size_of::<u64>();
const _: () =
    assert!(size_of::<Hello>() == WORDS * size_of::<u64>() && align_of::<Hello>() == align_of::<u64>());
const _: () = assert!(size_of::<Syn>() == size_of::<Hello>() && align_of::<Syn>() == align_of::<u64>());

/// Fills a struct of [`WORDS`] words with 0, word by word: the compiler would call a loop over bytes.
#[inline(always)]
fn clear(words: *mut u64) {
    for word in 0..WORDS {
        // SAFETY: one of the words.
        atomic::store(unsafe { words.add(word) }, 0);
    }
}

/// Puts a ClientHello at its start.
#[inline(always)]
pub(crate) fn start(hello: &mut Hello) {
    clear(core::ptr::from_mut(hello).cast());
    hello.need = hello::MESSAGE_HEADER_BYTES;
}

/// Copies a ClientHello.
#[inline(always)]
pub(crate) fn copy(from: &Hello, to: &mut Hello) {
    copy_words(core::ptr::from_ref(from).cast(), core::ptr::from_mut(to).cast());
}

/// Copies a signature.
#[inline(always)]
pub(crate) fn copy_syn(from: *const Syn, to: *mut Syn) {
    copy_words(from.cast(), to.cast());
}

/// Copies a struct of [`WORDS`] words.
#[inline(always)]
fn copy_words(from: *const u64, to: *mut u64) {
    for word in 0..WORDS {
        // SAFETY: one of the words of either.
        atomic::store(unsafe { to.add(word) }, atomic::load(unsafe { from.add(word) }));
    }
}

/// Copies `length` bytes of the frame, 1 to [`SEGMENT_BYTES_MAX`], to the scratch.
#[inline(always)]
pub(crate) fn load(ctx: *mut xdp_md, scratch: *mut Scratch, start: u32, length: u32) -> bool {
    // SAFETY: see `handshake::hand_over`.
    let segment = unsafe { &mut (*scratch).segment };
    segment.position = 0;
    segment.end = length as u64;
    // In this form the verifier sees that it is neither 0 nor too long.
    let length = (length.wrapping_sub(1) & (SEGMENT_BYTES_MAX as u32 - 1)) + 1;
    // SAFETY: the segment has room for them.
    unsafe { bpf_xdp_load_bytes(ctx, start, segment.bytes.as_mut_ptr().cast(), length) == 0 }
}

/// Reads a segment's bytes into a copy of a ClientHello, which stands in the scratch then. How many were left over when it was
/// read; `None`: they could not be had.
#[inline(always)]
pub(crate) fn read(ctx: *mut xdp_md, scratch: *mut Scratch, hello: &Hello, segment: &Segment) -> Option<u32> {
    let length = segment.payload.min(SEGMENT_BYTES_MAX as u32);
    if !load(ctx, scratch, segment.payload_start, length) {
        return None;
    }
    // SAFETY: see `handshake::hand_over`.
    let working = unsafe { &mut (*scratch).hello };
    copy(hello, working);
    let mut context = scratch;
    // SAFETY: the callback gets what it expects: a pointer to the scratch's address.
    unsafe { bpf_loop(STEPS_MAX, hello_step as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: see `handshake::hand_over`.
    let position = unsafe { (*scratch).segment.position };
    Some(segment.payload.wrapping_sub(position as u32))
}

unsafe extern "C" fn hello_step(_: u64, context: *mut c_void) -> i64 {
    // SAFETY: `read` passes its address.
    let scratch = unsafe { *context.cast::<*mut Scratch>() };
    // SAFETY: see `handshake::hand_over`.
    let scratch = unsafe { &mut *scratch };
    !hello::step(&mut scratch.hello, &mut scratch.segment) as i64
}

/// The key of a SYN's signature; 0: its headers are out of reach.
#[inline(always)]
pub(crate) fn read_syn(ctx: *mut xdp_md, scratch: *mut Scratch, layout: Layout, segment: &Segment) -> u64 {
    let length = segment.payload_start.wrapping_sub(layout.network());
    if length > HEADER_BYTES_MAX as u32 || !load(ctx, scratch, layout.network(), length) {
        return 0;
    }
    // SAFETY: see `handshake::hand_over`.
    let room = unsafe { &mut *scratch };
    let transport = layout.transport().wrapping_sub(layout.network());
    clear((&raw mut room.syn).cast());
    syn::begin(&mut room.syn, &room.segment, transport, segment.payload != 0);
    let mut context = scratch;
    // SAFETY: as in `read`.
    unsafe { bpf_loop(OPTION_BYTES_MAX as u32 + 1, syn_step as *mut c_void, (&raw mut context).cast(), 0) };
    syn::finish(&mut room.syn, &room.segment);
    room.syn.key()
}

unsafe extern "C" fn syn_step(_: u64, context: *mut c_void) -> i64 {
    // SAFETY: `read_syn` passes its address.
    let scratch = unsafe { *context.cast::<*mut Scratch>() };
    // SAFETY: see `handshake::hand_over`.
    let scratch = unsafe { &mut *scratch };
    !syn::step(&mut scratch.syn, &scratch.segment) as i64
}
