//! Classes: what may happen to a source's packets, each combination once.

use std::{collections::BTreeMap, ops::Range};

use detector_common::{
    budget::Budget,
    limits::{CLASSES_MAX, INCIDENT_OVERFLOW_BUDGETS, OVERFLOW_BUDGETS},
    policy::{Action as ClassAction, Class, NO_PROFILE, NO_RULE, ParentClass},
};

use super::{Clocks, CompileError, Manifest, Place, fingerprints, sources::GivesClasses};
use crate::policy::{
    self, Action, Budgets, Mode, PROFILES_MAX, ParentBudgets, Policy, RULES_MAX, SERVICES_MAX, Service,
    patterns::Patterns,
};

/// Names of profiles by number, classes, parent classes.
pub(super) type Finished = (Vec<String>, Vec<Class>, Vec<ParentClass>);

/// The classes asked for so far.
pub(super) struct Classes<'a> {
    policy: &'a Policy,
    clocks: Clocks,
    profiles: Vec<String>,
    /// By rule, profile, action and what comes when the rule ends; class 0 is given to nobody.
    numbers: BTreeMap<(u16, u16, u8, u16), u16>,
    classes: Vec<Class>,
    parent_classes: Vec<ParentClass>,
    /// Parent classes of each profile: /24, /56, /48.
    parents: Vec<[u16; 3]>,
    manifest: &'a Manifest,
}

impl<'a> Classes<'a> {
    pub(super) fn new(policy: &'a Policy, manifest: &'a Manifest, clocks: Clocks) -> Self {
        let mut classes = Self {
            policy,
            clocks,
            profiles: policy.profiles.keys().cloned().collect(),
            numbers: BTreeMap::new(),
            classes: vec![Class::default()],
            parent_classes: vec![ParentClass::default()],
            parents: Vec::new(),
            manifest,
        };
        for profile in policy.profiles.values() {
            let numbers = profile.parents.levels().map(|level| classes.parent(level));
            classes.parents.push(numbers);
        }
        classes
    }

    fn parent(&mut self, level: Option<&ParentBudgets>) -> u16 {
        let Some(level) = level.filter(|level| !level.is_empty()) else { return 0 };
        let tick = self.clocks.tick_ns;
        let class = ParentClass {
            packets: units(level.budgets.packets, tick),
            bytes: bytes(level.budgets.bytes, tick),
            connections: units(level.budgets.connections, tick),
            new_sources: units(level.new_sources, tick),
        };
        self.parent_classes.push(class);
        (self.parent_classes.len() - 1) as u16
    }

    fn class(&mut self, rule: u16, action: ClassAction, profile: Option<&str>, mode: Mode, next: u16) -> u16 {
        let found =
            profile.and_then(|name| self.profiles.binary_search_by(|known| known.as_str().cmp(name)).ok());
        let profile = found.map_or(NO_PROFILE, |number| number as u16);
        if let Some(&number) = self.numbers.get(&(rule, profile, action as u8, next)) {
            return number;
        }
        let mut class = Class {
            action: action as u8,
            enforced_percent: mode.enforced_percent(),
            rule,
            profile,
            next,
            ..Class::default()
        };
        if rule != NO_RULE {
            class.until = self.end_of(rule.into()).flatten().unwrap_or(0);
            class.rule_counter = self.manifest.rules[usize::from(rule)].counter;
        }
        if let Some(number) = found {
            let budgets = &self.policy.profiles[&self.profiles[number]].budgets;
            self.limit(&mut class, budgets);
            [class.v4_24, class.v6_56, class.v6_48] = self.parents[number];
            class.lineage =
                self.manifest.lineages.get(&self.profiles[number]).map_or(0, |&lineage| lineage as u8);
        }
        self.classes.push(class);
        let number = (self.classes.len() - 1) as u16;
        self.numbers.insert((rule, profile, action as u8, next), number);
        number
    }

    fn limit(&self, class: &mut Class, budgets: &Budgets) {
        class.packets = units(budgets.packets, self.clocks.tick_ns);
        class.bytes = bytes(budgets.bytes, self.clocks.tick_ns);
        class.connections = units(budgets.connections, self.clocks.tick_ns);
        class.handshakes = units(budgets.handshakes, self.clocks.tick_ns);
    }

    /// The class of a rule about fingerprints: nothing follows it, since no source is given it.
    pub(super) fn of_fingerprints(&mut self, rule: usize, patterns: &Patterns) -> u16 {
        let policy = self.policy;
        let policy::Rule { action, mode, .. } = &policy.rules[rule];
        let counter = self.manifest.rules[rule].counter;
        let mut class = Class {
            enforced_percent: mode.unwrap_or(policy.mode).enforced_percent(),
            ..fingerprints::class(rule, counter, self.end_of(rule), action.is_shared())
        };
        class.action = match action {
            Action::Allow => ClassAction::Allow,
            Action::Drop => ClassAction::Deny,
            Action::Limit(_) | Action::LimitShared(_) => ClassAction::Limit,
        } as u8;
        if let Some(name) = action.profile()
            && let Ok(number) = self.profiles.binary_search_by(|known| known.as_str().cmp(name))
        {
            class.profile = number as u16;
            let budgets = &policy.profiles[name].budgets;
            fingerprints::limit(&mut class, budgets, patterns.acts_at(), self.clocks.tick_ns);
        }
        self.classes.push(class);
        (self.classes.len() - 1) as u16
    }

    /// Everything that was asked for.
    pub(super) fn finish(mut self) -> Result<Finished, CompileError> {
        if let Some(beyond) = self.classes.get(CLASSES_MAX) {
            return Err(CompileError {
                place: Place::Rule(beyond.rule.into()),
                message: "too many combinations of rules that end and what follows them",
                found: format!("{} classes", self.classes.len()),
                expected: format!("at most {CLASSES_MAX}"),
                help: "from this rule on they do not fit: let fewer rules end, or name the service they are about"
                    .to_owned(),
            });
        }
        share_overflow(&mut self.classes, 0..OVERFLOW_BUDGETS - INCIDENT_OVERFLOW_BUDGETS);
        Ok((self.profiles, self.classes, self.parent_classes))
    }
}

impl GivesClasses for Classes<'_> {
    fn allowed(&mut self) -> u16 {
        self.class(NO_RULE, ClassAction::Allow, None, Mode::Enforce, 0)
    }

    fn of_service(&mut self, service: &Service) -> u16 {
        match service.profile.as_deref() {
            None => self.class(NO_RULE, ClassAction::Count, None, self.policy.mode, 0),
            Some(profile) => self.class(NO_RULE, ClassAction::Limit, Some(profile), self.policy.mode, 0),
        }
    }

    fn of_rule(&mut self, rule: usize, _: &Service, next: u16) -> u16 {
        let policy = self.policy;
        let number = rule as u16;
        let mode = policy.rules[rule].mode.unwrap_or(policy.mode);
        match &policy.rules[rule].action {
            Action::Allow => self.class(number, ClassAction::Allow, None, mode, next),
            Action::Drop => self.class(number, ClassAction::Deny, None, mode, next),
            Action::Limit(profile) | Action::LimitShared(profile) => {
                self.class(number, ClassAction::Limit, Some(profile), mode, next)
            }
        }
    }

    fn precedence(&self, rule: usize) -> (u8, usize) {
        (self.policy.rules[rule].action.rank(), rule)
    }

    fn end_of(&self, rule: usize) -> Option<Option<u64>> {
        self.policy.rules[rule].until_s.map(|until_s| self.clocks.ticks_at(until_s))
    }
}

/// Gives every class as many of the words of the overflow budgets as the others.
pub(super) fn share_overflow(classes: &mut [Class], words: Range<usize>) {
    let words_log2 = (words.len() / classes.len().max(1)).ilog2();
    for (number, class) in classes.iter_mut().enumerate() {
        class.overflow_first = (words.start + (number << words_log2)) as u16;
        class.overflow_words_log2 = words_log2 as u8;
    }
}

// Those of `defaults.allow` and of services without a profile, one for each profile that a service names, one for each
// rule, and class 0. A class has room for the number of its profile and its rule.
// Rules that end have one for each class that may follow.
const _: () =
    assert!(3 + SERVICES_MAX + RULES_MAX <= CLASSES_MAX, "no policy has too many classes without ends");
const _: () = assert!(PROFILES_MAX <= NO_PROFILE as usize && RULES_MAX <= NO_RULE as usize);

pub(super) fn units(budget: Option<policy::Budget>, clock_tick_ns: u64) -> Budget {
    budget.map_or(Budget::UNLIMITED, |budget| {
        Budget::of_units(budget.rate.count, budget.rate.per_ns, budget.burst, clock_tick_ns)
    })
}

pub(super) fn bytes(budget: Option<policy::Budget>, clock_tick_ns: u64) -> Budget {
    budget.map_or(Budget::UNLIMITED, |budget| {
        Budget::of_bytes(budget.rate.count, budget.rate.per_ns, budget.burst, clock_tick_ns)
    })
}
