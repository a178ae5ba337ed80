//! What operators order about fleets: the one way for commands and the API. Orders stand in the history, where the daemon finds them and
//! carries them out; the switch of all actions works without one.

use std::time::Duration;

use detector_fleets::fleet::FleetId;
use serde::Serialize;
use utoipa::ToSchema;

use super::incidents::Record;
use crate::{
    actions::{
        limits::ORDERS_MAX,
        order::{Order, Stop, Wanted},
    },
    clock,
    commands::{EXIT_INVALID, Failure, fleets::one},
    fleets::{Told, told::ActionTold},
    history::Entry,
    kernel::{fleets, maps::Maps, pins::Pins},
};

/// How long who orders something waits for the daemon, which looks for orders every second.
pub const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(10);

/// An order about some fleets.
#[derive(Debug, Clone)]
pub struct Request {
    /// Their numbers, each once.
    pub fleets: Vec<u64>,
    /// What is to be done.
    pub wanted: Wanted,
    /// Also where a guard would leave it a suggestion.
    pub force: bool,
    /// For how long.
    pub time: Duration,
    /// Why.
    pub reason: String,
}

/// What became of an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetOrdered)]
pub struct Answer {
    /// Numbers of the orders that were given; none where some were taken back.
    pub orders: Vec<u64>,
    /// What is done about these fleets now.
    pub actions: Vec<ActionTold>,
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
}

/// What was written for the daemon, which has not heard it yet.
#[derive(Debug)]
pub struct Asked {
    fleets: Vec<u64>,
    /// One for each of them: the number of the order that was given, or of the one that was taken back.
    orders: Vec<u64>,
    /// What was ordered; `None`: it was taken back.
    wanted: Option<Wanted>,
    unrecorded: Option<String>,
}

/// Orders something about fleets that are known. `told`: what the daemon told of them last.
///
/// # Errors
///
/// There is no such fleet, or not any more; there are too many orders; or it cannot be written.
pub fn order(record: &Record<'_>, told: &Told, request: &Request) -> Result<Asked, Failure> {
    let Request { fleets, wanted, force, time, reason } = request;
    for id in fleets {
        let one = one(told, record.history, &id.to_string())?;
        if let Some(whole) = one.part_of {
            return Err(Failure::invalid(format_args!(
                "fleet {id} is a part of fleet {whole} since, and nothing is done about it alone: say fleet:{whole}"
            )));
        }
        if one.is_past {
            return Err(Failure::invalid(format_args!(
                "fleet {id} was forgotten since, and nothing is done about it: `detector fleets` lists those that are known"
            )));
        }
    }
    let at_s = clock::unix_s();
    let orders = fleets.iter().map(|&id| Order {
        id: 0,
        fleet: FleetId(id),
        wanted: *wanted,
        force: *force,
        by: record.author.name.clone(),
        reason: reason.clone(),
        at_s,
        until_s: at_s.saturating_add(time.as_secs()),
    });
    let orders = record.history.order_fleets(&orders.collect::<Vec<_>>())?;
    let action = if wanted.is_throttle() { "throttle" } else { "allow" };
    let unrecorded = note(record, action, &targets(fleets), Some(reason));
    Ok(Asked { fleets: fleets.clone(), orders, wanted: Some(*wanted), unrecorded })
}

/// Takes back what is ordered about fleets: from then on the daemon decides by itself.
///
/// # Errors
///
/// Nothing is ordered about one of them, or it cannot be written.
pub fn undo(record: &Record<'_>, fleets: &[u64], reason: Option<&str>) -> Result<Asked, Failure> {
    let orders = record.history.take_back_orders(fleets, clock::unix_s())?;
    let unrecorded = note(record, "undo", &targets(fleets), reason);
    Ok(Asked { fleets: fleets.to_vec(), orders, wanted: None, unrecorded })
}

fn targets(fleets: &[u64]) -> String {
    fleets.iter().map(|id| format!("fleet:{id}")).collect::<Vec<_>>().join(", ")
}

/// Writes the audit entry of a change that was made; why it cannot be written.
fn note(record: &Record<'_>, action: &str, target: &str, reason: Option<&str>) -> Option<String> {
    let entry = Entry::new(clock::unix_s(), record.author, record.origin, action, target);
    let recorded = record.history.record(&Entry { reason, ..entry });
    recorded.err().map(|error| error.to_string())
}

impl Asked {
    /// Whether the daemon decided by it about each fleet.
    pub fn is_heard(&self, told: &Told) -> bool {
        self.fleets.iter().zip(&self.orders).all(|(id, &order)| {
            let action = told.action(&id.to_string());
            match self.wanted {
                // A later one may have taken its place.
                Some(_) => action.is_some_and(|action| action.order >= Some(order)),
                None => action.is_none_or(|action| action.order != Some(order)),
            }
        })
    }

    /// The answer where no daemon runs that could hear it.
    pub fn unheard(self) -> Answer {
        let orders = if self.wanted.is_some() { self.orders } else { Vec::new() };
        Answer { orders, actions: Vec::new(), unrecorded: self.unrecorded }
    }

    /// The answer, by what the daemon told when it had heard it, or when nobody waits for it any longer.
    ///
    /// # Errors
    ///
    /// The daemon did not hear it in time, or does not do what is ordered; why.
    pub fn answer(self, told: &Told) -> Result<Answer, Failure> {
        let seconds = CARRIED_OUT_WITHIN.as_secs();
        if !self.is_heard(told) {
            return Err(Failure::unavailable(format_args!(
                "it stands, and the daemon has not heard it within {seconds} s: `detector status` says whether it looks for fleets, `detector fleets ID` what is done by it, once that was decided; `detector fleets --stop --reason TEXT` ends all actions without it"
            )));
        }
        let actions = self.fleets.iter().filter_map(|id| told.action(&id.to_string()).cloned());
        let actions: Vec<_> = actions.collect();
        let is_other = |action: &&ActionTold| {
            self.wanted.is_some_and(|wanted| wanted.is_throttle() != action.throttle.is_some())
        };
        let others: Vec<_> = actions
            .iter()
            .filter(is_other)
            .map(|action| format!("fleet {}: {}", action.fleet, action.says))
            .collect();
        if !others.is_empty() {
            return Err(Failure::invalid(format_args!(
                "the order stands until it ends and nothing is done by it now: {}; `detector fleets ID` shows what every guard says",
                others.join("; ")
            )));
        }
        let orders = if self.wanted.is_some() { self.orders } else { Vec::new() };
        Ok(Answer { orders, actions, unrecorded: self.unrecorded })
    }
}

/// How the switch of all actions on fleets stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetsSwitch)]
pub struct Switched {
    /// Whether no fleet is acted on, whoever wants it.
    pub stopped: bool,
    /// Why the history does not have the change.
    pub unrecorded: Option<String>,
}

/// Ends all actions on fleets, at once and until [`resume`]. `kernel`: does it, see [`stop_in_kernel`]; `None`: nothing is loaded.
///
/// The switch is with the pins, so that it holds for whoever acts on fleets there. In the history is who turned it and why, and there it outlives
/// the pins.
///
/// # Errors
///
/// The kernel refuses, or nothing is loaded and it cannot be written.
pub fn stop(
    record: &Record<'_>,
    reason: &str,
    kernel: Option<impl FnOnce() -> Result<(), Failure>>,
) -> Result<Switched, Failure> {
    let is_loaded = kernel.is_some();
    let ended = kernel.map_or(Ok(()), |kernel| kernel());
    let stop = Stop { by: record.author.name.clone(), reason: reason.to_owned(), at_s: clock::unix_s() };
    let kept = record.history.stop_fleets(Some(&stop));
    ended?;
    match kept {
        Ok(()) => Ok(Switched { stopped: true, unrecorded: note(record, "stop", "fleets", Some(reason)) }),
        Err(error) if is_loaded => Ok(Switched { stopped: true, unrecorded: Some(error.to_string()) }),
        Err(error) => Err(error.into()),
    }
}

/// Ends what the kernel does about fleets, and has it begin nothing.
///
/// # Errors
///
/// The kernel refuses to give slots back; no fleet is acted on all the same.
pub fn stop_in_kernel(pins: &Pins, maps: &mut Maps) -> Result<(), Failure> {
    fleets::stop(maps);
    // Who holds the lock is not waited for: no packet is charged any more, and slots are given back by whoever acts on fleets next.
    let Ok(_lock) = pins.try_lock_policy() else { return Ok(()) };
    fleets::settle(maps).map(|_| ()).map_err(|error| {
        Failure::failed(format_args!(
            "no fleet is acted on any more, but its slot is not given back: {error}"
        ))
    })
}

/// Ends at once what the kernel does about some fleets, also where nobody can write that down; not where it was no valid thing to ask. A daemon that
/// runs decides anew about them.
///
/// # Errors
///
/// What could not be done of the two: `written`, or because somebody else changes the policy or the kernel refuses.
pub fn release(
    written: Result<Asked, Failure>,
    pins: &Pins,
    maps: Result<Maps, Failure>,
    ids: &[u64],
) -> Result<Asked, Failure> {
    if written.as_ref().is_err_and(|failure| failure.code == EXIT_INVALID) {
        return written;
    }
    let end = |mut maps: Maps| {
        let _lock = pins.lock_policy()?;
        ids.iter().try_for_each(|id| fleets::end(&mut maps, *id).map(|_| ())).map_err(Failure::failed)
    };
    match (written, maps.and_then(end)) {
        (written, Ok(())) => written.map_err(|failure| {
            let message =
                format!("it is not acted on now, but that could not be written, and a daemon that runs decides anew: {}", failure.message);
            Failure { message, ..failure }
        }),
        (Ok(_), Err(failure)) => Err(Failure::failed(format_args!(
            "it is written down and done when a daemon hears it, but not at once: {}",
            failure.message
        ))),
        (Err(failure), Err(_)) => Err(failure),
    }
}

/// Lets the daemon act on fleets again. `kernel`: takes the switch away from the pins.
///
/// # Errors
///
/// It cannot be written, or the maps cannot be opened.
pub fn resume(
    record: &Record<'_>,
    reason: Option<&str>,
    kernel: impl FnOnce() -> Result<(), Failure>,
) -> Result<Switched, Failure> {
    record.history.stop_fleets(None)?;
    kernel()?;
    Ok(Switched { stopped: false, unrecorded: note(record, "resume", "fleets", reason) })
}

/// What is ordered about fleets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetOrders)]
pub struct Orders {
    /// The switch of all actions, where it is turned; null: it is not.
    pub stopped: Option<Stop>,
    /// Orders that hold, by number.
    pub orders: Vec<Order>,
    /// How many there may be.
    pub most: usize,
}

/// What is ordered about fleets now.
///
/// # Errors
///
/// The history cannot be read.
pub fn orders(record: &crate::history::History) -> Result<Orders, Failure> {
    let orders = record.fleet_orders(clock::unix_s())?;
    Ok(Orders { stopped: record.fleets_stopped()?, orders, most: ORDERS_MAX })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        fleets::told::{LeftOutTold, ThrottleTold},
        history::{Author, History, Origin},
    };

    fn told(order: Option<u64>, throttled: bool) -> Told {
        let throttle = ThrottleTold {
            members: 95,
            held_out: 5,
            without_room: 0,
            keys: 1,
            held_out_percent: 5,
            packets: "4/s, 16 at once".to_owned(),
            connections: "12/min, 1 at once".to_owned(),
            since_s: 1,
            until_s: 2,
            dropped: 0,
            cut: None,
            undo: "detector undo fleet:3".to_owned(),
        };
        let action = ActionTold {
            fleet: "3".to_owned(),
            step: "nothing".to_owned(),
            says: "0 members are left".to_owned(),
            order,
            guards: Vec::new(),
            left_out: LeftOutTold::default(),
            command: None,
            throttle: throttled.then_some(throttle),
        };
        Told { actions: vec![action], ..Told::default() }
    }

    fn asked(order: u64, wanted: Option<Wanted>) -> Asked {
        Asked { fleets: vec![3], orders: vec![order], wanted, unrecorded: None }
    }

    #[test]
    fn an_order_is_heard_when_its_number_is_told_and_not_before() {
        let before = told(Some(4), true);
        let second = asked(5, Some(Wanted::THROTTLE));
        assert!(!second.is_heard(&before), "the fleet is throttled by the order before");
        assert!(second.is_heard(&told(Some(5), true)) && second.is_heard(&told(Some(6), true)));
        assert!(!second.is_heard(&Told::default()));
        let failure = second.answer(&before).expect_err("not in time");
        assert!(failure.message.contains("has not heard it"), "{}", failure.message);
        let failure = asked(5, Some(Wanted::THROTTLE)).answer(&told(Some(5), false)).expect_err("a guard");
        assert!(failure.message.contains("fleet 3: 0 members are left"), "{}", failure.message);
        let answer = asked(5, Some(Wanted::THROTTLE)).answer(&told(Some(5), true)).expect("it is done");
        assert_eq!((answer.orders, answer.actions.len()), (vec![5], 1));
        let left = asked(5, Some(Wanted::Leave));
        assert!(left.answer(&told(Some(5), false)).is_ok());
    }

    #[test]
    fn an_order_that_was_taken_back_is_heard_when_it_is_not_told_any_more() {
        let undone = asked(5, None);
        assert!(!undone.is_heard(&told(Some(5), true)));
        assert!(
            [told(None, true), told(Some(6), true), Told::default()].iter().all(|told| undone.is_heard(told))
        );
        assert!(
            undone.answer(&told(None, true)).expect("it is done").orders.is_empty(),
            "the mode lets it be"
        );
    }

    #[test]
    fn fleets_that_nobody_knows_are_not_ordered_about() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let author = Author { name: "ann".to_owned(), uid: None };
        let record = Record { history: &history, author: &author, origin: Origin::Api };
        let (fleets, reason) = (vec![3], "INC-4711".to_owned());
        let request =
            Request { fleets, wanted: Wanted::Leave, force: false, time: Duration::from_secs(60), reason };
        let refused = order(&record, &Told::default(), &request).expect_err("there is none").message;
        assert!(refused.contains("there is no fleet \"3\""), "{refused}");
        assert!(orders(&history).expect("read").orders.is_empty());
    }

    #[test]
    fn the_switch_is_turned_also_where_nobody_can_write_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "no directory").expect("written");
        let author = Author { name: "ann".to_owned(), uid: None };
        for (state, is_kept) in [(directory.path(), true), (&*file, false)] {
            let history = History::new(state, Path::new("/sys/fs/bpf/one"));
            let record = Record { history: &history, author: &author, origin: Origin::Api };
            let mut has_ended = false;
            let end = || {
                has_ended = true;
                Ok(())
            };
            let switched = stop(&record, "customers call", Some(end)).expect("the kernel has it");
            assert_eq!((switched.unrecorded.is_none(), has_ended), (is_kept, true));
            let unloaded = stop(&record, "customers call", None::<fn() -> Result<(), Failure>>);
            assert_eq!(unloaded.is_ok(), is_kept, "without pins the history is all there is");
            let refuses = || Err(Failure::failed("no"));
            assert!(stop(&record, "customers call", Some(refuses)).is_err());
        }
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let stopped = orders(&history).expect("read").stopped.expect("it is kept");
        assert_eq!((&*stopped.by, &*stopped.reason), ("ann", "customers call"));
        let record = Record { history: &history, author: &author, origin: Origin::Api };
        assert!(!resume(&record, None, || Ok(())).expect("it goes on").stopped);
        let actions: Vec<_> =
            history.entries(9).expect("read").into_iter().map(|entry| entry.action).collect();
        assert_eq!(actions, ["resume", "stop", "stop"]);
    }
}
