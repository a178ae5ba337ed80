//! Fleets for people.

use super::{
    limits::SHOWN_MEMBERS,
    report::Found,
    told::{ActionTold, LeftOutTold, ThrottleTold},
};

/// One fleet on one screen.
pub fn screen(fleet: &Found) -> String {
    let members = fleet.members.len();
    let median = fleet.median_exchanges.map_or(String::new(), |median| format!(", {median} at the median"));
    let mut text = format!(
        "fleet {} at {}: {}\n  {} in {} of /24 or /48, {}, {} exchanges in a day{median}\n  since {}, alarm {}, last alarm {}, last seen {}",
        fleet.id,
        fleet.service,
        fleet.state.name(),
        counted(members, "member"),
        counted(fleet.prefixes as usize, "prefix"),
        counted(fleet.suspects.len(), "suspect"),
        fleet.exchanges,
        fleet.first_seen,
        fleet.alarmed_at,
        fleet.last_alarm,
        fleet.last_seen
    );
    if let Some(key) = &fleet.key {
        let [tls, syn] = [(&key.ja4, &key.tls_key), (&key.syn, &key.syn_key)]
            .map(|(name, key)| name.as_ref().unwrap_or(key));
        text += &format!("\n  key: ClientHello {tls}, SYN {syn}");
    }
    for evidence in &fleet.evidence {
        text += &format!("\n  {}: {}", evidence.family, evidence.says);
    }
    let innocent = &fleet.innocent_explanation;
    text += &format!("\n  could it be {}? {}", innocent.explanation, innocent.why);
    let hit = fleet.predicted_collateral * 1e6;
    text += &format!("\n  of a million connections of users {hit:.0} would be hit");
    text += &format!("\n  ends: {}", fleet.clears);
    if !fleet.parts.is_empty() {
        text += &format!("\n  parts of it, which were fleets before: {}", fleet.parts.join(", "));
    }
    let shown: Vec<_> = fleet.members.iter().take(SHOWN_MEMBERS).map(String::as_str).collect();
    if !shown.is_empty() {
        text += &format!("\n  {}{}", shown.join(" "), if members > SHOWN_MEMBERS { " …" } else { "" });
    }
    text
}

/// What is done about a fleet, and what every guard says.
pub fn action_text(action: &ActionTold) -> String {
    let mut text = format!("\n\naction: {}: {}", action.word(), action.says);
    if let Some(command) = &action.command {
        text += &format!("\n  to throttle it: {command}");
    }
    if let Some(throttle) = &action.throttle {
        let ThrottleTold {
            members, held_out, without_room, keys, packets, connections, dropped, undo, ..
        } = throttle;
        let without_room = match without_room {
            0 => String::new(),
            some => format!(", {some} found no room"),
        };
        text += &format!(
            "\n  {} and {} share {packets} packets, {connections} connections; {held_out} are held out{without_room}\n  \
             {dropped} packets dropped",
            counted(*members as usize, "member"),
            counted(*keys as usize, "key"),
        );
        if let Some(cut) = throttle.cut {
            text += &format!("; {:.0} % of what they would do is cut", cut * 100.0);
        }
        text += &format!("\n  to take it back: {undo}");
    }
    let LeftOutTold { allowed, customers, shared, waiting } = action.left_out;
    let left_out =
        [(allowed, "allowed"), (customers, "customers"), (shared, "shared by many"), (waiting, "waiting")];
    let left_out: Vec<_> = left_out
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    if !left_out.is_empty() {
        text += &format!("\n  left out of an action: {}", left_out.join(", "));
    }
    for guard in &action.guards {
        let mark = if guard.passed { "ok" } else { "no" };
        text += &format!("\n  {mark} {}: {}", guard.guard, guard.says);
    }
    text
}

/// `1 fleet`, `2 fleets`, `3 prefixes`.
pub fn counted(count: usize, what: &str) -> String {
    let many = if what.ends_with('x') { "es" } else { "s" };
    format!("{count} {what}{}", if count == 1 { "" } else { many })
}
