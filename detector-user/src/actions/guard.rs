//! Guardrails, one function each. Every verdict is kept with its figure and its bound, also where it lets an action be.

use detector_fleets::{fleet::Fleet, traits::SELECTIVE_MAX, usage::KeyUse};
use serde::Serialize;

use super::{
    limits::{
        COLLATERAL_AT_FIRST, CUSTOMERS_MAX, CUSTOMERS_MIN, GROWTH_S, KEY_OF_MEMBERS_MIN, KEYS_MAX, SLOTS_MAX,
    },
    members::Chosen,
    order::Stop,
};
use crate::{
    commands::duration,
    fleets::Scale,
    policy::{FleetSettings, Part, time_text},
};

/// A guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Actions on fleets are not stopped altogether.
    Switch,
    /// It had an alarm, or was there, not too long ago.
    FreshEvidence,
    /// It is not a new population of uniform clients.
    UniformPopulation,
    /// The action costs others next to nothing.
    Collateral,
    /// Its members are not customers.
    Customers,
    /// It has not too many members.
    MembersMax,
    /// Not too many came in an hour.
    NewMembersMax,
    /// Whom an operator lets pass is left out.
    OperatorLists,
    /// Addresses of many clients are left out.
    SharedSources,
    /// Fingerprints that are acted on alone are those of nearly nobody else.
    KeySelective,
    /// None of them is one of the service's most frequent.
    KeyTop,
    /// None of them is a customer's.
    KeyCustomers,
    /// Somebody is left to act on.
    Targets,
    /// The kernel has room for it.
    Slots,
    /// Some members are left alone, so that the effect can be measured.
    HoldOut,
}

impl Guard {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 15] = [
        Self::Switch,
        Self::Targets,
        Self::Slots,
        Self::UniformPopulation,
        Self::Collateral,
        Self::Customers,
        Self::MembersMax,
        Self::HoldOut,
        Self::FreshEvidence,
        Self::OperatorLists,
        Self::SharedSources,
        Self::NewMembersMax,
        Self::KeyCustomers,
        Self::KeyTop,
        Self::KeySelective,
    ];

    /// Its name, as it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::FreshEvidence => "fresh_evidence",
            Self::UniformPopulation => "uniform_population",
            Self::Collateral => "collateral",
            Self::Customers => "customers",
            Self::MembersMax => "members_max",
            Self::NewMembersMax => "new_members_max",
            Self::OperatorLists => "operator_lists",
            Self::SharedSources => "shared_sources",
            Self::KeySelective => "key_selective",
            Self::KeyTop => "key_top",
            Self::KeyCustomers => "key_customers",
            Self::Targets => "targets",
            Self::Slots => "slots",
            Self::HoldOut => "hold_out",
        }
    }

    /// What it asks for.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Switch => "actions on fleets are not stopped altogether",
            Self::FreshEvidence => {
                "it had an alarm, or a tenth of its members came within a day, no longer ago than `for`; asked where an action begins"
            }
            Self::UniformPopulation => {
                "it cannot be devices or an app that were launched, scripts on a schedule, or people behind a relay"
            }
            Self::Collateral => {
                "of the users' connections no more than `collateral_max` would be slowed, half of it for an action that begins"
            }
            Self::Customers => "at most 1 % of its members are customers by hints, or three",
            Self::MembersMax => "no more than `members_max` of its members would be acted on",
            Self::NewMembersMax => "no more than `new_members_max` members came in an hour; others wait",
            Self::OperatorLists => "no member is allowed by the policy or a responder, or is a customer",
            Self::SharedSources => {
                "no member has three ClientHellos or more, or is among the busiest sources"
            }
            Self::KeySelective => {
                "its fingerprints together are those of at most 0.1 % of the users and of what these do, in clean windows and now, and cost no more than the members leave of `collateral_max`"
            }
            Self::KeyTop => {
                "none of its fingerprints is one of the most frequent, which 90 % of the users have"
            }
            Self::KeyCustomers => "none of its members is a customer, who may have any of its fingerprints",
            Self::Targets => "somebody is left to act on",
            Self::Slots => "it is one of the 63 fleets that are acted on, or fewer are",
            Self::HoldOut => "at least 1 % of its members are held out",
        }
    }

    /// What it means that it does not pass.
    pub const fn otherwise(self) -> Otherwise {
        match self {
            Self::Switch | Self::Targets | Self::Slots => Otherwise::NoAction,
            Self::FreshEvidence
            | Self::UniformPopulation
            | Self::Collateral
            | Self::Customers
            | Self::MembersMax
            | Self::HoldOut => Otherwise::Suggestion,
            Self::KeySelective | Self::KeyTop | Self::KeyCustomers => Otherwise::NoKeys,
            Self::NewMembersMax | Self::OperatorLists | Self::SharedSources => Otherwise::LeftOut,
        }
    }
}

/// What it means that a guard does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// There is no action, also by order.
    NoAction,
    /// It stays a suggestion, unless an operator orders it with `--force`.
    Suggestion,
    /// Nobody is acted on by fingerprints alone.
    NoKeys,
    /// Some members are left out.
    LeftOut,
}

/// What a guard says of an action on a fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Which guard.
    pub guard: Guard,
    /// What was found.
    pub figure: f64,
    /// What may be.
    pub bound: f64,
    /// Whether it lets the action be.
    pub passed: bool,
    /// The same for people.
    pub sentence: String,
}

impl Otherwise {
    /// The same for people.
    pub const fn help(self) -> &'static str {
        match self {
            Self::NoAction => "there is no action, and an order waits until it passes",
            Self::Suggestion => {
                "it stays a suggestion, or is not suggested any more, and a throttle in force ends; `--force` overrides it"
            }
            Self::NoKeys => "nobody is acted on by those fingerprints alone",
            Self::LeftOut => "those members are left out",
        }
    }
}

impl Verdict {
    /// Whether it stands in the way of the action. `force`: an operator insists.
    pub fn stops(&self, force: bool) -> bool {
        match self.guard.otherwise() {
            _ if self.passed => false,
            Otherwise::NoAction => true,
            Otherwise::Suggestion => !force,
            Otherwise::NoKeys | Otherwise::LeftOut => false,
        }
    }
}

/// One switch stops all.
pub fn switch(stop: Option<&Stop>) -> Verdict {
    let sentence = stop.map_or_else(
        || "actions on fleets are not stopped".to_owned(),
        |stop| format!("all actions on fleets are stopped by {}: {}", stop.by, stop.reason),
    );
    let figure = f64::from(u8::from(stop.is_some()));
    Verdict { guard: Guard::Switch, figure, bound: 0.0, passed: stop.is_none(), sentence }
}

/// It was seen, with an alarm or with enough of its members, no longer ago than an action lasts.
pub fn fresh_evidence(fleet: &Fleet, settings: &FleetSettings, now_s: u64, scale: Scale) -> Verdict {
    let age_s = now_s.saturating_sub(fleet.last_seen_s);
    let (age, good) = (duration(scale.outer_s(age_s)), time_text(scale.outer_s(settings.for_s).max(1)));
    let sentence = format!("it was last seen {age} ago; an action is good for {good} after that");
    Verdict {
        guard: Guard::FreshEvidence,
        figure: age_s as f64,
        bound: settings.for_s as f64,
        passed: age_s <= settings.for_s,
        sentence,
    }
}

/// Nothing tells a new population from something innocent.
pub fn uniform_population(fleet: &Fleet) -> Verdict {
    let explanation = &fleet.explanation;
    let is_uniform = explanation.is_new_uniform_population;
    Verdict {
        guard: Guard::UniformPopulation,
        figure: f64::from(u8::from(is_uniform)),
        bound: 0.0,
        passed: !is_uniform,
        sentence: format!("could it be {}? {}", explanation.nearest.name(), explanation.why),
    }
}

/// What acting on the members costs others, of all that they do. An action begins below what ends it, so that it does not come and go with
/// the estimate.
pub fn collateral(fleet: &Fleet, settings: &FleetSettings, is_standing: bool) -> Verdict {
    let figure = fleet.collateral;
    let most = settings.collateral_max;
    let most = if is_standing { most } else { Part(most.0 / COLLATERAL_AT_FIRST) };
    Verdict {
        guard: Guard::Collateral,
        figure,
        bound: most.of(),
        passed: figure <= most.of(),
        sentence: format!(
            "{:.4} % of the users' connections would be slowed; at most {most}",
            figure * 100.0
        ),
    }
}

/// Where more members are customers than attribution says users are among them in all, it was wrong about them.
pub fn customers(fleet: &Fleet, chosen: &Chosen) -> Verdict {
    let members = fleet.members.len();
    let customers = chosen.customers;
    let bound = (members as f64 * CUSTOMERS_MAX).max(CUSTOMERS_MIN as f64);
    let right = 100.0 * (1.0 - customers as f64 / members.max(1) as f64);
    Verdict {
        guard: Guard::Customers,
        figure: customers as f64,
        bound,
        passed: customers as f64 <= bound,
        sentence: format!(
            "{customers} of {members} members are customers by hints and {} are confirmed abuse: at most {right:.1} % of the members are right",
            chosen.abuse
        ),
    }
}

/// What has very many members is looked at by a person first.
pub fn members_max(chosen: &Chosen, settings: &FleetSettings) -> Verdict {
    let (members, most) = (chosen.members.len(), settings.members_max);
    Verdict {
        guard: Guard::MembersMax,
        figure: members as f64,
        bound: most.into(),
        passed: members <= most as usize,
        sentence: format!("{members} members would be acted on; at most {most}"),
    }
}

/// Who comes when enough came in this hour waits for the next one.
pub fn new_members_max(chosen: &Chosen, settings: &FleetSettings, scale: Scale) -> Verdict {
    let (came, waiting, most) = (chosen.growth.came, chosen.left_out.waiting, settings.new_members_max);
    let time = time_text(scale.outer_s(GROWTH_S));
    Verdict {
        guard: Guard::NewMembersMax,
        figure: f64::from(came) + waiting as f64,
        bound: most.into(),
        passed: waiting == 0,
        sentence: format!("{came} members came within {time} and {waiting} wait; at most {most}"),
    }
}

/// Whom an operator lets pass, and customers, are not acted on.
pub fn operator_lists(chosen: &Chosen) -> Verdict {
    let (allowed, customers) = (chosen.left_out.allowed, chosen.left_out.customers);
    Verdict {
        guard: Guard::OperatorLists,
        figure: (allowed + customers) as f64,
        bound: 0.0,
        passed: allowed + customers == 0,
        sentence: format!(
            "{allowed} members are allowed by the policy or a responder and {customers} are customers: left out"
        ),
    }
}

/// Addresses of many clients get per-flow action only: by the key, if there is one.
pub fn shared_sources(chosen: &Chosen) -> Verdict {
    let shared = chosen.left_out.shared;
    Verdict {
        guard: Guard::SharedSources,
        figure: shared as f64,
        bound: 0.0,
        passed: shared == 0,
        sentence: format!(
            "{shared} members have three or more ClientHellos or are among the busiest sources: left out but for handshakes with its key"
        ),
    }
}

/// Fingerprints that enough members have, the most frequent first.
pub fn candidates(fleet: &Fleet) -> Vec<KeyUse> {
    // The program sees no ClientHello of QUIC, whose clients have no SYN.
    let is_frequent = |key: &&KeyUse| key.members >= KEY_OF_MEMBERS_MIN && key.key.syn_key != 0;
    fleet.usage.keys.iter().filter(is_frequent).take(KEYS_MAX).copied().collect()
}

/// A top fingerprint of the service is never acted on alone. What is left are the others.
pub fn key_top(candidates: &mut Vec<KeyUse>) -> Verdict {
    let all = candidates.len();
    candidates.retain(|key| !key.is_top);
    let top = all - candidates.len();
    Verdict {
        guard: Guard::KeyTop,
        figure: top as f64,
        bound: 0.0,
        passed: top == 0,
        sentence: format!(
            "{top} of its {all} fingerprints are among the service's most frequent: not acted on alone"
        ),
    }
}

/// Whose source is a customer's and has a fingerprint of the fleet cannot be told from the others by it. What is left are no fingerprints, then.
pub fn key_customers(candidates: &mut Vec<KeyUse>, chosen: &Chosen) -> Verdict {
    let (customers, all) = (chosen.customers, candidates.len());
    if customers > 0 {
        candidates.clear();
    }
    Verdict {
        guard: Guard::KeyCustomers,
        figure: customers as f64,
        bound: 0.0,
        passed: customers == 0 || all == 0,
        sentence: format!(
            "{customers} members are customers by hints, who have its fingerprints: {} of {all} are acted on alone",
            candidates.len()
        ),
    }
}

/// All fingerprints that are acted on are together of nearly none of the service's sources, nor made more of its connections than the members leave of
/// what an action may cost: one source may make most of them. What is left are those.
pub fn key_selective(candidates: &mut Vec<KeyUse>, fleet: &Fleet, settings: &FleetSettings) -> Verdict {
    let left = (settings.collateral_max.of() - fleet.collateral).max(0.0);
    let bound = SELECTIVE_MAX.min(left);
    let all = candidates.len();
    let cost = |key: &KeyUse| key.baseline.max(key.baseline_connections);
    let least = candidates.iter().map(cost).fold(f64::INFINITY, f64::min);
    let mut sum = 0.0;
    candidates.retain(|key| {
        let is_taken = sum + cost(key) <= bound;
        sum += if is_taken { cost(key) } else { 0.0 };
        is_taken
    });
    let figure = if candidates.is_empty() && all > 0 { least } else { sum };
    Verdict {
        guard: Guard::KeySelective,
        figure,
        bound,
        passed: candidates.len() == all,
        sentence: format!(
            "{} of its {all} fingerprints are acted on alone, which had {:.4} % of the service's sources or connections; at most {:.4} %",
            candidates.len(),
            figure * 100.0,
            bound * 100.0
        ),
    }
}

/// Without members and fingerprints there is nothing to do.
pub fn targets(chosen: &Chosen, keys: &[KeyUse]) -> Verdict {
    let (members, keys) = (chosen.members.len(), keys.len());
    Verdict {
        guard: Guard::Targets,
        figure: (members + keys) as f64,
        bound: 1.0,
        passed: members + keys > 0,
        sentence: format!("{members} members and {keys} fingerprints are left to act on"),
    }
}

/// The kernel has so many budgets of fleets.
pub fn slots(in_use: usize, has_one: bool) -> Verdict {
    Verdict {
        guard: Guard::Slots,
        figure: in_use as f64,
        bound: f64::from(SLOTS_MAX),
        passed: has_one,
        sentence: format!("{in_use} fleets are acted on; at most {SLOTS_MAX} at a time"),
    }
}

/// Some are left alone. The policy language has no zero here.
pub fn hold_out(settings: &FleetSettings) -> Verdict {
    let percent = settings.hold_out_percent;
    Verdict {
        guard: Guard::HoldOut,
        figure: percent.into(),
        bound: 1.0,
        passed: percent >= 1,
        sentence: format!(
            "{} of the members are held out, to measure the effect",
            Part::of_percent(percent.into())
        ),
    }
}
