//! `detector apply`: another policy in one step, with or without a daemon.

use std::time::Duration;

use serde::Serialize;

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

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    applied: bool,
    file: String,
    epoch: u32,
    services: usize,
    rules: usize,
    source_prefixes: usize,
    /// Seconds until it is taken back unless it is confirmed; none: it stays.
    confirm_in_s: Option<u64>,
    warnings: Vec<FileDiagnostic>,
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
    let epoch = apply_to(&mut maps, &pins, &file, args.confirm)?;
    let checked = &file.checked.policy;
    let source_prefixes = checked.rules.iter().map(|rule| rule.sources.len()).sum();
    let (services, rules) = (checked.services.len(), checked.rules.len());
    let confirm_in_s = args.confirm.map(|time| time.as_secs());
    if args.read.json {
        let warnings = in_file(&file.name, file.checked.warnings);
        let file = file.name;
        print_json(&Answer {
            applied: true,
            file,
            epoch,
            services,
            rules,
            source_prefixes,
            confirm_in_s,
            warnings,
        })?;
        return Ok(EXIT_DONE);
    }
    if !file.checked.warnings.is_empty() {
        anstream::eprintln!("{}", policy::render(&file.name, &file.text, &file.checked.warnings).trim_end());
    }
    print_line(&format!(
        "applied {} as policy {epoch}: {services} services, {rules} rules, {source_prefixes} source prefixes",
        file.name
    ));
    if let Some(left_s) = confirm_in_s {
        print_line(&format!("it is taken back in {left_s} s: keep it with `detector confirm`"));
    }
    Ok(EXIT_DONE)
}

/// Compiles a policy against the one in the maps and puts it in its place.
/// With a time to confirm it in, it is taken back by itself after that.
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
