//! `detector apply`: another policy in one step, with or without a daemon.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line, read_policy, rules::IdleIncident, warn};
use crate::{
    change::{Applied, Change, apply_to},
    cli::ApplyArgs,
    guard::Guard,
    history::{Author, History, Origin},
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe},
    policy::{FileDiagnostic, in_file, render},
};

/// What `apply` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Applied)]
pub struct Answer {
    /// Always true: what is not applied is a failure.
    pub applied: bool,
    /// The policy's name.
    pub file: String,
    /// Its version; 0: it could not be recorded.
    pub version: u64,
    /// Whether that is a new one: not where the same policy was active already.
    pub is_new: bool,
    /// The version that it is again.
    pub again: Option<u64>,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// How many services it has.
    pub services: usize,
    /// How many rules.
    pub rules: usize,
    /// How many source prefixes these name, those of source files included.
    pub source_prefixes: usize,
    /// Seconds until it is taken back unless it is confirmed; none: it stays.
    pub confirm_in_s: Option<u64>,
    /// What `check` warns of.
    pub warnings: Vec<FileDiagnostic>,
    /// Incident rules about services that it does not have.
    pub idle_incidents: Vec<IdleIncident>,
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
}

/// Applies a policy to the pinned maps.
pub fn apply(args: &ApplyArgs) -> Result<u8, Failure> {
    let file = read_policy(&args.file)?;
    probe()?;
    let pins = args.change.write.pins();
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let author = Author::current();
    let guard = Guard::of(&args.change.guard);
    let change = Change {
        guard: Some(&guard),
        confirm: args.confirm,
        force: args.change.force,
        reason: args.reason.as_deref(),
        ..Change::new(&file, &author, Origin::Apply)
    };
    let answer = answer(&mut maps, &pins, &args.change.write.history(), &change)?;
    if args.change.write.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    let warnings = &file.checked.warnings;
    if !warnings.is_empty() {
        anstream::eprintln!("{}", render(&file.name, &file.text, warnings).trim_end());
    }
    if let Some(why) = &answer.unrecorded {
        warn(&format!("applied, but not recorded: {why}"));
    }
    print_line(&text(&answer));
    Ok(EXIT_DONE)
}

/// Puts a policy in place of the active one.
///
/// # Errors
///
/// It is refused, see [`apply_to`].
pub fn answer(
    maps: &mut Maps,
    pins: &Pins,
    history: &History,
    change: &Change<'_>,
) -> Result<Answer, Failure> {
    let Applied { version, is_new, epoch, idle_incidents, unrecorded } =
        apply_to(maps, pins, history, change)?;
    let Change { file, confirm, again, .. } = change;
    let policy = &file.checked.policy;
    Ok(Answer {
        applied: true,
        file: file.name.clone(),
        version,
        is_new,
        again: *again,
        epoch,
        services: policy.services.len(),
        rules: policy.rules.len(),
        source_prefixes: policy.rules.iter().map(|rule| rule.matches.sources().len()).sum(),
        confirm_in_s: confirm.map(|time| time.as_secs()),
        warnings: in_file(&file.name, file.checked.warnings.clone()),
        idle_incidents,
        unrecorded,
    })
}

/// For people, without its warnings.
pub(super) fn text(answer: &Answer) -> String {
    let Answer { file, version, services, rules, source_prefixes, .. } = answer;
    let what = match (answer.again, answer.is_new) {
        (Some(again), true) => format!("version {version} = version {again} again ({file})"),
        (_, true) => format!("applied {file} as version {version}"),
        (_, false) if *version == 0 => {
            format!("applied {file} as policy {}, without a version", answer.epoch)
        }
        (_, false) => format!("applied {file} again: it is version {version}, which is active already"),
    };
    let mut text = format!("{what}: {services} services, {rules} rules, {source_prefixes} source prefixes");
    text.extend(answer.idle_incidents.iter().map(|idle| format!("\n{idle}")));
    if let Some(left_s) = answer.confirm_in_s {
        text += &format!("\nit is taken back in {left_s} s: keep it with `detector confirm`");
    }
    text
}
