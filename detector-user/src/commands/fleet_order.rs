//! What an operator orders about fleets: `throttle fleet:ID`, `allow fleet:ID`, and the switch of all actions. The daemon carries orders out;
//! the switch works without one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use detector_fleets::fleet::FleetId;
use serde::Serialize;

use super::{EXIT_DONE, Failure, fleets, print_json, print_line, time, warn};
use crate::{
    actions::order::{Order, Stop, Wanted},
    cli::{FleetsArgs, IncidentArgs},
    clock,
    fleets::{Store, Told, told, told::ActionTold},
    history::{Author, Entry, History, Origin},
    kernel::{self, mapped::Access, maps::Maps, probe::probe},
    policy::incident::IncidentAction,
};

/// How long a command waits for the daemon, which looks for orders every second.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks whether it was done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    /// Numbers of the orders.
    orders: Vec<u64>,
    /// What is done about these fleets now.
    actions: Vec<ActionTold>,
}

/// Orders something about fleets. `action`: of the command; `None` of a throttle without a rate.
///
/// # Errors
///
/// It cannot be done to a fleet, there is no such fleet, no daemon runs, or a guard refuses.
pub(super) fn order(
    args: &IncidentArgs,
    ids: &[u64],
    action: Option<&IncidentAction>,
) -> Result<u8, Failure> {
    let wanted = Wanted::of(action).map_err(Failure::invalid)?;
    let Some(lasts) = args.time else {
        return Err(Failure::invalid("an order about a fleet ends: give --for TIME, like --for 1h"));
    };
    if args.service.is_some() {
        return Err(Failure::invalid("a fleet has its service: leave --service out"));
    }
    probe()?;
    let (pins, history) = (args.change.write.pins(), args.change.write.history());
    let maps = Maps::pinned(&pins.loaded()?, Access::Read)?;
    if !pins.is_daemon_alive() {
        return Err(Failure::failed(
            "no daemon runs, which is who throttles fleets: start `detector run`, or `throttle` a source or fingerprint",
        ));
    }
    let told = told_last(&args.change.write.read.pins, &history)?;
    for id in ids {
        fleets::one(&told, &history, &id.to_string())?;
    }
    let author = Author::current();
    let now_s = clock::unix_s();
    let mut orders = Vec::new();
    for &id in ids {
        let order = Order {
            id: 0,
            fleet: FleetId(id),
            wanted,
            force: args.change.force,
            by: author.name.clone(),
            reason: args.reason.clone(),
            at_s: now_s,
            until_s: now_s.saturating_add(lasts.as_secs()),
        };
        orders.push(history.order_fleet(&order)?);
        let (target, action) =
            (format!("fleet:{id}"), if wanted.is_throttle() { "throttle" } else { "allow" });
        let entry = Entry::new(now_s, &author, Origin::Command, action, &target);
        if let Err(error) = history.record(&Entry { reason: Some(&args.reason), ..entry }) {
            warn(&format!("ordered, but not recorded: {error}"));
        }
    }
    let told = || told_last(&args.change.write.read.pins, &history);
    let (is_done, told) = wait_for(&maps, ids, wanted.is_throttle(), told)?;
    let is_asked = |action: &&ActionTold| ids.iter().any(|id| id.to_string() == action.fleet);
    let actions: Vec<_> = told.actions.iter().filter(is_asked).cloned().collect();
    if !is_done {
        let why: Vec<_> =
            actions.iter().map(|action| format!("fleet {}: {}", action.fleet, action.says)).collect();
        return Err(Failure::invalid(format_args!(
            "the order stands until it ends and nothing is done by it now: {}; `detector fleets ID` shows what every guard says",
            if why.is_empty() { "the daemon has not answered yet".to_owned() } else { why.join("; ") }
        )));
    }
    if args.change.write.read.json {
        print_json(&Answer { orders, actions })?;
        return Ok(EXIT_DONE);
    }
    for id in ids {
        let undo = if wanted.is_throttle() {
            format!("; take it back with `detector allow fleet:{id} --for 1h --reason TEXT`")
        } else {
            String::new()
        };
        let done = if wanted.is_throttle() { "throttled" } else { "left alone" };
        print_line(&format!("fleet {id} is {done} until {}{undo}", time(now_s + lasts.as_secs())));
    }
    Ok(EXIT_DONE)
}

/// Waits until the kernel acts on all of these fleets, or on none, and the daemon says so; whether it came to that, and what is said.
fn wait_for(
    maps: &Maps,
    ids: &[u64],
    acts: bool,
    told: impl Fn() -> Result<Told, Failure>,
) -> Result<(bool, Told), Failure> {
    let began = Instant::now();
    loop {
        let standing = kernel::fleets::standing(maps);
        let is_acting = |id: &u64| standing.iter().any(|one| one.fleet.id == *id && one.acts);
        let told = told()?;
        let is_told = |id: &u64| told.action(&id.to_string()).is_some_and(|action| action.throttle.is_some());
        let is_done = ids.iter().all(|id| is_acting(id) == acts && is_told(id) == acts);
        if is_done || began.elapsed() >= CARRIED_OUT_WITHIN {
            return Ok((is_done, told));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn told_last(pins: &Path, history: &History) -> Result<Told, Failure> {
    Ok(told::read(&Store::directory(history.directory(), pins))?.unwrap_or_default())
}

/// Turns the switch of all actions on fleets. With a daemon or without, it is done when this returns.
///
/// # Errors
///
/// It cannot be kept, or the kernel refuses. Actions end all the same, if that can be.
pub(super) fn switch(args: &FleetsArgs) -> Result<u8, Failure> {
    let (pins, history) = (args.write.pins(), args.write.history());
    let (author, now_s) = (Author::current(), clock::unix_s());
    let reason = args.reason.clone().unwrap_or_default();
    let stop = args.stop.then(|| Stop { by: author.name.clone(), reason: reason.clone(), at_s: now_s });
    // First what the daemon reads: it takes up nothing again that ends below.
    let kept = history.stop_fleets(stop.as_ref());
    if args.stop && pins.is_loaded() {
        probe()?;
        let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
        let _lock = pins.lock_policy()?;
        kernel::fleets::end_all(&mut maps).map_err(Failure::failed)?;
    }
    if let Err(error) = kept {
        return Err(Failure::failed(format_args!(
            "the switch cannot be kept: {error}; what was acted on has ended if it was to end, and a daemon may begin again until the history can be written"
        )));
    }
    let action = if args.stop { "stop" } else { "resume" };
    let entry = Entry::new(now_s, &author, Origin::Command, action, "fleets");
    if let Err(error) = history.record(&Entry { reason: (!reason.is_empty()).then_some(&*reason), ..entry }) {
        warn(&format!("done, but not recorded: {error}"));
    }
    let text = if args.stop {
        "no fleet is acted on; `detector fleets --resume` lets the daemon act again"
    } else {
        "the daemon acts on fleets again, as the policy says"
    };
    if args.write.read.json {
        print_json(&serde_json::json!({ "stopped": args.stop }))?;
    } else {
        print_line(text);
    }
    Ok(EXIT_DONE)
}
