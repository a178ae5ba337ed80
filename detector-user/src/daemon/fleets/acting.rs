//! Acts on fleets: has a plan made of what detection knows and of what people say, and carries it out.
//!
//! Plans are made in the time of detection, as are the times of fleets; what people say and what the kernel is told is in that outside.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::{budget::Budget, limits::FLEET_SLOTS};
use detector_fleets::fleet::FleetId;

use super::{
    effects::Effects,
    heard::{InForce, Said},
    telling,
};
use crate::{
    actions::{
        allowed::allowed,
        order::{Order, Stop, Wanted},
        plan::{Asked, Decision, Situation, Step, plan},
        prefixes::Prefixes,
        standing::{Action, Standing},
        telling::OWN,
    },
    change, clock,
    commands::Failure,
    daemon::{Running, Shared},
    fleets::{Epoch, Memory, Scale, told::ActionTold},
    history::{Author, Entry, HistoryError, Origin},
    kernel::{
        fleets::{self, Throttle, Throttled},
        maps::Maps,
        read,
    },
    policy::{self, Rate},
};

/// What came of deciding.
#[derive(Default)]
pub(super) struct Decided {
    /// The decisions that changed something.
    pub(super) changed: Vec<Decision>,
    /// Something was said since it was decided last.
    pub(super) has_heard: bool,
}

/// What is done about fleets, and why.
pub(super) struct Acting {
    scale: Scale,
    standing: Vec<Standing>,
    /// What the kernel took of it.
    in_kernel: BTreeMap<FleetId, Throttled>,
    said: Said,
    /// Something was said that nothing was decided by yet.
    has_heard: bool,
    in_force: InForce,
    effects: Effects,
    decisions: Vec<Decision>,
    /// Decisions that changed something, of which the kernel does not do all yet: nobody is told of them before.
    untold: Vec<Decision>,
    /// Whether the kernel does what is in force, as far as is known.
    is_carried_out: bool,
    /// Whether all actions were stopped when it was decided last.
    is_stopped: bool,
    /// The turn of the switch in the history that was seen to be one beside the pins, too.
    turned: Option<Stop>,
    /// What cannot be done, or is not known: said once, and told until it can.
    problem: Option<String>,
}

impl Acting {
    /// What was in force when the daemon before ended.
    pub(super) fn restored(scale: Scale, running: &Shared) -> Self {
        let standing = running.history.fleet_standing().unwrap_or_else(|error| {
            tracing::warn!("what was done about fleets is not known, and is decided anew: {error}");
            Vec::new()
        });
        Self {
            scale,
            standing,
            in_kernel: BTreeMap::new(),
            said: Said::default(),
            has_heard: false,
            in_force: InForce::default(),
            effects: Effects::default(),
            decisions: Vec::new(),
            untold: Vec::new(),
            is_carried_out: false,
            is_stopped: false,
            turned: None,
            problem: None,
        }
    }

    /// Takes into account what was seen in an epoch.
    pub(super) fn note(&mut self, epoch: &Epoch) {
        self.effects.note(epoch);
    }

    /// What was decided last about each fleet, for commands and the API.
    pub(super) fn told(&self, memory: &Memory, maps: &Maps) -> Vec<ActionTold> {
        let is_known = |decision: &&Decision| memory.fleets().any(|fleet| fleet.id == decision.fleet);
        let decisions = self.decisions.iter().filter(is_known);
        decisions
            .map(|decision| telling::told(decision, self.in_kernel.get(&decision.fleet), self.scale, maps))
            .collect()
    }

    /// Whether something is said that was not before, or the policy is another one, or what was decided could not be done: then it is decided
    /// anew, before an epoch is over.
    pub(super) fn has_news(&self, maps: &Maps, running: &Shared) -> bool {
        self.problem.is_some()
            || self.is_stopped != fleets::is_stopped(maps)
            || read::settings(maps).active != self.in_force.generation
            || self.said.has_news(&running.history, clock::unix_s())
    }

    /// What cannot be done about fleets, and why.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Who stopped all actions, and why.
    pub(super) fn stopped(&self) -> Option<Stop> {
        let beside_the_pins = || Stop {
            by: "somebody".to_owned(),
            reason: "the switch is turned beside the pins, and this history does not say why".to_owned(),
            at_s: 0,
        };
        self.is_stopped.then(|| self.said.stop.clone().unwrap_or_else(beside_the_pins))
    }

    /// Decides about all fleets, and does it.
    pub(super) fn decide(&mut self, memory: &Memory, maps: &Maps, running: &Shared) -> Decided {
        match self.try_to(memory, maps, running) {
            Ok(decided) => {
                self.problem = None;
                decided
            }
            Err(failure) => {
                if self.problem.as_ref() != Some(&failure.message) {
                    tracing::error!("not all is done about fleets that is decided: {}", failure.message);
                }
                self.problem = Some(failure.message);
                Decided::default()
            }
        }
    }

    fn try_to(&mut self, memory: &Memory, maps: &Maps, running: &Shared) -> Result<Decided, Failure> {
        // Where it cannot be read what people say, what they said last holds: actions end all the same.
        let heard = self.said.refresh(&running.history, clock::unix_s());
        self.has_heard |= *heard.as_ref().unwrap_or(&false);
        // After that: who turns the switch off does so in the history first, and who turns it on beside the pins.
        let switched = self.look_at_switch(maps, running);
        // What could not be read is asked for again.
        if read::settings(maps).active != self.in_force.generation || self.in_force.policy.is_none() {
            self.in_force = InForce::read(maps, &running.history, &self.in_force)?;
        }
        let decisions = self.plan(memory);
        let is_new = |decision: &&Decision| {
            let [before, after] =
                [&decision.before, &decision.standing].map(|one| one.as_ref().map(|one| &one.action));
            before != after || decision.step == Step::Suggest && !self.is_suggested(decision.fleet)
        };
        let changed: Vec<_> = decisions.iter().filter(is_new).cloned().collect();
        let wanted: Vec<_> = decisions.iter().filter_map(|decision| decision.standing.clone()).collect();
        if wanted != self.standing {
            self.keep(wanted, &decisions, running)?;
        }
        self.untold.extend(changed);
        self.decisions = decisions;
        if !is_done(&self.standing, maps) || !self.is_taken_over() || !self.is_carried_out {
            self.is_carried_out = false;
            self.carry_out(memory, running)?;
            self.is_carried_out = true;
        }
        heard?;
        switched?;
        // Now, and not before, somebody who waits for what was said is told.
        let changed = std::mem::take(&mut self.untold);
        Ok(Decided { changed, has_heard: std::mem::take(&mut self.has_heard) })
    }

    /// Whether all actions are stopped: beside the pins, or in the history and not beside the pins yet, as after those were made anew.
    fn look_at_switch(&mut self, maps: &Maps, running: &Running) -> Result<(), Failure> {
        self.is_stopped = fleets::is_stopped(maps);
        let Some(stop) = self.said.stop.clone() else { return Ok(()) };
        if self.is_stopped {
            self.turned = Some(stop);
            return Ok(());
        }
        if self.turned.as_ref() == Some(&stop) {
            // Somebody whose history is elsewhere let fleets be acted on again.
            running.history.end_stop(&stop)?;
            self.said.stop = None;
            return Ok(());
        }
        // It holds, also where it cannot be turned.
        self.is_stopped = true;
        let maps = running.maps_to_change()?;
        fleets::stop(&maps);
        if running.history.fleets_stopped()?.is_none() {
            // Somebody let them be acted on again meanwhile, and was overtaken.
            fleets::resume(&maps);
        }
        Ok(())
    }

    /// Writes down what is to be done and why, before it is. Where it cannot be written nothing begins, grows or lasts longer. What is over ends all the
    /// same, and is written down and told when it can be.
    fn keep(
        &mut self,
        wanted: Vec<Standing>,
        decisions: &[Decision],
        running: &Running,
    ) -> Result<(), Failure> {
        let written = self.write(&wanted, decisions, running);
        if let Err(error) = written {
            Self::end_others(&wanted, running)?;
            return Err(Failure::failed(format_args!(
                "nothing is begun or changed, since it cannot be written down: {error}"
            )));
        }
        self.standing = wanted;
        self.is_carried_out = false;
        Ok(())
    }

    /// Whether it is known of all that is in force what the kernel took of it: not of what a daemon before began.
    fn is_taken_over(&self) -> bool {
        self.standing.iter().all(|standing| self.in_kernel.contains_key(&standing.action.fleet))
    }

    fn is_suggested(&self, fleet: FleetId) -> bool {
        let is_it = |decision: &Decision| decision.fleet == fleet && decision.step == Step::Suggest;
        self.decisions.iter().any(is_it)
    }

    fn plan(&self, memory: &Memory) -> Vec<Decision> {
        let InForce { manifest, incidents, policy, .. } = &self.in_force;
        let unix_s = clock::unix_s();
        let lists: BTreeMap<&str, Prefixes> = manifest
            .services
            .keys()
            .map(|name| (name.as_str(), allowed(policy.as_ref(), incidents, name, unix_s)))
            .collect();
        let none = Prefixes::default();
        // One at a service that the policy does not have is not acted on.
        let fleets: Vec<_> = memory
            .fleets()
            .filter_map(|fleet| {
                let service_name = memory.services().name(fleet.service);
                Some(Asked {
                    fleet,
                    service: *manifest.services.get(service_name)?,
                    service_name,
                    mode: manifest.fleet_mode(service_name),
                    allowed: lists.get(service_name).unwrap_or(&none),
                    packets_of_connection: self.effects.packets_of_connection(fleet.service),
                    measured: self.effects.measured(fleet.id),
                })
            })
            .collect();
        let orders: Vec<_> = self.said.orders.iter().map(|order| self.inner(order)).collect();
        plan(&Situation {
            now_s: self.scale.inner_s(clock::unix_ns() / 1_000_000),
            scale: self.scale,
            settings: &manifest.fleets,
            stop: self.stopped().as_ref(),
            fleets: &fleets,
            standing: &self.standing,
            hinted: &self.said.hints.hinted,
            orders: &orders,
        })
    }

    /// An order in the time of detection.
    fn inner(&self, order: &Order) -> Order {
        let inner_s = |unix_s: u64| self.scale.inner_s(unix_s.saturating_mul(1000));
        let wanted = match order.wanted {
            Wanted::Leave => Wanted::Leave,
            Wanted::Throttle { packets, connections } => {
                let inner = |budget: policy::Budget| policy::Budget {
                    rate: Rate { per_ns: self.scale.inner_ns(budget.rate.per_ns), ..budget.rate },
                    ..budget
                };
                Wanted::Throttle { packets: packets.map(inner), connections: connections.map(inner) }
            }
        };
        Order { wanted, at_s: inner_s(order.at_s), until_s: inner_s(order.until_s), ..order.clone() }
    }

    /// Ends in the kernel what is not wanted.
    fn end_others(wanted: &[Standing], running: &Running) -> Result<(), Failure> {
        let _lock = running.pins.lock_policy()?;
        Self::end_in(wanted, &mut running.maps_to_change()?)
    }

    fn end_in(wanted: &[Standing], maps: &mut Maps) -> Result<(), Failure> {
        let is_wanted = |id: u64| wanted.iter().any(|standing| standing.action.fleet.0 == id);
        let others = fleets::standing(maps).into_iter().filter(|one| !one.acts || !is_wanted(one.fleet.id));
        // All of them, whatever becomes of one.
        let ended: Vec<_> = others.map(|one| fleets::end(maps, one.fleet.id)).collect();
        ended.into_iter().try_for_each(|ended| ended.map(|_| ())).map_err(Failure::failed)
    }

    /// Makes the kernel do what is in force. What could not be done is tried again.
    fn carry_out(&mut self, memory: &Memory, running: &Running) -> Result<(), Failure> {
        let _lock = running.pins.lock_policy()?;
        let mut maps = running.maps_to_change()?;
        let ended = Self::end_in(&self.standing, &mut maps);
        let wanted = &self.standing;
        let mut in_kernel = BTreeMap::new();
        let mut failed = None;
        for Standing { action, .. } in wanted {
            match self.throttle(&mut maps, action) {
                Ok(throttled) => _ = in_kernel.insert(action.fleet, throttled),
                Err(failure) => failed = Some(failure),
            }
        }
        // What one fleet leaves another one may take.
        for Standing { action, .. } in wanted {
            let Some(throttled) = in_kernel.get_mut(&action.fleet).filter(|one| one.lacks_room()) else {
                continue;
            };
            *throttled = self.throttle(&mut maps, action)?;
            if throttled.lacks_room() {
                tracing::warn!(
                    fleet = action.fleet.0,
                    members = throttled.without_room.len(),
                    keys = throttled.keys_without_room,
                    "some of a fleet found no room, or are of another one that is acted on"
                );
            }
        }
        self.effects.follow(wanted, &in_kernel, memory, &maps.settings.read(0).seed);
        self.in_kernel = in_kernel;
        ended?;
        failed.map_or(Ok(()), Err)
    }

    /// Makes the kernel act on a fleet; what it took of that.
    fn throttle(&self, maps: &mut Maps, action: &Action) -> Result<Throttled, Failure> {
        let clocks = change::clocks(maps);
        let until_s = self.scale.end_unix_s(action.until_s);
        let members: BTreeSet<_> = action.members.iter().copied().collect();
        let until = clocks.ticks_at(until_s).unwrap_or_default();
        let throttle = Throttle::of(action, &members, until, |policy::Budget { rate, burst }| {
            Budget::of_units(rate.count, self.scale.outer_ns(rate.per_ns), burst, clocks.tick_ns)
        });
        fleets::throttle(maps, &throttle).map_err(Failure::failed)
    }

    /// Writes what is to be in force, and what changes by that into the audit log: as whose, and why.
    fn write(
        &self,
        wanted: &[Standing],
        decisions: &[Decision],
        running: &Running,
    ) -> Result<(), HistoryError> {
        let now_s = clock::unix_s();
        let audited = decisions.iter().filter_map(|decision| {
            let audit = decision.audit(&self.said.orders, self.scale)?;
            let is_about = |order: &&Order| Some(order.id) == decision.order && order.wanted == Wanted::Leave;
            let left = self.said.orders.iter().rfind(is_about).filter(|_| decision.standing.is_none());
            let by = left.map(|order| &order.by).or_else(|| (audit.by != OWN).then_some(&audit.by));
            let author =
                by.map_or_else(|| running.author.clone(), |by| Author { name: by.clone(), uid: None });
            let action = if decision.standing.is_some() { "throttle" } else { "release" };
            Some((audit, author, action))
        });
        let audited: Vec<_> = audited.collect();
        let entries: Vec<_> = audited
            .iter()
            .map(|(audit, author, action)| {
                let text = |text: &Option<String>| text.clone().map(serde_json::Value::from);
                let (before, after) = (text(&audit.before), text(&audit.after));
                let entry = Entry::new(now_s, author, Origin::Daemon, action, &audit.target);
                Entry { before, after, reason: Some(&audit.reason), ..entry }
            })
            .collect();
        running.history.keep_fleet_standing(wanted, &entries)
    }
}

/// Whether the kernel acts on just these fleets.
fn is_done(wanted: &[Standing], maps: &Maps) -> bool {
    let acting: BTreeSet<u64> =
        fleets::standing(maps).iter().filter(|one| one.acts).map(|one| one.fleet.id).collect();
    acting == wanted.iter().map(|standing| standing.action.fleet.0).collect()
}

const _: () =
    assert!(crate::actions::limits::SLOTS_MAX as usize == FLEET_SLOTS - 1, "as many as the kernel has");
