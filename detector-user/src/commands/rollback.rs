//! `detector rollback`: from a trial, to the version before, or to any other; with or without a daemon.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, PolicyFile, apply, print_json, print_line, version_name, warn};
use crate::{
    change::{Change, Ended, end_trial, in_kernel},
    cli::RollbackArgs,
    guard::Guard,
    history::{Author, History, HistoryError, Origin, State, Version, standing::InKernel},
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
    policy::render,
};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The version to go back to; without: from the trial, or to the version before.
    pub version: Option<u64>,
    /// The time to confirm that in.
    pub confirm: Option<Duration>,
    /// Whether to do also what is refused because it is likely to hurt.
    pub force: bool,
    /// By whom.
    pub author: &'a Author,
    /// Why.
    pub reason: Option<&'a str>,
    /// Who looks at what a version would do to the traffic, unless it is forced. Taking back a trial is asked nothing.
    pub guard: Option<&'a Guard>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RolledBack)]
pub enum Answer {
    /// A trial was taken back.
    TakenBack(TakenBack),
    /// A version was applied again.
    Again(apply::Answer),
}

/// A trial that was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub struct TakenBack {
    /// The version that was on trial; 0: it was not recorded.
    pub taken_back: u64,
    /// The version that is active now; 0: it was not recorded, or there is none.
    pub version: u64,
    /// Its epoch in the kernel; 0: there was no policy before.
    pub epoch: u32,
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
}

/// Goes back.
pub fn rollback(args: &RollbackArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = args.change.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let author = Author::current();
    let RollbackArgs { version, confirm, reason, .. } = args;
    let (version, confirm, force) = (*version, *confirm, args.change.force);
    let guard = Guard::of(&args.change.guard);
    let (author, guard) = (&author, Some(&guard));
    let request = Request { version, confirm, force, author, reason: reason.as_deref(), guard };
    let (answer, warnings) = answer(&mut maps, &pins, &args.change.write.history(), &request)?;
    if args.change.write.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    if !warnings.is_empty() {
        anstream::eprintln!("{warnings}");
    }
    let (Answer::TakenBack(TakenBack { unrecorded, .. }) | Answer::Again(apply::Answer { unrecorded, .. })) =
        &answer;
    if let Some(why) = unrecorded {
        warn(&format!("rolled back, but not recorded: {why}"));
    }
    print_line(&text(&answer));
    Ok(EXIT_DONE)
}

/// Goes back. Besides the answer the warnings of the policy that is active since, for people.
///
/// # Errors
///
/// There is nothing to go back to, or it is refused, see [`apply_to`](crate::change::apply_to).
pub fn answer(
    maps: &mut Maps,
    pins: &Pins,
    history: &History,
    request: &Request<'_>,
) -> Result<(Answer, String), Failure> {
    let Request { version, confirm, force, author, reason, guard } = *request;
    if version.is_none() && read::confirm_in_s(maps).is_some() {
        if confirm.is_some() {
            return Err(Failure::invalid(
                "a policy is on trial, and going back from it needs no confirmation: leave --confirm out, or name a version \
                 once the trial is over",
            ));
        }
        let ended = end_trial(maps, pins, history, false, author, Origin::Rollback, reason)?;
        let Ended { trial, version, epoch, unrecorded } = ended;
        let taken_back = TakenBack { taken_back: trial, version, epoch, unrecorded };
        return Ok((Answer::TakenBack(taken_back), String::new()));
    }
    let kernel = in_kernel(maps)?;
    let target = match version {
        Some(version) => history.version(version)?,
        None => before_active(maps, kernel.as_ref(), history)?,
    };
    if let (State::Failed, Some(failure)) = (target.state, &target.failure) {
        return Err(Failure::conflict(format_args!(
            "version {} never was active, the kernel did not take it: {failure}",
            target.version
        )));
    }
    let content = history.content(target.version)?;
    let file = PolicyFile::of_version(&target.file, content)?;
    let change = Change {
        confirm,
        force,
        reason,
        again: Some(target.version),
        instead_of: kernel.as_ref().filter(|_| version.is_none()),
        guard,
        ..Change::new(&file, author, Origin::Rollback)
    };
    let answer = apply::answer(maps, pins, history, &change)?;
    let warnings = render(&file.name, &file.text, &file.checked.warnings).trim_end().to_owned();
    Ok((Answer::Again(answer), warnings))
}

/// The version that was active before the active one, and is another policy. Where the active one is another one again,
/// the version before that other: so each rollback goes further back.
fn before_active(maps: &Maps, kernel: Option<&InKernel>, history: &History) -> Result<Version, Failure> {
    let Some(kernel) = kernel else {
        return Err(Failure::unavailable(
            "no policy is applied: name the version to go back to, see `detector history`",
        ));
    };
    let mut number = kernel.version;
    let found = loop {
        match history.version(number) {
            Ok(version) if number == kernel.version && !kernel.is(&version) => {
                break history.before_differing(u64::MAX, &kernel.digest)?;
            }
            Ok(version) if version.digest != kernel.digest => break Some(version),
            // Both are smaller than the version.
            Ok(Version { again: Some(earlier), .. } | Version { replaced: Some(earlier), .. }) => {
                number = earlier
            }
            Ok(_) => break history.before_differing(number, &kernel.digest)?,
            // Not recorded, pruned, or another history's: what was recorded last came before it.
            Err(HistoryError::NoVersion { .. }) => {
                break history.before_differing(u64::MAX, &kernel.digest)?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    found.ok_or_else(|| {
        Failure::conflict(format_args!(
            "no other version was active before {}: `detector history` lists what there is",
            version_name(kernel.version, read::epoch(maps))
        ))
    })
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::TakenBack(TakenBack { epoch: 0, .. }) => {
            "rolled back: there was no policy before, every packet passes".to_owned()
        }
        Answer::TakenBack(TakenBack { version, epoch, .. }) => {
            format!("rolled back to {}", version_name(*version, *epoch))
        }
        Answer::Again(answer) => apply::text(answer),
    }
}
