//! What is told of decisions: sentences, commands, and entries of the audit.

use serde::Serialize;

use super::{
    budget::Effect,
    order::Order,
    plan::{Asked, Decision, Step},
    standing::Standing,
};
use crate::policy::{FleetMode, FleetSettings, time_text, utc_text};

/// The author of what nobody ordered.
const OWN: &str = "detector";

pub(super) fn mode(mode: FleetMode) -> String {
    format!("the policy has `fleets.mode = \"{}\"`", mode.name())
}

pub(super) fn left_alone(order: &Order) -> String {
    format!("{} leaves it alone until {}: {}", order.by, utc_text(order.until_s), order.reason)
}

pub(super) fn no_slot() -> String {
    "the kernel has no room for another fleet; let one of those that are acted on go with `detector allow fleet:ID`".to_owned()
}

pub(super) fn begins(standing: &Standing, order: Option<&Order>) -> String {
    let why = order.map_or_else(
        || "every guard lets it be".to_owned(),
        |order| format!("{} ordered it: {}", order.by, order.reason),
    );
    format!("throttled until {}, {why}", utc_text(standing.action.until_s))
}

pub(super) fn lasts(standing: &Standing) -> String {
    format!("throttled until {}", utc_text(standing.action.until_s))
}

pub(super) fn tightens(standing: &Standing, effect: Option<Effect>) -> String {
    let cut = effect.map_or(0.0, |effect| effect.cut * 100.0);
    format!("only {cut:.0} % were cut, smaller budgets until {}", utc_text(standing.action.until_s))
}

pub(super) fn ended(standing: &Standing) -> String {
    format!("its time was over at {}, without an alarm since", utc_text(standing.action.until_s))
}

/// The command that throttles a fleet.
pub(super) fn throttle(asked: &Asked<'_>, settings: &FleetSettings, members: usize, force: bool) -> String {
    let (id, service) = (asked.fleet.id.0, asked.service_name);
    let force = if force { " --force" } else { "" };
    let time = time_text(settings.for_s);
    format!(
        "detector throttle fleet:{id} --for {time} --reason 'fleet of {members} members at {service}'{force}"
    )
}

/// The command that takes back what is in force.
pub(super) fn undo(standing: &Standing) -> String {
    format!("detector allow fleet:{} --for 24h --reason TEXT", standing.action.fleet.0)
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
    /// Its entry in the audit. `None`: nothing changed.
    pub fn audit(&self, orders: &[Order]) -> Option<Audit> {
        let actions = [&self.before, &self.standing].map(|one| one.as_ref().map(|one| &one.action));
        if actions[0] == actions[1] {
            return None;
        }
        let [before, after] = actions.map(|action| action.map(ToString::to_string));
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
