//! From incident rules to the tables that the kernel reads beside a policy.

use std::collections::BTreeMap;

use detector_common::{
    budget::{Budget, burst_ticks_min, ticks},
    limits::{
        CLASSES_MAX, INCIDENT_CELLS_MAX, INCIDENT_CLASSES_MAX, INCIDENT_OVERFLOW_BUDGETS, OVERFLOW_BUDGETS,
    },
    policy::{Action as ClassAction, Cell, Class, NO_PROFILE},
    ranges::{NodeV4, NodeV6},
};

use super::{
    Clocks, CompileError, FingerprintRule, Place, Tables, classes, fingerprints, incident_fingerprint_rules,
    ranges::{nodes_v4, nodes_v6},
    sources::{self, GivesClasses},
};
use crate::policy::{
    Action, FleetSettings, Mode, Policy, Rule, Service,
    incident::{Incident, IncidentAction, Incidents},
    patterns::Patterns,
};

/// What a policy says of sources without a rule, for each of its services by name: the service's number and the class.
#[derive(Debug, Clone, Default)]
pub struct Standard(pub BTreeMap<String, (u16, Class)>);

impl Standard {
    /// That of a compiled policy.
    pub fn of(tables: &Tables) -> Self {
        let class = |number: u16| tables.classes[tables.cells[usize::from(number)].class as usize];
        let services = &tables.manifest.services;
        Self(services.iter().map(|(name, &number)| (name.clone(), (number, class(number)))).collect())
    }
}

/// The tables of incident rules beside one policy, ready for a slot.
#[derive(Debug, Clone)]
pub struct IncidentTables {
    /// From the first; the rest of the slot is not read.
    pub cells: Vec<Cell>,
    /// From the first, whose number is [`CLASSES_MAX`].
    pub classes: Vec<Class>,
    /// Source prefixes of IPv4, as ranges.
    pub rules_v4: Vec<NodeV4>,
    /// Source prefixes of IPv6, as ranges.
    pub rules_v6: Vec<NodeV6>,
    /// Rules about fingerprints, in the order in which they decide.
    pub fingerprint_rules: Vec<FingerprintRule>,
    /// Numbers of all services of the policy that they stand beside.
    pub services: Vec<u16>,
}

/// Incident rules beside a policy.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The rules.
    pub incidents: Incidents,
    /// Their tables.
    pub tables: IncidentTables,
}

impl Beside {
    /// Those of some rules; `None`: there are none.
    ///
    /// # Errors
    ///
    /// They do not fit.
    pub fn new(
        incidents: Incidents,
        standard: &Standard,
        clocks: Clocks,
    ) -> Result<Option<Self>, CompileError> {
        if incidents.rules.is_empty() {
            return Ok(None);
        }
        let tables = compile_incidents(&incidents, standard, clocks)?;
        Ok(Some(Self { incidents, tables }))
    }
}

/// Compiles incident rules beside a policy.
///
/// # Errors
///
/// They do not fit.
fn compile_incidents(
    incidents: &Incidents,
    standard: &Standard,
    clocks: Clocks,
) -> Result<IncidentTables, CompileError> {
    let numbers = standard.0.iter().map(|(name, &(number, _))| (name.clone(), number)).collect();
    let mut classes =
        IncidentClasses { incidents, standard, clocks, numbers: BTreeMap::new(), classes: Vec::new() };
    for (rule, incident, patterns) in fingerprints::about_fingerprints(incidents) {
        classes.of_fingerprints(rule.into(), incident, patterns);
    }
    let fingerprint_rules = incident_fingerprint_rules(incidents, &numbers);
    fingerprints::check_pairs(&fingerprint_rules)?;
    let sources =
        sources::compile(&as_policy(incidents, standard), &numbers, &mut classes, INCIDENT_CELLS_MAX)?;
    let mut classes = classes.classes;
    if let Some(beyond) = classes.get(INCIDENT_CLASSES_MAX) {
        return Err(CompileError {
            place: Place::Rule(beyond.rule.into()),
            message: "too many incident rules that throttle, for services with different profiles",
            found: format!("{} classes", classes.len()),
            expected: format!("at most {INCIDENT_CLASSES_MAX}"),
            help: "undo some, name the service they are about, or put them into the policy".to_owned(),
        });
    }
    classes::share_overflow(&mut classes, OVERFLOW_BUDGETS - INCIDENT_OVERFLOW_BUDGETS..OVERFLOW_BUDGETS);
    Ok(IncidentTables {
        cells: sources.cells,
        classes,
        rules_v4: nodes_v4(&sources.v4),
        rules_v6: nodes_v6(&sources.v6),
        fingerprint_rules,
        services: numbers.into_values().collect(),
    })
}

/// Incident rules as the rules of a policy, for the order among them.
fn as_policy(incidents: &Incidents, standard: &Standard) -> Policy {
    let service = |name: &String| Service {
        name: name.clone(),
        addresses: Vec::new(),
        ports: Vec::new(),
        profile: None,
        fleets: None,
    };
    let rule = |incident: &Incident| Rule {
        name: incident.id.to_string(),
        service: incident.service.clone(),
        matches: incident.matches.clone(),
        action: match incident.action {
            IncidentAction::Allow => Action::Allow,
            IncidentAction::Block => Action::Drop,
            IncidentAction::Throttle(_) => Action::Limit(String::new()),
            IncidentAction::ThrottleShared(_) => Action::LimitShared(String::new()),
        },
        mode: None,
        until_s: incident.until_s,
        reason: None,
    };
    Policy {
        mode: Mode::Enforce,
        allow: Vec::new(),
        services: standard.0.keys().map(service).collect(),
        profiles: BTreeMap::new(),
        rules: incidents.rules.iter().map(rule).collect(),
        fleets: FleetSettings::default(),
    }
}

/// A rule, the profile and lineage of the class that a throttle tightens, and what comes when the rule ends.
type Asked = (usize, Option<(u16, u8)>, u16);

/// The classes asked for so far.
struct IncidentClasses<'a> {
    incidents: &'a Incidents,
    standard: &'a Standard,
    clocks: Clocks,
    numbers: BTreeMap<Asked, u16>,
    classes: Vec<Class>,
}

impl GivesClasses for IncidentClasses<'_> {
    fn allowed(&mut self) -> u16 {
        0
    }

    fn of_service(&mut self, _: &Service) -> u16 {
        0
    }

    fn of_rule(&mut self, rule: usize, service: &Service, next: u16) -> u16 {
        let incident = &self.incidents.rules[rule];
        let is_throttle = matches!(incident.action, IncidentAction::Throttle(_));
        let standard = self.standard.0.get(&service.name).filter(|_| is_throttle).map(|&(_, class)| class);
        let key = (rule, standard.map(|class| (class.profile, class.lineage)), next);
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let class = Class {
            enforced_percent: 100,
            rule: rule as u16,
            rule_counter: incident.counter,
            until: self.end_of(rule).flatten().unwrap_or(0),
            next,
            ..self.of_action(incident, standard.unwrap_or_default())
        };
        self.classes.push(class);
        let number = (CLASSES_MAX + self.classes.len() - 1) as u16;
        self.numbers.insert(key, number);
        number
    }

    fn precedence(&self, rule: usize) -> (u8, usize) {
        // The last word counts.
        (0, usize::MAX - rule)
    }

    fn end_of(&self, rule: usize) -> Option<Option<u64>> {
        self.incidents.rules[rule].until_s.map(|until_s| self.clocks.ticks_at(until_s))
    }
}

impl IncidentClasses<'_> {
    /// The class of a rule about fingerprints: a throttle of these keeps nothing of a profile.
    fn of_fingerprints(&mut self, rule: usize, incident: &Incident, patterns: &Patterns) {
        let mut class = Class {
            enforced_percent: 100,
            ..fingerprints::class(rule, incident.counter, self.end_of(rule), incident.action.is_shared())
        };
        class.action = match &incident.action {
            IncidentAction::Allow => ClassAction::Allow,
            IncidentAction::Block => ClassAction::Deny,
            IncidentAction::Throttle(budgets) | IncidentAction::ThrottleShared(budgets) => {
                fingerprints::limit(&mut class, budgets, patterns.acts_at(), self.clocks.tick_ns);
                ClassAction::Limit
            }
        } as u8;
        self.classes.push(class);
    }

    /// What an action makes of the class that a service's sources have without a rule.
    fn of_action(&self, incident: &Incident, standard: Class) -> Class {
        let bare = Class { profile: NO_PROFILE, ..Class::default() };
        let budgets = match &incident.action {
            IncidentAction::Allow => return Class { action: ClassAction::Allow as u8, ..bare },
            IncidentAction::Block => return Class { action: ClassAction::Deny as u8, ..bare },
            IncidentAction::Throttle(budgets) | IncidentAction::ThrottleShared(budgets) => budgets,
        };
        // A service that only counts has no budgets to keep, and one in mode shadow none that are enforced.
        let is_kept = standard.action == ClassAction::Limit as u8 && standard.enforced_percent > 0;
        let mut class = Class { action: ClassAction::Limit as u8, ..if is_kept { standard } else { bare } };
        let tick_ns = self.clocks.tick_ns;
        let units = |own: Budget, throttled| {
            own.tightest(classes::units(throttled, tick_ns), |interval| {
                burst_ticks_min(interval, ticks(tick_ns))
            })
        };
        let bytes = classes::bytes(budgets.bytes, tick_ns);
        class.packets = units(class.packets, budgets.packets);
        class.bytes = class.bytes.tightest(bytes, |_| ticks(2 * tick_ns).max(1));
        class.connections = units(class.connections, budgets.connections);
        class.handshakes = units(class.handshakes, budgets.handshakes);
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{self, Budgets, Matches, Rate};
    use proptest::prelude::*;

    fn budget() -> impl Strategy<Value = Option<policy::Budget>> {
        let per_ns = prop::sample::select(vec![1_000_000_000, 60_000_000_000, 3_600_000_000_000_u64]);
        let some = (1_u64..1_000_000, per_ns, 1_u64..1_000_000)
            .prop_map(|(count, per_ns, burst)| policy::Budget { rate: Rate { count, per_ns }, burst });
        prop::option::of(some)
    }

    fn budgets() -> impl Strategy<Value = Budgets> {
        (budget(), budget(), budget(), budget()).prop_map(|(packets, bytes, connections, handshakes)| {
            Budgets { packets, bytes, connections, handshakes }
        })
    }

    fn class(budgets: &Budgets, tick_ns: u64, enforced_percent: u8) -> Class {
        Class {
            action: ClassAction::Limit as u8,
            enforced_percent,
            packets: classes::units(budgets.packets, tick_ns),
            bytes: classes::bytes(budgets.bytes, tick_ns),
            connections: classes::units(budgets.connections, tick_ns),
            handshakes: classes::units(budgets.handshakes, tick_ns),
            ..Class::default()
        }
    }

    proptest! {
        /// Whatever the profile and whatever the throttle: neither affords less than the class of a throttled source.
        #[test]
        fn a_throttle_is_never_looser_than_the_profile_nor_than_itself(
            own in budgets(), asked in budgets(), percent in 1_u8..=100, tick_ns in prop::sample::select(vec![0_u64, 4_000_000]),
        ) {
            let standard = class(&own, tick_ns, percent);
            let incident = Incident {
                id: 1,
                action: IncidentAction::Throttle(asked.clone()),
                matches: Matches::Sources(vec!["192.0.2.0/24".parse().unwrap()]),
                service: None,
                until_s: None,
                reason: String::new(),
                by: String::new(),
                at_s: 0,
                counter: 1,
            };
            let incidents = Incidents { rules: vec![incident] };
            let services = Standard(BTreeMap::from([("api".to_owned(), (1, standard))]));
            let clocks = Clocks { tick_ns, kernel_ns: 0, unix_ns: 0 };
            let tables = compile_incidents(&incidents, &services, clocks).unwrap();
            let throttled = tables.classes[0];
            let of_itself = class(&asked, tick_ns, 100);
            prop_assert!(throttled.is_within(&standard), "{throttled:?} {standard:?}");
            prop_assert!(throttled.is_within(&of_itself), "{throttled:?} {of_itself:?}");
            prop_assert!(!standard.prevails_over(&throttled, true), "it is in force");
        }
    }
}
