//! A flood of spoofed sources, while others go on: the virtual clock runs with the packets, so that what a limit allows
//! is a number.
//!
//! Every group sends to a service of its own with the same profile: so the product itself counts them apart. Known
//! sources send in turn, so what each sent is known too, and an entry whose counter says just that was never lost.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use detector_common::{
    counters::{TableEvent, table_event_slot},
    limits::SOURCES_DEFAULT,
    table::Key,
    verdict::{Reason, Verdict},
    way::Way,
};
use detector_user::kernel::{load::Clock, maps::Maps, read};

use crate::{
    mix::{Counted, FIRST, GROUPS, Mixer, SECOND, SPOOFED, key, service, services},
    report, say,
    subject::{CLOCK_TICK_NS, Subject},
};

/// Sources of each known group.
const KNOWN: u64 = 10_000;

/// Packets of the flood in a virtual second.
const SPOOFED_PER_S: u64 = 1_000_000;

/// Virtual seconds before the flood: twice what brings the limited sources to their limit.
const WARM_UP_S: u64 = 4;

const NS_PER_S: u64 = 1_000_000_000;
const STEPS_PER_S: u64 = NS_PER_S / CLOCK_TICK_NS;

/// The limited sources.
const LIMITED: usize = FIRST;
/// The well-behaved ones.
const GOOD: usize = SECOND;

/// What a flood meets.
#[derive(Clone, Copy)]
struct Scene {
    is_ipv6: bool,
    /// Limit of every source. Limited ones send twice as much, well-behaved ones half of it.
    per_s: u64,
    /// Packets of the flood.
    spoofed: u64,
}

impl Scene {
    fn burst(self) -> u64 {
        2 * self.per_s
    }

    /// Frames of each group in a cycle.
    fn in_cycle(self) -> [u64; GROUPS] {
        [2 * SPOOFED_PER_S / (KNOWN * self.per_s), 4, 1]
    }

    /// Frames of the known groups in a step of the clock.
    fn known_in_step(self) -> u64 {
        KNOWN * self.per_s * 5 / 2 / STEPS_PER_S
    }

    fn policy(self) -> String {
        let (rate, burst) = (self.per_s, self.burst());
        format!(
            "version = 1\n{}[profile.source]\npackets = {{ rate = \"{rate}/s\", burst = {burst} }}\n",
            services()
        )
    }

    fn family(self) -> &'static str {
        if self.is_ipv6 { "ipv6" } else { "ipv4" }
    }
}

/// Measures both families with a limit that leaves most of the table idle, and IPv4 with one at which the flood alone is
/// as many active sources as the table is made for.
pub(crate) fn measure(quick: bool) -> Result<Vec<report::Scene>> {
    let spoofed = if quick { 2_000_000 } else { 100_000_000 };
    let scenes = [(false, 10), (true, 10), (false, 2)];
    scenes.into_iter().map(|(is_ipv6, per_s)| flood(Scene { is_ipv6, per_s, spoofed })).collect()
}

fn flood(scene: Scene) -> Result<report::Scene> {
    say(format_args!("flood, {}, limit {} packets/s a source", scene.family(), scene.per_s));
    let mut subject = Subject::new(SOURCES_DEFAULT, Clock::Virtual, &scene.policy())?;
    let mut mixer = Mixer::new(&mut subject, scene.is_ipv6)?;
    let maps = &subject.loaded.maps;
    let start_ns = maps.virtual_clock.read(0);
    let [spoofed, limited, good] = scene.in_cycle();

    mixer.set([0, limited, good], KNOWN);
    run(&mut mixer, maps, scene.known_in_step(), WARM_UP_S * STEPS_PER_S)?;
    let before = entries(maps)?;
    mixer.set([spoofed, limited, good], KNOWN);
    let spoofed_in_step = SPOOFED_PER_S / STEPS_PER_S;
    run(&mut mixer, maps, spoofed_in_step + scene.known_in_step(), scene.spoofed / spoofed_in_step)?;

    let elapsed_ns = maps.virtual_clock.read(0) - start_ns;
    let allowed = scene.burst() + scene.per_s * elapsed_ns / NS_PER_S;
    judge(scene, maps, &before, mixer.sent(), allowed)
}

/// Sends so many frames in each of so many steps of the clock.
fn run(mixer: &mut Mixer, maps: &Maps, frames: u64, steps: u64) -> Result<()> {
    for _ in 0..steps {
        maps.virtual_clock.write(0, &(maps.virtual_clock.read(0) + CLOCK_TICK_NS));
        mixer.run(frames as u32)?;
    }
    Ok(())
}

/// Entries by prefix and tag.
type Entries = HashMap<(u64, u64), Way>;

fn entries(maps: &Maps) -> Result<Entries> {
    let mut entries = HashMap::new();
    for way in read::entries(&maps.sources) {
        let twice = entries.insert((way.prefix, way.meta().tag()), way);
        ensure!(twice.is_none(), "a source has two entries");
    }
    Ok(entries)
}

/// What is in the maps after a flood, against what was sent; `allowed`: packets that each limit lets through.
fn judge(
    scene: Scene,
    maps: &Maps,
    before: &Entries,
    sent: [u64; GROUPS],
    allowed: u64,
) -> Result<report::Scene> {
    let after = entries(maps)?;
    let mut counted = Vec::new();
    for (group, sent) in sent.into_iter().enumerate() {
        let of_group = Counted::of(maps, service(maps, group)?)?;
        ensure!(
            of_group.all() == sent,
            "{} packets of group {group} were counted, {sent} sent",
            of_group.all()
        );
        counted.push(of_group);
    }
    let passes = |reason: Reason| reason.verdict() == Verdict::Pass;
    let known = |group: usize| -> Result<Kept> {
        let service = service(maps, group)?;
        let keys = (0..KNOWN).map(|number| key(group, number, scene.is_ipv6, service));
        Ok(Kept::of(keys, before, &after, sent[group] / KNOWN, allowed))
    };
    let (limited, good) = (known(LIMITED)?, known(GOOD)?);
    let of_the_lost = counted[LIMITED].sum(passes).saturating_sub(limited.passed);
    let without_entry = |reason| matches!(reason, Reason::TableFull | Reason::Overflow);
    tell(maps, &limited, allowed, counted[SPOOFED].sum(passes))?;
    Ok(report::Scene {
        family: scene.family().to_owned(),
        per_second: scene.per_s,
        spoofed_packets: sent[SPOOFED],
        limited_sources: KNOWN as u32,
        wrongly_passed: limited.beyond + of_the_lost.saturating_sub(allowed * limited.lost),
        limited_evicted: limited.lost as u32,
        good_sources: KNOWN as u32,
        good_packets: sent[GOOD],
        wrongly_dropped: counted[GOOD].sum(|reason| !passes(reason)),
        good_evicted: good.lost as u32,
        spoofed_without_entry: counted[SPOOFED].sum(without_entry),
    })
}

/// What became of the entries of a group.
#[derive(Debug, Default)]
struct Kept {
    /// Entries that changed hands, or never were.
    lost: u64,
    /// Packets of the others that passed.
    passed: u64,
    /// … and that their limit does not allow.
    beyond: u64,
    /// The fewest that one of the others passed.
    least: u64,
}

impl Kept {
    /// Compares entries before and after; each source sent so many packets.
    fn of(
        keys: impl Iterator<Item = Key>,
        before: &Entries,
        after: &Entries,
        sent: u64,
        allowed: u64,
    ) -> Self {
        let mut kept = Self { least: u64::MAX, ..Self::default() };
        for Key { prefix, tag } in keys {
            let (before, after) = (before.get(&(prefix, tag)), after.get(&(prefix, tag)));
            let is_kept = |(before, after): &(&Way, &Way)| {
                before.meta().generation() == after.meta().generation() && u64::from(after.packets()) == sent
            };
            let Some((_, way)) = before.zip(after).filter(is_kept) else {
                kept.lost += 1;
                continue;
            };
            let passed = u64::from(way.packets() - way.refused());
            kept.passed += passed;
            kept.beyond += passed.saturating_sub(allowed);
            kept.least = kept.least.min(passed);
        }
        kept
    }
}

/// Says what the report has no field for.
fn tell(maps: &Maps, limited: &Kept, allowed: u64, spoofed_passed: u64) -> Result<()> {
    let counters = read::counters(maps)?;
    let count = |event| counters[table_event_slot(event) as usize];
    say(format_args!(
        "flood, limited sources got at least {} of {allowed} packets each; {spoofed_passed} spoofed ones passed; {} \
         entries made, {} of them in the way of an idle source",
        limited.least,
        count(TableEvent::SourceCreated),
        count(TableEvent::SourceReplaced),
    ));
    Ok(())
}
