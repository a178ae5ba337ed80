//! The frame of an XDP context. The only pointer arithmetic of this crate.

use core::mem::MaybeUninit;

use crate::atomic;
use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use detector_common::{
    branchless::bounded,
    frame::{Frame, Wire},
    packet::{self, Layout, Packet, Parsed},
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
pub(crate) struct Read<'a> {
    /// Length of the whole frame, Ethernet header included.
    pub(crate) bytes: u32,
    /// The packet and where it lies, or why it is not judged.
    pub(crate) parsed: Result<&'a Parsed, Reason>,
}

/// Zeroes the room of a packet, since the verifier wants every byte written that a function is shown; word by word,
/// since the compiler would call a loop over bytes.
#[inline(always)]
fn clear(room: &mut MaybeUninit<Parsed>) {
    const { assert!(size_of::<Parsed>() == 72 && align_of::<Parsed>() == 8) };
    let words = room.as_mut_ptr().cast::<u64>();
    for word in 0..9 {
        // SAFETY: one of the nine words of the room.
        atomic::store(unsafe { words.add(word) }, 0);
    }
}

/// Reads the frame of a context into `room`: the packet is large for a BPF stack and is not copied.
#[inline(always)]
pub(crate) fn read<'a>(ctx: &XdpContext, room: &'a mut MaybeUninit<Parsed>) -> Read<'a> {
    clear(room);
    let outcome = parse_frame(ctx.ctx, room.as_mut_ptr());
    let parsed = match Reason::from_number(outcome as u8) {
        Some(reason) => Err(reason),
        // SAFETY: `parse_frame` wrote a packet, as it says by a number that no reason has.
        None => Ok(unsafe { room.assume_init_ref() }),
    };
    Read { bytes: (outcome >> 8) as u32, parsed }
}

/// Stands in the answer of [`parse_frame`] for "a packet was written".
const PARSED: u64 = 0xff;

/// Parses a frame into `parsed`, which `clear` made. Returns its length above bit 8 and the number of the reason, or [`PARSED`], below.
///
/// A function with external linkage: the verifier walks the many ways through a parser once, and what they found is
/// then just a packet, not a hundred cases to follow through every later step.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_frame(ctx: *mut xdp_md, parsed: *mut Parsed) -> u64 {
    let frame = XdpFrame::new(ctx);
    let length = (frame.bytes as u64) << 8;
    if parsed.is_null() {
        return length | Reason::Unjudged as u64;
    }
    // SAFETY: not null, the verifier knows its size, and all zero is `Parsed::EMPTY`.
    match packet::parse_into(&frame, unsafe { &mut *parsed }) {
        Ok(()) => length | PARSED,
        Err(reason) => length | reason as u64,
    }
}

/// Copies a packet, word by word: the compiler would call a function that Linux 6.1 refuses.
#[inline(always)]
pub(crate) fn copy_packet(from: &Packet, to: &mut Packet) {
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), core::ptr::from_mut(to).cast::<u64>());
    for word in 0..size_of::<Packet>() / 8 {
        // SAFETY: one of the words of the packet, all of which `clear` wrote.
        let value = atomic::load(unsafe { from.add(word) });
        // SAFETY: as above.
        atomic::store(unsafe { to.add(word) }, value);
    }
}

/// Bytes of a UDP header (RFC 768).
pub(crate) const UDP_HEADER_BYTES: u32 = 8;

/// The payload of a UDP packet.
pub(crate) struct Datagram {
    /// Where it starts, bytes from the start of the frame.
    pub(crate) start: u32,
    /// Its bytes.
    pub(crate) bytes: u32,
}

/// The datagram of a UDP packet, which may end before the packet does; `None` where its header is beyond the frame's first
/// buffer.
#[inline(always)]
pub(crate) fn datagram(ctx: &XdpContext, layout: Layout) -> Option<Datagram> {
    let frame = XdpFrame { data: ctx.data(), data_end: ctx.data_end(), bytes: 0 };
    let header = frame.read::<[u8; 8]>(bounded::<0x7fff>(layout.transport() as u64))?;
    let start = layout.transport() + UDP_HEADER_BYTES;
    let bytes = match u16::from_be_bytes([header[4], header[5]]) {
        // To the end of the jumbogram.
        0 => layout.end().saturating_sub(start),
        length => (length as u32).saturating_sub(UDP_HEADER_BYTES),
    };
    Some(Datagram { start, bytes })
}

/// Bits of [`Segment::flags`] (RFC 9293, 3.1).
pub(crate) const FIN: u32 = 0x01;
pub(crate) const RST: u32 = 0x04;
pub(crate) const ACK: u32 = 0x10;

/// A TCP segment.
pub(crate) struct Segment {
    /// Its sequence number.
    pub(crate) sequence: u32,
    /// Its acknowledgement number.
    pub(crate) acknowledged: u32,
    /// Its flags.
    pub(crate) flags: u32,
    /// Where its payload starts, bytes from the start of the frame.
    pub(crate) payload_start: u32,
    /// Bytes of its payload.
    pub(crate) payload: u32,
}

/// The segment of a TCP packet; `None` where the header is beyond the frame's first buffer.
#[inline(always)]
pub(crate) fn tcp_segment(ctx: &XdpContext, layout: Layout) -> Option<Segment> {
    let frame = XdpFrame { data: ctx.data(), data_end: ctx.data_end(), bytes: 0 };
    // Headers lie in the first page; the verifier wants a place to be far from 2^16.
    let header = frame.read::<[u8; 20]>(bounded::<0x7fff>(layout.transport() as u64))?;
    let payload_start = layout.transport() + (header[12] >> 4) as u32 * 4;
    Some(Segment {
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        acknowledged: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: header[13] as u32,
        payload_start,
        payload: layout.end().saturating_sub(payload_start),
    })
}
