//! The active policy: services, and the classes of sources.

use detector_common::{
    address::{Address, Family},
    generation::{Generation, generation},
    limits::{CELLS_MAX, DESTINATION_SLOTS, ENDS_MAX, PARENT_CLASSES_MAX, PORT_SLOTS},
    packet::Packet,
    policy::{
        Class, DEFAULT_ROW, ParentClass, PolicyHeader, RuleValue, incident_cell_place, incident_tree,
        is_share_enforced, share_of, slot_place,
    },
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
    pub(crate) fn classify(
        &self,
        source: Address,
        service: u16,
        hash: u64,
        now: u64,
    ) -> Option<Classification> {
        let is_v6 = matches!(source.family, Family::V6);
        let asked = service as u64 | (is_v6 as u64) << 16 | share_of(hash) << 32;
        match classify(self.generation.0, source.high, source.low, asked, now) {
            NO_CLASS => None,
            found => {
                let epoch = if found & UNCACHED == 0 { self.epoch() } else { 0 };
                Some(Classification { number: found as u16, epoch })
            }
        }
    }

    /// The class of a number.
    #[inline(always)]
    pub(crate) fn class(&self, number: u16) -> Option<&'static Class> {
        class_of(self.generation, number)
    }

    /// Which it is.
    #[inline(always)]
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether rules may be about fingerprints. The header is looked up again, so that it need not be kept until here.
    #[inline(always)]
    pub(crate) fn has_client_rules(&self) -> bool {
        self.generation.client_incidents().is_some()
            || POLICIES.get(self.slot()).is_some_and(|header| header.client_rules != 0)
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

/// The class of a number.
#[inline(always)]
pub(crate) fn class_of(generation: Generation, number: u16) -> Option<&'static Class> {
    CLASSES.get(generation.class_place(number as u32))
}

/// Returned by [`classify`]: a table lacks what another one names.
const NO_CLASS: u64 = u64::MAX;

/// A bit of what [`classify`] returns: the class must not be kept in the entry.
const UNCACHED: u64 = 1 << 16;

/// The class of a source, maybe with [`UNCACHED`]; or [`NO_CLASS`]. `asked`: the service, in bit 16 whether the source is of
/// IPv6, and from bit 32 its share of the hash.
///
/// A function of numbers with external linkage, so that the verifier walks it once, and known sources do not carry its stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify(generation: u64, high: u64, low: u64, asked: u64, now: u64) -> u64 {
    let generation = Generation(generation);
    let (slot, service) = (generation.slot(), asked as u16 as u32);
    let Some(header) = POLICIES.get(slot) else { return NO_CLASS };
    let is_v6 = asked >> 16 & 1 != 0;
    let value = RuleValue(match is_v6 {
        false if header.rules_v4 != 0 => rule_v4(slot, high),
        true if header.rules_v6 != 0 => rule_v6(slot, high, low),
        _ => DEFAULT_ROW,
    });
    let place = slot_place(slot, CELLS_MAX, value.first_cell() + service);
    let Some(number) = lasting(generation, place, now) else { return NO_CLASS };
    let mut found = (number as u64, value.is_cached());
    if let Some(slot) = generation.incidents() {
        let tree = incident_tree(slot);
        let value = RuleValue(if is_v6 { rule_v6(tree, high, low) } else { rule_v4(tree, high) });
        let place = incident_cell_place(slot, value.first_cell() + service);
        let Some(incident) = lasting(generation, place, now) else { return NO_CLASS };
        found.1 &= value.is_cached();
        if incident != 0 {
            // What follows the one that gives way may prevail, and nothing at the class of the other says when that is.
            let gives_way = if prevails(generation, number, incident, asked >> 32) {
                incident
            } else {
                found.0 = incident as u64;
                number
            };
            found.1 &= class_of(generation, gives_way).is_some_and(|class| class.until == 0);
        }
    }
    found.0 | if found.1 { 0 } else { UNCACHED }
}

/// The class of a cell, or the one that follows it where its rule has ended.
#[inline(always)]
fn lasting(generation: Generation, cell: u32, now: u64) -> Option<u16> {
    let mut number = CELLS.get(cell)?.class as u16;
    for _ in 0..ENDS_MAX {
        let class = class_of(generation, number)?;
        if !class.has_ended(now) {
            break;
        }
        number = class.next;
    }
    Some(number)
}

/// Whether the class of a policy stays in force beside that of an incident rule.
#[inline(always)]
fn prevails(generation: Generation, of_policy: u16, incident: u16, share: u64) -> bool {
    match (class_of(generation, of_policy), class_of(generation, incident)) {
        (Some(of_policy), Some(incident)) => {
            of_policy.prevails_over(incident, is_share_enforced(share, of_policy.enforced_percent))
        }
        _ => true,
    }
}

/// The number of a packet's service, or 0. Not inlined, for its stack.
#[inline(never)]
fn find_service(slot: u32, header: &PolicyHeader, packet: &Packet) -> u64 {
    service::find(&Tables { slot }, header, packet).map_or(0, u64::from)
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
