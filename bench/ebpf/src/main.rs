//! What detector is measured against.
//!
//! `draw` writes a random source address into the frame and tail-calls the program under test, so every program is measured
//! with the same packets and the same work before it. The others are references, each the least that its idea costs.
#![no_std]
#![no_main]
// Atomic operations for BPF exist only as intrinsics, see `detector-ebpf`.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "see above")]

mod mix;
mod mixture;

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    Global,
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, LruHashMap, ProgramArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The program under test, at index 0.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// State of the generator of addresses, one word.
#[btf_map]
static STATE: Array<u64, 1> = Array::new();

/// Lines to read at random: as many as a table of the product has for so many sources.
#[btf_map]
static LINES: Array<[u64; 8], 1> = Array::new();

/// Token buckets by address, as most XDP limiters keep them.
#[btf_map]
static BUCKETS: LruHashMap<u64, Bucket, 1> = LruHashMap::new();

/// A token bucket.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bucket {
    /// Tokens, in parts of [`TOKEN`].
    tokens: u64,
    /// When it was filled last, ns.
    filled_ns: u64,
}

/// Sources that addresses are drawn from; 0: the frame stays as it is.
#[unsafe(no_mangle)]
static SOURCES: Global<u32> = Global::new(0);

/// 1: the frame is IPv6.
#[unsafe(no_mangle)]
static IS_IPV6: Global<u32> = Global::new(0);

/// Elements of [`LINES`].
#[unsafe(no_mangle)]
static LINES_LEN: Global<u32> = Global::new(1);

/// Packets an hour of the reference bucket, up to 5 million.
#[unsafe(no_mangle)]
static RATE_PER_HOUR: Global<u32> = Global::new(3_600_000);

/// Its burst.
#[unsafe(no_mangle)]
static BURST: Global<u32> = Global::new(1_000);

/// An hour in nanoseconds, and the parts that a token is counted in: so a nanosecond gives [`RATE_PER_HOUR`] of them.
const TOKEN: u64 = 3_600_000_000_000;

/// Where the source address starts in a frame: of IPv4 behind Ethernet, or of IPv6 behind Ethernet and one VLAN tag.
const SOURCE_AT: usize = 26;

/// Draws the next source and writes it into the frame: the whole IPv4 address, or the lower half of an IPv6 /64.
#[inline(always)]
fn draw(ctx: &XdpContext) -> Option<()> {
    let sources = SOURCES.load();
    if sources == 0 {
        return Some(());
    }
    let state = STATE.get_ptr_mut(0)?;
    // SAFETY: one CPU runs the bench.
    let state = unsafe { &mut *state };
    // SplitMix64, as `detector_common::hash` uses its rounds.
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut random = *state;
    random = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ random >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let number = (((random >> 32) * sources as u64) >> 32) as u32;
    let at = ctx.data() + SOURCE_AT + if IS_IPV6.load() == 1 { 4 } else { 0 };
    if at + 4 > ctx.data_end() {
        return None;
    }
    // An odd factor spreads the numbers over all addresses, each to its own.
    let address = number.wrapping_mul(2_654_435_761);
    // SAFETY: inside the frame, as was just seen.
    unsafe { (at as *mut u32).write_unaligned(address.to_be()) };
    Some(())
}

/// The source as the references see it: one word.
#[inline(always)]
fn source(ctx: &XdpContext) -> Option<u64> {
    let at = ctx.data() + SOURCE_AT;
    if at + 8 > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the frame, as was just seen.
    let word = unsafe { (at as *const u64).read_unaligned() };
    Some(if IS_IPV6.load() == 1 { word } else { word & 0xffff_ffff })
}

/// The driver: a random source, then the program under test.
#[xdp(frags)]
fn drive(ctx: XdpContext) -> u32 {
    if draw(&ctx).is_some() {
        // SAFETY: nothing of this program is needed after it.
        unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    }
    // Nobody returns this but a driver without a program under test.
    XDP_TX
}

/// The generator of live frames: a random source, out of the interface it came from.
#[xdp(frags)]
fn transmit(ctx: XdpContext) -> u32 {
    let draw = || draw(&ctx);
    let drawn = if IS_IPV6.load() == 1 { draw() } else { with_checksum(&ctx, draw) };
    drawn.map_or(XDP_PASS, |()| XDP_TX)
}

/// Changes the source address of an IPv4 header, and the checksum with it (RFC 1624): the network stack looks at it
/// before any rule of iptables does.
#[inline(always)]
fn with_checksum(ctx: &XdpContext, change: impl FnOnce() -> Option<()>) -> Option<()> {
    let at = ctx.data() + SOURCE_AT;
    if at + 4 > ctx.data_end() {
        return None;
    }
    let (checksum, source) = ((at - 2) as *mut u16, at as *const u32);
    // SAFETY: inside the frame, as was just seen.
    let before = unsafe { source.read_unaligned() };
    change()?;
    // SAFETY: as above.
    let after = unsafe { source.read_unaligned() };
    // SAFETY: as above, and behind the Ethernet header.
    let old = unsafe { checksum.read_unaligned() };
    let halves = |word: u32| (word & 0xffff) + (word >> 16);
    let sum = halves(halves(!old as u32 & 0xffff).wrapping_add(halves(!before)).wrapping_add(halves(after)));
    // SAFETY: as above.
    unsafe { checksum.write_unaligned(!halves(sum) as u16) };
    Some(())
}

/// The floor of every program.
#[xdp(frags)]
fn empty(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// The floor of every receiver.
#[xdp(frags)]
fn discard(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// A source's line, one of so many.
#[inline(always)]
fn line_of(source: u64, lines: u32) -> Option<*mut [u64; 8]> {
    let hash = source.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LINES.get_ptr_mut((((hash >> 32) * lines as u64) >> 32) as u32)
}

/// The floor of every table: one line read at random, of as many lines as there are sources.
#[xdp(frags)]
fn array_read(ctx: XdpContext) -> u32 {
    let Some(line) = source(&ctx).and_then(|source| line_of(source, SOURCES.load())) else { return XDP_DROP };
    // SAFETY: a word of a map value.
    if unsafe { (*line)[0] } == 0 { XDP_PASS } else { XDP_DROP }
}

/// What such a read costs a packet that waits for it, as every verdict does that hangs on what was read: the next draw
/// takes the word that was read in, so that the processor cannot read ahead for the next packet.
#[xdp(frags)]
fn array_wait(ctx: XdpContext) -> u32 {
    wait_for(&ctx, SOURCES.load())
}

/// The same where the lines lie as far apart as the sources of the product's table do, which has room to spare: the
/// lines are as many, but the pages that they lie in are more.
#[xdp(frags)]
fn table_wait(ctx: XdpContext) -> u32 {
    wait_for(&ctx, LINES_LEN.load())
}

#[inline(always)]
fn wait_for(ctx: &XdpContext, lines: u32) -> u32 {
    let Some(line) = source(ctx).and_then(|source| line_of(source, lines)) else { return XDP_DROP };
    let Some(state) = STATE.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: one CPU runs the bench.
    let state = unsafe { &mut *state };
    // SAFETY: a word of a map value.
    *state = state.wrapping_add(unsafe { (*line)[0] });
    XDP_PASS
}

/// The floor of every limit that is exact over CPUs: one line at random, changed by one atomic operation, in a word of its own:
/// what the others read stays 0.
#[xdp(frags)]
fn array_add(ctx: XdpContext) -> u32 {
    let Some(line) = source(&ctx).and_then(|source| line_of(source, SOURCES.load())) else { return XDP_DROP };
    // SAFETY: the second word of a line.
    let word = unsafe { line.cast::<u64>().add(1) };
    // SAFETY: a word of a map value.
    let before = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, 1) };
    if before == u64::MAX { XDP_DROP } else { XDP_PASS }
}

/// What most limiters do: an LRU hash of token buckets, filled by the precise clock.
#[xdp(frags)]
fn lru(ctx: XdpContext) -> u32 {
    let Some(source) = source(&ctx) else { return XDP_PASS };
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let burst = BURST.load() as u64;
    let Some(bucket) = BUCKETS.get_ptr_mut(source) else {
        let bucket = Bucket { tokens: (burst - 1) * TOKEN, filled_ns: now };
        return if BUCKETS.insert(source, bucket, 0).is_ok() { XDP_PASS } else { XDP_DROP };
    };
    // SAFETY: races with other CPUs are part of what most limiters do.
    let bucket = unsafe { &mut *bucket };
    let given = now.wrapping_sub(bucket.filled_ns).min(TOKEN) * RATE_PER_HOUR.load() as u64;
    let tokens = (bucket.tokens + given).min(burst * TOKEN);
    bucket.filled_ns = now;
    if tokens < TOKEN {
        bucket.tokens = tokens;
        return XDP_DROP;
    }
    bucket.tokens = tokens - TOKEN;
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets GPL-only helpers be called; see the licences beside this workspace for what it means.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
