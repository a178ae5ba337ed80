//! Handshakes, followed from the SYN to the end of the ClientHello, and met by the first Initial of QUIC. In a program of its own, which the main one calls for the
//! few packets that it is about: so they have a stack to themselves, and the others do not pay for it.

use aya_ebpf::{Global, bindings::xdp_action, programs::XdpContext};
use detector_common::{
    counters::HandshakeEvent,
    fingerprint::Kind,
    flow::{self, Scratch},
    packet::{Layout, Packet, TCP, UDP},
    table::{Key, Unit},
    verdict::{FIRST_DROP, Reason},
    way::Way,
};

use crate::{
    account,
    admission::{self, Asked},
    atomic::{self, word},
    charge, clock, exemplar, fingerprint,
    flows::{self, Start},
    frame,
    hello::read_syn,
    initial,
    judge::{Decision, Packed},
    maps::{PROGRAMS, SCRATCH},
    pending,
    policy::Policy,
    sighting::{CONNECTION, Sighting},
    source::{self, Table},
    syn_flood,
};

/// Place of the program in [`PROGRAMS`].
const HANDSHAKES: u32 = 0;

/// 1: handshakes are followed. Set at load.
#[unsafe(no_mangle)]
static FOLLOWS_HANDSHAKES: Global<u32> = Global::new(1);

/// Hands a packet that may be part of a handshake to the program that follows them. That one decides and accounts for it, and
/// nothing comes back; this returns only for the other packets, and where there is no such program.
#[inline(always)]
pub(crate) fn hand_over(
    ctx: &XdpContext,
    policy: &Policy,
    decision: &Decision<'_>,
    layout: Layout,
    bytes: u32,
    now: u64,
) {
    if FOLLOWS_HANDSHAKES.load() == 0 {
        return;
    }
    let (Some(packet), Some(way)) = (decision.packet, decision.way) else { return };
    let is_dropped = decision.reason as usize >= FIRST_DROP && !decision.shadow;
    if is_dropped || layout == Layout::NOWHERE || !is_part(packet, layout, way) {
        return;
    }
    // A rule may be about it all the same.
    if packet.connection
        && !policy.has_client_rules()
        && syn_flood::is_on(now)
        && !syn_flood::is_sampled(packet)
    {
        pending::expect_hello(way, now);
        return account::handshake_event(HandshakeEvent::SynsSkipped);
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's scratch, which nobody else uses until this packet is done with.
    let scratch = unsafe { &mut *scratch };
    frame::copy_packet(packet, &mut scratch.packet);
    scratch.layout = layout.word();
    scratch.decision = decision.pack();
    scratch.bytes = bytes as u64;
    scratch.now = now;
    scratch.generation = policy.generation().0;
    // SAFETY: the program behind it is of the same object, and there is nothing to drop here.
    unsafe { PROGRAMS.tail_call(ctx, HANDSHAKES) };
}

/// Whether a packet may be part of a handshake: it asks for a connection, its source has one in its handshake, or it begins as a
/// ClientHello or an Initial of QUIC does. The last is looked for in every packet, since a client can make this program forget its
/// connection: by a reset that the server does not take for one, or by waiting.
#[inline(always)]
fn is_part(packet: &Packet, layout: Layout, way: *mut Way) -> bool {
    let is_tcp = packet.protocol == TCP;
    layout.begins_handshake() || is_tcp && (packet.connection || source::meta(way).pending() != 0)
}

/// What was learned of a client by one packet: keys, 0 where there is none.
struct Learned {
    syn_key: u64,
    tls_key: u64,
}

const NOTHING: Learned = Learned { syn_key: 0, tls_key: 0 };

/// Follows the handshake that a packet is part of, and accounts for the packet.
#[inline(always)]
pub(crate) fn follow(ctx: &XdpContext) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return xdp_action::XDP_PASS };
    // SAFETY: see `hand_over`.
    let handed = unsafe { &*scratch };
    let packet = &handed.packet;
    let service = Packed::unpack(handed.decision).service;
    let key = Key::new(packet.source, Unit::of_source(packet.source.family), service);
    let Some(place) = source::place(&key) else { return xdp_action::XDP_PASS };
    let way = source::attempt_in(Table::Sources, &key).map(|attempt| source::way(&place, attempt));
    let learned = match way {
        Some(way) => {
            atomic::store(word!(scratch, source_hash), place.hash);
            atomic::store(word!(scratch, fleet), source::meta(way).fleet().into());
            watch(ctx, scratch, way)
        }
        None => NOTHING,
    };
    // What it was decided before, unless the handshake was refused.
    let Packed { class, reason, shadow, rule_counter, .. } =
        Packed::unpack(atomic::load(word!(scratch, decision)));
    let decision = Decision {
        reason: Reason::from_number(reason).unwrap_or(Reason::Unjudged),
        shadow: shadow != 0,
        service,
        class,
        rule_counter,
        packet: Some(packet),
        way,
    };
    let action = account::settle(ctx, &decision, handed.bytes as u32, handed.now);
    if clock::is_virtual() {
        account::trace_keys(learned.syn_key, learned.tls_key);
    }
    action
}

/// Follows the handshake that a packet of a source, whose entry is `way`, is part of.
#[inline(always)]
fn watch(ctx: &XdpContext, scratch: *mut Scratch, way: *mut Way) -> Learned {
    // SAFETY: see `hand_over`.
    let handed = unsafe { &*scratch };
    let (packet, layout, now) = (&handed.packet, Layout::of_word(handed.layout), handed.now);
    if packet.protocol == UDP {
        initial::follow(ctx, scratch);
        return NOTHING;
    }
    let Some(segment) = frame::tcp_segment(ctx, layout) else { return NOTHING };
    let key = Key::of_flow(flow::hash(&source::seed(), packet));
    let Some(place) = source::place_in(Table::Flows, &key) else { return NOTHING };
    if packet.connection {
        let syn_key = read_syn(ctx.ctx, scratch, layout, &segment);
        charge::stamp_connection(way, now);
        let is_followed = !syn_flood::is_on(now) || syn_flood::is_sampled(packet);
        if is_followed && syn_key != 0 {
            let sighting = Sighting { variant: 0, counts: CONNECTION, ..Sighting::EMPTY };
            let service = Packed::unpack(handed.decision).service;
            if fingerprint::note(Kind::Syn, syn_key, service, handed.source_hash, now, sighting) {
                exemplar::send_syn(scratch, syn_key);
            }
        }
        let goes_on = admission::admits(Asked::Connection { syn_key });
        if !goes_on || !is_followed {
            if goes_on {
                pending::expect_hello(way, now);
                account::handshake_event(HandshakeEvent::SynsSkipped);
            }
            return Learned { syn_key, tls_key: 0 };
        }
        let start =
            Start { next_sequence: segment.sequence.wrapping_add(1), syn_key, syn_ns: clock::precise_ns() };
        flows::open(&place, &key, way, scratch, &start);
        return Learned { syn_key, tls_key: 0 };
    }
    let flow = match flows::find(&place, &key) {
        Some(flow) => {
            // Forgotten by its source, but not here: its next segments are to be looked at too.
            if source::meta(way).pending() == 0 {
                pending::count(way, true);
            }
            flow
        }
        // The SYN came before there was a program, or among too many others, or is forgotten.
        None if layout.begins_handshake() => {
            let start = Start { next_sequence: segment.sequence, syn_key: 0, syn_ns: 0 };
            match flows::open(&place, &key, way, scratch, &start) {
                Some(flow) => flow,
                None => {
                    // Charged all the same.
                    admission::admits(Asked::Handshake { syn_key: 0, tls_key: 0, is_charged: false });
                    return NOTHING;
                }
            }
        }
        None => {
            pending::forget(way, now);
            return NOTHING;
        }
    };
    Learned { syn_key: 0, tls_key: flows::advance(ctx.ctx, scratch, &flow, way, &segment) }
}
