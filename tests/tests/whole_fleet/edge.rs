//! The program with its tables, and who looks at them: packets in, epochs out.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::{address::Family as AddressFamily, table::Unit, verdict::Verdict};
use detector_fleets::{observation::Services, source::Source};
use detector_generator::{
    Epoch as Simulated,
    deed::Deed,
    packets::{Outcome, Player},
};
use detector_tests::rows::{Rig, SECOND, START_NS};
use detector_user::{
    fleets::{Epoch, scale::EPOCH_S},
    kernel::maps::Maps,
    recording::{Numbering, Recorder},
    replay::Judged,
};

/// Sources that the table is sized for.
const SOURCES: u32 = 200_000;

/// What passed of those who are charged.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Since when, by the program's clock.
    pub(crate) since_ns: u64,
    pub(crate) packets: u64,
    pub(crate) connections: u64,
}

/// See the module.
pub(crate) struct Edge {
    pub(crate) rig: Rig,
    player: Player,
    recorder: Recorder,
    numbering: Numbering,
    /// When virtual time starts, ns since the Unix epoch.
    begins_ns: u64,
    pub(crate) frames: u64,
    pub(crate) passed: Passed,
    /// Dropped packets by reason.
    pub(crate) drops: BTreeMap<&'static str, u64>,
}

impl Edge {
    pub(crate) fn new(player: Player, policy: &str, services: Services, begins_s: u64) -> Self {
        let mut rig = Rig::new(SOURCES);
        let begins_ns = begins_s * SECOND;
        rig.bench_mut().boot_unix_ns = begins_ns - START_NS;
        rig.apply(policy);
        Self {
            rig,
            player,
            recorder: Recorder::default(),
            numbering: Numbering::of(services),
            begins_ns,
            frames: 0,
            passed: Passed::default(),
            drops: BTreeMap::new(),
        }
    }

    pub(crate) fn maps(&self) -> &Maps {
        &self.rig.bench().loaded.maps
    }

    /// What clients do in an epoch goes through the program. `charged`: of these it is counted what passes.
    pub(crate) fn play(
        &mut self,
        simulated: &Simulated,
        deeds: &[Deed],
        charged: &BTreeSet<Source>,
    ) -> Vec<Outcome> {
        let Simulated { time_s, span_s, .. } = *simulated;
        let end_ns = (time_s + u64::from(span_s)) * SECOND;
        self.player.add(time_s, span_s, deeds);
        let Self { rig, player, begins_ns, frames, drops, passed, .. } = self;
        player.play(end_ns, |at_ns, frame| {
            rig.set_ns(START_NS + at_ns - *begins_ns);
            let judged = rig.send(frame);
            *frames += 1;
            let has_passed = judged.verdict == Verdict::Pass;
            if !has_passed {
                *drops.entry(judged.reason().name()).or_default() += 1;
            } else if charged.contains(&source_of(&judged)) {
                passed.packets += 1;
                passed.connections += u64::from(judged.trace.connection);
            }
            has_passed
        });
        rig.set_ns(START_NS + end_ns - *begins_ns);
        player.outcomes()
    }

    /// The epoch that is over since the look before, as the daemon's recorder takes it from the tables.
    pub(crate) fn look(&mut self, now_s: u64) -> Option<Epoch> {
        let maps = &self.rig.bench().loaded.maps;
        let known = self.numbering.services().names().len();
        self.numbering.refresh(maps).expect("the policy's names");
        let over = self.recorder.look(maps, &mut self.numbering, now_s, EPOCH_S)?;
        let names = self.numbering.services().names()[known..].to_vec();
        Some(Epoch { start_s: over.start_s, names, rows: over.rows, lost: over.lost })
    }

    /// The program's clock at a time, ns since the Unix epoch.
    pub(crate) fn virtual_ns(&self, unix_ns: u64) -> u64 {
        START_NS + unix_ns - self.begins_ns
    }
}

fn source_of(judged: &Judged) -> Source {
    let prefix = judged.trace.prefix;
    match Unit::from_number(judged.trace.unit).expect("a unit").family() {
        AddressFamily::V4 => Source::of_v4(((prefix >> 32) as u32).into()),
        AddressFamily::V6 => Source::of_v6((u128::from(prefix) << 64).into()).expect("not in ::/32"),
    }
}
