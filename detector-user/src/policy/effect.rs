//! What a policy does less than it seems to: nothing at all, or nothing to the sources of a rule that is
//! tried.

use std::collections::BTreeMap;

use super::model::{Action, Mode};
use super::raw::{RawPolicy, RawRule, RawService};
use super::sources::{Rank, RankedRule, Sources};
use super::text::{At, Issue, Report};

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
    if rule.has_ended(raw.now_unix_s) {
        return false;
    }
    match rule.action.as_ref().map(|action| &action.value) {
        Some(Action::Drop) => true,
        Some(Action::Limit(profile) | Action::LimitShared(profile)) => limits(raw, profile),
        Some(Action::Allow) | None => false,
    }
}

/// Rules not fully enforced where something else would be: a source has one class, so it passes without a limit.
pub(super) fn lifted(raw: &RawPolicy, sources: &Sources<'_>, report: &mut Report<'_>) {
    let lifts = |ranked: &RankedRule<'_>| {
        let is_allow = ranked.rule.action.as_ref().is_some_and(|action| action.value == Action::Allow);
        ranked.mode != Mode::Enforce && !is_allow && !ranked.rule.has_ended(raw.now_unix_s)
    };
    let mut lifted: BTreeMap<usize, (u32, &RankedRule<'_>, By<'_>)> = BTreeMap::new();
    if sources.rules().any(|(_, ranked)| lifts(ranked)) {
        let below = Below::new(raw, sources);
        for number in sources.numbers() {
            for (entry, ranked) in sources.named(number).filter(|(_, ranked)| lifts(ranked)) {
                let is_later = lifted.get(&ranked.index).is_some_and(|(place, ..)| *place <= entry.place);
                if !is_later && let Some(by) = below.enforced(number, entry.rank, ranked) {
                    lifted.insert(ranked.index, (entry.place, ranked, by));
                }
            }
        }
    }
    for (place, ranked, by) in lifted.into_values() {
        let (Some(name), Some(source)) = (&ranked.rule.name, ranked.source(place)) else { continue };
        let by = match by {
            By::Rule(Some(other)) => format!("rule `{}` of line {}", other.value, report.line(&other.span)),
            By::Service(Some(service)) => format!("service `{}`", service.value),
            By::Rule(None) | By::Service(None) => continue,
        };
        let (mode, passing) = match ranked.mode {
            Mode::Percent(percent) => (format!("enforced for {percent} %"), "the other sources pass"),
            Mode::Shadow | Mode::Enforce => ("in mode shadow".to_owned(), "it passes"),
        };
        let issue = format!("rule `{}` {mode} lifts what {by} enforces on {}", name.value, source.value);
        let help = format!(
            "one rule or profile decides about a source: while this one is tried, {passing} without a limit"
        );
        report.warning(name.span.clone(), Issue::remark(issue).help(help));
    }
}

/// What a rule takes sources from.
enum By<'a> {
    Rule(Option<&'a At<String>>),
    Service(Option<&'a At<String>>),
}

/// What decides about sources where a rule does not.
struct Below<'s, 'a> {
    raw: &'a RawPolicy,
    sources: &'s Sources<'a>,
    /// Rules that can refuse packets, in the order of the file.
    can_refuse: Vec<bool>,
    /// Names of services that limit, in the order of the file.
    limiting: Vec<&'a At<String>>,
}

impl<'s, 'a> Below<'s, 'a> {
    fn new(raw: &'a RawPolicy, sources: &'s Sources<'a>) -> Self {
        let limiting = raw.services.iter().filter(|service| is_limited(raw, service));
        Self {
            raw,
            sources,
            can_refuse: raw.rules.iter().map(|rule| can_refuse(raw, rule)).collect(),
            limiting: limiting.filter_map(|service| service.name.as_ref()).collect(),
        }
    }

    /// What would be enforced on a prefix of a rule, for more sources than by that rule, without it.
    fn enforced(&self, number: u32, rank: Rank, own: &RankedRule<'_>) -> Option<By<'a>> {
        if self.sources.allowed(number).is_some() {
            return None;
        }
        // The percentages are of the same order of sources: those of a lower one are among those of a higher one.
        let enforced_more = |mode: Mode| mode.enforced_percent() > own.mode.enforced_percent();
        for around in self.sources.around(number) {
            for (entry, other) in self.sources.named(around) {
                // At its own prefix only what comes after it.
                let comes_first = around == number && entry.rank <= rank;
                if !own.shares(other) || comes_first {
                    continue;
                }
                if enforced_more(other.mode) && self.can_refuse[other.index] {
                    return Some(By::Rule(other.rule.name.as_ref()));
                }
                // One that ends, or has, leaves its sources to what is around it.
                let decides = other.service == 0 || own.service == other.service;
                if decides && other.rule.until.is_none() {
                    return None;
                }
            }
        }
        let service = own.rule.service.as_ref();
        let limiting = self.limiting.iter().find(|name| service.is_none_or(|own| own.value == name.value))?;
        enforced_more(self.raw.mode).then_some(By::Service(Some(limiting)))
    }
}
