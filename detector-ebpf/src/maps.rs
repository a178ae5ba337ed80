//! Every map, with its card: who writes, who reads, how large, what happens when full, what error it introduces.
//!
//! `docs/architecture.md` holds the same cards; a test compares the two.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use detector_common::{
    client::Client,
    counters::COUNTERS as COUNTERS_LEN,
    fingerprint::{ExemplarHeader, Gathered, Name, Sightings},
    fleet::{FleetKey, FleetMember, FleetSlot},
    flow::{Flow, Scratch},
    generation::Settings,
    limits::{
        CELLS_MAX, CLASSES_MAX, CLIENT_RULES_MAX, DESTINATION_SLOTS, EVENTS_BYTES, EXEMPLARS_BYTES,
        FINGERPRINTS as FINGERPRINTS_LEN, FLEET_KEYS_MAX, FLEET_MEMBERS_MAX, FLEET_SLOTS, FLOWS as FLOWS_LEN,
        GATHERED, INCIDENT_CELLS_MAX, INCIDENT_CLASSES_MAX, INCIDENT_SLOTS, MANIFEST_BYTES, OVERFLOW_BUDGETS,
        PAIRS_MAX, PARENT_CLASSES_MAX, POLICY_SLOTS, PORT_SLOTS, RULE_COUNTERS, SERVICES_MAX, WAYS,
    },
    policy::{
        Cell, Class, ClientRule, ClientRuleKey, DropEvent, ParentClass, PolicyHeader, RuleDrops, Trace,
    },
    ranges::{NodeV4, NodeV6},
    service::{DestinationSlot, PortSlot},
    table::Set,
    verdict::ServiceCounters,
};

const MAPPABLE: usize = BPF_F_MMAPABLE as usize;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Trees are of different sizes and are written through a mapping.
const RULES_FLAGS: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

/// A node as words: Linux 6.1 takes a tree whose elements have no type of their own for one of another kind than an array
/// of structs (`bpf_map_meta_equal` compares where a timer is, which differs even where there is none).
type Words<const LEN: usize> = [u64; LEN];

/// Trees of source prefixes in one family.
const TREES: usize = POLICY_SLOTS + INCIDENT_SLOTS;
const NODE_V4_WORDS: usize = size_of::<NodeV4>() / size_of::<u64>();
const NODE_V6_WORDS: usize = size_of::<NodeV6>() / size_of::<u64>();

/// Writer: daemon (generation, event interval, seed), program (event budget). Reader: program, commands.
/// Size: one element. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1, MAPPABLE> = Array::new();

/// Writer: tests and replay. Reader: program, under the virtual clock only.
/// Size: one word, ns. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static VIRTUAL_CLOCK: Array<u64, 1, MAPPABLE> = Array::new();

/// Writer: program, under the virtual clock only. Reader: tests and replay.
/// Size: one element. Full: each packet overwrites it. Error: none.
#[btf_map]
pub(crate) static TRACE: Array<Trace, 1, MAPPABLE> = Array::new();

/// Writer: program. Reader: program, daemon and commands through a mapping.
/// Size: `--sources` / 8.2 sets of 16 ways of 64 bytes. Full: a source whose set has no idle way passes on a shared
/// overflow budget, reasons `table_full` and `overflow`. Error: an idle source's counters end when its way is taken;
/// a packet that meets a change of owner on another CPU may be charged to the old or the new one.
#[btf_map]
pub(crate) static SOURCES: Array<Set, 1, MAPPABLE> = Array::new();

/// Writer: program. Reader: program, commands through a mapping.
/// Size: `--sources` / 50 parents (at least 1,024), laid out as the sources. Full: the parent's budgets are not charged,
/// counter `parents_full`. Error: as for the sources.
#[btf_map]
pub(crate) static PARENTS: Array<Set, 1, MAPPABLE> = Array::new();

/// Writer: program. Reader: program, commands through a mapping.
/// Size: `--sources` / 8 budgets of handshakes (at least 1,024), laid out as the sources: those of sources, and those of rules on
/// fingerprints for each source. Full: the budget is not charged, counter `client_budgets_full`. Error: as for the sources.
#[btf_map]
pub(crate) static CLIENT_BUDGETS: Array<Set, 1, MAPPABLE> = Array::new();

/// Writer: program. Reader: program.
/// Size: 16,384 connections in their handshake, in sets as the sources. Full: first one gives way that said nothing after its SYN, counter
/// `flow_replaced`, then one that said no more, the oldest first, counter `flows_full`. Error: its fingerprint or its times are not known;
/// its handshake is charged all the same.
#[btf_map]
pub(crate) static FLOWS: Array<Set, { FLOWS_LEN / WAYS }, MAPPABLE> = Array::new();

/// Writer: program, the CPU that holds the state's lock. Reader: program.
/// Size: a state of 152 bytes for each way of `FLOWS`; connections over QUIC need none. Full: cannot be. Error: of two packets of one
/// handshake that two CPUs have at once, one is not looked at.
#[btf_map]
pub(crate) static FLOW_STATES: Array<Flow, { FLOWS_LEN }> = Array::new();

/// Writer: program. Reader: program, daemon and commands through a mapping.
/// Size: 4,096 fingerprints, each of a service, in sets as the sources. Full: the fingerprint is not counted, counter
/// `fingerprints_full`; one that is idle and hardly seen gives way. Error: its counters end when its way is taken.
#[btf_map]
pub(crate) static FINGERPRINTS: Array<Set, { FINGERPRINTS_LEN / WAYS }, MAPPABLE> = Array::new();

/// Writer: program; daemon, to be sent exemplars again. Reader: program, daemon and commands through a mapping.
/// Size: 472 bytes for each way of `FINGERPRINTS`. Full: cannot be. Error: distinct sources by 6.5 %; of two
/// CPUs that count a time at once one may be lost.
#[btf_map]
pub(crate) static SIGHTINGS: Array<Sightings, { FINGERPRINTS_LEN }, MAPPABLE> = Array::new();

/// Writer: daemon. Reader: commands, the next daemon. The program does not read it.
/// Size: a name of 288 bytes for each way of `FINGERPRINTS`. Full: cannot be. Error: a reader takes a name only if its key is
/// the entry's; a new fingerprint has none until its exemplar came.
#[btf_map]
pub(crate) static CLIENT_NAMES: Array<Name, { FINGERPRINTS_LEN }, MAPPABLE> = Array::new();

/// Writer: program. Reader: program, daemon and commands through a mapping.
/// Size: `--sources` / 20 clients (at least 1,024), each a source at a service under a pair of fingerprints, in sets as the sources.
/// Full: the client is not counted, counter `clients_full`; one that is idle gives way. Error: its counters end when its way is
/// taken.
#[btf_map]
pub(crate) static CLIENTS: Array<Set, 1, MAPPABLE> = Array::new();

/// Writer: program. Reader: program, daemon and commands through a mapping.
/// Size: 192 bytes for each way of `CLIENTS`. Full: cannot be. Error: of two CPUs that count a time at once one may be lost.
#[btf_map]
pub(crate) static CLIENT_COUNTS: Array<Client, 1, MAPPABLE> = Array::new();

/// Writer: program, bytes of new fingerprints and of one handshake in 1,024. Reader: daemon.
/// Size: 1 MiB, some 500 ClientHellos or 750 datagrams. Full: the exemplar is lost, counter `exemplars_lost`. Error: a sample.
#[btf_map]
pub(crate) static EXEMPLARS: RingBuf<ExemplarHeader, { EXEMPLARS_BYTES }> = RingBuf::new();

/// Writer: program. Reader: program.
/// Size: 64 ClientHellos of several segments, up to 8 KiB. Full: of two connections that meet in an element, one has no
/// exemplar. Error: none; the daemon takes no bytes that do not have the key that is said of them.
#[btf_map]
pub(crate) static GATHERED_HELLOS: Array<Gathered, { GATHERED }> = Array::new();

/// Writer: daemon, at each start. Reader: program.
/// Size: one program, that which follows handshakes. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Writer: program, each CPU its own. Reader: program, within one packet.
/// Size: 4.5 KiB a CPU. Full: cannot be; of a longer segment the first 4 KiB are read. Error: none.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Writer: program. Reader: program.
/// Size: 16,384 words, as many for each class as for the others. Full: cannot be. Error: newcomers of one class to full
/// sets share one budget, where more sets are full than the class has words; until a second after a policy change they
/// may meet what another class spent.
#[btf_map]
pub(crate) static OVERFLOW: Array<u64, { OVERFLOW_BUDGETS }> = Array::new();

/// Writer: daemon, the slot that is not active. Reader: program, commands.
/// Size: two policies. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static POLICIES: Array<PolicyHeader, { POLICY_SLOTS }, MAPPABLE> = Array::new();

/// Writer: daemon, the slot that is not active. Reader: program, commands.
/// Size: 2 × 4,096 slots, a quarter of them used at most. Full: the policy is refused. Error: none.
#[btf_map]
pub(crate) static DESTINATIONS: Array<DestinationSlot, { POLICY_SLOTS * DESTINATION_SLOTS }, MAPPABLE> =
    Array::new();

/// Writer: daemon, the slot that is not active. Reader: program, commands.
/// Size: 2 × 8,192 slots, a quarter of them used at most. Full: the policy is refused. Error: none.
#[btf_map]
pub(crate) static PORTS: Array<PortSlot, { POLICY_SLOTS * PORT_SLOTS }, MAPPABLE> = Array::new();

/// Writer: daemon, a whole tree of ranges at a time. Reader: program, once for each source and policy; commands.
/// Size: two trees of policies, then four of incident rules, up to 17 bytes a prefix. Full: sized to fit. Error: none.
#[btf_map]
pub(crate) static RULES_V4: ArrayOfMaps<Array<Words<NODE_V4_WORDS>, 1, RULES_FLAGS>, TREES> =
    ArrayOfMaps::new();

/// Writer: daemon, a whole tree of ranges at a time. Reader: program, once for each source and policy; commands.
/// Size: two trees of policies, then four of incident rules, up to 46 bytes a prefix. Full: sized to fit. Error: none.
#[btf_map]
pub(crate) static RULES_V6: ArrayOfMaps<Array<Words<NODE_V6_WORDS>, 1, RULES_FLAGS>, TREES> =
    ArrayOfMaps::new();

/// Writer: daemon, the slot that is not active. Reader: program, once for each source and policy; commands.
/// Size: 2 × 16,384 cells of policies, selectors × services, then 4 × 4,096 of incident rules. Full: the policy or the
/// incident rule is refused. Error: none.
#[btf_map]
pub(crate) static CELLS: Array<
    Cell,
    { POLICY_SLOTS * CELLS_MAX + INCIDENT_SLOTS * INCIDENT_CELLS_MAX },
    MAPPABLE,
> = Array::new();

/// Writer: daemon, the slot that is not active. Reader: program, commands.
/// Size: 2 × 2,560 classes of policies, then 4 × 512 of incident rules. Full: the policy or the incident rule is refused.
/// Error: none.
#[btf_map]
pub(crate) static CLASSES: Array<
    Class,
    { POLICY_SLOTS * CLASSES_MAX + INCIDENT_SLOTS * INCIDENT_CLASSES_MAX },
    MAPPABLE,
> = Array::new();

/// Writer: daemon, the slot that is not active. Reader: program, commands.
/// Size: 2 × 766 classes. Full: the policy is refused. Error: none.
#[btf_map]
pub(crate) static PARENT_CLASSES: Array<ParentClass, { POLICY_SLOTS * PARENT_CLASSES_MAX }, MAPPABLE> =
    Array::new();

/// Writer: daemon, for the policy or the incident rules that are to come, and when a fingerprint appears that a rule is about.
/// Reader: program, at a handshake; commands. Size: 65,536 fingerprints, each of a service and of a policy or a set of incident
/// rules; memory for those that there are. Full: the policy or incident rule is refused; a fingerprint that appears later is not
/// acted on, which the daemon tells. Error: a fingerprint is acted on once its exemplar has been named.
#[btf_map]
pub(crate) static CLIENT_RULES: HashMap<ClientRuleKey, ClientRule, { CLIENT_RULES_MAX }, NO_PREALLOC> =
    HashMap::new();

/// Writer: daemon, the slot that is not active. Reader: program, at a handshake.
/// Size: 64 classes for each policy and set of incident rules. Full: the policy or the incident rule is refused. Error: none.
#[btf_map]
pub(crate) static PAIR_CLASSES: Array<u64, { TREES * PAIRS_MAX }, MAPPABLE> = Array::new();

/// Writer: program; daemon, when a number is given to another name. Reader: program, commands.
/// Size: a theoretical arrival time for each rule that drops are counted for, and 64 words that are not used. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static RULE_BUDGETS: Array<u64, { RULE_COUNTERS }, MAPPABLE> = Array::new();

/// Writer: daemon (what a fleet may do, and until when), program (what it did). Reader: program, commands.
/// Size: 63 fleets that are acted on at a time. Full: nothing is done about the next one, which the daemon tells. Error: none but that of
/// several budgets that several CPUs charge.
#[btf_map]
pub(crate) static FLEETS: Array<FleetSlot, { FLEET_SLOTS }, MAPPABLE> = Array::new();

/// Writer: daemon. Reader: program, for sources without an entry while a fleet is acted on; commands.
/// Size: 131,072 members of fleets that are acted on; 2 MB, and memory for those that there are. Full: the daemon leaves members out, and tells.
/// Error: a member whose set is full is charged to the overflow budget instead.
#[btf_map]
pub(crate) static FLEET_MEMBERS: HashMap<FleetMember, u64, { FLEET_MEMBERS_MAX }, NO_PREALLOC> =
    HashMap::new();

/// Writer: daemon. Reader: program, at a ClientHello while a fleet is known by its keys; commands.
/// Size: 4,096 pairs of fingerprints; memory for those that there are. Full: the daemon leaves keys out, and tells. Error: none.
#[btf_map]
pub(crate) static FLEET_KEYS: HashMap<FleetKey, u64, { FLEET_KEYS_MAX }, NO_PREALLOC> = HashMap::new();

/// Writer: program, each CPU its own; daemon, when a service number is given to another name. Reader: daemon, commands.
/// Size: 256 services × 38 decisions a CPU. Full: cannot be. Error: none; a reader sums CPUs one after the other.
#[btf_map]
pub(crate) static VERDICTS: PerCpuArray<ServiceCounters, { SERVICES_MAX }> = PerCpuArray::new();

/// Writer: program, each CPU its own; daemon, when a number is given to another name. Reader: daemon, commands.
/// Size: 2,560 rules, 256 incident rules and 64 fleets × 2 words a CPU. Full: cannot be. Error: none; a reader sums CPUs one after the other.
#[btf_map]
pub(crate) static RULE_DROPS: PerCpuArray<RuleDrops, { RULE_COUNTERS }> = PerCpuArray::new();

/// Writer: program, each CPU its own. Reader: daemon, commands.
/// Size: 37 words a CPU. Full: cannot be. Error: none.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { COUNTERS_LEN }> = PerCpuArray::new();

/// Writer: program, sampled drops. Reader: daemon.
/// Size: 256 KiB, some 3,600 events. Full: the event is lost, counter `events_lost`. Error: a sample.
#[btf_map]
pub(crate) static EVENTS: RingBuf<DropEvent, { EVENTS_BYTES }> = RingBuf::new();

/// Writer: daemon, the slot that is not active. Reader: commands, the next daemon. The program does not read it.
/// Size: 2 × 64 chunks of 4 KiB: the names of the policy as JSON. Full: the policy is refused. Error: none.
#[btf_map]
pub(crate) static MANIFEST: Array<[u64; 512], { POLICY_SLOTS * MANIFEST_BYTES / 4096 }, MAPPABLE> =
    Array::new();

/// Writer: daemon, a whole list at a time. Reader: commands, the next daemon. The program does not read it.
/// Size: four lists of incident rules as JSON, in chunks of 4 KiB. Full: sized to fit. Error: none.
#[btf_map]
pub(crate) static INCIDENTS: ArrayOfMaps<Array<[u64; 512], 1, RULES_FLAGS>, { INCIDENT_SLOTS }> =
    ArrayOfMaps::new();
