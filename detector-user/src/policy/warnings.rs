//! What a policy may say and is probably not meant.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::effect;
use super::model::{Action, Ports};
use super::raw::{RawPolicy, RawProfile, RawRule, RawService};
use super::text::{At, Issue, Report, Span};

/// A prefix of fewer bits is broad: a /8 is what a registry holds, an IPv6 /19 the largest block
/// it gives to one network.
const BROAD_BITS_V4: u8 = 8;
const BROAD_BITS_V6: u8 = 19;

/// Warns of what looks wrong in a policy without errors.
pub(super) fn policy(raw: &RawPolicy, report: &mut Report<'_>) {
    services(&raw.services, report);
    profiles(raw, report);
    rules_never_firing(raw, report);
    effect::nothing(raw, report);
    effect::lifted(raw, report);
    broad(raw, report);
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
            let is_first = outer.1 < inner.1;
            let (first_prefix, later_prefix) = if is_first { (outer.0, inner.0) } else { (inner.0, outer.0) };
            if let (Some(of_first), Some(of_later)) = (services.get(first.1), services.get(second.1)) {
                let (first, later) = (Side(of_first, first_prefix), Side(of_later, later_prefix));
                overlap(first, later, inner.0, second.2, report);
            }
        }
        around.push(inner);
    }
}

/// A service and the prefix with which it meets another.
#[derive(Clone, Copy)]
struct Side<'a>(&'a RawService, IpNet);

fn overlap(first: Side<'_>, later: Side<'_>, prefix: IpNet, span: &Span, report: &mut Report<'_>) {
    let pairs = later.0.ports.iter().flat_map(|late| first.0.ports.iter().map(move |early| (early, late)));
    let mut shared = pairs.filter_map(|(early, late)| Some((early, late, early.value.shared(late.value)?)));
    let (Some((early, late, ports)), Some(name)) = (shared.next(), &first.0.name) else { return };
    let more = if shared.next().is_some() { " and more" } else { "" };
    let issue = Issue::remark(format!(
        "overlaps service `{}` of line {} on {prefix}, {ports}{more}",
        name.value,
        report.line(&name.span),
    ));
    let (winner, reason) = decides(first, early.value, later, late.value);
    let winner = winner.name.as_ref().map_or("", |name| &name.value);
    let help = format!("{ports} there belongs to `{winner}`, {reason}");
    report.warning(span.clone(), issue.help(help));
}

/// Which of two services has the packets that both name, and why.
fn decides<'a>(
    first: Side<'a>,
    early: Ports,
    later: Side<'a>,
    late: Ports,
) -> (&'a RawService, &'static str) {
    let by_address = first.1.prefix_len().cmp(&later.1.prefix_len());
    let by_ports = width(late).cmp(&width(early));
    match (by_address, by_ports) {
        (Ordering::Greater, _) => (first.0, "whose prefix is more specific"),
        (Ordering::Less, _) => (later.0, "whose prefix is more specific"),
        (Ordering::Equal, Ordering::Greater) => (first.0, "whose ports are more specific"),
        (Ordering::Equal, Ordering::Less) => (later.0, "whose ports are more specific"),
        (Ordering::Equal, Ordering::Equal) => (first.0, "which comes first"),
    }
}

/// Ports come before protocols, these before everything; a wide range is as specific as one port.
fn width(ports: Ports) -> u8 {
    match ports {
        Ports::Range { .. } => 0,
        Ports::Protocol(_) => 1,
        Ports::Any => 2,
    }
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
        if profile.is_empty() {
            let issue = Issue::remark(format!("profile `{}` limits nothing", name.value));
            report.warning(name.span.clone(), issue);
        }
    }
}

/// What decides about a prefix before others do: the lower, the earlier.
pub(super) type Rank = (u8, usize);

pub(super) fn rank(rule: &RawRule, index: usize) -> Option<Rank> {
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

    let of_services = prefixes_of_services(raw);

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
            if *winner < rank {
                return Some(decides_before(raw, *winner, source.value, report));
            }
            let inside = |service| of_services.get(&service).map_or(&[][..], Vec::as_slice);
            let more_specific = [inside(None), inside(service_of(rule))];
            let is_covered = more_specific.iter().any(|prefixes| divided(source.value, prefixes));
            is_covered.then(|| format!("more specific prefixes of rules make up all of {}", source.value))
        };
        let reasons: Vec<_> =
            rule.sources.iter().filter_map(|source| Some((source, covered(source)?))).collect();
        never_fires(rule, reasons, report);
    }
}

/// The prefixes that rules decide about, in order, by the service that the rules are about.
fn prefixes_of_services(raw: &RawPolicy) -> BTreeMap<Option<&str>, Vec<IpNet>> {
    let mut of_services: BTreeMap<Option<&str>, Vec<IpNet>> = BTreeMap::new();
    for rule in &raw.rules {
        of_services
            .entry(service_of(rule))
            .or_default()
            .extend(rule.sources.iter().map(|source| source.value));
    }
    of_services.values_mut().for_each(|prefixes| prefixes.sort_unstable());
    of_services
}

/// Whether longer prefixes make up all of a prefix. They are in the order of their addresses, the wider first.
fn divided(whole: IpNet, prefixes: &[IpNet]) -> bool {
    let first = prefixes.partition_point(|prefix| prefix.network() < whole.network());
    let mut next = whole.network();
    for prefix in prefixes.iter().skip(first) {
        // What starts later leaves a gap; with this first, no more is looked at than lies in `whole`.
        if prefix.network() > next {
            return false;
        }
        if prefix.prefix_len() <= whole.prefix_len() || prefix.network() < next {
            continue;
        }
        if prefix.broadcast() == whole.broadcast() {
            return true;
        }
        let Some(after) = after(prefix.broadcast()) else { return false };
        next = after;
    }
    false
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

pub(super) fn service_of(rule: &RawRule) -> Option<&str> {
    rule.service.as_ref().map(|service| service.value.as_str())
}

/// The prefix and all that contain it.
pub(super) fn ancestors(prefix: IpNet) -> impl Iterator<Item = IpNet> {
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

/// Broad prefixes whose sources are all dropped, or never limited.
fn broad(raw: &RawPolicy, report: &mut Report<'_>) {
    let warn = |what: &str, source: &At<IpNet>, report: &mut Report<'_>| {
        let prefix = source.value;
        let bits_min = if prefix.addr().is_ipv4() { BROAD_BITS_V4 } else { BROAD_BITS_V6 };
        if prefix.prefix_len() < bits_min {
            let issue = Issue::new(what, format!("/{bits_min} or longer"));
            report.warning(source.span.clone(), issue.found(format!("/{}", prefix.prefix_len())));
        }
    };
    for source in &raw.allow {
        warn("never limits a very broad prefix", source, report);
    }
    for rule in &raw.rules {
        let what = match rule.action.as_ref().map(|action| &action.value) {
            Some(Action::Drop) => "drops a very broad prefix",
            Some(Action::Allow) => "does not limit a very broad prefix",
            Some(Action::Limit(_)) | None => continue,
        };
        for source in &rule.sources {
            warn(what, source, report);
        }
    }
}
