//! What a policy may say and is probably not meant.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;

use super::diagnostic::Severity;
use super::model::{Action, Ports};
use super::raw::{RawPolicy, RawProfile, RawService};
use super::sources::Sources;
use super::text::{At, Issue, Report, Span};
use super::{effect, fingerprinted, firing, fleets};

/// A prefix of fewer bits is broad: a /8 is what a registry holds, an IPv6 /19 the largest block
/// it gives to one network.
const BROAD_BITS_V4: u8 = 8;
const BROAD_BITS_V6: u8 = 19;

/// Warns of what looks wrong in a policy without errors.
pub(super) fn policy(raw: &RawPolicy, report: &mut Report<'_>) {
    services(&raw.services, report);
    profiles(raw, report);
    ended(raw, report);
    effect::nothing(raw, report);
    broad(raw, report);
    let sources = Sources::new(raw);
    firing::never(raw, &sources, report);
    firing::repeated(&sources, report);
    effect::lifted(raw, &sources, report);
    fingerprinted::warnings(raw, report);
    fleets::warnings(raw, report);
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
    let of_rules = raw.rules.iter().filter_map(|rule| rule.action.as_ref()?.value.profile());
    let used: BTreeSet<&str> = of_services.map(|profile| profile.value.as_str()).chain(of_rules).collect();
    for RawProfile { name, profile, .. } in &raw.profiles {
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

/// Rules that have ended.
fn ended(raw: &RawPolicy, report: &mut Report<'_>) {
    for rule in raw.rules.iter().filter(|rule| rule.has_ended(raw.now_unix_s)) {
        let (Some(name), Some(until)) = (&rule.name, &rule.until) else { continue };
        let issue = Issue::remark(format!("rule `{}` has ended and does nothing", name.value));
        report.warning(until.span.clone(), issue.help("remove it, or write a later `until`".to_owned()));
    }
}

/// Broad prefixes: a slip of a digit in one decides about a large part of all sources.
fn broad(raw: &RawPolicy, report: &mut Report<'_>) {
    let mut warn = |what: &str, sources: &[At<IpNet>]| {
        let broad = sources.iter().filter(|source| source.value.prefix_len() < broad_bits(source.value));
        let places = broad.map(|source| (source.span.clone(), source.value));
        report.many(Severity::Warning, places, |_, prefix| {
            let issue = Issue::new(what, format!("/{} or longer", broad_bits(prefix)));
            issue.found(format!("/{}", prefix.prefix_len())).needs_force()
        });
    };
    warn("never limits a very broad prefix", &raw.allow);
    for rule in &raw.rules {
        let what = match rule.action.as_ref().map(|action| &action.value) {
            Some(Action::Drop) => "drops a very broad prefix",
            Some(Action::Allow) => "does not limit a very broad prefix",
            Some(Action::Limit(_) | Action::LimitShared(_)) => "limits a very broad prefix",
            None => continue,
        };
        warn(what, &rule.sources);
    }
}

/// A prefix of fewer bits is broad.
pub(super) fn broad_bits(prefix: IpNet) -> u8 {
    if prefix.addr().is_ipv4() { BROAD_BITS_V4 } else { BROAD_BITS_V6 }
}
