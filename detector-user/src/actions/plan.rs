//! What to do about fleets: each of them nothing, a suggestion, or an action that begins, goes on or ends.
//!
//! The ladder is observe, suggest, throttle, tighten. The mode is the switch of the first three, `tighten` that of the last one. A plan
//! is a function of its situation: the same one gives the same plan, and a plan that was carried out gives nothing new to do.

use std::cmp::Reverse;

use detector_fleets::{
    fleet::{Fleet, FleetId},
    traits::Key,
};
use serde::Serialize;

use super::{
    budget::{self, Effect, Measured, SharedBudgets},
    guard::{self, Guard, Otherwise, Verdict},
    hints::Hinted,
    limits::{RENEWAL_GRACE_S, SLOTS_MAX},
    members::{Chosen, LeftOut, choose},
    order::{Order, Stop, Wanted, holds},
    prefixes::Prefixes,
    standing::{Action, Rung, Standing},
    telling,
};
use crate::{
    fleets::Scale,
    policy::{FleetMode, FleetSettings},
};

/// A fleet that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What detection tells of it.
    pub fleet: &'a Fleet,
    /// Its service's number in the maps.
    pub service: u16,
    /// Its service's name.
    pub service_name: &'a str,
    /// How far actions go there.
    pub mode: FleetMode,
    /// Whom an operator lets pass there, see [`allowed`](super::allowed::allowed).
    pub allowed: &'a Prefixes,
    /// Packets of a connection at the service, at the mean.
    pub packets_of_connection: f64,
    /// What passed of it since its budgets are what they are; `None`: it was not measured.
    pub measured: Option<Measured>,
}

/// All that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The time, seconds since the Unix epoch.
    pub now_s: u64,
    /// How long what is said here is outside, where people read it. All times here are those of detection.
    pub scale: Scale,
    /// What the policy says of fleets.
    pub settings: &'a FleetSettings,
    /// The switch, where it is turned.
    pub stop: Option<&'a Stop>,
    /// The fleets that detection knows, each once.
    pub fleets: &'a [Asked<'a>],
    /// What is in force, one action for a fleet at most.
    pub standing: &'a [Standing],
    /// What the application says of sources.
    pub hinted: &'a Hinted,
    /// What operators say of fleets.
    pub orders: &'a [Order],
}

/// What is done about a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nothing.
    Nothing,
    /// It is shown with the command that would throttle it.
    Suggest,
    /// An action begins, or is another one from now on.
    Throttle,
    /// It gets smaller budgets.
    Tighten,
    /// Fresh evidence moves its end.
    Renew,
    /// It goes on as it is; members may have come and gone.
    Keep,
    /// It ends.
    End,
}

/// What is decided about a fleet, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The fleet.
    pub fleet: FleetId,
    /// What is done.
    pub step: Step,
    /// Why, for people.
    pub says: String,
    /// The operator's order about it that was heard; what became of it is said above.
    pub order: Option<u64>,
    /// What every guard says. None of a fleet that detection has forgotten.
    pub verdicts: Vec<Verdict>,
    /// Members that an action leaves out.
    pub left_out: LeftOut,
    /// What the action does, if it can be told.
    pub effect: Option<Effect>,
    /// The command that would do what is suggested.
    pub command: Option<String>,
    /// The command that takes back what is in force.
    pub undo: Option<String>,
    /// What was in force.
    pub before: Option<Standing>,
    /// What is in force from now on.
    pub standing: Option<Standing>,
}

/// Decides about all fleets, in the order of their numbers. Where slots are scarce those that operators order come first, then those that do most.
pub fn plan(situation: &Situation<'_>) -> Vec<Decision> {
    let mut slots = Slots::of(situation.standing);
    let mut asked: Vec<&Asked<'_>> = situation.fleets.iter().collect();
    asked.sort_by_key(|asked| {
        let order = holds(situation.orders, asked.fleet, situation.now_s);
        let is_ordered = order.is_some_and(|order| order.wanted.is_throttle());
        (Reverse(is_ordered), Reverse(asked.fleet.exchanges()), asked.fleet.id)
    });
    let mut decisions: Vec<_> = asked.iter().map(|asked| decide(asked, situation, &mut slots)).collect();
    let is_asked = |id: FleetId| situation.fleets.iter().any(|asked| asked.fleet.id == id);
    let forgotten = situation.standing.iter().filter(|standing| !is_asked(standing.action.fleet));
    decisions.extend(forgotten.map(|standing| Decision {
        fleet: standing.action.fleet,
        step: Step::End,
        says: "detection does not know it any more".to_owned(),
        order: None,
        verdicts: Vec::new(),
        left_out: LeftOut::default(),
        effect: None,
        command: None,
        undo: None,
        before: Some(standing.clone()),
        standing: None,
    }));
    decisions.sort_by_key(|decision| decision.fleet);
    decisions
}

/// Slots of fleets. One whose action ends in a plan is given away by the next one, when no member has it any more.
struct Slots {
    /// A bit for each that is in use, by its number; that of 0 is never given.
    used: u64,
}

const _: () = assert!(SLOTS_MAX as u32 == u64::BITS - 1, "slots are the bits of a word but for the first");

impl Slots {
    fn of(standing: &[Standing]) -> Self {
        let slots = standing.iter().map(|standing| standing.action.slot).filter(|slot| *slot <= SLOTS_MAX);
        Self { used: slots.fold(1, |used, slot| used | 1 << slot) }
    }

    fn in_use(&self) -> usize {
        self.used.count_ones() as usize - 1
    }

    /// The lowest that is free.
    fn free(&self) -> Option<u8> {
        let free = self.used.trailing_ones();
        (free < u64::BITS).then_some(free as u8)
    }

    fn take(&mut self, slot: u8) {
        self.used |= 1 << slot;
    }
}

/// What is known of a fleet before it is decided about.
struct Judged<'a> {
    asked: &'a Asked<'a>,
    situation: &'a Situation<'a>,
    standing: Option<&'a Standing>,
    order: Option<&'a Order>,
    chosen: Chosen,
    keys: Vec<Key>,
    verdicts: Vec<Verdict>,
    effect: Option<Effect>,
}

fn decide(asked: &Asked<'_>, situation: &Situation<'_>, slots: &mut Slots) -> Decision {
    let judged = Judged::of(asked, situation, slots);
    let mode = asked.mode;
    let throttle = judged.order.filter(|order| order.wanted.is_throttle());
    let switch = judged.verdicts.iter().find(|verdict| verdict.guard == Guard::Switch && !verdict.passed);
    if let Some(says) = switch.map(|verdict| verdict.sentence.clone()) {
        return judged.rest(says);
    }
    if let Some(order) = judged.order.filter(|order| order.wanted == Wanted::Leave) {
        return judged.rest(telling::left_alone(order, asked.fleet.id, situation.scale));
    }
    if mode < FleetMode::Suggest && throttle.is_none() {
        return judged.rest(telling::mode(mode));
    }
    let force = throttle.is_some_and(|order| order.force);
    let stops = |verdict: &&Verdict| {
        // What is in force has an end of its own.
        let is_its_end = verdict.guard == Guard::FreshEvidence && judged.standing.is_some();
        verdict.stops(force) && !is_its_end
    };
    let stopped = judged.verdicts.iter().find(stops);
    if let Some((says, otherwise)) =
        stopped.map(|verdict| (verdict.sentence.clone(), verdict.guard.otherwise()))
    {
        let is_suggested = judged.standing.is_none()
            && otherwise == Otherwise::Suggestion
            && (judged.is_fresh() || throttle.is_some());
        return if is_suggested { judged.suggest(says, true) } else { judged.rest(says) };
    }
    if mode < FleetMode::Throttle && throttle.is_none() {
        return if judged.standing.is_some() {
            judged.rest(telling::mode(mode))
        } else {
            judged.suggest(telling::mode(mode), false)
        };
    }
    judged.act(throttle, slots)
}

impl<'a> Judged<'a> {
    fn of(asked: &'a Asked<'a>, situation: &'a Situation<'a>, slots: &Slots) -> Self {
        let Situation { now_s, scale, settings, .. } = *situation;
        let fleet = asked.fleet;
        let standing = situation.standing.iter().find(|standing| standing.action.fleet == fleet.id);
        let hints = situation.hinted.at(asked.service_name);
        let chosen = choose(fleet, asked.allowed, hints, standing, settings, now_s);
        // What a fleet was known by says nothing once it left: others may have that by now.
        let mut keys = if fleet.is_live(now_s) { guard::candidates(fleet) } else { Vec::new() };
        let key_customers = guard::key_customers(&mut keys, &chosen);
        let key_top = guard::key_top(&mut keys);
        let key_selective = guard::key_selective(&mut keys, fleet, settings);
        let has_slot = standing.is_some() || slots.free().is_some();
        // The first that stops it is told as the reason: those come first that nobody can override.
        let verdicts = vec![
            guard::switch(situation.stop),
            guard::targets(&chosen, &keys),
            guard::slots(slots.in_use(), has_slot),
            guard::uniform_population(fleet),
            guard::collateral(fleet, settings, standing.is_some()),
            guard::customers(fleet, &chosen),
            guard::members_max(&chosen, settings),
            guard::hold_out(settings),
            guard::fresh_evidence(fleet, settings, now_s, scale),
            guard::operator_lists(&chosen),
            guard::shared_sources(&chosen),
            guard::new_members_max(&chosen, settings, scale),
            key_customers,
            key_top,
            key_selective,
        ];
        let effect = standing.and(asked.measured).and_then(|measured| measured.effect());
        Self {
            asked,
            situation,
            standing,
            order: holds(situation.orders, fleet, now_s),
            chosen,
            keys: keys.into_iter().map(|used| used.key).collect(),
            verdicts,
            effect,
        }
    }

    fn is_fresh(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.guard == Guard::FreshEvidence && verdict.passed)
    }

    /// Nothing, or the end of what is in force.
    fn rest(self, says: String) -> Decision {
        let step = if self.standing.is_some() { Step::End } else { Step::Nothing };
        self.decision(step, says, None)
    }

    fn suggest(self, says: String, force: bool) -> Decision {
        let members = self.chosen.members.len();
        let command = telling::throttle(self.asked, self.situation, members, force);
        Decision { command: Some(command), ..self.decision(Step::Suggest, says, None) }
    }

    fn act(self, order: Option<&Order>, slots: &mut Slots) -> Decision {
        let scale = self.situation.scale;
        let Some(standing) = self.standing else {
            let Some(slot) = slots.free() else { return self.rest(telling::no_slot()) };
            slots.take(slot);
            let next = self.next(order, slot, None);
            let says = telling::begins(&next, order, scale);
            return self.decision(Step::Throttle, says, Some(next));
        };
        let next = self.next(order, standing.action.slot, Some(standing));
        if next.action.until_s <= self.situation.now_s {
            return self.rest(telling::ended(standing, scale));
        }
        let (step, says) = if next.rung > standing.rung {
            (Step::Tighten, telling::tightens(&next, self.effect, scale))
        } else if next.action.budgets != standing.action.budgets || next.order != standing.order {
            (Step::Throttle, telling::begins(&next, order, scale))
        } else if next.action.until_s != standing.action.until_s {
            (Step::Renew, telling::lasts(&next, scale))
        } else {
            (Step::Keep, telling::lasts(&next, scale))
        };
        self.decision(step, says, Some(next))
    }

    /// What is in force from now on.
    fn next(&self, order: Option<&Order>, slot: u8, standing: Option<&Standing>) -> Standing {
        let Situation { now_s, settings, .. } = *self.situation;
        let fleet = self.asked.fleet;
        let (budgets, rung) = self.budgets(order, standing);
        let is_as_before = standing.is_some_and(|standing| standing.action.budgets == budgets);
        // An action that an operator ordered goes on as the daemon's own only on the evidence that there is.
        let is_own = standing.filter(|standing| standing.order.is_none());
        let is_stale = is_own.is_some_and(|standing| standing.evidence_s >= fleet.last_seen_s);
        let until_s = match (order, standing) {
            (Some(order), _) => order.until_s,
            (None, Some(standing)) if is_stale => standing.action.until_s,
            _ => fleet.last_seen_s.saturating_add(settings.for_s + RENEWAL_GRACE_S),
        };
        Standing {
            action: Action {
                fleet: fleet.id,
                slot,
                service: self.asked.service,
                members: self.chosen.members.clone(),
                keys: self.keys.clone(),
                budgets,
                enforced_percent: 100_u8.saturating_sub(settings.hold_out_percent),
                until_s,
            },
            rung,
            since_s: standing.map_or(now_s, |standing| standing.since_s),
            budgets_since_s: standing.filter(|_| is_as_before).map_or(now_s, |one| one.budgets_since_s),
            evidence_s: fleet.last_seen_s,
            growth: self.chosen.growth,
            order: order.map(|order| order.id),
        }
    }

    /// Budgets stay what they are until they are tightened, or an operator says others.
    fn budgets(&self, order: Option<&Order>, standing: Option<&Standing>) -> (SharedBudgets, Rung) {
        let Situation { now_s, settings, .. } = *self.situation;
        let wanted = order.map_or(Wanted::THROTTLE, |order| order.wanted);
        let own = || {
            wanted.instead_of(budget::shared(
                &self.asked.fleet.usage,
                self.asked.packets_of_connection,
                settings,
            ))
        };
        let is_of =
            |standing: &&Standing| standing.order.is_none() || standing.order == order.map(|order| order.id);
        let Some(standing) = standing.filter(is_of) else {
            return (own(), Rung::Throttled);
        };
        let budgets = standing.action.budgets;
        let is_without_effect = self.effect.is_some_and(|effect| effect.cut_max < 1.0 - settings.share.of());
        match settings.tighten {
            Some(tighten)
                if wanted == Wanted::THROTTLE
                    && standing.rung == Rung::Throttled
                    && is_without_effect
                    && standing.budgets_since_s.saturating_add(tighten.after_s) <= now_s =>
            {
                (budget::tightened(budgets, settings.factor, tighten.factor), Rung::Tightened)
            }
            _ => (wanted.instead_of(budgets), standing.rung),
        }
    }

    fn decision(self, step: Step, says: String, next: Option<Standing>) -> Decision {
        Decision {
            fleet: self.asked.fleet.id,
            step,
            says,
            order: self.order.map(|order| order.id),
            verdicts: self.verdicts,
            left_out: self.chosen.left_out,
            effect: self.effect,
            command: None,
            undo: next.as_ref().map(telling::undo),
            before: self.standing.cloned(),
            standing: next,
        }
    }
}
