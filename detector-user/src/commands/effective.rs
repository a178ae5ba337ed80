//! `detector show --effective`: what the kernel does now; from the pinned maps alone.

use detector_common::{
    budget::Budget,
    policy::{Action, Class, NO_PROFILE},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Failure,
    amount::{Amount, Quantity},
    mode_name,
    rules::{IncidentRule, Rule, beside, clients, ends, incident_table, of_policy},
    table, time, version_name,
};
use crate::{
    kernel::{
        maps::Maps,
        read::{self, Active},
        services::{self, Destination},
    },
    policy::{Ports, compile::Manifest},
};

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Effective)]
pub struct Answer {
    /// The version of the policy; 0: it was not recorded.
    pub version: u64,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// Where it came from.
    pub file: String,
    /// When it was applied, seconds since the Unix epoch.
    pub applied_at_s: u64,
    /// Seconds until it is taken back unless it is confirmed; none: it stays.
    pub confirm_in_s: Option<u64>,
    /// `enforce`, `shadow` or `enforce N %`: of all that does not name its own.
    pub mode: String,
    /// By name.
    pub services: Vec<Service>,
    /// Incident rules, which come before those of the policy.
    pub incidents: Vec<IncidentRule>,
    /// In the order of the file.
    pub rules: Vec<LimitingRule>,
}

/// A service and what it does with sources that no rule names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EffectiveService)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What belongs to it.
    pub destinations: Vec<ServiceDestination>,
    /// `limit`, or `count` where it has no profile.
    pub action: &'static str,
    /// As [`Answer::mode`].
    pub mode: String,
    /// Its profile.
    pub profile: Option<String>,
    /// What that affords.
    pub budgets: Vec<EffectiveBudget>,
}

/// Addresses and ports of a service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EffectiveDestination)]
pub struct ServiceDestination {
    /// Addresses; those of a longer prefix of the policy are that one's.
    pub prefix: String,
    /// As in a policy: `tcp/443`, `udp/8000-8010`, `protocol/47`, `*`.
    pub ports: Vec<String>,
}

/// A rule with its budgets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EffectiveRule)]
pub struct LimitingRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// What its profile affords; none where it does not limit, or never comes to that.
    pub budgets: Vec<EffectiveBudget>,
}

/// A budget of a profile.
#[derive(Debug, Serialize, ToSchema)]
pub struct EffectiveBudget {
    /// Whose: `source`, or the prefix around it: `v4_24`, `v6_56`, `v6_48`; or `shared`, of all clients of a rule.
    pub of: &'static str,
    /// `packets`, `bytes`, `connections`, `handshakes` or `new_sources`.
    pub budget: &'static str,
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
}

/// Reads what the kernel does.
///
/// # Errors
///
/// There is no policy, or it cannot be read.
pub fn answer(maps: &Maps) -> Result<Answer, Failure> {
    read::consistently(maps, |active| {
        let Some(manifest) = active.manifest()? else {
            return Err(Failure::unavailable("no policy is applied: `detector apply FILE`"));
        };
        let mut destinations = services::destinations(maps, active)?;
        let services = manifest.services.iter().map(|(name, &number)| {
            let destinations = destinations.remove(&number).unwrap_or_default();
            service(active, &manifest, name, number, destinations)
        });
        let services = services.collect::<Result<_, Failure>>()?;
        let rules = (0..manifest.rules.len()).map(|number| rule(maps, active, &manifest, number));
        let incidents = active.incidents()?;
        let incidents = incidents.rules.iter().map(|incident| beside(maps, &manifest, incident));
        Ok(Answer {
            version: manifest.version,
            epoch: active.policy_epoch(),
            file: manifest.file.clone(),
            applied_at_s: manifest.applied_at_s,
            confirm_in_s: read::confirm_in_s(maps),
            mode: mode_name(manifest.enforced_percent),
            services,
            incidents: incidents.collect::<Result<_, Failure>>()?,
            rules: rules.collect::<Result<_, Failure>>()?,
        })
    })
}

fn service(
    active: &Active<'_>,
    manifest: &Manifest,
    name: &str,
    number: u16,
    destinations: Vec<Destination>,
) -> Result<Service, Failure> {
    let class = active.standard_class(number)?;
    let destination = |of: Destination| ServiceDestination {
        prefix: of.prefix.to_string(),
        ports: of.ports.iter().map(Ports::to_string).collect(),
    };
    Ok(Service {
        name: name.to_owned(),
        destinations: destinations.into_iter().map(destination).collect(),
        action: if class.action == Action::Limit as u8 { "limit" } else { "count" },
        mode: mode_name(class.enforced_percent),
        profile: profile(manifest, &class),
        budgets: budgets(active, &class)?,
    })
}

fn profile(manifest: &Manifest, class: &Class) -> Option<String> {
    (class.profile != NO_PROFILE)
        .then(|| manifest.profiles.get(usize::from(class.profile)).cloned())
        .flatten()
}

fn rule(
    maps: &Maps,
    active: &Active<'_>,
    manifest: &Manifest,
    number: usize,
) -> Result<LimitingRule, Failure> {
    let rule = &manifest.rules[number];
    // All classes of a rule afford the same; they differ in what comes when it ends.
    let class = active.classes().find(|(_, class)| class.rule_counter == rule.counter);
    let budgets = class.map_or(Ok(Vec::new()), |(_, class)| budgets(active, &class))?;
    Ok(LimitingRule { rule: of_policy(maps, manifest, number)?, budgets })
}

fn budgets(active: &Active<'_>, class: &Class) -> Result<Vec<EffectiveBudget>, Failure> {
    let of = if class.is_shared == 0 { "source" } else { "shared" };
    let mut budgets: Vec<_> = [
        budget(of, "packets", &class.packets, Quantity::Units),
        budget(of, "bytes", &class.bytes, Quantity::Bytes),
        budget(of, "connections", &class.connections, Quantity::Units),
        budget(of, "handshakes", &class.handshakes, Quantity::Units),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (of, number) in [("v4_24", class.v4_24), ("v6_56", class.v6_56), ("v6_48", class.v6_48)] {
        if number == 0 {
            continue;
        }
        let parent = active.parent_class(number)?;
        let of_parent = [
            budget(of, "packets", &parent.packets, Quantity::Units),
            budget(of, "bytes", &parent.bytes, Quantity::Bytes),
            budget(of, "connections", &parent.connections, Quantity::Units),
            budget(of, "new_sources", &parent.new_sources, Quantity::Units),
        ];
        budgets.extend(of_parent.into_iter().flatten());
    }
    Ok(budgets)
}

fn budget(
    of: &'static str,
    name: &'static str,
    budget: &Budget,
    quantity: Quantity,
) -> Option<EffectiveBudget> {
    Amount::of(budget, quantity).map(|amount| EffectiveBudget { of, budget: name, amount })
}

/// Destinations that are shown in one line.
const DESTINATIONS_SHOWN: usize = 4;

/// For people.
pub fn text(answer: &Answer) -> String {
    let mut lines = vec![format!(
        "{} from {}, applied {} UTC, mode {}",
        version_name(answer.version, answer.epoch),
        answer.file,
        time(answer.applied_at_s),
        answer.mode
    )];
    if let Some(left_s) = answer.confirm_in_s {
        lines.push(format!("  it is taken back in {left_s} s: keep it with `detector confirm`"));
    }
    for service in &answer.services {
        let what = match &service.profile {
            Some(profile) => format!("limit, profile {profile}"),
            None => "count, no profile".to_owned(),
        };
        let mode =
            if service.mode == answer.mode { String::new() } else { format!(", mode {}", service.mode) };
        lines.push(format!("\nservice {}: {what}{mode}", service.name));
        lines.push(format!("  {}", destinations_text(&service.destinations)));
        if !service.budgets.is_empty() {
            let rows = service.budgets.iter().map(|EffectiveBudget { of, budget, amount }| {
                vec![(*of).to_owned(), (*budget).to_owned(), amount.rate.clone(), amount.burst.clone()]
            });
            lines.push(table(&["OF", "BUDGET", "RATE", "BURST"], &[2, 3], rows));
        }
    }
    if !answer.incidents.is_empty() {
        lines.push(format!("\nincident rules\n{}", incident_table(&answer.incidents)));
    }
    if !answer.rules.is_empty() {
        let header =
            ["RULE", "CLIENTS", "ACTION", "MODE", "BUDGETS", "DROPPED", "WOULD DROP", "ENDS", "REASON"];
        let rows = answer.rules.iter().map(rule_row);
        lines.push(format!("\n{}", table(&header, &[5, 6], rows)));
    }
    lines.join("\n")
}

fn destinations_text(destinations: &[ServiceDestination]) -> String {
    let of =
        |destination: &ServiceDestination| format!("{} {}", destination.prefix, destination.ports.join(" "));
    let shown = destinations.iter().take(DESTINATIONS_SHOWN).map(of).collect::<Vec<_>>().join(", ");
    match destinations.len().saturating_sub(DESTINATIONS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more, see --json"),
    }
}

fn rule_row(LimitingRule { rule, budgets }: &LimitingRule) -> Vec<String> {
    let budget = |EffectiveBudget { of, budget, amount }: &EffectiveBudget| match *of {
        "source" => format!("{budget} {} burst {}", amount.rate, amount.burst),
        of => format!("{of} {budget} {} burst {}", amount.rate, amount.burst),
    };
    let budgets = budgets.iter().map(budget).collect::<Vec<_>>().join(", ");
    vec![
        rule.name.clone(),
        clients(rule),
        rule.action.clone(),
        rule.mode.clone(),
        if budgets.is_empty() { "-".to_owned() } else { budgets },
        rule.dropped.to_string(),
        rule.would_drop.to_string(),
        ends(rule.ends_in_s),
        rule.reason.clone().unwrap_or_default(),
    ]
}
