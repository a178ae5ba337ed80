//! `detector explain ADDRESS`: one screen on how a source stands; from the pinned maps alone.

use std::net::IpAddr;

use detector_common::{
    address::Address,
    budget::{BYTE_INTERVAL_FRACTION_BITS, Budget, TICKS_PER_NS, left, ticks},
    policy::{Action, Class, NO_PROFILE, NO_RULE},
    table::{Lineage, Unit, Way},
};
use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json, print_line, table};
use crate::{
    cli::ExplainArgs,
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

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    address: IpAddr,
    source: String,
    policy: u32,
    services: Vec<Standing>,
}

/// How the source stands at one service.
#[derive(Debug, Serialize)]
struct Standing {
    service: String,
    /// `allow`, `drop`, `limit`, or `count` where the service has no profile.
    action: &'static str,
    /// `enforce` or `shadow`.
    mode: &'static str,
    rule: Option<String>,
    reason: Option<String>,
    profile: Option<String>,
    /// What was seen since the source got its entry; none while it has none.
    seen: Option<Seen>,
    budgets: Vec<BudgetState>,
}

#[derive(Debug, Serialize)]
struct Seen {
    packets: u32,
    bytes: u32,
    dropped: u32,
    connections: u32,
}

/// One budget and what is left of it.
#[derive(Debug, Serialize)]
struct BudgetState {
    /// Whose: the source's prefix, or that of a parent.
    prefix: String,
    budget: &'static str,
    per_second: f64,
    burst: f64,
    left: f64,
    full_in_ms: u64,
}

/// Explains an address.
pub fn explain(args: &ExplainArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let address = Address::from(args.address);
    let (policy, services) = read::consistently(&maps, |active| -> Result<_, Failure> {
        let Some(manifest) = active.manifest()? else {
            return Err(Failure::failed("no policy is applied: `detector apply FILE`"));
        };
        let mut services = Vec::new();
        for (name, &number) in &manifest.services {
            services.extend(standing(&maps, active, &manifest, address, name, number)?);
        }
        Ok((active.epoch(), services))
    })?;
    let unit = Unit::of_source(address.family);
    let source = source_prefix(unit, address.high).to_string();
    let answer = Answer { address: args.address, source, policy, services };
    if args.read.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

fn standing(
    maps: &Maps,
    active: &Active<'_>,
    manifest: &Manifest,
    address: Address,
    name: &str,
    number: u16,
) -> Result<Option<Standing>, Failure> {
    let Some(standing) = active.classify(address, number)? else { return Ok(None) };
    let class = standing.class;
    let rule = (class.rule != NO_RULE).then(|| manifest.rules.get(usize::from(class.rule))).flatten();
    let profile =
        (class.profile != NO_PROFILE).then(|| manifest.profiles.get(usize::from(class.profile))).flatten();
    let way = read::source(maps, address, number);
    Ok(Some(Standing {
        service: name.to_owned(),
        action: action_name(class.action),
        mode: if class.shadow != 0 { "shadow" } else { "enforce" },
        rule: rule.map(|rule| rule.name.clone()),
        reason: rule.and_then(|rule| rule.reason.clone()),
        profile: profile.cloned(),
        seen: way.map(|way| Seen {
            packets: way.packets(),
            bytes: way.bytes(),
            dropped: way.dropped(),
            connections: way.connections(),
        }),
        budgets: budgets(maps, active, &class, address, number, way)?,
    }))
}

const fn action_name(action: u8) -> &'static str {
    match action {
        action if action == Action::Allow as u8 => "allow",
        action if action == Action::Deny as u8 => "drop",
        action if action == Action::Count as u8 => "count",
        _ => "limit",
    }
}

fn budgets(
    maps: &Maps,
    active: &Active<'_>,
    class: &Class,
    address: Address,
    service: u16,
    way: Option<Way>,
) -> Result<Vec<BudgetState>, Failure> {
    let now = ticks(clock::kernel_ns());
    let way = way.unwrap_or_default();
    let source = source_prefix(Unit::of_source(address.family), address.high).to_string();
    let mut states: Vec<_> = [
        state(&source, "packets", &class.packets, way.packets_tat, now, 0),
        state(&source, "bytes", &class.bytes, way.bytes_tat, now, BYTE_INTERVAL_FRACTION_BITS),
        state(&source, "connections", &class.connections, way.connections_tat, now, 0),
    ]
    .into_iter()
    .flatten()
    .collect();
    let levels = [(Unit::V4Net24, class.v4_24), (Unit::V6Net56, class.v6_56), (Unit::V6Net48, class.v6_48)];
    for (unit, number) in
        levels.into_iter().filter(|(unit, number)| unit.family() == address.family && *number != 0)
    {
        let way = read::parent(maps, address, unit, service, Lineage(class.lineage)).unwrap_or_default();
        let class = active.parent_class(number)?;
        let prefix = source_prefix(unit, address.high).to_string();
        let parent = [
            state(&prefix, "packets", &class.packets, way.packets_tat, now, 0),
            state(&prefix, "bytes", &class.bytes, way.bytes_tat, now, BYTE_INTERVAL_FRACTION_BITS),
            state(&prefix, "connections", &class.connections, way.connections_tat, now, 0),
            state(&prefix, "new_sources", &class.new_sources, way.special_tat, now, 0),
        ];
        states.extend(parent.into_iter().flatten());
    }
    Ok(states)
}

fn state(
    prefix: &str,
    name: &'static str,
    budget: &Budget,
    tat: u64,
    now: u64,
    fraction_bits: u32,
) -> Option<BudgetState> {
    if !budget.is_limited() {
        return None;
    }
    let unit_ticks = budget.interval as f64 / f64::from(1_u32 << fraction_bits);
    let tenths = |ticks: u64| (ticks as f64 / unit_ticks * 10.0).round() / 10.0;
    Some(BudgetState {
        prefix: prefix.to_owned(),
        budget: name,
        per_second: (1e9 * TICKS_PER_NS as f64 / unit_ticks * 1000.0).round() / 1000.0,
        burst: tenths(budget.burst_ticks),
        left: tenths(left(tat, now, budget.burst_ticks)),
        full_in_ms: tat.saturating_sub(now) / TICKS_PER_NS / 1_000_000,
    })
}

fn text(answer: &Answer) -> String {
    let mut lines =
        vec![format!("{} is source {} (policy {})", answer.address, answer.source, answer.policy)];
    for standing in &answer.services {
        let by = match (&standing.rule, &standing.profile) {
            (Some(rule), Some(profile)) => format!(" by rule {rule}, profile {profile}"),
            (Some(rule), None) => format!(" by rule {rule}"),
            (None, Some(profile)) => format!(" by profile {profile}"),
            (None, None) if standing.action == "allow" => " by defaults.allow".to_owned(),
            (None, None) => " (the service has no profile)".to_owned(),
        };
        let shadow = if standing.mode == "shadow" { ", shadow: nothing is dropped" } else { "" };
        lines.push(format!("\nservice {}: {}{by}{shadow}", standing.service, standing.action));
        if let Some(reason) = &standing.reason {
            lines.push(format!("  because: {reason}"));
        }
        lines.push(match &standing.seen {
            Some(seen) => format!(
                "  seen: {} packets, {} bytes, {} connections; {} packets dropped",
                seen.packets, seen.bytes, seen.connections, seen.dropped
            ),
            None => "  seen: nothing lately, every budget is full".to_owned(),
        });
        if !standing.budgets.is_empty() {
            let rows = standing.budgets.iter().map(|state| {
                vec![
                    state.prefix.clone(),
                    state.budget.to_owned(),
                    state.per_second.to_string(),
                    state.burst.to_string(),
                    state.left.to_string(),
                    format!("{} ms", state.full_in_ms),
                ]
            });
            lines.push(table(
                &["PREFIX", "BUDGET", "PER SECOND", "BURST", "LEFT", "FULL IN"],
                &[2, 3, 4, 5],
                rows,
            ));
        }
    }
    lines.join("\n")
}
