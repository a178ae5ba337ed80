//! Charging budgets: every budget is asked first, then every one is charged, so a packet that is dropped costs nothing.

use detector_common::{
    budget::{self, Budget},
    counters::TableEvent,
    policy::{Class, ParentClass},
    verdict::Reason,
    way::Way,
};

use crate::{
    account,
    atomic::{MapWord, word},
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

impl Step {
    /// The step of a number.
    #[inline(always)]
    pub(crate) fn of(number: u8) -> Self {
        match number {
            0 => Self::Ask,
            1 => Self::Charge,
            _ => Self::Both,
        }
    }
}

/// Asks and charges the budgets of a source.
#[inline(always)]
pub(crate) fn own(class: &Class, way: *mut Way, demand: &Demand, step: Step) -> Result<(), Reason> {
    let what = What { bytes: demand.bytes, connection: demand.connection, step };
    result_of(charge_own(class, way, demand.now, what.pack()))
}

/// A demand but its time, and what to do with it, in one word: for a function that is not inlined.
struct What {
    bytes: u32,
    connection: bool,
    step: Step,
}

impl What {
    #[inline(always)]
    fn pack(&self) -> u64 {
        self.bytes as u64 | (self.connection as u64) << 32 | (self.step as u64) << 40
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        Self { bytes: word as u32, connection: word >> 32 & 1 != 0, step: Step::of((word >> 40) as u8) }
    }
}

/// Not inlined, for its stack. `what`: see [`What`]; the result: see [`number_of`].
#[inline(never)]
fn charge_own(class: &Class, way: *mut Way, now: u64, what: u64) -> u64 {
    let What { bytes, connection, step } = What::unpack(what);
    let demand = Demand { now, bytes, connection };
    let budgets = Budgets::of_class(class);
    let mut result = Ok(());
    if step != Step::Charge {
        result = budgets.ask(way, &demand);
    }
    if result.is_ok() && step != Step::Ask {
        result = budgets.charge(way, &demand);
    }
    number_of(result)
}

/// The outcome of a charge as a number, for functions that are not inlined: the reason's, or that of "conforming".
#[inline(always)]
pub(crate) fn number_of(result: Result<(), Reason>) -> u64 {
    match result {
        Ok(()) => Reason::Conforming as u64,
        Err(reason) => reason as u64,
    }
}

/// The outcome of such a number.
#[inline(always)]
pub(crate) fn result_of(number: u64) -> Result<(), Reason> {
    match Reason::from_number(number as u8) {
        None | Some(Reason::Conforming) => Ok(()),
        Some(reason) => Err(reason),
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
fn packets_tat(way: *mut Way) -> MapWord {
    MapWord(word!(way, packets_tat))
}

#[inline(always)]
fn bytes_tat(way: *mut Way) -> MapWord {
    MapWord(word!(way, bytes_tat))
}

#[inline(always)]
fn connections_tat(way: *mut Way) -> MapWord {
    MapWord(word!(way, connections_tat))
}

/// Where an entry keeps the state of a parent's budget of new sources.
#[inline(always)]
pub(crate) fn new_sources_tat(way: *mut Way) -> MapWord {
    MapWord(word!(way, special_tat))
}

/// Notes when an entry was last used.
#[inline(always)]
pub(crate) fn stamp(way: *mut Way, now: u64) {
    budget::stamp(&packets_tat(way), now);
}

/// Notes when a source last asked for a connection, where no budget does.
#[inline(always)]
pub(crate) fn stamp_connection(way: *mut Way, now: u64) {
    budget::stamp(&connections_tat(way), now);
}

/// Whether a cost conforms; nothing is charged.
#[inline(always)]
pub(crate) fn ask(tat: MapWord, budget: &Budget, cost: u64, now: u64, reason: Reason) -> Result<(), Reason> {
    budget::ask(&tat, budget, cost, now).map_err(|_| reason)
}

/// Charges a cost if it conforms.
#[inline(always)]
pub(crate) fn charge(
    tat: MapWord,
    budget: &Budget,
    cost: u64,
    now: u64,
    reason: Reason,
) -> Result<(), Reason> {
    let contended = || account::table_event(TableEvent::Contended);
    budget::charge(&tat, budget, cost, now, contended).map_err(|_| reason)
}
