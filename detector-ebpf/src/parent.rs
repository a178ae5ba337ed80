//! Budgets of the prefixes around a source: /24 of IPv4, /56 and /48 of IPv6.

use detector_common::{
    address::{Address, Family},
    budget::Budget,
    counters::TableEvent,
    packet::Packet,
    policy::{Class, ParentClass},
    table::{Key, Lineage, Unit},
    verdict::Reason,
    way::Way,
};

use crate::{
    account,
    charge::{self, Budgets, Demand, Step},
    policy::Policy,
    source::{self, Created, Owner, Table},
};

/// Whether a class names any parent. Most do not, and pay one test.
#[inline(always)]
pub(crate) fn has_parents(class: &Class) -> bool {
    class.v4_24 | class.v6_56 | class.v6_48 != 0
}

/// What is charged to the parents.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// A packet.
    Packet = 0,
    /// A packet that asks for a new connection.
    Connection = 1,
    /// A source that is to be given an entry.
    NewSource = 2,
}

impl Purpose {
    /// What a packet of a known source is charged as.
    #[inline(always)]
    pub(crate) fn of(demand: &Demand) -> Self {
        if demand.connection { Self::Connection } else { Self::Packet }
    }
}

/// The parents of a source at a service.
pub(crate) struct Around<'a> {
    slot: u32,
    source: Address,
    service: u16,
    class: &'a Class,
}

impl<'a> Around<'a> {
    /// Those of a packet's source.
    #[inline(always)]
    pub(crate) fn new(policy: &Policy, packet: &Packet, service: u16, class: &'a Class) -> Self {
        Self { slot: policy.slot(), source: packet.source, service, class }
    }

    /// Charges all parents or none.
    #[inline(always)]
    pub(crate) fn ask_and_charge(&self, purpose: Purpose, demand: &Demand) -> Result<(), Reason> {
        self.step(purpose, Step::Ask, demand)?;
        self.step(purpose, Step::Charge, demand)
    }

    /// Asks all parents, or charges them.
    #[inline(always)]
    pub(crate) fn step(&self, purpose: Purpose, step: Step, demand: &Demand) -> Result<(), Reason> {
        let (near, near_class, far_class) = match self.source.family {
            Family::V4 => (Unit::V4Net24, self.class.v4_24, 0),
            Family::V6 => (Unit::V6Net56, self.class.v6_56, self.class.v6_48),
        };
        self.step_of(near, near_class, purpose, step, demand)?;
        self.step_of(Unit::V6Net48, far_class, purpose, step, demand)
    }

    #[inline(always)]
    fn step_of(
        &self,
        unit: Unit,
        class: u16,
        purpose: Purpose,
        step: Step,
        demand: &Demand,
    ) -> Result<(), Reason> {
        if class == 0 {
            return Ok(());
        }
        let key = Key::of_parent(self.source, unit, self.service, Lineage(self.class.lineage));
        let what = What { tag: key.tag as u16, class, slot: self.slot as u8, purpose, step };
        charge::result_of(charge_parent(key.prefix, what.pack(), demand.now, demand.bytes as u64))
    }
}

/// Which parent, and what to do with it, in one word: for a function that the verifier walks once.
struct What {
    tag: u16,
    class: u16,
    slot: u8,
    purpose: Purpose,
    step: Step,
}

impl What {
    #[inline(always)]
    fn pack(&self) -> u64 {
        self.tag as u64
            | (self.class as u64) << 16
            | (self.slot as u64) << 32
            | (self.purpose as u64) << 40
            | (self.step as u64) << 48
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        Self {
            tag: word as u16,
            class: (word >> 16) as u16,
            slot: (word >> 32) as u8,
            purpose: match (word >> 40) as u8 {
                0 => Purpose::Packet,
                1 => Purpose::Connection,
                _ => Purpose::NewSource,
            },
            step: Step::of((word >> 48) as u8),
        }
    }
}

/// Asks or charges one parent. `what`: see [`What`]; the result: see [`charge::number_of`].
///
/// A function of numbers with external linkage, so that the verifier walks it once and not once for every path to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_parent(prefix: u64, what: u64, now: u64, bytes: u64) -> u64 {
    let What { tag, class, slot, purpose, step } = What::unpack(what);
    let key = Key { prefix, tag: tag as u64 };
    let conforming = charge::number_of(Ok(()));
    let Some(class) = Policy::parent_class_in(slot as u32 & 1, class) else { return conforming };
    let Some(way) = entry(&key, now) else {
        // Counted once a packet, where it is asked.
        if step == Step::Ask {
            account::table_event(TableEvent::ParentsFull);
        }
        return conforming;
    };
    let demand = Demand { now, bytes: bytes as u32, connection: purpose == Purpose::Connection };
    let is_new_source = purpose == Purpose::NewSource;
    let parent = Parent { class, way };
    charge::number_of(if step == Step::Ask {
        parent.ask(&demand, is_new_source)
    } else {
        parent.charge(&demand, is_new_source)
    })
}

/// A prefix around a source: its class and its entry.
struct Parent {
    class: &'static ParentClass,
    way: *mut Way,
}

/// The entry of a parent. A set without an idle way leaves it out, counted.
#[inline(always)]
fn entry(key: &Key, now: u64) -> Option<*mut Way> {
    let place = source::place_in(Table::Parents, key)?;
    if let Some(found) = source::find(&place, key) {
        return Some(found.way);
    }
    match source::create(Table::Parents, key, now, Owner::default()) {
        Created::Made(attempt) | Created::Met(attempt) => Some(source::way(&place, attempt)),
        Created::Full => None,
    }
}

impl Parent {
    #[inline(always)]
    fn ask(&self, demand: &Demand, is_new_source: bool) -> Result<(), Reason> {
        if is_new_source {
            let budget: &Budget = &self.class.new_sources;
            let tat = charge::new_sources_tat(self.way);
            return charge::ask(tat, budget, budget.unit_cost(), demand.now, Reason::NewSources);
        }
        Budgets::of_parent(self.class).ask(self.way, demand)
    }

    #[inline(always)]
    fn charge(&self, demand: &Demand, is_new_source: bool) -> Result<(), Reason> {
        if is_new_source {
            let budget: &Budget = &self.class.new_sources;
            let tat = charge::new_sources_tat(self.way);
            return charge::charge(tat, budget, budget.unit_cost(), demand.now, Reason::NewSources);
        }
        Budgets::of_parent(self.class).charge(self.way, demand)
    }
}
