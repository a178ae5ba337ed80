//! The only place that reads time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of the clock that the program reads (`CLOCK_MONOTONIC_COARSE`), since boot.
pub fn kernel_ns() -> u64 {
    coarse(|time| {
        // SAFETY: writes to a timespec of ours.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time) }
    })
}

/// The step of that clock, ns: 1 to 10 ms, by the kernel's configuration.
pub fn kernel_tick_ns() -> u64 {
    coarse(|time| {
        // SAFETY: writes to a timespec of ours.
        unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, time) }
    })
}

fn coarse(read: impl FnOnce(*mut libc::timespec) -> i32) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let result = read(&raw mut time);
    assert_eq!(result, 0, "CLOCK_MONOTONIC_COARSE exists since Linux 2.6.32");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Seconds since the Unix epoch; 0 before it.
pub fn unix_s() -> u64 {
    unix_ns() / 1_000_000_000
}

/// Nanoseconds since the Unix epoch, for five centuries more; 0 before it.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
