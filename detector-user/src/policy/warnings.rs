//! What a policy may say and is probably not meant.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use super::model::{Action, ParentBudgets, Ports, Profile};
use super::raw::{RawPolicy, RawProfile, RawRule, RawService};
use super::text::{At, Issue, Report, Span};

/// A drop rule for a prefix of fewer bits is broad: a /8 is what a registry holds, an IPv6 /19 the largest block
/// it gives to one network.
const DROP_BITS_MIN_V4: u8 = 8;
const DROP_BITS_MIN_V6: u8 = 19;
/// IPv6 sources are told apart by this many bits.
const SOURCE_BITS_V6: u8 = 64;

/// Warns of what looks wrong in a policy without errors.
pub(super) fn policy(raw: &RawPolicy, report: &mut Report<'_>) {
    services(&raw.services, report);
    profiles(raw, report);
    rules_never_firing(raw, report);
    for rule in &raw.rules {
        sources(rule, report);
    }
}

/// Services that share an address and a port, each pair once.
fn services(services: &[RawService], report: &mut Report<'_>) {
    let mut addresses: Vec<(IpNet, usize, &Span)> = Vec::new();
    for (index, service) in services.iter().enumerate() {
        addresses.extend(service.addresses.iter().map(|address| (address.value, index, &address.span)));
    }
    // In this order a prefix comes before all that it contains, so those around the current one are a stack.
    addresses
        .sort_by_key(|(prefix, index, span)| (prefix.network(), prefix.prefix_len(), *index, span.start));
    addresses.dedup_by_key(|(prefix, index, _)| (*prefix, *index));

    let mut around: Vec<(IpNet, usize, &Span)> = Vec::new();
    let mut seen = HashSet::new();
    for inner in addresses {
        while around.last().is_some_and(|(prefix, ..)| !prefix.contains(&inner.0)) {
            around.pop();
        }
        for outer in &around {
            let (first, second) = if outer.1 < inner.1 { (outer, &inner) } else { (&inner, outer) };
            if first.1 == second.1 || !seen.insert((first.1, second.1)) {
                continue;
            }
            if let (Some(first), Some(later)) = (services.get(first.1), services.get(second.1)) {
                overlap(first, later, inner.0, second.2, report);
            }
        }
        around.push(inner);
    }
}

fn overlap(first: &RawService, later: &RawService, shared: IpNet, span: &Span, report: &mut Report<'_>) {
    let meets = |port: &Ports| first.ports.iter().any(|other| port.overlaps(*other));
    let (Some(port), Some(name)) = (later.ports.iter().find(|port| meets(port)), &first.name) else { return };
    let issue = Issue::remark(format!(
        "overlaps service `{}` of line {} on {shared}, {port}",
        name.value,
        report.line(&name.span)
    ));
    report.warning(span.clone(), issue);
}

/// Profiles that nothing uses or that limit nothing.
fn profiles(raw: &RawPolicy, report: &mut Report<'_>) {
    let of_services = raw.services.iter().filter_map(|service| service.profile.as_ref());
    let of_rules = raw.rules.iter().filter_map(|rule| match &rule.action.as_ref()?.value {
        Action::Limit(profile) => Some(profile.as_str()),
        Action::Allow | Action::Drop => None,
    });
    let used: BTreeSet<&str> = of_services.map(|profile| profile.value.as_str()).chain(of_rules).collect();
    for RawProfile { name, profile } in &raw.profiles {
        if !used.contains(name.value.as_str()) {
            let issue = Issue::remark(format!("profile `{}` is not used", name.value));
            report.warning(name.span.clone(), issue);
        }
        if limits_nothing(profile) {
            let issue = Issue::remark(format!("profile `{}` limits nothing", name.value));
            report.warning(name.span.clone(), issue);
        }
    }
}

fn limits_nothing(profile: &Profile) -> bool {
    let parents = [&profile.parents.v4_24, &profile.parents.v6_56, &profile.parents.v6_48];
    let empty = |parent: &ParentBudgets| *parent == ParentBudgets::default();
    profile.budgets.is_empty() && parents.into_iter().flatten().all(empty)
}

/// What decides about a prefix before others do: the lower, the earlier.
type Rank = (u8, usize);

fn rank(rule: &RawRule, index: usize) -> Option<Rank> {
    let action = match rule.action.as_ref()?.value {
        Action::Allow => 0,
        Action::Drop => 1,
        Action::Limit(_) => 2,
    };
    Some((action, index))
}

/// Prefixes of rules that another rule or `defaults.allow` always decides about.
fn rules_never_firing(raw: &RawPolicy, report: &mut Report<'_>) {
    let allowed: HashSet<IpNet> = raw.allow.iter().map(|prefix| prefix.value).collect();
    let mut first: HashMap<(IpNet, Option<&str>), Rank> = HashMap::new();
    for (index, rule) in raw.rules.iter().enumerate() {
        let Some(rank) = rank(rule, index) else { continue };
        for source in &rule.sources {
            let winner = first.entry((source.value, service_of(rule))).or_insert(rank);
            *winner = rank.min(*winner);
        }
    }

    for (index, rule) in raw.rules.iter().enumerate() {
        let Some(rank) = rank(rule, index) else { continue };
        let covered = |source: &At<IpNet>| {
            if let Some(prefix) = ancestors(source.value).find(|prefix| allowed.contains(prefix)) {
                return Some(format!("{prefix} of defaults.allow passes before any rule"));
            }
            // A rule for one service is also covered by those for every service; not the other way round.
            let for_all = first.get(&(source.value, None));
            let for_service = first.get(&(source.value, service_of(rule)));
            let winner = for_all.into_iter().chain(for_service).min()?;
            (*winner < rank).then(|| decides_before(raw, *winner, source.value, report))
        };
        let reasons: Vec<_> =
            rule.sources.iter().filter_map(|source| Some((source, covered(source)?))).collect();
        never_fires(rule, reasons, report);
    }
}

fn service_of(rule: &RawRule) -> Option<&str> {
    rule.service.as_ref().map(|service| service.value.as_str())
}

/// The prefix and all that contain it.
fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(prefix), IpNet::supernet)
}

fn decides_before(raw: &RawPolicy, winner: Rank, source: IpNet, report: &Report<'_>) -> String {
    let name = raw.rules.get(winner.1).and_then(|rule| rule.name.as_ref());
    let (name, line) = name.map_or(("", 0), |name| (&name.value, report.line(&name.span)));
    format!("rule `{name}` of line {line} decides about {source} before it")
}

/// One warning at the rule's name if all of its sources are covered, otherwise one at each that is.
fn never_fires(rule: &RawRule, reasons: Vec<(&At<IpNet>, String)>, report: &mut Report<'_>) {
    let Some(name) = &rule.name else { return };
    if reasons.len() == rule.sources.len() {
        let Some((_, reason)) = reasons.into_iter().next() else { return };
        let issue = Issue::remark(format!("rule `{}` can never fire: {reason}", name.value));
        report.warning(name.span.clone(), issue);
        return;
    }
    for (source, reason) in reasons {
        let issue = Issue::remark(format!("rule `{}` can never fire here: {reason}", name.value));
        report.warning(source.span.clone(), issue);
    }
}

/// Broad prefixes that are dropped, and IPv6 prefixes too fine for a budget of their own.
fn sources(rule: &RawRule, report: &mut Report<'_>) {
    let Some(action) = &rule.action else { return };
    for source in &rule.sources {
        let prefix = source.value;
        let bits_min = if prefix.addr().is_ipv4() { DROP_BITS_MIN_V4 } else { DROP_BITS_MIN_V6 };
        let too_fine = prefix.addr().is_ipv6() && prefix.prefix_len() > SOURCE_BITS_V6;
        match action.value {
            Action::Drop if prefix.prefix_len() < bits_min => {
                let issue = Issue::new("drops a very broad prefix", format!("/{bits_min} or longer"));
                report.warning(source.span.clone(), issue.found(format!("/{}", prefix.prefix_len())));
            }
            Action::Limit(_) if too_fine => {
                let issue = Issue::new(
                    "budgets are per IPv6 /64: this limit shares the budget of its /64",
                    "/64 or shorter",
                );
                report.warning(source.span.clone(), issue.found(format!("/{}", prefix.prefix_len())));
            }
            Action::Allow | Action::Drop | Action::Limit(_) => {}
        }
    }
}
