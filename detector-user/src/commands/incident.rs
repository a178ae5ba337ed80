//! `detector throttle`, `block`, `allow` and `undo`: a responder's rules, at once, with or without a daemon.

use std::{path::Path, time::Duration};

use detector_common::address::Address;
use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    EXIT_DONE, Failure,
    apply::clocks,
    print_json, print_line, read_text,
    rules::{IncidentRule, incident_table, of_incident},
};
use crate::{
    cli::{IncidentArgs, ThrottleArgs, UndoArgs},
    clock,
    kernel::{
        incidents::change,
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read::{self, Active},
    },
    policy::{
        Budgets,
        incident::{
            self, Incident, IncidentAction, is_broad, throttle_of_bytes, throttle_of_connections,
            throttle_of_packets,
        },
    },
};

/// What `throttle`, `block`, `allow` and `undo` answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IncidentChange)]
pub struct Answer {
    /// The kernel's generation from now on.
    pub epoch: u32,
    /// The rule that came.
    pub added: Vec<IncidentRule>,
    /// Rules that were undone.
    pub undone: Vec<IncidentRule>,
    /// What is not as it seems.
    pub warnings: Vec<String>,
}

/// A rule to be added.
#[derive(Debug, Clone)]
pub struct Request {
    /// What happens.
    pub action: IncidentAction,
    /// To whom, at least one.
    pub targets: Vec<IpNet>,
    /// Only at this service.
    pub service: Option<String>,
    /// For how long; `None`: until it is undone.
    pub time: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Who adds it.
    pub by: String,
    /// Add also what is refused without it.
    pub force: bool,
}

/// Throttles targets.
pub fn throttle(args: &ThrottleArgs) -> Result<u8, Failure> {
    let option = |name, text: &Option<String>, read: &dyn Fn(&str) -> Result<_, String>| {
        let read = |text: &str| {
            read(text)
                .map_err(|wrong| Failure::invalid(format_args!("invalid value {text:?} of {name}: {wrong}")))
        };
        text.as_deref().map(read).transpose()
    };
    let budgets = Budgets {
        packets: option("--rate", &args.rate, &|rate| throttle_of_packets(rate, args.burst))?,
        bytes: option("--bytes", &args.bytes, &throttle_of_bytes)?,
        connections: option("--connections", &args.connections, &throttle_of_connections)?,
    };
    add_and_tell(&args.incident, IncidentAction::Throttle(budgets))
}

/// Blocks targets.
pub fn block(args: &IncidentArgs) -> Result<u8, Failure> {
    add_and_tell(args, IncidentAction::Block)
}

/// Lets targets pass.
pub fn allow(args: &IncidentArgs) -> Result<u8, Failure> {
    add_and_tell(args, IncidentAction::Allow)
}

/// Takes rules back.
pub fn undo(args: &UndoArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = Pins::new(&args.read.pins);
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let answer = remove(&mut maps, &pins, &args.ids)?;
    if args.read.json {
        print_json(&answer)?;
    } else {
        let ids: Vec<_> = answer.undone.iter().map(|rule| rule.id.to_string()).collect();
        print_line(&format!("undone: {}\n\n{}", ids.join(", "), incident_table(&answer.undone)));
    }
    Ok(EXIT_DONE)
}

fn add_and_tell(args: &IncidentArgs, action: IncidentAction) -> Result<u8, Failure> {
    let mut targets = args.targets.clone();
    if let Some(path) = &args.targets_file {
        targets.extend(targets_of(path)?);
    }
    let request = Request {
        action,
        targets,
        service: args.service.clone(),
        time: args.time,
        reason: args.reason.clone(),
        by: caller(),
        force: args.force,
    };
    probe()?;
    let pins = Pins::new(&args.read.pins);
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let answer = add(&mut maps, &pins, request)?;
    if args.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    for warning in &answer.warnings {
        anstream::eprintln!("warning: {warning}");
    }
    print_line(&incident_table(&answer.added));
    if let Some(rule) = answer.added.first() {
        print_line(&format!("\nin force; take it back with `detector undo {}`", rule.id));
    }
    Ok(EXIT_DONE)
}

/// The name of who calls, as far as the environment tells.
fn caller() -> String {
    let name = ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The targets of a file.
fn targets_of(path: &Path) -> Result<Vec<IpNet>, Failure> {
    let text = read_text(path)?;
    let line = |(number, line): (usize, &str)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        let wrong = |error| Failure::invalid(format_args!("{}:{}: {error}", path.display(), number + 1));
        (!entry.is_empty()).then(|| incident::target(entry).map_err(wrong))
    };
    text.lines().enumerate().filter_map(line).collect()
}

/// Adds a rule.
///
/// # Errors
///
/// It is refused (see [`Request::force`]), there is no such service or no policy, or the kernel refuses.
pub fn add(maps: &mut Maps, pins: &Pins, request: Request) -> Result<Answer, Failure> {
    let _lock = pins.lock_policy()?;
    let warnings = check(maps, &request)?;
    let clocks = clocks(maps);
    let incident = Incident {
        id: 0,
        action: request.action,
        sources: request.targets,
        service: request.service,
        until_s: request.time.map(|time| clock::unix_s().saturating_add(time.as_secs())),
        reason: request.reason,
        by: request.by,
        at_s: clock::unix_s(),
        counter: 0,
    };
    let changed = change(maps, clocks, vec![incident], |_| false)?;
    let added = changed.added.iter().map(|incident| of_incident(maps, incident)).collect::<Result<_, _>>()?;
    Ok(Answer { epoch: changed.epoch, added, undone: Vec::new(), warnings })
}

/// Takes rules back by their numbers; all of them or none.
///
/// # Errors
///
/// One of them is no incident rule's, or the kernel refuses.
pub fn remove(maps: &mut Maps, pins: &Pins, ids: &[u64]) -> Result<Answer, Failure> {
    let _lock = pins.lock_policy()?;
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
        )));
    }
    // Counters are told as they were before the rules went.
    let undone = present.rules.iter().filter(|incident| ids.contains(&incident.id));
    let undone = undone.map(|incident| of_incident(maps, incident)).collect::<Result<Vec<_>, _>>()?;
    let changed = change(maps, clocks(maps), Vec::new(), |incident| ids.contains(&incident.id))?;
    Ok(Answer { epoch: changed.epoch, added: Vec::new(), undone, warnings: Vec::new() })
}

/// Refuses what is likely to hurt nearly everyone or has no effect, unless it is forced; then, or where it has some effect,
/// it is a warning.
fn check(maps: &Maps, request: &Request) -> Result<Vec<String>, Failure> {
    let mut refused = Vec::new();
    refused.extend(
        request
            .targets
            .iter()
            .copied()
            .filter(|&target| is_broad(target))
            .map(|target| format!("{target} is about nearly everyone (shorter than /8, in IPv6 than /19)")),
    );
    let mut warnings = Vec::new();
    read::consistently(maps, |active| -> Result<_, Failure> {
        warnings.clear();
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
        for &target in &request.targets {
            if is_always_allowed(active, target, &services)? {
                warnings
                    .push(format!("{target} is in defaults.allow, which comes before every rule: it passes"));
            }
        }
        Ok(())
    })?;
    if request.action != IncidentAction::Allow && warnings.len() == request.targets.len() {
        refused.append(&mut warnings);
    }
    if !refused.is_empty() && !request.force {
        return Err(Failure::invalid(format_args!(
            "{}\nnot added: if it is meant, add --force",
            refused.join("\n")
        )));
    }
    refused.extend(warnings);
    Ok(refused)
}

/// Whether the first address of a target passes by `defaults.allow`.
fn is_always_allowed(active: &Active<'_>, target: IpNet, services: &[u16]) -> Result<bool, Failure> {
    let Some(&service) = services.first() else { return Ok(false) };
    let standing = active.classify(Address::from(target.addr()), service)?;
    Ok(standing.is_some_and(|standing| standing.class.is_always_allowed()))
}
