//! Two CPUs at once. The virtual clock stands still, so what may pass is a number.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use detector_common::verdict::Reason;
use detector_tests::rows::{Rig, SECOND};
use detector_user::kernel::read;

use crate::*;

/// `XDP_PASS` of linux/bpf.h.
const XDP_PASS: u32 = 2;

/// CPUs of this machine that this process may use, at most two.
fn cpus() -> Vec<usize> {
    // SAFETY: an empty set is all zeros.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` has the size that is stated.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    assert_eq!(result, 0, "the CPUs of this thread");
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .take(2)
        .collect()
}

/// Binds this thread to a CPU.
fn bind(cpu: usize) {
    // SAFETY: an empty set is all zeros.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a CPU of a set that the kernel gave.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` has the size that is stated.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert_eq!(result, 0, "binding a thread to CPU {cpu}");
}

/// Runs `work` on each CPU at once, each with the program. On a machine of one CPU the two take turns.
fn on_both(rig: &mut Rig, work: impl Fn(&Xdp, usize) + Sync) {
    let program: &Xdp = rig.bench_mut().loaded.program().expect("the program is loaded");
    let cpus = cpus();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for number in 0..2 {
            let (work, start, cpu) = (&work, &start, cpus[number % cpus.len()]);
            scope.spawn(move || {
                bind(cpu);
                start.wait();
                work(program, number);
            });
        }
    });
}

fn run(program: &Xdp, frame: &[u8], times: u32) -> bool {
    let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
    program.test_run(options).expect("a test run").return_value == XDP_PASS
}

/// Every budget that one source has, and those of the prefix around it: exactly the burst passes, whoever sends it.
#[test]
fn two_cpus_with_one_source_share_one_budget() {
    for (profile, reason) in [
        ("packets = { rate = \"1/s\", burst = 2000000 }", Reason::Packets),
        ("bytes = { rate = \"64B/s\", burst = 108000000 }", Reason::Bytes),
        (
            "[profile.customer.parents]\nv4_24 = { packets = { rate = \"1/s\", burst = 2000000 } }",
            Reason::ParentPackets,
        ),
    ] {
        let mut rig = Rig::under(&policy_of(profile));
        let frame = ack(v4(1));
        let counted =
            |rig: &Rig| (rig.counted("api", Reason::Conforming).packets, rig.counted("api", reason).packets);
        let (passed_before, dropped_before) = counted(&rig);
        on_both(&mut rig, |program, _| {
            // One long call, so that most of the two runs goes on at the same time.
            run(program, &frame, 2_000_000);
        });
        let (passed, dropped) = counted(&rig);
        assert_eq!(passed - passed_before + dropped - dropped_before, 4_000_000, "{profile}");
        assert_eq!(passed - passed_before, 2_000_000, "{profile}");
        println!("{reason:?}: contended {} times", rig.counter("contended"));
    }
}

/// Both CPUs see the same new sources at the same moment: each source gets one entry and one burst.
#[test]
fn two_cpus_with_the_same_new_sources_make_one_entry_each() {
    const SOURCES: usize = 20_000;
    const BURST: u32 = 3;
    let mut rig = Rig::new(100_000);
    rig.apply(&policy_of(&format!("packets = {{ rate = \"1/s\", burst = {BURST} }}")));
    let frames: Vec<_> = (0..SOURCES as u32).map(|number| ack(v4(number))).collect();
    let passed: Vec<_> = (0..SOURCES).map(|_| AtomicU32::new(0)).collect();
    let positions = [AtomicU32::new(0), AtomicU32::new(0)];
    on_both(&mut rig, |program, number| {
        for (source, frame) in frames.iter().enumerate() {
            // Side by side: whoever is first waits for the other.
            positions[number].store(source as u32 + 1, Ordering::Release);
            while positions[1 - number].load(Ordering::Acquire) <= source as u32 {
                thread::yield_now();
            }
            for _ in 0..BURST {
                passed[source].fetch_add(run(program, frame, 1).into(), Ordering::Relaxed);
            }
        }
    });
    let mut entries: Vec<_> = read::entries(&rig.bench().loaded.maps.sources).map(|way| way.prefix).collect();
    let all = entries.len();
    entries.sort_unstable();
    entries.dedup();
    assert_eq!(all, entries.len(), "sources have two entries");
    let table_full = rig.counted("api", Reason::TableFull).packets as usize;
    let more: Vec<_> =
        passed.iter().map(|passed| passed.load(Ordering::Relaxed)).filter(|&n| n != BURST).collect();
    println!(
        "{SOURCES} sources: {} raced, {table_full} met a changing set, {} without exactly {BURST}: {more:?}",
        rig.counter("creation_raced"),
        more.len()
    );
    // The documented error: a packet that meets a change of owner may be charged to the other, or pass as if the set
    // were full.
    assert!(more.len() <= SOURCES / 1000, "{} sources were limited to something else: {more:?}", more.len());
    assert!(all + table_full >= SOURCES, "{all} entries");
}

/// New sources by turns in a table so small that entries change hands all the time.
#[test]
fn two_cpus_in_one_set_never_make_two_entries_of_a_source() {
    let mut rig = Rig::new(1);
    rig.apply(&policy_of("packets = { rate = \"1M/s\", burst = 1 }"));
    let frames: Vec<_> = (0..32).map(|number| ack(v4(number))).collect();
    for round in 0..300 {
        // Everyone is idle again.
        rig.advance(SECOND);
        on_both(&mut rig, |program, number| {
            for step in 0..64 {
                run(program, &frames[(round + step * (2 * number + 1)) % frames.len()], 1);
            }
        });
        let mut owners: Vec<_> =
            read::entries(&rig.bench().loaded.maps.sources).map(|way| way.prefix).collect();
        let all = owners.len();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(all, owners.len(), "a source has two entries in round {round}");
        let set = rig.bench().loaded.maps.sources.read(0);
        let claimed = set.ways.iter().filter(|way| way.meta().is_busy()).count();
        assert_eq!(claimed, 0, "a way was claimed in round {round} and never given to anyone");
    }
}
