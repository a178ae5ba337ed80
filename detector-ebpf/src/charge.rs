//! Charging budgets: every budget is asked first, then every one is charged, so a packet that is dropped costs nothing.

use detector_common::{
    budget::{Budget, take, ticks},
    counters::TableEvent,
    limits::SWAP_ATTEMPTS_MAX,
    policy::{Class, ParentClass},
    table::Way,
    verdict::Reason,
};

use crate::{
    account,
    atomic::{self, word},
};

/// What a packet asks for.
pub(crate) struct Demand {
    /// Now, ticks.
    pub(crate) now: u64,
    /// Length of the frame.
    pub(crate) bytes: u32,
    /// It asks for a new connection.
    pub(crate) connection: bool,
}

/// Which half of a charge.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Find out whether the packet conforms.
    Ask = 0,
    /// Charge it.
    Charge = 1,
    /// The one, and if it does, the other.
    Both = 2,
}

/// Asks and charges the budgets of a source.
#[inline(always)]
pub(crate) fn own(class: &Class, way: *mut Way, demand: &Demand, step: Step) -> Result<(), Reason> {
    let what = demand.bytes as u64 | (demand.connection as u64) << 32 | (step as u64) << 40;
    match charge_own(class, way, demand.now, what) {
        0 => Ok(()),
        1 => Err(Reason::Packets),
        2 => Err(Reason::Bytes),
        _ => Err(Reason::Connections),
    }
}

/// Not inlined, for its stack. `what`: bytes (32 bits), whether a connection (8), a [`Step`].
#[inline(never)]
fn charge_own(class: &Class, way: *mut Way, now: u64, what: u64) -> u64 {
    let demand = Demand { now, bytes: what as u32, connection: what >> 32 & 1 != 0 };
    let step = (what >> 40) as u8;
    let budgets = Budgets::of_class(class);
    let mut result = Ok(());
    if step != Step::Charge as u8 {
        result = budgets.ask(way, &demand);
    }
    if result.is_ok() && step != Step::Ask as u8 {
        result = budgets.charge(way, &demand);
    }
    match result {
        Ok(()) => 0,
        Err(Reason::Packets) => 1,
        Err(Reason::Bytes) => 2,
        Err(_) => 3,
    }
}

/// The budgets of an entry and the reasons that they give.
pub(crate) struct Budgets {
    /// Packets.
    pub(crate) packets: Budget,
    /// Bytes.
    pub(crate) bytes: Budget,
    /// New connections.
    pub(crate) connections: Budget,
    /// The reasons of the three.
    pub(crate) reasons: [Reason; 3],
}

impl Budgets {
    /// Those of a source.
    #[inline(always)]
    pub(crate) fn of_class(class: &Class) -> Self {
        Self {
            packets: class.packets,
            bytes: class.bytes,
            connections: class.connections,
            reasons: [Reason::Packets, Reason::Bytes, Reason::Connections],
        }
    }

    /// Those of a prefix around sources.
    #[inline(always)]
    pub(crate) fn of_parent(class: &ParentClass) -> Self {
        Self {
            packets: class.packets,
            bytes: class.bytes,
            connections: class.connections,
            reasons: [Reason::ParentPackets, Reason::ParentBytes, Reason::ParentConnections],
        }
    }

    /// Whether a packet conforms, with nothing charged.
    #[inline(always)]
    pub(crate) fn ask(&self, way: *mut Way, demand: &Demand) -> Result<(), Reason> {
        ask(packets_tat(way), &self.packets, self.packets.unit_cost(), demand.now, self.reasons[0])?;
        ask(bytes_tat(way), &self.bytes, self.bytes.bytes_cost(demand.bytes), demand.now, self.reasons[1])?;
        if demand.connection {
            ask(
                connections_tat(way),
                &self.connections,
                self.connections.unit_cost(),
                demand.now,
                self.reasons[2],
            )?;
        }
        Ok(())
    }

    /// Charges a packet that conformed a moment ago. It may not any more, since other CPUs charge too: then what was
    /// charged before stays charged, at most one packet for each such race.
    #[inline(always)]
    pub(crate) fn charge(&self, way: *mut Way, demand: &Demand) -> Result<(), Reason> {
        if self.packets.is_limited() {
            charge(packets_tat(way), &self.packets, self.packets.unit_cost(), demand.now, self.reasons[0])?;
        } else {
            stamp(way, demand.now);
        }
        charge(
            bytes_tat(way),
            &self.bytes,
            self.bytes.bytes_cost(demand.bytes),
            demand.now,
            self.reasons[1],
        )?;
        if demand.connection {
            charge(
                connections_tat(way),
                &self.connections,
                self.connections.unit_cost(),
                demand.now,
                self.reasons[2],
            )?;
        }
        Ok(())
    }
}

#[inline(always)]
fn packets_tat(way: *mut Way) -> *mut u64 {
    word!(way, packets_tat)
}

#[inline(always)]
fn bytes_tat(way: *mut Way) -> *mut u64 {
    word!(way, bytes_tat)
}

#[inline(always)]
fn connections_tat(way: *mut Way) -> *mut u64 {
    word!(way, connections_tat)
}

/// Where an entry keeps the state of a parent's budget of new sources.
#[inline(always)]
pub(crate) fn new_sources_tat(way: *mut Way) -> *mut u64 {
    word!(way, special_tat)
}

/// Notes when an entry was last used, where no packet budget does. Says nothing of budgets: the time is not ahead.
#[inline(always)]
pub(crate) fn stamp(way: *mut Way, now: u64) {
    if atomic::load(packets_tat(way)) < now {
        atomic::store(packets_tat(way), now);
    }
}

/// What a state may be ahead of its budget's own bound before the rest is taken for the debt of an earlier policy.
const FOREIGN_DEBT_TICKS: u64 = ticks(1_000_000_000);

/// Whether a cost conforms; nothing is charged.
#[inline(always)]
pub(crate) fn ask(tat: *mut u64, budget: &Budget, cost: u64, now: u64, reason: Reason) -> Result<(), Reason> {
    if !budget.is_limited() {
        return Ok(());
    }
    let seen = atomic::load(tat);
    match take(seen, now, cost, budget.burst_ticks) {
        Ok(_) => Ok(()),
        Err(wait) => {
            // More than this budget could ever owe: the debt is an earlier policy's. It counts as spent, no more. A
            // second of slack, since other CPUs may have read a later clock. A lost swap leaves it to the next packet.
            if wait.ticks > cost + FOREIGN_DEBT_TICKS {
                let _ = atomic::swap(tat, seen, now + budget.burst_ticks);
            }
            Err(reason)
        }
    }
}

/// Charges a cost if it conforms.
///
/// Compare-and-swap; after [`SWAP_ATTEMPTS_MAX`] lost races an addition that is taken back when it went too far. The
/// addition does not raise a state that lies in the past to now, but a state that other CPUs just moved does not.
#[inline(always)]
pub(crate) fn charge(
    tat: *mut u64,
    budget: &Budget,
    cost: u64,
    now: u64,
    reason: Reason,
) -> Result<(), Reason> {
    if !budget.is_limited() {
        return Ok(());
    }
    let mut seen = atomic::load(tat);
    for _ in 0..SWAP_ATTEMPTS_MAX {
        let Ok(new) = take(seen, now, cost, budget.burst_ticks) else { return Err(reason) };
        match atomic::swap(tat, seen, new) {
            Ok(()) => return Ok(()),
            Err(other) => seen = other,
        }
    }
    account::table_event(TableEvent::Contended);
    let before = atomic::add(tat, cost);
    if take(before, now, cost, budget.burst_ticks).is_ok() {
        return Ok(());
    }
    atomic::add(tat, cost.wrapping_neg());
    Err(reason)
}
