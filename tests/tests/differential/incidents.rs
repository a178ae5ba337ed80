//! Random incident rules, and what `docs/policy.md` says of them.

use std::net::IpAddr;

use detector_common::budget::{BYTE_INTERVAL_FRACTION_BITS, ticks};
use detector_tests::{
    random::Random,
    rows::{SECOND, START_NS},
};
use detector_user::policy::{
    Budget, Budgets, Matches, Mode, Policy, Profile, Service,
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
        matches: Matches::Sources(
            (0..1 + random.below(2)).map(|_| policies::net(random, policies::SOURCES)).collect(),
        ),
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

/// What a throttle makes of a service's profile: of each budget the slower rate and the smaller burst.
fn throttle(incident: &Incident, service: &Service, policy: &Policy) -> (String, Profile) {
    let IncidentAction::Throttle(budgets) = &incident.action else {
        return ("-".to_owned(), Profile::default());
    };
    let own = service.profile.clone().filter(|_| policy.mode != Mode::Shadow);
    let profile = own.as_ref().map(|name| policy.profiles[name].clone()).unwrap_or_default();
    let budgets = Budgets {
        packets: tighter(profile.budgets.packets, budgets.packets),
        bytes: tighter(profile.budgets.bytes, budgets.bytes),
        connections: tighter(profile.budgets.connections, budgets.connections),
        handshakes: tighter(profile.budgets.handshakes, budgets.handshakes),
    };
    (own.unwrap_or_else(|| "-".to_owned()), Profile { budgets, ..profile })
}

fn tighter(own: Option<Budget>, other: Option<Budget>) -> Option<Budget> {
    let (Some(own), Some(other)) = (own, other) else { return own.or(other) };
    let rate = if per_second(own) <= per_second(other) { own.rate } else { other.rate };
    Some(Budget { rate, burst: own.burst.min(other.burst) })
}

/// All periods here are seconds.
fn per_second(budget: Budget) -> u64 {
    assert_eq!(budget.rate.per_ns, SECOND);
    budget.rate.count
}

/// Whether a profile limits at least as tightly as another one in every budget; what is around its sources too.
pub(crate) fn is_within(one: &(String, &Profile), other: &(String, &Profile)) -> bool {
    let within = |one: Option<Budget>, other: Option<Budget>, unit: u64| {
        let Some(other) = other else { return true };
        // The program compares bursts of bytes in kilobytes.
        one.is_some_and(|one| per_second(one) <= per_second(other) && one.burst / unit <= other.burst / unit)
    };
    let (own, others) = (&one.1.budgets, &other.1.budgets);
    let has_parents = other.1.parents.levels().into_iter().flatten().any(|level| !level.is_empty());
    within(own.packets, others.packets, 1)
        && within(own.bytes, others.bytes, 1 << BYTE_INTERVAL_FRACTION_BITS)
        && within(own.connections, others.connections, 1)
        && within(own.handshakes, others.handshakes, 1)
        && (!has_parents || one.0 == other.0)
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
        let length = longest(incident.matches.sources(), source).filter(|_| applies && !has_ended)?;
        Some(((length, index), (index, rule)))
    };
    let best = incidents.iter().enumerate().filter_map(candidate).max_by_key(|(order, _)| *order);
    best.map(|(_, rule)| rule)
}
