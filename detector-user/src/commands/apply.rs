//! `detector apply`: another policy in one step, with or without a daemon.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, PolicyFile, print_json, print_line, read_policy};
use crate::{
    cli::ApplyArgs,
    clock,
    kernel::{
        apply::{apply as put, apply_until_confirmed},
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read,
    },
    policy::{self, FileDiagnostic, compile::Clocks, in_file},
};

/// What `apply` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Applied)]
pub struct Answer {
    /// Always true: what is not applied is a failure.
    pub applied: bool,
    /// The policy's name.
    pub file: String,
    /// The number that it has now.
    pub epoch: u32,
    /// How many it has.
    pub services: usize,
    /// How many it has.
    pub rules: usize,
    /// How many its rules name, those of source files included.
    pub source_prefixes: usize,
    /// Seconds until it is taken back unless it is confirmed; none: it stays.
    pub confirm_in_s: Option<u64>,
    /// What `check` warns of.
    pub warnings: Vec<FileDiagnostic>,
}

/// Applies a policy to the pinned maps.
pub fn apply(args: &ApplyArgs) -> Result<u8, Failure> {
    let file = read_policy(&args.file)?;
    if !args.force {
        file.check_force()?;
    }
    probe()?;
    let pins = Pins::new(&args.read.pins);
    let mut maps = Maps::pinned(&pins.loaded()?, Access::Write)?;
    let answer = answer(&mut maps, &pins, &file, args.confirm)?;
    if args.read.json {
        print_json(&answer)?;
        return Ok(EXIT_DONE);
    }
    if !file.checked.warnings.is_empty() {
        anstream::eprintln!("{}", policy::render(&file.name, &file.text, &file.checked.warnings).trim_end());
    }
    print_line(&text(&answer));
    Ok(EXIT_DONE)
}

/// Puts a policy in place of the active one. What `check` says needs to be forced is the caller's to refuse, with
/// [`PolicyFile::check_force`].
///
/// # Errors
///
/// As [`apply_to`].
pub fn answer(
    maps: &mut Maps,
    pins: &Pins,
    file: &PolicyFile,
    confirm: Option<Duration>,
) -> Result<Answer, Failure> {
    let epoch = apply_to(maps, pins, file, confirm)?;
    let checked = &file.checked.policy;
    Ok(Answer {
        applied: true,
        file: file.name.clone(),
        epoch,
        services: checked.services.len(),
        rules: checked.rules.len(),
        source_prefixes: checked.rules.iter().map(|rule| rule.sources.len()).sum(),
        confirm_in_s: confirm.map(|time| time.as_secs()),
        warnings: in_file(&file.name, file.checked.warnings.clone()),
    })
}

fn text(answer: &Answer) -> String {
    let Answer { file, epoch, services, rules, source_prefixes, .. } = answer;
    let applied = format!(
        "applied {file} as policy {epoch}: {services} services, {rules} rules, {source_prefixes} source prefixes"
    );
    match answer.confirm_in_s {
        None => applied,
        Some(left_s) => {
            format!("{applied}\nit is taken back in {left_s} s: keep it with `detector confirm`")
        }
    }
}

/// Compiles a policy against the one in the maps and puts it in its place.
/// With a time to confirm it in, it is taken back by itself after that.
///
/// # Errors
///
/// It does not fit, another one waits to be confirmed, or the kernel refuses. Nothing changes.
pub fn apply_to(
    maps: &mut Maps,
    pins: &Pins,
    file: &PolicyFile,
    confirm: Option<Duration>,
) -> Result<u32, Failure> {
    let _lock = pins.lock_policy()?;
    let previous = read::consistently(maps, |active| active.manifest())?.unwrap_or_default();
    let mut tables = file.compile(&previous, clocks(maps))?;
    tables.manifest.file = file.name.clone();
    tables.manifest.applied_at_s = clock::unix_s();
    Ok(match confirm {
        None => put(maps, &tables)?,
        Some(time) => apply_until_confirmed(maps, &tables, time.as_nanos() as u64)?,
    })
}

/// The clocks that a policy is compiled by now.
pub fn clocks(maps: &Maps) -> Clocks {
    Clocks {
        tick_ns: read::settings(maps).clock_tick_ns,
        kernel_ns: clock::kernel_ns(),
        unix_ns: clock::unix_ns(),
    }
}
