//! `detector fleets`: what the daemon knows of fleets, by what it told last.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, fleet_order, print_json, print_line, rfc3339, table, time, warn};
use crate::{
    cli::FleetsArgs,
    fleets::{
        Found, Report, Store, Told,
        report::Learning,
        text::{action_text, counted, screen},
        told::{self, ActionTold, Health, Looking},
    },
    history::History,
};

/// A fleet, and whether it is in the history only.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetAnswer)]
pub struct One {
    /// The fleet.
    #[serde(flatten)]
    pub fleet: Found,
    /// Whether it is no fleet of its own any more, and is in the history: with some of its members, as it was last.
    pub is_past: bool,
    /// The number of the fleet that it was found to be a part of; null: of none that is known.
    pub part_of: Option<String>,
    /// How many members it has, or had last.
    pub member_count: u64,
    /// What is done about it, and why; null: nothing was decided yet.
    pub action: Option<ActionTold>,
}

/// Tells of fleets.
pub fn fleets(args: &FleetsArgs) -> Result<u8, Failure> {
    if args.stop || args.resume {
        return fleet_order::switch(args);
    }
    let pins = args.write.pins();
    let history = args.write.history();
    let told = told::read(&Store::directory(history.directory(), &args.write.read.pins))?;
    if !pins.is_daemon_alive() {
        match &told {
            Some(told) => warn(&format!(
                "no daemon runs: this is what one told at {}, and `detector explain ADDRESS` says what the kernel does now; start `detector run` again",
                time(told.detection.at_s)
            )),
            None => warn("no daemon runs, and none told of fleets here yet: start `detector run`"),
        }
    }
    let told = told.unwrap_or_default();
    match args.id {
        None if args.write.read.json => print_json(&told)?,
        None => print_line(&text(&told)),
        Some(id) => {
            let one = one(&told, &history, &id.to_string())?;
            if args.write.read.json {
                print_json(&one)?;
            } else {
                print_line(&one_text(&one));
            }
        }
    }
    Ok(EXIT_DONE)
}

/// A fleet by its number, of those that are known or were.
///
/// # Errors
///
/// There is none with this number, or the history cannot be read.
pub fn one(told: &Told, history: &History, id: &str) -> Result<One, Failure> {
    if let Some(fleet) = told.report.fleet(id) {
        let member_count = fleet.members.len() as u64;
        let action = told.action(id).cloned();
        return Ok(One { fleet: fleet.clone(), is_past: false, part_of: None, member_count, action });
    }
    let known = || {
        let ids: Vec<_> = told.report.fleets.iter().map(|fleet| fleet.id.as_str()).collect();
        if ids.is_empty() { "there is none".to_owned() } else { format!("known are {}", ids.join(", ")) }
    };
    let part_of = told.report.whole_of(id).map(|whole| whole.id.clone());
    let unknown = || match &part_of {
        Some(whole) => Failure::invalid(format!(
            "fleet {id} is a part of fleet {whole} since: `detector fleets {whole}`"
        )),
        None => Failure::invalid(format!("there is no fleet {id:?}: {}", known())),
    };
    let number = id.parse().map_err(|_| unknown())?;
    let (fleet, member_count) = history.fleet(number)?.ok_or_else(unknown)?;
    Ok(One { fleet, is_past: true, part_of, member_count, action: None })
}

fn one_text(one: &One) -> String {
    let text = screen(&one.fleet);
    if !one.is_past {
        return text + &one.action.as_ref().map_or_else(String::new, action_text);
    }
    let since = match &one.part_of {
        Some(whole) => format!("a part of fleet {whole} since: `detector fleets {whole}`"),
        None => "forgotten since".to_owned(),
    };
    format!(
        "{text}\n\n{since}; it had {} when it was told last",
        counted(one.member_count as usize, "member")
    )
}

/// How detection is, in a line.
pub fn health_text(detection: &Health) -> String {
    let state = match detection.state {
        Looking::Off => "nobody looks for fleets".to_owned(),
        Looking::Learning => "learning what is usual".to_owned(),
        Looking::Watching => {
            format!("looking for fleets (mode {} where a service says nothing else)", detection.mode)
        }
        Looking::Failed => "ended".to_owned(),
    };
    let found = match (detection.fleets, detection.throttled) {
        (0, 0) => String::new(),
        (fleets, throttled) => {
            format!("; {}, {throttled} throttled", counted(fleets as usize, "active fleet"))
        }
    };
    let problem = detection.problem.as_ref().map_or(String::new(), |problem| format!("; {problem}"));
    let saved = detection.saved_at_s.map_or("never".to_owned(), time);
    let stopped = detection.stopped.as_ref().map_or(String::new(), |stopped| {
        format!("; all actions are stopped by {stopped}; `detector fleets --resume` lets them be again")
    });
    format!("{state}{found}; saved {saved}{problem}{stopped}")
}

/// A line for each service at which it is still being learned what is usual, at a time as [`rfc3339`] writes it.
pub(super) fn learning_text(report: &Report, at: &str) -> String {
    let learning = report.services.iter().filter(|service| service.learning_until.as_str() > at);
    let line = |Learning { service, learning_until }: &Learning| {
        format!("  {service}: learning what is usual, and no fleet is found before {learning_until}\n")
    };
    learning.map(line).collect()
}

fn text(told: &Told) -> String {
    let mut text = format!("{}\n", health_text(&told.detection));
    if told.detection.state != Looking::Off {
        text += &learning_text(&told.report, &rfc3339(told.detection.at_s));
    }
    if told.report.fleets.is_empty() {
        return text + "no fleets";
    }
    let header =
        ["ID", "SERVICE", "STATE", "MEMBERS", "EXCHANGES A DAY", "SINCE", "LAST SEEN", "WOULD HIT", "ACTION"];
    let rows = told.report.fleets.iter().map(|fleet| {
        let uniform = fleet.innocent_explanation.is_new_uniform_population;
        vec![
            fleet.id.clone(),
            fleet.service.clone(),
            if uniform { "new population".to_owned() } else { fleet.state.name().to_owned() },
            fleet.members.len().to_string(),
            fleet.exchanges.to_string(),
            fleet.first_seen.clone(),
            fleet.last_seen.clone(),
            format!("{:.4} %", fleet.predicted_collateral * 100.0),
            told.action(&fleet.id).map_or_else(String::new, |action| action.word().to_owned()),
        ]
    });
    text + &table(&header, &[3, 4, 7], rows)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fleets::{Scale, fixtures, report::no_names};

    #[test]
    fn who_asks_for_a_part_is_told_of_what_it_is_a_part() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        (0..fixtures::QUIET_EPOCHS + 6).for_each(|number| drop(memory.take(&fixtures::epoch(number))));
        let mut told = Told { report: Report::of(&memory, &no_names), ..Told::default() };
        let mut part = told.report.fleets[0].clone();
        part.id = "7".to_owned();
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        history.keep_fleets(&[part]).expect("kept");
        let text_of = |told: &Told| one_text(&one(told, &history, "7").expect("it was there"));
        assert!(text_of(&told).contains("\nforgotten since"), "{}", text_of(&told));
        told.report.fleets[0].parts.push("7".to_owned());
        let whole = &told.report.fleets[0].id;
        let said = format!("\na part of fleet {whole} since: `detector fleets {whole}`");
        assert!(text_of(&told).contains(&said), "{}", text_of(&told));
        let elsewhere = History::new(directory.path(), Path::new("/sys/fs/bpf/two"));
        let unknown = one(&told, &elsewhere, "7").expect_err("this history does not have it").message;
        assert!(unknown.contains("is a part of fleet"), "{unknown}");
        let screen = one_text(&one(&told, &history, whole).expect("it is there"));
        assert!(screen.contains("which were fleets before: 7"), "{screen}");
    }
}
