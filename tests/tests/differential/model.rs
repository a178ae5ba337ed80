//! What a policy means, as `docs/policy.md` says it: no ranges, no selectors, no entries.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use detector_common::{
    address::{Address, Family},
    budget::{Budget, take, ticks},
    hash::Seed,
    packet::{Packet, Ports},
    policy::is_enforced,
    table::{Key as TableKey, Unit},
    verdict::{Reason, Verdict},
};
use detector_user::policy::{
    self, Action, Budgets, Mode, ParentBudgets, Policy, Profile, Service, incident::IncidentAction,
};
use ipnet::IpNet;

use crate::incidents::{self, IncidentRule};

/// What should become of a frame.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) reason: Reason,
    pub(crate) shadow: bool,
    pub(crate) service: Option<usize>,
    /// As `main::description` writes it.
    pub(crate) class: Option<String>,
}

impl Expected {
    pub(crate) fn unjudged(reason: Reason) -> Self {
        Self { reason, shadow: false, service: None, class: None }
    }

    pub(crate) fn dropped(&self) -> bool {
        self.reason.verdict() == Verdict::Drop && !self.shadow
    }
}

/// A prefix at a service; of a parent also the name of the profile that names it.
pub(crate) type Key<'a> = (usize, u8, Address, &'a str);

/// A policy, and what every source spent.
pub(crate) struct Model<'a> {
    policy: &'a Policy,
    incidents: &'a [IncidentRule],
    /// Of the keyed hash that picks the sources of a percentage.
    seed: Seed,
    known: HashSet<Key<'a>>,
    /// Theoretical arrival times: packets, bytes, connections, new sources.
    spent: HashMap<Key<'a>, [u64; 4]>,
}

/// What the policy says of a source.
pub(crate) struct Standing<'a> {
    pub(crate) action: u8,
    pub(crate) rule: Option<Cow<'a, str>>,
    pub(crate) profile: Option<(&'a str, &'a Profile)>,
    pub(crate) mode: Mode,
}

impl Standing<'_> {
    /// As `main::description` writes it.
    pub(crate) fn description(&self) -> String {
        format!(
            "action {} rule {} profile {} enforced {}",
            self.action,
            self.rule.as_deref().unwrap_or("-"),
            self.profile.map_or("-", |(name, _)| name),
            self.mode.enforced_percent()
        )
    }
}

pub(crate) const LIMIT: u8 = 0;
pub(crate) const ALLOW: u8 = 1;
pub(crate) const DENY: u8 = 2;
const COUNT: u8 = 3;

impl<'a> Model<'a> {
    pub(crate) fn new(policy: &'a Policy, incidents: &'a [IncidentRule], seed: Seed) -> Self {
        Self { policy, incidents, seed, known: HashSet::new(), spent: HashMap::new() }
    }

    /// The number that a service has in the first policy of a program: its place in the file, from 1.
    pub(crate) fn number(&self, service: usize) -> u16 {
        service as u16 + 1
    }

    /// The service that a packet is for: the longest prefix, then the most exact kind of port, then the file's order. Of
    /// those whose ports a packet hides, one with a profile before others.
    pub(crate) fn service(&self, packet: &Packet) -> Option<usize> {
        let destination = packet.destination.to_ip();
        let services = || self.policy.services.iter().enumerate();
        let length_of = |service: &Service| longest(&service.addresses, destination);
        let candidate = |(index, service): (usize, &Service)| {
            let kind = service.ports.iter().filter_map(|ports| match_of(*ports, packet)).min()?;
            Some((Reverse(length_of(service)?), kind, index))
        };
        let best = services().filter_map(candidate).min();
        if matches!(packet.ports, Ports::Known | Ports::None) {
            return best.map(|(_, _, index)| index);
        }
        // A more specific service of all ports leaves the wider ones nothing; of several, the first has what nobody names.
        let of_all = |(index, service): (usize, &Service)| {
            let is_of_all = service.ports.contains(&policy::Ports::Any);
            Some((Reverse(length_of(service).filter(|_| is_of_all)?), index))
        };
        let of_all = services().filter_map(of_all).min();
        let hidden = |(index, service): (usize, &Service)| {
            let (length, kind, _) = candidate((index, service))?;
            let is_left_some = of_all.is_none_or(|(most, _)| length <= most);
            let may_be = is_left_some && (kind != ALL_PORTS || of_all == Some((length, index)));
            // Between services of equal standing, one that names the protocol comes first.
            may_be.then_some((service.profile.is_none(), kind == ALL_PORTS, length, index))
        };
        let hidden = services().filter_map(hidden).min();
        hidden.map(|(.., index)| index)
    }

    /// `defaults.allow`, then the most specific prefix of a rule that has not ended; within equal ones allow, drop, limit;
    /// then the profile.
    fn standing(&self, source: IpAddr, service: &'a Service, now: u64) -> Standing<'a> {
        let policy = self.policy;
        let profile = |name: &'a str| Some((name, &policy.profiles[name]));
        if longest(&policy.allow, source).is_some() {
            return Standing { action: ALLOW, rule: None, profile: None, mode: Mode::Enforce };
        }
        let candidate = |(index, rule): (usize, &'a policy::Rule)| {
            let applies = rule.service.as_ref().is_none_or(|name| *name == service.name);
            let has_ended = rule.until_s.is_some_and(|until_s| ticks(until_s * 1_000_000_000) <= now);
            let length = longest(rule.matches.sources(), source).filter(|_| applies && !has_ended)?;
            let rank = match rule.action {
                Action::Allow => 0,
                Action::Drop => 1,
                Action::Limit(_) | Action::LimitShared(_) => 2,
            };
            Some(((Reverse(length), rank, index), rule))
        };
        let rules = policy.rules.iter().enumerate().filter_map(candidate);
        if let Some((_, rule)) = rules.min_by_key(|(order, _)| *order) {
            let mode = rule.mode.unwrap_or(policy.mode);
            let (action, profile) = match &rule.action {
                Action::Allow => (ALLOW, None),
                Action::Drop => (DENY, None),
                Action::Limit(name) | Action::LimitShared(name) => (LIMIT, profile(name)),
            };
            return Standing { action, rule: Some(rule.name.as_str().into()), profile, mode };
        }
        let mode = policy.mode;
        match &service.profile {
            Some(name) => Standing { action: LIMIT, rule: None, profile: profile(name), mode },
            None => Standing { action: COUNT, rule: None, profile: None, mode },
        }
    }

    /// An incident rule comes before all but `defaults.allow`; one that throttles leaves what is tighter in anything.
    pub(crate) fn standing_with_incidents(&self, packet: &Packet, service: usize, now: u64) -> Standing<'a> {
        let source = packet.source.to_ip();
        let at = &self.policy.services[service];
        let of_policy = self.standing(source, at, now);
        let is_always_allowed = of_policy.action == ALLOW && of_policy.rule.is_none();
        let rule = incidents::about(self.incidents, source, at, now).filter(|_| !is_always_allowed);
        let Some((number, rule)) = rule else { return of_policy };
        let (action, profile) = match rule.incident.action {
            IncidentAction::Allow => (ALLOW, None),
            IncidentAction::Block => (DENY, None),
            IncidentAction::Throttle(_) | IncidentAction::ThrottleShared(_) => {
                let (name, profile) = &rule.throttled[service];
                let is_enforced = is_enforced(self.hash(packet, service), of_policy.mode.enforced_percent());
                let is_stricter = match of_policy.profile {
                    Some((own_name, own)) => {
                        !incidents::is_within(&(name.clone(), profile), &(own_name.to_owned(), own))
                    }
                    None => of_policy.action == DENY,
                };
                if is_enforced && is_stricter {
                    return of_policy;
                }
                (LIMIT, Some((name.as_str(), profile)))
            }
        };
        // Numbers are given in order, from 1.
        let rule = Some(format!("incident {}", number + 1).into());
        Standing { action, rule, profile, mode: Mode::Enforce }
    }

    pub(crate) fn hash(&self, packet: &Packet, service: usize) -> u64 {
        let unit = Unit::of_source(packet.source.family);
        TableKey::new(packet.source, unit, self.number(service)).hash(&self.seed)
    }

    /// Judges a packet for a service.
    pub(crate) fn judge(&mut self, packet: &Packet, service: usize, bytes: u32, now: u64) -> Expected {
        let standing = self.standing_with_incidents(packet, service, now);
        let reason = match (standing.action, standing.profile) {
            (ALLOW, _) => self.count(packet, service, Reason::Allowed),
            (DENY, _) => self.count(packet, service, Reason::Denied),
            (COUNT, _) => self.count(packet, service, Reason::Unlimited),
            (_, Some((name, profile))) => self.limit(packet, service, name, profile, bytes, now),
            (_, None) => unreachable!("a limit has a profile"),
        };
        let shadow = !is_enforced(self.hash(packet, service), standing.mode.enforced_percent());
        Expected { reason, shadow, service: Some(service), class: Some(standing.description()) }
    }

    fn count(&mut self, packet: &Packet, service: usize, reason: Reason) -> Reason {
        self.known.insert(source_key(packet, service));
        reason
    }

    fn limit(
        &mut self,
        packet: &Packet,
        service: usize,
        name: &'a str,
        profile: &'a Profile,
        bytes: u32,
        now: u64,
    ) -> Reason {
        let source = source_key(packet, service);
        let parents = parents_of(packet, service, name, profile);
        if !self.known.contains(&source) {
            let charges: Vec<_> = parents
                .iter()
                .filter_map(|(key, level)| Some(unit_of(*key, NEW_SOURCES, level.new_sources?)))
                .collect();
            if self.charge(&charges, now).is_err() {
                return Reason::NewSources;
            }
            self.known.insert(source);
        }
        let mut charges = charges_of(source, &profile.budgets, packet, bytes);
        let own = charges.len();
        for (key, level) in &parents {
            charges.extend(charges_of(*key, &level.budgets, packet, bytes));
        }
        match self.charge(&charges, now) {
            Ok(()) => Reason::Conforming,
            Err(failed) => {
                let reasons = if failed < own {
                    [Reason::Packets, Reason::Bytes, Reason::Connections]
                } else {
                    [Reason::ParentPackets, Reason::ParentBytes, Reason::ParentConnections]
                };
                reasons[charges[failed].kind]
            }
        }
    }

    /// Charges all, or none and says which failed first.
    fn charge(&mut self, charges: &[Charge<'a>], now: u64) -> Result<(), usize> {
        let mut states = Vec::new();
        for (index, charge) in charges.iter().enumerate() {
            let state = self.spent.get(&charge.key).map_or(0, |states| states[charge.kind]);
            match take(state, now, charge.cost, charge.budget.burst_ticks) {
                Ok(state) => states.push(state),
                Err(wait) => {
                    // More than this budget could owe is an earlier policy's debt: spent, but no more.
                    if wait.ticks > charge.cost + ticks(1_000_000_000) {
                        let spent = now + charge.budget.burst_ticks;
                        self.spent.entry(charge.key).or_default()[charge.kind] = spent;
                    }
                    return Err(index);
                }
            }
        }
        for (charge, state) in charges.iter().zip(states) {
            self.spent.entry(charge.key).or_default()[charge.kind] = state;
        }
        Ok(())
    }
}

/// What a packet costs of one budget.
struct Charge<'a> {
    key: Key<'a>,
    kind: usize,
    budget: Budget,
    cost: u64,
}

const PACKETS: usize = 0;
const BYTES: usize = 1;
const CONNECTIONS: usize = 2;
const NEW_SOURCES: usize = 3;

fn charges_of<'a>(key: Key<'a>, budgets: &Budgets, packet: &Packet, bytes: u32) -> Vec<Charge<'a>> {
    let mut charges = Vec::new();
    charges.extend(budgets.packets.map(|budget| unit_of(key, PACKETS, budget)));
    charges.extend(budgets.bytes.map(|budget| {
        let budget = Budget::of_bytes(budget.rate.count, budget.rate.per_ns, budget.burst, 0);
        Charge { key, kind: BYTES, budget, cost: budget.bytes_cost(bytes) }
    }));
    if packet.connection {
        charges.extend(budgets.connections.map(|budget| unit_of(key, CONNECTIONS, budget)));
    }
    charges
}

fn unit_of(key: Key<'_>, kind: usize, budget: policy::Budget) -> Charge<'_> {
    let budget = Budget::of_units(budget.rate.count, budget.rate.per_ns, budget.burst, 0);
    Charge { key, kind, budget, cost: budget.unit_cost() }
}

pub(crate) fn source_key(packet: &Packet, service: usize) -> Key<'static> {
    let length = if packet.source.family == Family::V4 { 32 } else { 64 };
    (service, length, packet.source.prefix(length), "")
}

/// The prefixes around a source that the profile limits, the nearest first.
fn parents_of<'a>(
    packet: &Packet,
    service: usize,
    name: &'a str,
    profile: &'a Profile,
) -> Vec<(Key<'a>, &'a ParentBudgets)> {
    let parents = &profile.parents;
    let levels: &[_] = match packet.source.family {
        Family::V4 => &[(24, &parents.v4_24)],
        Family::V6 => &[(56, &parents.v6_56), (48, &parents.v6_48)],
    };
    let key = |length| (service, length, packet.source.prefix(length), name);
    levels.iter().filter_map(|&(length, level)| Some((key(length), level.as_ref()?))).collect()
}

/// Length of the longest of some prefixes around an address.
pub(crate) fn longest(nets: &[IpNet], address: IpAddr) -> Option<u8> {
    nets.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max()
}

/// How little an entry for all ports says of a packet, see [`match_of`].
const ALL_PORTS: u8 = 2;

/// How exactly an entry of `ports` names a packet, 0 the most; `None`: it does not.
fn match_of(ports: policy::Ports, packet: &Packet) -> Option<u8> {
    use policy::Ports::{Any, Protocol, Range};
    let protocol_matches = |protocol: u8| protocol == packet.protocol;
    match (packet.ports, ports) {
        // Nothing of the packet can be compared: every service of the destination could be meant.
        (Ports::Unread, _) => Some(0),
        (_, Any) => Some(ALL_PORTS),
        (Ports::Known, Range { protocol, first, last }) => {
            (protocol_matches(protocol) && (first..=last).contains(&packet.destination_port)).then_some(0)
        }
        (Ports::None, Range { .. }) => None,
        // A later fragment is of every port of its protocol.
        (Ports::InFirstFragment, Protocol(protocol) | Range { protocol, .. }) => {
            protocol_matches(protocol).then_some(1)
        }
        (_, Protocol(protocol)) => protocol_matches(protocol).then_some(1),
    }
}
