//! Replacing the policy while another CPU judges packets: how long it takes, and whether every packet was judged by the
//! one policy or the other.
//!
//! Three policies take turns in the two slots that the kernel has: so the slot that is filled always holds the third one,
//! and a packet that is judged too early shows.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use detector_common::verdict::Reason;
use detector_tests::{cpus, random::Random};
use detector_user::{
    clock::{self, kernel_tick_ns},
    kernel::{apply::apply, incidents::change, load::Clock, maps::Maps, read},
    policy::{
        self, Action, Policy,
        compile::{Clocks, compile},
        incident::{Incident, IncidentAction},
    },
};
use ipnet::Ipv4Net;

use crate::{
    mix::{Counted, FIRST, Mixer, service, services, source_word},
    report,
    sampling::{Samples, SetAtEnd, joined},
    say,
    subject::Subject,
};

/// Sources whose packets are judged meanwhile. All are in the first prefixes of the rule.
const PROBES: u64 = 10_000;

/// Sources of each prefix of the rule, a /28 of IPv4 or a /60 of IPv6.
const PREFIX_SOURCES: u32 = 16;

/// Packets of one call, some milliseconds: a grace period, which a swap waits for, does not end before the call does.
const CALL: u32 = 10_000;

/// Measures swaps of a small policy, many of them, and of a large one.
pub(crate) fn measure(quick: bool) -> Result<Vec<report::Change>> {
    let many = if quick { 50_000 } else { 1_000_000 };
    let cases = [(false, 1_000, if quick { 30 } else { 99 }), (false, many, 6), (true, many, 6)];
    cases.into_iter().map(|(is_ipv6, prefixes, swaps)| swapped(is_ipv6, prefixes, swaps)).collect()
}

/// What the policies do with the probes, and the reason that the packets then get.
const REASONS: [Reason; 3] = [Reason::Denied, Reason::Allowed, Reason::Conforming];

/// Swaps between them in turn.
fn swapped(is_ipv6: bool, prefixes: u32, swaps: usize) -> Result<report::Change> {
    let family = if is_ipv6 { "ipv6" } else { "ipv4" };
    say(format_args!("apply, {prefixes} prefixes, {family}"));
    let policies = policies(is_ipv6, prefixes)?;
    // A table in which no probe meets a full set: it would be judged by the policy, but with a reason of its own.
    let mut subject = Subject::new(16 * PROBES as u32, Clock::Kernel, &text(is_ipv6, 0))?;
    // Both slots, so that in every swap the one that is filled holds the third policy.
    put(&mut subject.loaded.maps, &policies[2])?;
    put(&mut subject.loaded.maps, &policies[0])?;
    let mut mixer = Mixer::new(&mut subject, is_ipv6)?;
    mixer.set([0, 1, 0], PROBES);
    let maps = &mut subject.loaded.maps;
    let service = service(maps, FIRST)?;

    let progress = mixer.progress();
    let (seconds, early) = while_judging(&mut mixer, || {
        let (mut seconds, mut early) = (Samples::default(), 0);
        for swap in 1..=swaps {
            // The packet that the policy before the last one may still judge has left when two more were sent.
            progress.wait_for(FIRST, 2)?;
            let third = |maps: &Maps| counted(maps, service, REASONS[(swap + 1) % REASONS.len()]);
            let before = third(maps)?;
            let start = Instant::now();
            put(maps, &policies[swap % policies.len()])?;
            seconds.push(start.elapsed().as_secs_f64());
            early += third(maps)? - before;
        }
        Ok((seconds, early))
    })?;
    say(format_args!(
        "apply, {prefixes} prefixes: {:.3} s in the middle of {swaps}, {:.3} to {:.3} s",
        seconds.median(),
        seconds.min(),
        seconds.max()
    ));
    let ten = while_judging(&mut mixer, || {
        let mut ten = Samples::default();
        for _ in 0..CHANGES {
            ten.push(ten_prefixes_more(maps)?);
        }
        Ok(ten)
    })?;
    say(format_args!("apply, ten prefixes more beside {prefixes}: {:.1} ms", ten.median()));
    let (packets, others) = total(maps, service, &mut mixer, REASONS[swaps % REASONS.len()])?;
    say(format_args!("apply, {early} packets were judged by the third policy"));
    let rules_bytes = rules_bytes(maps)?;
    Ok(report::Change {
        prefixes,
        family: family.to_owned(),
        seconds: seconds.median(),
        seconds_min: seconds.min(),
        seconds_max: seconds.max(),
        packets,
        misjudged: early + others,
        rules_bytes,
        ten_prefixes_ms: Some(ten.median()),
        ten_prefixes_ms_range: ten.range(),
    })
}

/// Incident rules that are added and undone.
const CHANGES: usize = 49;

/// Adds an incident rule about ten prefixes that no probe is in, and undoes it. Milliseconds until it was there.
fn ten_prefixes_more(maps: &mut Maps) -> Result<f64> {
    let clocks =
        Clocks { tick_ns: kernel_tick_ns(), kernel_ns: clock::kernel_ns(), unix_ns: clock::unix_ns() };
    let rule = Incident {
        id: 0,
        action: IncidentAction::Block,
        matches: policy::Matches::Sources(
            (0..10)
                .map(|number| Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 16 * number), 28).into())
                .collect(),
        ),
        service: None,
        until_s: Some(clock::unix_s() + 3600),
        reason: "bench".to_owned(),
        by: "bench".to_owned(),
        at_s: clock::unix_s(),
        counter: 0,
    };
    let start = Instant::now();
    let changed = change(maps, clocks, vec![rule], |_| false)?;
    let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
    let id = changed.added[0].id;
    change(maps, clocks, Vec::new(), |incident| incident.id == id)?;
    Ok(elapsed_ms)
}

/// One for each of [`REASONS`], else the same.
fn policies(is_ipv6: bool, prefixes: u32) -> Result<[Policy; REASONS.len()]> {
    let text = text(is_ipv6, prefixes);
    let start = Instant::now();
    let checked = policy::parse(&text)
        .map_err(|errors| anyhow::anyhow!(policy::render("policy of the bench", &text, &errors)))?;
    say(format_args!("apply, parsing {prefixes} prefixes took {:.3} s", start.elapsed().as_secs_f64()));
    let actions = [Action::Drop, Action::Allow, Action::Limit("wide".to_owned())];
    Ok(actions.map(|action| {
        let mut policy = checked.policy.clone();
        policy.rules.iter_mut().for_each(|rule| rule.action = action.clone());
        policy
    }))
}

/// Services without a profile, so that a packet that misses the rule shows as `unlimited`; and the rule. The prefixes of the
/// probes come first and without gaps, as the mixer numbers its sources; the others lie apart and in no order.
fn text(is_ipv6: bool, prefixes: u32) -> String {
    let probes = PROBES.div_ceil(u64::from(PREFIX_SOURCES)) as u32;
    let mut numbers: Vec<_> =
        (0..prefixes).map(|number| if number < probes { number } else { 2 * number }).collect();
    let mut random = Random::new(1);
    for place in (probes as usize + 1..numbers.len()).rev() {
        let other = probes as usize + random.index(place + 1 - probes as usize);
        numbers.swap(place, other);
    }
    let prefix = |number: u32| {
        let source = source_word(FIRST, 0, is_ipv6) + number * PREFIX_SOURCES;
        match is_ipv6 {
            false => format!("\"{}/28\"", Ipv4Addr::from(source)),
            true => {
                let [a, b] = [source >> 16, source & 0xffff];
                format!("\"2001:db8:{a:x}:{b:x}::/60\"")
            }
        }
    };
    let sources: Vec<_> = numbers.into_iter().map(prefix).collect();
    let mut text = format!(
        "version = 1\n{}[profile.wide]\npackets = {{ rate = \"1M/s\", burst = 10000000 }}\n",
        services().replace("profile = \"source\"\n", "")
    );
    if prefixes > 0 {
        let sources = sources.join(", ");
        text += &format!("[[rule]]\nname = \"probes\"\nsource = [{sources}]\naction = \"drop\"\n");
    }
    text
}

/// Compiles a policy and puts it in place of the active one.
fn put(maps: &mut Maps, policy: &Policy) -> Result<()> {
    let previous = read::consistently(maps, |active| active.manifest())?;
    let tables = compile(policy, &previous.unwrap_or_default(), kernel_tick_ns())?;
    apply(maps, &tables)?;
    Ok(())
}

/// Does something while packets are judged without pause, on a CPU of their own where there are two.
fn while_judging<T>(mixer: &mut Mixer, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let cpus = cpus::usable();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let judging = scope.spawn(|| {
            cpus::bind(cpus[1 % cpus.len()]);
            while !is_over.load(Ordering::Relaxed) {
                mixer.run(CALL)?;
                // The kernel's thread of softirqs tells RCU between its polls that no packet is on its way
                // (`rcu_softirq_qs`); a test run does not, and RCU would wait for 100 ms until it interferes.
                thread::yield_now();
            }
            anyhow::Ok(())
        });
        let done = {
            let _end = SetAtEnd(&is_over);
            work()
        };
        joined(judging)?;
        done
    })
}

/// Packets of a reason so far.
fn counted(maps: &Maps, service: u16, reason: Reason) -> Result<u64> {
    Ok(Counted::of(maps, service)?.sum(|other| other == reason))
}

/// Packets so far, and those that no policy judged; the last ones were for the policy of `active`.
fn total(maps: &Maps, service: u16, mixer: &mut Mixer, active: Reason) -> Result<(u64, u64)> {
    let before = counted(maps, service, active)?;
    mixer.run(PROBES as u32)?;
    let late = PROBES - (counted(maps, service, active)? - before);
    let all = Counted::of(maps, service)?;
    let others = all.sum(|reason| !REASONS.contains(&reason));
    say(format_args!("apply, {others} packets were judged by no policy, {late} of the last ones by another"));
    let sent = mixer.sent()[FIRST];
    ensure!(all.all() == sent, "{} packets were counted, {sent} sent", all.all());
    Ok((sent, others + late))
}

/// Memory of the active policy's trees.
fn rules_bytes(maps: &Maps) -> Result<u64> {
    let slot = read::generation(maps).slot();
    let (v4, v6) = (maps.rules_v4.get(&slot, 0)?, maps.rules_v6.get(&slot, 0)?);
    Ok(memory_bytes(&v4)? + memory_bytes(&v6)?)
}

/// Memory of a map, as its descriptor's `fdinfo` has it.
fn memory_bytes(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).context("the kernel does not tell the memory of a map")
}
