//! Budgets that the members of a fleet share.

use detector_common::{
    budget::Budget,
    fleet::{FleetKey, FleetMember, FleetSlot, HAS_KEYS, acts_bit},
    limits::FLEET_SLOTS,
    table::Key,
    verdict::Reason,
    way::Way,
};

use crate::{
    atomic::{self, MapWord, word},
    charge::{self, Demand, Step},
    maps::{FLEET_KEYS, FLEET_MEMBERS, FLEETS, SETTINGS},
    source,
};

/// The bits of a slot's number.
const SLOT_MASK: u64 = FLEET_SLOTS as u64 - 1;

/// Which fleets are acted on, see [`detector_common::generation::Settings::fleets`].
#[inline(always)]
fn acting() -> u64 {
    match SETTINGS.get_ptr_mut(0) {
        Some(settings) => atomic::load(word!(settings, fleets)),
        None => 0,
    }
}

/// The slot of the fleet that a new source belongs to; 0: none.
#[inline(always)]
pub(crate) fn of_newcomer(key: &Key) -> u32 {
    fleet_of(key.prefix, key.tag) as u32
}

/// A function of numbers with external linkage, so that the verifier walks it once, and known sources do not carry its stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fleet_of(prefix: u64, tag: u64) -> u64 {
    if acting() == 0 {
        return 0;
    }
    let key = FleetMember { prefix, tag };
    // SAFETY: the daemon replaces whole values, and old ones live until this program has ended (RCU).
    unsafe { FLEET_MEMBERS.get(key) }.map_or(0, |slot| *slot & SLOT_MASK)
}

/// Asks or charges the budgets of the fleet that a source belongs to. Nothing where it belongs to none.
#[inline(always)]
pub(crate) fn charge(way: *mut Way, demand: &Demand, step: Step) -> Result<(), Reason> {
    let slot = source::meta(way).fleet();
    if slot == 0 {
        return Ok(());
    }
    let what = slot as u64 | (demand.connection as u64) << 8 | (step as u64) << 16;
    charge::result_of(charge_fleet(what, demand.now))
}

/// The slot of a fleet from its number, what a packet asks for in bit 8, and the step from bit 16 on. The result: see
/// [`charge::number_of`].
///
/// A function of numbers with external linkage, so that the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_fleet(what: u64, now: u64) -> u64 {
    let slot = (what & SLOT_MASK) as u32;
    let (is_connection, step) = (what >> 8 & 1 != 0, Step::of((what >> 16) as u8));
    let conforming = charge::number_of(Ok(()));
    if acting() & acts_bit(slot) == 0 {
        return conforming;
    }
    let Some(fleet) = FLEETS.get_ptr_mut(slot) else { return conforming };
    if now >= atomic::load(word!(fleet, until)) {
        return conforming;
    }
    let budgets = Budgets::of(fleet);
    let mut result = Ok(());
    if step != Step::Charge {
        result = budgets.ask(is_connection, now);
    }
    if result.is_ok() && step != Step::Ask {
        result = budgets.charge(is_connection, now);
    }
    charge::number_of(result)
}

/// The budgets of a fleet and their states.
struct Budgets {
    packets: (MapWord, Budget),
    connections: (MapWord, Budget),
}

impl Budgets {
    #[inline(always)]
    fn of(fleet: *mut FleetSlot) -> Self {
        // SAFETY: the element is inside its map. The daemon may write a budget meanwhile: then one packet is charged by half of the
        // old one and half of the new one.
        let of = unsafe { &*fleet };
        Self {
            packets: (MapWord(word!(fleet, packets_tat)), of.packets),
            connections: (MapWord(word!(fleet, connections_tat)), of.connections),
        }
    }

    #[inline(always)]
    fn ask(&self, is_connection: bool, now: u64) -> Result<(), Reason> {
        let (tat, packets) = &self.packets;
        charge::ask(*tat, packets, packets.unit_cost(), now, Reason::Fleet)?;
        if is_connection {
            let (tat, connections) = &self.connections;
            charge::ask(*tat, connections, connections.unit_cost(), now, Reason::Fleet)?;
        }
        Ok(())
    }

    /// Charges a packet that conformed a moment ago; as with all budgets, one that loses a race for its second one has paid its first.
    #[inline(always)]
    fn charge(&self, is_connection: bool, now: u64) -> Result<(), Reason> {
        let (tat, packets) = &self.packets;
        charge::charge(*tat, packets, packets.unit_cost(), now, Reason::Fleet)?;
        if is_connection {
            let (tat, connections) = &self.connections;
            charge::charge(*tat, connections, connections.unit_cost(), now, Reason::Fleet)?;
        }
        Ok(())
    }
}

/// The slot of the fleet that the handshake of a client at a service is charged to, by its keys; 0: none.
#[inline(always)]
pub(crate) fn of_client(service: u16, syn_key: u64, tls_key: u64, source_hash: u64, now: u64) -> u32 {
    let acting = acting();
    if acting & HAS_KEYS == 0 {
        return 0;
    }
    let key = FleetKey { syn_key, tls_key, service: service as u64 };
    // SAFETY: as in `fleet_of`.
    let Some(slot) = (unsafe { FLEET_KEYS.get(key) }) else { return 0 };
    let slot = (*slot & SLOT_MASK) as u32;
    let Some(fleet) = FLEETS.get(slot) else { return 0 };
    if acting & acts_bit(slot) != 0 && fleet.is_charged(source_hash, now) { slot } else { 0 }
}

/// Asks or charges the budget of connections of a fleet for a handshake.
#[inline(always)]
pub(crate) fn charge_handshake(slot: u32, now: u64, step: Step) -> Result<(), Reason> {
    let Some(fleet) = FLEETS.get_ptr_mut(slot) else { return Ok(()) };
    let (tat, budget) = Budgets::of(fleet).connections;
    match step {
        Step::Ask => charge::ask(tat, &budget, budget.unit_cost(), now, Reason::Fleet),
        _ => charge::charge(tat, &budget, budget.unit_cost(), now, Reason::Fleet),
    }
}
