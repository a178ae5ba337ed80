//! How large everything about actions on fleets can get.

use detector_fleets::limits::KEYS_OF_USAGE_MAX;

use crate::policy::REFILL_NS_MAX;

/// Fleets that are acted on at a time. Their slots have the numbers from 1 on; 0 stands for none.
pub const SLOTS_MAX: u8 = 63;

/// Pairs of fingerprints of one fleet that are acted on, at most.
pub const KEYS_MAX: usize = 8;
const _: () = assert!(KEYS_MAX <= KEYS_OF_USAGE_MAX, "of all of them it is known how others use them");

/// The share of a fleet's members that a pair of fingerprints has to have before it is acted on.
pub const KEY_OF_MEMBERS_MIN: f64 = 0.05;

/// The share of the members that may be customers, and how many of them say nothing yet: beyond, there are more users among the
/// members than attribution promises in all, see [`detector_fleets::membership::INNOCENTS_MAX`].
pub const CUSTOMERS_MAX: f64 = detector_fleets::membership::INNOCENTS_MAX;
/// See [`CUSTOMERS_MAX`].
pub const CUSTOMERS_MIN: usize = 3;

/// An action begins where it costs others at most one so manieth of what it may cost while it is in force.
pub const COLLATERAL_AT_FIRST: u32 = 2;

/// What an action lasts longer than its evidence is good for, s: a look that comes once in that time renews it before it ends.
pub const RENEWAL_GRACE_S: u64 = 60;

/// The time in which new members are counted, s.
pub const GROWTH_S: u64 = 3600;

/// Hints that are kept.
pub const HINTS_MAX: usize = 100_000;

/// Until when a hint holds at most, s from when it was given: 366 days.
pub const HINT_S_MAX: u64 = 366 * 86_400;

/// Characters of who gave a hint.
pub const HINT_BY_CHARS_MAX: usize = 255;

/// Bits of the shortest prefixes of which abuse is confirmed: what is wider is of several owners.
pub const ABUSE_BITS_V4_MIN: u8 = 24;
/// See [`ABUSE_BITS_V4_MIN`].
pub const ABUSE_BITS_V6_MIN: u8 = 48;

/// Orders about fleets that are kept.
pub const ORDERS_MAX: usize = 256;

/// Packets that a fleet may send at once: of one connection with its handshake and a request, or no connection would come to its end.
pub const PACKETS_AT_ONCE_MIN: u64 = 16;

/// The period in which a fleet's budgets are expressed, ns: an hour. One of less than one a period is raised to that.
pub const BUDGET_PERIOD_NS: u64 = 3_600_000_000_000;
const _: () =
    assert!(PACKETS_AT_ONCE_MIN * BUDGET_PERIOD_NS <= REFILL_NS_MAX, "the smallest budget fills in time");

/// Connections of members that are held out, before an effect is told.
pub const HELD_OUT_CONNECTIONS_MIN: u64 = 20;
