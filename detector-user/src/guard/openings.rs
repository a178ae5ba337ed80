//! Whom rules about fingerprints keep from coming back: they act where a connection begins, at every port of their service, so
//! also at that of SSH or the API. A connection that stands goes on; the next one is refused.

use std::collections::HashMap;

use detector_common::{
    address::Address,
    fingerprint::{Kind, Name},
    limits::CLASSES_MAX,
    policy::{Action, Class},
    table::Unit,
};

use super::{clients::is_as_tight, host::Role};
use crate::{
    kernel::{
        maps::Maps,
        names,
        read::{self, can_refuse},
    },
    policy::{
        compile::{FingerprintRule, Judge},
        patterns::{Moment, Names, Patterns},
    },
};

/// How a source has begun connections to a service, and what its fingerprints are called, as far as that is known.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Key of the SYN; 0: unknown.
    pub syn_key: u64,
    /// Its name.
    pub syn: Option<Name>,
    /// Key of the ClientHello; 0: unknown, or there was none.
    pub tls_key: u64,
    /// Its name.
    pub tls: Option<Name>,
}

impl Opening {
    /// One of which nothing is known.
    const UNKNOWN: Self = Self { syn_key: 0, syn: None, tls_key: 0, tls: None };

    /// Those of a source at services, by their numbers: one for each of its clients that the program counts.
    pub fn of(maps: &Maps, source: Address, services: &[u16]) -> Vec<Self> {
        let unit = Unit::of_source(source.family);
        let own = read::clients(maps).filter(|client| {
            client.source.high == source.high && client.unit == unit && services.contains(&client.service)
        });
        let keys: Vec<_> = own.map(|client| (client.counts.syn_key, client.counts.tls_key)).collect();
        if keys.is_empty() {
            return Vec::new();
        }
        let names: HashMap<_, _> = names::all(maps).map(|name| ((name.kind, name.key), name)).collect();
        let name = |kind: Kind, key: u64| names.get(&(kind as u8, key)).copied();
        let opening = |(syn_key, tls_key)| Self {
            syn_key,
            syn: name(Kind::Syn, syn_key),
            tls_key,
            tls: name(Kind::Tls, tls_key),
        };
        keys.into_iter().map(opening).collect()
    }

    /// Whether patterns are of it; `None`: that is not known.
    fn is_of(&self, patterns: &Patterns) -> Option<bool> {
        let by_syn = self.syn.as_ref().map(|name| patterns.names_syn(&Names::from(name)));
        // Of a key that several clients have no rule acts.
        let by_ja4 = self.tls.as_ref();
        let by_ja4 = by_ja4.map(|name| name.conflicts == 0 && patterns.names_ja4(&Names::from(name)));
        let asked = [(patterns.syn.is_empty(), by_syn), (patterns.ja4.is_empty(), by_ja4)];
        let asked = asked.map(|(is_any, by)| if is_any { Some(true) } else { by });
        match asked {
            [Some(false), _] | [_, Some(false)] => Some(false),
            [Some(true), Some(true)] => Some(true),
            _ => None,
        }
    }
}

/// What gives those of a source at services.
type OfSource<'a> = dyn Fn(Address, &[u16]) -> Vec<Opening> + 'a;

/// What is known of how peers open connections.
pub struct Openings<'a> {
    /// Those of a source at services, by their numbers.
    of: Box<OfSource<'a>>,
    /// Whether what is not known may be of every pattern.
    doubts: bool,
}

impl<'a> Openings<'a> {
    /// What the program counts.
    pub fn counted(maps: &'a Maps) -> Self {
        Self::new(|source, services| Opening::of(maps, source, services))
    }

    /// What a function knows of a source at services, by their numbers.
    pub(super) fn new(of: impl Fn(Address, &[u16]) -> Vec<Opening> + 'a) -> Self {
        Self { of: Box::new(of), doubts: true }
    }

    /// The same, and what is not known is of no pattern.
    pub fn without_doubts(self) -> Self {
        Self { doubts: false, ..self }
    }
}

/// Where a policy may act on a peer's next connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'j, 'p> {
    /// The policy.
    pub(super) judge: &'j Judge<'p>,
    /// Number of the service in that policy.
    pub(super) service: u16,
}

/// A rule that decides about an opening, or may.
struct Decider<'a> {
    patterns: &'a Patterns,
    service: Option<&'a str>,
    class: &'a Class,
    /// The number of the incident rule that it is, if it is one; 0: it is new.
    incident: Option<u64>,
    /// Whether it is known to decide.
    is_certain: bool,
}

impl Openings<'_> {
    /// What the rules of a policy do to the next connection of a peer, if the one before did not do so.
    pub(super) fn harm(
        &self,
        role: Role,
        source: Address,
        before: Option<At<'_, '_>>,
        after: At<'_, '_>,
    ) -> Option<String> {
        let moments = match role {
            Role::Ssh { .. } => &[Moment::Syn][..],
            // Over the network it is asked over TLS only.
            Role::ApiClient { .. } => &[Moment::Syn, Moment::ClientHello],
            Role::Gateway | Role::Resolver => &[],
        };
        if moments.is_empty() || !after.has_rules(source) {
            return None;
        }
        let mut services = vec![after.service];
        services.extend(before.map(|before| before.service).filter(|&number| number != after.service));
        let openings = (self.of)(source, &services);
        moments.iter().find_map(|&moment| {
            let mut known: Vec<_> = openings.iter().filter(|opening| key(opening, moment) != 0).collect();
            if known.is_empty() && self.doubts {
                known.push(&Opening::UNKNOWN);
            }
            known.into_iter().find_map(|opening| self.harm_at(moment, source, opening, before, after))
        })
    }

    fn harm_at(
        &self,
        moment: Moment,
        source: Address,
        opening: &Opening,
        before: Option<At<'_, '_>>,
        after: At<'_, '_>,
    ) -> Option<String> {
        let was = before.map(|before| before.deciders(moment, source, opening)).unwrap_or_default();
        let is_harm = |decider: &&Decider<'_>| {
            let Decider { class, is_certain, .. } = **decider;
            // A limit that may be about a ClientHello is less than a refusal is worth; one at the SYN slows all that follows.
            let may_be_meant = self.doubts && (moment == Moment::Syn || class.action == Action::Deny as u8);
            let is_known = |was: &Decider<'_>| {
                let is_same = was.patterns == decider.patterns && was.service == decider.service;
                (was.is_certain || is_same) && is_as_tight(was.class, class, after.judge.now())
            };
            (is_certain || may_be_meant)
                && can_refuse(class)
                && after.judge.is_enforced(class, source, after.service)
                && !was.iter().any(is_known)
        };
        let deciders = after.deciders(moment, source, opening);
        deciders.iter().find(is_harm).map(|decider| after.told(decider, moment))
    }
}

/// The key by which rules of a moment know an opening.
const fn key(opening: &Opening, moment: Moment) -> u64 {
    match moment {
        Moment::Syn => opening.syn_key,
        Moment::ClientHello => opening.tls_key,
    }
}

impl<'p> At<'_, 'p> {
    /// Its rules that may act on a source, as the program asks them: those of incidents, then the policy's own.
    fn rules(&self, source: Address) -> [&'p [FingerprintRule]; 2] {
        let Some(judged) = self.judge.judge(source, self.service) else { return [&[], &[]] };
        let is_allowed = judged.class.action == Action::Allow as u8;
        if judged.class.is_always_allowed() || is_allowed && judged.incident.is_some() {
            return [&[], &[]];
        }
        let tables = self.judge.tables;
        let of_incidents = tables.beside.as_ref().map(|beside| &*beside.tables.fingerprint_rules);
        let of_policy = if is_allowed { &[] } else { &*tables.manifest.fingerprint_rules };
        [of_incidents.unwrap_or_default(), of_policy]
    }

    fn has_rules(&self, source: Address) -> bool {
        self.rules(source).iter().any(|rules| !rules.is_empty())
    }

    /// The rules that decide about an opening at a moment, or may: the first that is known to, and those before it of which
    /// it is not known.
    fn deciders(&self, moment: Moment, source: Address, opening: &Opening) -> Vec<Decider<'p>> {
        let mut deciders = Vec::new();
        'policies: for rules in self.rules(source) {
            for rule in rules.iter().filter(|rule| rule.is_about(self.service)) {
                let Some((class, incident)) = self.class(rule) else { continue };
                if class.has_ended(self.judge.now()) || moment == Moment::Syn && !rule.patterns.ja4.is_empty()
                {
                    continue;
                }
                let is_certain = match opening.is_of(&rule.patterns) {
                    Some(false) => continue,
                    is_of => is_of.is_some(),
                };
                // What such a rule refuses was decided at the SYN: here it only says whether the handshake is allowed.
                let is_decided = moment == Moment::ClientHello
                    && rule.patterns.ja4.is_empty()
                    && class.action != Action::Allow as u8;
                if is_decided {
                    if is_certain {
                        continue 'policies;
                    }
                    continue;
                }
                let tables = self.judge.tables;
                let service = rule.service.map(|number| tables.manifest.service_name(number));
                deciders.push(Decider { patterns: &rule.patterns, service, class, incident, is_certain });
                if is_certain {
                    break 'policies;
                }
            }
        }
        deciders
    }

    /// The class of a rule, and the number of the incident rule that it is, if it is one.
    fn class(&self, rule: &FingerprintRule) -> Option<(&'p Class, Option<u64>)> {
        let (tables, number) = (self.judge.tables, usize::from(rule.class));
        let Some(of_incident) = number.checked_sub(CLASSES_MAX) else {
            return Some((tables.classes.get(number)?, None));
        };
        let beside = tables.beside.as_ref()?;
        let class = beside.tables.classes.get(of_incident)?;
        Some((class, Some(beside.id_of(class)?)))
    }

    /// What a rule does, for people.
    fn told(&self, decider: &Decider<'_>, moment: Moment) -> String {
        let Decider { class, incident, is_certain, .. } = *decider;
        let tables = self.judge.tables;
        let does = match tables.profile_of(class) {
            _ if class.action == Action::Deny as u8 => "drop".to_owned(),
            Some(profile) => format!("limit {profile}"),
            None => "limit".to_owned(),
        };
        let by = match incident {
            Some(0) => format!("the rule on {}", decider.patterns),
            Some(id) => format!("incident {id}"),
            None => tables.rule_of(class).map(|rule| rule.name.clone()).unwrap_or_default(),
        };
        let what = match moment {
            Moment::Syn => "SYN",
            Moment::ClientHello => "ClientHello",
        };
        let why = if is_certain {
            format!("its {what} matches")
        } else {
            format!("its {what} is not known there and may match")
        };
        format!("{does} by {by} ({why})")
    }
}

#[cfg(test)]
#[path = "openings_tests.rs"]
mod tests;
