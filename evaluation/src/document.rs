//! docs/detection.md: all its figures come from docs/detection.json.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    chart,
    figures::{COMPARED_AT_H, Compared, Cost, Figures, Measured, TrueFleet},
    statistics::{Mean, half_within, reached_by},
    suite::{self, Target},
};

/// Names of the figures, the document and its chart.
pub(crate) const FIGURES: &str = "detection.json";
const DOCUMENT: &str = "detection.md";
const CHART: &str = "detection.svg";

/// Writes all three.
pub(crate) fn write(docs: &Path, figures: &Figures) -> Result<()> {
    let json = serde_json::to_string(figures).context("writing the figures as JSON")?;
    // A line for each run, so that changes can be read.
    let json = json.replace("{\"seed\"", "\n{\"seed\"").replace("{\"name\":\"", "\n{\"name\":\"") + "\n";
    for (name, text) in [(FIGURES, json), (DOCUMENT, text(figures)), (CHART, chart::chart(figures))] {
        let path = docs.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

const BEGINNING: &str = "\
# Detection

Written by `cargo xtask evaluate` from [detection.json](detection.json); do not edit.

All data here are simulated ([scenarios.md](scenarios.md)): rows of a generator that shares no code with detection, whose parameters were
frozen before detection was measured. **No accuracy on a real network is claimed:** no public recording has labelled fleets. What the
figures say is how detection does on what is hard on purpose, and how one version compares with another. Most rules and thresholds were
chosen on seeds from 101 on, those of an early version on seed 1. Some were changed after a look at seeds that are reported here, which are no
independent test of them: scripts on a schedule, and how many members a fleet begins with (`cron bursts`, seeds 1 to 3); who moves behind a relay
(`everything`, seed 1); bands of volumes (`everything` and `sdk release`, seed 1); when people behind a relay are told as such (`privacy relay`, seed 6).
Seeds of a scenario differ in chance only, so intervals say nothing about other parameters. Reported are as many seeds as each table says, from 1 on.
To reproduce:

    cargo xtask evaluate [--seeds N] [SCENARIO…]

runs scenarios of `tests/scenarios` and writes this document anew; `--quick` takes about three minutes, and writes nothing. A scenario and a seed
give the same rows and the same fleets each time.

Precision is the part of what is said to be members that is, recall the part of the members of the last 24 hours that is said to be; in
percent, the mean over seeds, and in brackets what it is within in 95 of 100 cases (percentiles of 4,000 samples of the seeds, where there are ten or more). Who has no alarm yet has neither. `alarm` is from the first exchange
of a fleet's plan to the end of the window that saw it: the minutes within which half of the seeds have it, what these are within, and those of nine of ten. A target holds where half of
the seeds have the alarm in time, and the means of precision, recall and of what others lose are good enough; single seeds may be worse.

A false fleet is one of whose members fewer than a tenth belonged to any fleet of the truth, beside the true one in recordings that have one.
Collateral is the share of the legitimate exchanges of the day after a fleet's first that sources made which are, at the end of that day, wrongly
among the members of fleets that may be acted on. Who was a member only for a part of it does not count.

What is known to stand behind missed targets: fleets begin at midnight, UTC, and L4 keeps to the evenings of homes, so one with a hundredth of the
sources has sent less than what a cell needs (25 sources more than expected) for hours. Its members differ from people behind a proxy in little.
At the beginning of the fifth day few sources are known, so that most users are new: longer recordings would have less of it. L5 has no gap
and does unrelated things: it is a blind spot. L0 to L2 are found well because the generator puts servers of a fleet next to each other; of one on
single servers all over the world expect a recall of about a half, which L0 with a hundredth had before neighbours were asked.
Who used a service twelve hours before a fleet came is taken for none of its members: an actor whose addresses each make a visit days ahead evades that, and so
does one whose exits are in the homes of users; no scenario has either. The same is true of the oldest sources of a fleet that is found
late, if it keeps them.

![Precision and recall by level](detection.svg)
";

/// The text of the document.
pub(crate) fn text(figures: &Figures) -> String {
    let mut text = BEGINNING.to_owned();
    for (place, share) in
        ["A tenth of the daily sources is a fleet", "A hundredth of the daily sources is a fleet"]
            .into_iter()
            .enumerate()
    {
        let _ = write!(text, "\n## {share}\n\n{}", levels(figures, place));
    }
    let _ = write!(text, "\n## What is no fleet\n\n{}", negatives(figures));
    let _ = write!(text, "\n## Further fleets\n\n{}", further(figures));
    let _ = write!(text, "\n## Cost\n\n{}", of_cost(figures.cost.as_ref()));
    text
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|---{}|\n", header.join(" | "), "|--:".repeat(header.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// What all seeds of a scenario's first fleet have in common.
pub(crate) struct Summary {
    pub(crate) seeds: usize,
    /// Minutes within which half of the seeds have an alarm, and nine of ten.
    pub(crate) alarm_min: [Option<u64>; 2],
    /// What the first of them are within in 95 of 100 cases.
    half_within: Option<[Option<u64>; 2]>,
    /// Precision and recall at each of [`COMPARED_AT_H`].
    pub(crate) compared: [[Option<Mean>; 2]; COMPARED_AT_H.len()],
}

impl Summary {
    pub(crate) fn of(fleets: &[&TrueFleet]) -> Self {
        let alarms: Vec<_> = fleets.iter().map(|fleet| fleet.minutes_to_alarm).collect();
        let mean = |at: usize, of: fn(Compared) -> f64| {
            let all: Vec<f64> = fleets.iter().filter_map(|fleet| fleet.compared[at]).map(of).collect();
            Mean::of(&all)
        };
        Self {
            seeds: fleets.len(),
            alarm_min: [50, 90].map(|part| reached_by(part, &alarms)),
            half_within: half_within(&alarms),
            compared: std::array::from_fn(|at| [mean(at, Compared::precision), mean(at, Compared::recall)]),
        }
    }

    pub(crate) fn of_scenario(measured: &Measured) -> Self {
        Self::of(&measured.runs.iter().filter_map(|run| run.fleets.first()).collect::<Vec<_>>())
    }
}

fn minutes(minutes: Option<u64>) -> String {
    minutes.map_or_else(|| "never".to_owned(), |minutes| minutes.to_string())
}

/// Within which half of the seeds have an alarm.
fn half(summary: &Summary) -> String {
    let half = minutes(summary.alarm_min[0]);
    let Some(within) = summary.half_within else { return half };
    let [least, most] = within.map(minutes);
    format!("{half} ({least} – {most})")
}

fn percent(mean: Option<Mean>) -> String {
    mean.map_or_else(|| "–".to_owned(), |mean| mean.to_string())
}

fn levels(figures: &Figures, place: usize) -> String {
    let header = [
        "level",
        "seeds",
        "alarm, min: half",
        "nine of ten",
        "precision at 6 h",
        "recall at 6 h",
        "precision at 24 h",
        "recall at 24 h",
        "target",
        "",
        "false fleets",
        "that may be acted on",
        "legitimate exchanges hit, %",
        "of the worst seed",
        "seeds in which it may be acted on",
    ];
    let row = |level: &&str| {
        let measured = figures.of(&suite::of_level(level)[place])?;
        let summary = Summary::of_scenario(measured);
        let target = suite::targets(level).map(|targets| targets[place]);
        let hit: Vec<_> = measured.runs.iter().filter_map(|run| run.collateral).collect();
        let hit_most = hit.iter().copied().fold(0.0, f64::max);
        let hit = Mean::of(&hit);
        let (promised, verdict) = target.map_or_else(
            || ("reported only".to_owned(), String::new()),
            |target| (promise(target), verdict(target, &summary, hit.map_or(0.0, |hit| hit.mean))),
        );
        let [at_6, at_24, _] = summary.compared;
        let false_fleets = measured.runs.iter().flat_map(|run| &run.false_fleets);
        let is_acted_on =
            |run: &&crate::figures::Run| run.fleets.first().is_some_and(|fleet| fleet.may_be_acted_on);
        Some(vec![
            level.to_uppercase(),
            summary.seeds.to_string(),
            half(&summary),
            minutes(summary.alarm_min[1]),
            percent(at_6[0]),
            percent(at_6[1]),
            percent(at_24[0]),
            percent(at_24[1]),
            promised,
            verdict,
            false_fleets.clone().count().to_string(),
            false_fleets.filter(|found| found.may_be_acted_on).count().to_string(),
            hit.map_or_else(String::new, |hit| hit.percent(4)),
            format!("{:.4}", hit_most * 100.0),
            measured.runs.iter().filter(is_acted_on).count().to_string(),
        ])
    };
    table(&header, suite::LEVELS.iter().filter_map(row))
}

fn promise(target: Target) -> String {
    format!(
        "≤ {} min; {} h {} / {}; hit ≤ 0.01",
        target.alarm_min,
        COMPARED_AT_H[target.compared],
        (target.precision * 1000.0).round() / 10.0,
        (target.recall * 1000.0).round() / 10.0
    )
}

/// Which parts of a target are missed, by the median and by means. `hit`: the share of legitimate exchanges that is.
fn verdict(target: Target, summary: &Summary, hit: f64) -> String {
    let [precision, recall] =
        summary.compared[target.compared].map(|mean| mean.map_or(0.0, |mean| mean.mean));
    let is_late = summary.alarm_min[0].is_none_or(|minutes| minutes > target.alarm_min);
    let missed = [
        ("alarm", is_late),
        ("precision", precision < target.precision),
        ("recall", recall < target.recall),
        ("exchanges hit", hit > suite::HIT_MAX),
    ];
    let missed: Vec<_> =
        missed.into_iter().filter_map(|(what, is_missed)| is_missed.then_some(what)).collect();
    if missed.is_empty() { "holds".to_owned() } else { format!("**missed: {}**", missed.join(", ")) }
}

fn holds(holds: bool) -> String {
    if holds { "holds".to_owned() } else { "**missed**".to_owned() }
}

fn negatives(figures: &Figures) -> String {
    let row = |name: &&str| {
        let measured = figures.of(name)?;
        let all = || measured.runs.iter().flat_map(|run| &run.false_fleets);
        let of = |is_counted: fn(&&crate::figures::FalseFleet) -> bool| {
            all().filter(is_counted).count().to_string()
        };
        Some(vec![
            name.trim_start_matches("hard-negative-").replace('-', " "),
            measured.runs.len().to_string(),
            measured.days.to_string(),
            format!("{:.0}", measured.daily_sources),
            all().count().to_string(),
            of(|found| found.is_uniform),
            of(|found| found.may_be_acted_on),
            all().map(|found| found.members).max().unwrap_or(0).to_string(),
            holds(!all().any(|found| found.may_be_acted_on)),
        ])
    };
    let header = [
        "scenario",
        "seeds",
        "days",
        "daily sources",
        "false fleets",
        "shown as a new uniform population",
        "that may be acted on",
        "most members",
        "none that may be acted on",
    ];
    format!(
        "Recordings without a fleet. A new uniform population is shown with the innocent explanation beside it, and is never more than a\n\
         suggestion unless an operator forces it. The target: none that may be acted on. For that a fleet has to be no new uniform population, and its predicted collateral\n\
         at most 0.005 %. Devices that are launched are to be shown. `everything` is 30 days with all of them; the target is for 300,000 sources\n\
         a day, which `everything 300k` has, with few seeds, since it takes long. Where none of n seeds has one, up to 3 / n of such months may have\n\
         one (95 of 100 times): 15 % for 20.\n\n{}",
        table(&header, suite::NEGATIVES.iter().filter_map(row))
    )
}

fn further(figures: &Figures) -> String {
    let mut rows = Vec::new();
    for measured in suite::FURTHER.iter().filter_map(|name| figures.of(name)) {
        for number in 0..measured.runs.iter().map(|run| run.fleets.len()).min().unwrap_or(0) {
            let fleets: Vec<_> = measured.runs.iter().map(|run| &run.fleets[number]).collect();
            let summary = Summary::of(&fleets);
            let [at_6, at_24, at_168] = summary.compared;
            rows.push(vec![
                format!("{}: {}", measured.name, fleets[0].name),
                fleets[0].level.clone(),
                fleets[0].sources.to_string(),
                format!("{:.1}", fleets[0].share * 100.0),
                summary.seeds.to_string(),
                half(&summary),
                minutes(summary.alarm_min[1]),
                percent(at_6[0]),
                percent(at_6[1]),
                percent(at_24[0]),
                percent(at_24[1]),
                percent(at_168[0]),
                percent(at_168[1]),
                found_with(measured, number),
            ]);
        }
    }
    let header = [
        "fleet",
        "level",
        "sources a day",
        "share, %",
        "seeds",
        "alarm, min: half",
        "nine of ten",
        "precision at 6 h",
        "recall at 6 h",
        "precision at 24 h",
        "recall at 24 h",
        "precision after 7 days",
        "recall after 7 days",
        "found as one with",
    ];
    format!(
        "Targets: 500 sources on a rare key and 2,000 on a popular key with a gap have an alarm within 24 h, 1,440 minutes.\n\
         Fleets from data centres that come to one service are found as one, and have one budget; members of another one of those are neither right\n\
         nor wrong in a fleet's precision.\n\n{}",
        table(&header, rows)
    )
}

/// The other fleets of a scenario that were ever found under the number of one, and in how many seeds.
fn found_with(measured: &Measured, number: usize) -> String {
    let count = |other: usize| {
        let is_one = |run: &&crate::figures::Run| {
            run.fleets[other].found_as.iter().any(|id| run.fleets[number].found_as.contains(id))
        };
        measured.runs.iter().filter(is_one).count()
    };
    let others = measured.runs.first().map_or(0, |run| run.fleets.len());
    let with: Vec<_> = (0..others)
        .filter(|&other| other != number && count(other) > 0)
        .map(|other| format!("{} ({})", measured.runs[0].fleets[other].name, count(other)))
        .collect();
    if with.is_empty() { "–".to_owned() } else { with.join(", ") }
}

/// What detection costs, with targets.
pub(crate) fn of_cost(cost: Option<&Cost>) -> String {
    let Some(cost) = cost else { return "Not measured.\n".to_owned() };
    let millions = |rows: f64| format!("{:.2}", rows / 1e6);
    let megabytes = |bytes: u64| (bytes / 1_000_000).to_string();
    let at_most = format!("≤ {}", suite::MEMORY_BYTES_MAX / 1_000_000);
    let at_least = format!("≥ {:.0}", suite::ROWS_A_SECOND_MIN / 1e6);
    let row = |what: &str, target: &str, [measured, had, found]: [String; 3], does_hold: bool| {
        vec![what.to_owned(), target.to_owned(), measured, had, found, holds(does_hold)]
    };
    let rate = |what: &str, rows_a_second: f64, share: f64| {
        let of_a_core = rows_a_second / share;
        let found = [millions(rows_a_second), format!("{:.0} %", share * 100.0), millions(of_a_core)];
        row(what, &at_least, found, rows_a_second >= suite::ROWS_A_SECOND_MIN)
    };
    let memory = |what: &str, bytes: u64| {
        row(
            what,
            &at_most,
            [megabytes(bytes), String::new(), String::new()],
            bytes <= suite::MEMORY_BYTES_MAX,
        )
    };
    let rows = [
        rate(
            "rows folded, as the daemon does, without looks, M a second",
            cost.rows_a_second,
            cost.core_share,
        ),
        rate(
            "rows read from recordings and folded, as `hunt` does, without looks, M a second",
            cost.hunted_rows_a_second,
            cost.hunted_core_share,
        ),
        row(
            "longest look at windows of 1, 6 and 24 h, s",
            &format!("≤ {:.0}", suite::LOOK_S_MAX),
            [format!("{:.2}", cost.look_s), String::new(), String::new()],
            cost.look_s <= suite::LOOK_S_MAX,
        ),
        memory("most memory in four hours after a restart, MB", cost.memory_bytes),
        memory("most memory at the start, while the saved state is read, MB", cost.restored_bytes),
    ];
    format!(
        "Days of {} sources and {:.1} M rows in all, in time that one thread was running. On the last one a fleet comes, of which {} members were found.\n\
         Where a processor is one of two threads of a core, what the other one does for somebody else takes of it, which no clock shows: so some arithmetic without\n\
         memory is timed thousands of times between. *Core had* is what that says was there, where its fastest hundredth had the whole core; what others take of\n\
         caches and of the way to memory is not in it. *Of a core* is what was measured, by that part: an estimate.\n\
         Targets are held to what was measured.\n\n{}",
        cost.sources,
        cost.rows as f64 / 1e6,
        cost.members,
        table(&["what", "target", "measured", "core had", "of a core", ""], rows)
    )
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// What is rendered of the figures is what stands beside them; `DETECTOR_WRITE_DOCS=1` writes it anew.
    #[test]
    fn the_documents_are_what_the_figures_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a document");
        let figures: Figures = serde_json::from_str(&read(FIGURES)).expect("figures");
        if env::var_os("DETECTOR_WRITE_DOCS").is_some() {
            write(&folder, &figures).expect("documents are written");
            return;
        }
        assert!(read(DOCUMENT) == text(&figures), "docs/{DOCUMENT} is not what its figures say");
        assert!(read(CHART) == chart::chart(&figures), "docs/{CHART} is not what its figures say");
    }

    #[test]
    fn what_is_missed_is_said() {
        let fleet = |minutes_to_alarm, right| TrueFleet {
            minutes_to_alarm,
            compared: [Some(Compared { right, found: 1000, members: 1000 }); 3],
            ..TrueFleet::default()
        };
        let target = suite::targets("l1").expect("there are some")[0];
        let of = |fleet: TrueFleet| verdict(target, &Summary::of(&[&fleet]), 0.0);
        assert_eq!(of(fleet(Some(15), 999)), "holds");
        assert_eq!(of(fleet(Some(45), 992)), "**missed: alarm, precision**");
        assert_eq!(of(fleet(None, 0)), "**missed: alarm, precision, recall**");
        assert_eq!(
            verdict(target, &Summary::of(&[&fleet(Some(15), 999)]), 0.000_2),
            "**missed: exchanges hit**"
        );
        assert_eq!(promise(target), "≤ 30 min; 6 h 99.5 / 99; hit ≤ 0.01");
    }
}
