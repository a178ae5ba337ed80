//! Verdicts and their reasons, declared once: number, name, verdict, help, row of the documentation.

use crate::abi_struct;

/// What happens to a packet under mode `enforce`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes on to the network stack.
    Pass,
    /// It ends here.
    Drop,
}

impl Verdict {
    /// The word of metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($( $variant:ident $name:literal $verdict:ident $help:literal )*) => {
        /// Why a packet passed or was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $( #[doc = $help] $variant, )*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The word of metrics, JSON and `explain`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The reason of a number; `None` for a number that no reason has.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Option<Self> {
                if number as usize >= REASONS {
                    return None;
                }
                // SAFETY: the numbers from 0 to REASONS - 1 are all in use (asserted below).
                Some(unsafe { core::mem::transmute::<u8, Self>(number) })
            }

            /// One sentence.
            pub const fn help(self) -> &'static str {
                match self { $( Self::$variant => $help, )* }
            }

            /// What happens to a packet for this reason when the policy enforces.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $( Self::$variant => Verdict::$verdict, )* }
            }
        }
    };
}

// Reasons to pass come first and reasons to drop last (asserted below), so that one comparison tells them apart.
reasons! {
    NoPolicy "no_policy" Pass "No policy has been applied yet."
    NotIp "not_ip" Pass "Neither IPv4 nor IPv6: ARP, LLDP, …"
    VlanDepth "vlan_depth" Pass "More than two VLAN tags."
    Truncated "truncated" Pass "The frame ends before a header or the packet does."
    Malformed "malformed" Pass "A header contradicts itself or the packet's length; the stack will refuse it."
    NeighbourDiscovery "neighbour_discovery" Pass "IPv6 neighbour discovery from the link itself."
    NoService "no_service" Pass "The destination belongs to no service of the policy."
    Allowed "allowed" Pass "A rule or defaults.allow lets this source pass."
    Unlimited "unlimited" Pass "The service has no profile: counted, not limited."
    Conforming "conforming" Pass "Within every budget."
    TableFull "table_full" Pass "No way of its set is idle: passed on the shared overflow budget of the set."
    Unjudged "unjudged" Pass "A table of the policy had no answer: a defect, please report it."
    Denied "denied" Drop "A rule drops this source."
    Fingerprint "fingerprint" Drop "A rule drops what has this client's fingerprint."
    FingerprintBudget "fingerprint_budget" Drop "The budget of a rule on this client's fingerprint is spent."
    Packets "packets" Drop "The source's packet budget is spent."
    Bytes "bytes" Drop "The source's byte budget is spent."
    Connections "connections" Drop "The source's budget of new connections is spent."
    Handshakes "handshakes" Drop "The source's budget of handshakes, of TLS or QUIC, is spent."
    Fleet "fleet" Drop "The budget that the members of a fleet share is spent."
    ParentPackets "parent_packets" Drop "The packet budget of the prefix around the source is spent."
    ParentBytes "parent_bytes" Drop "The byte budget of the prefix around the source is spent."
    ParentConnections "parent_connections" Drop "The connection budget of the prefix around the source is spent."
    NewSources "new_sources" Drop "The prefix around the source has brought too many new sources."
    Overflow "overflow" Drop "No way of its set is idle and the shared overflow budget of the set is spent."
}

/// Number of reasons.
pub const REASONS: usize = Reason::ALL.len();

/// The first reason to drop.
pub const FIRST_DROP: usize = Reason::Denied as usize;

/// Counters of a service: one for each reason, and one more for each reason to drop, for packets that mode `shadow`
/// let pass.
pub const COUNTER_SLOTS: usize = REASONS + (REASONS - FIRST_DROP);

const _: () = {
    let mut number = 0;
    while number < REASONS {
        let is_drop = matches!(Reason::ALL[number].verdict(), Verdict::Drop);
        assert!(is_drop == (number >= FIRST_DROP), "reasons to pass come first");
        assert!(Reason::ALL[number] as usize == number);
        number += 1;
    }
};

/// The place of a decision among a service's counters; `shadow`: the policy would have dropped but let pass.
#[inline(always)]
pub const fn counter_slot(reason: Reason, shadow: bool) -> usize {
    let slot = reason as usize;
    if shadow && slot >= FIRST_DROP { slot + (REASONS - FIRST_DROP) } else { slot }
}

/// The reason and whether it was shadowed, of a counter's place; `None` beyond [`COUNTER_SLOTS`].
pub fn slot_reason(slot: usize) -> Option<(Reason, bool)> {
    if slot < REASONS {
        return Some((Reason::ALL[slot], false));
    }
    Some((*Reason::ALL.get(slot - (REASONS - FIRST_DROP))?, true))
}

abi_struct! {
    /// Packets and bytes that came to one decision.
    #[derive(Default)]
    pub struct Counter: 16 {
        /// Packets.
        pub packets: u64,
        /// Bytes of their frames, Ethernet header included.
        pub bytes: u64,
    }
}

/// All decisions on packets of one service on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Indexed by [`counter_slot`].
    pub slots: [Counter; COUNTER_SLOTS],
}

impl Default for ServiceCounters {
    fn default() -> Self {
        Self { slots: [Counter::default(); COUNTER_SLOTS] }
    }
}

// SAFETY: an array of plain structs without padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ServiceCounters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_reasons_are_one_to_one() {
        let mut seen = [false; COUNTER_SLOTS];
        for &reason in Reason::ALL {
            for shadow in [false, true] {
                if shadow && reason.verdict() == Verdict::Pass {
                    assert_eq!(counter_slot(reason, true), counter_slot(reason, false));
                    continue;
                }
                let slot = counter_slot(reason, shadow);
                assert_eq!(slot_reason(slot), Some((reason, shadow)));
                assert!(!core::mem::replace(&mut seen[slot], true));
            }
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(slot_reason(COUNTER_SLOTS), None);
    }
}
