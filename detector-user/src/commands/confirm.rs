//! `detector confirm`: a policy on trial stays, with or without a daemon.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line, version_name, warn};
use crate::{
    change::{Ended, end_trial},
    cli::WriteArgs,
    history::{Author, History, Origin},
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe},
};

/// What `confirm` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Confirmed)]
pub struct Answer {
    /// Always true: what is refused is a failure.
    pub confirmed: bool,
    /// The version that stays; 0: it was not recorded.
    pub version: u64,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// Why the history does not have that it was confirmed.
    pub unrecorded: Option<String>,
}

/// Keeps the policy that is on trial.
pub fn confirm(args: &WriteArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = args.pins();
    let maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let answer = answer(&maps, &pins, &args.history(), &Author::current(), Origin::Command)?;
    if args.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    if let Some(why) = &answer.unrecorded {
        warn(&format!("confirmed, but not recorded: {why}"));
    }
    print_line(&format!("confirmed: {} stays", version_name(answer.version, answer.epoch)));
    Ok(EXIT_DONE)
}

/// Keeps the policy that is on trial.
///
/// # Errors
///
/// None is.
pub fn answer(
    maps: &Maps,
    pins: &Pins,
    history: &History,
    author: &Author,
    origin: Origin,
) -> Result<Answer, Failure> {
    let Ended { version, epoch, unrecorded, .. } =
        end_trial(maps, pins, history, true, author, origin, None)?;
    Ok(Answer { confirmed: true, version, epoch, unrecorded })
}
