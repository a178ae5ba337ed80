//! Nanoseconds of one packet over a veth pair: live frames from random sources, made and received on one core.
//!
//! Every receiver but the floor has one limit for each source, one packet an hour, and every source is above it: so all
//! of them find the source, decide and drop. The same packets go to each in turn.

mod generator;
mod receiver;

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use detector_tests::cpus;

use self::{generator::Generator, receiver::Receiver};
use crate::{
    report::Pipeline,
    sampling::{Samples, in_turn},
    say,
};

/// Packets of a run.
const PACKETS: u32 = 2 << 20;

/// Of this many packets of a run one may be lost on the way, and one may pass.
const TOLERANCE: u64 = 100;

/// Runs until nearly every source has spent its one packet. Of a million sources three runs leave out less than one in a
/// hundred, and a table that grows meanwhile needs some more.
const WARMING_RUNS_MAX: u32 = 32;

/// Runs until one loses nearly nothing on the way.
const ATTEMPTS: u32 = 10;

/// Measures all receivers, by number of sources.
pub(crate) fn measure(quick: bool) -> Result<Vec<Pipeline>> {
    let sizes: &[u32] = if quick { &[1, 1 << 20] } else { &[1, 1024, 65_536, 1 << 20] };
    let mut found = Vec::new();
    for &sources in sizes {
        found.extend(compare(sources, if quick { 3 } else { 9 })?);
    }
    Ok(found)
}

/// All receivers, in turn.
fn compare(sources: u32, rounds: usize) -> Result<Vec<Pipeline>> {
    let near = receiver::silent_namespace("near")?;
    let mut generator = Generator::new(&near, sources)?;
    let receivers = receiver::all(&near, &mut generator, sources)?;
    let cpu = *cpus::usable().last().context("this process may use no CPU")?;
    let measure = || {
        cpus::bind(cpu);
        for receiver in &receivers {
            say(format_args!("pipeline, {sources} sources, warming up {}", receiver.name));
            warm_up(&mut generator, receiver)?;
        }
        say(format_args!("pipeline, {sources} sources, {rounds} rounds"));
        let mut turn = 0;
        in_turn(receivers.len(), rounds, |thing| {
            let round = turn / receivers.len() as u32;
            turn += 1;
            timed_run(&mut generator, &receivers[thing], WARMING_RUNS_MAX + round)
        })
    };
    let samples: Vec<Samples> = near.within(measure)??;
    let pipeline = |(receiver, samples): (&Receiver, Samples)| Pipeline {
        receiver: receiver.name.to_owned(),
        sources,
        ns_median: samples.median(),
        ns_min: samples.min(),
        ns_max: samples.max(),
    };
    Ok(receivers.iter().zip(samples).map(pipeline).collect())
}

/// What came of a run.
struct Run {
    /// Nanoseconds a packet that the receiver decided on.
    ns: f64,
    /// Packets that it let pass.
    passed: u64,
    /// Packets that it decided on.
    received: u64,
}

/// Sends packets until nearly all are above their source's limit.
fn warm_up(generator: &mut Generator, receiver: &Receiver) -> Result<()> {
    let mut last = 0;
    for number in 0..WARMING_RUNS_MAX {
        let Run { passed, received, .. } = run(generator, receiver, number)?;
        if passed * TOLERANCE <= received {
            return Ok(());
        }
        last = passed;
    }
    bail!(
        "{} still lets {last} of {PACKETS} packets pass after {WARMING_RUNS_MAX} runs: it does not hold so many sources",
        receiver.name
    )
}

/// A run in which nearly all packets are dropped by the receiver. One that lost packets on the way, because another
/// process had the core when the receiver should have, is repeated.
fn timed_run(generator: &mut Generator, receiver: &Receiver, number: u32) -> Result<f64> {
    for _ in 0..ATTEMPTS {
        let Run { ns, passed, received } = run(generator, receiver, number)?;
        ensure!(passed * TOLERANCE <= received, "{} let {passed} of {received} packets pass", receiver.name);
        let lost = u64::from(PACKETS).saturating_sub(received);
        if lost * TOLERANCE <= u64::from(PACKETS) {
            return Ok(ns);
        }
        say(format_args!("{} saw {received} of {PACKETS} packets: once more", receiver.name));
    }
    bail!(
        "in each of {ATTEMPTS} runs packets for {} were lost in the veth pair: its figures would be wrong",
        receiver.name
    )
}

/// One run; packets are the same for the same number. By the clock on the wall: the kernel's own figure leaves out what
/// the receiver does while the generator waits for it.
fn run(generator: &mut Generator, receiver: &Receiver, number: u32) -> Result<Run> {
    let before = receiver.counts()?;
    let start = Instant::now();
    generator.send(receiver.near_index, PACKETS, number)?;
    let elapsed = start.elapsed();
    let after = receiver.counts()?;
    let (received, passed) = (after.received - before.received, after.passed - before.passed);
    Ok(Run { ns: elapsed.as_nanos() as f64 / received as f64, passed, received })
}
