//! `detector hunt`: looks for fleets in recordings.

use std::{
    io::{IsTerminal as _, stderr},
    path::Path,
    time::Instant,
};

use detector_fleets::limits::INTERVAL_S;

use super::{EXIT_DONE, Failure, duration, fleets::learning_text, print_json, print_line, time, warn};
use crate::{
    cli::HuntArgs,
    fleets::{
        Memory, Report, Scale, saved,
        scale::EPOCH_S,
        text::{counted, screen},
    },
    recording::{Merged, Names},
};

/// Whatever it is, the same recordings give the same fleets.
const SECRET: u64 = 0x6465_7465_6374_6f72;

/// Rows between two words about how far it is.
const ROWS_BETWEEN_WORDS: u64 = 1_000_000;

/// Looks for fleets.
pub fn hunt(args: &HuntArgs) -> Result<u8, Failure> {
    let mut merged = Merged::open(&args.recordings)?;
    let mut memory = match &args.state {
        Some(path) => Some(memory_of(path)?),
        None => None,
    };
    let mut progress = Progress::new(args.json);
    let mut rows = Vec::new();
    while merged.read(&mut rows)? {
        let memory = match &mut memory {
            Some(memory) => memory,
            None => memory.insert(begun(args, rows[0].span_s)?),
        };
        // What is found is asked for at the end: a fleet keeps what was said of it.
        let _ = memory.observe_recorded(&mut rows, merged.services())?;
        progress.tell(rows.len(), memory);
    }
    progress.end();
    let mut memory = match memory {
        Some(memory) => memory,
        None => begun(args, EPOCH_S)?,
    };
    if let Some(path) = &args.save_state {
        // With the last quarter of an hour open: rows that follow come into it.
        saved::write(path, &memory)?;
    }
    // The last quarter of an hour may not be over; what there is of it is looked at.
    if let Some((_, to_s)) = memory.span_s() {
        let _ = memory.go_on_to(to_s + INTERVAL_S);
    }
    tell(&memory, merged.names(), args.json)
}

/// A memory for epochs of so many seconds.
fn begun(args: &HuntArgs, span_s: u32) -> Result<Memory, Failure> {
    let scale = Scale::of_ms(u64::from(span_s) * 1000);
    let scale =
        scale.ok_or_else(|| Failure::invalid(format!("epochs of {span_s} s: expected 1 s to 1 h")))?;
    // A node goes on with what is saved, so nobody else is to know it.
    let drawn =
        || getrandom::u64().map_err(|error| Failure::failed(format!("cannot draw a secret: {error}")));
    let secret = if args.save_state.is_some() { drawn()? } else { SECRET };
    Ok(Memory::new(scale, args.sources, secret))
}

fn memory_of(path: &Path) -> Result<Memory, Failure> {
    let missing =
        || Failure::invalid(format!("{} is not there: expected what --save-state wrote", path.display()));
    let (memory, _) = saved::read(path)?.ok_or_else(missing)?;
    Ok(memory)
}

fn tell(memory: &Memory, names: &Names, json: bool) -> Result<u8, Failure> {
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let report = Report::of(memory, &|_, key| (owned(names.ja4(key.tls_key)), owned(names.syn(key.syn_key))));
    if report.late > 0 {
        warn(&format!(
            "{} rows came after the quarter of an hour that they are of and are not counted: rows of a file have to be in order of time",
            report.late
        ));
    }
    if json {
        print_json(&report)?;
    } else {
        let scale = memory.scale();
        let seconds = memory.span_s().map_or(0, |(from_s, to_s)| scale.unix_s(to_s) - scale.unix_s(from_s));
        print_line(&text(&report, seconds));
    }
    Ok(EXIT_DONE)
}

fn text(report: &Report, seconds: u64) -> String {
    let Some(from) = &report.from else { return "no rows".to_owned() };
    let fleets = counted(report.fleets.len(), "fleet");
    let mut text = format!("{} rows from {from} on, {}: {fleets}", report.rows, duration(seconds));
    let learning = report.to.as_deref().map_or(String::new(), |to| learning_text(report, to));
    if !learning.is_empty() {
        text += &format!("\n{}", learning.trim_end());
    }
    for fleet in &report.fleets {
        text += "\n\n";
        text += &screen(fleet);
    }
    text
}

/// Says on a terminal how far it is.
struct Progress {
    is_shown: bool,
    began: Instant,
    /// Rows that were read.
    rows: u64,
    /// How many that were at the last word.
    told: u64,
}

impl Progress {
    fn new(json: bool) -> Self {
        Self { is_shown: !json && stderr().is_terminal(), began: Instant::now(), rows: 0, told: 0 }
    }

    fn tell(&mut self, rows: usize, memory: &Memory) {
        self.rows += rows as u64;
        if self.is_shown && self.rows - self.told >= ROWS_BETWEEN_WORDS {
            self.told = self.rows;
            let each_s = self.rows as f64 / self.began.elapsed().as_secs_f64();
            let at = memory.span_s().map_or_else(String::new, |(_, to_s)| time(memory.scale().unix_s(to_s)));
            anstream::eprint!("\r{} M rows, {:.2} M a second, at {at} ", self.rows / 1_000_000, each_s / 1e6);
        }
    }

    fn end(&mut self) {
        if self.is_shown {
            anstream::eprint!("\r{:60}\r", "");
        }
    }
}
