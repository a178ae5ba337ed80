//! `detector replay`: what would this policy have done?

use std::io::{IsTerminal as _, Write as _};

use super::{EXIT_DONE, Failure, print_json, print_line, read_policy, table};
use crate::{
    cli::ReplayArgs,
    kernel::probe::probe,
    replay::{ReplayError, Report, replay as run},
};

/// Sources that people are shown; JSON has all.
const SOURCES_SHOWN: usize = 20;

/// Replays captures.
pub fn replay(args: &ReplayArgs) -> Result<u8, Failure> {
    let file = read_policy(&args.policy)?;
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
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report));
    }
    Ok(EXIT_DONE)
}

fn text(report: &Report) -> String {
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
    let sources = report.sources.iter().take(SOURCES_SHOWN).map(|source| {
        vec![
            source.source.clone(),
            source.service.clone(),
            source.pass.to_string(),
            source.drop.to_string(),
            source.bytes.to_string(),
            source.connections.to_string(),
        ]
    });
    let header = ["SOURCE", "SERVICE", "PASSED", "DROPPED", "BYTES", "CONNECTIONS"];
    text += &format!("\n\n{}", table(&header, &[2, 3, 4, 5], sources));
    if report.sources.len() > SOURCES_SHOWN {
        text += &format!("\n… and {} sources more (--json shows all)", report.sources.len() - SOURCES_SHOWN);
    }
    text
}
