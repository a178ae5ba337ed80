//! Floods of SYNs: while there are more than there is room for, a sample of them is followed.

use detector_common::{
    budget::ticks,
    counters::HandshakeEvent,
    flow::Rank,
    limits::{HALF_OPEN_NS_MIN, HANDSHAKE_NS_MAX, SYN_FLOOD_NS, SYN_SAMPLE},
    packet::Packet,
};

use crate::{
    account,
    atomic::{self, word},
    maps::SETTINGS,
    source::{self, BEYOND, HALF_OPEN},
};

/// A connection over TCP gave way, whose entry had this mark and time.
#[inline(always)]
pub(crate) fn note_replaced(mark: u64, time: u64, now: u64) {
    let rank = if mark == HALF_OPEN { Rank::HalfOpen } else { Rank::Open };
    let silent_for = now.saturating_sub(rank.last(time));
    if mark != HALF_OPEN {
        if mark != BEYOND && silent_for < ticks(HANDSHAKE_NS_MAX) {
            account::handshake_event(HandshakeEvent::FlowsFull);
        }
        return;
    }
    account::handshake_event(HandshakeEvent::FlowReplaced);
    // If that is not long, there are more than there is room for.
    if silent_for < ticks(HALF_OPEN_NS_MIN)
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
