//! `detector throttle`, `block`, `allow` and `undo`: a responder's rules, at once, with or without a daemon.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    EXIT_DONE, Failure, fleet_order, print_json, print_line,
    rules::{IncidentRule, incident_table},
    warn,
};
use crate::{
    change::incidents::{Record, Request, add, remove},
    cli::{IncidentArgs, ThrottleArgs, UndoArgs},
    guard::Guard,
    history::{Author, Origin},
    kernel::{mapped::Access, maps::Maps, probe::probe},
    policy::{
        Budget, Budgets, Matches,
        incident::{
            IncidentAction, throttle_of_bytes, throttle_of_connections, throttle_of_handshakes,
            throttle_of_packets,
        },
        target::{self, Undone, Whom},
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

/// The rates of a throttle, as they are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates<'a> {
    /// Packets.
    pub rate: Option<&'a str>,
    /// Packets at once; without a rate of them, handshakes or connections.
    pub burst: Option<u64>,
    /// Bytes.
    pub bytes: Option<&'a str>,
    /// New connections.
    pub connections: Option<&'a str>,
    /// TLS handshakes.
    pub handshakes: Option<&'a str>,
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
    let Rates { burst, connections, handshakes, .. } = *rates;
    let (of_packets, of_others) = match (rates.rate, connections, handshakes) {
        (Some(_), ..) => (burst, None),
        (None, Some(_), None) | (None, None, Some(_)) => (None, burst),
        _ if burst.is_none() => (None, None),
        _ => {
            return Err(Failure::invalid(
                "a burst needs the rate that it belongs to: of packets, else of handshakes or of connections",
            ));
        }
    };
    let budgets = Budgets {
        packets: read("rate", rates.rate, &|rate| throttle_of_packets(rate, of_packets))?,
        bytes: read("bytes", rates.bytes, &throttle_of_bytes)?,
        connections: read("connections", connections, &|rate| throttle_of_connections(rate, of_others))?,
        handshakes: read("handshakes", handshakes, &|rate| throttle_of_handshakes(rate, of_others))?,
    };
    Ok(Some(budgets).filter(|budgets| !budgets.is_empty()))
}

/// Throttles targets.
pub fn throttle(args: &ThrottleArgs) -> Result<u8, Failure> {
    let ThrottleArgs { rate, burst, bytes, connections, handshakes, shared, incident } = args;
    let rates = Rates {
        rate: rate.as_deref(),
        burst: *burst,
        bytes: bytes.as_deref(),
        connections: connections.as_deref(),
        handshakes: handshakes.as_deref(),
    };
    let budgets = budgets(&rates)?;
    let matches = match whom(incident)? {
        Whom::Clients(matches) => matches,
        Whom::Fleets(ids) => {
            return fleet_order::order(incident, &ids, budgets.map(IncidentAction::ThrottleShared).as_ref());
        }
    };
    let budgets = budgets.ok_or_else(|| {
        Failure::invalid(
            "a throttle without a rate: give --rate, --bytes, --connections or --handshakes, like 100/s",
        )
    })?;
    let action = if *shared { IncidentAction::ThrottleShared } else { IncidentAction::Throttle };
    add_and_tell(incident, matches, action(budgets))
}

/// Blocks targets.
pub fn block(args: &IncidentArgs) -> Result<u8, Failure> {
    on_whom(args, IncidentAction::Block)
}

/// Lets targets pass.
pub fn allow(args: &IncidentArgs) -> Result<u8, Failure> {
    on_whom(args, IncidentAction::Allow)
}

fn on_whom(args: &IncidentArgs, action: IncidentAction) -> Result<u8, Failure> {
    match whom(args)? {
        Whom::Clients(matches) => add_and_tell(args, matches, action),
        Whom::Fleets(ids) => fleet_order::order(args, &ids, Some(&action)),
    }
}

/// Takes rules back.
pub fn undo(args: &UndoArgs) -> Result<u8, Failure> {
    let rule = |id: &Undone| if let Undone::Rule(id) = id { Some(*id) } else { None };
    let fleet = |id: &Undone| if let Undone::Fleet(id) = id { Some(*id) } else { None };
    let ids: Vec<u64> = args.ids.iter().filter_map(rule).collect();
    let fleets: BTreeSet<u64> = args.ids.iter().filter_map(fleet).collect();
    if !fleets.is_empty() {
        if !ids.is_empty() {
            return Err(Failure::invalid(
                "both incident rules and fleets: expected one kind; give a command for each",
            ));
        }
        return fleet_order::undo(args, &fleets.into_iter().collect::<Vec<_>>());
    }
    probe()?;
    let pins = args.change.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let record =
        Record { history: &args.change.write.history(), author: &Author::current(), origin: Origin::Command };
    let guard = (!args.change.force).then(|| Guard::of(&args.change.guard));
    let answer = remove(&mut maps, &pins, &record, &ids, args.reason.as_deref(), guard.as_ref())?;
    if args.change.write.read.json {
        print_json(&answer)?;
    } else {
        answer.warnings.iter().for_each(|warning| warn(warning));
        tell_unrecorded(&answer);
        let ids: Vec<_> = answer.undone.iter().map(|rule| rule.id.to_string()).collect();
        print_line(&format!("undone: {}\n\n{}", ids.join(", "), incident_table(&answer.undone)));
    }
    Ok(EXIT_DONE)
}

/// Whom a command is about.
fn whom(args: &IncidentArgs) -> Result<Whom, Failure> {
    let mut targets = args.targets.clone();
    if let Some(path) = &args.targets_file {
        targets.extend(targets_of(path, target::target)?);
    }
    target::whom(targets).map_err(Failure::invalid)
}

fn add_and_tell(args: &IncidentArgs, matches: Matches, action: IncidentAction) -> Result<u8, Failure> {
    let request = Request {
        action,
        matches,
        service: args.service.clone(),
        time: args.time,
        reason: args.reason.clone(),
        force: args.change.force,
        guard: Guard::of(&args.change.guard),
    };
    probe()?;
    let pins = args.change.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let record =
        Record { history: &args.change.write.history(), author: &Author::current(), origin: Origin::Command };
    let answer = add(&mut maps, &pins, &record, &request)?;
    if args.change.write.read.json {
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

/// The targets of a file, one a line.
pub(super) fn targets_of<T>(
    path: &Path,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::invalid(format_args!(
            "cannot read {}: {error}; name a text file with an address or prefix a line",
            path.display()
        ))
    })?;
    let line = |(number, line): (usize, &str)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        let place = number + 1;
        let wrong =
            |error| Failure::invalid(format_args!("{}:{place}: found {entry:?}: {error}", path.display()));
        (!entry.is_empty()).then(|| read(entry).map_err(wrong))
    };
    text.lines().enumerate().filter_map(line).collect()
}
