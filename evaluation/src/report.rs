//! Runs in lines.

use crate::measure::{COMPARED_AT_H, Run, TrueFleet};

/// Deviations of a mean within which it is in 95 of 100 cases.
const DEVIATIONS: f64 = 1.96;

/// One run: its fleets, what was found and is none, and what it took.
pub(crate) fn of_run(scenario: &str, seed: u64, run: &Run) -> String {
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
    for found in &run.found {
        lines.push(format!(
            "{scenario} {seed}: {}fleet {} at {:.2} h, {} members{}: {}",
            if found.is_false() { "FALSE " } else { "" },
            found.id,
            found.alarmed_h,
            found.members,
            if found.is_uniform { ", a new uniform population" } else { "" },
            found.told,
        ));
    }
    let of_all = run.rows as f64 / run.detecting_s.max(1e-9) / 1e6;
    lines.push(format!(
        "{scenario} {seed}: {} false, {} rows, {of_all:.2} M rows a second folded, longest look {:.2} s",
        run.found.iter().filter(|found| found.is_false()).count(),
        run.rows,
        run.longest_look_s
    ));
    lines.join("\n") + "\n"
}

/// Several runs of a scenario: means, and what 95 % of such means are within.
pub(crate) fn of_runs(scenario: &str, runs: &[Run]) -> String {
    let mut lines = Vec::new();
    for number in 0..runs.iter().map(|run| run.fleets.len()).min().unwrap_or(0) {
        let fleets: Vec<&TrueFleet> = runs.iter().map(|run| &run.fleets[number]).collect();
        let mut alarms: Vec<_> = fleets.iter().filter_map(|fleet| fleet.minutes_to_alarm).collect();
        alarms.sort_unstable();
        let compared = COMPARED_AT_H.iter().enumerate().map(|(at, hours)| {
            let all: Vec<_> = fleets.iter().filter_map(|fleet| fleet.compared[at]).collect();
            let precision = mean(all.iter().map(|compared| compared.precision()).collect());
            let recall = mean(all.iter().map(|compared| compared.recall()).collect());
            format!("{hours} h {precision} / {recall}")
        });
        lines.push(format!(
            "{scenario}, {} seeds: {}: {} alarms, after {} to {} min, half of them {}; {}",
            runs.len(),
            fleets[0].name,
            alarms.len(),
            alarms.first().unwrap_or(&0),
            alarms.last().unwrap_or(&0),
            alarms.get(alarms.len() / 2).unwrap_or(&0),
            compared.collect::<Vec<_>>().join(", ")
        ));
    }
    let of_all = |is_counted: fn(bool) -> bool| {
        let found = runs.iter().flat_map(|run| &run.found).filter(|found| found.is_false());
        found.filter(|found| is_counted(found.is_uniform)).count()
    };
    lines.push(format!(
        "{scenario}, {} seeds: {} false fleets, {} of them new uniform populations",
        runs.len(),
        of_all(|_| true),
        of_all(|is_uniform| is_uniform)
    ));
    lines.join("\n") + "\n"
}

fn mean(of: Vec<f64>) -> String {
    let count = of.len() as f64;
    if of.is_empty() {
        return "none".to_owned();
    }
    let mean = of.iter().sum::<f64>() / count;
    let variance = of.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    format!("{mean:.4} ± {:.4}", DEVIATIONS * (variance / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_what_they_are_within() {
        assert_eq!(mean(vec![0.9, 1.0, 1.0, 0.9]), "0.9500 ± 0.0566");
        assert_eq!(mean(vec![0.9]), "0.9000 ± 0.0000");
        assert_eq!(mean(vec![]), "none");
    }
}
