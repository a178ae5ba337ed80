//! What a policy does less than it seems to: nothing at all, or nothing to the sources of a rule in mode `shadow`.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::model::{Action, Mode};
use super::raw::{RawPolicy, RawRule, RawService};
use super::text::{At, Issue, Report};
use super::warnings::{ancestors, rank, service_of};

/// Policies that drop no packet, in whatever mode.
pub(super) fn nothing(raw: &RawPolicy, report: &mut Report<'_>) {
    let service = raw.services.iter().find_map(|service| service.name.as_ref());
    let rule = raw.rules.iter().find_map(|rule| rule.name.as_ref());
    let (place, issue, help) = match (service, rule) {
        (Some(_), _) if raw.services.iter().any(|service| is_limited(raw, service)) => return,
        (Some(_), _) if raw.rules.iter().any(|rule| can_refuse(raw, rule)) => return,
        (Some(service), _) => (
            service.span.clone(),
            "nothing is limited: no service has a profile that limits, and no rule drops or limits",
            "give a service a profile with budgets",
        ),
        // A packet to no service passes before its source is looked up.
        (None, Some(rule)) => (
            rule.span.clone(),
            "no rule can fire: the policy has no service, so every packet passes",
            ADD_SERVICE,
        ),
        (None, None) => {
            (0..0, "nothing is limited: the policy has no service, so every packet passes", ADD_SERVICE)
        }
    };
    report.warning(place, Issue::remark(issue).help(help.to_owned()));
}

const ADD_SERVICE: &str = "add a [[service]]; addresses = [\"0.0.0.0/0\", \"::/0\"] is every destination";

fn is_limited(raw: &RawPolicy, service: &RawService) -> bool {
    service.profile.as_ref().is_some_and(|profile| limits(raw, &profile.value))
}

fn limits(raw: &RawPolicy, profile: &str) -> bool {
    raw.profiles.iter().any(|known| known.name.value == profile && !known.profile.is_empty())
}

/// Whether a rule drops packets, or would in another mode.
fn can_refuse(raw: &RawPolicy, rule: &RawRule) -> bool {
    match rule.action.as_ref().map(|action| &action.value) {
        Some(Action::Drop) => true,
        Some(Action::Limit(profile)) => limits(raw, profile),
        Some(Action::Allow) | None => false,
    }
}

/// Rules in mode `shadow` where something else would be enforced: a source has one class, so it passes without a limit.
pub(super) fn lifted(raw: &RawPolicy, report: &mut Report<'_>) {
    let is_shadow = |rule: &RawRule| {
        let is_allow = rule.action.as_ref().is_some_and(|action| action.value == Action::Allow);
        rule.mode.unwrap_or(raw.mode) != Mode::Enforce && !is_allow
    };
    if !raw.rules.iter().any(is_shadow) {
        return;
    }
    let around = Around::new(raw);
    for (index, rule) in raw.rules.iter().enumerate().filter(|(_, rule)| is_shadow(rule)) {
        let enforced = |source: IpNet| Some((source, around.enforced(index, rule, source)?));
        let Some(name) = &rule.name else { continue };
        let Some((source, by)) = rule.sources.iter().find_map(|source| enforced(source.value)) else {
            continue;
        };
        let by = match by {
            By::Rule(Some(other)) => format!("rule `{}` of line {}", other.value, report.line(&other.span)),
            By::Service(Some(service)) => format!("service `{}`", service.value),
            By::Rule(None) | By::Service(None) => continue,
        };
        let issue = format!("rule `{}` in mode shadow lifts what {by} enforces on {source}", name.value);
        let help =
            "one rule or profile decides about a source: while this one is tried, it passes without a limit";
        report.warning(name.span.clone(), Issue::remark(issue).help(help.to_owned()));
    }
}

/// What a rule takes sources from.
enum By<'a> {
    Rule(Option<&'a At<String>>),
    Service(Option<&'a At<String>>),
}

/// The rules by prefix.
struct Around<'a> {
    raw: &'a RawPolicy,
    allowed: HashSet<IpNet>,
    rules: HashMap<IpNet, Vec<usize>>,
}

impl<'a> Around<'a> {
    fn new(raw: &'a RawPolicy) -> Self {
        let mut rules: HashMap<IpNet, Vec<usize>> = HashMap::new();
        for (index, rule) in raw.rules.iter().enumerate() {
            for source in &rule.sources {
                rules.entry(source.value).or_default().push(index);
            }
        }
        rules.values_mut().for_each(|rules| {
            rules.sort_by_key(|&index| raw.rules.get(index).and_then(|rule| rank(rule, index)));
        });
        Self { raw, allowed: raw.allow.iter().map(|prefix| prefix.value).collect(), rules }
    }

    /// What would be enforced on a source of a rule without that rule.
    fn enforced(&self, index: usize, rule: &RawRule, source: IpNet) -> Option<By<'a>> {
        if ancestors(source).any(|prefix| self.allowed.contains(&prefix)) {
            return None;
        }
        let own = service_of(rule);
        for prefix in ancestors(source) {
            for &other_index in self.rules.get(&prefix).into_iter().flatten() {
                let Some(other) = self.raw.rules.get(other_index) else { continue };
                let service = service_of(other);
                let shares = own.is_none() || service.is_none() || own == service;
                // At its own prefix only what comes after it.
                let comes_first = prefix == source && rank(other, other_index) <= rank(rule, index);
                if !shares || comes_first {
                    continue;
                }
                if other.mode.unwrap_or(self.raw.mode) == Mode::Enforce && can_refuse(self.raw, other) {
                    return Some(By::Rule(other.name.as_ref()));
                }
                if service.is_none() || own == service {
                    return None;
                }
            }
        }
        let concerned = |service: &&RawService| {
            own.is_none() || own == service.name.as_ref().map(|name| name.value.as_str())
        };
        let mut services = self.raw.services.iter().filter(concerned);
        let limited = services.find(|service| is_limited(self.raw, service))?;
        (self.raw.mode == Mode::Enforce).then_some(By::Service(limited.name.as_ref()))
    }
}
