//! `detector plan FILE`: what a policy would change, for which sources of the live table; from the pinned maps alone.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    EXIT_DONE, Failure, PolicyFile, print_json, print_line, read_policy,
    rules::{IdleIncident, idle_incidents},
    table, version_name,
};
use crate::{
    change::clocks,
    cli::PlanArgs,
    guard::{self, Guard, Impact, Loaded, Openings, Refusal, Victim, impact, say_waiting},
    kernel::{apply::ApplyError, mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
    policy::{
        self, FileDiagnostic,
        compile::{Beside, Standard},
        difference::{Change, Difference, Happened, Kind, SourceChange, difference},
        in_file,
    },
    traffic::Traffic,
};

/// What a policy would change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct Answer {
    /// The policy's file.
    pub file: String,
    /// The policy that is loaded.
    pub policy: u32,
    /// Its version; 0: it could not be recorded.
    pub version: u64,
    /// Where that came from.
    pub policy_file: String,
    /// What the two differ in.
    pub difference: Difference,
    /// What that does to the sources of the table.
    pub impact: Impact,
    /// Whether `apply` would refuse it without `--force`.
    pub refused: bool,
    /// Why: the guards.
    pub refusal: Refusal,
    /// Why: rules about nearly everyone.
    pub needs_force: Vec<FileDiagnostic>,
    /// Incident rules about services that it does not have.
    pub idle_incidents: Vec<IdleIncident>,
}

/// Compares a policy with the one that is loaded.
pub fn plan(args: &PlanArgs) -> Result<u8, Failure> {
    let file = read_policy(&args.file)?;
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let guard = Guard::of(&args.guard);
    let traffic = guard.watching.traffic(&maps, say_waiting);
    let answer = answer(&maps, &file, &guard, &traffic, args.victims)?;
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

/// Compares a policy with the one in the maps; of victims and relieved sources at most so many are named.
///
/// # Errors
///
/// No policy is loaded, the maps cannot be read, or the policy does not fit.
pub fn answer(
    maps: &Maps,
    file: &PolicyFile,
    guard: &Guard,
    traffic: &Traffic,
    victims_max: usize,
) -> Result<Answer, Failure> {
    let loaded = Loaded::read(maps)?;
    let Some(before) = loaded.judge() else {
        return Err(Failure::unavailable("no policy is loaded to compare with: `detector apply FILE`"));
    };
    let mut tables = file.compile(&before.tables.manifest, clocks(maps))?;
    let incidents = before.tables.beside.as_ref().map(|beside| beside.incidents.clone()).unwrap_or_default();
    let idle_incidents = idle_incidents(&incidents, |name| tables.manifest.services.contains_key(name));
    tables.beside =
        Beside::new(incidents, &Standard::of(&tables), tables.clocks).map_err(ApplyError::from)?;
    let after = loaded.judge_by(&tables);
    let impact = impact(&before, &after, traffic, victims_max);
    let lockouts = guard::lockouts(&guard.host, &Openings::counted(maps), Some(&before), &after);
    let blast = guard.blast(impact.clone());
    let needs_force = file.checked.warnings.iter().filter(|warning| warning.needs_force).cloned();
    let needs_force = in_file(&file.name, needs_force.collect());
    let unselective = guard::unselective(maps, Some(before.tables), &tables);
    let refusal = Refusal { lockouts, blast, unselective };
    Ok(Answer {
        file: file.name.clone(),
        policy: before.tables.header.epoch as u32,
        version: before.tables.manifest.version,
        policy_file: before.tables.manifest.file.clone(),
        difference: difference(before.tables, &tables, read::now(maps)),
        impact,
        refused: !refusal.is_empty() || !needs_force.is_empty(),
        refusal,
        needs_force,
        idle_incidents,
    })
}

fn text(answer: &Answer) -> String {
    let Answer { file, policy, version, policy_file, difference, impact, .. } = answer;
    let name = version_name(*version, *policy);
    let mut lines = vec![format!("{file} against {name}, {policy_file}"), String::new()];
    lines.extend(difference.changes.iter().map(change));
    lines.extend(difference.sources.iter().flat_map(source_change));
    if *difference == Difference::default() {
        lines.push("nothing differs".to_owned());
    }
    lines.extend(answer.idle_incidents.iter().map(ToString::to_string));
    lines.extend([String::new(), seen(impact)]);
    if !impact.moves.is_empty() {
        let rows = impact.moves.iter().map(|change| {
            let number = |number: f64| format!("{number:.0}");
            vec![
                change.from.clone(),
                change.to.clone(),
                change.sources.to_string(),
                number(change.packets_per_s),
            ]
        });
        lines.extend([String::new(), table(&["FROM", "TO", "SOURCES", "PACKETS/S"], &[2, 3], rows)]);
    }
    let lists = [
        (impact.starts, "would start to be dropped; more would be dropped of", &impact.victims),
        (impact.stops, "would no longer be dropped; less would be dropped of", &impact.relieved),
    ];
    for (sources, what, named) in lists.into_iter().filter(|(.., named)| !named.is_empty()) {
        lines.extend([String::new(), format!("{sources} sources {what}:"), victims(named)]);
    }
    if answer.refused {
        lines.extend([String::new(), "would be refused by the guards, unless forced:".to_owned()]);
        lines.extend(answer.refusal.reasons().into_iter().map(|reason| format!("  {reason}")));
        let broad = answer.needs_force.iter().map(|placed| format!("  {}", placed.diagnostic.message));
        lines.extend(broad);
    }
    lines.join("\n")
}

fn seen(impact: &Impact) -> String {
    format!(
        "{} sources in the table, {} change class; in the last {:.0} s {:.0} packets a second, \
         {:.0} of them newly dropped ({:.1} %)",
        impact.sources,
        impact.sources_changed,
        impact.window_s,
        impact.packets_per_s,
        impact.newly_dropped_per_s,
        impact.newly_dropped_share * 100.0
    )
}

fn change(change: &Change) -> String {
    let kind = match change.kind {
        Kind::Defaults => "",
        Kind::Service => "service ",
        Kind::Profile => "profile ",
        Kind::Rule => "rule ",
    };
    let sign = match change.change {
        Happened::Added => '+',
        Happened::Removed => '-',
        Happened::Changed => '~',
    };
    let attributes: Vec<_> = change
        .attributes
        .iter()
        .map(|attribute| match (&attribute.before, &attribute.after) {
            (Some(before), Some(after)) => format!("{}: {before} → {after}", attribute.name),
            (Some(value), None) if change.change == Happened::Changed => {
                format!("{}: {value} → nothing", attribute.name)
            }
            (None, Some(value)) if change.change == Happened::Changed => {
                format!("{}: nothing → {value}", attribute.name)
            }
            (value, None) | (None, value) => {
                format!("{}: {}", attribute.name, value.as_deref().unwrap_or_default())
            }
        })
        .collect();
    format!("{sign} {kind}{}: {}", change.name, attributes.join("; "))
}

fn source_change(change: &SourceChange) -> Vec<String> {
    let line = |sign: char, count: usize, first: &[String]| {
        let more = if count > first.len() { ", …" } else { "" };
        format!("{sign} {count} source prefixes of {}: {}{more}", change.name, first.join(", "))
    };
    let added = (change.added > 0).then(|| line('+', change.added, &change.first_added));
    let removed = (change.removed > 0).then(|| line('-', change.removed, &change.first_removed));
    added.into_iter().chain(removed).collect()
}

fn victims(victims: &[Victim]) -> String {
    let rows = victims.iter().map(|victim| {
        let mut row =
            vec![victim.source.clone(), victim.service.clone(), victim.from.clone(), victim.to.clone()];
        let numbers = [victim.packets_per_s, victim.dropped_per_s, victim.would_drop_per_s];
        row.extend(numbers.map(|number| format!("{number:.0}")));
        row
    });
    let header = ["SOURCE", "SERVICE", "FROM", "TO", "PACKETS/S", "DROPPED/S", "WOULD DROP/S"];
    table(&header, &[4, 5, 6], rows)
}
