//! `detector top`: the sources with the most packets; from the pinned maps alone.

pub mod fingerprints;

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    thread,
    time::{Duration, Instant},
};

use detector_common::{
    budget::ticks,
    hash::Seed,
    policy::is_enforced,
    table::{Key, Unit},
    way::Way,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line, table};
use crate::{
    cli::{TopArgs, TopOf},
    clock,
    kernel::{
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read::{self, Active, Rules},
    },
    replay::source_prefix,
};

/// A source at a service. Its counters are modulo 2^32.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopSource)]
pub struct Row {
    /// Its prefix.
    pub source: String,
    /// The service.
    pub service: String,
    /// Packets a second between the two looks; none with a single look.
    pub packets_per_s: Option<u64>,
    /// Packets of any verdict.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
    /// Packets that were dropped.
    pub dropped: u32,
    /// Packets that would have been dropped, if it is not among those that are enforced now.
    pub would_drop: u32,
    /// Connections that it asked for.
    pub connections: u32,
    /// Whether a budget was not full at the second look.
    pub charged: bool,
    /// The rule that decides, if one does.
    pub rule: Option<String>,
}

/// What `top` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sources)]
pub struct Answer {
    /// Sources in the table.
    pub sources: usize,
    /// Those with the highest rate, then those with the most packets.
    pub top: Vec<Row>,
}

/// Prefix, service, unit and generation, which tells an owner of a way from the next.
type Owner = (u64, u16, u8, u8);

/// The packets of every owner, modulo 2^32.
type Packets = HashMap<Owner, u32>;

/// An earlier look.
#[derive(Debug)]
pub struct Counted {
    packets: Packets,
    at: Instant,
}

/// Shows the top sources, once or until interrupted.
pub fn top(args: &TopArgs) -> Result<u8, Failure> {
    if let Some(TopOf::Fingerprints(args)) = &args.of {
        return fingerprints::fingerprints(args);
    }
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let interval = Duration::from_secs(if args.once { args.interval } else { args.interval.max(1) });
    let mut before = if interval.is_zero() { None } else { Some(count(&maps)) };
    loop {
        thread::sleep(interval);
        let answer = answer(&maps, args.rows, before.as_ref())?;
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
        before = Some(count(&maps));
    }
}

/// A look that the rates of a later one count from.
pub fn count(maps: &Maps) -> Counted {
    let packets = read::entries(&maps.sources).map(|way| (owner(&way), way.packets())).collect();
    Counted { packets, at: Instant::now() }
}

fn owner(way: &Way) -> Owner {
    let meta = way.meta();
    (way.prefix, meta.service(), meta.unit().unwrap_or(Unit::V4Source) as u8, meta.generation())
}

/// The sources with the most packets, with rates since an earlier look if there was one.
///
/// # Errors
///
/// The maps cannot be read.
pub fn answer(maps: &Maps, rows: usize, before: Option<&Counted>) -> Result<Answer, Failure> {
    read::consistently(maps, |active| look_at(maps, active, rows, before))
}

fn look_at(
    maps: &Maps,
    active: &Active<'_>,
    rows: usize,
    before: Option<&Counted>,
) -> Result<Answer, Failure> {
    let rules = active.rules()?;
    let seed = read::settings(maps).seed;
    let now = ticks(clock::kernel_ns());
    let ways: Vec<Way> = read::entries(&maps.sources).collect();
    let before = before.map(|before| (&before.packets, before.at.elapsed()));
    let sources = ways.len();
    let mut ways = ranked(ways, before);
    ways.truncate(rows);
    let rows = ways.iter().map(|(rate, way)| row(active, &rules, way, *rate, now, &seed));
    Ok(Answer { sources, top: rows.collect::<Result<_, _>>()? })
}

/// The ways with their packets a second since an earlier look: those with the highest rate first, then those with the most
/// packets.
fn ranked(ways: Vec<Way>, before: Option<(&Packets, Duration)>) -> Vec<(Option<u64>, Way)> {
    let rate = |way: &Way| {
        let (packets, elapsed) = before?;
        let packets = way.packets().wrapping_sub(packets.get(&owner(way)).copied().unwrap_or(0));
        Some((f64::from(packets) / elapsed.as_secs_f64()).round() as u64)
    };
    let mut ranked: Vec<_> = ways.into_iter().map(|way| (rate(&way), way)).collect();
    ranked.sort_by_key(|(rate, way)| std::cmp::Reverse((*rate, way.packets(), way.prefix)));
    ranked
}

fn row(
    active: &Active<'_>,
    rules: &Rules,
    way: &Way,
    packets_per_s: Option<u64>,
    now: u64,
    seed: &Seed,
) -> Result<Row, Failure> {
    let meta = way.meta();
    let hash = Key { prefix: way.prefix, tag: meta.tag() }.hash(seed);
    // A source that was silent since the last policy has a class of an earlier one.
    let is_current = meta.epoch() == active.epoch();
    let class = if is_current { Some(active.class(meta.class())?) } else { None };
    let rule = class.and_then(|class| rules.of_class(meta.class().into(), &class));
    // Of one whose class is not known: what was dropped is likelier than what was not.
    let enforced = class.is_none_or(|class| is_enforced(hash, class.enforced_percent));
    Ok(Row {
        source: source_prefix(meta.unit().unwrap_or(Unit::V4Source), way.prefix).to_string(),
        service: rules.manifest.service_name(meta.service()).to_owned(),
        packets_per_s,
        packets: way.packets(),
        bytes: way.bytes(),
        dropped: if enforced { way.refused() } else { 0 },
        would_drop: if enforced { 0 } else { way.refused() },
        connections: way.connections(),
        charged: way.busy_until() > now,
        rule: rule.map(|rule| rule.name()),
    })
}

fn text(answer: &Answer) -> String {
    let header = [
        "SOURCE",
        "SERVICE",
        "PACKETS/S",
        "PACKETS",
        "DROPPED",
        "WOULD DROP",
        "BYTES",
        "CONNECTIONS",
        "RULE",
    ];
    let rows = answer.top.iter().map(|row| {
        vec![
            row.source.clone(),
            row.service.clone(),
            row.packets_per_s.map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            row.packets.to_string(),
            row.dropped.to_string(),
            row.would_drop.to_string(),
            row.bytes.to_string(),
            row.connections.to_string(),
            row.rule.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    format!(
        "{} sources known; their counters are modulo 2^32\n\n{}",
        answer.sources,
        table(&header, &[2, 3, 4, 5, 6, 7], rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use detector_common::{address::Address, way::Meta};

    /// The entry of 192.0.2.`source` after so many packets, the `generation`-th owner of its way.
    fn way(source: u8, generation: u8, packets: u32) -> Way {
        let key = Key::new(Address::v4([192, 0, 2, source]), Unit::V4Source, 1);
        let meta = Meta(u64::from(generation) << 56).owned(key.tag, 1, 1).0;
        Way { prefix: key.prefix, meta, traffic: packets.into(), ..Way::default() }
    }

    /// Last byte of the source and rate, in the order of the ranking.
    fn rates(ways: &[Way], before: Option<(&[Way], Duration)>) -> Vec<(u8, Option<u64>)> {
        let before = before.map(|(ways, elapsed)| {
            (ways.iter().map(|way| (owner(way), way.packets())).collect::<Packets>(), elapsed)
        });
        let ranked = ranked(ways.to_vec(), before.as_ref().map(|(packets, elapsed)| (packets, *elapsed)));
        ranked.iter().map(|(rate, way)| ((way.prefix >> 32) as u8, *rate)).collect()
    }

    #[test]
    fn rates_are_packets_since_the_look_before_by_the_time_since() {
        let before = [way(1, 0, 1000), way(2, 0, 5), way(3, 7, 900), way(4, 0, u32::MAX)];
        // The way of the third has another owner, the counter of the fourth has wrapped, the fifth is new.
        let now = [way(1, 0, 1000), way(2, 0, 1005), way(3, 8, 30), way(4, 0, 99), way(5, 0, 501)];
        assert_eq!(
            rates(&now, Some((&before, Duration::from_millis(2000)))),
            [(2, Some(500)), (5, Some(251)), (4, Some(50)), (3, Some(15)), (1, Some(0))]
        );
        assert_eq!(rates(&now, Some((&before, Duration::from_millis(500))))[0], (2, Some(2000)));
    }

    #[test]
    fn equal_rates_and_single_looks_are_ranked_by_packets() {
        let now = [way(1, 0, 10), way(2, 0, 30), way(3, 0, 20)];
        assert_eq!(rates(&now, None), [(2, None), (3, None), (1, None)]);
        let quiet = rates(&now, Some((&now, Duration::from_secs(1))));
        assert_eq!(quiet, [(2, Some(0)), (3, Some(0)), (1, Some(0))]);
    }
}
