//! The loaded program under the virtual clock, and everything that one packet moves.
//!
//! A *row* says: this frame, at this time, under this policy → this text. The text names the verdict, the reason, and
//! all counters and entries that changed; what it does not name did not change. For example:
//!
//! ```text
//! drop packets; api.packets 1; 198.51.100.7/32@api packets 1 refused 1
//! ```
//!
//! A counter of bytes is named only where it moved by something else than the length of the frames counted.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, sync::Mutex, thread};

use aya::{
    maps::{MapInfo, MapType, PerCpuValues, RingBuf},
    programs::{TestRun as _, TestRunOptions},
};
use detector_common::{
    address::Address,
    budget::ticks,
    counters::COUNTERS,
    generation::Settings,
    limits::{RULE_COUNTERS, SERVICES_MAX},
    policy::RuleDrops,
    verdict::{Counter, Reason, ServiceCounters, Verdict, counter_slot},
    way::Way,
};
use detector_user::{
    kernel::{
        exemplar::Exemplar,
        fleets,
        load::{HANDSHAKES, PROGRAM},
        maps::Maps,
        read,
    },
    policy::{self, Policy, compile::Manifest},
    replay::{Bench, Judged},
};

use crate::snapshot::{Snapshot, counter_names};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of a millisecond.
pub const MILLISECOND: u64 = 1_000_000;

/// Virtual time at which a rig starts: long after boot, so that every budget starts full.
pub const START_NS: u64 = 3600 * SECOND;

/// The program with its maps, of one test alone.
pub struct Rig {
    /// The program. [`None`] while the rig is dropped.
    bench: Option<Bench>,
    /// Goes back to the [`POOL`].
    is_pooled: bool,
    now_ns: u64,
}

/// Programs that a test has done with. Loading one takes a third of a second, and minutes where the processor is
/// emulated.
static POOL: Mutex<Vec<Bench>> = Mutex::new(Vec::new());

/// Sources that the tables of pooled programs are sized for.
const POOLED_SOURCES: u32 = 1000;

/// Reads a policy.
///
/// # Panics
///
/// It has errors.
pub fn policy(text: &str) -> Policy {
    match policy::parse(text) {
        Ok(checked) => checked.policy,
        Err(diagnostics) => panic!("{}", policy::render("test policy", text, &diagnostics)),
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_pooled
            && !thread::panicking()
            && let (Ok(mut pool), Some(bench)) = (POOL.lock(), self.bench.take())
        {
            pool.push(bench);
        }
    }
}

/// Memory of maps, bytes.
#[derive(Debug, Clone, Copy)]
pub struct MapBytes {
    /// Whatever the number of CPUs.
    pub fixed: u64,
    /// Counters of one CPU.
    pub each_cpu: u64,
}

impl Rig {
    /// A program without a policy, its table sized for so many sources.
    ///
    /// # Panics
    ///
    /// It cannot be loaded.
    pub fn new(sources: u32) -> Self {
        // SAFETY: no precondition.
        let user = unsafe { libc::geteuid() };
        assert_eq!(user, 0, "these tests load a program into the kernel: run them as root");
        let bench = Bench::new(sources).unwrap_or_else(|error| panic!("{error}"));
        let mut rig = Self { bench: Some(bench), is_pooled: false, now_ns: 0 };
        rig.set_ns(START_NS);
        rig
    }

    /// A program without a policy, with a table of a thousand sources. Another test may have used it before: its sources
    /// and counters are cleared, and what stays are the overflow budgets of full sets.
    ///
    /// # Panics
    ///
    /// It cannot be loaded.
    pub fn bare() -> Self {
        let used = POOL.lock().expect("nobody panics with the pool in hand").pop();
        let mut rig = match used {
            Some(bench) => Self { bench: Some(bench), is_pooled: false, now_ns: 0 },
            None => Self::new(POOLED_SOURCES),
        };
        rig.is_pooled = true;
        rig.set_ns(START_NS);
        rig.forget_sources();
        rig.zero_counters();
        let settings = rig.maps().settings.read(0);
        rig.maps().settings.write(
            0,
            &Settings {
                active: 0,
                deadline: 0,
                last_epoch: 0,
                last_incident: 0,
                exemplar_tat: 0,
                syn_exemplar_tat: 0,
                initial_exemplar_tat: 0,
                syn_flood_until: 0,
                ..settings
            },
        );
        rig.take_exemplars();
        let maps = &mut rig.bench_mut().loaded.maps;
        fleets::stop(maps);
        fleets::settle(maps).expect("no fleet stays");
        fleets::resume(maps);
        rig.bench_mut().manifest = Manifest::default();
        rig
    }

    /// A program under a policy, as [`Self::bare`] otherwise.
    ///
    /// # Panics
    ///
    /// The policy has errors, or the program cannot be loaded.
    pub fn under(text: &str) -> Self {
        let mut rig = Self::bare();
        rig.apply(text);
        rig
    }

    /// The program.
    pub fn bench(&self) -> &Bench {
        self.bench.as_ref().expect("it is there until the rig is dropped")
    }

    /// The program.
    pub fn bench_mut(&mut self) -> &mut Bench {
        self.bench.as_mut().expect("it is there until the rig is dropped")
    }

    fn maps(&self) -> &Maps {
        &self.bench().loaded.maps
    }

    /// Applies a policy.
    ///
    /// # Panics
    ///
    /// It has errors.
    pub fn apply(&mut self, text: &str) {
        self.apply_policy(&policy(text));
    }

    /// Applies a policy.
    ///
    /// # Panics
    ///
    /// It does not fit.
    pub fn apply_policy(&mut self, policy: &Policy) {
        self.bench_mut().apply(policy).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Sets the virtual clock.
    pub fn set_ns(&mut self, ns: u64) {
        self.now_ns = ns;
        self.bench().set_ns(ns);
    }

    /// Moves the virtual clock on.
    pub fn advance(&mut self, ns: u64) {
        self.set_ns(self.now_ns + ns);
    }

    /// The virtual clock.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The virtual clock in the ticks of budgets.
    pub fn now(&self) -> u64 {
        ticks(self.now_ns)
    }

    /// Sends one frame.
    ///
    /// # Panics
    ///
    /// The kernel refuses to run the program, or what the program returned is not what it wrote down.
    pub fn send(&mut self, frame: &[u8]) -> Judged {
        let judged = self.bench_mut().run(frame).unwrap_or_else(|error| panic!("{error}"));
        let dropped = judged.verdict == Verdict::Drop;
        assert_eq!(u8::from(dropped), judged.trace.dropped, "returned one verdict, wrote another");
        assert_eq!(frame.len(), judged.trace.bytes as usize, "the length of the frame");
        judged
    }

    /// Sends one frame; whether it passed.
    ///
    /// # Panics
    ///
    /// As [`Self::send`].
    pub fn passes(&mut self, frame: &[u8]) -> bool {
        self.send(frame).verdict == Verdict::Pass
    }

    /// Sends one frame; the reason for what happened to it.
    ///
    /// # Panics
    ///
    /// As [`Self::send`].
    pub fn reason(&mut self, frame: &[u8]) -> Reason {
        self.send(frame).reason()
    }

    /// Sends the same frame many times at one time, in one call of the kernel. The call takes tens of milliseconds
    /// whatever the number, since the kernel rewrites its XDP dispatcher around it.
    ///
    /// # Panics
    ///
    /// The kernel refuses to run the program.
    pub fn repeat(&mut self, frame: &[u8], times: u32) {
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
        let program = self.bench_mut().loaded.program().expect("the program is loaded");
        program.test_run(options).expect("a test run");
    }

    /// Number of a service of the policy that was applied last.
    ///
    /// # Panics
    ///
    /// There is no such service.
    pub fn service(&self, name: &str) -> u16 {
        self.bench().manifest.services[name]
    }

    /// What was counted for a reason at a service; shadowed packets are not in it.
    ///
    /// # Panics
    ///
    /// The counters cannot be read.
    pub fn counted(&self, service: &str, reason: Reason) -> Counter {
        let number = self.service(service);
        read::verdicts(self.maps(), number).expect("counters").slots[reason as usize]
    }

    /// What would have been dropped for a reason at a service, had the mode been `enforce`.
    ///
    /// # Panics
    ///
    /// The counters cannot be read.
    pub fn shadowed(&self, service: &str, reason: Reason) -> Counter {
        let number = self.service(service);
        read::verdicts(self.maps(), number).expect("counters").slots[counter_slot(reason, true)]
    }

    /// What a rule of the policy refused.
    ///
    /// # Panics
    ///
    /// There is no such rule, or the counters cannot be read.
    pub fn rule_drops(&self, name: &str) -> RuleDrops {
        let rule = self.bench().manifest.rules.iter().find(|rule| rule.name == name);
        let rule = rule.unwrap_or_else(|| panic!("there is no rule {name}"));
        read::rule_drops(self.maps(), rule.counter).expect("counters")
    }

    /// A counter that is no verdict, by its name.
    ///
    /// # Panics
    ///
    /// There is no such counter, or it cannot be read.
    pub fn counter(&self, name: &str) -> u64 {
        let slot = counter_names().position(|known| known == name);
        let slot = slot.unwrap_or_else(|| panic!("there is no counter {name}"));
        read::counters(self.maps()).expect("counters")[slot]
    }

    /// The entry of a source.
    ///
    /// # Panics
    ///
    /// The address is none, or there is no such service.
    pub fn entry(&self, address: &str, service: &str) -> Option<Way> {
        let address: IpAddr = address.parse().expect("an address");
        read::source(self.maps(), Address::from(address), self.service(service))
    }

    /// The maps that the programs use, by name.
    ///
    /// # Panics
    ///
    /// The kernel does not tell them.
    pub fn kernel_maps(&mut self) -> BTreeMap<String, MapInfo> {
        let mut maps = BTreeMap::new();
        for name in [PROGRAM, HANDSHAKES] {
            let program = self.bench_mut().loaded.named(name).expect("the program is loaded");
            let info = program.info().expect("what the kernel knows of the program");
            for id in info.map_ids().expect("its maps").expect("a kernel that tells maps") {
                let map = MapInfo::from_id(id).expect("a map of the program");
                maps.insert(map.name_as_str().expect("a name").to_owned(), map);
            }
        }
        maps
    }

    /// Memory of the elements of all maps, without policies' rules.
    pub fn map_bytes(&mut self) -> MapBytes {
        // The manifest is mapped, not named by the program.
        let fixed = self.maps().manifest.len() as u64 * size_of::<[u64; 512]>() as u64;
        let mut bytes = MapBytes { fixed, each_cpu: 0 };
        for map in self.kernel_maps().values() {
            let entries = u64::from(map.max_entries());
            let elements = u64::from(map.value_size()).next_multiple_of(8) * entries;
            match map.map_type().expect("a type") {
                MapType::PerCpuArray => bytes.each_cpu += elements,
                // Its size is its number of entries.
                MapType::RingBuf => bytes.fixed += entries,
                _ => bytes.fixed += elements,
            }
        }
        bytes
    }

    /// The exemplars that were sent since this was asked last.
    ///
    /// # Panics
    ///
    /// One is none.
    pub fn take_exemplars(&mut self) -> Vec<Exemplar> {
        let map = self.bench_mut().loaded.ebpf.map_mut("EXEMPLARS").expect("the ring buffer");
        let mut ring = RingBuf::try_from(map).expect("a ring buffer");
        let mut exemplars = Vec::new();
        while let Some(record) = ring.next() {
            exemplars.push(Exemplar::of(&record).expect("an exemplar"));
        }
        exemplars
    }

    /// Gives names to the fingerprints that exemplars were sent of, and has the rules act on them, as the daemon does.
    ///
    /// # Panics
    ///
    /// A ClientHello cannot be read, or the maps cannot be written.
    pub fn name_fingerprints(&mut self) {
        self.bench_mut().name_fingerprints().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Empties the tables of sources and parents, of handshakes and fingerprints.
    pub fn forget_sources(&mut self) {
        self.bench().forget();
    }

    fn zero_counters(&mut self) {
        let cpus = aya::util::nr_cpus().expect("the number of CPUs");
        let maps = &mut self.bench_mut().loaded.maps;
        for service in 0..SERVICES_MAX as u32 {
            let zeros = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus]).expect("one a CPU");
            maps.verdicts.set(service, zeros, 0).expect("a counter of verdicts");
        }
        for counter in 0..RULE_COUNTERS as u32 {
            let zeros = PerCpuValues::try_from(vec![RuleDrops::default(); cpus]).expect("one a CPU");
            maps.rule_drops.set(counter, zeros, 0).expect("a counter of rules");
        }
        for slot in 0..COUNTERS as u32 {
            let zeros = PerCpuValues::try_from(vec![0; cpus]).expect("one a CPU");
            maps.counters.set(slot, zeros, 0).expect("a counter");
        }
    }

    /// Everything there is to count, as it stands.
    ///
    /// # Panics
    ///
    /// The counters cannot be read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.maps())
    }

    /// Sends a frame and says what became of it and what it moved.
    ///
    /// # Panics
    ///
    /// As [`Self::send`].
    pub fn row(&mut self, frame: &[u8]) -> String {
        let before = self.snapshot();
        let judged = self.send(frame);
        let shadow = if judged.trace.shadow == 1 { " (shadow)" } else { "" };
        let mut text = format!("{} {}{shadow}", judged.verdict.name(), judged.reason().name());
        let name = |service| self.bench().manifest.service_name(service).to_owned();
        for line in self.snapshot().moved_since(&before, name, frame.len() as u64) {
            let _ = write!(text, "; {line}");
        }
        text
    }

    /// Checks rows that have nothing to do with each other: before each, no source is known.
    ///
    /// # Panics
    ///
    /// A row differs; all that do are shown.
    #[track_caller]
    pub fn check_each(&mut self, rows: &[(&str, &[u8], &str)]) {
        let mut differences = String::new();
        for (name, frame, expected) in rows {
            self.forget_sources();
            compare(&mut differences, name, &self.row(frame), expected);
        }
        assert!(differences.is_empty(), "\n{differences}");
    }

    /// Checks rows that follow each other, each so many milliseconds after the one before.
    ///
    /// # Panics
    ///
    /// A row differs; all that do are shown.
    #[track_caller]
    pub fn check_sequence(&mut self, rows: &[(u64, &str, &[u8], &str)]) {
        let mut differences = String::new();
        for (after_ms, name, frame, expected) in rows {
            self.advance(after_ms * MILLISECOND);
            compare(&mut differences, name, &self.row(frame), expected);
        }
        assert!(differences.is_empty(), "\n{differences}");
    }
}

#[track_caller]
fn compare(differences: &mut String, name: &str, found: &str, expected: &str) {
    if found != expected {
        let _ = writeln!(differences, "{name}\n  expected: {expected}\n  found:    {found}");
    }
}
