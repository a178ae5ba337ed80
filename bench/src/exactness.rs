//! One source from two CPUs at once, under the kernel's clock: what it got, against what GCRA gives.
//!
//! The first packets and the last ones are sent inside one step of the clock each, and the last ones find the budget
//! spent: so the time between them is known exactly, and so is what GCRA gives in it. Between them both CPUs send without
//! a pause.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::{TestRun as _, TestRunOptions, Xdp, XdpMode};
use detector_common::verdict::Reason;
use detector_tests::{cpus, netns::Namespace, packet::udp};
use detector_user::{
    clock::{kernel_ns, kernel_tick_ns},
    kernel::{
        load::{Clock, Loaded, PROGRAM},
        maps::Maps,
        read,
    },
};

use crate::{report::Exactness, sampling::joined, say, subject::Subject};

/// Limits, packets a second.
const RATES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];

/// A small burst is what comes in this part of a second. A shorter one is full again whenever another process keeps both
/// CPUs for a moment.
const SMALL_BURST: u64 = 20;

/// Packets of one call of the kernel, some 0.5 ms.
const CALL: u64 = 4_096;

/// The only service of the policy.
const SERVICE: &str = "api";

/// Of linux/bpf.h.
const XDP_DROP: u32 = 1;

/// Runs until one of them is not disturbed.
const RUNS_MAX: u32 = 10;

/// Attempts to do something inside one step of the clock.
const ATTEMPTS: u8 = 100;

/// Why they all failed.
const BUSY: &str =
    "a few packets were never sent within one step of the clock: the machine is too busy to measure";

const NS_PER_S: u64 = 1_000_000_000;

/// A limit.
#[derive(Debug, Clone, Copy)]
struct Limit {
    per_second: u64,
    burst: u64,
}

/// Measures limits with a burst of a second, and with a small one.
pub(crate) fn measure(quick: bool) -> Result<Vec<Exactness>> {
    let time = Duration::from_secs(if quick { 1 } else { 4 });
    let bursts = |per_second: u64| [per_second, (per_second / SMALL_BURST).max(2)];
    let limits =
        RATES.into_iter().flat_map(|per_second| bursts(per_second).map(|burst| Limit { per_second, burst }));
    limits.map(|limit| exactness(limit, time)).collect()
}

/// One limit, for so long. If the machine had better things to do for so long that the budget was full again, then what
/// GCRA gives is not known, and the run is repeated.
fn exactness(limit: Limit, time: Duration) -> Result<Exactness> {
    for _ in 0..RUNS_MAX {
        say(format_args!("exactness, {} packets/s, burst {}", limit.per_second, limit.burst));
        if let Some(found) = run(limit, time)? {
            return Ok(found);
        }
        say("once more, since other processes kept the CPUs for too long");
    }
    bail!("other processes kept the CPUs in each of {RUNS_MAX} runs: nothing can be said of exactness")
}

/// One run; `None` if the budget may have been full in it after it began.
fn run(limit: Limit, time: Duration) -> Result<Option<Exactness>> {
    let mut subject = Subject::new(1, Clock::Kernel, &policy(limit))?;
    let manifest = read::consistently(&subject.loaded.maps, |active| active.manifest())?.unwrap_or_default();
    let service = *manifest.services.get(SERVICE).context("the policy has one service")?;
    // A program that is attached somewhere is run at once, see `pipeline::generator`.
    let parking = Namespace::new("parking")?;
    let program = subject.loaded.program()?;
    parking.within(|| program.attach("lo", XdpMode::Skb))?.context("parking detector")?;

    let Loaded { ebpf, maps } = &mut subject.loaded;
    let program: &mut Xdp = ebpf.program_mut(PROGRAM).context("the program")?.try_into()?;
    let source = Source { limit, program, maps, service };
    parking.within(|| source.measure(time))?
}

/// A service whose sources have that limit.
fn policy(Limit { per_second, burst }: Limit) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"{SERVICE}\"\naddresses = [\"203.0.113.10\"]\nports = [\"udp/443\"]\n\
         profile = \"customer\"\n[profile.customer]\n\
         packets = {{ rate = \"{per_second}/s\", burst = {burst} }}\n"
    )
}

/// Sources under a limit, and who judges them.
struct Source<'a> {
    limit: Limit,
    program: &'a Xdp,
    maps: &'a Maps,
    service: u16,
}

/// One source since its first packets.
struct Watch {
    frame: Vec<u8>,
    start_ns: u64,
    admitted_before: u64,
    /// When it was looked at last, and what was missing to a full budget then at least, in billionths of a packet.
    at_ns: u64,
    spent: u64,
    /// It may have been full between two looks. Then time was lost that GCRA gives nothing for.
    was_full: bool,
}

impl Source<'_> {
    /// Sends from this thread and another one, each on its CPU; `None` if other processes had the CPUs for too long. On
    /// a machine of one CPU the two take turns.
    fn measure(&self, time: Duration) -> Result<Option<Exactness>> {
        let cpus = cpus::usable();
        cpus::bind(cpus[0]);
        let (start_beside, may_start) = mpsc::channel();
        let stop = &AtomicBool::new(false);
        let (watched, beside) = thread::scope(|scope| {
            let beside = scope.spawn(move || {
                cpus::bind(cpus[1 % cpus.len()]);
                // Without a first packet there is nothing to do.
                may_start.recv().map_or(Ok(0), |frame: Vec<u8>| self.send_until(&frame, stop))
            });
            let watched = self.send_watched(start_beside, time);
            stop.store(true, Ordering::Relaxed);
            (watched, joined(beside))
        });
        let ((mut watch, sent), beside) = (watched?, beside?);
        let last = self.last_packets(&watch.frame)?;
        self.look(&mut watch)?;
        let found = self.found(&watch, last.at_ns, sent + beside + last.sent)?;
        Ok((!watch.was_full).then_some(found))
    }

    /// The figures.
    fn found(&self, watch: &Watch, end_ns: u64, sent: u64) -> Result<Exactness> {
        let elapsed_ns = end_ns - watch.start_ns;
        let Limit { per_second, burst } = self.limit;
        let given = burst + self.given(elapsed_ns) / NS_PER_S;
        Ok(Exactness {
            per_second,
            burst,
            seconds: elapsed_ns as f64 / NS_PER_S as f64,
            sent,
            admitted: self.admitted()? - watch.admitted_before,
            bound_min: given.saturating_sub(1),
            bound_max: given + 1 + self.given(2 * kernel_tick_ns()) / NS_PER_S,
        })
    }

    /// What the rate gives in a time, in billionths of a packet.
    fn given(&self, ns: u64) -> u64 {
        self.limit.per_second * ns
    }

    /// Packets that passed within the budget so far.
    fn admitted(&self) -> Result<u64> {
        let verdicts = read::verdicts(self.maps, self.service)?;
        Ok(verdicts.slots[Reason::Conforming as usize].packets)
    }

    /// Runs the program on so many copies of a frame; whether the last one was dropped.
    fn send(&self, frame: &[u8], packets: u64) -> Result<bool> {
        let options =
            TestRunOptions { data_in: Some(frame), repeat: packets as u32, ..TestRunOptions::new() };
        Ok(self.program.test_run(options).context("a test run")?.return_value == XDP_DROP)
    }

    /// Sends until told to stop; how many.
    fn send_until(&self, frame: &[u8], stop: &AtomicBool) -> Result<u64> {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            self.send(frame, CALL)?;
            sent += CALL;
        }
        Ok(sent)
    }

    /// Sends the first packets, lets the other CPU start, and sends on for a time, with a look at the source between
    /// any two calls; how many.
    fn send_watched(&self, start_beside: mpsc::Sender<Vec<u8>>, time: Duration) -> Result<(Watch, u64)> {
        let (mut watch, mut sent) = self.first_packets()?;
        start_beside.send(watch.frame.clone()).context("starting the other CPU")?;
        let start = Instant::now();
        while start.elapsed() < time && !watch.was_full {
            self.send(&watch.frame, CALL)?;
            sent += CALL;
            self.look(&mut watch)?;
        }
        Ok((watch, sent))
    }

    /// Spends a part of the budget inside one step of the clock; if that does not succeed, of another source's.
    fn first_packets(&self) -> Result<(Watch, u64)> {
        let packets = self.limit.burst.min(2 * CALL);
        for attempt in 0..ATTEMPTS {
            let admitted_before = self.admitted()?;
            let frame = udp(&format!("10.0.0.{attempt}:4000"), "203.0.113.10:443").frame().to_vec();
            let (start_ns, _) = in_one_step(|| self.send(&frame, packets))?;
            let Some(start_ns) = start_ns else { continue };
            let spent = packets * NS_PER_S;
            let watch = Watch { frame, start_ns, admitted_before, at_ns: start_ns, spent, was_full: false };
            return Ok((watch, packets));
        }
        bail!("{BUSY}")
    }

    /// Finds out whether the budget may have been full since the last look: it was not if what came back is less than
    /// what was missing, even if nobody took any of it meanwhile.
    fn look(&self, watch: &mut Watch) -> Result<()> {
        let admitted = self.admitted()? - watch.admitted_before;
        let now = kernel_ns();
        watch.was_full |= self.given(now - watch.at_ns) >= watch.spent;
        watch.spent = (admitted * NS_PER_S).saturating_sub(self.given(now - watch.start_ns));
        watch.at_ns = now;
        Ok(())
    }

    /// Sends inside one step of the clock until the budget is spent.
    fn last_packets(&self, frame: &[u8]) -> Result<Last> {
        // What comes in four steps: since both CPUs stopped, hardly more than one has passed.
        let packets = self.given(4 * kernel_tick_ns()) / NS_PER_S + 2;
        for attempt in 1..=u64::from(ATTEMPTS) {
            let (at_ns, is_spent) = in_one_step(|| self.send(frame, packets))?;
            if let (Some(at_ns), true) = (at_ns, is_spent) {
                return Ok(Last { at_ns, sent: packets * attempt });
            }
        }
        bail!("{BUSY}")
    }
}

/// The last packets of a source.
struct Last {
    at_ns: u64,
    sent: u64,
}

/// Does something from the beginning of a step of the program's clock. When that was, if the step was long enough; and
/// what came of it.
fn in_one_step<T>(action: impl FnOnce() -> Result<T>) -> Result<(Option<u64>, T)> {
    let before = kernel_ns();
    let step = loop {
        let now = kernel_ns();
        if now != before {
            break now;
        }
        std::hint::spin_loop();
    };
    let result = action()?;
    Ok(((kernel_ns() == step).then_some(step), result))
}
