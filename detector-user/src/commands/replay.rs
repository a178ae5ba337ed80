//! `detector replay`: what would this policy have done?

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    EXIT_DONE, EXIT_UNEXPECTED, Failure, incident::targets_of, print_json, print_line, read_policy, table,
    warn,
};
use crate::{
    cli::ReplayArgs,
    kernel::probe::probe,
    policy::target::source,
    replay::{Expected, ReplayError, Report, SourceReport, replay as run},
};

/// What `replay` answers.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    report: Report,
    /// What came of `--expect-pass`.
    expected: Option<Expected>,
}

/// Sources that people are shown; JSON has all.
const SOURCES_SHOWN: usize = 20;

/// Replays captures.
pub fn replay(args: &ReplayArgs) -> Result<u8, Failure> {
    let file = read_policy(&args.policy)?;
    let expected = args.expect_pass.as_deref().map(expected_of).transpose()?;
    probe()?;
    let is_terminal = std::io::stderr().is_terminal();
    let progress = |packets: u64| {
        if is_terminal {
            // Progress is a courtesy: a terminal that cannot be written to changes nothing.
            let _ = write!(std::io::stderr(), "\r{packets} packets");
        }
    };
    let result = run(&args.captures, &file.checked.policy, args.sources, progress);
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report = result.map_err(|error| match error {
        ReplayError::Compile(error) => file.does_not_fit(&error),
        error => error.into(),
    })?;
    let expected = expected.map(|expected| report.held_against(&expected));
    let is_unexpected = expected.as_ref().is_some_and(|expected| !expected.is_met());
    let answer = Answer { report, expected };
    if args.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
        if let Some([first, more @ ..]) = answer.expected.as_ref().map(|expected| expected.unseen.as_slice())
        {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            warn(&format!("no packet of a service is from {first}{more}: nothing is known of that"));
        }
    }
    Ok(if is_unexpected { EXIT_UNEXPECTED } else { EXIT_DONE })
}

/// The prefixes that should pass.
fn expected_of(path: &Path) -> Result<Vec<IpNet>, Failure> {
    let prefixes = targets_of(path, source)?;
    if prefixes.is_empty() {
        return Err(Failure::invalid(format_args!(
            "{}: found no address or prefix, expected at least one, one a line: add those that should pass, or leave \
             --expect-pass out",
            path.display()
        )));
    }
    Ok(prefixes)
}

fn text(Answer { report, expected }: &Answer) -> String {
    let mut text = format!(
        "{} packets: {} passed, {} dropped",
        report.packets, report.verdicts.pass, report.verdicts.drop
    );
    if report.shadow > 0 {
        text += &format!(", {} of those that passed only because of mode shadow", report.shadow);
    }
    let reasons =
        report.reasons.iter().map(|(reason, packets)| vec![(*reason).to_owned(), packets.to_string()]);
    text += &format!("\n\n{}", table(&["REASON", "PACKETS"], &[1], reasons));
    let services = report
        .services
        .iter()
        .map(|(name, verdicts)| vec![name.clone(), verdicts.pass.to_string(), verdicts.drop.to_string()]);
    text += &format!("\n\n{}", table(&["SERVICE", "PASSED", "DROPPED"], &[1, 2], services));
    text += &format!("\n\n{}", source_table(&report.sources));
    if let Some(Expected { limited, seen, .. }) = expected {
        text += &match (limited.as_slice(), seen) {
            ([], 0) => "\n\nnothing of --expect-pass is in the captures".to_owned(),
            ([], _) => "\n\neverything of --expect-pass that is in the captures passed".to_owned(),
            (limited, _) => format!("\n\nof --expect-pass these are limited:\n{}", source_table(limited)),
        };
    }
    text
}

fn source_table(sources: &[SourceReport]) -> String {
    let rows = sources.iter().take(SOURCES_SHOWN).map(|source| {
        vec![
            source.source.to_string(),
            source.service.clone(),
            source.pass.to_string(),
            source.drop.to_string(),
            source.would_drop.to_string(),
            source.bytes.to_string(),
            source.connections.to_string(),
        ]
    });
    let header = ["SOURCE", "SERVICE", "PASSED", "DROPPED", "WOULD DROP", "BYTES", "CONNECTIONS"];
    let mut text = table(&header, &[2, 3, 4, 5, 6], rows);
    if sources.len() > SOURCES_SHOWN {
        text += &format!("\n… and {} sources more (--json shows all)", sources.len() - SOURCES_SHOWN);
    }
    text
}
