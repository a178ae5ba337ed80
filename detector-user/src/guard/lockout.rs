//! Whom a change would lock out: SSH peers of the caller or who asks over the API, gateways, resolvers, and what the loaded
//! policy always allows.
//!
//! Only what gets worse is told: a limit or drop that is in force already, and no tighter than it was, is no news.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
};

use detector_common::{
    address::{Address, Family},
    policy::{Action, NO_RULE},
    service::PortKind,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    host::{Host, Peer, Role},
    impact::is_stricter,
    openings::{At, Openings},
};
use crate::{
    kernel::read::can_refuse,
    policy::compile::{Judge, Judged, Run, Tables, pieces, prefixes_of_run},
};

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const ICMP_V6: u8 = libc::IPPROTO_ICMPV6 as u8;

/// Prefixes of `defaults.allow` that are named, at most.
const PREFIXES_NAMED: usize = 3;

/// Somebody whom a change would lock out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Lockout {
    /// The address or prefixes.
    pub who: String,
    /// What they are to this host.
    pub role: String,
    /// Where that stands.
    pub found: String,
    /// The service where it would happen.
    pub service: String,
    /// What would happen: `drop by RULE`, `limit PROFILE`; of a rule about fingerprints also why.
    pub would: String,
}

impl fmt::Display for Lockout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, role, found, service, would } = self;
        write!(formatter, "{who}, {role} ({found}): {would} at service {service}")
    }
}

/// Everybody whom a change would lock out; `before`: the policy that is loaded, if one is.
pub fn lockouts(
    host: &Host,
    openings: &Openings<'_>,
    before: Option<&Judge<'_>>,
    after: &Judge<'_>,
) -> Vec<Lockout> {
    let mut found = peers_locked_out(host, openings, before, after);
    found.extend(before.into_iter().flat_map(|before| no_longer_allowed(before, after)));
    found
}

/// Peers of this host whom a change would lock out.
pub fn peers_locked_out(
    host: &Host,
    openings: &Openings<'_>,
    before: Option<&Judge<'_>>,
    after: &Judge<'_>,
) -> Vec<Lockout> {
    let peers = host.peers();
    if peers.is_empty() {
        return Vec::new();
    }
    let (locals, probes) = (host.addresses(), Probes::of(after.tables, host.ephemeral_first()));
    let change = Change { before, after };
    let lockout = |peer: &Peer| match peer.role {
        Role::Ssh { local } | Role::ApiClient { local } => {
            let probe = Probe { protocol: TCP, port: Some(local.port()), counts: Counts::Limits };
            change.harm(peer, local.ip(), &probe).or_else(|| change.harm_at_opening(peer, local, openings))
        }
        Role::Gateway | Role::Resolver => {
            let probes = if peer.role == Role::Gateway { &probes.of_gateway } else { &probes.of_resolver };
            let pairs = locals.iter().flat_map(|&local| probes.iter().map(move |probe| (local, probe)));
            pairs.into_iter().find_map(|(local, probe)| change.harm(peer, local, probe))
        }
    };
    peers.iter().filter_map(lockout).collect()
}

/// A packet of a peer to this host.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// For IPv6, that of ICMP stands for ICMPv6.
    protocol: u8,
    port: Option<u16>,
    counts: Counts,
}

/// What of it is harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// Being dropped or limited.
    Limits,
    /// Being dropped by a rule.
    Drops,
}

struct Probes {
    of_gateway: Vec<Probe>,
    of_resolver: Vec<Probe>,
}

impl Probes {
    /// One packet for each port that the policy names, and one for every other port.
    fn of(tables: &Tables, ephemeral_first: u16) -> Self {
        let named = tables.ports.iter().filter(|slot| slot.key != 0);
        let named = named.filter(|slot| (slot.key >> 24) as u8 == PortKind::Port as u8);
        let named: BTreeSet<_> = named.map(|slot| ((slot.key >> 16) as u8, slot.key as u16)).collect();
        let other =
            |protocol| (ephemeral_first..=u16::MAX).rev().find(|&port| !named.contains(&(protocol, port)));
        // What no port of the policy stands for: answers of anybody.
        let others = [TCP, UDP].into_iter().filter_map(|protocol| Some((protocol, Some(other(protocol)?))));
        let other: Vec<_> = [(ICMP, None)].into_iter().chain(others).collect();
        let probe = |counts: Counts| move |(protocol, port)| Probe { protocol, port, counts };
        let named = || named.iter().map(|&(protocol, port)| (protocol, Some(port)));
        let answers = || named().filter(|(_, port)| port.is_some_and(|port| port >= ephemeral_first));
        let (limits, drops) = (probe(Counts::Limits), probe(Counts::Drops));
        Self {
            of_gateway: other.iter().copied().map(limits).chain(named().map(drops)).collect(),
            of_resolver: other[1..]
                .iter()
                .copied()
                .chain(answers())
                .map(limits)
                .chain(named().map(drops))
                .collect(),
        }
    }
}

struct Change<'j, 'p> {
    before: Option<&'j Judge<'p>>,
    after: &'j Judge<'p>,
}

impl Change<'_, '_> {
    /// What a change does to a packet of a peer, if that is worse than before.
    fn harm(&self, peer: &Peer, local: IpAddr, probe: &Probe) -> Option<Lockout> {
        let (source, local) = (Address::from(peer.address), Address::from(local));
        if source.family != local.family {
            return None;
        }
        let is_v6 = local.family == Family::V6;
        let protocol = if probe.protocol == ICMP && is_v6 { ICMP_V6 } else { probe.protocol };
        let service = self.after.tables.service_at(local, protocol, probe.port)?;
        let to = self.after.judge(source, service)?;
        let is_harm = probe.counts == Counts::Limits || to.class.action == Action::Deny as u8;
        if !is_harm || !to.enforced || !can_refuse(to.class) {
            return None;
        }
        if let Some(before) = self.before {
            let service = before.tables.service_at(local, protocol, probe.port);
            let from = service.and_then(|service| before.judge(source, service));
            if !is_stricter(before, from, self.after, Some(to)) {
                return None;
            }
        }
        Some(self.lockout(peer, service, self.after.label(Some(to))))
    }

    /// What rules about fingerprints do to the next connection of a peer, if that is worse than before.
    fn harm_at_opening(&self, peer: &Peer, local: SocketAddr, openings: &Openings<'_>) -> Option<Lockout> {
        let (source, to) = (Address::from(peer.address), Address::from(local.ip()));
        let service = |judge: &Judge<'_>| judge.tables.service_at(to, TCP, Some(local.port()));
        let after = At { judge: self.after, service: service(self.after)? };
        let before = self.before.and_then(|judge| Some(At { judge, service: service(judge)? }));
        let would = openings.harm(peer.role, source, before, after)?;
        Some(self.lockout(peer, after.service, would))
    }

    fn lockout(&self, peer: &Peer, service: u16, would: String) -> Lockout {
        Lockout {
            who: peer.address.to_string(),
            role: peer.role.name().to_owned(),
            found: peer.found.clone(),
            service: self.after.tables.manifest.service_name(service).to_owned(),
            would,
        }
    }
}

/// Sources that the loaded policy always allows, and the new one drops or limits.
fn no_longer_allowed(before: &Judge<'_>, after: &Judge<'_>) -> Vec<Lockout> {
    let mut harms: HashMap<(u32, u32), Option<(String, String)>> = HashMap::new();
    let mut found: Vec<((String, String), Vec<Run>)> = Vec::new();
    for piece in pieces(before.tables, after.tables) {
        let rows = (piece.before.first_cell(), piece.after.first_cell());
        let harm = harms.entry(rows).or_insert_with(|| {
            is_always_allowed(before, rows.0).then(|| harm_in_row(after, rows.1)).flatten()
        });
        let Some(harm) = harm else { continue };
        let runs = match found.iter_mut().find(|(known, _)| known == harm) {
            Some((_, runs)) => runs,
            None => &mut found.push_mut((harm.clone(), Vec::new())).1,
        };
        runs.push(piece.run);
    }
    let lockout = |((service, would), runs): ((String, String), Vec<Run>)| Lockout {
        who: named(&runs),
        role: "always allowed so far".to_owned(),
        found: "defaults.allow of the policy that is loaded".to_owned(),
        service,
        would,
    };
    found.into_iter().map(lockout).collect()
}

fn is_always_allowed(judge: &Judge<'_>, first_cell: u32) -> bool {
    let row = detector_common::policy::RuleValue::new(first_cell, true);
    let mut services = judge.tables.manifest.services.values();
    services.any(|&service| {
        judge
            .class_in(row, service)
            .is_some_and(|class| class.action == Action::Allow as u8 && class.rule == NO_RULE)
    })
}

/// The first service where a row drops or limits, for some sources at least, and how.
fn harm_in_row(judge: &Judge<'_>, first_cell: u32) -> Option<(String, String)> {
    let row = detector_common::policy::RuleValue::new(first_cell, true);
    judge.tables.manifest.services.iter().find_map(|(name, &service)| {
        let class = judge.class_in(row, service)?;
        let is_harm = can_refuse(class) && class.enforced_percent > 0;
        is_harm.then(|| (name.clone(), judge.label(Some(Judged { class, enforced: true, incident: None }))))
    })
}

/// The first prefixes of some runs, and how many more there are.
fn named(runs: &[Run]) -> String {
    let mut prefixes = runs.iter().copied().flat_map(prefixes_of_run);
    let first: Vec<_> = prefixes.by_ref().take(PREFIXES_NAMED).map(|prefix| prefix.to_string()).collect();
    match prefixes.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
