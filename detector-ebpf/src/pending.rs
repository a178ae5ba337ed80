//! How many connections of a source are in their handshake, in its entry: packets of a source without any are not looked at.

use detector_common::{
    budget::ticks,
    limits::{HANDSHAKE_NS_MAX, SWAP_ATTEMPTS_MAX},
    way::{PENDING_MAX, Way},
};

use crate::{
    atomic::{self, word},
    charge, source,
};

/// Counts a connection of a source that begins its handshake, or ends it.
#[inline(always)]
pub(crate) fn count(way: *mut Way, begins: bool) {
    for _ in 0..SWAP_ATTEMPTS_MAX {
        let seen = source::meta(way);
        let pending = seen.pending();
        // At the most nobody counts down: some are not counted. It ends with `forget`.
        if !seen.is_occupied() || pending == PENDING_MAX || !begins && pending == 0 {
            return;
        }
        let counted = seen.with_pending(if begins { pending + 1 } else { pending - 1 });
        if atomic::swap(word!(way, meta), seen.0, counted.0).is_ok() {
            return;
        }
    }
}

/// Has the next packets of a source looked at, whose SYN is not followed: its ClientHello is found without it.
#[inline(always)]
pub(crate) fn expect_hello(way: *mut Way, now: u64) {
    if source::meta(way).pending() == 0 {
        count(way, true);
    }
    charge::stamp_connection(way, now);
}

/// Forgets the connections of a source that were not heard of for as long as a handshake is followed: of those whose entry went
/// to another connection nobody else counts the end.
#[inline(always)]
pub(crate) fn forget(way: *mut Way, now: u64) {
    let seen = source::meta(way);
    let since = atomic::load(word!(way, connections_tat));
    if seen.is_occupied() && since.saturating_add(ticks(HANDSHAKE_NS_MAX)) < now {
        // Lost to somebody who counts: the next packet forgets.
        let _ = atomic::swap(word!(way, meta), seen.0, seen.with_pending(0).0);
    }
}
