//! Who of a fleet is acted on: its members, without those that an action would be wrong about.

use detector_fleets::{
    fleet::{Fleet, Suspect},
    source::Source,
};
use serde::Serialize;

use super::{
    hints::Hints,
    limits::GROWTH_S,
    prefixes::Prefixes,
    standing::{Growth, Standing},
};
use crate::policy::FleetSettings;

/// How many members are left out, each for the first reason that holds for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// An operator lets them pass.
    pub allowed: usize,
    /// They are customers.
    pub customers: usize,
    /// Many clients are behind them; those of them that have the fleet's key are known by it.
    pub shared: usize,
    /// They came when enough had come in this hour, and wait for the next one.
    pub waiting: usize,
}

/// Whom an action is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Sources whose packets and connections are charged, in order.
    pub members: Vec<Source>,
    /// Suspects among them, whose abuse is confirmed.
    pub confirmed: usize,
    /// Members of the fleet whose abuse is confirmed.
    pub abuse: usize,
    /// Members of the fleet that are customers, also those that are left out for another reason.
    pub customers: usize,
    /// Who is left out.
    pub left_out: LeftOut,
    /// How many came in this hour.
    pub growth: Growth,
}

/// Chooses. Who is acted on stays while the fleet has it; of newcomers those that connected most come first.
pub fn choose(
    fleet: &Fleet,
    allowed: &Prefixes,
    hints: Hints<'_>,
    standing: Option<&Standing>,
    settings: &FleetSettings,
    now_s: u64,
) -> Chosen {
    let mut chosen = Chosen::default();
    let mut candidates: Vec<(Source, u16)> = Vec::with_capacity(fleet.members.len());
    for (&source, member) in &fleet.members {
        let is_customer = hints.is_customer(source);
        chosen.abuse += usize::from(hints.is_abuse(source));
        chosen.customers += usize::from(is_customer);
        if allowed.touch(source) {
            chosen.left_out.allowed += 1;
        } else if is_customer {
            chosen.left_out.customers += 1;
        } else if member.is_shared() {
            chosen.left_out.shared += 1;
        } else {
            candidates.push((source, member.connections));
        }
    }
    for &Suspect { source, is_shared } in &fleet.suspects {
        let is_left_alone = allowed.touch(source) || hints.is_customer(source);
        if !hints.is_abuse(source) || is_left_alone || fleet.members.contains_key(&source) {
            continue;
        }
        if is_shared {
            // What one client of many did is not theirs.
            chosen.left_out.shared += 1;
        } else {
            chosen.confirmed += 1;
            candidates.push((source, 0));
        }
    }
    let Some(standing) = standing else {
        chosen.growth = Growth { began_s: now_s, came: 0 };
        chosen.members = candidates.into_iter().map(|(source, _)| source).collect();
        chosen.members.sort_unstable();
        return chosen;
    };
    let before = &standing.action.members;
    let (mut members, mut newcomers): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|(source, _)| before.binary_search(source).is_ok());
    let growth = match standing.growth {
        growth if growth.began_s + GROWTH_S > now_s => growth,
        _ => Growth { began_s: now_s, came: 0 },
    };
    let room = settings.new_members_max.saturating_sub(growth.came) as usize;
    newcomers.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
    chosen.left_out.waiting = newcomers.len().saturating_sub(room);
    newcomers.truncate(room);
    chosen.growth = Growth { came: growth.came + newcomers.len() as u32, ..growth };
    members.append(&mut newcomers);
    chosen.members = members.into_iter().map(|(source, _)| source).collect();
    chosen.members.sort_unstable();
    chosen
}
