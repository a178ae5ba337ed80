//! `detector throttle`, `block`, `allow` and `undo`: a responder's rules, at once, with or without a daemon.

use std::{path::Path, time::Duration};

use detector_common::address::Address;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    EXIT_DONE, Failure, print_json, print_line,
    rules::{IncidentRule, incident_table, of_incident},
    warn,
};
use crate::{
    change::{clocks, note_ends},
    cli::{IncidentArgs, ThrottleArgs, UndoArgs},
    clock,
    guard::{Guard, Refusal},
    history::{Author, Entry, History, Origin},
    kernel::{
        incidents::change,
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read::{self, Active, ReadError},
    },
    policy::{
        Budget, Budgets, SOURCE_BITS_V6,
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
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
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
    /// Add also what is refused without it.
    pub force: bool,
    /// Who looks at what it would do, unless it is forced.
    pub guard: Guard,
}

/// The rates of a throttle, as they are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates<'a> {
    /// Packets.
    pub rate: Option<&'a str>,
    /// Packets at once.
    pub burst: Option<u64>,
    /// Bytes.
    pub bytes: Option<&'a str>,
    /// New connections.
    pub connections: Option<&'a str>,
}

/// The budgets of a throttle; `None`: nothing is limited.
///
/// # Errors
///
/// What is wrong with a rate.
pub fn budgets(rates: &Rates<'_>) -> Result<Option<Budgets>, Failure> {
    let read = |name, text: Option<&str>, read: &dyn Fn(&str) -> Result<Budget, String>| {
        let read = |text: &str| {
            read(text)
                .map_err(|wrong| Failure::invalid(format_args!("invalid value {text:?} of {name}: {wrong}")))
        };
        text.map(read).transpose()
    };
    let budgets = Budgets {
        packets: read("rate", rates.rate, &|rate| throttle_of_packets(rate, rates.burst))?,
        bytes: read("bytes", rates.bytes, &throttle_of_bytes)?,
        connections: read("connections", rates.connections, &throttle_of_connections)?,
    };
    if rates.burst.is_some() && rates.rate.is_none() {
        return Err(Failure::invalid("a burst needs the rate of packets that it belongs to"));
    }
    Ok(Some(budgets).filter(|budgets| !budgets.is_empty()))
}

/// Throttles targets.
pub fn throttle(args: &ThrottleArgs) -> Result<u8, Failure> {
    let ThrottleArgs { rate, burst, bytes, connections, incident } = args;
    let (rate, bytes, connections) = (rate.as_deref(), bytes.as_deref(), connections.as_deref());
    let budgets = budgets(&Rates { rate, burst: *burst, bytes, connections })?;
    add_and_tell(incident, IncidentAction::Throttle(budgets.unwrap_or_default()))
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
    let pins = args.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let record =
        Record { history: &args.write.history(), author: &Author::current(), origin: Origin::Command };
    let guard = (!args.force).then(|| Guard::of(&args.guard));
    let answer = remove(&mut maps, &pins, &record, &args.ids, args.reason.as_deref(), guard.as_ref())?;
    if args.write.read.json {
        print_json(&answer)?;
    } else {
        answer.warnings.iter().for_each(|warning| warn(warning));
        tell_unrecorded(&answer);
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
        force: args.force,
        guard: Guard::of(&args.guard),
    };
    probe()?;
    let pins = args.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let record =
        Record { history: &args.write.history(), author: &Author::current(), origin: Origin::Command };
    let answer = add(&mut maps, &pins, &record, &request)?;
    if args.write.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    for warning in &answer.warnings {
        warn(warning);
    }
    tell_unrecorded(&answer);
    print_line(&incident_table(&answer.added));
    if let Some(rule) = answer.added.first() {
        print_line(&format!("\nin force; take it back with `detector undo {}`", rule.id));
    }
    Ok(EXIT_DONE)
}

fn tell_unrecorded(answer: &Answer) {
    if let Some(why) = &answer.unrecorded {
        warn(&format!("done, but not recorded: {why}"));
    }
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
    /// Records a change, done or refused; why it cannot be.
    fn write(
        &self,
        action: &str,
        target: &str,
        reason: Option<&str>,
        result: Result<Value, &Failure>,
    ) -> Option<String> {
        let entry = Entry::new(clock::unix_s(), self.author, self.origin, action, target);
        let refusal = result.as_ref().err().map(|failure| failure.message.as_str());
        let after = result.as_ref().ok().cloned();
        self.history.record(&Entry { after, reason, refusal, ..entry }).err().map(|error| error.to_string())
    }

    /// Writes down what the kernel did by itself, before it is changed.
    fn note_ends(&self, maps: &Maps) {
        // What cannot be noted now is at the next change of the policy.
        if let Err(error) = note_ends(maps, self.history) {
            tracing::debug!("whether a trial ended is not known: {error}");
        }
    }

    /// Keeps the rules that are in force, for a start with empty maps; why they cannot be.
    fn keep(&self, maps: &Maps, gone: &[u64]) -> Option<String> {
        let in_force = match read::incidents(maps) {
            Ok(in_force) => in_force,
            Err(error) => return Some(error.to_string()),
        };
        self.history.keep_incidents(&in_force, gone, clock::unix_s()).err().map(|error| error.to_string())
    }
}

/// The targets of a file.
fn targets_of(path: &Path) -> Result<Vec<IpNet>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::invalid(format_args!(
            "cannot read the targets {}: {error}; name a text file with an address or prefix a line",
            path.display()
        ))
    })?;
    let line = |(number, line): (usize, &str)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        let wrong = |error| Failure::invalid(format_args!("{}:{}: {error}", path.display(), number + 1));
        (!entry.is_empty()).then(|| incident::target(entry).map_err(wrong))
    };
    text.lines().enumerate().filter_map(line).collect()
}

/// Adds a rule, and records that; also when it is refused.
///
/// # Errors
///
/// It is refused (see [`Request::force`]), there is no such service or no policy, or the kernel refuses.
pub fn add(maps: &mut Maps, pins: &Pins, record: &Record<'_>, request: &Request) -> Result<Answer, Failure> {
    let _lock = pins.lock_policy()?;
    record.note_ends(maps);
    let mut result = add_now(maps, request, &record.author.name);
    if let Ok(answer) = &mut result
        && let Some(why) = record.keep(maps, &[])
    {
        answer
            .warnings
            .push(format!("it ends when the program is loaded anew, since it cannot be kept: {why}"));
    }
    let told = result.as_ref().map(|answer| json!({ "epoch": answer.epoch, "rules": answer.added }));
    let target = targets_text(&request.targets);
    let unrecorded = record.write(request.action.name(), &target, Some(&request.reason), told);
    told_of(result, unrecorded)
}

fn add_now(maps: &mut Maps, request: &Request, by: &str) -> Result<Answer, Failure> {
    if request.targets.is_empty() || request.targets.len() > TARGETS_MAX {
        return Err(Failure::invalid(format_args!(
            "{} targets: expected 1 to {TARGETS_MAX} addresses or prefixes",
            request.targets.len()
        )));
    }
    let mut warnings = check(maps, request)?;
    let clocks = clocks(maps);
    let incident = Incident {
        id: 0,
        action: request.action.clone(),
        sources: request.targets.clone(),
        service: request.service.clone(),
        until_s: request.time.map(|time| clock::unix_s().saturating_add(time.as_secs())),
        reason: request.reason.clone(),
        by: by.to_owned(),
        at_s: clock::unix_s(),
        counter: 0,
    };
    if !request.force {
        refuse(request.guard.check_incidents(maps, Some(&incident), &[])?, "not added: the rule")?;
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
            for &target in incident.sources.iter().take(TARGETS_ASKED) {
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
    // It is in force all the same.
    told.unwrap_or_default()
}

/// Refuses what a guard found.
fn refuse(refusal: Refusal, what: &str) -> Result<(), Failure> {
    let reasons = refusal.reasons();
    if reasons.is_empty() {
        return Ok(());
    }
    let reasons = reasons.join("\n  ");
    Err(Failure::invalid(format_args!("{what}\n  {reasons}\nif it is meant, add --force")))
}

/// The result with why it is not recorded.
fn told_of(result: Result<Answer, Failure>, unrecorded: Option<String>) -> Result<Answer, Failure> {
    match (result, unrecorded) {
        (Ok(answer), unrecorded) => Ok(Answer { unrecorded, ..answer }),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(why)) => {
            Err(Failure { message: format!("{}\nnot recorded: {why}", failure.message), ..failure })
        }
    }
}

/// The first of some targets, and how many more there are.
fn targets_text(targets: &[IpNet]) -> String {
    let first = targets.first().map(ToString::to_string).unwrap_or_default();
    match targets.len() {
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
    let _lock = pins.lock_policy()?;
    record.note_ends(maps);
    let mut result = remove_now(maps, ids, guard);
    if let Ok(answer) = &mut result
        && let Some(why) = record.keep(maps, ids)
    {
        answer.warnings.push(format!(
            "it may come back when the program is loaded anew, since that cannot be kept: {why}"
        ));
    }
    let told = result.as_ref().map(|answer| json!({ "epoch": answer.epoch, "rules": answer.undone }));
    let target: Vec<_> = ids.iter().map(|id| format!("incident {id}")).collect();
    let unrecorded = record.write("undo", &target.join(", "), reason, told);
    told_of(result, unrecorded)
}

fn remove_now(maps: &mut Maps, ids: &[u64], guard: Option<&Guard>) -> Result<Answer, Failure> {
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
    if let Some(guard) = guard {
        refuse(guard.check_incidents(maps, None, ids)?, "not undone: without the rules the policy")?;
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
    let mut refused = Vec::new();
    refused.extend(
        request
            .targets
            .iter()
            .copied()
            .filter(|&target| is_broad(target))
            .map(|target| format!("{target} is about nearly everyone (shorter than /8, in IPv6 than /19)")),
    );
    let is_throttle = matches!(request.action, IncidentAction::Throttle(_));
    let is_part = |target: &&IpNet| target.addr().is_ipv6() && target.prefix_len() > SOURCE_BITS_V6;
    if let Some(part) = request.targets.iter().find(is_part).filter(|_| is_throttle) {
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
        for &target in &request.targets {
            if is_always_allowed(active, target, &services)? {
                allowed
                    .push(format!("{target} is in defaults.allow, which comes before every rule: it passes"));
            }
        }
        Ok(())
    })?;
    if request.action != IncidentAction::Allow && allowed.len() == request.targets.len() {
        refused.append(&mut allowed);
    }
    warnings.append(&mut allowed);
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
