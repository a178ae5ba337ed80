//! Reading the maps: what is active, what was counted, what a source has left.

mod active;
mod clients;
mod entries;
mod fingerprints;
mod tables;

use aya::maps::MapError;
use detector_common::{
    budget::{TICKS_PER_NS_LOG2, ticks},
    counters::COUNTERS,
    generation::{Generation, Settings},
    limits::{RULE_COUNTERS, SERVICES_MAX},
    policy::RuleDrops,
    verdict::{COUNTER_SLOTS, ServiceCounters},
};
use thiserror::Error;

use super::maps::Maps;
use crate::clock;
pub use active::{
    Active, RuleOfClass, Rules, Standing, can_refuse, consistently, incidents, tables_before_trial,
};
pub use clients::{Client, clients};
pub use entries::{
    Fill, budget_tables, entries, fill, handshakes_tat, hash, is_full, numbered_entries, parent, set, source,
};
pub use fingerprints::{Fingerprint, fingerprints};

/// Looks at the active policy before giving up: each is spoiled only by a policy that is applied meanwhile.
const LOOKS_MAX: usize = 16;

/// A policy that cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It never stayed the same for one look.
    #[error(
        "the policy changed {LOOKS_MAX} times while it was read: somebody applies policies without a pause, try again"
    )]
    Restless,
    /// Its names.
    #[error(
        "the names of the policy in the kernel cannot be read ({0}): apply it again with `detector apply FILE`"
    )]
    Manifest(String),
    /// A number that is none of a table's.
    #[error(
        "the policy in the kernel names {what} {number}, which is none: apply it again with `detector apply FILE`"
    )]
    Dangling {
        /// Of which table.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// A map.
    #[error("cannot read the maps: {}", super::load::chain(.0))]
    Map(#[from] MapError),
}

/// The time of the program's clock, ticks: the kernel's, or the virtual one where it is set.
pub fn now(maps: &Maps) -> u64 {
    match maps.virtual_clock.read(0) {
        0 => ticks(clock::kernel_ns()),
        virtual_ns => ticks(virtual_ns),
    }
}

/// Which policy packets are judged by now.
pub fn generation(maps: &Maps) -> Generation {
    maps.settings.read(0).generation(now(maps))
}

/// The epoch of the active policy; 0: none.
pub fn epoch(maps: &Maps) -> u32 {
    generation(maps).epoch()
}

/// Seconds until the policy that waits to be confirmed is taken back, rounded up; `None`: none waits.
pub fn confirm_in_s(maps: &Maps) -> Option<u64> {
    let deadline = maps.settings.read(0).deadline;
    let left_ns = deadline.checked_sub(now(maps)).filter(|&left| left > 0)? >> TICKS_PER_NS_LOG2;
    Some(left_ns.div_ceil(1_000_000_000))
}

/// The settings.
pub fn settings(maps: &Maps) -> Settings {
    maps.settings.read(0)
}

/// The verdicts of a service, summed over CPUs.
pub fn verdicts(maps: &Maps, service: u16) -> Result<ServiceCounters, MapError> {
    let mut sum = ServiceCounters::default();
    if usize::from(service) >= SERVICES_MAX {
        return Ok(sum);
    }
    for cpu in maps.verdicts.get(&service.into(), 0)?.iter() {
        for slot in 0..COUNTER_SLOTS {
            sum.slots[slot].packets += cpu.slots[slot].packets;
            sum.slots[slot].bytes += cpu.slots[slot].bytes;
        }
    }
    Ok(sum)
}

/// What a rule refused, by the number of its counter, summed over CPUs.
pub fn rule_drops(maps: &Maps, counter: u16) -> Result<RuleDrops, MapError> {
    let mut sum = RuleDrops::default();
    if counter == 0 || usize::from(counter) >= RULE_COUNTERS {
        return Ok(sum);
    }
    for cpu in maps.rule_drops.get(&counter.into(), 0)?.iter() {
        sum.dropped += cpu.dropped;
        sum.shadowed += cpu.shadowed;
    }
    Ok(sum)
}

/// The counters that are not verdicts, summed over CPUs.
pub fn counters(maps: &Maps) -> Result<[u64; COUNTERS], MapError> {
    let mut sums = [0; COUNTERS];
    for (number, sum) in sums.iter_mut().enumerate() {
        *sum = maps.counters.get(&(number as u32), 0)?.iter().sum();
    }
    Ok(sums)
}
