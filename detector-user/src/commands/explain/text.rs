//! How a source stands, for people.

use super::{
    super::{duration, table, version_name},
    Answer, ChargedAs, InFleet, LastRefusal, Newcomer, clients,
};
use crate::{clock, fleets::membership::Confidence};

/// A time in milliseconds below a second, else in larger units.
fn duration_ms(milliseconds: u64) -> String {
    if milliseconds < 1000 { format!("{milliseconds} ms") } else { duration(milliseconds / 1000) }
}

/// How an address stands, on one screen.
pub(super) fn text(answer: &Answer) -> String {
    let mut lines = vec![format!(
        "{} is source {} ({})",
        answer.address,
        answer.source,
        version_name(answer.version, answer.policy)
    )];
    lines.extend(answer.fleets.iter().map(|fleet| {
        let what = match fleet.confidence {
            Confidence::Member => "a member",
            Confidence::Suspect => "a suspect",
        };
        let InFleet { id, service, last_alarm, .. } = fleet;
        format!("{what} of fleet {id} at service {service}, last alarm {last_alarm}: `detector fleets {id}`")
    }));
    for standing in &answer.services {
        let by = match (&standing.rule, &standing.profile) {
            (Some(rule), Some(profile)) => format!(" by rule {rule}, profile {profile}"),
            (Some(rule), None) => format!(" by rule {rule}"),
            (None, Some(profile)) => format!(" by profile {profile}"),
            (None, None) if standing.action == "allow" => " by defaults.allow".to_owned(),
            (None, None) => " (the service has no profile)".to_owned(),
        };
        let mode = match (standing.mode.as_str(), standing.enforced) {
            ("enforce", _) => String::new(),
            ("shadow", _) => ", shadow: nothing is dropped".to_owned(),
            (mode, true) => format!(", {mode} of sources: this one is among them"),
            (mode, false) => format!(", {mode} of sources: this one is not among them, nothing is dropped"),
        };
        lines.push(format!("\nservice {}: {}{by}{mode}", standing.service, standing.action));
        if let Some(until_s) = standing.until_s {
            let left_s = until_s.saturating_sub(clock::unix_s());
            lines.push(format!("  until: {} from now", duration(left_s)));
        }
        if let Some(reason) = &standing.reason {
            lines.push(format!("  because: {reason}"));
        }
        lines.extend(standing.charged_as.as_ref().map(|ChargedAs { fleet, until_s }| {
            let left_s = until_s.saturating_sub(clock::unix_s());
            format!(
                "  charged as one of fleet {fleet} for {} from now unless that is renewed: `detector allow {} --for 24h --reason TEXT` takes it out",
                duration(left_s),
                answer.address
            )
        }));
        lines.extend(standing.seen.as_ref().map(|seen| {
            format!(
                "  seen: {} packets, {} bytes, {} connections; {} packets {} (each modulo 2^32)",
                seen.packets,
                seen.bytes,
                seen.connections,
                seen.dropped.max(seen.would_drop),
                if standing.enforced { "dropped" } else { "would be dropped" }
            )
        }));
        let last = standing.seen.as_ref().and_then(|seen| seen.last_refusal.as_ref());
        lines.extend(last.map(|LastRefusal { ago_ms, reason }| {
            let what = if standing.enforced { "drop" } else { "would-be drop" };
            format!("  last {what}: {} ago, {reason}", duration_ms(*ago_ms))
        }));
        lines.extend(standing.newcomer.as_ref().map(|newcomer| {
            match newcomer {
                Newcomer::Admitted if standing.action == "limit" => {
                    "  seen: nothing lately, every budget of its own is full".to_owned()
                }
                Newcomer::Admitted => "  seen: nothing lately".to_owned(),
                Newcomer::NewSources { prefix } => {
                    format!("  no entry, and none to be had: {prefix} has spent its budget new_sources")
                }
                Newcomer::TableFull if standing.action == "limit" => {
                    "  no entry: all ways of its set are busy, so it shares the overflow budget of its class"
                        .to_owned()
                }
                Newcomer::TableFull => "  no entry: all ways of its set are busy".to_owned(),
            }
        }));
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
        if !standing.clients.is_empty() {
            lines.push(clients::text(&standing.clients));
        }
    }
    lines.join("\n")
}
