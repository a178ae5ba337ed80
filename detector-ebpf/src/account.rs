//! What follows from a decision: counters, the source's entry, a sampled event, and last the mode.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use detector_common::{
    branchless::bounded,
    counters::{HandshakeEvent, TableEvent, frame_kind_slot, handshake_event_slot, table_event_slot},
    packet::Packet,
    policy::Trace,
    table::Unit,
    verdict::{COUNTER_SLOTS, Counter, FIRST_DROP, counter_slot},
    way::{Refusal, outcomes_of, traffic_of},
};

use crate::{
    atomic::{self, word},
    clock, event,
    judge::{Decision, Packed},
    maps::{COUNTERS, RULE_DROPS, TRACE, VERDICTS},
};

/// Counts a decision and carries it out. The mode is applied in the last line and nowhere else.
#[inline(always)]
pub(crate) fn settle(ctx: &XdpContext, decision: &Decision<'_>, bytes: u32, now: u64) -> u32 {
    let refused = decision.reason as usize >= FIRST_DROP;
    let dropped = refused && !decision.shadow;
    count(decision, bytes);
    if refused {
        count_rule(decision);
    }
    if let Some(packet) = decision.packet {
        if packet.notes != 0 {
            count_frame_kinds(packet.notes);
        }
        if let Some(way) = decision.way {
            atomic::add(word!(way, traffic), traffic_of(bytes));
            if refused {
                let refusal = Refusal::new(now, decision.reason as u8);
                atomic::store(word!(way, special_tat), refusal.0);
            }
            if refused || packet.connection {
                atomic::add(word!(way, outcomes), outcomes_of(refused, packet.connection));
            }
        }
        if refused {
            event::sample(ctx, decision, packet, bytes, now);
        }
    }
    if clock::is_virtual() {
        trace(decision.packet, decision.pack(), bytes);
    }
    if dropped { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn count(decision: &Decision<'_>, bytes: u32) {
    let Some(counters) = VERDICTS.get_ptr_mut(decision.service as u32) else { return };
    // The verifier does not know what the compiler does: that every decision has a slot.
    let slot = bounded::<{ COUNTER_SLOTS.next_power_of_two() - 1 }>(counter_slot(
        decision.reason,
        decision.shadow,
    ) as u64);
    if slot >= COUNTER_SLOTS {
        return;
    }
    let first = counters.cast::<Counter>();
    // SAFETY: the slot is inside the counters.
    let counter = unsafe { first.add(slot) };
    // SAFETY: this CPU's counter, which no other CPU writes.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes as u64;
}

/// Counts what a rule refused.
#[inline(always)]
fn count_rule(decision: &Decision<'_>) {
    if decision.rule_counter == 0 {
        return;
    }
    let Some(drops) = RULE_DROPS.get_ptr_mut(decision.rule_counter as u32) else { return };
    // SAFETY: this CPU's counter, which no other CPU writes.
    let drops = unsafe { &mut *drops };
    drops.dropped += !decision.shadow as u64;
    drops.shadowed += decision.shadow as u64;
}

#[inline(always)]
fn count_frame_kinds(notes: u32) {
    for bit in 0..detector_common::counters::FRAME_KINDS.len() as u32 {
        if notes & 1 << bit != 0 {
            increment(frame_kind_slot(bit));
        }
    }
}

/// Counts something that happened inside the tables.
#[inline(always)]
pub(crate) fn table_event(event: TableEvent) {
    increment(table_event_slot(event));
}

/// Counts what became of a handshake.
#[inline(always)]
pub(crate) fn handshake_event(event: HandshakeEvent) {
    increment(handshake_event_slot(event));
}

#[inline(always)]
fn increment(slot: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: this CPU's counter, which no other CPU writes.
        unsafe { *counter += 1 };
    }
}

/// Tells tests and replay what was decided. Not inlined, for its stack.
#[inline(never)]
fn trace(packet: Option<&Packet>, decision: u64, bytes: u32) {
    let Some(trace) = TRACE.get_ptr_mut(0) else { return };
    let Packed { service, class, reason, shadow, .. } = Packed::unpack(decision);
    let refused = reason as usize >= FIRST_DROP;
    let (prefix, unit, connection) = match packet {
        Some(packet) => {
            (packet.source.high, Unit::of_source(packet.source.family) as u8, packet.connection as u8)
        }
        None => (0, 0, 0),
    };
    // SAFETY: the element is inside its map; a test that runs two CPUs does not read it.
    let sequence = unsafe { (*trace).sequence };
    let dropped = refused && shadow == 0;
    let trace_of = Trace {
        sequence: sequence + 1,
        prefix,
        bytes,
        service,
        class,
        reason,
        dropped: dropped as u8,
        unit,
        connection,
        shadow: (refused && !dropped) as u8,
        reserved: [0; 3],
        syn_key: 0,
        tls_key: 0,
    };
    // SAFETY: as above.
    unsafe { trace.write(trace_of) };
}

/// Tells tests and replay what was learned of a client by the packet that was traced last.
#[inline(always)]
pub(crate) fn trace_keys(syn_key: u64, tls_key: u64) {
    let Some(trace) = TRACE.get_ptr_mut(0) else { return };
    atomic::store(word!(trace, syn_key), syn_key);
    atomic::store(word!(trace, tls_key), tls_key);
}
