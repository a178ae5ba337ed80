//! Which policy packets are judged by: one word that changes for all of them at once, and what else changes while the program runs.

use crate::{
    abi_struct,
    limits::{CLASSES_MAX, INCIDENT_SLOTS, POLICY_SLOTS},
    policy::{client_rules, incident_class_place, slot_place},
    way::EPOCH_MAX,
};

/// Which policy packets are judged by, in one word, so that it changes for all of them at once.
///
/// | bits | meaning |
/// |---|---|
/// | 0–17 | epoch: another number with every change; 0: no policy yet |
/// | 24 | slot of the policy in every table |
/// | 25–26 | slot of the incident rules |
/// | 27 | whether there are incident rules |
/// | 28–29 | bits of [`client_rules`]: which of these are about fingerprints |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(pub u64);

const SLOT_SHIFT: u32 = 24;
const INCIDENTS_SHIFT: u32 = 25;
const HAS_INCIDENTS: u64 = 1 << 27;
const CLIENT_INCIDENTS_SHIFT: u32 = 28;

/// A set of incident rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentSet {
    /// Its slot.
    pub slot: u32,
    /// Bits of [`client_rules`].
    pub client_rules: u32,
}

impl Generation {
    /// Before the first policy.
    pub const NONE: Self = Self(0);

    /// The policy in a slot, as of an epoch, and the incident rules beside it.
    #[inline(always)]
    pub const fn new(epoch: u32, slot: u32, incidents: Option<IncidentSet>) -> Self {
        let policy =
            epoch as u64 & EPOCH_MAX as u64 | (slot as u64 & (POLICY_SLOTS as u64 - 1)) << SLOT_SHIFT;
        Self(match incidents {
            None => policy,
            Some(IncidentSet { slot, client_rules }) => {
                let slot = (slot as u64 & (INCIDENT_SLOTS as u64 - 1)) << INCIDENTS_SHIFT;
                let client_rules = (client_rules & client_rules::ALL) as u64;
                policy | HAS_INCIDENTS | slot | client_rules << CLIENT_INCIDENTS_SHIFT
            }
        })
    }

    /// The epoch.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        self.0 as u32 & EPOCH_MAX
    }

    /// The slot of the policy.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> SLOT_SHIFT) as u32 & (POLICY_SLOTS as u32 - 1)
    }

    /// The slot of the incident rules; `None`: there are none.
    #[inline(always)]
    pub const fn incidents(self) -> Option<u32> {
        if self.0 & HAS_INCIDENTS == 0 {
            return None;
        }
        Some((self.0 >> INCIDENTS_SHIFT) as u32 & (INCIDENT_SLOTS as u32 - 1))
    }

    /// The slot of the incident rules where some of them are about fingerprints.
    #[inline(always)]
    pub const fn client_incidents(self) -> Option<u32> {
        if self.incident_client_rules() == 0 { None } else { self.incidents() }
    }

    /// Bits of [`client_rules`] of the incident rules.
    #[inline(always)]
    pub const fn incident_client_rules(self) -> u32 {
        (self.0 >> CLIENT_INCIDENTS_SHIFT) as u32 & client_rules::ALL
    }

    /// Place of a class in its table. Numbers from [`CLASSES_MAX`] on are those of incident rules.
    #[inline(always)]
    pub const fn class_place(self, number: u32) -> u32 {
        match (number.checked_sub(CLASSES_MAX as u32), self.incidents()) {
            (Some(number), Some(slot)) => incident_class_place(slot, number),
            _ => slot_place(self.slot(), CLASSES_MAX, number),
        }
    }
}

abi_struct! {
    /// What changes while the program runs: written by the daemon through its mapping, word by word. The first line is
    /// what packets read.
    #[derive(Default)]
    pub struct Settings: 152 {
        /// The [`Generation`] that packets are judged by, until the deadline.
        pub active: u64,
        /// When a policy that was to be confirmed is taken back, ticks; 0: it is not.
        pub deadline: u64,
        /// The generation from the deadline on.
        pub fallback: u64,
        /// Ticks between two sampled events; 0: none are sampled.
        pub event_interval: u64,
        /// Theoretical arrival time of the budget of events, ticks. Written by the program.
        pub event_tat: u64,
        /// Step of the clock that budgets were made for, ns.
        pub clock_tick_ns: u64,
        /// The highest epoch given so far.
        pub last_epoch: u64,
        /// Which fleets are acted on: bits of [`crate::fleet::acts_bit`], and [`crate::fleet::HAS_KEYS`].
        pub fleets: u64,
        /// The seed of the source tables, for the commands and for the next daemon. The program has its own copy.
        pub seed: crate::hash::Seed,
        /// The highest number given to an incident rule so far.
        pub last_incident: u64,
        /// Theoretical arrival time of the budget of exemplars, ticks. Written by the program.
        pub exemplar_tat: u64,
        /// When the daemon last saw that there was no room to follow a handshake, kernel time in ns; 0: never.
        pub flows_full_ns: u64,
        /// … no room for a fingerprint.
        pub fingerprints_full_ns: u64,
        /// Theoretical arrival time of the budget of exemplars of SYNs, ticks. Written by the program.
        pub syn_exemplar_tat: u64,
        /// Until when one SYN in [`crate::limits::SYN_SAMPLE`] is followed, ticks: there are more than there is room for. Written by the
        /// program.
        pub syn_flood_until: u64,
        /// Theoretical arrival time of the budget of exemplars of Initials, ticks. Written by the program.
        pub initial_exemplar_tat: u64,
    }
}

impl Settings {
    /// The generation that packets are judged by at a time, in ticks.
    #[inline(always)]
    pub const fn generation(&self, now: u64) -> Generation {
        generation(self.active, self.deadline, self.fallback, now)
    }
}

/// The generation of three words of [`Settings`] at a time, in ticks.
#[inline(always)]
pub const fn generation(active: u64, deadline: u64, fallback: u64, now: u64) -> Generation {
    Generation(if deadline != 0 && now >= deadline { fallback } else { active })
}
