//! `detector victims`: who is dropped, and who would be if nothing were in shadow; from the pinned maps alone.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line, table, version_name};
use crate::{
    cli::VictimsArgs,
    guard::{Loaded, say_waiting},
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe},
    traffic::{Traffic, Watching},
};

/// Who is dropped, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Victims)]
pub struct Answer {
    /// The policy that is loaded.
    pub policy: u32,
    /// Its version; 0: it could not be recorded.
    pub version: u64,
    /// Time that was looked at, s.
    pub window_s: f64,
    /// How many there are, of the rule if one was named.
    pub sources: usize,
    /// Most packets dropped and would-be dropped first.
    pub victims: Vec<Row>,
}

/// A source that is dropped, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VictimSeen)]
pub struct Row {
    /// An IPv4 address or an IPv6 /64.
    pub source: String,
    /// The service.
    pub service: String,
    /// Its class.
    pub class: String,
    /// The rule of its class; `incident N` is an incident rule.
    pub rule: Option<String>,
    /// Packets it sent while it was looked at.
    pub packets: u32,
    /// Packets of these that were dropped.
    pub dropped: u32,
    /// Packets of these that would have been, were its class enforced for this source.
    pub would_drop: u32,
    /// Packets dropped a second.
    pub dropped_per_s: f64,
    /// Packets a second that would have been.
    pub would_drop_per_s: f64,
}

/// Shows victims.
pub fn victims(args: &VictimsArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let traffic = Watching::of(&args.traffic).traffic(&maps, say_waiting);
    let answer = answer(&maps, &traffic, args.rule.as_deref(), args.rows)?;
    if args.read.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

/// Who of the traffic is dropped by the policy in the maps, or would be; of one rule, or of all classes. At most so many
/// rows.
///
/// # Errors
///
/// No policy is loaded, it has no such rule, or the maps cannot be read.
pub fn answer(maps: &Maps, traffic: &Traffic, rule: Option<&str>, rows: usize) -> Result<Answer, Failure> {
    let loaded = Loaded::read(maps)?;
    let Some(judge) = loaded.judge() else {
        return Err(Failure::unavailable("no policy is loaded: `detector apply FILE`"));
    };
    let manifest = &judge.tables.manifest;
    if let Some(name) = rule
        && !manifest.rules.iter().any(|rule| rule.name == name)
        && !name.starts_with("incident ")
    {
        return Err(Failure::invalid(format_args!(
            "the policy that is loaded has no rule {name:?}: `detector rules` lists them"
        )));
    }
    let mut victims: Vec<Row> = Vec::new();
    for flow in traffic.flows.iter().filter(|flow| flow.refused > 0) {
        let Some(judged) = judge.judge(flow.source, flow.service) else { continue };
        let name = judge.rule_of(&judged);
        if rule.is_some_and(|rule| name.as_deref() != Some(rule)) {
            continue;
        }
        let (dropped, would_drop) = if judged.enforced { (flow.refused, 0) } else { (0, flow.refused) };
        victims.push(Row {
            source: flow.prefix().to_string(),
            service: manifest.service_name(flow.service).to_owned(),
            class: judge.label(Some(judged)),
            rule: name,
            packets: flow.packets,
            dropped,
            would_drop,
            dropped_per_s: f64::from(dropped) / traffic.seconds(),
            would_drop_per_s: f64::from(would_drop) / traffic.seconds(),
        });
    }
    let sum = |row: &Row| row.dropped_per_s + row.would_drop_per_s;
    victims.sort_by(|one, other| sum(other).total_cmp(&sum(one)));
    let sources = victims.len();
    victims.truncate(rows);
    Ok(Answer {
        policy: judge.tables.header.epoch as u32,
        version: manifest.version,
        window_s: traffic.seconds(),
        sources,
        victims,
    })
}

fn text(answer: &Answer) -> String {
    let Answer { policy, version, window_s, sources, .. } = answer;
    let name = version_name(*version, *policy);
    let head = format!("{name}: {sources} sources dropped or would-be dropped in the last {window_s:.0} s");
    if answer.victims.is_empty() {
        return head;
    }
    let rows = answer.victims.iter().map(|row| {
        let mut cells = vec![row.source.clone(), row.service.clone(), row.class.clone()];
        let per_s = [f64::from(row.packets) / window_s, row.dropped_per_s, row.would_drop_per_s];
        cells.extend(per_s.map(|number| format!("{number:.0}")));
        cells
    });
    let header = ["SOURCE", "SERVICE", "CLASS", "PACKETS/S", "DROPPED/S", "WOULD DROP/S"];
    format!("{head}\n\n{}", table(&header, &[3, 4, 5], rows))
}
