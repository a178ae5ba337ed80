//! The driver of floods: spoofed sources, and among them known ones.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action::XDP_TX},
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    UNDER_TEST,
    mixture::{FIRST, FIRST_PORT, Mixture, SECOND, SPOOFED, source_word},
};

/// The mixture.
#[btf_map]
static MIXTURE: Array<Mixture, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Where a frame has what tells sources apart: the IPv4 source address, or the second half of the upper half of the IPv6
/// one.
const SOURCE_AT: usize = 26;
/// Where a UDP datagram over IPv4 has its destination port.
const PORT_AT_V4: usize = 36;
/// … over IPv6.
const PORT_AT_V6: usize = 56;

/// The next source of the mixture, then the program under test.
#[xdp(frags)]
fn mix(ctx: XdpContext) -> u32 {
    if next(&ctx).is_some() {
        // SAFETY: nothing of this program is needed after it.
        unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    }
    // Nobody returns this but a driver without a program under test.
    XDP_TX
}

/// Writes source and destination port of the next frame.
#[inline(always)]
fn next(ctx: &XdpContext) -> Option<()> {
    let mixture = MIXTURE.get_ptr_mut(0)?;
    // SAFETY: one CPU runs the driver.
    let mixture = unsafe { &mut *mixture };
    let [spoofed, first, second] = mixture.in_cycle;
    let place = mixture.place;
    mixture.place = if place + 1 < spoofed + first + second { place + 1 } else { 0 };
    let group = match place {
        place if place < spoofed => SPOOFED,
        place if place < spoofed + first => FIRST,
        _ => SECOND,
    };
    let count = mixture.sent.get_mut(group)?;
    let number = *count;
    *count = number + 1;
    let is_ipv6 = mixture.is_ipv6 == 1;
    let number = if group == SPOOFED { number } else { number.checked_rem(mixture.known)? };
    let port_at = if is_ipv6 { PORT_AT_V6 } else { PORT_AT_V4 };
    write(ctx, SOURCE_AT, source_word(group, number, is_ipv6).to_be_bytes())?;
    write(ctx, port_at, (FIRST_PORT + group as u16).to_be_bytes())
}

/// Writes into the frame.
#[inline(always)]
fn write<const LENGTH: usize>(ctx: &XdpContext, at: usize, bytes: [u8; LENGTH]) -> Option<()> {
    let at = ctx.data() + at;
    if at + LENGTH > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the frame, as was just seen.
    unsafe { (at as *mut [u8; LENGTH]).write_unaligned(bytes) };
    Some(())
}
