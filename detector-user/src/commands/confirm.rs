//! `detector confirm` and `detector rollback`: the end of a policy on trial, with or without a daemon.

use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json, print_line};
use crate::{
    cli::ReadArgs,
    kernel::{apply, mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
};

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    confirmed: bool,
    /// The policy that is active now; 0: none.
    epoch: u32,
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
    let _lock = pins.lock_policy()?;
    let is_done = if confirmed { apply::confirm(&maps) } else { apply::take_back(&maps) };
    if !is_done {
        return Err(Failure::failed(NOTHING_WAITS));
    }
    let epoch = read::epoch(&maps);
    if args.json {
        print_json(&Answer { confirmed, epoch })?;
    } else if confirmed {
        print_line(&format!("confirmed: policy {epoch} stays"));
    } else if epoch == 0 {
        print_line("rolled back: there was no policy before, every packet passes");
    } else {
        print_line(&format!("rolled back to policy {epoch}"));
    }
    Ok(EXIT_DONE)
}
