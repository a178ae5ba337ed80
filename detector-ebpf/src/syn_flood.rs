//! Floods of SYNs: while there are more than there is room for, a sample of them is followed.

use detector_common::{
    budget::ticks,
    counters::HandshakeEvent,
    limits::{HALF_OPEN_NS_MIN, SYN_FLOOD_NS, SYN_SAMPLE},
    packet::Packet,
};

use crate::{
    account,
    atomic::{self, word},
    maps::SETTINGS,
    source,
};

/// A connection gave way that had said nothing since its SYN came. If that is not long ago, there are more than there is room for.
#[inline(always)]
pub(crate) fn note_replaced(idle_since: u64, now: u64) {
    account::handshake_event(HandshakeEvent::FlowReplaced);
    if now.saturating_sub(idle_since) < ticks(HALF_OPEN_NS_MIN)
        && let Some(settings) = SETTINGS.get_ptr_mut(0)
    {
        atomic::store(word!(settings, syn_flood_until), now + ticks(SYN_FLOOD_NS));
    }
}

/// Whether there are more SYNs than there is room for.
#[inline(always)]
pub(crate) fn is_on(now: u64) -> bool {
    SETTINGS.get_ptr_mut(0).is_some_and(|settings| now < atomic::load(word!(settings, syn_flood_until)))
}

/// Whether a SYN is followed also then: by its port, which clients choose at random (RFC 6056) and keep when they send the SYN again.
#[inline(always)]
pub(crate) fn is_sampled(packet: &Packet) -> bool {
    (packet.source_port as u64 ^ source::seed().offsets[0]) & (SYN_SAMPLE - 1) == 0
}
