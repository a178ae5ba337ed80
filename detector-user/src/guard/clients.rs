//! Whom rules about fingerprints are about: one that ordinary clients have too blocks them with the others, a whole browser
//! at worst.

use std::collections::{BTreeMap, HashMap};

use detector_common::{
    address::Address,
    fingerprint::{Kind, Name},
    policy::{Action, Class},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    kernel::{
        maps::Maps,
        names,
        read::{self, Client},
    },
    policy::{
        compile::{FingerprintRule, Tables},
        incident::{Incident, IncidentAction},
        patterns::{Names, Patterns},
    },
};

/// The largest share of a service's known-good sources that a rule about fingerprints may be about.
pub const MATCHING_MAX: f64 = 0.001;

/// A rule that too many known-good sources match: those that went on after a ClientHello over TCP at the service and of which nothing was
/// refused. For a rule about SYNs alone also those that send no ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unselective {
    /// The rule.
    pub rule: String,
    /// The service.
    pub service: String,
    /// Known-good sources of the service that have one of its fingerprints.
    pub matching: usize,
    /// All known-good sources of the service.
    pub known_good: usize,
}

impl Unselective {
    /// As a reason to refuse.
    pub(super) fn line(&self) -> String {
        let Self { rule, service, matching, known_good } = self;
        let percent = *matching as f64 / (*known_good).max(1) as f64 * 100.0;
        format!(
            "is about {matching} of {known_good} known-good sources of {service} by {rule}: {percent:.1} %, at most {:.1} % may be",
            MATCHING_MAX * 100.0
        )
    }
}

/// A rule that is asked.
pub(super) struct Asked<'a> {
    name: String,
    patterns: &'a Patterns,
    /// Number of the only service that it is about.
    service: Option<u16>,
}

/// The rules of a policy that stop clients, or slow them, which the one before did not, and that too many known-good sources match.
pub fn unselective(maps: &Maps, before: Option<&Tables>, after: &Tables) -> Vec<Unselective> {
    unselective_of(maps, &new_rules(maps, before, after), after)
}

fn new_rules<'a>(maps: &Maps, before: Option<&Tables>, after: &'a Tables) -> Vec<Asked<'a>> {
    let name = |tables: &Tables, rule: &FingerprintRule| {
        tables.manifest.rules.get(usize::from(rule.rule)).map(|rule| rule.name.clone())
    };
    let stops = |tables: &Tables, rule: &FingerprintRule| {
        let class = tables.classes.get(usize::from(rule.class));
        class.is_some_and(|class| class.action != Action::Allow as u8 && class.enforced_percent > 0)
    };
    let now = read::now(maps);
    let is_as_tight = |before: &Tables, known: &FingerprintRule, after: &Tables, rule: &FingerprintRule| {
        let classes =
            (before.classes.get(usize::from(known.class)), after.classes.get(usize::from(rule.class)));
        matches!(classes, (Some(was), Some(is)) if is_as_tight(was, is, now))
    };
    let service = |tables: &Tables, rule: &FingerprintRule| {
        rule.service.map(|number| tables.manifest.service_name(number).to_owned())
    };
    let is_known = |rule: &FingerprintRule| {
        before.is_some_and(|before| {
            before.manifest.fingerprint_rules.iter().any(|known| {
                known.patterns == rule.patterns
                    && service(before, known) == service(after, rule)
                    && is_as_tight(before, known, after, rule)
            })
        })
    };
    let asked = |rule: &'a FingerprintRule| Asked {
        name: format!("rule {}", name(after, rule).unwrap_or_default()),
        patterns: &rule.patterns,
        service: rule.service,
    };
    let rules = after.manifest.fingerprint_rules.iter();
    rules.filter(|rule| stops(after, rule) && !is_known(rule)).map(asked).collect()
}

/// Whether the class that a rule about fingerprints had stops as many clients as the one that it has, at a time in ticks.
pub(super) fn is_as_tight(was: &Class, is: &Class, now: u64) -> bool {
    let is_deny = |class: &Class| class.action == Action::Deny as u8;
    !was.has_ended(now)
        && was.enforced_percent >= is.enforced_percent
        && (is_deny(was) || !is_deny(is) && was.is_within(is) && was.is_shared >= is.is_shared)
}

/// An incident rule about fingerprints that stops clients, or slows them.
pub(super) fn incident_rule<'a>(incident: &'a Incident, tables: &Tables) -> Option<Asked<'a>> {
    let patterns = incident.matches.patterns()?;
    let service = incident.service.as_ref().map(|name| tables.manifest.services.get(name).copied());
    let is_nowhere = service == Some(None);
    (incident.action != IncidentAction::Allow && !is_nowhere).then(|| Asked {
        name: format!("`{}`", patterns.targets().join(" ")),
        patterns,
        service: service.flatten(),
    })
}

/// Those rules that too many known-good sources match.
pub(super) fn unselective_of(maps: &Maps, rules: &[Asked<'_>], tables: &Tables) -> Vec<Unselective> {
    if rules.is_empty() {
        return Vec::new();
    }
    let names: HashMap<(u8, u64), Name> =
        names::all(maps).map(|name| ((name.kind, name.key), name)).collect();
    let mut known_good: BTreeMap<u16, BTreeMap<Source, Vec<Client>>> = BTreeMap::new();
    // Over TCP: a datagram is made up more easily than a connection.
    let over_tcp = read::clients(maps).filter(|client| client.counts.syn_key != 0);
    for client in over_tcp.filter(|client| is_good(maps, client)) {
        let of_service = known_good.entry(client.service).or_default();
        of_service.entry((client.source.high, client.unit)).or_default().push(client);
    }
    let mut found = Vec::new();
    for rule in rules {
        for (name, &service) in &tables.manifest.services {
            let Some(sources) = known_good.get(&service) else { continue };
            if rule.service.is_some_and(|only| only != service) {
                continue;
            }
            let (mut all, mut matching) = (0, 0);
            for clients in sources.values() {
                let mut asked = clients.iter().filter(|client| may_tell(rule, client)).peekable();
                all += usize::from(asked.peek().is_some());
                matching += usize::from(asked.any(|client| is_about(rule, client, &names)));
            }
            if matching as f64 > all as f64 * MATCHING_MAX {
                let (rule, service) = (rule.name.clone(), name.clone());
                found.push(Unselective { rule, service, matching, known_good: all });
            }
        }
    }
    found
}

/// The high half of its address, and what it is.
type Source = (u64, detector_common::table::Unit);

/// Whether nothing was refused of the source of a client since it has its entry.
fn is_good(maps: &Maps, client: &Client) -> bool {
    let address = Address { low: 0, ..client.source };
    read::source(maps, address, client.service).is_none_or(|way| way.refused() == 0)
}

/// Whether a client tells whom a rule hits: it went on after a ClientHello; of SYNs alone also those that send none tell. What the server says
/// does not pass here, so a ClientHello behind a SYN may be made up under any address.
fn may_tell(rule: &Asked<'_>, client: &Client) -> bool {
    let has_finished = client.counts.finish_delay.iter().any(|&count| count > 0);
    has_finished || rule.patterns.ja4.is_empty() && client.counts.tls_key == 0
}

fn is_about(rule: &Asked<'_>, client: &Client, names: &HashMap<(u8, u64), Name>) -> bool {
    let name = |kind: Kind, key: u64| names.get(&(kind as u8, key)).map(Names::from).unwrap_or_default();
    let (tls, syn) = (name(Kind::Tls, client.counts.tls_key), name(Kind::Syn, client.counts.syn_key));
    rule.patterns.matches(&Names { syn: syn.syn, ..tls })
}
