//! The active policy: services, and the classes of sources.

use detector_common::{
    address::{Address, Family},
    limits::{CELLS_MAX, CLASSES_MAX, DESTINATION_SLOTS, ENDS_MAX, PARENT_CLASSES_MAX, PORT_SLOTS},
    packet::Packet,
    policy::{Class, DEFAULT_ROW, Generation, ParentClass, PolicyHeader, RuleValue, generation, slot_place},
    ranges::{self, Node, NodeV4, NodeV6},
    service::{self, DestinationSlot, PortSlot, ServiceTables},
};

use crate::{
    atomic::{self, word},
    maps::{CELLS, CLASSES, DESTINATIONS, PARENT_CLASSES, POLICIES, PORTS, RULES_V4, RULES_V6, SETTINGS},
};

/// The policy that this packet is judged by, from its first look to its last.
pub(crate) struct Policy {
    generation: Generation,
    header: &'static PolicyHeader,
}

/// What the policy says of a source.
pub(crate) struct Classification {
    /// Number of the class.
    pub(crate) number: u16,
    /// The epoch to keep with it in the source's entry; 0: do not keep it.
    pub(crate) epoch: u32,
}

impl Policy {
    /// The policy at a time; `None` before the first.
    #[inline(always)]
    pub(crate) fn at(now: u64) -> Option<Self> {
        let settings = SETTINGS.get_ptr_mut(0)?;
        let active = atomic::load(word!(settings, active));
        let deadline = atomic::load(word!(settings, deadline));
        let generation = generation(active, deadline, atomic::load(word!(settings, fallback)), now);
        if generation.epoch() == 0 {
            return None;
        }
        Some(Self { generation, header: POLICIES.get(generation.slot())? })
    }

    /// Its epoch.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u32 {
        self.generation.epoch()
    }

    /// The service that a packet is for.
    #[inline(always)]
    pub(crate) fn service(&self, packet: &Packet) -> Option<u16> {
        match find_service(self.slot(), self.header, packet) {
            0 => None,
            service => Some(service as u16),
        }
    }

    /// The class of a source at a service: some lookups more than a known source costs.
    #[inline(always)]
    pub(crate) fn classify(&self, source: Address, service: u16, now: u64) -> Option<Classification> {
        let rule = RuleValue(rule(self.slot(), self.header, source));
        let place = slot_place(self.slot(), CELLS_MAX, rule.first_cell() + service as u32);
        let mut number = CELLS.get(place)?.class as u16;
        for _ in 0..ENDS_MAX {
            let class = self.class(number)?;
            if !class.has_ended(now) {
                break;
            }
            number = class.next;
        }
        Some(Classification { number, epoch: if rule.is_cached() { self.epoch() } else { 0 } })
    }

    /// The class of a number.
    #[inline(always)]
    pub(crate) fn class(&self, number: u16) -> Option<&'static Class> {
        CLASSES.get(slot_place(self.slot(), CLASSES_MAX, number as u32))
    }

    /// The slot of the policy.
    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.generation.slot()
    }

    /// The parent class of a number in a slot; `None` for 0, "not limited".
    #[inline(always)]
    pub(crate) fn parent_class_in(slot: u32, class: u16) -> Option<&'static ParentClass> {
        if class == 0 {
            return None;
        }
        PARENT_CLASSES.get(slot_place(slot, PARENT_CLASSES_MAX, class as u32))
    }
}

/// The number of a packet's service, or 0. Not inlined, for its stack.
#[inline(never)]
fn find_service(slot: u32, header: &PolicyHeader, packet: &Packet) -> u64 {
    service::find(&Tables { slot }, header, packet).map_or(0, u64::from)
}

/// The value of the most specific source prefix.
#[inline(always)]
fn rule(slot: u32, header: &PolicyHeader, source: Address) -> u32 {
    match source.family {
        Family::V4 if header.rules_v4 != 0 => rule_v4(slot, source.high),
        Family::V6 if header.rules_v6 != 0 => rule_v6(slot, source.high, source.low),
        _ => DEFAULT_ROW,
    }
}

/// A node of as many words.
#[inline(always)]
fn node<N: Node, const WORDS: usize>(words: &[u64; WORDS]) -> &N {
    const { assert!(size_of::<N>() == WORDS * size_of::<u64>() && align_of::<N>() <= align_of::<u64>()) };
    // SAFETY: as large and no more aligned; a node is plain numbers.
    unsafe { &*core::ptr::from_ref(words).cast() }
}

/// A function of numbers with external linkage, so that the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rule_v4(slot: u32, high: u64) -> u32 {
    let Some(nodes) = RULES_V4.get(slot) else { return DEFAULT_ROW };
    ranges::find::<NodeV4, _>(|number| nodes.get(number).map(node), (high >> 32) as u32, DEFAULT_ROW)
}

/// As [`rule_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rule_v6(slot: u32, high: u64, low: u64) -> u32 {
    let Some(nodes) = RULES_V6.get(slot) else { return DEFAULT_ROW };
    ranges::find::<NodeV6, _>(|number| nodes.get(number).map(node), (high, low), DEFAULT_ROW)
}

struct Tables {
    slot: u32,
}

impl ServiceTables for Tables {
    #[inline(always)]
    fn destination(&self, place: u32) -> Option<&DestinationSlot> {
        DESTINATIONS.get(slot_place(self.slot, DESTINATION_SLOTS, place))
    }

    #[inline(always)]
    fn port(&self, place: u32) -> Option<&PortSlot> {
        PORTS.get(slot_place(self.slot, PORT_SLOTS, place))
    }
}
