//! `detector top`: the sources with the most packets; from the pinned maps alone.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    thread,
    time::{Duration, Instant},
};

use detector_common::{
    budget::ticks,
    policy::NO_RULE,
    table::{Unit, Way},
};
use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json, print_line, table};
use crate::{
    cli::TopArgs,
    clock,
    kernel::{
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read::{self, Active},
    },
    policy::compile::Manifest,
    replay::source_prefix,
};

/// A row.
#[derive(Debug, Serialize)]
struct Row {
    source: String,
    service: String,
    /// Packets a second between the two looks; none with a single look.
    packets_per_s: Option<u64>,
    packets: u32,
    bytes: u32,
    dropped: u32,
    connections: u32,
    /// Whether a budget was not full at the second look.
    charged: bool,
    rule: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    sources: usize,
    top: Vec<Row>,
}

type Counts = HashMap<(u64, u16, u8, u8), u32>;

/// Shows the top sources, once or until interrupted.
pub fn top(args: &TopArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let interval = Duration::from_secs(if args.once { args.interval } else { args.interval.max(1) });
    let mut before = if interval.is_zero() { None } else { Some((counts(&maps), Instant::now())) };
    loop {
        thread::sleep(interval);
        let answer = look(&maps, args.rows, before.as_ref())?;
        if args.read.json {
            print_json(&answer)?;
        } else {
            if !args.once && std::io::stdout().is_terminal() {
                print_line("\x1b[2J\x1b[H");
            }
            print_line(&text(&answer));
        }
        if args.once {
            return Ok(EXIT_DONE);
        }
        before = Some((counts(&maps), Instant::now()));
    }
}

/// The packets of every owner of a way; the generation tells an owner from the next.
fn counts(maps: &Maps) -> Counts {
    read::entries(&maps.sources).map(|way| (owner(&way), way.packets())).collect()
}

fn owner(way: &Way) -> (u64, u16, u8, u8) {
    let meta = way.meta();
    (way.prefix, meta.service(), meta.unit().unwrap_or(Unit::V4Source) as u8, meta.generation())
}

fn look(maps: &Maps, rows: usize, before: Option<&(Counts, Instant)>) -> Result<Answer, Failure> {
    read::consistently(maps, |active| look_at(maps, active, rows, before))
}

fn look_at(
    maps: &Maps,
    active: &Active<'_>,
    rows: usize,
    before: Option<&(Counts, Instant)>,
) -> Result<Answer, Failure> {
    let manifest = active.manifest()?.unwrap_or_default();
    let now = ticks(clock::kernel_ns());
    let mut ways: Vec<Way> = read::entries(&maps.sources).collect();
    let sources = ways.len();
    let rate = |way: &Way| {
        let (counts, since) = before?;
        let packets = way.packets().wrapping_sub(counts.get(&owner(way)).copied().unwrap_or(0));
        Some((f64::from(packets) / since.elapsed().as_secs_f64()).round() as u64)
    };
    ways.sort_by_key(|way| std::cmp::Reverse((rate(way), way.packets(), way.prefix)));
    ways.truncate(rows);
    let top = ways.iter().map(|way| row(active, &manifest, way, rate(way), now)).collect::<Result<_, _>>()?;
    Ok(Answer { sources, top })
}

fn row(
    active: &Active<'_>,
    manifest: &Manifest,
    way: &Way,
    packets_per_s: Option<u64>,
    now: u64,
) -> Result<Row, Failure> {
    let meta = way.meta();
    // A source that was silent since the last policy has a class of an earlier one.
    let is_current = meta.epoch() == active.epoch();
    let class = if is_current { Some(active.class(meta.class())?) } else { None };
    let rule = class.filter(|class| class.rule != NO_RULE);
    let rule = rule.and_then(|class| manifest.rules.get(usize::from(class.rule)));
    Ok(Row {
        source: source_prefix(meta.unit().unwrap_or(Unit::V4Source), way.prefix).to_string(),
        service: manifest.service_name(meta.service()).to_owned(),
        packets_per_s,
        packets: way.packets(),
        bytes: way.bytes(),
        dropped: way.dropped(),
        connections: way.connections(),
        charged: way.busy_until() > now,
        rule: rule.map(|rule| rule.name.clone()),
    })
}

fn text(answer: &Answer) -> String {
    let header = ["SOURCE", "SERVICE", "PACKETS/S", "PACKETS", "DROPPED", "BYTES", "CONNECTIONS", "RULE"];
    let rows = answer.top.iter().map(|row| {
        vec![
            row.source.clone(),
            row.service.clone(),
            row.packets_per_s.map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            row.packets.to_string(),
            row.dropped.to_string(),
            row.bytes.to_string(),
            row.connections.to_string(),
            row.rule.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    format!("{} sources known\n\n{}", answer.sources, table(&header, &[2, 3, 4, 5, 6], rows))
}
