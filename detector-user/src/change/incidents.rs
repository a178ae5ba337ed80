//! Changes of the incident rules in the kernel: the one way for commands and the API. Each is recorded in the history, and
//! what is in force is kept for a start with empty maps.

use std::time::Duration;

use detector_common::address::Address;
use ipnet::IpNet;
use serde_json::json;

use super::{Unrecorded, clocks, note_ends};
use crate::{
    clock,
    commands::{
        Failure,
        incident::Answer,
        rules::{IncidentRule, of_incident},
    },
    guard::{Guard, Refusal, Stop, with_lock},
    history::{Author, Entry, History, Origin},
    kernel::{
        incidents::change,
        maps::Maps,
        pins::Pins,
        read::{self, Active, ReadError},
    },
    policy::{
        Matches, SOURCE_BITS_V6,
        incident::{Incident, IncidentAction, is_broad},
        target,
    },
    traffic::Look,
};

/// A rule to be added.
#[derive(Debug, Clone)]
pub struct Request {
    /// What happens.
    pub action: IncidentAction,
    /// To whom.
    pub matches: Matches,
    /// Only at this service.
    pub service: Option<String>,
    /// For how long; `None`: until it is undone.
    pub time: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Add also what is refused without it.
    pub force: bool,
    /// Who looks at what it would do, unless it is forced.
    pub guard: Guard,
}

/// Where and as whose a change is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where.
    pub history: &'a History,
    /// By whom.
    pub author: &'a Author,
    /// By which way.
    pub origin: Origin,
}

impl Record<'_> {
    /// Makes a change that nobody else makes meanwhile, and records it; also when it is refused.
    fn change(
        &self,
        pins: &Pins,
        maps: &mut Maps,
        asked: &Asked<'_>,
        work: impl Fn(&mut Maps, Option<&Look>) -> Result<Answer, Stop>,
    ) -> Result<Answer, Failure> {
        with_lock(maps, pins, |maps, look| {
            let mut unrecorded = Unrecorded::default();
            unrecorded.note(note_ends(maps, self.history)?);
            let mut result = Stop::settled(work(maps, look))?;
            if let Ok(answer) = &mut result
                && let Err(why) = self.keep(maps, asked.gone)
            {
                answer.warnings.push(format!("{}, since that cannot be kept: {why}", asked.if_not_kept));
            }
            let Asked { action, target, reason, .. } = asked;
            let entry = Entry::new(clock::unix_s(), self.author, self.origin, action, target);
            let rules = |answer: &Answer| match asked.gone {
                [] => json!(answer.added),
                _ => json!(answer.undone),
            };
            let after =
                result.as_ref().ok().map(|answer| json!({ "epoch": answer.epoch, "rules": rules(answer) }));
            let refusal = result.as_ref().err().map(|failure| failure.message.as_str());
            unrecorded.note(self.history.record(&Entry { after, reason: *reason, refusal, ..entry }));
            let (answer, unrecorded) = unrecorded.told(result)?;
            Ok(Answer { unrecorded, ..answer })
        })
    }

    /// Keeps the rules that are in force, for a start with empty maps.
    fn keep(&self, maps: &Maps, gone: &[u64]) -> Result<(), String> {
        let in_force = read::incidents(maps).map_err(|error| error.to_string())?;
        self.history.keep_incidents(&in_force, gone, clock::unix_s()).map_err(|error| error.to_string())
    }
}

/// A change as it is recorded.
struct Asked<'a> {
    action: &'a str,
    target: String,
    reason: Option<&'a str>,
    /// Rules that go by it.
    gone: &'a [u64],
    /// What happens where that cannot be kept.
    if_not_kept: &'a str,
}

/// Adds a rule, and records that; also when it is refused.
///
/// # Errors
///
/// It is refused (see [`Request::force`]), there is no such service or no policy, or the kernel refuses.
pub fn add(maps: &mut Maps, pins: &Pins, record: &Record<'_>, request: &Request) -> Result<Answer, Failure> {
    let asked = Asked {
        action: request.action.name(),
        target: targets_text(&request.matches),
        reason: Some(&request.reason),
        gone: &[],
        if_not_kept: "it ends when the program is loaded anew",
    };
    record.change(pins, maps, &asked, |maps, look| add_now(maps, request, &record.author.name, look))
}

fn add_now(maps: &mut Maps, request: &Request, by: &str, look: Option<&Look>) -> Result<Answer, Stop> {
    let count = request.matches.count();
    if count == 0 || count > TARGETS_MAX {
        return Err(Failure::invalid(format_args!(
            "{count} targets: expected 1 to {TARGETS_MAX} addresses or prefixes"
        ))
        .into());
    }
    target::check_action(&request.action, &request.matches).map_err(Failure::invalid)?;
    let mut warnings = check(maps, request)?;
    let clocks = clocks(maps);
    let incident = Incident {
        id: 0,
        action: request.action.clone(),
        matches: request.matches.clone(),
        service: request.service.clone(),
        until_s: request.time.map(|time| clock::unix_s().saturating_add(time.as_secs())),
        reason: request.reason.clone(),
        by: by.to_owned(),
        at_s: clock::unix_s(),
        counter: 0,
    };
    if !request.force {
        let refusal = request.guard.check_incidents(maps, Some(&incident), &[], look)?;
        let is_about_fingerprints = request.matches.patterns().is_some();
        let help = if is_about_fingerprints && !refusal.lockouts.is_empty() {
            "let them in first with `detector allow`, name another --service, or, if it is meant, add --force"
        } else {
            MEANT
        };
        refuse(refusal, "not added: the rule", help)?;
    }
    let changed = change(maps, clocks, vec![incident], |_| false)?;
    let added: Vec<_> = changed.added.iter().map(IncidentRule::fresh).collect();
    warnings.extend(without_effect(maps, &changed.added));
    Ok(Answer { epoch: changed.epoch, added, undone: Vec::new(), warnings, unrecorded: None })
}

/// Targets of one rule: those of a fleet of the largest size.
pub const TARGETS_MAX: usize = 100_000;

/// Targets that are asked whether a new rule decides about them.
const TARGETS_ASKED: usize = 20;

/// New rules that do not decide about their targets, by the first address of each.
fn without_effect(maps: &Maps, added: &[Incident]) -> Vec<String> {
    let told = read::consistently(maps, |active| -> Result<_, ReadError> {
        let rules = active.rules()?;
        let mut told = Vec::new();
        for incident in added {
            for &target in incident.matches.sources().iter().take(TARGETS_ASKED) {
                let is_meant =
                    |name: &&String| incident.service.as_ref().is_none_or(|service| service == *name);
                for (name, &number) in rules.manifest.services.iter().filter(|(name, _)| is_meant(name)) {
                    let Some(standing) = active.classify(Address::from(target.addr()), number)? else {
                        continue;
                    };
                    let by = rules.of_class(standing.class_number.into(), &standing.class);
                    let own = format!("incident {}", incident.id);
                    let by = by.map_or("the profile or defaults.allow".to_owned(), |rule| rule.name());
                    if by != own {
                        told.push(format!(
                            "{target} at {name}: {by} decides, which comes first or is tighter"
                        ));
                    }
                }
            }
        }
        Ok(told)
    });
    told.unwrap_or_else(|error| vec![format!("whether it has an effect cannot be told: {error}")])
}

/// What to do where nothing else helps.
const MEANT: &str = "if it is meant, add --force";

/// Refuses what a guard found.
fn refuse(refusal: Refusal, what: &str, help: &str) -> Result<(), Failure> {
    let reasons = refusal.reasons();
    if reasons.is_empty() {
        return Ok(());
    }
    let reasons = reasons.join("\n  ");
    Err(Failure::invalid(format_args!("{what}\n  {reasons}\n{help}")))
}

/// The first of some targets, and how many more there are.
pub fn targets_text(matches: &Matches) -> String {
    let first = matches.targets(1).concat();
    match matches.count() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

/// Takes rules back by their numbers, all of them or none, and records that. Without a guard whatever that does.
///
/// # Errors
///
/// One of them is no incident rule's, or the kernel refuses.
pub fn remove(
    maps: &mut Maps,
    pins: &Pins,
    record: &Record<'_>,
    ids: &[u64],
    reason: Option<&str>,
    guard: Option<&Guard>,
) -> Result<Answer, Failure> {
    let target: Vec<_> = ids.iter().map(|id| format!("incident {id}")).collect();
    let asked = Asked {
        action: "undo",
        target: target.join(", "),
        reason,
        gone: ids,
        if_not_kept: "it may come back when the program is loaded anew",
    };
    record.change(pins, maps, &asked, |maps, look| remove_now(maps, ids, guard, look))
}

fn remove_now(
    maps: &mut Maps,
    ids: &[u64],
    guard: Option<&Guard>,
    look: Option<&Look>,
) -> Result<Answer, Stop> {
    let present = read::incidents(maps)?;
    let has = |id: &u64| present.rules.iter().any(|incident| incident.id == *id);
    if let Some(unknown) = ids.iter().find(|id| !has(id)) {
        let known: Vec<_> = present.rules.iter().map(|incident| incident.id.to_string()).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        return Err(Failure::invalid(format_args!(
            "no incident rule has the number {unknown}: {known}; `detector rules` lists them, without those that ended"
        ))
        .into());
    }
    if let Some(guard) = guard {
        let refusal = guard.check_incidents(maps, None, ids, look)?;
        refuse(refusal, "not undone: without the rules the policy", MEANT)?;
    }
    // Counters are told as they were before the rules went.
    let undone = present.rules.iter().filter(|incident| ids.contains(&incident.id));
    let undone = undone.map(|incident| of_incident(maps, incident)).collect::<Result<Vec<_>, _>>()?;
    let changed = change(maps, clocks(maps), Vec::new(), |incident| ids.contains(&incident.id))?;
    let (added, warnings) = (Vec::new(), Vec::new());
    Ok(Answer { epoch: changed.epoch, added, undone, warnings, unrecorded: None })
}

/// Refuses what is likely to hurt nearly everyone or has no effect, unless it is forced; then, or where it has some effect,
/// it is a warning.
fn check(maps: &Maps, request: &Request) -> Result<Vec<String>, Failure> {
    let targets = request.matches.sources();
    let mut refused = Vec::new();
    refused.extend(
        targets
            .iter()
            .copied()
            .filter(|&target| is_broad(target))
            .map(|target| format!("{target} is about nearly everyone (shorter than /8, in IPv6 than /19)")),
    );
    let is_throttle = matches!(request.action, IncidentAction::Throttle(_));
    let is_part = |target: &&IpNet| target.addr().is_ipv6() && target.prefix_len() > SOURCE_BITS_V6;
    if let Some(part) = targets.iter().find(is_part).filter(|_| is_throttle) {
        let source = Address::from(part.addr()).prefix(SOURCE_BITS_V6).to_ip();
        return Err(Failure::invalid(format_args!(
            "{part} is a part of one source, {source}/{SOURCE_BITS_V6}, which has one budget: throttle that, or block the part"
        )));
    }
    let (mut warnings, mut allowed) = (Vec::new(), Vec::new());
    read::consistently(maps, |active| -> Result<_, Failure> {
        (warnings, allowed) = (Vec::new(), Vec::new());
        let manifest = active.manifest()?.unwrap_or_default();
        if let Some(name) = &request.service
            && !manifest.services.contains_key(name)
        {
            let known: Vec<_> = manifest.services.keys().map(String::as_str).collect();
            return Err(Failure::invalid(format_args!(
                "the policy has no service {name:?}: it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        if manifest.services.is_empty() {
            warnings.push("the policy has no service, so every packet passes".to_owned());
        }
        let services: Vec<_> = manifest.services.values().copied().collect();
        for &target in targets {
            if is_always_allowed(active, target, &services)? {
                allowed
                    .push(format!("{target} is in defaults.allow, which comes before every rule: it passes"));
            }
        }
        Ok(())
    })?;
    let is_all = !targets.is_empty() && allowed.len() == targets.len();
    if request.action != IncidentAction::Allow && is_all {
        refused.append(&mut allowed);
    }
    warnings.append(&mut allowed);
    warnings.extend(target::without_effect(&request.matches));
    if !refused.is_empty() && !request.force {
        return Err(Failure::invalid(format_args!(
            "{}\nnot added: if it is meant, add --force",
            refused.join("\n")
        )));
    }
    refused.extend(warnings);
    Ok(refused)
}

/// Whether the first and the last address of a target pass by `defaults.allow`, and with them most likely all of it.
fn is_always_allowed(active: &Active<'_>, target: IpNet, services: &[u16]) -> Result<bool, Failure> {
    let Some(&service) = services.first() else { return Ok(false) };
    for address in [target.network(), target.broadcast()] {
        let standing = active.classify(Address::from(address), service)?;
        if !standing.is_some_and(|standing| standing.class.is_always_allowed()) {
            return Ok(false);
        }
    }
    Ok(true)
}
