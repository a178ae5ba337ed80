//! Sampled drops, at most so many a second on all CPUs together, and those of two clock steps at once.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use detector_common::{
    address::Family,
    budget::{TICKS_PER_NS_LOG2, burst_ticks_min, take, ticks},
    counters::TableEvent,
    packet::Packet,
    policy::DropEvent,
};

use crate::{
    account::table_event,
    atomic::{self, word},
    judge::{Decision, Packed},
    maps::{EVENTS, SETTINGS},
};

/// Sends an event for a refused packet, if the budget of events allows.
#[inline(always)]
pub(crate) fn sample(ctx: &XdpContext, decision: &Decision<'_>, packet: &Packet, bytes: u32, now: u64) {
    if may_send(now) {
        send(ctx.ctx, packet, decision.pack(), bytes, now);
    }
}

/// Writes an event. Not inlined, so that a packet without one does not carry its stack.
#[inline(never)]
fn send(ctx: *mut xdp_md, packet: &Packet, decision: u64, bytes: u32, now: u64) {
    let ctx = XdpContext::new(ctx);
    let Packed { service, class, reason, shadow, rule_counter } = Packed::unpack(decision);
    let Some(mut event) = EVENTS.reserve(0) else {
        table_event(TableEvent::EventsLost);
        return;
    };
    event.write(DropEvent {
        time_ns: now >> TICKS_PER_NS_LOG2,
        source: [packet.source.high, packet.source.low],
        destination: [packet.destination.high, packet.destination.low],
        bytes,
        interface: ctx.ingress_ifindex() as u32,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        service,
        class,
        reason,
        protocol: packet.protocol,
        version: match packet.source.family {
            Family::V4 => 4,
            Family::V6 => 6,
        },
        shadow,
        rule_counter,
        reserved: 0,
    });
    event.submit(0);
}

/// Under a flood nearly every call ends after the two loads: the word is written as often as events are sent.
#[inline(always)]
fn may_send(now: u64) -> bool {
    let Some(settings) = SETTINGS.get_ptr_mut(0) else { return false };
    let interval = atomic::load(word!(settings, event_interval));
    if interval == 0 {
        return false;
    }
    let tat = word!(settings, event_tat);
    let seen = atomic::load(tat);
    let step = ticks(atomic::load(word!(settings, clock_tick_ns)));
    match take(seen, now, interval, burst_ticks_min(interval, step)) {
        Ok(new) => atomic::swap(tat, seen, new).is_ok(),
        Err(_) => false,
    }
}
