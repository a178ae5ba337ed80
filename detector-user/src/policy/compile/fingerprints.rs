//! Rules about fingerprints: no prefix leads to their classes. Whoever knows which keys have which names does.

use std::{cmp::Reverse, collections::BTreeMap};

use detector_common::{
    budget::Budget,
    limits::{CLASSES_MAX, PAIRS_MAX},
    policy::{Action, Class, NO_PROFILE, client_rules},
};
use serde::{Deserialize, Serialize};

use super::{CompileError, Manifest, Place, classes::units};
use crate::policy::{
    Budgets, Policy,
    incident::{Incident, Incidents},
    patterns::{Moment, Patterns},
};

/// A rule about fingerprints, for who resolves patterns to keys. Of those that are about a client, and have not ended, the first
/// decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintRule {
    /// Whom it is about.
    pub patterns: Patterns,
    /// Number of the rule in the manifest; of an incident rule, its place among them.
    pub rule: u16,
    /// Number of the service that it is about; none: every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<u16>,
    /// Number of its class. It has one, whatever the service.
    pub class: u16,
    /// Whether all of its clients share one budget; else each source has its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
}

impl FingerprintRule {
    /// Whether it is about clients of a service, by its number.
    pub fn is_about(&self, service: u16) -> bool {
        self.service.is_none_or(|own| own == service)
    }

    /// Whether it names SYNs and ClientHellos: a pair.
    pub fn is_pair(&self) -> bool {
        !self.patterns.ja4.is_empty() && !self.patterns.syn.is_empty()
    }
}

/// The rules of a policy that are about fingerprints, in their order; `class_of` gives a rule's class by its number.
pub(super) fn of_policy(
    policy: &Policy,
    manifest: &Manifest,
    mut class_of: impl FnMut(usize, &Patterns) -> u16,
) -> Result<Vec<FingerprintRule>, CompileError> {
    let about = policy.rules.iter().enumerate();
    let about = about.filter_map(|(number, rule)| Some((number, rule, rule.matches.patterns()?)));
    let mut rules: Vec<_> = about
        .map(|(number, rule, patterns)| FingerprintRule {
            patterns: patterns.clone(),
            rule: number as u16,
            service: rule.service.as_ref().and_then(|name| manifest.services.get(name).copied()),
            class: class_of(number, patterns),
            is_shared: rule.action.is_shared(),
        })
        .collect();
    let action = |rule: &FingerprintRule| policy.rules[usize::from(rule.rule)].action.rank();
    rules.sort_by_cached_key(|rule| (Reverse(rule.patterns.specificity()), action(rule), rule.rule));
    check_pairs(&rules)?;
    Ok(rules)
}

/// Bits of [`client_rules`]: which of these rules there are; `action_of` gives the [`Action`] of a class.
pub fn which_client_rules(rules: &[FingerprintRule], action_of: impl Fn(u16) -> u8) -> u32 {
    let allows = |rule: &FingerprintRule| {
        action_of(rule.class) == Action::Allow as u8 && !rule.patterns.ja4.is_empty()
    };
    let some = if rules.is_empty() { 0 } else { client_rules::SOME };
    some | if rules.iter().any(allows) { client_rules::ALLOW_BY_HELLO } else { 0 }
}

/// The incident rules that are about fingerprints, in their order, beside a policy with these numbers of services. A rule about
/// another service has no effect and is not among them.
pub fn incident_fingerprint_rules(
    incidents: &Incidents,
    services: &BTreeMap<String, u16>,
) -> Vec<FingerprintRule> {
    let rule = |(number, incident, patterns): (u16, &Incident, &Patterns)| {
        let service = match &incident.service {
            None => None,
            Some(name) => Some(*services.get(name)?),
        };
        let is_shared = incident.action.is_shared();
        let class = incident_class(incidents, number.into());
        Some(FingerprintRule { patterns: patterns.clone(), rule: number, service, class, is_shared })
    };
    let mut rules: Vec<_> = about_fingerprints(incidents).filter_map(rule).collect();
    // The last word counts.
    rules.sort_by_cached_key(|rule| (Reverse(rule.patterns.specificity()), Reverse(rule.rule)));
    rules
}

/// Incident rules about fingerprints with their places among all.
pub(super) fn about_fingerprints(incidents: &Incidents) -> impl Iterator<Item = (u16, &Incident, &Patterns)> {
    let about = incidents.rules.iter().zip(0..);
    about.filter_map(|(incident, number)| Some((number, incident, incident.matches.patterns()?)))
}

/// The class of an incident rule about fingerprints. They come before the classes of those about sources, which depend on the
/// policy.
fn incident_class(incidents: &Incidents, number: usize) -> u16 {
    let before = about_fingerprints(incidents).take_while(|&(other, ..)| usize::from(other) < number);
    (CLASSES_MAX + before.count()) as u16
}

/// More rules that name both than there are bits for.
pub(super) fn check_pairs(rules: &[FingerprintRule]) -> Result<(), CompileError> {
    let mut pairs: Vec<_> = rules.iter().filter(|rule| rule.is_pair()).map(|rule| rule.rule).collect();
    pairs.sort_unstable();
    let Some(&beyond) = pairs.get(PAIRS_MAX) else { return Ok(()) };
    Err(CompileError {
        place: Place::Rule(beyond.into()),
        message: "too many rules with both `ja4` and `syn`",
        found: format!("{} of them", pairs.len()),
        expected: format!("at most {PAIRS_MAX}"),
        help: "from this rule on they do not fit: write lists of patterns into one rule, or name one of both"
            .to_owned(),
    })
}

/// What a limit of a rule charges at its moment, and nothing else.
pub(super) fn limit(class: &mut Class, budgets: &Budgets, moment: Moment, tick_ns: u64) {
    let none = Budget::UNLIMITED;
    (class.packets, class.bytes, class.connections, class.handshakes) = match moment {
        Moment::Syn => (none, none, units(budgets.connections, tick_ns), none),
        Moment::ClientHello => (none, none, none, units(budgets.handshakes, tick_ns)),
    };
}

/// The class of a rule about fingerprints before its action: `until` are the ticks when it ends, if it does.
pub(super) fn class(rule: usize, rule_counter: u16, until: Option<Option<u64>>, is_shared: bool) -> Class {
    Class {
        rule: rule as u16,
        rule_counter,
        // One that has ended does so at the first tick.
        until: until.map_or(0, |end| end.unwrap_or(1)),
        is_shared: u32::from(is_shared),
        profile: NO_PROFILE,
        ..Class::default()
    }
}

#[cfg(test)]
mod tests {
    use detector_common::{
        budget::ticks,
        limits::{CLASSES_MAX, INCIDENT_CLASSES_MAX},
        policy::Action as ClassAction,
    };

    use super::*;
    use crate::policy::{
        Budget, Matches, Rate,
        compile::{Beside, Clocks, IncidentTables, Standard},
        incident::IncidentAction,
        target::{matches, target},
    };

    const CLOCKS: Clocks = Clocks { tick_ns: 4_000_000, kernel_ns: 0, unix_ns: 100_000_000_000 };

    fn incident(action: IncidentAction, whom: &str, service: Option<&str>, until_s: Option<u64>) -> Incident {
        let text = |text: &str| text.to_owned();
        Incident {
            id: 1,
            action,
            matches: matches(vec![target(whom).unwrap()]).unwrap(),
            service: service.map(text),
            until_s,
            reason: text("test"),
            by: text("nobody"),
            at_s: 1,
            counter: 7,
        }
    }

    fn budgets() -> Budgets {
        let budget = Some(Budget { rate: Rate { count: 5, per_ns: 1_000_000_000 }, burst: 5 });
        Budgets { packets: None, bytes: None, connections: budget, handshakes: budget }
    }

    /// Beside services 3 and 4, without profiles.
    fn tables(rules: Vec<Incident>) -> IncidentTables {
        let service = |name: &str, number| (name.to_owned(), (number, Class::default()));
        let standard = Standard(BTreeMap::from([service("api", 3), service("web", 4)]));
        Beside::new(Incidents { rules }, &standard, CLOCKS).unwrap().unwrap().tables
    }

    #[test]
    fn incident_rules_have_their_classes_before_those_of_sources() {
        let shared = IncidentAction::ThrottleShared(budgets());
        let rules = vec![
            incident(IncidentAction::Block, "192.0.2.0/24", None, None),
            incident(IncidentAction::Block, "ja4:t13*_*_*", Some("web"), None),
            incident(IncidentAction::Allow, "ja4:t12*_*_*", None, Some(50)),
            incident(shared, "ja4:t*_*_*+syn:4:*:*:*:*:*:*:*", None, Some(160)),
            incident(IncidentAction::Throttle(budgets()), "syn:4:*:*:*:*:*:*:*", Some("gone"), None),
        ];
        let tables = tables(rules.clone());
        let class = |rule: &FingerprintRule| tables.classes[usize::from(rule.class) - CLASSES_MAX];
        let told: Vec<_> =
            tables.fingerprint_rules.iter().map(|rule| (rule.rule, rule.service, rule.is_shared)).collect();
        // Of equally specific ones the last; one about a service that is not there is nowhere.
        assert_eq!(told, [(3, None, true), (2, None, false), (1, Some(4), false)]);
        let [pair, allow, block] = &tables.fingerprint_rules[..] else { panic!() };
        assert_eq!(
            [pair.class, allow.class, block.class].map(usize::from),
            [2, 1, 0].map(|place| CLASSES_MAX + place)
        );
        let pair = class(pair);
        let limited =
            [pair.packets, pair.bytes, pair.connections, pair.handshakes].map(|budget| budget.is_limited());
        assert_eq!(
            (limited, pair.is_shared, pair.rule, pair.rule_counter),
            ([false, false, false, true], 1, 3, 7)
        );
        assert_eq!((pair.until, class(allow).until, class(block).until), (ticks(60_000_000_000), 1, 0));
        assert_eq!(
            [class(allow).action, class(block).action],
            [ClassAction::Allow as u8, ClassAction::Deny as u8]
        );
        assert!(tables.cells.iter().all(|cell| cell.class == 0 || cell.class as usize > CLASSES_MAX + 3));
        // Another policy gives them the same classes.
        let services = BTreeMap::from([("web".to_owned(), 9)]);
        let again = incident_fingerprint_rules(&Incidents { rules }, &services);
        assert_eq!(again.iter().map(|rule| (rule.rule, rule.class)).collect::<Vec<_>>(), {
            tables.fingerprint_rules.iter().map(|rule| (rule.rule, rule.class)).collect::<Vec<_>>()
        });
    }

    #[test]
    fn all_incident_rules_may_be_about_fingerprints_but_few_about_both() {
        let block = |whom: &str, count| vec![incident(IncidentAction::Block, whom, None, None); count];
        assert_eq!(tables(block("ja4:t13*_*_*", 256)).classes.len(), 256);
        const { assert!(256 <= INCIDENT_CLASSES_MAX) };
        let pairs = block("ja4:t13*_*_*+syn:4:*:*:*:*:*:*:*", PAIRS_MAX + 1);
        let error = Beside::new(Incidents { rules: pairs }, &Standard::default(), CLOCKS).unwrap_err();
        assert!(error.to_string().contains("too many rules with both"), "{error}");
    }

    /// Rules that are kept in the history, or by another daemon, are read as they were written.
    #[test]
    fn incident_rules_are_kept_as_json() {
        let sources = incident(IncidentAction::Block, "192.0.2.0/24", None, None);
        let json = serde_json::to_value(&sources).unwrap();
        assert_eq!(json["sources"], serde_json::json!(["192.0.2.0/24"]));
        assert!(json.get("matches").is_none() && json.get("fingerprints").is_none());
        for action in [IncidentAction::Throttle(budgets()), IncidentAction::ThrottleShared(budgets())] {
            let rule = incident(action, "ja4:t13*_*_*", None, None);
            let json = serde_json::to_string(&rule).unwrap();
            assert!(json.contains(r#""fingerprints":{"ja4":["t13*_*_*"]}"#), "{json}");
            assert_eq!(serde_json::from_str::<Incident>(&json).unwrap(), rule);
        }
        assert_eq!(serde_json::from_value::<Incident>(json).unwrap().matches, sources.matches);
        assert!(matches!(sources.matches, Matches::Sources(_)));
    }
}
