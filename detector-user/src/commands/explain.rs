//! `detector explain ADDRESS`: one screen on how a source stands; from the pinned maps alone.

mod clients;
mod text;

use std::net::IpAddr;

use detector_common::{
    address::Address,
    budget::{BYTE_INTERVAL_FRACTION_BITS, Budget, TICKS_PER_NS, left, take, ticks},
    fleet::FleetKey,
    policy::{Action, Class, NO_PROFILE, ParentClass, is_enforced},
    table::{Key, Lineage, Unit},
    verdict::Reason,
    way::Way,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, mode_name, print_json, print_line, warn};
use crate::{
    cli::ExplainArgs,
    clock,
    fleets::{Found, Store, Told, membership::Confidence, told},
    kernel::{
        client_rules::rule_about,
        fleets,
        mapped::Access,
        maps::Maps,
        probe::probe,
        read::{self, Active, ReadError, Rules},
    },
    replay::source_prefix,
};
pub use clients::{ClientRow, Range};

/// What `explain` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub struct Answer {
    /// The address asked for.
    #[schema(value_type = String, example = "198.51.100.7")]
    pub address: IpAddr,
    /// The prefix that it is counted with.
    pub source: String,
    /// The epoch of the active policy.
    pub policy: u32,
    /// Its version; 0: it could not be recorded.
    pub version: u64,
    /// How it stands at each service.
    pub services: Vec<Standing>,
    /// The fleets that it belongs to, or may.
    pub fleets: Vec<InFleet>,
}

/// A fleet that a source belongs to.
#[derive(Debug, Serialize, ToSchema)]
pub struct InFleet {
    /// Its number, see `detector fleets`.
    pub id: String,
    /// Its target.
    pub service: String,
    /// Whether it is a member, or may be.
    pub confidence: Confidence,
    /// Its last alarm.
    pub last_alarm: String,
}

/// How the source stands at one service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standing {
    /// The service.
    pub service: String,
    /// `allow`, `drop`, `limit`, or `count` where the service has no profile.
    pub action: &'static str,
    /// `enforce`, `shadow`, or `enforce N %`.
    pub mode: String,
    /// Whether that drops packets of this source.
    pub enforced: bool,
    /// The rule that decides, if one does; `incident N` is an incident rule.
    pub rule: Option<String>,
    /// When the rule ends, seconds since the Unix epoch.
    pub until_s: Option<u64>,
    /// Why the rule is there.
    pub reason: Option<String>,
    /// The profile that limits, if one does.
    pub profile: Option<String>,
    /// What was seen since the source got its entry; none while it has none.
    pub seen: Option<Seen>,
    /// What awaits the next packet while it has none.
    pub newcomer: Option<Newcomer>,
    /// Every budget that it is charged to.
    pub budgets: Vec<BudgetState>,
    /// The fleet whose shared budgets its packets are charged to beside these, as the kernel has it; null: it is no member that is acted on. What is
    /// charged by a fingerprint is told of each client.
    pub charged_as: Option<ChargedAs>,
    /// The clients that made handshakes from it, those seen last first.
    pub clients: Vec<ClientRow>,
}

/// A fleet that a source is charged as.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChargedAs {
    /// Its number, see `detector fleets`.
    pub fleet: String,
    /// When that ends by itself unless it is renewed, seconds since the Unix epoch.
    pub until_s: u64,
}

/// What was seen of a source, each modulo 2^32.
#[derive(Debug, Serialize, ToSchema)]
pub struct Seen {
    /// Packets of any verdict.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
    /// Packets that were dropped, if the source is among those that are enforced now.
    pub dropped: u32,
    /// Packets that would have been, if it is not.
    pub would_drop: u32,
    /// Connections that it asked for.
    pub connections: u32,
    /// The last packet that was dropped, or would have been.
    pub last_refusal: Option<LastRefusal>,
}

/// A packet that was dropped, or would have been.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastRefusal {
    /// Milliseconds since then.
    pub ago_ms: u64,
    /// Why: the name of a reason.
    pub reason: &'static str,
}

/// What awaits the next packet of a source without an entry.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Newcomer {
    /// It gets an entry, with every budget of its own full.
    Admitted,
    /// It is refused: the prefix has spent its budget `new_sources`.
    NewSources {
        /// The prefix.
        prefix: String,
    },
    /// It gets none, since every way of its set is busy. If its class limits, it shares the overflow budget.
    TableFull,
}

/// One budget and what is left of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetState {
    /// Whose: the source's prefix, or that of a parent.
    pub prefix: String,
    /// `packets`, `bytes`, `connections` or `new_sources`.
    pub budget: &'static str,
    /// What it gets in a second.
    pub per_second: f64,
    /// What it holds at most.
    pub burst: f64,
    /// What it holds now.
    pub left: f64,
    /// Milliseconds until it is full, if nothing more comes.
    pub full_in_ms: u64,
}

/// Explains an address.
pub fn explain(args: &ExplainArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&args.write.pins().loaded()?, Access::Read)?;
    // Who is told of fleets by nobody is explained all the same.
    let directory = Store::directory(args.write.history().directory(), &args.write.read.pins);
    let told = told::read(&directory).unwrap_or_else(|error| {
        warn(&format!("whether it belongs to a fleet is not known: {error}"));
        None
    });
    let answer = answer(&maps, args.address, &told.unwrap_or_default())?;
    if args.write.read.json {
        print_json(&answer)?;
    } else {
        print_line(&text::text(&answer));
    }
    Ok(EXIT_DONE)
}

/// How an address stands with the active policy.
///
/// # Errors
///
/// There is none, or the maps cannot be read.
pub fn answer(maps: &Maps, address: IpAddr, told: &Told) -> Result<Answer, Failure> {
    let asked = address;
    let address = Address::from(asked);
    let (clients, names) = (clients::of_address(maps, address), clients::Names::of(maps));
    let now_ns = clock::kernel_ns();
    let (policy, version, services) = read::consistently(maps, |active| -> Result<_, Failure> {
        if active.epoch() == 0 {
            return Err(Failure::unavailable("no policy is applied: `detector apply FILE`"));
        }
        let rules = active.rules()?;
        let mut services = Vec::new();
        for (name, &number) in &rules.manifest.services {
            let Some(source) = active.classify(address, number)? else { continue };
            let standing = standing(maps, active, &rules, address, name, number, source)?;
            let is_limited = [Action::Limit as u8, Action::Count as u8].contains(&source.class.action);
            let charged_as = if is_limited { charged_as(maps, address, number)? } else { None };
            let source_hash = read::hash(maps, address, number);
            let acted_on_by = |(syn_key, tls_key)| -> Result<_, Failure> {
                let rule = rule_about(maps, active, number, &source, (syn_key, tls_key))?;
                // A member has paid with its SYN; who shows no ClientHello is not asked who it is; and a rule comes before.
                let is_left = rule.as_ref().is_some_and(|(_, class)| class.action != Action::Limit as u8);
                let fleet = if is_limited && charged_as.is_none() && tls_key != 0 && !is_left {
                    let keys = FleetKey { syn_key, tls_key, service: number.into() };
                    fleets::charged_by_keys(maps, &keys, source_hash).map_err(Failure::failed)?
                } else {
                    None
                };
                let rule = rule.and_then(|(number, class)| rules.of_class(number.into(), &class));
                Ok((rule.map(|rule| rule.name()), fleet.map(|standing| standing.fleet.id.to_string())))
            };
            let clients = clients::rows(&clients, &names, number, now_ns, acted_on_by)?;
            services.push(Standing { clients, charged_as, ..standing });
        }
        Ok((active.policy_epoch(), rules.manifest.version, services))
    })?;
    let source = source_prefix(Unit::of_source(address.family), address.high).to_string();
    let fleets = fleets_of(told, &source);
    Ok(Answer { address: asked, source, policy, version, services, fleets })
}

/// The fleet that a source is charged as at a service.
fn charged_as(maps: &Maps, address: Address, service: u16) -> Result<Option<ChargedAs>, Failure> {
    let key = Key::new(address, Unit::of_source(address.family), service);
    let charged = fleets::charged(maps, key).map_err(Failure::failed)?;
    Ok(charged.map(|standing| {
        let left_ns = standing.fleet.until.saturating_sub(read::now(maps)) / TICKS_PER_NS;
        let left_s = left_ns / 1_000_000_000;
        ChargedAs { fleet: standing.fleet.id.to_string(), until_s: clock::unix_s() + left_s }
    }))
}

/// The fleets that a source belongs to, or may.
fn fleets_of(told: &Told, source: &str) -> Vec<InFleet> {
    let is_in = |sources: &[String]| sources.iter().any(|one| one == source);
    let of_fleet = |fleet: &Found| {
        let confidence = match (is_in(&fleet.members), is_in(&fleet.suspects)) {
            (true, _) => Confidence::Member,
            (false, true) => Confidence::Suspect,
            (false, false) => return None,
        };
        let (id, service, last_alarm) = (fleet.id.clone(), fleet.service.clone(), fleet.last_alarm.clone());
        Some(InFleet { id, service, confidence, last_alarm })
    };
    told.report.fleets.iter().filter_map(of_fleet).collect()
}

fn standing(
    maps: &Maps,
    active: &Active<'_>,
    rules: &Rules,
    address: Address,
    name: &str,
    number: u16,
    standing: read::Standing,
) -> Result<Standing, ReadError> {
    let class = standing.class;
    let rule = rules.of_class(standing.class_number.into(), &class);
    let profile =
        (class.profile != NO_PROFILE).then(|| rules.manifest.profiles.get(usize::from(class.profile)));
    let profile = profile.flatten();
    let now = ticks(clock::kernel_ns());
    let way = read::source(maps, address, number);
    let parents = parents(maps, active, &class, address, number)?;
    let handshakes_tat = read::handshakes_tat(maps, address, number, 0);
    let newcomer = || newcomer(&parents, read::is_full(maps, address, number, now), now);
    let enforced = is_enforced(read::hash(maps, address, number), class.enforced_percent);
    Ok(Standing {
        service: name.to_owned(),
        action: action_name(class.action),
        mode: mode_name(class.enforced_percent),
        enforced,
        rule: rule.map(|rule| rule.name()),
        until_s: rule.and_then(|rule| rule.until_s()),
        reason: rule.and_then(|rule| rule.reason()).map(str::to_owned),
        profile: profile.cloned(),
        seen: way.map(|way| Seen {
            packets: way.packets(),
            bytes: way.bytes(),
            dropped: if enforced { way.refused() } else { 0 },
            would_drop: if enforced { 0 } else { way.refused() },
            last_refusal: way.last_refusal().map(|refusal| LastRefusal {
                ago_ms: now.saturating_sub(refusal.at()) / TICKS_PER_NS / 1_000_000,
                reason: refusal.reason().map_or("unknown", Reason::name),
            }),
            connections: way.connections(),
        }),
        newcomer: way.is_none().then(newcomer),
        budgets: budgets(&class, &way.unwrap_or_default(), handshakes_tat, &parents, address, now),
        charged_as: None,
        clients: Vec::new(),
    })
}

const fn action_name(action: u8) -> &'static str {
    match action {
        action if action == Action::Allow as u8 => "allow",
        action if action == Action::Deny as u8 => "drop",
        action if action == Action::Count as u8 => "count",
        _ => "limit",
    }
}

/// A prefix around a source that the class has budgets for.
struct Parent {
    prefix: String,
    class: ParentClass,
    way: Way,
}

fn parents(
    maps: &Maps,
    active: &Active<'_>,
    class: &Class,
    address: Address,
    service: u16,
) -> Result<Vec<Parent>, ReadError> {
    let levels = [(Unit::V4Net24, class.v4_24), (Unit::V6Net56, class.v6_56), (Unit::V6Net48, class.v6_48)];
    let named = levels.into_iter().filter(|(unit, number)| unit.family() == address.family && *number != 0);
    let parent = |(unit, number)| {
        let prefix = source_prefix(unit, address.high).to_string();
        let way = read::parent(maps, address, unit, service, Lineage(class.lineage)).unwrap_or_default();
        Ok(Parent { prefix, class: active.parent_class(number)?, way })
    };
    named.map(parent).collect()
}

/// In the order in which the program asks.
fn newcomer(parents: &[Parent], is_full: bool, now: u64) -> Newcomer {
    let has_spent = |parent: &&Parent| {
        let budget = &parent.class.new_sources;
        budget.is_limited()
            && take(parent.way.special_tat, now, budget.unit_cost(), budget.burst_ticks).is_err()
    };
    match parents.iter().find(has_spent) {
        Some(parent) => Newcomer::NewSources { prefix: parent.prefix.clone() },
        None if is_full => Newcomer::TableFull,
        None => Newcomer::Admitted,
    }
}

fn budgets(
    class: &Class,
    way: &Way,
    handshakes_tat: u64,
    parents: &[Parent],
    address: Address,
    now: u64,
) -> Vec<BudgetState> {
    let source = source_prefix(Unit::of_source(address.family), address.high).to_string();
    let mut states: Vec<_> = [
        state(&source, "packets", &class.packets, way.packets_tat, now, 0),
        state(&source, "bytes", &class.bytes, way.bytes_tat, now, BYTE_INTERVAL_FRACTION_BITS),
        state(&source, "connections", &class.connections, way.connections_tat, now, 0),
        state(&source, "handshakes", &class.handshakes, handshakes_tat, now, 0),
    ]
    .into_iter()
    .flatten()
    .collect();
    for Parent { prefix, class, way } in parents {
        let parent = [
            state(prefix, "packets", &class.packets, way.packets_tat, now, 0),
            state(prefix, "bytes", &class.bytes, way.bytes_tat, now, BYTE_INTERVAL_FRACTION_BITS),
            state(prefix, "connections", &class.connections, way.connections_tat, now, 0),
            state(prefix, "new_sources", &class.new_sources, way.special_tat, now, 0),
        ];
        states.extend(parent.into_iter().flatten());
    }
    states
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
