//! The frame of an XDP context. The only pointer arithmetic of this crate.

use core::mem::MaybeUninit;

use crate::atomic;
use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use detector_common::{
    frame::{Frame, Wire},
    packet::{self, Packet},
    verdict::Reason,
};

/// A frame on its way in.
struct XdpFrame {
    data: usize,
    data_end: usize,
    bytes: u32,
}

impl XdpFrame {
    /// The frame of a context. Its length is the kernel's, since `data_end` is the end of the first buffer only.
    #[inline(always)]
    fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the context is the one that the program was called with (Linux 5.18 and later).
        let bytes = unsafe { bpf_xdp_get_buff_len(ctx) } as u32;
        let ctx = XdpContext::new(ctx);
        Self { data: ctx.data(), data_end: ctx.data_end(), bytes }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.bytes as usize
    }

    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.data_end {
            return None;
        }
        // SAFETY: `start` to `start + size_of::<T>()` lies inside the first buffer; any bytes make a `T`.
        Some(unsafe { (start as *const T).read_unaligned() })
    }
}

/// What a frame holds.
pub(crate) struct Parsed<'a> {
    /// Length of the whole frame, Ethernet header included.
    pub(crate) bytes: u32,
    /// The packet, or why it is not judged.
    pub(crate) packet: Result<&'a Packet, Reason>,
}

/// Zeroes the room of a packet, since the verifier wants every byte written that a function is shown; word by word,
/// since the compiler would call a loop over bytes.
#[inline(always)]
fn clear(room: &mut MaybeUninit<Packet>) {
    const { assert!(size_of::<Packet>() == 64 && align_of::<Packet>() == 8) };
    let words = room.as_mut_ptr().cast::<u64>();
    for word in 0..8 {
        // SAFETY: one of the eight words of the room.
        atomic::store(unsafe { words.add(word) }, 0);
    }
}

/// Reads the frame of a context into `room`: the packet is large for a BPF stack and is not copied.
#[inline(always)]
pub(crate) fn parse<'a>(ctx: &XdpContext, room: &'a mut MaybeUninit<Packet>) -> Parsed<'a> {
    clear(room);
    let outcome = parse_frame(ctx.ctx, room.as_mut_ptr());
    let packet = match Reason::from_number(outcome as u8) {
        Some(reason) => Err(reason),
        // SAFETY: `parse_frame` wrote a packet, as it says by a number that no reason has.
        None => Ok(unsafe { room.assume_init_ref() }),
    };
    Parsed { bytes: (outcome >> 8) as u32, packet }
}

/// Stands in the answer of [`parse_frame`] for "a packet was written".
const PARSED: u64 = 0xff;

/// Parses a frame into `packet`. Returns its length above bit 8 and the number of the reason, or [`PARSED`], below.
///
/// A function with external linkage: the verifier walks the many ways through a parser once, and what they found is
/// then just a packet, not a hundred cases to follow through every later step.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_frame(ctx: *mut xdp_md, packet: *mut Packet) -> u64 {
    let frame = XdpFrame::new(ctx);
    let length = (frame.bytes as u64) << 8;
    if packet.is_null() {
        return length | Reason::Unjudged as u64;
    }
    match packet::parse(&frame) {
        Ok(parsed) => {
            // SAFETY: not null, and the verifier knows its size.
            unsafe { packet.write(parsed) };
            length | PARSED
        }
        Err(reason) => length | reason as u64,
    }
}
