//! Every bound of the data plane, on one page.

/// Ways of one set of a source table. A source has one set and takes any of its ways.
pub const WAYS: usize = 16;

/// Active sources that one set is planned for, in hundredths, so that fewer than 0.1 % of the active sources meet a
/// full set. Where all of them are replaced all the time, it is 0.55 % of the newcomers (Erlang B, 16 places, 8.2 offered).
///
/// With uniformly hashed sources a set's load is Poisson; at 8.2 sources a set the expected share beyond [`WAYS`] is
/// just under 0.001 (tested in [`crate::table`]).
pub const SOURCES_PER_SET_HUNDREDTHS: u64 = 820;

/// Sources that a table may be sized for: 13 GB, far beyond what an edge node gives.
pub const SOURCES_MAX: u32 = 100_000_000;

/// Sources that the table is sized for when nothing is asked for; with it all maps stay under 99 MB on four CPUs. Each CPU
/// more adds 0.21 MB of counters and scratch.
pub const SOURCES_DEFAULT: u32 = 500_000;

/// One parent prefix is planned for every so many sources. A full set of parents passes and is counted.
pub const SOURCES_PER_PARENT: u32 = 50;

/// Parent prefixes that even the smallest table has room for.
pub const PARENTS_MIN: u32 = 1024;

/// One budget of handshakes is planned for every so many sources. Where there is no room for one, the handshake passes and is counted.
pub const SOURCES_PER_CLIENT_BUDGET: u32 = 8;

/// Budgets of handshakes that even the smallest table has room for.
pub const CLIENT_BUDGETS_MIN: u32 = 1024;

/// One client, see [`crate::client`], is planned for every so many sources. The one that was not heard of for longest gives way.
pub const SOURCES_PER_CLIENT: u32 = 20;

/// Clients that even the smallest table has room for.
pub const CLIENTS_MIN: u32 = 1024;

/// Services of a policy, and the first number that is none. Service 0 stands for "no service".
pub const SERVICES_MAX: usize = 256;

/// Classes of a policy: one for each profile and each rule in use. Class 0 is never given to a source.
pub const CLASSES_MAX: usize = 2560;

/// Rules that end, one after the other, for one source: what follows the last of them is what never ends.
pub const ENDS_MAX: usize = 4;

/// Rules of a policy that drops are counted for; 0 stands for "no rule".
pub const POLICY_RULE_COUNTERS: usize = 2560;

/// What drops are counted for by name: rules of the policy, then incident rules, then fleets.
pub const RULE_COUNTERS: usize = POLICY_RULE_COUNTERS + INCIDENT_RULES_MAX + FLEET_SLOTS;

/// Fleets that are acted on at a time, and one: slot 0 stands for "no fleet".
pub const FLEET_SLOTS: usize = 64;

/// Sources that belong to a fleet that is acted on, of all of them: five fleets of the case, with room for more. Each place takes 16 bytes, used
/// or not.
pub const FLEET_MEMBERS_MAX: usize = 1 << 17;

/// Keys that fleets are acted on by, of all of them.
pub const FLEET_KEYS_MAX: usize = 4096;

/// Incident rules at a time: what responders add by hand, beside the policy.
pub const INCIDENT_RULES_MAX: usize = 256;

/// Sets of incident rules that the maps hold at a time: for the active policy and for the one before it the set in
/// force, and for each the one to come.
pub const INCIDENT_SLOTS: usize = 4;

/// Classes of a set of incident rules: one for a rule, or one for each service where the rule depends on it.
pub const INCIDENT_CLASSES_MAX: usize = 512;

/// Cells (selector × service) of a set of incident rules.
pub const INCIDENT_CELLS_MAX: usize = 4096;

/// Profiles of a policy that may name parents: their numbers have one byte in a parent's key, and 0 is none.
pub const LINEAGES_MAX: usize = 255;

/// Parent classes of a policy: up to three for each such profile. Parent class 0 means "not limited".
pub const PARENT_CLASSES_MAX: usize = 3 * LINEAGES_MAX + 1;

/// Cells (selector × service) of a policy: what the most specific source prefix means for each service.
pub const CELLS_MAX: usize = 16_384;

/// Source prefixes of a policy in one family.
pub const PREFIXES_MAX: usize = 10_000_000;

/// Keys of a node of the ranges of IPv4: a line of keys.
pub const KEYS_V4: usize = 15;

/// Keys of a node of the ranges of IPv6: a line of upper halves.
pub const KEYS_V6: usize = 7;

/// Levels of a tree of ranges that a search walks.
pub const LEVELS_MAX: usize = 9;

/// Slots of the hash of destination prefixes; a quarter of them may be used.
pub const DESTINATION_SLOTS: usize = 4096;

/// Slots of the hash of ports; a quarter of them may be used.
pub const PORT_SLOTS: usize = 8192;

/// Slots tried for one key in the two hashes above. The daemon chooses a seed for which this suffices.
pub const PROBES_MAX: usize = 8;

/// Distinct prefix lengths of the services' addresses in one family. A packet pays for each length in use.
pub const PREFIX_LENGTHS_MAX: usize = 8;

/// Policies that the maps hold at a time: the active one and the one before or to come.
pub const POLICY_SLOTS: usize = 2;

/// VLAN tags that are read through (802.1ad then 802.1Q).
pub const VLAN_TAGS_MAX: usize = 2;

/// IPv6 extension headers that are walked. A packet with more is judged by its source, as a new connection.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// A source that was idle for so long is forgotten like any other, whatever it sent before. One minute.
pub const LONG_IDLE_NS: u64 = 60_000_000_000;

/// A source that sent so many packets has a history: its entry is taken after those of others, until it is long idle.
/// Fewer than one TLS exchange has, and more than a flood of random addresses sends from each.
pub const HISTORY_PACKETS: u64 = 4;

/// Searches that a newcomer makes while other CPUs change the set under it. Then it passes as if the set were full.
pub const SEARCHES_MAX: usize = 3;

/// Compare-and-swap attempts on one budget before the wait-free way is taken.
pub const SWAP_ATTEMPTS_MAX: usize = 4;

/// Words of the budgets that newcomers share when they find their set full, divided among the classes.
pub const OVERFLOW_BUDGETS: usize = 16_384;

/// Those of them that are divided among the classes of incident rules, the last ones.
pub const INCIDENT_OVERFLOW_BUDGETS: usize = 1024;

/// Sources whose budget the newcomers to a full set share: as many as have an entry in it. With the budget of one, a flood
/// that fills all sets left well-behaved newcomers too little, and with that of fewer than come to a set while an entry is busy
/// ([`SOURCES_PER_SET_HUNDREDTHS`]) it would be spent for as long as the set is full.
pub const OVERFLOW_SOURCES: u64 = WAYS as u64;

/// Fingerprints that rules are about, of all policies and incident rules, each at a service.
pub const CLIENT_RULES_MAX: usize = 65_536;

/// Rules of a policy, or of a set of incident rules, that name a SYN and a ClientHello: a bit for each.
pub const PAIRS_MAX: usize = 64;

/// Connections in their handshake that are followed at a time.
pub const FLOWS: usize = 16_384;

/// So long is a handshake followed that nothing is heard of.
pub const HANDSHAKE_NS_MAX: u64 = 10_000_000_000;

/// A connection whose SYN was answered by nothing for so long has waited long enough: where those give way to others that have
/// waited less, there are more SYNs than there is room for.
pub const HALF_OPEN_NS_MIN: u64 = 2_000_000_000;

/// So long after that one SYN in [`SYN_SAMPLE`] is followed.
pub const SYN_FLOOD_NS: u64 = 1_000_000_000;

/// See [`SYN_FLOOD_NS`]; a power of two.
pub const SYN_SAMPLE: u64 = 16;

/// Of so many connections one is followed beyond its handshake, to count its exchanges; a power of two.
pub const EXCHANGE_SAMPLE: u64 = 8;

/// Segments of such a connection that are looked at; an exchange takes a client four or more.
pub const EXCHANGE_SEGMENTS_MAX: u16 = 64;

/// Segments before a ClientHello that are read: more than the dialogue with a proxy has.
pub const OTHER_SEGMENTS_MAX: u8 = 8;

/// Segments out of order for which a ClientHello is waited for.
pub const STRAYED_SEGMENTS_MAX: u8 = 8;

/// Fingerprints of clients that are counted at a time, of all services.
pub const FINGERPRINTS: usize = 4096;

/// Connections whose segments are gathered for an exemplar at a time.
pub const GATHERED: usize = 64;

/// Bytes of the ring buffer of exemplars.
pub const EXEMPLARS_BYTES: usize = 1024 * 1024;

/// Exemplars of ClientHellos in a second; so many at once.
pub const EXEMPLARS_PER_SECOND: u64 = 500;

/// Datagrams with Initials in a second; so many at once. They are as easily made up as SYNs.
pub const INITIAL_EXEMPLARS_PER_SECOND: u64 = 200;

/// Exemplars of SYNs in a second; so many at once. Those are easily made up.
pub const SYN_EXEMPLARS_PER_SECOND: u64 = 100;

/// Of so many ClientHellos of a known fingerprint one is an exemplar, a power of two.
pub const EXEMPLAR_SAMPLE: u64 = 1024;

/// So long after its last Initial is a connection of QUIC known: until then its Initials are more of the same ClientHello. A
/// client sends again after one second, then after two (RFC 9002, 6.2).
pub const INITIAL_NS_MAX: u64 = 3_000_000_000;

/// Datagrams with Initials that are sent of one connection: a ClientHello takes two to five, and some come twice.
pub const INITIALS_SENT_MAX: u64 = 8;

/// Fields of a ClientHello that are read, list elements among them: twenty times those of a browser's.
pub const HELLO_FIELDS_MAX: u16 = 1024;

/// Bytes of the ring buffer of sampled events.
pub const EVENTS_BYTES: usize = 256 * 1024;

/// Bytes of the manifest of one policy: the names that `status` and `explain` print without a daemon.
pub const MANIFEST_BYTES: usize = 256 * 1024;

/// Largest frame that is handed to the program in replay and tests, bytes.
pub const FRAME_BYTES_MAX: usize = 65_549;

/// Ranges in a tree of full nodes.
const fn ranges_max(keys: usize) -> usize {
    (keys + 1).pow(LEVELS_MAX as u32) - 1
}

const _: () = assert!(2 * PREFIXES_MAX < ranges_max(KEYS_V4) && 2 * PREFIXES_MAX < ranges_max(KEYS_V6));
const _: () = assert!(WAYS.is_power_of_two());
const _: () = assert!(SERVICES_MAX <= 1 << 12, "the service number has 12 bits in a way");
const _: () = assert!(CLASSES_MAX + INCIDENT_CLASSES_MAX <= 1 << 12, "the class number has 12 bits in a way");
const _: () = assert!(FLEET_SLOTS == u64::BITS as usize, "a slot has a bit of a word, and six bits in a way");
const _: () = assert!(INCIDENT_SLOTS == 4, "a slot of incident rules has 2 bits in a generation");
const _: () = assert!(RULE_COUNTERS <= 1 << 16, "a class has 16 bits for its counter");
const _: () = assert!(CELLS_MAX < 1 << 31, "a rule's value has 31 bits for its first cell");
const _: () = assert!(DESTINATION_SLOTS.is_power_of_two() && PORT_SLOTS.is_power_of_two());
const _: () = assert!(OVERFLOW_BUDGETS.is_power_of_two() && OVERFLOW_BUDGETS <= 1 << 16);
const _: () = assert!(
    (OVERFLOW_BUDGETS - INCIDENT_OVERFLOW_BUDGETS) / CLASSES_MAX >= 2
        && INCIDENT_OVERFLOW_BUDGETS / INCIDENT_CLASSES_MAX >= 2,
    "every class has a word for packets and one for connections"
);
const _: () = assert!(EVENTS_BYTES.is_power_of_two() && EVENTS_BYTES.is_multiple_of(4096));
