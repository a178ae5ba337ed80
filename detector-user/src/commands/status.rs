//! `detector status`: what is enforced, where, and how full the tables are; from the pinned maps alone.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::{
    budget::ticks,
    counters::{HANDSHAKE_EVENTS, TABLE_EVENTS, handshake_event_slot, table_event_slot},
    generation::Settings,
    limits::CLASSES_MAX,
    policy::NO_RULE,
    verdict::{COUNTER_SLOTS, Verdict, slot_reason},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    EXIT_DEGRADED, EXIT_DONE, EXIT_NOT_ENFORCING, Failure, fleets::health_text, mode_name, print_json,
    print_line, table, version_name, warn,
};
use crate::{
    cli::WriteArgs,
    clock,
    fleets::{
        Store,
        told::{self, Health},
    },
    kernel::{
        links::{LinkPin, Namespace, Place},
        mapped::Access,
        maps::Maps,
        pins::{Pins, PinsError},
        probe::probe,
        read::{self, Active},
    },
    policy::compile::Manifest,
};

/// How things stand, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The policy is carried out, or some of its rules are.
    Enforcing,
    /// Attached, but all that could drop a packet only counts.
    Shadow,
    /// Attached, with a policy that drops no packet in any mode.
    LimitsNothing,
    /// Loaded, attached to no interface.
    Detached,
    /// Loaded and attached, without a policy.
    NoPolicy,
    /// Nothing is loaded.
    Unloaded,
}

/// What `status` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub struct Answer {
    /// How things stand, in one word.
    pub state: State,
    /// What needs a hand; empty when nothing does.
    pub degraded: Vec<String>,
    /// Whether a daemon runs.
    pub daemon: bool,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// The active policy.
    pub policy: Option<Policy>,
    /// Packets by service.
    pub services: BTreeMap<String, Packets>,
    /// Packets by reason, without those that never came about.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub reasons: BTreeMap<&'static str, u64>,
    /// How full each table is.
    #[schema(value_type = BTreeMap<String, Fill>)]
    pub tables: BTreeMap<&'static str, Fill>,
    /// What happened inside the tables.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub events: BTreeMap<&'static str, u64>,
    /// What became of handshakes that were followed.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub handshakes: BTreeMap<&'static str, u64>,
    /// How looking for fleets goes, by what the daemon told last; null: none ran here yet.
    pub fleets: Option<Health>,
}

/// An interface that the program is attached to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Interface {
    /// None unless it is here.
    pub name: Option<String>,
    /// Its number when it was attached, in its own namespace.
    pub index: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// `here`, `other_namespace` or `gone`.
    pub place: &'static str,
}

const HERE: &str = "here";
const OTHER_NAMESPACE: &str = "other_namespace";
const GONE: &str = "gone";

/// The active policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActivePolicy)]
pub struct Policy {
    /// Its version in the history; 0: it could not be recorded.
    pub version: u64,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// Where it came from.
    pub file: String,
    /// When it was applied, seconds since the Unix epoch.
    pub applied_at_s: u64,
    /// `enforce` or `shadow`: of all that does not name its own.
    pub mode: String,
    /// Names of the rules that are carried out under `shadow`, or only count under `enforce`.
    pub exceptions: Vec<String>,
    /// How many it has.
    pub services: usize,
    /// How many it has.
    pub rules: usize,
    /// How many it has.
    pub profiles: usize,
    /// Seconds until it is taken back unless it is confirmed; none: it stays.
    pub confirm_in_s: Option<u64>,
    /// Incident rules beside it, see `rules`.
    pub incidents: usize,
}

/// Packets by verdict.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Packets {
    /// Passed.
    pub pass: u64,
    /// Dropped.
    pub drop: u64,
    /// Would have been dropped, had the mode been `enforce`.
    pub shadow: u64,
}

/// How full a table is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fill {
    /// Entries that it has room for.
    pub ways: u64,
    /// Those that have an owner.
    pub occupied: u64,
    /// Those whose budgets are not full: they cannot be taken over.
    pub busy: u64,
    /// How many of these it is sized for: where there are more, newcomers share budgets.
    pub busy_max: u64,
}

/// Tells how things stand.
pub fn status(args: &WriteArgs) -> Result<u8, Failure> {
    let directory = Store::directory(args.history().directory(), &args.read.pins);
    // How packets are judged is told all the same.
    let told = told::read(&directory).unwrap_or_else(|error| {
        warn(&format!("how looking for fleets goes is not known: {error}"));
        None
    });
    let answer = answer(&args.pins(), told.as_ref().map(|told| &told.detection))?;
    if args.read.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(match answer.state {
        State::Enforcing if answer.degraded.is_empty() => EXIT_DONE,
        State::Enforcing => EXIT_DEGRADED,
        State::Shadow | State::LimitsNothing | State::Detached | State::NoPolicy | State::Unloaded => {
            EXIT_NOT_ENFORCING
        }
    })
}

/// How things stand.
///
/// # Errors
///
/// That cannot be told.
pub fn answer(pins: &Pins, fleets: Option<&Health>) -> Result<Answer, Failure> {
    match pins.loaded() {
        Ok(directory) => {
            probe()?;
            loaded(pins, &Maps::pinned(&directory, Access::Read)?, fleets)
        }
        Err(PinsError::NotLoaded { .. }) => {
            // Without privileges a BPF file system shows nothing: that is not the same as nothing loaded.
            probe()?;
            Ok(unloaded())
        }
        Err(error) => Err(error.into()),
    }
}

fn unloaded() -> Answer {
    Answer {
        state: State::Unloaded,
        degraded: Vec::new(),
        daemon: false,
        interfaces: Vec::new(),
        policy: None,
        services: BTreeMap::new(),
        reasons: BTreeMap::new(),
        tables: BTreeMap::new(),
        events: BTreeMap::new(),
        handshakes: BTreeMap::new(),
        fleets: None,
    }
}

fn loaded(pins: &Pins, maps: &Maps, fleets: Option<&Health>) -> Result<Answer, Failure> {
    let daemon = pins.is_daemon_alive();
    let places = pins.places(Namespace::own()?)?;
    let interfaces: Vec<_> = places.into_iter().map(|(link, place)| interface(&link, place)).collect();
    let (attached, policy, services, reasons) = read::consistently(maps, |active| -> Result<_, Failure> {
        let manifest = active.manifest()?;
        let state = manifest.as_ref().map_or(State::NoPolicy, |manifest| state(active, manifest));
        let incidents = active.incidents()?.rules.len();
        let policy = manifest.as_ref().map(|manifest| policy(maps, active, manifest, incidents));
        let (services, reasons) = packets(maps, &manifest.unwrap_or_default().services)?;
        Ok((state, policy, services, reasons))
    })?;
    let is_detached = interfaces.iter().all(|interface| interface.place == GONE);
    let state = if is_detached { State::Detached } else { attached };
    let now_ns = clock::kernel_ns();
    let tables = read::budget_tables(maps).map(|(name, table)| {
        let fill = read::fill(table, ticks(now_ns));
        let read::Fill { ways, occupied, busy } = fill;
        (name, Fill { ways, occupied, busy, busy_max: fill.busy_max() })
    });
    let counters = read::counters(maps)?;
    let events =
        TABLE_EVENTS.iter().map(|&(event, name, _)| (name, counters[table_event_slot(event) as usize]));
    let handshakes = HANDSHAKE_EVENTS.iter();
    let handshakes =
        handshakes.map(|&(event, name, _)| (name, counters[handshake_event_slot(event) as usize]));
    let mut degraded = degraded(daemon, &interfaces, &tables);
    degraded.extend(unseen_handshakes(&read::settings(maps), now_ns));
    let problem = fleets.filter(|_| daemon).and_then(|fleets| fleets.problem.as_ref());
    degraded.extend(problem.map(|problem| format!("fleets: {problem}")));
    Ok(Answer {
        degraded,
        state,
        daemon,
        interfaces,
        policy,
        services,
        reasons,
        tables: tables.into_iter().collect(),
        events: events.collect(),
        handshakes: handshakes.collect(),
        fleets: fleets.cloned(),
    })
}

fn interface(link: &LinkPin, place: Place) -> Interface {
    let (name, index, place) = match place {
        Place::Here { index, name } => (Some(name), index, HERE),
        Place::Elsewhere => (None, link.interface_index, OTHER_NAMESPACE),
        Place::Gone => (None, link.interface_index, GONE),
    };
    Interface { name, index, mode: link.mode.name(), place }
}

/// What a policy does where it is attached.
fn state(active: &Active<'_>, manifest: &Manifest) -> State {
    // Without a service no class is anybody's.
    let classes = active.refusing_classes().filter(|_| !manifest.services.is_empty());
    match classes.map(|(_, class)| class.enforced_percent).max() {
        Some(0) => State::Shadow,
        Some(_) => State::Enforcing,
        None => State::LimitsNothing,
    }
}

fn policy(maps: &Maps, active: &Active<'_>, manifest: &Manifest, incidents: usize) -> Policy {
    let exceptions: BTreeSet<u16> = active
        .refusing_classes()
        .filter(|(number, _)| (*number as usize) < CLASSES_MAX)
        .map(|(_, class)| class)
        .filter(|class| class.rule != NO_RULE && class.enforced_percent != manifest.enforced_percent)
        .map(|class| class.rule)
        .collect();
    let name = |number: &u16| manifest.rules.get(usize::from(*number)).map(|rule| rule.name.clone());
    Policy {
        version: manifest.version,
        epoch: active.policy_epoch(),
        file: manifest.file.clone(),
        applied_at_s: manifest.applied_at_s,
        mode: mode_name(manifest.enforced_percent),
        exceptions: exceptions.iter().filter_map(name).collect(),
        services: manifest.services.len(),
        rules: manifest.rules.len(),
        profiles: manifest.profiles.len(),
        confirm_in_s: read::confirm_in_s(maps),
        incidents,
    }
}

fn degraded(daemon: bool, interfaces: &[Interface], tables: &[(&str, Fill)]) -> Vec<String> {
    let mut reasons = Vec::new();
    if !daemon {
        reasons.push(
            "no daemon runs: limits go on, metrics and reloads do not; start `detector run` again".to_owned(),
        );
    }
    for interface in interfaces.iter().filter(|interface| interface.place == GONE) {
        let index = interface.index;
        reasons
            .push(format!("interface {index} was deleted: if it is there again, start `detector run` again"));
    }
    let is_full = |fill: &Fill| fill.busy > fill.busy_max;
    let full = tables.iter().filter(|(_, fill)| is_full(fill));
    reasons.extend(full.map(|(name, fill)| table_full(name, fill.busy, fill.busy_max)));
    reasons
}

/// What to do about a table that is too small for what happens.
pub fn table_full(name: &str, busy: u64, busy_max: u64) -> String {
    format!(
        "{busy} {name} are being limited and the table is sized for {busy_max}: newcomers share budgets meanwhile; if that \
         lasts, restart `detector run` with more --sources"
    )
}

/// How long a lack of room for handshakes counts as one, ns.
pub const UNSEEN_NS: u64 = 60_000_000_000;

/// What lacks room for handshakes, by what the daemon saw in the last minute.
fn unseen_handshakes(settings: &Settings, now_ns: u64) -> impl Iterator<Item = String> {
    let is_recent = move |at_ns: u64| at_ns != 0 && now_ns.saturating_sub(at_ns) < UNSEEN_NS;
    let flows = is_recent(settings.flows_full_ns).then_some(FLOWS_FULL);
    let fingerprints = is_recent(settings.fingerprints_full_ns).then_some(FINGERPRINTS_FULL);
    flows.into_iter().chain(fingerprints).map(str::to_owned)
}

/// Connections without room to follow their handshake.
pub const FLOWS_FULL: &str = "more connections are in their handshake than are followed (16,384): some have no fingerprint, limits \
     hold; look at `connections` budgets, as of a flood of SYNs";

/// Fingerprints without room in the table.
pub const FINGERPRINTS_FULL: &str = "more fingerprints are seen at once than are counted (4,096): the others are not, limits hold; look at \
     `detector top fingerprints` for clients that vary theirs";

type ByService = BTreeMap<String, Packets>;
type ByReason = BTreeMap<&'static str, u64>;

fn packets(maps: &Maps, services: &BTreeMap<String, u16>) -> Result<(ByService, ByReason), Failure> {
    let mut by_service = ByService::new();
    let mut by_reason = ByReason::new();
    let none = "none".to_owned();
    for (name, number) in services.iter().map(|(name, &number)| (name, number)).chain([(&none, 0)]) {
        let counters = read::verdicts(maps, number)?;
        let packets = by_service.entry(name.clone()).or_default();
        for slot in 0..COUNTER_SLOTS {
            let count = counters.slots[slot].packets;
            let Some((reason, shadow)) = slot_reason(slot) else { continue };
            match (reason.verdict(), shadow) {
                (Verdict::Pass, _) => packets.pass += count,
                (Verdict::Drop, false) => packets.drop += count,
                (Verdict::Drop, true) => packets.shadow += count,
            }
            if count > 0 {
                *by_reason.entry(reason.name()).or_default() += count;
            }
        }
    }
    Ok((by_service, by_reason))
}

/// Names of rules in one line.
const NAMES_SHOWN: usize = 5;

fn mode(policy: &Policy) -> String {
    let Policy { mode, exceptions, .. } = policy;
    if exceptions.is_empty() {
        return format!("mode {mode}");
    }
    let shown = exceptions.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = match exceptions.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("mode {mode} except rules {shown}{more}")
}

fn text(answer: &Answer) -> String {
    use anstyle::{AnsiColor, Style};
    let is_exceptional = answer.policy.as_ref().is_some_and(|policy| policy.mode == "shadow");
    let has_no_service = answer.policy.as_ref().is_some_and(|policy| policy.services == 0);
    let (word, color) = match answer.state {
        State::Enforcing if is_exceptional && answer.degraded.is_empty() => {
            ("enforcing some rules: the policy is in mode shadow", AnsiColor::Yellow)
        }
        State::Enforcing if is_exceptional => {
            ("enforcing some rules, degraded: the policy is in mode shadow", AnsiColor::Yellow)
        }
        State::Enforcing if answer.degraded.is_empty() => ("enforcing", AnsiColor::Green),
        State::Enforcing => ("enforcing, degraded", AnsiColor::Yellow),
        State::Shadow if is_exceptional => ("not enforcing: the policy is in mode shadow", AnsiColor::Yellow),
        State::Shadow => ("not enforcing: every rule that could drop is in mode shadow", AnsiColor::Yellow),
        State::LimitsNothing if has_no_service => {
            ("not enforcing: the policy has no service", AnsiColor::Red)
        }
        State::LimitsNothing => {
            ("not enforcing: no service has a limit, and no rule drops or limits", AnsiColor::Red)
        }
        State::Detached => ("not enforcing: attached to no interface", AnsiColor::Red),
        State::NoPolicy => ("not enforcing: no policy is applied", AnsiColor::Red),
        State::Unloaded => {
            ("not loaded: start it with `detector run --iface IF --policy FILE`", AnsiColor::Red)
        }
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    let mut lines = vec![format!("{style}{word}{style:#}")];
    lines.extend(answer.degraded.iter().map(|reason| format!("  {reason}")));
    if answer.state == State::Unloaded {
        return lines.join("\n");
    }
    for interface in &answer.interfaces {
        let Interface { index, mode, .. } = interface;
        lines.push(match &interface.name {
            Some(name) => format!("interface {name} ({index}), {mode}"),
            None if interface.place == GONE => format!("interface {index}, {mode}: deleted"),
            None => format!("interface {index}, {mode}, in another network namespace"),
        });
    }
    lines.extend(answer.fleets.as_ref().map(|fleets| format!("fleets: {}", health_text(fleets))));
    if let Some(policy) = &answer.policy {
        let age_s = clock::unix_s().saturating_sub(policy.applied_at_s);
        lines.push(format!(
            "{} from {}, applied {age_s} s ago, {}: {} services, {} rules, {} profiles",
            version_name(policy.version, policy.epoch),
            policy.file,
            mode(policy),
            policy.services,
            policy.rules,
            policy.profiles
        ));
    }
    if let Some(left_s) = answer.policy.as_ref().and_then(|policy| policy.confirm_in_s) {
        lines.push(format!("  it is taken back in {left_s} s: keep it with `detector confirm`"));
    }
    if let Some(count) = answer.policy.as_ref().map(|policy| policy.incidents).filter(|&count| count > 0) {
        lines.push(format!("  {count} incident rules beside it: `detector rules` lists them"));
    }
    let services = answer.services.iter().map(|(name, packets)| {
        vec![name.clone(), packets.pass.to_string(), packets.drop.to_string(), packets.shadow.to_string()]
    });
    lines.push(format!("\n{}", table(&["SERVICE", "PASSED", "DROPPED", "WOULD DROP"], &[1, 2, 3], services)));
    let reasons = answer.reasons.iter().map(|(name, packets)| vec![(*name).to_owned(), packets.to_string()]);
    lines.push(format!("\n{}", table(&["REASON", "PACKETS"], &[1], reasons)));
    let tables = answer.tables.iter().map(|(name, fill)| {
        vec![(*name).to_owned(), fill.ways.to_string(), fill.occupied.to_string(), fill.busy.to_string()]
    });
    lines.push(format!("\n{}", table(&["TABLE", "WAYS", "OCCUPIED", "BUSY"], &[1, 2, 3], tables)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_without_room_need_a_hand_for_a_minute() {
        let told = |flows_full_ns, fingerprints_full_ns| {
            let settings = Settings { flows_full_ns, fingerprints_full_ns, ..Settings::default() };
            unseen_handshakes(&settings, 100 * UNSEEN_NS).collect::<Vec<_>>()
        };
        assert!(told(0, 0).is_empty(), "never");
        assert!(told(99 * UNSEEN_NS, 98 * UNSEEN_NS).is_empty(), "long ago");
        assert_eq!(told(99 * UNSEEN_NS + 1, 0), [FLOWS_FULL]);
        assert_eq!(told(100 * UNSEEN_NS, 100 * UNSEEN_NS), [FLOWS_FULL, FINGERPRINTS_FULL]);
    }
}
