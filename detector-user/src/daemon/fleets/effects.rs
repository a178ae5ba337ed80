//! What services and fleets do meanwhile: packets of a connection, and what passes of members that are throttled and of those that are
//! held out.

use std::collections::BTreeMap;

use detector_common::{fleet::FleetMember, hash::Seed, policy::is_enforced};
use detector_fleets::{fleet::FleetId, observation::ServiceId, source::Source};

use crate::{
    actions::{
        budget::{Measured, Passed},
        standing::Standing,
    },
    fleets::{Epoch, Memory},
    kernel::fleets::{Throttled, entry_key},
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
            // Over QUIC there are handshakes only.
            sums[1] += f64::from(row.connections.max(row.handshakes));
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

    /// These fleets are acted on from now on, as far as the kernel took them; `seed`: by which it tells who is held out.
    pub(super) fn follow(
        &mut self,
        standing: &[Standing],
        in_kernel: &BTreeMap<FleetId, Throttled>,
        memory: &Memory,
        seed: &Seed,
    ) {
        let mut before = std::mem::take(&mut self.fleets);
        self.members.clear();
        for Standing { action, budgets_since_s, .. } in standing {
            let known = before.remove(&action.fleet).filter(|measure| measure.since_s == *budgets_since_s);
            let mut measure = known.unwrap_or(Measure { since_s: *budgets_since_s, ..Measure::default() });
            let Some(fleet) = memory.fleets().find(|fleet| fleet.id == action.fleet) else { continue };
            let without_room = in_kernel.get(&action.fleet).map(|throttled| &throttled.without_room);
            let mut count = [0, 0];
            for &source in &action.members {
                let key = entry_key(source, action.service);
                if without_room.is_some_and(|without| without.contains(&FleetMember::from(key))) {
                    continue;
                }
                let is_held_out = !is_enforced(key.hash(seed), action.enforced_percent);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        actions::{fixtures::standing, standing::Action},
        fleets::{Scale, fixtures},
    };

    #[test]
    fn members_without_room_are_neither_throttled_nor_held_out() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        (0..fixtures::QUIET_EPOCHS + 6).for_each(|number| drop(memory.take(&fixtures::epoch(number))));
        let fleet = memory.fleets().next().expect("a fleet");
        let (id, members) = (fleet.id, fleet.members.keys().copied().collect::<Vec<_>>());
        let action = Action { fleet: id, members: members.clone(), ..standing().action };
        let standing = Standing { action, ..standing() };
        let without_room: BTreeSet<_> =
            members[..10].iter().map(|&source| entry_key(source, standing.action.service).into()).collect();
        let in_kernel = Throttled {
            slot: 1,
            members: 0,
            joined: 0,
            left: 0,
            held_out: 0,
            without_room,
            keys: 0,
            keys_without_room: 0,
        };
        let mut effects = Effects::default();
        let seed = Seed { offsets: [3, 5], multipliers: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f] };
        let measured = |effects: &Effects| effects.measured(id).expect("it is acted on");
        effects.follow(std::slice::from_ref(&standing), &BTreeMap::new(), &memory, &seed);
        let all = measured(&effects);
        assert_eq!(all.throttled.sources + all.held_out.sources, members.len() as u64);
        assert!(all.held_out.sources > 0, "5 % of {}", members.len());
        let in_kernel = BTreeMap::from([(id, in_kernel)]);
        effects.follow(&[standing], &in_kernel, &memory, &seed);
        let some = measured(&effects);
        assert_eq!(some.throttled.sources + some.held_out.sources, members.len() as u64 - 10);
        let epoch = fixtures::epoch(fixtures::QUIET_EPOCHS + 6);
        effects.note(&epoch);
        let of = |sources: &[Source]| -> u64 {
            let rows = epoch.rows.iter().filter(|row| sources.contains(&row.source));
            rows.map(|row| u64::from(row.handshakes)).sum()
        };
        let passed = measured(&effects);
        assert_eq!(passed.throttled.connections + passed.held_out.connections, of(&members[10..]));
        assert!(of(&members[..10]) > 0, "they did something");
    }
}
