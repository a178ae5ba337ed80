//! What was decided about fleets, for commands and the API, in times and rates as they are outside.

use detector_common::fleet::rule_counter;

use crate::{
    actions::{members::LeftOut, plan::Decision, standing::Standing},
    fleets::{
        Scale,
        told::{ActionTold, GuardTold, LeftOutTold, ThrottleTold},
    },
    kernel::{
        fleets::{self, Throttled},
        maps::Maps,
        read,
    },
    policy::{self, Rate},
};

/// A decision. `in_kernel`: what the kernel took of it, where something is in force.
pub(super) fn told(
    decision: &Decision,
    in_kernel: Option<&Throttled>,
    scale: Scale,
    maps: &Maps,
) -> ActionTold {
    let LeftOut { allowed, customers, shared, waiting } = decision.left_out;
    let [allowed, customers, shared, waiting] =
        [allowed, customers, shared, waiting].map(|count| count as u64);
    ActionTold {
        fleet: decision.fleet.0.to_string(),
        step: word(serde_json::json!(decision.step)),
        says: decision.says.clone(),
        order: decision.order,
        guards: decision
            .verdicts
            .iter()
            .map(|verdict| GuardTold {
                guard: verdict.guard.name().to_owned(),
                figure: verdict.figure,
                bound: verdict.bound,
                passed: verdict.passed,
                says: verdict.sentence.clone(),
            })
            .collect(),
        left_out: LeftOutTold { allowed, customers, shared, waiting },
        command: decision.command.clone(),
        throttle: decision.standing.as_ref().map(|standing| ThrottleTold {
            undo: decision.undo.clone().unwrap_or_default(),
            cut: decision.effect.map(|effect| effect.cut),
            ..throttle(standing, in_kernel, scale, maps)
        }),
    }
}

fn throttle(standing: &Standing, in_kernel: Option<&Throttled>, scale: Scale, maps: &Maps) -> ThrottleTold {
    let Standing { action, since_s, .. } = standing;
    let slot =
        fleets::standing(maps).into_iter().find(|one| one.fleet.id == action.fleet.0).map(|one| one.slot);
    let drops = slot.and_then(|slot| read::rule_drops(maps, rule_counter(slot)).ok());
    let count = |of: fn(&Throttled) -> usize| in_kernel.map_or(0, |in_kernel| of(in_kernel) as u64);
    ThrottleTold {
        members: count(|in_kernel| in_kernel.members),
        held_out: count(|in_kernel| in_kernel.held_out),
        without_room: count(|in_kernel| in_kernel.without_room.len()),
        keys: count(|in_kernel| in_kernel.keys),
        held_out_percent: 100_u8.saturating_sub(action.enforced_percent),
        packets: rate(action.budgets.packets, scale),
        connections: rate(action.budgets.connections, scale),
        since_s: scale.unix_s(*since_s),
        until_s: scale.end_unix_s(action.until_s),
        dropped: drops.unwrap_or_default().dropped,
        cut: None,
        undo: String::new(),
    }
}

fn word(value: serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn rate(budget: policy::Budget, scale: Scale) -> String {
    let Rate { count, per_ns } = budget.rate;
    format!("{}, {} at once", Rate { count, per_ns: scale.outer_ns(per_ns) }, budget.burst)
}
