//! The clock is an input: the kernel's coarse monotonic clock, or a word that tests and replay set.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use detector_common::budget::ticks;

use crate::{atomic, maps::VIRTUAL_CLOCK};

/// 1: time is what [`VIRTUAL_CLOCK`] says, and every decision is written to the trace. Set at load; the verifier then
/// removes the branch not taken.
#[unsafe(no_mangle)]
static IS_CLOCK_VIRTUAL: Global<u32> = Global::new(0);

/// Whether this program was loaded for replay or a test.
#[inline(always)]
pub(crate) fn is_virtual() -> bool {
    IS_CLOCK_VIRTUAL.load() == 1
}

/// Now, in ticks of [`detector_common::budget`].
///
/// The coarse clock costs 2 ns against 38 ns of the precise one and steps once a timer interrupt, 1 to 10 ms; budgets
/// tolerate two steps.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if is_virtual() {
        return VIRTUAL_CLOCK.get_ptr(0).map_or(0, |now| ticks(atomic::load(now)));
    }
    // SAFETY: the helper has no precondition (Linux 5.11 and later).
    ticks(unsafe { bpf_ktime_get_coarse_ns() })
}

/// Now, in nanoseconds: the precise clock, for the few packets that a handshake is timed by.
#[inline(always)]
pub(crate) fn precise_ns() -> u64 {
    if is_virtual() {
        return VIRTUAL_CLOCK.get_ptr(0).map_or(0, atomic::load);
    }
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}
