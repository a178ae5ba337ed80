//! Fleets as the program knows them: one actor behind many sources, which share one budget.
//!
//! A source that belongs to a fleet has the fleet's slot in its entry ([`crate::way::Meta::fleet`]), and every packet of it is charged to
//! the fleet's budgets beside its own. A newcomer's entry gets it from the table of members; clients with a key that is the fleet's own are
//! charged at their ClientHello, whoever their source is.

use crate::{
    abi_struct,
    budget::Budget,
    limits::{FLEET_SLOTS, INCIDENT_RULES_MAX, POLICY_RULE_COUNTERS},
    policy::is_enforced,
    table::Key,
};

/// The bit of [`crate::generation::Settings::fleets`] that says that some fleets are known by a key. Slot 0 is no fleet's.
pub const HAS_KEYS: u64 = 1;

/// The bit of [`crate::generation::Settings::fleets`] that says that the fleet in a slot is acted on; 0 for a slot that is none.
#[inline(always)]
pub const fn acts_bit(slot: u32) -> u64 {
    if slot == 0 || slot as usize >= FLEET_SLOTS { 0 } else { 1 << slot }
}

/// Where the packets are counted that the budget of the fleet in a slot refused, see [`crate::policy::RuleDrops`].
#[inline(always)]
pub const fn rule_counter(slot: u32) -> u16 {
    (POLICY_RULE_COUNTERS + INCIDENT_RULES_MAX) as u16 + (slot as u16 & (FLEET_SLOTS as u16 - 1))
}

/// The slot whose refusals are counted there; `None`: it is a rule's.
pub const fn slot_of_counter(counter: u16) -> Option<u32> {
    match (counter as usize).checked_sub(POLICY_RULE_COUNTERS + INCIDENT_RULES_MAX) {
        Some(slot) if slot > 0 && slot < FLEET_SLOTS => Some(slot as u32),
        _ => None,
    }
}

abi_struct! {
    /// A fleet that is acted on. The first line is the daemon's, the second one the program's.
    #[derive(Default)]
    pub struct FleetSlot: 128 {
        /// The fleet's number; 0: the slot is free. Of slot 0, which is no fleet's: not 0 while all actions on fleets are stopped.
        pub id: u64,
        /// When it ends, ticks.
        pub until: u64,
        /// Budget of the packets of all members.
        pub packets: Budget,
        /// Budget of their new connections, and of the handshakes of clients with its keys.
        pub connections: Budget,
        /// The service.
        pub service: u32,
        /// Of so many clients with its keys in a hundred, by the keyed hash of their source, handshakes are charged.
        pub enforced_percent: u32,
        /// 0.
        pub reserved: u64,
        /// Theoretical arrival time of the budget of packets, ticks.
        pub packets_tat: u64,
        /// Theoretical arrival time of the budget of connections, ticks.
        pub connections_tat: u64,
        /// 0.
        pub reserved_state: [u64; 6],
    }
}

impl FleetSlot {
    /// Whether a client with one of its keys is charged, by the keyed hash of its source, at a time in ticks.
    #[inline(always)]
    pub const fn is_charged(&self, source_hash: u64, now: u64) -> bool {
        now < self.until && is_enforced(source_hash, self.enforced_percent as u8)
    }
}

abi_struct! {
    /// A source that belongs to a fleet: the key of its entry.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct FleetMember: 16 {
        /// See [`Key::prefix`].
        pub prefix: u64,
        /// See [`Key::tag`]: the service is in it.
        pub tag: u64,
    }
}

impl From<Key> for FleetMember {
    #[inline(always)]
    fn from(Key { prefix, tag }: Key) -> Self {
        Self { prefix, tag }
    }
}

abi_struct! {
    /// A client of a fleet, by both its fingerprints.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct FleetKey: 24 {
        /// Key of its SYN.
        pub syn_key: u64,
        /// Key of its ClientHello.
        pub tls_key: u64,
        /// The service.
        pub service: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RULE_COUNTERS;

    #[test]
    fn every_slot_has_a_bit_and_a_counter_of_its_own() {
        let slots = 1..FLEET_SLOTS as u32;
        let bits = slots.clone().fold(HAS_KEYS, |bits, slot| {
            assert_eq!(bits & acts_bit(slot), 0, "slot {slot}");
            bits | acts_bit(slot)
        });
        assert_eq!(bits, u64::MAX);
        assert_eq!((acts_bit(0), acts_bit(FLEET_SLOTS as u32)), (0, 0));
        for slot in slots {
            assert_eq!(slot_of_counter(rule_counter(slot)), Some(slot));
            assert!(usize::from(rule_counter(slot)) < RULE_COUNTERS);
        }
        let of_rules = (POLICY_RULE_COUNTERS + INCIDENT_RULES_MAX) as u16;
        assert_eq!([0, 1, of_rules - 1, of_rules].map(slot_of_counter), [None; 4]);
    }

    #[test]
    fn an_end_ends_and_a_part_is_held_out() {
        let slot = FleetSlot { until: 1000, enforced_percent: 95, ..FleetSlot::default() };
        let charged = (0..10_000_u64).filter(|number| slot.is_charged(number * 0x9e37_79b9_7f4a_7c15, 999));
        let charged = charged.count();
        assert!((9_400..9_600).contains(&charged), "{charged}");
        assert!(!slot.is_charged(0, 1000));
    }
}
