//! What services and fleets do meanwhile: packets of a connection, and what passes of members that are throttled and of those that are
//! held out.

use std::collections::BTreeMap;

use detector_common::policy::is_enforced;
use detector_fleets::{fleet::FleetId, observation::ServiceId, source::Source};

use crate::{
    actions::{
        budget::{Measured, Passed},
        standing::Standing,
    },
    fleets::{Epoch, Memory},
    kernel::{fleets::entry_key, maps::Maps},
};

/// What is left of a sum after each epoch: half after some twelve hours.
const KEPT: f64 = 0.999;

/// Packets of a connection where none was seen.
const PACKETS_OF_CONNECTION: f64 = 20.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Packets and connections of each service; older ones count less.
    services: BTreeMap<ServiceId, [f64; 2]>,
    fleets: BTreeMap<FleetId, Measure>,
    /// Whose member a source is, and whether it is held out.
    members: BTreeMap<(ServiceId, Source), (FleetId, bool)>,
}

#[derive(Debug, Default)]
struct Measure {
    /// When its budgets became what they are; what was measured before counts no more.
    since_s: u64,
    measured: Measured,
}

impl Effects {
    /// Adds an epoch. What passed is told by ClientHellos: a connection whose SYN was refused has none.
    pub(super) fn note(&mut self, epoch: &Epoch) {
        self.services.values_mut().flatten().for_each(|sum| *sum *= KEPT);
        for row in &epoch.rows {
            let sums = self.services.entry(row.kind.service).or_default();
            sums[0] += row.packets as f64;
            sums[1] += f64::from(row.connections);
            let Some((fleet, is_held_out)) = self.members.get(&(row.kind.service, row.source)) else {
                continue;
            };
            let Some(Measure { measured, .. }) = self.fleets.get_mut(fleet) else { continue };
            let passed = if *is_held_out { &mut measured.held_out } else { &mut measured.throttled };
            passed.connections += u64::from(row.handshakes);
        }
    }

    /// Packets of a connection at a service, at the mean.
    pub(super) fn packets_of_connection(&self, service: ServiceId) -> f64 {
        match self.services.get(&service) {
            Some([packets, connections]) if *connections >= 1.0 => packets / connections,
            _ => PACKETS_OF_CONNECTION,
        }
    }

    /// What passed of a fleet since its budgets are what they are; `None`: it is not acted on.
    pub(super) fn measured(&self, fleet: FleetId) -> Option<Measured> {
        self.fleets.get(&fleet).map(|measure| measure.measured)
    }

    /// These fleets are acted on from now on.
    pub(super) fn follow(&mut self, standing: &[Standing], memory: &Memory, maps: &Maps) {
        let seed = maps.settings.read(0).seed;
        let mut before = std::mem::take(&mut self.fleets);
        self.members.clear();
        for Standing { action, budgets_since_s, .. } in standing {
            let known = before.remove(&action.fleet).filter(|measure| measure.since_s == *budgets_since_s);
            let mut measure = known.unwrap_or(Measure { since_s: *budgets_since_s, ..Measure::default() });
            let Some(fleet) = memory.fleets().find(|fleet| fleet.id == action.fleet) else { continue };
            let mut count = [0, 0];
            for &source in &action.members {
                let hash = entry_key(source, action.service).hash(&seed);
                let is_held_out = !is_enforced(hash, action.enforced_percent);
                count[usize::from(is_held_out)] += 1;
                self.members.insert((fleet.service, source), (action.fleet, is_held_out));
            }
            let Measured { throttled, held_out } = measure.measured;
            measure.measured = Measured {
                throttled: Passed { sources: count[0], ..throttled },
                held_out: Passed { sources: count[1], ..held_out },
            };
            self.fleets.insert(action.fleet, measure);
        }
    }
}
