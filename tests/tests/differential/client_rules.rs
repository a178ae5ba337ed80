//! What rules about fingerprints and budgets of handshakes say of clients, as `docs/policy.md` says it.

use std::{cmp::Reverse, collections::HashMap};

use detector_common::{
    budget::{Budget, take, ticks},
    policy::is_enforced,
    verdict::Reason,
};

use detector_tests::rows::SECOND;

use detector_user::policy::{
    self, Action, Budgets, Policy, Rule, Service,
    incident::{Incident, IncidentAction},
    patterns::Patterns,
};

use crate::{
    clients::Moment,
    incidents::IncidentRule,
    is_drop,
    model::{self, Expected, Key},
};

/// Whether a JA4 is one of a pattern.
fn is_ja4_of(pattern: &str, ja4: &str) -> bool {
    let part_is_of = |(pattern, part): (&str, &str)| match pattern.strip_suffix('*') {
        Some(start) => part.starts_with(start),
        None => pattern == part,
    };
    pattern.split('_').zip(ja4.split('_')).all(part_is_of)
}

/// Whether a SYN is one of a pattern. Window and scale, which have a comma between them, may each be anything.
fn is_syn_of(pattern: &str, syn: &str) -> bool {
    let field_is_of = |(pattern, field): (&str, &str)| match (pattern.split_once(','), field.split_once(','))
    {
        (Some(("*", pattern)), Some((_, field))) | (Some((pattern, "*")), Some((field, _))) => {
            pattern == "*" || pattern == field
        }
        _ => pattern == "*" || pattern == field,
    };
    pattern.split(':').zip(syn.split(':')).all(field_is_of)
}

/// Who asks for what.
pub(crate) struct Client<'a> {
    /// The full JA4 and the stable one.
    pub(crate) ja4s: &'a [String; 2],
    pub(crate) syn: &'a str,
    pub(crate) service: &'a Service,
    pub(crate) moment: Moment,
    /// Its handshake was charged before.
    pub(crate) is_charged: bool,
    /// Of the source.
    pub(crate) hash: u64,
    pub(crate) source: Key<'static>,
}

/// Whose budget is charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Payer {
    /// A source, at a service.
    Source(Key<'static>),
    /// A source under a rule.
    SourceUnder(Key<'static>, String),
    /// All clients of a rule.
    All(String),
}

/// Budgets of handshakes and of rules about fingerprints, and what was spent of them.
pub(crate) struct Handshakes<'a> {
    policy: &'a Policy,
    incidents: &'a [IncidentRule],
    spent: HashMap<Payer, u64>,
}

/// A rule about fingerprints, of the policy or of a responder.
struct Said<'a> {
    name: String,
    patterns: &'a Patterns,
    action: u8,
    /// Of a limit, and whether all clients have it together.
    budgets: Option<(&'a Budgets, bool)>,
    profile: &'a str,
    enforced_percent: u8,
}

/// Which of the two kinds a rule names: it comes before all that have a smaller number.
fn kinds(patterns: &Patterns) -> u8 {
    match (patterns.ja4.is_empty(), patterns.syn.is_empty()) {
        (false, false) => 2,
        (false, true) => 1,
        _ => 0,
    }
}

/// Characters that are not `*`, where of several patterns of a kind the one with the fewest counts.
fn literals(patterns: &Patterns) -> usize {
    fn fewest(patterns: &[impl ToString]) -> usize {
        let literals = |pattern: &_| ToString::to_string(pattern).chars().filter(|&one| one != '*').count();
        patterns.iter().map(literals).min().unwrap_or(0)
    }
    fewest(&patterns.ja4) + fewest(&patterns.syn)
}

impl Client<'_> {
    /// Whether a rule is about it: at a SYN none that names JA4s is.
    fn is_meant(&self, patterns: &Patterns, service: Option<&String>) -> bool {
        let has_ja4 = |pattern: &_| {
            let pattern = ToString::to_string(pattern);
            self.ja4s.iter().any(|ja4| is_ja4_of(&pattern, ja4))
        };
        let has_ja4 =
            patterns.ja4.is_empty() || self.moment == Moment::ClientHello && patterns.ja4.iter().any(has_ja4);
        let has_syn = |pattern: &_| is_syn_of(&ToString::to_string(pattern), self.syn);
        let has_syn = patterns.syn.is_empty() || patterns.syn.iter().any(has_syn);
        service.is_none_or(|name| *name == self.service.name) && has_ja4 && has_syn
    }

    /// Whether a rule says something now: one about SYNs has said at the SYN what it limits or drops.
    fn is_told(&self, said: &Said<'_>) -> bool {
        self.moment == Moment::Syn || kinds(said.patterns) > 0 || said.action == model::ALLOW
    }
}

impl<'a> Handshakes<'a> {
    /// Nothing was spent so far.
    pub(crate) fn new(policy: &'a Policy, incidents: &'a [IncidentRule]) -> Self {
        Self { policy, incidents, spent: HashMap::new() }
    }

    /// Whether a rule may allow clients by their ClientHello: then nothing is charged before that is complete.
    pub(crate) fn may_allow(&self) -> bool {
        let is_by_hello = |patterns: Option<&Patterns>| patterns.is_some_and(|of| !of.ja4.is_empty());
        let of_policy = self.policy.rules.iter().filter(|rule| matches!(rule.action, Action::Allow));
        let of_incidents = self.incidents.iter().map(|rule| &rule.incident);
        let of_incidents = of_incidents.filter(|incident| incident.action == IncidentAction::Allow);
        of_policy.map(|rule| rule.matches.patterns()).any(is_by_hello)
            || of_incidents.map(|incident| incident.matches.patterns()).any(is_by_hello)
    }

    /// The rule that decides about a client, whose source stands so: one of a responder, then one of the policy. Sources that
    /// are allowed are exempt from what comes after the rule that allows them.
    fn rule_about(&self, client: &Client<'_>, standing: &model::Standing<'_>, now: u64) -> Option<Said<'a>> {
        let is_allowed = standing.action == model::ALLOW;
        match &standing.rule {
            None if is_allowed => return None,
            Some(rule) if is_allowed && rule.starts_with("incident ") => return None,
            _ => {}
        }
        if let Some(said) = self.of_incidents(client, now).filter(|said| client.is_told(said)) {
            return Some(said);
        }
        if is_allowed { None } else { self.of_policy(client, now).filter(|said| client.is_told(said)) }
    }

    /// The narrowest, then the last.
    fn of_incidents(&self, client: &Client<'_>, now: u64) -> Option<Said<'a>> {
        let candidate = |(index, rule): (usize, &'a IncidentRule)| {
            let Incident { matches, service, until_s, action, .. } = &rule.incident;
            let patterns =
                matches.patterns().filter(|patterns| client.is_meant(patterns, service.as_ref()))?;
            let said = Said {
                name: format!("incident {}", index + 1),
                patterns,
                action: match action {
                    IncidentAction::Allow => model::ALLOW,
                    IncidentAction::Block => model::DENY,
                    IncidentAction::Throttle(_) | IncidentAction::ThrottleShared(_) => model::LIMIT,
                },
                budgets: action.budgets().map(|budgets| (budgets, action.is_shared())),
                profile: "-",
                enforced_percent: 100,
            };
            let order = (kinds(patterns), literals(patterns), index);
            (!has_ended(*until_s, now)).then_some((order, said))
        };
        let rules = self.incidents.iter().enumerate().filter_map(candidate);
        rules.max_by_key(|(order, _)| *order).map(|(_, said)| said)
    }

    /// The narrowest, then allow, drop, limit, then the first.
    fn of_policy(&self, client: &Client<'_>, now: u64) -> Option<Said<'a>> {
        let candidate = |(index, rule): (usize, &'a Rule)| {
            let patterns = rule.matches.patterns();
            let patterns = patterns.filter(|patterns| client.is_meant(patterns, rule.service.as_ref()))?;
            let (rank, action, profile, is_shared) = match &rule.action {
                Action::Allow => (0, model::ALLOW, "-", false),
                Action::Drop => (1, model::DENY, "-", false),
                Action::Limit(profile) => (2, model::LIMIT, profile.as_str(), false),
                Action::LimitShared(profile) => (2, model::LIMIT, profile.as_str(), true),
            };
            let said = Said {
                name: rule.name.clone(),
                patterns,
                action,
                budgets: self.policy.profiles.get(profile).map(|profile| (&profile.budgets, is_shared)),
                profile,
                enforced_percent: rule.mode.unwrap_or(self.policy.mode).enforced_percent(),
            };
            let order = (Reverse((kinds(patterns), literals(patterns))), rank, index);
            (!has_ended(rule.until_s, now)).then_some((order, said))
        };
        let rules = self.policy.rules.iter().enumerate().filter_map(candidate);
        rules.min_by_key(|(order, _)| *order).map(|(_, said)| said)
    }

    /// What becomes of a packet that passes so far: it is charged to the budgets of the rule and of its source, or to none.
    pub(crate) fn admit(
        &mut self,
        client: &Client<'_>,
        standing: &model::Standing<'_>,
        mut judged: Expected,
        now: u64,
    ) -> Expected {
        let rule = self.rule_about(client, standing, now);
        let mut of_rule = None;
        if let Some(said) = &rule {
            let is_shadow = !is_enforced(client.hash, said.enforced_percent);
            let refusal = |reason: Reason| Refusal {
                reason,
                is_shadow,
                class: format!(
                    "action {} rule {} profile {} enforced {}",
                    said.action, said.name, said.profile, said.enforced_percent
                ),
            };
            match said.action {
                model::ALLOW => return judged,
                model::DENY => {
                    if refusal(Reason::Fingerprint).is_final(&mut judged) {
                        return judged;
                    }
                }
                _ => {
                    let (budgets, is_shared) = said.budgets.expect("a limit has budgets");
                    let of_syn = kinds(said.patterns) == 0;
                    let budget = if of_syn { budgets.connections } else { budgets.handshakes };
                    let name = said.name.clone();
                    let payer =
                        if is_shared { Payer::All(name) } else { Payer::SourceUnder(client.source, name) };
                    let budget = budget.expect("a limit has the budget of its moment");
                    match self.ask(&payer, budget, now) {
                        Some(state) => of_rule = Some((payer, state)),
                        None => {
                            if refusal(Reason::FingerprintBudget).is_final(&mut judged) {
                                return judged;
                            }
                        }
                    }
                }
            }
        }
        let own = match standing.profile {
            Some((_, profile)) if client.moment != Moment::Syn && !client.is_charged => {
                profile.budgets.handshakes
            }
            _ => None,
        };
        if let Some(budget) = own {
            let payer = Payer::Source(client.source);
            match self.ask(&payer, budget, now) {
                Some(state) => drop(self.spent.insert(payer, state)),
                None => {
                    let is_shadow = !is_enforced(client.hash, standing.mode.enforced_percent());
                    let refusal =
                        Refusal { reason: Reason::Handshakes, is_shadow, class: standing.description() };
                    if refusal.is_final(&mut judged) {
                        return judged;
                    }
                }
            }
        }
        if let Some((payer, state)) = of_rule {
            self.spent.insert(payer, state);
        }
        judged
    }

    /// What is spent of a budget once one more is; `None`: it does not suffice.
    fn ask(&self, payer: &Payer, budget: policy::Budget, now: u64) -> Option<u64> {
        let budget = Budget::of_units(budget.rate.count, budget.rate.per_ns, budget.burst, 0);
        take(self.spent.get(payer).copied().unwrap_or(0), now, budget.unit_cost(), budget.burst_ticks).ok()
    }
}

fn has_ended(until_s: Option<u64>, now: u64) -> bool {
    until_s.is_some_and(|until_s| ticks(until_s * SECOND) <= now)
}

/// Why a packet may not go on.
struct Refusal {
    reason: Reason,
    is_shadow: bool,
    class: String,
}

impl Refusal {
    /// Makes it what is said of the packet; whether it is dropped. In shadow it gives way to what was said before.
    fn is_final(&self, judged: &mut Expected) -> bool {
        if !self.is_shadow || !is_drop(judged.reason) {
            judged.reason = self.reason;
            judged.shadow = self.is_shadow;
            judged.class = Some(self.class.clone());
        }
        !self.is_shadow
    }
}
