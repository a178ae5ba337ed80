//! What is told of decisions: sentences, commands, and entries of the audit.

use detector_fleets::fleet::FleetId;
use serde::Serialize;

use super::{
    budget::Effect,
    order::Order,
    plan::{Asked, Decision, Situation, Step},
    standing::{Action, Standing},
};
use crate::{
    fleets::Scale,
    policy::{FleetMode, time_text, utc_text},
};

/// The author of what nobody ordered.
pub const OWN: &str = "detector";

pub(super) fn mode(mode: FleetMode) -> String {
    format!("the policy has `fleets.mode = \"{}\"`", mode.name())
}

/// A time of detection, as clocks outside show it.
fn time(scale: Scale, inner_s: u64) -> String {
    utc_text(scale.end_unix_s(inner_s))
}

pub(super) fn left_alone(order: &Order, fleet: FleetId, scale: Scale) -> String {
    let until = time(scale, order.until_s);
    if order.fleet == fleet {
        return format!("{} leaves it alone until {until}: {}", order.by, order.reason);
    }
    let part = order.fleet.0;
    format!(
        "{} leaves fleet {part}, which is part of it, alone until {until}: {}; `detector undo fleet:{part}` takes that back",
        order.by, order.reason
    )
}

pub(super) fn no_slot() -> String {
    "the kernel has no room for another fleet; let one of those that are acted on go with `detector allow fleet:ID`".to_owned()
}

pub(super) fn begins(standing: &Standing, order: Option<&Order>, scale: Scale) -> String {
    let why = order.map_or_else(
        || "every guard lets it be".to_owned(),
        |order| format!("{} ordered it: {}", order.by, order.reason),
    );
    format!("throttled until {}, {why}", time(scale, standing.action.until_s))
}

pub(super) fn lasts(standing: &Standing, scale: Scale) -> String {
    format!("throttled until {}", time(scale, standing.action.until_s))
}

pub(super) fn tightens(standing: &Standing, effect: Option<Effect>, scale: Scale) -> String {
    let cut = effect.map_or(0.0, |effect| effect.cut * 100.0);
    format!("only {cut:.0} % were cut, smaller budgets until {}", time(scale, standing.action.until_s))
}

pub(super) fn ended(standing: &Standing, scale: Scale) -> String {
    format!("its time was over at {}, and it was not seen since", time(scale, standing.action.until_s))
}

/// The command that throttles a fleet.
pub(super) fn throttle(asked: &Asked<'_>, situation: &Situation<'_>, members: usize, force: bool) -> String {
    let (id, service) = (asked.fleet.id.0, asked.service_name);
    let force = if force { " --force" } else { "" };
    let time = time_text(situation.scale.outer_s(situation.settings.for_s).max(1));
    format!(
        "detector throttle fleet:{id} --for {time} --reason 'fleet of {members} members at {service}'{force}"
    )
}

/// The command that takes back what is in force.
pub(super) fn undo(standing: &Standing) -> String {
    let id = standing.action.fleet.0;
    match standing.order {
        Some(_) => format!("detector undo fleet:{id}"),
        None => format!("detector allow fleet:{id} --for 24h --reason TEXT"),
    }
}

/// An entry of the audit: what became of what, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// What was done.
    pub what: Step,
    /// To what: `fleet:3`.
    pub target: String,
    /// What was in force.
    pub before: Option<String>,
    /// What is.
    pub after: Option<String>,
    /// Who did it: `detector`, or who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The command that takes it back.
    pub undo: Option<String>,
}

impl Decision {
    /// Its entry in the audit, with times and rates as they are outside. `None`: nothing changed, or nothing but its end and its members, which do so
    /// all the time: who they were when is in what is told of members.
    pub fn audit(&self, orders: &[Order], scale: Scale) -> Option<Audit> {
        let actions = [&self.before, &self.standing].map(|one| one.as_ref().map(|one| &one.action));
        let lasting = |action: &Action| Action { members: Vec::new(), until_s: 0, ..action.clone() };
        let [before, after] = actions.map(|action| action.map(lasting));
        if before == after {
            return None;
        }
        let [before, after] = actions.map(|action| action.map(|action| action.text(scale)));
        let number = self.standing.as_ref().and_then(|standing| standing.order);
        let order = orders.iter().find(|order| Some(order.id) == number);
        Some(Audit {
            what: self.step,
            target: format!("fleet:{}", self.fleet.0),
            before,
            after,
            by: order.map_or(OWN, |order| &order.by).to_owned(),
            reason: self.says.clone(),
            undo: self.undo.clone(),
        })
    }
}
