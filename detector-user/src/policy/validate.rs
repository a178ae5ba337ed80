//! What only the whole policy shows: names given twice, names of nothing, too many of something.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use ipnet::{IpNet, Ipv6Net};

use super::diagnostic::Severity;
use super::model::{Action, Matches, Policy, Rule, Service};
use super::raw::{RawPolicy, RawRule, RawService};
use super::spelling::{did_you_mean, one_of, quoted};
use super::text::{At, Issue, Report};
use super::{PROFILES_MAX, RULES_MAX, SERVICES_MAX, SOURCE_BITS_V6, fingerprinted, warnings};

/// Makes a policy, unless there has been any error. Without one, gives its warnings.
pub(super) fn policy(raw: RawPolicy, report: &mut Report<'_>) -> Option<Policy> {
    names(&raw, report);
    references(&raw, report);
    raw.rules.iter().for_each(|rule| limits_finer_than_a_source(rule, report));
    fingerprinted::errors(&raw, report);
    if report.has_errors() {
        return None;
    }
    warnings::policy(&raw, report);

    let profiles = raw.profiles.into_iter().map(|raw| (raw.name.value, raw.profile)).collect();
    Some(Policy {
        mode: raw.mode,
        allow: values(raw.allow),
        services: raw.services.into_iter().map(service).collect::<Option<_>>()?,
        profiles,
        rules: raw.rules.into_iter().map(rule).collect::<Option<_>>()?,
        fleets: raw.fleets,
    })
}

fn service(raw: RawService) -> Option<Service> {
    Some(Service {
        name: raw.name?.value,
        addresses: values(raw.addresses),
        ports: values(raw.ports),
        profile: raw.profile.map(|profile| profile.value),
        fleets: raw.fleets.map(|mode| mode.value),
    })
}

fn rule(raw: RawRule) -> Option<Rule> {
    let matches = if raw.is_about_fingerprints() {
        Matches::Fingerprints(raw.patterns())
    } else {
        Matches::Sources(values(raw.sources))
    };
    Some(Rule {
        name: raw.name?.value,
        service: raw.service.map(|service| service.value),
        matches,
        action: raw.action?.value,
        mode: raw.mode,
        until_s: raw.until.map(|until| until.value),
        reason: raw.reason,
    })
}

fn values<T>(items: Vec<At<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

/// Names are unique within their kind, and not too many. Profiles are keys of a table, and so unique already.
fn names(raw: &RawPolicy, report: &mut Report<'_>) {
    let services: Vec<_> = raw.services.iter().filter_map(|service| service.name.as_ref()).collect();
    let profiles: Vec<_> = raw.profiles.iter().map(|profile| &profile.name).collect();
    let rules: Vec<_> = raw.rules.iter().filter_map(|rule| rule.name.as_ref()).collect();
    unique("service", &services, report);
    unique("rule", &rules, report);
    at_most("services", SERVICES_MAX, &services, report);
    at_most("profiles", PROFILES_MAX, &profiles, report);
    at_most("rules", RULES_MAX, &rules, report);
}

fn unique(kind: &str, names: &[&At<String>], report: &mut Report<'_>) {
    let mut first_lines = HashMap::new();
    for name in names {
        let first_line = match first_lines.entry(&name.value) {
            Entry::Vacant(entry) => {
                entry.insert(report.line(&name.span));
                continue;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let issue = Issue::new(format!("duplicate {kind} name"), format!("a name no other {kind} has"));
        let help = format!("`{}` is on line {first_line} already", quoted(&name.value));
        report.error(name.span.clone(), issue.help(help));
    }
}

fn at_most(kind: &str, max: usize, names: &[&At<String>], report: &mut Report<'_>) {
    let Some(name) = names.get(max) else { return };
    let issue = Issue::new(format!("too many {kind}"), format!("at most {max}"));
    report.error(name.span.clone(), issue.found(format!("{}", names.len())));
}

/// What is referred to exists.
fn references(raw: &RawPolicy, report: &mut Report<'_>) {
    let services = raw.services.iter().filter_map(|service| service.name.as_ref());
    let services = Defined::new("service", services);
    let profiles = Defined::new("profile", raw.profiles.iter().map(|profile| &profile.name));

    for service in &raw.services {
        if let Some(profile) = &service.profile {
            profiles.check(profile, &profile.value, report);
        }
    }
    for rule in &raw.rules {
        if let Some(service) = &rule.service {
            services.check(service, &service.value, report);
        }
        if let Some(action) = &rule.action
            && let Some(profile) = action.value.profile()
        {
            profiles.check(action, profile, report);
        }
    }
}

/// A budget is an IPv6 source's, so a limit on a part of one would take from the rest of it. `allow` and `drop` have no
/// budget and are looked up for each packet there.
fn limits_finer_than_a_source(rule: &RawRule, report: &mut Report<'_>) {
    let Some(At { value: Action::Limit(_), .. }) = &rule.action else { return };
    let finer = |source: &At<IpNet>| match source.value {
        IpNet::V6(prefix) if prefix.prefix_len() > SOURCE_BITS_V6 => Some((source.span.clone(), prefix)),
        IpNet::V4(_) | IpNet::V6(_) => None,
    };
    report.many(Severity::Error, rule.sources.iter().filter_map(finer), |_, source| {
        let around = Ipv6Net::new_assert(source.addr(), SOURCE_BITS_V6).trunc();
        let issue = Issue::new(
            format!("limit on a part of an IPv6 source, whose budgets are those of its /{SOURCE_BITS_V6}"),
            format!("/{SOURCE_BITS_V6} or shorter"),
        );
        let help =
            format!("write \"{around}\" to limit all of it; \"drop\" and \"allow\" work on longer prefixes");
        issue.help(help)
    });
}

/// The names of one kind.
struct Defined<'a> {
    kind: &'static str,
    names: BTreeSet<&'a str>,
}

impl<'a> Defined<'a> {
    fn new(kind: &'static str, names: impl Iterator<Item = &'a At<String>>) -> Self {
        Self { kind, names: names.map(|name| name.value.as_str()).collect() }
    }

    /// Reports a name, referred to at a place, that is none of these.
    fn check<T>(&self, place: &At<T>, name: &str, report: &mut Report<'_>) {
        if self.names.contains(name) {
            return;
        }
        let kind = self.kind;
        let expected = if self.names.is_empty() {
            format!("a {kind} of this policy, which has none")
        } else {
            one_of(self.names.iter().copied())
        };
        let issue = Issue::new(format!("undefined {kind}"), expected);
        report.error(place.span.clone(), issue.help(did_you_mean(name, self.names.iter().copied())));
    }
}
