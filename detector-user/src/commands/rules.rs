//! `detector rules`: what each rule does, refused so far, and when it ends; from the pinned maps alone.

use std::fmt;

use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, duration, mode_name, print_json, print_line, table, version_name};
use crate::{
    cli::ReadArgs,
    clock,
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
    policy::{
        Matches,
        compile::Manifest,
        incident::{Incident, Incidents},
        patterns::Patterns,
    },
};

/// What `rules` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rules)]
pub struct Answer {
    /// The version of the active policy; 0: it could not be recorded.
    pub version: u64,
    /// Its epoch; 0: there is none.
    pub epoch: u32,
    /// Incident rules, which come before those of the policy.
    pub incidents: Vec<IncidentRule>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// A rule that a responder added by hand.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentRule {
    /// Its number, for `undo`.
    pub id: u64,
    /// `allow`, `block`, or `throttle` with its rates.
    pub action: String,
    /// The first of its targets: addresses, prefixes, or patterns of fingerprints as `throttle` takes them.
    pub targets: Vec<String>,
    /// How many there are.
    pub target_count: usize,
    /// The service it is about; none: every service.
    pub service: Option<String>,
    /// Why it has no effect; none: it has one.
    pub note: Option<String>,
    /// Packets dropped since it came.
    pub dropped: u64,
    /// When it ends, seconds since the Unix epoch; none: when it is undone.
    pub until_s: Option<u64>,
    /// Seconds until then; 0: it has ended.
    pub ends_in_s: Option<u64>,
    /// Who added it.
    pub by: String,
    /// When, seconds since the Unix epoch.
    pub at_s: u64,
    /// Why.
    pub reason: String,
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// `allow`, `drop`, `limit NAME`, or `limit NAME shared`.
    pub action: String,
    /// The fingerprints that it is about; none: it is about sources.
    pub fingerprints: Option<Patterns>,
    /// `enforce`, `shadow`, or `enforce N %`.
    pub mode: String,
    /// Packets dropped since the rule came.
    pub dropped: u64,
    /// Packets that would have been, had the mode been `enforce` for their source.
    pub would_drop: u64,
    /// When it ends, seconds since the Unix epoch.
    pub until_s: Option<u64>,
    /// Seconds until then; 0: it has ended.
    pub ends_in_s: Option<u64>,
    /// What the policy says of it.
    pub reason: Option<String>,
}

/// Lists the rules.
pub fn rules(args: &ReadArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.pins).loaded()?, Access::Read)?;
    let answer = answer(&maps)?;
    if args.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

/// The rules of the active policy.
///
/// # Errors
///
/// The maps cannot be read.
pub fn answer(maps: &Maps) -> Result<Answer, Failure> {
    read::consistently(maps, |active| {
        let manifest = active.manifest()?.unwrap_or_default();
        let rules = (0..manifest.rules.len()).map(|number| of_policy(maps, &manifest, number));
        let incidents = active.incidents()?;
        let incidents = incidents.rules.iter().map(|incident| beside(maps, &manifest, incident));
        Ok(Answer {
            version: manifest.version,
            epoch: active.policy_epoch(),
            incidents: incidents.collect::<Result<_, _>>()?,
            rules: rules.collect::<Result<_, _>>()?,
        })
    })
}

/// An incident rule about a service that a policy does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IdleIncident {
    /// The rule's number.
    pub id: u64,
    /// The service.
    pub service: String,
}

impl IdleIncident {
    fn of(incident: &Incident, has_service: impl Fn(&str) -> bool) -> Option<Self> {
        let service = incident.service.as_ref().filter(|service| !has_service(service))?;
        Some(Self { id: incident.id, service: service.clone() })
    }

    /// What `rules` says of it.
    fn note(&self) -> String {
        format!("service {} is not in the policy: has no effect", self.service)
    }
}

impl fmt::Display for IdleIncident {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, .. } = self;
        write!(formatter, "incident rule {id}: {}; `detector undo {id}` takes it back", self.note())
    }
}

/// The rules that have no effect beside a policy with these services, and have not ended.
pub fn idle_incidents(incidents: &Incidents, has_service: impl Fn(&str) -> bool) -> Vec<IdleIncident> {
    let now_s = clock::unix_s();
    let waiting = incidents.rules.iter().filter(|incident| !incident.has_ended(now_s));
    waiting.filter_map(|incident| IdleIncident::of(incident, &has_service)).collect()
}

/// Targets of an incident rule that are listed.
const TARGETS_SHOWN: usize = 100;

/// An incident rule with what it refused so far.
///
/// # Errors
///
/// The maps cannot be read.
pub fn of_incident(maps: &Maps, incident: &Incident) -> Result<IncidentRule, Failure> {
    Ok(IncidentRule::new(incident, read::rule_drops(maps, incident.counter)?.dropped))
}

/// The same, with a note where it has no effect beside a policy.
///
/// # Errors
///
/// The maps cannot be read.
pub fn beside(maps: &Maps, manifest: &Manifest, incident: &Incident) -> Result<IncidentRule, Failure> {
    let idle = IdleIncident::of(incident, |name| manifest.services.contains_key(name));
    Ok(IncidentRule { note: idle.map(|idle| idle.note()), ..of_incident(maps, incident)? })
}

impl IncidentRule {
    /// A rule that has just been added: it refused nothing yet.
    pub fn fresh(incident: &Incident) -> Self {
        Self::new(incident, 0)
    }

    fn new(incident: &Incident, dropped: u64) -> Self {
        Self {
            id: incident.id,
            action: incident.action.to_string(),
            targets: match &incident.matches {
                Matches::Sources(sources) => sources.iter().take(TARGETS_SHOWN).map(target_text).collect(),
                Matches::Fingerprints(_) => incident.matches.targets(TARGETS_SHOWN),
            },
            target_count: incident.matches.count(),
            service: incident.service.clone(),
            note: None,
            dropped,
            until_s: incident.until_s,
            ends_in_s: incident.until_s.map(|until_s| until_s.saturating_sub(clock::unix_s())),
            by: incident.by.clone(),
            at_s: incident.at_s,
            reason: incident.reason.clone(),
        }
    }
}

/// A single address without its length.
fn target_text(target: &IpNet) -> String {
    if target.prefix_len() == target.max_prefix_len() {
        target.addr().to_string()
    } else {
        target.to_string()
    }
}

/// A rule of the policy, by its number, with what it refused so far.
///
/// # Errors
///
/// The maps cannot be read.
pub fn of_policy(maps: &Maps, manifest: &Manifest, number: usize) -> Result<Rule, Failure> {
    let rule = &manifest.rules[number];
    let drops = read::rule_drops(maps, rule.counter)?;
    Ok(Rule {
        name: rule.name.clone(),
        action: rule.action.clone(),
        fingerprints: manifest.patterns_of(number).cloned(),
        mode: mode_name(rule.enforced_percent.unwrap_or(manifest.enforced_percent)),
        dropped: drops.dropped,
        would_drop: drops.shadowed,
        until_s: rule.until_s,
        ends_in_s: rule.until_s.map(|until_s| until_s.saturating_sub(clock::unix_s())),
        reason: rule.reason.clone(),
    })
}

fn text(answer: &Answer) -> String {
    let incidents = incident_table(&answer.incidents);
    let policy = version_name(answer.version, answer.epoch);
    let of_policy = if answer.rules.is_empty() {
        format!("{policy} has no rules")
    } else {
        format!("{policy}\n\n{}", rule_table(&answer.rules))
    };
    if answer.incidents.is_empty() {
        return of_policy;
    }
    let note = |rule: &IncidentRule| Some(format!("\nincident rule {}: {}", rule.id, rule.note.as_ref()?));
    let notes: String = answer.incidents.iter().filter_map(note).collect();
    let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
    format!("incident rules\n\n{incidents}{notes}\n\n{of_policy}")
}

/// When a rule ends, for people.
pub fn ends(ends_in_s: Option<u64>) -> String {
    match ends_in_s {
        None => "-".to_owned(),
        Some(0) => "ended".to_owned(),
        Some(left_s) => format!("in {}", duration(left_s)),
    }
}

/// Incident rules for people.
pub fn incident_table(incidents: &[IncidentRule]) -> String {
    let rows = incidents.iter().map(|incident| {
        let more = match incident.target_count {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        vec![
            incident.id.to_string(),
            incident.action.clone(),
            incident.targets.first().cloned().unwrap_or_default() + &more,
            incident.service.clone().unwrap_or_else(|| "every".to_owned()),
            incident.dropped.to_string(),
            ends(incident.ends_in_s),
            incident.by.clone(),
            incident.reason.clone(),
        ]
    });
    table(&["ID", "ACTION", "TARGET", "SERVICE", "DROPPED", "ENDS", "BY", "REASON"], &[0, 4], rows)
}

/// Whom a rule is about, for people.
pub fn clients(rule: &Rule) -> String {
    let Some(patterns) = &rule.fingerprints else { return "sources".to_owned() };
    let targets = patterns.targets();
    let more = match targets.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    targets.first().cloned().unwrap_or_default() + &more
}

fn rule_table(rules: &[Rule]) -> String {
    let rows = rules.iter().map(|rule| {
        vec![
            rule.name.clone(),
            clients(rule),
            rule.action.clone(),
            rule.mode.clone(),
            rule.dropped.to_string(),
            rule.would_drop.to_string(),
            ends(rule.ends_in_s),
            rule.reason.clone().unwrap_or_default(),
        ]
    });
    let header = ["RULE", "CLIENTS", "ACTION", "MODE", "DROPPED", "WOULD DROP", "ENDS", "REASON"];
    table(&header, &[4, 5], rows)
}
