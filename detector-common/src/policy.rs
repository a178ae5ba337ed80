//! The policy as the kernel reads it.
//!
//! Two policies stand side by side, in the two *slots* of every table. The daemon fills the slot that nobody reads and then
//! changes the [`crate::generation::Generation`], one aligned word. A policy that is to be confirmed keeps the one before in the other slot,
//! and the word that names it beside a deadline: so it is taken back in time also when the daemon is dead.
//!
//! Beside a policy stands a set of *incident rules*, what responders add by hand. It has slots of its own, named in the
//! same word, so that it changes at once and without the policy, also while one is on trial.

use crate::{
    abi_struct,
    budget::Budget,
    limits::{
        CELLS_MAX, CLASSES_MAX, INCIDENT_CELLS_MAX, INCIDENT_CLASSES_MAX, PAIRS_MAX, POLICY_SLOTS,
        PREFIX_LENGTHS_MAX,
    },
};

/// Which rules about fingerprints there are in a policy, or among incident rules.
pub mod client_rules {
    /// There are some.
    pub const SOME: u32 = 1 << 0;
    /// One of them allows clients by their ClientHello.
    pub const ALLOW_BY_HELLO: u32 = 1 << 1;
    /// All bits.
    pub const ALL: u32 = SOME | ALLOW_BY_HELLO;
}

/// Place of a class of incident rules behind those of all policies; `number`: without [`CLASSES_MAX`].
#[inline(always)]
pub const fn incident_class_place(slot: u32, number: u32) -> u32 {
    (POLICY_SLOTS * CLASSES_MAX) as u32 + slot_place(slot, INCIDENT_CLASSES_MAX, number)
}

/// Place of a cell of incident rules behind those of all policies.
#[inline(always)]
pub const fn incident_cell_place(slot: u32, cell: u32) -> u32 {
    (POLICY_SLOTS * CELLS_MAX) as u32 + slot_place(slot, INCIDENT_CELLS_MAX, cell)
}

/// Number of the tree of source prefixes of incident rules, behind those of all policies.
#[inline(always)]
pub const fn incident_tree(slot: u32) -> u32 {
    POLICY_SLOTS as u32 + slot
}

/// Place of an element of a slot's half in a table of `size` elements a policy.
#[inline(always)]
pub const fn slot_place(slot: u32, size: usize, index: u32) -> u32 {
    slot * size as u32 + index
}

/// Stands in [`PolicyHeader`] for "no further prefix length".
pub const NO_LENGTH: u8 = 255;

abi_struct! {
    /// The first thing read of a policy.
    pub struct PolicyHeader: 48 {
        /// Epoch of this policy: for whoever looks at the maps from outside.
        pub epoch: u64,
        /// Seed for which every key of the hashes of destinations and ports is found in few probes.
        pub service_seed: u64,
        /// Lengths of the services' IPv4 prefixes, longest first, then [`NO_LENGTH`].
        pub lengths_v4: [u8; PREFIX_LENGTHS_MAX],
        /// Lengths of the services' IPv6 prefixes, longest first, then [`NO_LENGTH`].
        pub lengths_v6: [u8; PREFIX_LENGTHS_MAX],
        /// Whether there are source prefixes of IPv4: 0 or 1.
        pub rules_v4: u32,
        /// Whether there are source prefixes of IPv6: 0 or 1.
        pub rules_v6: u32,
        /// Bits of [`client_rules`].
        pub client_rules: u32,
        /// 0.
        pub reserved: u32,
    }
}

/// What a class does with its sources' packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Charge the budgets.
    Limit = 0,
    /// Pass.
    Allow = 1,
    /// Drop.
    Deny = 2,
    /// Pass: the service has no profile.
    Count = 3,
}

/// Stands in [`Class::rule`] for "the service's profile, no rule".
pub const NO_RULE: u16 = u16::MAX;

/// Stands in [`Class::profile`] for "no profile".
pub const NO_PROFILE: u16 = u16::MAX;

abi_struct! {
    /// What the policy says of a source at a service.
    #[derive(Default)]
    pub struct Class: 128 {
        /// An [`Action`].
        pub action: u8,
        /// Of so many sources in a hundred, by their keyed hash, packets are dropped; the others' are only counted.
        pub enforced_percent: u8,
        /// Number of the rule in the manifest, or [`NO_RULE`]; in a class of incident rules, its place among them.
        pub rule: u16,
        /// Number of the profile in the manifest, or [`NO_PROFILE`].
        pub profile: u16,
        /// Parent class of the /24 of IPv4, or 0.
        pub v4_24: u16,
        /// Parent class of the /56 of IPv6, or 0.
        pub v6_56: u16,
        /// Parent class of the /48 of IPv6, or 0.
        pub v6_48: u16,
        /// First of the words that sources of this class share when they find no way.
        pub overflow_first: u16,
        /// How many of them there are, as a power of two.
        pub overflow_words_log2: u8,
        /// The [`crate::table::Lineage`] of its profile, 0 without parents.
        pub lineage: u8,
        /// When the rule of the class ends, ticks; 0: it does not.
        pub until: u64,
        /// The class from then on; of incident rules 0, where the policy's own follows.
        pub next: u16,
        /// Where its drops are counted by rule, see [`RuleDrops`]; 0: the class has no rule.
        pub rule_counter: u16,
        /// 1: of a rule on fingerprints, whose budgets all clients share that it is about; 0: each source has its own.
        pub is_shared: u32,
        /// Budget of packets.
        pub packets: Budget,
        /// Budget of bytes of frames.
        pub bytes: Budget,
        /// Budget of new connections.
        pub connections: Budget,
        /// Budget of TLS handshakes.
        pub handshakes: Budget,
        /// 0.
        pub reserved_cold: [u64; 4],
    }
}

impl Class {
    /// Whether the rule of the class has ended by a time, in ticks.
    #[inline(always)]
    pub const fn has_ended(&self, now: u64) -> bool {
        self.until != 0 && now >= self.until
    }

    /// Whether it is the class of `defaults.allow`.
    #[inline(always)]
    pub const fn is_always_allowed(&self) -> bool {
        self.action == Action::Allow as u8 && self.rule == NO_RULE
    }

    /// Whether the class that a policy gives a source stays in force beside the class that an incident rule gives it.
    /// `enforced`: whether the policy's class is enforced for the source.
    ///
    /// `defaults.allow` comes before everything. An incident rule that limits loosens nothing: it gives way to a drop, and to a
    /// limit of which any part is tighter than its own.
    #[inline(always)]
    pub const fn prevails_over(&self, incident: &Self, enforced: bool) -> bool {
        if self.is_always_allowed() {
            return true;
        }
        if incident.action != Action::Limit as u8 || !enforced {
            return false;
        }
        self.action == Action::Deny as u8 || self.action == Action::Limit as u8 && !incident.is_within(self)
    }

    /// Whether it limits at least as tightly as another one in every budget.
    #[inline(always)]
    pub const fn is_within(&self, other: &Self) -> bool {
        let has_parents = other.v4_24 | other.v6_56 | other.v6_48 != 0;
        self.packets.is_within(&other.packets)
            && self.bytes.is_within(&other.bytes)
            && self.connections.is_within(&other.connections)
            && self.handshakes.is_within(&other.handshakes)
            && (!has_parents || self.lineage == other.lineage)
    }
}

/// What of a source's keyed hash says whether it is among so many in a hundred, 16 bits: see [`is_enforced`].
#[inline(always)]
pub const fn share_of(hash: u64) -> u64 {
    (hash >> 8) & 0xffff
}

/// Whether a source, by its keyed hash, is among so many in a hundred. The bits lie between those that pick set and way.
#[inline(always)]
pub const fn is_enforced(hash: u64, percent: u8) -> bool {
    is_share_enforced(share_of(hash), percent)
}

/// As [`is_enforced`], of [`share_of`] the hash.
#[inline(always)]
pub const fn is_share_enforced(share: u64, percent: u8) -> bool {
    (share * 100) >> 16 < percent as u64
}

abi_struct! {
    /// What a rule refused, on one CPU.
    #[derive(Default)]
    pub struct RuleDrops: 16 {
        /// Packets dropped.
        pub dropped: u64,
        /// Packets that would have been, had the mode been `enforce` for their source.
        pub shadowed: u64,
    }
}

abi_struct! {
    /// Budgets of a prefix around sources.
    #[derive(Default)]
    pub struct ParentClass: 64 {
        /// Budget of packets.
        pub packets: Budget,
        /// Budget of bytes of frames.
        pub bytes: Budget,
        /// Budget of new connections.
        pub connections: Budget,
        /// Budget of sources that are given an entry.
        pub new_sources: Budget,
    }
}

abi_struct! {
    /// What a selector means for one service. A selector is a row of cells, one for each service number.
    #[derive(Default)]
    pub struct Cell: 8 {
        /// The class.
        pub class: u32,
        /// 0.
        pub reserved: u32,
    }
}

/// The value of a source prefix in the ranges of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleValue(pub u32);

/// The bit that says that longer prefixes lie inside the source unit: the class must not be cached in the entry.
const UNCACHED: u32 = 1 << 31;

impl RuleValue {
    /// A selector's first cell; `cached` unless prefixes longer than the source unit divide it.
    pub const fn new(first_cell: u32, cached: bool) -> Self {
        Self(if cached { first_cell } else { first_cell | UNCACHED })
    }

    /// The first cell of the selector; the service's number is to be added.
    #[inline(always)]
    pub const fn first_cell(self) -> u32 {
        self.0 & !UNCACHED
    }

    /// Whether the class may be kept in the source's entry.
    #[inline(always)]
    pub const fn is_cached(self) -> bool {
        self.0 & UNCACHED == 0
    }
}

/// What a rule on fingerprints names, at a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Trait {
    /// The key of the SYN.
    Syn = 0,
    /// The key of the ClientHello.
    Tls = 1,
}

abi_struct! {
    /// Which fingerprint at which service a [`ClientRule`] is about, by which policy or set of incident rules.
    #[derive(Hash)]
    pub struct ClientRuleKey: 16 {
        /// The fingerprint's key.
        pub key: u64,
        /// See [`Self::new`].
        pub place: u64,
    }
}

impl ClientRuleKey {
    /// That of a key at a service. `tree`: the slot of a policy, or the number of the [`incident_tree`] of incident rules.
    #[inline(always)]
    pub const fn new(tree: u32, service: u16, of: Trait, key: u64) -> Self {
        Self { key, place: of as u64 | (service as u64) << 8 | (tree as u64) << 32 }
    }

    /// The service.
    pub const fn service(&self) -> u16 {
        (self.place >> 8) as u16
    }

    /// The tree.
    pub const fn tree(&self) -> u32 {
        (self.place >> 32) as u32
    }
}

abi_struct! {
    /// What rules say of a client with a fingerprint.
    #[derive(Default)]
    pub struct ClientRule: 16 {
        /// Rules that name a SYN and a ClientHello, one of which is this: bit *n* for rule *n* of them, the first of which that
        /// both keys of a client have decides.
        pub pairs: u64,
        /// The class of the rule that names nothing but this; 0: there is none.
        pub class: u32,
        /// 0.
        pub reserved: u32,
    }
}

/// Place of the class of a rule that names both, among those of all policies and incident rules.
#[inline(always)]
pub const fn pair_place(tree: u32, number: u32) -> u32 {
    tree * PAIRS_MAX as u32 + number
}

/// The first cell of the selector of sources that no prefix matches.
pub const DEFAULT_ROW: u32 = 0;

abi_struct! {
    /// What the program decided of the last packet, written under the virtual clock only.
    pub struct Trace: 48 {
        /// Packets decided so far.
        pub sequence: u64,
        /// Prefix of the source; see [`crate::way::Way::prefix`].
        pub prefix: u64,
        /// Length of the frame.
        pub bytes: u32,
        /// Service, 0: none.
        pub service: u16,
        /// Class, 0: none.
        pub class: u16,
        /// A [`crate::verdict::Reason`].
        pub reason: u8,
        /// 1: dropped.
        pub dropped: u8,
        /// A [`crate::table::Unit`].
        pub unit: u8,
        /// 1: asks for a new connection.
        pub connection: u8,
        /// 1: would have been dropped, had the mode been `enforce`.
        pub shadow: u8,
        /// 0.
        pub reserved: [u8; 3],
        /// Key of the packet's signature, where it is a SYN whose connection is followed; else 0.
        pub syn_key: u64,
        /// Key of the ClientHello that the packet completes; else 0.
        pub tls_key: u64,
    }
}

abi_struct! {
    /// A sampled drop, as it goes through the ring buffer.
    pub struct DropEvent: 64 {
        /// Kernel time of the drop, ns since boot (or virtual).
        pub time_ns: u64,
        /// Source address; see [`crate::address::Address`].
        pub source: [u64; 2],
        /// Destination address.
        pub destination: [u64; 2],
        /// Length of the frame.
        pub bytes: u32,
        /// Interface that the frame came in by.
        pub interface: u32,
        /// Source port, 0 if not known.
        pub source_port: u16,
        /// Destination port, 0 if not known.
        pub destination_port: u16,
        /// Service.
        pub service: u16,
        /// Class.
        pub class: u16,
        /// A [`crate::verdict::Reason`].
        pub reason: u8,
        /// IP protocol.
        pub protocol: u8,
        /// 4 or 6.
        pub version: u8,
        /// 1: it passed, since the mode is `shadow`.
        pub shadow: u8,
        /// Where the drops of its rule are counted, see [`RuleDrops`]; 0: no rule decided.
        pub rule_counter: u16,
        /// 0.
        pub reserved: u16,
    }
}
