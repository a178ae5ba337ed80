//! What the bench found, as JSON. Fields are added, not renamed: other tools read it.

use serde::{Deserialize, Serialize};

/// A whole run. A part that was left out is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where and when.
    pub(crate) machine: Machine,
    /// Whether fewer and shorter runs were made.
    pub(crate) quick: bool,
    /// One packet through one program.
    pub(crate) decision: Vec<Decision>,
    /// One packet from a generator over a veth pair into a receiver.
    pub(crate) pipeline: Vec<Pipeline>,
    /// One source from two CPUs at once.
    pub(crate) exactness: Vec<Exactness>,
    /// Spoofed sources beside limited and well-behaved ones.
    pub(crate) flood: Flood,
    /// TLS handshakes from the SYN on.
    #[serde(default)]
    pub(crate) handshakes: Vec<Handshake>,
    /// Reading the whole table.
    pub(crate) snapshot: Snapshot,
    /// Replacing the policy.
    pub(crate) apply: Apply,
    /// Memory of all maps at the default size, without policies' rules.
    pub(crate) memory: Memory,
}

/// The machine of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor, as the kernel names it.
    pub(crate) processor: String,
    /// CPUs that may be used.
    pub(crate) cpus: usize,
    /// Size of the last-level cache, bytes; 0 if the kernel does not say.
    pub(crate) last_level_cache_bytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Day of the run, YYYY-MM-DD, UTC.
    pub(crate) date: String,
}

/// One program on one kind of traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// `detector`, or a reference.
    pub(crate) program: String,
    /// What the frames are.
    pub(crate) traffic: String,
    /// Sources that addresses are drawn from.
    pub(crate) sources: u32,
    /// Source prefixes in the policy.
    pub(crate) rules: u32,
    /// Nanoseconds a packet: the middle one of the runs.
    pub(crate) ns_median: f64,
    /// … the fastest.
    pub(crate) ns_min: f64,
    /// … the slowest.
    pub(crate) ns_max: f64,
}

/// One receiver of live frames.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pipeline {
    /// `detector`, or what people would use instead.
    pub(crate) receiver: String,
    /// Sources that addresses are drawn from.
    pub(crate) sources: u32,
    /// Nanoseconds a packet, generator, veth pair and receiver together: the middle one of the runs.
    pub(crate) ns_median: f64,
    /// … the fastest.
    pub(crate) ns_min: f64,
    /// … the slowest.
    pub(crate) ns_max: f64,
}

/// One source, sent by two CPUs at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exactness {
    /// The limit, packets a second.
    pub(crate) per_second: u64,
    /// Its burst, packets.
    pub(crate) burst: u64,
    /// How long it ran by the program's own clock, seconds.
    pub(crate) seconds: f64,
    /// Packets sent.
    pub(crate) sent: u64,
    /// Packets that passed.
    pub(crate) admitted: u64,
    /// What GCRA admits in that time at least.
    pub(crate) bound_min: u64,
    /// … and at most: one packet and two steps of the clock more.
    pub(crate) bound_max: u64,
}

/// Connections with a ClientHello.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handshake {
    /// What the ClientHello is like.
    pub(crate) hello: String,
    /// Packets of the client, from the SYN to its first bytes after the ClientHello.
    pub(crate) packets: u32,
    /// Nanoseconds of all of them: the middle one of the runs.
    pub(crate) ns_median: f64,
    /// … the fastest.
    pub(crate) ns_min: f64,
    /// … the slowest.
    pub(crate) ns_max: f64,
}

/// Memory of maps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Bytes whatever the number of CPUs.
    pub(crate) bytes: u64,
    /// Bytes of the counters of each CPU.
    pub(crate) bytes_each_cpu: u64,
    /// Bytes of one entry of the source table.
    pub(crate) way_bytes: u64,
}

/// Floods of random sources beside others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Flood {
    /// Each flood.
    pub(crate) scenes: Vec<Scene>,
}

/// Ways to read a table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Each way.
    pub(crate) readers: Vec<Reader>,
}

/// Changes of the policy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Apply {
    /// Each kind of change.
    pub(crate) changes: Vec<Change>,
}

/// A flood of random sources beside others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scene {
    /// `ipv4`, or `ipv6` for sources inside one /48.
    pub(crate) family: String,
    /// Limit of every source, packets a second. A packet of the flood holds its entry for one part of a second.
    pub(crate) per_second: u64,
    /// Packets of the flood, a million in a virtual second. Of IPv4, each from a source of its own; of IPv6, from one of
    /// the 65,536 sources of the /48.
    pub(crate) spoofed_packets: u64,
    /// Sources above their limit.
    pub(crate) limited_sources: u32,
    /// Their packets that passed although the limit allows fewer.
    pub(crate) wrongly_passed: u64,
    /// Of those sources, the ones that lost their entry while they were limited.
    pub(crate) limited_evicted: u32,
    /// Sources below their limit.
    pub(crate) good_sources: u32,
    /// Packets that they sent.
    pub(crate) good_packets: u64,
    /// … and that were dropped.
    pub(crate) wrongly_dropped: u64,
    /// Of those sources, the ones that lost their entry.
    pub(crate) good_evicted: u32,
    /// Packets of the flood that found no way.
    pub(crate) spoofed_without_entry: u64,
}

/// One way to read a table of a million sources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reader {
    /// `mapping`, or `batch` for `BPF_MAP_LOOKUP_BATCH` on a hash map of the same content.
    pub(crate) way: String,
    /// Entries read.
    pub(crate) sources: u32,
    /// Ways of the table, with those that have no owner.
    pub(crate) table_ways: u64,
    /// Milliseconds of one core: the middle one of the runs.
    pub(crate) ms_median: f64,
    /// … the fastest.
    pub(crate) ms_min: f64,
    /// … the slowest.
    pub(crate) ms_max: f64,
    /// Nanoseconds a packet with nobody reading: the middle one of the runs.
    pub(crate) packet_ns_alone: f64,
    /// … the fastest and the slowest.
    pub(crate) packet_ns_alone_range: [f64; 2],
    /// Nanoseconds a packet while another CPU reads without pause: the middle one of the runs.
    pub(crate) packet_ns_beside: f64,
    /// … the fastest and the slowest.
    pub(crate) packet_ns_beside_range: [f64; 2],
}

/// One change of the policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Source prefixes of the policy.
    pub(crate) prefixes: u32,
    /// `ipv4` or `ipv6`: the family of the prefixes.
    pub(crate) family: String,
    /// Seconds from the parsed policy to the last word written: the middle one of the changes.
    pub(crate) seconds: f64,
    /// … the fastest.
    pub(crate) seconds_min: f64,
    /// … the slowest.
    pub(crate) seconds_max: f64,
    /// Packets judged meanwhile.
    pub(crate) packets: u64,
    /// … neither as the old policy nor as the new one says.
    pub(crate) misjudged: u64,
    /// Kernel memory of the rules of one policy, bytes, as the kernel counts it.
    pub(crate) rules_bytes: u64,
    /// Milliseconds until ten prefixes more are decided about, by an incident rule beside the policy: the middle one of
    /// the changes.
    #[serde(default)]
    pub(crate) ten_prefixes_ms: Option<f64>,
    /// … the fastest and the slowest.
    #[serde(default)]
    pub(crate) ten_prefixes_ms_range: [f64; 2],
}
