//! `detector confirm` and `detector rollback`: the end of a policy on trial, with or without a daemon.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line};
use crate::{
    cli::ReadArgs,
    kernel::{apply, mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
};

/// What `confirm` and `rollback` answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrialEnd)]
pub struct Answer {
    /// Whether the policy on trial stays.
    pub confirmed: bool,
    /// The policy that is active now; 0: none.
    pub epoch: u32,
}

const NOTHING_WAITS: &str = "nothing waits to be confirmed: the time of the policy is over, it was confirmed, or it was \
applied without --confirm; `detector status` says which policy is active";

/// Keeps the policy that is on trial.
pub fn confirm(args: &ReadArgs) -> Result<u8, Failure> {
    end(args, true)
}

/// Goes back to the policy before.
pub fn rollback(args: &ReadArgs) -> Result<u8, Failure> {
    end(args, false)
}

fn end(args: &ReadArgs, confirmed: bool) -> Result<u8, Failure> {
    probe()?;
    let pins = Pins::new(&args.pins);
    let maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let answer = answer(&maps, &pins, confirmed)?;
    if args.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

/// Ends the trial of a policy: keeps it, or goes back to the one before.
///
/// # Errors
///
/// None is on trial, or another process is about to apply a policy.
pub fn answer(maps: &Maps, pins: &Pins, confirmed: bool) -> Result<Answer, Failure> {
    let _lock = pins.lock_policy()?;
    let is_done = if confirmed { apply::confirm(maps) } else { apply::take_back(maps) };
    if !is_done {
        return Err(Failure::conflict(NOTHING_WAITS));
    }
    Ok(Answer { confirmed, epoch: read::epoch(maps) })
}

fn text(answer: &Answer) -> String {
    match *answer {
        Answer { confirmed: true, epoch } => format!("confirmed: policy {epoch} stays"),
        Answer { epoch: 0, .. } => "rolled back: there was no policy before, every packet passes".to_owned(),
        Answer { epoch, .. } => format!("rolled back to policy {epoch}"),
    }
}
