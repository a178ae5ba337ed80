//! Captures through the loaded program, with the captures' own clock: what would this policy have done?

pub mod keys;

use std::{collections::BTreeMap, io, path::Path};

use aya::{
    maps::RingBuf,
    programs::{ProgramError, TestRun as _, TestRunOptions},
};
use detector_common::{
    budget::{BURST_TICKS_MAX, ticks},
    fingerprint::Name,
    limits::FRAME_BYTES_MAX,
    policy::Trace,
    table::{Set, Unit},
    verdict::{Reason, Verdict},
};
use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use crate::{
    capture::{CaptureError, Frame, Merge, SPAN_NS_MAX},
    kernel::{
        apply::{ApplyError, apply},
        client_rules,
        exemplar::Exemplar,
        load::{LoadError, LoadOptions, Loaded, chain, load},
        maps::MapsError,
        names,
    },
    policy::{
        Policy,
        compile::{Clocks, CompileError, Manifest, compile},
    },
};

/// Where virtual time starts: an hour after boot, so that every budget starts full.
const START_NS: u64 = 3600 * 1_000_000_000;

const _: () = assert!(
    START_NS + SPAN_NS_MAX < u64::MAX >> 5 && ticks(START_NS + SPAN_NS_MAX) + BURST_TICKS_MAX < 1 << 63,
    "times of budgets stay below 2^63 ticks however long the captures are"
);

/// The ring buffer of exemplars.
const EXEMPLARS: &str = "EXEMPLARS";

/// A replay that could not be done.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The policy is too large.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The policy's way into the kernel.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A test run.
    #[error("the kernel refuses to run the program on packet {packet}: {reason}")]
    Run {
        /// The packet, from 1.
        packet: u64,
        /// What the kernel said.
        reason: String,
    },
    /// The program returned without a word in the trace.
    #[error("packet {packet} left no trace: the binary and its eBPF object do not belong together")]
    NoTrace {
        /// The packet, from 1.
        packet: u64,
    },
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Apply(ApplyError::Io(error))
    }
}

/// Packets of a service by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// Packets that passed.
    pub pass: u64,
    /// Packets that were dropped.
    pub drop: u64,
}

impl Verdicts {
    fn count(&mut self, dropped: bool) {
        if dropped { self.drop += 1 } else { self.pass += 1 }
    }
}

/// A source at a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Its prefix: IPv4 /32, IPv6 /64.
    pub source: IpNet,
    /// Name of the service.
    pub service: String,
    /// Packets that passed.
    pub pass: u64,
    /// Packets that were dropped.
    pub drop: u64,
    /// Packets of those that passed that did only because the policy, or their rule, is in mode `shadow`.
    pub would_drop: u64,
    /// Bytes of all of its frames, Ethernet header included.
    pub bytes: u64,
    /// New connections asked for.
    pub connections: u64,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Packets of all captures.
    pub packets: u64,
    /// By verdict.
    pub verdicts: Verdicts,
    /// Packets that passed only because the policy, or their rule, is in mode `shadow`.
    pub shadow: u64,
    /// By reason; reasons that no packet had are left out.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Every service of the policy.
    pub services: BTreeMap<String, Verdicts>,
    /// Every source of a service, most packets first.
    pub sources: Vec<SourceReport>,
}

/// What came of sources that should pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Those that had packets dropped, or would have had without mode `shadow`, most packets first.
    pub limited: Vec<SourceReport>,
    /// How many of the prefixes, merged where they meet, a service saw a packet of.
    pub seen: usize,
    /// The other ones.
    pub unseen: Vec<IpNet>,
}

impl Expected {
    /// Whether there were packets of sources that should pass, and none of those was limited.
    pub fn is_met(&self) -> bool {
        self.seen > 0 && self.limited.is_empty()
    }
}

impl Report {
    /// Holds the sources against prefixes that should pass. One that is a part of a source stands for the whole.
    pub fn held_against(&self, prefixes: &[IpNet]) -> Expected {
        let mut prefixes = IpNet::aggregate(&prefixes.to_vec());
        prefixes.sort_unstable();
        let mut is_seen = vec![false; prefixes.len()];
        let mut limited = Vec::new();
        for source in &self.sources {
            // They are apart from each other, so those that meet the source stand side by side.
            let first = prefixes.partition_point(|prefix| prefix.broadcast() < source.source.network());
            let end = prefixes.partition_point(|prefix| prefix.network() <= source.source.broadcast());
            is_seen[first..end].fill(true);
            if first < end && source.drop + source.would_drop > 0 {
                limited.push(source.clone());
            }
        }
        let seen = is_seen.iter().filter(|is_seen| **is_seen).count();
        let unseen = prefixes.into_iter().zip(is_seen).filter(|(_, is_seen)| !is_seen);
        let unseen = unseen.map(|(prefix, _)| prefix).collect();
        Expected { limited, seen, unseen }
    }
}

/// One packet through the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What the program returned: whether the packet was dropped.
    pub verdict: Verdict,
    /// What it wrote.
    pub trace: Trace,
}

impl Judged {
    /// The reason.
    pub fn reason(&self) -> Reason {
        Reason::ALL.get(usize::from(self.trace.reason)).copied().unwrap_or(Reason::Unjudged)
    }
}

/// The program under the virtual clock.
pub struct Bench {
    /// The program and its maps.
    pub loaded: Loaded,
    /// The names of the policy that was applied last.
    pub manifest: Manifest,
    /// Where the virtual clock's 0 is, ns since the Unix epoch: rules end by that clock.
    pub boot_unix_ns: u64,
    packets: u64,
}

impl Bench {
    /// Loads a program of its own, without a policy, its table sized for `sources`.
    pub fn new(sources: u32) -> Result<Self, LoadError> {
        let loaded = load(&LoadOptions::isolated(sources))?;
        let settings = loaded.maps.settings.read(0);
        let seed = LoadOptions::isolated(sources).seed;
        loaded.maps.settings.write(0, &detector_common::generation::Settings { seed, ..settings });
        let bench = Self { loaded, manifest: Manifest::default(), boot_unix_ns: 0, packets: 0 };
        bench.set_ns(START_NS);
        Ok(bench)
    }

    /// Applies a policy. The virtual clock does not step, so no budget is widened for it.
    pub fn apply(&mut self, policy: &Policy) -> Result<u32, ReplayError> {
        let tables = compile(policy, &self.manifest, self.clocks())?;
        let epoch = apply(&mut self.loaded.maps, &tables)?;
        self.manifest = tables.manifest;
        Ok(epoch)
    }

    /// The clocks to compile a policy by.
    pub fn clocks(&self) -> Clocks {
        let kernel_ns = self.loaded.maps.virtual_clock.read(0);
        Clocks { tick_ns: 0, kernel_ns, unix_ns: self.boot_unix_ns.saturating_add(kernel_ns) }
    }

    /// Empties the tables of sources, parents, handshakes, fingerprints and clients, and forgets names.
    pub fn forget(&self) {
        let maps = &self.loaded.maps;
        for table in [
            &maps.sources,
            &maps.parents,
            &maps.client_budgets,
            &maps.flows,
            &maps.fingerprints,
            &maps.clients,
        ] {
            (0..table.len()).for_each(|set| table.write(set, &Set::default()));
        }
        (0..maps.client_names.len()).for_each(|number| maps.client_names.write(number, &Name::NONE));
    }

    /// Gives names to the fingerprints that exemplars were sent of since, and has the rules act on them, as the daemon does.
    ///
    /// # Errors
    ///
    /// The maps cannot be read or written.
    pub fn name_fingerprints(&mut self) -> Result<(), ReplayError> {
        let Loaded { ebpf, maps } = &mut self.loaded;
        let missing = MapsError::Missing { name: EXEMPLARS };
        let map = ebpf.map_mut(EXEMPLARS).ok_or(LoadError::from(missing))?;
        let mut ring = RingBuf::try_from(map)
            .map_err(|source| LoadError::from(MapsError::Type { name: EXEMPLARS, source }))?;
        let mut is_new = false;
        while let Some(record) = ring.next() {
            let Some(exemplar) = Exemplar::of(&record) else { continue };
            let Some(name) = exemplar.name() else { continue };
            let given = names::give(maps, &name, exemplar.header.service);
            is_new |= given.is_some_and(|given| given.before != Some(given.name));
        }
        if is_new {
            client_rules::refresh(maps)?;
        }
        Ok(())
    }

    /// Sets the virtual clock, ns since a boot that never was.
    pub fn set_ns(&self, ns: u64) {
        self.loaded.maps.virtual_clock.write(0, &ns);
    }

    /// Runs the program on a frame of 14 to [`FRAME_BYTES_MAX`] bytes.
    pub fn run(&mut self, frame: &[u8]) -> Result<Judged, ReplayError> {
        self.packets += 1;
        let packet = self.packets;
        let failed = |error: ProgramError| ReplayError::Run { packet, reason: chain(&error) };
        let before = self.loaded.maps.trace.read(0).sequence;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let result = self.loaded.program().and_then(|program| program.test_run(options)).map_err(failed)?;
        let trace = self.loaded.maps.trace.read(0);
        if trace.sequence != before + 1 {
            return Err(ReplayError::NoTrace { packet });
        }
        let verdict = if result.return_value == XDP_DROP { Verdict::Drop } else { Verdict::Pass };
        Ok(Judged { verdict, trace })
    }
}

/// `XDP_DROP` of linux/bpf.h.
const XDP_DROP: u32 = 1;

/// When the rules about fingerprints end, ns since the Unix epoch, the first at the end: then the next one decides.
fn ends_of_fingerprint_rules(policy: &Policy) -> Vec<u64> {
    let about = policy.rules.iter().filter(|rule| rule.matches.patterns().is_some());
    let ends = about.filter_map(|rule| rule.until_s);
    let mut ends: Vec<_> = ends.map(|end_s| end_s.saturating_mul(1_000_000_000)).collect();
    ends.sort_unstable_by(|one, other| other.cmp(one));
    ends
}

/// Replays captures, merged by time, under a policy. `progress` is told the packets done, now and then.
pub fn replay(
    captures: &[impl AsRef<Path>],
    policy: &Policy,
    sources: u32,
    mut progress: impl FnMut(u64),
) -> Result<Report, ReplayError> {
    let mut merge = Merge::open(captures)?;
    let mut bench = Bench::new(sources)?;
    let mut next = merge.next_frame()?;
    // As if the policy had been applied when the captures begin.
    let start_ns = next.as_ref().map_or(0, |frame| frame.time_ns);
    bench.boot_unix_ns = start_ns.saturating_sub(START_NS);
    bench.apply(policy)?;
    let manifest = bench.manifest.clone();
    let mut tally = Tally::new(&manifest);
    let mut time = Time::default();
    let mut ends = ends_of_fingerprint_rules(policy);
    while let Some(frame) = next {
        let now_ns = time.of(&frame);
        bench.set_ns(now_ns);
        let now_unix_ns = bench.boot_unix_ns.saturating_add(now_ns);
        let mut has_ended = false;
        while ends.pop_if(|end_ns| *end_ns <= now_unix_ns).is_some() {
            has_ended = true;
        }
        if has_ended {
            client_rules::refresh(&mut bench.loaded.maps)?;
        }
        let length = frame.data.len().min(FRAME_BYTES_MAX);
        let judged = bench.run(&frame.data[..length])?;
        tally.count(&judged);
        // Without such rules the names are nobody's matter.
        if !manifest.fingerprint_rules.is_empty() && judged.trace.syn_key | judged.trace.tls_key != 0 {
            bench.name_fingerprints()?;
        }
        if tally.packets.is_multiple_of(PROGRESS_PACKETS) {
            progress(tally.packets);
        }
        next = merge.next_frame()?;
    }
    Ok(tally.finish())
}

/// Packets between two words of progress.
const PROGRESS_PACKETS: u64 = 100_000;

/// The virtual clock: the captures' time from the first packet on, never going back.
#[derive(Debug, Default)]
pub struct Time {
    first_ns: Option<u64>,
    now_ns: u64,
}

impl Time {
    /// The time of the next frame, ns since a boot that never was.
    pub fn of(&mut self, frame: &Frame) -> u64 {
        let first_ns = *self.first_ns.get_or_insert(frame.time_ns);
        self.now_ns = self.now_ns.max(frame.time_ns.saturating_sub(first_ns));
        START_NS + self.now_ns
    }
}

#[derive(Default)]
struct SourceTally {
    verdicts: Verdicts,
    would_drop: u64,
    bytes: u64,
    connections: u64,
}

struct Tally<'a> {
    manifest: &'a Manifest,
    packets: u64,
    verdicts: Verdicts,
    shadow: u64,
    reasons: BTreeMap<&'static str, u64>,
    services: BTreeMap<u16, Verdicts>,
    sources: BTreeMap<(u8, u64, u16), SourceTally>,
}

impl<'a> Tally<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self {
            manifest,
            packets: 0,
            verdicts: Verdicts::default(),
            shadow: 0,
            reasons: BTreeMap::new(),
            services: manifest.services.values().map(|&number| (number, Verdicts::default())).collect(),
            sources: BTreeMap::new(),
        }
    }

    fn count(&mut self, judged: &Judged) {
        let trace = &judged.trace;
        let dropped = judged.verdict == Verdict::Drop;
        self.packets += 1;
        self.verdicts.count(dropped);
        self.shadow += u64::from(trace.shadow);
        *self.reasons.entry(judged.reason().name()).or_default() += 1;
        if trace.service == 0 {
            return;
        }
        self.services.entry(trace.service).or_default().count(dropped);
        let source = self.sources.entry((trace.unit, trace.prefix, trace.service)).or_default();
        source.verdicts.count(dropped);
        source.would_drop += u64::from(trace.shadow);
        source.bytes += u64::from(trace.bytes);
        source.connections += u64::from(trace.connection);
    }

    fn finish(self) -> Report {
        let name = |number: u16| self.manifest.service_name(number).to_owned();
        let mut sources: Vec<_> = self
            .sources
            .iter()
            .map(|(&(unit, prefix, service), tally)| SourceReport {
                source: source_prefix(Unit::from_number(unit).unwrap_or(Unit::V4Source), prefix),
                service: name(service),
                pass: tally.verdicts.pass,
                drop: tally.verdicts.drop,
                would_drop: tally.would_drop,
                bytes: tally.bytes,
                connections: tally.connections,
            })
            .collect();
        // Stable: equal ones stay in the order of their addresses.
        sources.sort_by_key(|source| std::cmp::Reverse(source.pass + source.drop));
        Report {
            packets: self.packets,
            verdicts: self.verdicts,
            shadow: self.shadow,
            reasons: self.reasons.clone(),
            services: self.services.iter().map(|(&number, &verdicts)| (name(number), verdicts)).collect(),
            sources,
        }
    }
}

/// The prefix of a unit as other tools write it; `prefix` is the upper half of the address.
pub fn source_prefix(unit: Unit, prefix: u64) -> IpNet {
    let address = detector_common::address::Address { family: unit.family(), high: prefix, low: 0 };
    let address = address.prefix(unit.length()).to_ip();
    IpNet::new(address, unit.length()).unwrap_or_else(|_| IpNet::from(address))
}
