//! Runs in lines of text.

use crate::{
    figures::{COMPARED_AT_H, Measured, Run, TrueFleet},
    measure::FoundFleet,
    statistics::{Mean, reached_by},
};

/// One run: its fleets, what was found, and with how many rows.
pub(crate) fn of_run(scenario: &str, run: &Run, found: &[FoundFleet]) -> String {
    let seed = run.seed;
    let mut lines = Vec::new();
    for fleet in &run.fleets {
        let alarm = fleet
            .minutes_to_alarm
            .map_or("no alarm".to_owned(), |minutes| format!("alarm after {minutes} min"));
        let compared = COMPARED_AT_H.iter().zip(fleet.compared).filter_map(|(hours, compared)| {
            let compared = compared?;
            Some(format!("{hours} h {:.4} / {:.4}", compared.precision(), compared.recall()))
        });
        lines.push(format!(
            "{scenario} {seed}: {} {} {:.1} %: {alarm}; {}; found as {:?}{}",
            fleet.name,
            fleet.level,
            fleet.share * 100.0,
            compared.collect::<Vec<_>>().join(", "),
            fleet.found_as,
            if fleet.may_be_acted_on { "" } else { ", never more than a suggestion" },
        ));
    }
    for found in found {
        lines.push(format!(
            "{scenario} {seed}: {}{}fleet {} at {:.2} h, {} members{}: {}",
            if found.is_false() { "FALSE " } else { "" },
            if found.is_false() && found.may_be_acted_on { "ACTS " } else { "" },
            found.id,
            found.alarmed_h,
            found.members,
            if found.is_uniform { ", a new uniform population" } else { "" },
            found.told,
        ));
    }
    let collateral = run
        .collateral
        .map_or_else(String::new, |share| format!(", {:.4} % of legitimate exchanges hit", share * 100.0));
    lines.push(format!("{scenario} {seed}: {} false{collateral}, {} rows", run.false_fleets.len(), run.rows));
    lines.join("\n") + "\n"
}

/// Several runs of a scenario: means, and what 95 % of such means are within.
pub(crate) fn of_runs(measured: &Measured) -> String {
    let (scenario, runs) = (&measured.name, &measured.runs);
    let mut lines = Vec::new();
    for number in 0..runs.iter().map(|run| run.fleets.len()).min().unwrap_or(0) {
        let fleets: Vec<&TrueFleet> = runs.iter().map(|run| &run.fleets[number]).collect();
        let alarms: Vec<_> = fleets.iter().map(|fleet| fleet.minutes_to_alarm).collect();
        let compared = COMPARED_AT_H.iter().enumerate().filter_map(|(at, hours)| {
            let all: Vec<_> = fleets.iter().filter_map(|fleet| fleet.compared[at]).collect();
            let precision = Mean::of(&all.iter().map(|one| one.precision()).collect::<Vec<_>>())?;
            let recall = Mean::of(&all.iter().map(|one| one.recall()).collect::<Vec<_>>())?;
            Some(format!("{hours} h {precision} / {recall}"))
        });
        let minutes = |hundredths| {
            reached_by(hundredths, &alarms).map_or_else(|| "never".to_owned(), |minutes| minutes.to_string())
        };
        lines.push(format!(
            "{scenario}, {} seeds: {}: alarm after {} min, in nine of ten after {}; {}",
            runs.len(),
            fleets[0].name,
            minutes(50),
            minutes(90),
            compared.collect::<Vec<_>>().join(", ")
        ));
    }
    let all = || runs.iter().flat_map(|run| &run.false_fleets);
    lines.push(format!(
        "{scenario}, {} seeds: {} false fleets, {} of them new uniform populations, {} that may be acted on",
        runs.len(),
        all().count(),
        all().filter(|found| found.is_uniform).count(),
        all().filter(|found| found.may_be_acted_on).count()
    ));
    lines.join("\n") + "\n"
}
