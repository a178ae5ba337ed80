//! Random incident rules, and what `docs/policy.md` says of them.

use std::net::IpAddr;

use detector_common::{budget::Budget as Compiled, budget::ticks};
use detector_tests::{
    random::Random,
    rows::{SECOND, START_NS},
};
use detector_user::policy::{
    Budget, Budgets, Mode, Policy, Profile, Service,
    incident::{Incident, IncidentAction},
};

use crate::{model::longest, policies};

/// An incident rule, and for each service of the policy the profile that a throttle makes of the service's own.
pub(crate) struct IncidentRule {
    pub(crate) incident: Incident,
    pub(crate) throttled: Vec<(String, Profile)>,
}

/// Some rules beside a policy; often none.
pub(crate) fn random(random: &mut Random, policy: &Policy) -> Vec<Incident> {
    let count = if random.once_in(3) { 0 } else { 1 + random.below(5) };
    (0..count).map(|_| incident(random, policy)).collect()
}

fn incident(random: &mut Random, policy: &Policy) -> Incident {
    let action = match random.below(4) {
        0 => IncidentAction::Allow,
        1 => IncidentAction::Block,
        _ => IncidentAction::Throttle(policies::budgets(random, 1)),
    };
    Incident {
        id: 0,
        action,
        sources: (0..1 + random.below(2)).map(|_| policies::net(random, policies::SOURCES)).collect(),
        service: random.once_in(3).then(|| random.pick(&policy.services).name.clone()),
        // Among the frames.
        until_s: random.once_in(3).then(|| START_NS / SECOND + 1 + random.below(3)),
        reason: "at random".to_owned(),
        by: "nobody".to_owned(),
        at_s: 0,
        counter: 0,
    }
}

/// The rules as the model takes them.
pub(crate) fn of_model(incidents: &[Incident], policy: &Policy) -> Vec<IncidentRule> {
    let of = |incident: &Incident| {
        let throttled = policy.services.iter().map(|service| throttle(incident, service, policy)).collect();
        IncidentRule { incident: incident.clone(), throttled }
    };
    incidents.iter().map(of).collect()
}

/// What a throttle makes of a service's profile: each budget the slower of the two.
fn throttle(incident: &Incident, service: &Service, policy: &Policy) -> (String, Profile) {
    let IncidentAction::Throttle(budgets) = &incident.action else {
        return ("-".to_owned(), Profile::default());
    };
    let own = service.profile.clone().filter(|_| policy.mode == Mode::Enforce);
    let profile = own.as_ref().map(|name| policy.profiles[name].clone()).unwrap_or_default();
    let slower =
        |own: Option<Budget>, other: Option<Budget>, compile: fn(Budget) -> Compiled| match (own, other) {
            (Some(own), Some(other)) if compile(other).interval <= compile(own).interval => Some(own),
            (own, other) => other.or(own),
        };
    let budgets = Budgets {
        packets: slower(profile.budgets.packets, budgets.packets, units),
        bytes: slower(profile.budgets.bytes, budgets.bytes, bytes),
        connections: slower(profile.budgets.connections, budgets.connections, units),
    };
    (own.unwrap_or_else(|| "-".to_owned()), Profile { budgets, ..profile })
}

fn units(budget: Budget) -> Compiled {
    Compiled::of_units(budget.rate.count, budget.rate.per_ns, budget.burst, 0)
}

fn bytes(budget: Budget) -> Compiled {
    Compiled::of_bytes(budget.rate.count, budget.rate.per_ns, budget.burst, 0)
}

/// Whether some budgets are slower than others in any of the three.
pub(crate) fn is_slower(budgets: &Budgets, than: &Budgets) -> bool {
    let slower = |one: Option<Budget>, other: Option<Budget>, compile: fn(Budget) -> Compiled| {
        one.is_some_and(|one| other.is_none_or(|other| compile(one).interval > compile(other).interval))
    };
    slower(budgets.packets, than.packets, units)
        || slower(budgets.bytes, than.bytes, bytes)
        || slower(budgets.connections, than.connections, units)
}

/// The rule about a source at a service: the most specific that has not ended, among equal ones the last.
pub(crate) fn about<'a>(
    incidents: &'a [IncidentRule],
    source: IpAddr,
    service: &Service,
    now: u64,
) -> Option<(usize, &'a IncidentRule)> {
    let candidate = |(index, rule): (usize, &'a IncidentRule)| {
        let incident = &rule.incident;
        let applies = incident.service.as_ref().is_none_or(|name| *name == service.name);
        let has_ended = incident.until_s.is_some_and(|until_s| ticks(until_s * SECOND) <= now);
        let length = longest(&incident.sources, source).filter(|_| applies && !has_ended)?;
        Some(((length, index), (index, rule)))
    };
    let best = incidents.iter().enumerate().filter_map(candidate).max_by_key(|(order, _)| *order);
    best.map(|(_, rule)| rule)
}
