//! What an operator orders about fleets: `throttle fleet:ID`, `allow fleet:ID`, `undo fleet:ID`, and the switch of all actions.

use std::{path::Path, time::Instant};

use super::{EXIT_DONE, Failure, print_json, print_line, time, warn};
use crate::{
    actions::order::Wanted,
    change::{
        fleets::{self as changes, Answer, Asked, CARRIED_OUT_WITHIN, Request},
        incidents::Record,
    },
    cli::{FleetsArgs, IncidentArgs, UndoArgs, WriteArgs},
    clock,
    fleets::{Store, Told, told},
    history::{Author, History, Origin},
    kernel::{fleets, mapped::Access, maps::Maps, pins::Pins, probe::probe},
    policy::incident::IncidentAction,
};

/// Time between two looks whether it was done.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// Orders something about fleets. `action`: of the command; `None` of a throttle without a rate.
///
/// # Errors
///
/// It cannot be done to a fleet, there is no such fleet, a guard refuses, or no daemon runs that could throttle it.
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
    let write = &args.change.write;
    let (pins, history) = (write.pins(), write.history());
    pins.loaded()?;
    let is_daemon_alive = pins.is_daemon_alive();
    if !is_daemon_alive && wanted.is_throttle() {
        return Err(Failure::failed(
            "no daemon runs, which is who throttles fleets: start `detector run`, or `throttle` a source or fingerprint",
        ));
    }
    let (force, reason) = (args.change.force, args.reason.clone());
    let request = Request { fleets: ids.to_vec(), wanted, force, time: lasts, reason };
    let record = Record { history: &history, author: &Author::current(), origin: Origin::Command };
    let mut asked = changes::order(&record, &told_last(write, &history)?, &request);
    let until_s = clock::unix_s() + lasts.as_secs();
    if !wanted.is_throttle() {
        // At once, and whether somebody who decides hears it or not.
        asked = changes::release(asked, &pins, maps(&pins), ids);
    }
    let asked = asked?;
    let answer = if is_daemon_alive { carried_out(asked, write, &history)? } else { asked.unheard() };
    tell(&answer, write, || {
        for id in ids {
            let done = if wanted.is_throttle() { "throttled" } else { "left alone" };
            print_line(&format!(
                "fleet {id} is {done} until {}; take it back with `detector undo fleet:{id}`",
                time(until_s)
            ));
        }
    })
}

/// Takes back what is ordered about fleets.
///
/// # Errors
///
/// Nothing is ordered about one of them, or it cannot be written.
pub(super) fn undo(args: &UndoArgs, ids: &[u64]) -> Result<u8, Failure> {
    let write = &args.change.write;
    let (pins, history) = (write.pins(), write.history());
    let record = Record { history: &history, author: &Author::current(), origin: Origin::Command };
    let mut asked = changes::undo(&record, ids, args.reason.as_deref());
    if !pins.is_daemon_alive() {
        if pins.is_loaded() {
            asked = changes::release(asked, &pins, maps(&pins), ids);
        }
        return tell(&asked?.unheard(), write, || {
            print_line("nothing is done about them: no daemon runs, and the next one decides anew");
        });
    }
    let answer = carried_out(asked?, write, &history)?;
    tell(&answer, write, || {
        for action in &answer.actions {
            print_line(&format!("fleet {}: {}: {}", action.fleet, action.word(), action.says));
        }
    })
}

fn tell(answer: &Answer, write: &WriteArgs, text: impl FnOnce()) -> Result<u8, Failure> {
    if write.read.json {
        print_json(answer)?;
        return Ok(EXIT_DONE);
    }
    tell_unrecorded(answer.unrecorded.as_deref());
    text();
    Ok(EXIT_DONE)
}

/// The maps, to change what is done about fleets.
fn maps(pins: &Pins) -> Result<Maps, Failure> {
    probe()?;
    Ok(Maps::pinned(&pins.loaded()?, Access::Write)?)
}

fn tell_unrecorded(why: Option<&str>) {
    if let Some(why) = why {
        warn(&format!("done, but not recorded: {why}"));
    }
}

/// Waits for the daemon, which tells by a file what it decided.
fn carried_out(asked: Asked, write: &WriteArgs, history: &History) -> Result<Answer, Failure> {
    let began = Instant::now();
    loop {
        let told = told_last(write, history)?;
        if asked.is_heard(&told) || began.elapsed() >= CARRIED_OUT_WITHIN {
            return asked.answer(&told);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn told_last(write: &WriteArgs, history: &History) -> Result<Told, Failure> {
    let pins: &Path = &write.read.pins;
    Ok(told::read(&Store::directory(history.directory(), pins))?.unwrap_or_default())
}

/// Turns the switch of all actions on fleets. With a daemon or without, it is done when this returns.
///
/// # Errors
///
/// It cannot be kept, or the kernel refuses. Actions end all the same, if that can be.
pub(super) fn switch(args: &FleetsArgs) -> Result<u8, Failure> {
    let (pins, history) = (args.write.pins(), args.write.history());
    let record = Record { history: &history, author: &Author::current(), origin: Origin::Command };
    let reason = args.reason.as_deref();
    let is_loaded = pins.is_loaded();
    let switched = if args.stop {
        let kernel = || changes::stop_in_kernel(&pins, &mut maps(&pins)?);
        changes::stop(&record, reason.unwrap_or_default(), is_loaded.then_some(kernel))?
    } else {
        changes::resume(&record, reason, || {
            if is_loaded {
                fleets::resume(&maps(&pins)?);
            }
            Ok(())
        })?
    };
    if args.write.read.json {
        print_json(&switched)?;
        return Ok(EXIT_DONE);
    }
    tell_unrecorded(switched.unrecorded.as_deref());
    print_line(if switched.stopped {
        "no fleet is acted on; `detector fleets --resume` lets the daemon act again"
    } else {
        "the daemon acts on fleets again, as the policy says"
    });
    Ok(EXIT_DONE)
}
