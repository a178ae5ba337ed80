//! Rules about fingerprints get into the kernel: which keys have a name that a pattern is of, at which service, and the
//! class of the rule that decides there.

use std::collections::{HashMap, HashSet};

use aya::maps::MapError;
use detector_common::{
    fingerprint::{Kind, Name},
    generation::Generation,
    limits::{CLASSES_MAX, CLIENT_RULES_MAX, FINGERPRINTS, INCIDENT_SLOTS, PAIRS_MAX, POLICY_SLOTS},
    policy::{Action, Class, ClientRule, ClientRuleKey, Trait, incident_tree, pair_place},
};

use super::{
    apply::{ApplyError, settle},
    maps::Maps,
    names,
    read::{self, Active, ReadError, Standing},
};
use crate::policy::{
    compile::{FingerprintRule, incident_fingerprint_rules},
    patterns::Names,
};

/// The rules about fingerprints of one policy, or of the incident rules beside one.
pub(super) struct Tree<'a> {
    /// The slot of the policy, or the number of the tree of the incident rules.
    pub(super) number: u32,
    /// In their order.
    pub(super) rules: &'a [FingerprintRule],
    /// Classes of those that have ended.
    pub(super) ended: HashSet<u16>,
    /// Numbers of all services of the policy.
    pub(super) services: Vec<u16>,
}

/// Fingerprints of a tree that stay under its rules though they have no name any more: as many as have one.
const KEPT_MAX: usize = FINGERPRINTS;

const _: () = assert!(
    (POLICY_SLOTS + INCIDENT_SLOTS) * (FINGERPRINTS + KEPT_MAX) <= CLIENT_RULES_MAX,
    "there is room for those of all trees"
);

/// What the rules of a tree say of the fingerprints that have a name.
type Resolved = HashMap<ClientRuleKey, ClientRule>;

impl<'a> Tree<'a> {
    /// The tree of rules whose classes are these, by their numbers from `first_class` on, at a time, in ticks.
    pub(super) fn at(
        now: u64,
        number: u32,
        rules: &'a [FingerprintRule],
        (first_class, classes): (usize, &[Class]),
        services: Vec<u16>,
    ) -> Self {
        let has_ended =
            |rule: &&FingerprintRule| classes[usize::from(rule.class) - first_class].has_ended(now);
        let ended = rules.iter().filter(has_ended).map(|rule| rule.class).collect();
        Self { number, rules, ended, services }
    }
}

impl Tree<'_> {
    /// Rules that name both, in their order. A rule keeps its number also when one before it has ended.
    fn pairs(&self) -> impl Iterator<Item = (usize, &FingerprintRule)> {
        self.rules.iter().filter(|rule| rule.is_pair()).take(PAIRS_MAX).enumerate()
    }

    fn is_in_force(&self, rule: &FingerprintRule) -> bool {
        !self.ended.contains(&rule.class)
    }

    /// `names`: of each fingerprint that is counted at a service.
    fn resolve(&self, names: &[(Name, u16)]) -> Resolved {
        let mut resolved = Resolved::new();
        for (name, service) in names.iter().filter(|(_, service)| self.services.contains(service)) {
            let service = *service;
            let (of, is_of): (Trait, fn(&FingerprintRule, &Names<'_>) -> bool) =
                match Kind::from_number(name.kind) {
                    // Of a key that several clients have nobody can tell whom a rule would act on.
                    Some(Kind::Tls) if name.conflicts > 0 => continue,
                    Some(Kind::Tls) => (Trait::Tls, |rule, names| rule.patterns.names_ja4(names)),
                    Some(Kind::Syn) => (Trait::Syn, |rule, names| rule.patterns.names_syn(names)),
                    // The program sees no ClientHello of QUIC.
                    Some(Kind::Initial) | None => continue,
                };
            let called = Names::from(name);
            let acts = |rule: &FingerprintRule| self.is_in_force(rule) && is_of(rule, &called);
            let single: Vec<_> = self.rules.iter().filter(|rule| !rule.is_pair() && acts(rule)).collect();
            let pairs: Vec<_> = self.pairs().filter(|(_, rule)| acts(rule)).collect();
            if single.is_empty() && pairs.is_empty() {
                continue;
            }
            let class = single.iter().find(|rule| rule.is_about(service)).map_or(0, |rule| rule.class);
            let about = pairs.iter().filter(|(_, rule)| rule.is_about(service));
            let bits = about.fold(0, |bits, (number, _)| bits | 1_u64 << number);
            if class != 0 || bits != 0 {
                let rule = ClientRule { pairs: bits, class: class.into(), reserved: 0 };
                resolved.insert(ClientRuleKey::new(self.number, service, of, name.key), rule);
            }
        }
        resolved
    }

    /// What stays of what was said of a fingerprint that has no name any more: the rules that have not ended.
    fn kept(&self, rule: ClientRule) -> Option<ClientRule> {
        let in_force = self.pairs().filter(|(_, pair)| self.is_in_force(pair));
        let pairs = rule.pairs & in_force.fold(0, |bits, (number, _)| bits | 1_u64 << number);
        let class = if self.ended.contains(&(rule.class as u16)) { 0 } else { rule.class };
        (class != 0 || pairs != 0).then_some(ClientRule { pairs, class, reserved: 0 })
    }
}

/// Fingerprints that are counted and have a name, with their service: one that comes to another service is acted on there once it
/// is counted there, so that no more are written than there is room to count.
fn names(maps: &Maps) -> Vec<(Name, u16)> {
    let named = read::numbered_entries(&maps.fingerprints).filter_map(|(number, way)| {
        let meta = way.meta();
        Some((names::read(maps, number, meta.kind()?, way.prefix)?, meta.service()))
    });
    named.collect()
}

/// Writes what the rules of a tree say, in place of what another policy said there; how many fingerprints they are about.
///
/// # Errors
///
/// There is no room for so many, or the kernel refuses.
pub(super) fn fill(maps: &mut Maps, tree: &Tree<'_>) -> Result<usize, ApplyError> {
    let resolved = if tree.rules.is_empty() { Resolved::new() } else { tree.resolve(&names(maps)) };
    for (number, rule) in tree.pairs() {
        maps.pair_classes.write(pair_place(tree.number, number as u32) as usize, &rule.class.into());
    }
    let count = resolved.len();
    let before = of_tree(maps, tree.number).map_err(|source| ApplyError::ClientRules { count, source })?;
    write(maps, &before, &resolved).map_err(|source| ApplyError::ClientRules { count, source })?;
    Ok(count)
}

/// Writes what the rules of a tree say now, in which packets look meanwhile. A fingerprint that has lost its name, since others
/// took its place, stays with its rules as long as there is room.
fn update(maps: &mut Maps, tree: &Tree<'_>) -> Result<usize, ApplyError> {
    if tree.rules.is_empty() {
        return Ok(0);
    }
    let names = names(maps);
    let named: HashSet<_> = names.iter().map(|(name, service)| (name.key, *service)).collect();
    let resolved = tree.resolve(&names);
    let refused = |count| move |source| ApplyError::ClientRules { count, source };
    let before = of_tree(maps, tree.number).map_err(refused(resolved.len()))?;
    let nameless = before.iter().filter(|(key, _)| !named.contains(&(key.key, key.service())));
    let nameless = nameless.filter_map(|(key, rule)| Some((*key, tree.kept(*rule)?)));
    let mut all = resolved.clone();
    all.extend(nameless.take(KEPT_MAX));
    let count = all.len();
    if write(maps, &before, &all).is_ok() {
        return Ok(count);
    }
    let count = resolved.len();
    let before = of_tree(maps, tree.number).map_err(refused(count))?;
    write(maps, &before, &resolved).map_err(refused(count))?;
    Ok(count)
}

/// What is said of each fingerprint in a tree.
fn of_tree(maps: &Maps, number: u32) -> Result<Resolved, MapError> {
    let all = maps.client_rules.iter();
    all.filter(|entry| !matches!(entry, Ok((key, _)) if key.tree() != number)).collect()
}

/// Writes what is said of fingerprints in place of what was said `before`.
fn write(maps: &mut Maps, before: &Resolved, after: &Resolved) -> Result<(), MapError> {
    // First what goes, so that there is room for what comes.
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        match maps.client_rules.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    for (key, rule) in after.iter().filter(|(key, rule)| before.get(key) != Some(rule)) {
        maps.client_rules.insert(key, rule, 0)?;
    }
    Ok(())
}

/// Whether there may be rules about fingerprints, in the active policy or in the one before it, or beside them.
pub fn may_be_there(maps: &Maps) -> bool {
    let settings = maps.settings.read(0);
    [settings.active, settings.fallback].map(Generation).into_iter().any(|generation| {
        let header = maps.policies.read(generation.slot() as usize);
        generation.client_incidents().is_some() || header.client_rules != 0
    })
}

/// Has the rules in force act on the fingerprints that have got a name since, and lets go those that have ended. For who holds the
/// policy's lock. How many fingerprints the active policy's rules and the incident rules beside it are about, each at a service.
///
/// # Errors
///
/// The policy cannot be read, there is no room for so many, or the kernel refuses.
pub fn refresh(maps: &mut Maps) -> Result<usize, ApplyError> {
    settle(maps);
    let settings = maps.settings.read(0);
    let active = Generation(settings.active);
    let fallback = Generation(settings.fallback);
    let is_on_trial = settings.deadline != 0 && fallback.epoch() != 0;
    // The active policy has its own whatever becomes of the other one's.
    let of_fallback = if is_on_trial { refresh_generation(maps, fallback) } else { Ok(0) };
    let of_active = if active.epoch() == 0 { Ok(0) } else { refresh_generation(maps, active) };
    of_fallback.and(of_active)
}

fn refresh_generation(maps: &mut Maps, generation: Generation) -> Result<usize, ApplyError> {
    let looked = Active::of(maps, generation);
    let manifest = looked.manifest()?.unwrap_or_default();
    let incidents = incident_fingerprint_rules(&looked.incidents()?, &manifest.services);
    let ended = [ended(&looked, &manifest.fingerprint_rules)?, ended(&looked, &incidents)?];
    let services: Vec<u16> = manifest.services.values().copied().collect();
    let [ended, ended_incidents] = ended;
    let rules = &manifest.fingerprint_rules;
    let tree = Tree { number: generation.slot(), rules, ended, services: services.clone() };
    let mut count = update(maps, &tree)?;
    if let Some(slot) = generation.client_incidents() {
        let rules = &incidents;
        count +=
            update(maps, &Tree { number: incident_tree(slot), rules, ended: ended_incidents, services })?;
    }
    Ok(count)
}

/// The rules in force about a client of this name, at services that it is counted at: the active policy's by their names, and incident
/// rules as `incident N`. They act on it unless its key is another client's too.
///
/// # Errors
///
/// The policy cannot be read.
pub fn rules_about(maps: &Maps, name: &Name, services: &[u16]) -> Result<Vec<String>, ReadError> {
    read::consistently(maps, |active| {
        let (manifest, incidents) = (active.manifest()?.unwrap_or_default(), active.incidents()?);
        let of_incidents = incident_fingerprint_rules(&incidents, &manifest.services);
        let called = Names::from(name);
        let now = read::now(maps);
        let mut found = Vec::new();
        let is_about = |rule: &FingerprintRule| {
            rule.patterns.names_ja4(&called) && services.iter().any(|&service| rule.is_about(service))
        };
        let policy = manifest.fingerprint_rules.iter().filter(|rule| is_about(rule));
        let incident = of_incidents.iter().filter(|rule| is_about(rule));
        for (rule, is_incident) in policy.map(|rule| (rule, false)).chain(incident.map(|rule| (rule, true))) {
            if active.class(rule.class)?.has_ended(now) {
                continue;
            }
            let number = usize::from(rule.rule);
            found.extend(if is_incident {
                incidents.rules.get(number).map(|incident| format!("incident {}", incident.id))
            } else {
                manifest.rules.get(number).map(|rule| rule.name.clone())
            });
        }
        Ok(found)
    })
}

/// The class of the first rule that acts on a client of a source, with its number, as the program finds it: at its SYN or at
/// its ClientHello. Keys are 0 where they are unknown.
///
/// # Errors
///
/// The policy cannot be read.
pub fn rule_about(
    maps: &Maps,
    active: &Active<'_>,
    service: u16,
    source: &Standing,
    (syn_key, tls_key): (u64, u64),
) -> Result<Option<(u16, Class)>, ReadError> {
    let is_allowed = source.class.action == Action::Allow as u8;
    let is_of_incident = usize::from(source.class_number) >= CLASSES_MAX;
    if source.class.is_always_allowed() || is_allowed && is_of_incident {
        return Ok(None);
    }
    let of_incidents = active.generation().incidents().map(incident_tree);
    let of_policy = (!is_allowed).then(|| active.slot());
    let now = read::now(maps);
    for tree in of_incidents.into_iter().chain(of_policy) {
        let said = |of: Trait, key: u64| {
            let known = maps.client_rules.get(&ClientRuleKey::new(tree, service, of, key), 0);
            known.unwrap_or(ClientRule { pairs: 0, class: 0, reserved: 0 })
        };
        let (of_syn, of_tls) = (said(Trait::Syn, syn_key), said(Trait::Tls, tls_key));
        let pairs = of_syn.pairs & of_tls.pairs;
        let pair = match pairs {
            0 => 0,
            pairs => maps.pair_classes.read(pair_place(tree, pairs.trailing_zeros()) as usize),
        };
        for number in [pair as u16, of_tls.class as u16, of_syn.class as u16] {
            let class = if number == 0 { None } else { Some(active.class(number)?) };
            if let Some(class) = class.filter(|class| !class.has_ended(now)) {
                return Ok(Some((number, class)));
            }
        }
    }
    Ok(None)
}

/// Classes of the rules that have ended.
fn ended(active: &Active<'_>, rules: &[FingerprintRule]) -> Result<HashSet<u16>, ReadError> {
    let now = read::now(active.maps());
    let mut ended = HashSet::new();
    for rule in rules {
        if active.class(rule.class)?.has_ended(now) {
            ended.insert(rule.class);
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use detector_common::fingerprint::ja4_bytes;

    use super::*;
    use crate::policy::patterns::Patterns;

    const CHROME: &str = "t13d1516h2_8daaf6152771_b186095e22b6";
    const CURL: &str = "t13d3112h2_e8f1e7e78f70_6bebaf5329ac";

    fn rule(class: u16, ja4: &[&str], syn: &[&str], service: Option<u16>) -> FingerprintRule {
        let patterns = Patterns {
            ja4: ja4.iter().map(|text| text.parse().unwrap()).collect(),
            syn: syn.iter().map(|text| text.parse().unwrap()).collect(),
        };
        FingerprintRule { patterns, rule: class, service, class, is_shared: false }
    }

    fn name(key: u64, ja4: &str, conflicts: u32) -> Name {
        let ja4 = ja4_bytes(ja4);
        Name { key, stable_ja4: ja4, ja4, kind: Kind::Tls as u8, conflicts, ..Name::NONE }
    }

    fn tree<'a>(rules: &'a [FingerprintRule], ended: &[u16]) -> Tree<'a> {
        Tree { number: 1, rules, ended: ended.iter().copied().collect(), services: vec![1, 2] }
    }

    /// What is said of a key at a service: the class, and the rules that name both.
    fn said(resolved: &Resolved, service: u16, key: u64) -> Option<(u32, u64)> {
        let key = ClientRuleKey::new(1, service, Trait::Tls, key);
        resolved.get(&key).map(|rule| (rule.class, rule.pairs))
    }

    #[test]
    fn the_first_rule_that_is_in_force_decides_at_its_service() {
        let rules = [
            rule(10, &[CHROME], &[], Some(2)),
            rule(11, &["t13d15*_*_*"], &[], None),
            rule(12, &["t13*_*_*"], &[], None),
        ];
        let names = [(7, CHROME), (8, CURL), (9, "t12d1516h2_8daaf6152771_b186095e22b6")];
        let names = [1, 2, 3].map(|service| names.map(|(key, ja4)| (name(key, ja4, 0), service)));
        let names = names.as_flattened();
        let resolved = tree(&rules, &[]).resolve(names);
        assert_eq!([1, 2].map(|service| said(&resolved, service, 7)), [Some((11, 0)), Some((10, 0))]);
        assert_eq!([1, 2].map(|service| said(&resolved, service, 8)), [Some((12, 0)); 2]);
        assert_eq!(said(&resolved, 1, 9), None);
        assert_eq!(said(&resolved, 3, 7), None, "no service of this policy");
        let resolved = tree(&rules, &[10, 11]).resolve(names);
        assert_eq!([1, 2].map(|service| said(&resolved, service, 7)), [Some((12, 0)); 2]);
    }

    #[test]
    fn a_rule_about_both_keeps_its_number_when_others_end() {
        let linux = "4:64:0:*:*:*:*:*";
        let rules = [
            rule(10, &[CHROME], &[linux], None),
            rule(11, &["t13*_*_*"], &[linux], None),
            rule(12, &["t13*_*_*"], &[], None),
        ];
        let names = [(name(7, CHROME, 0), 1), (name(8, CURL, 0), 1)];
        let resolved = tree(&rules, &[]).resolve(&names);
        assert_eq!([7, 8].map(|key| said(&resolved, 1, key)), [Some((12, 0b11)), Some((12, 0b10))]);
        let resolved = tree(&rules, &[10]).resolve(&names);
        assert_eq!(said(&resolved, 1, 7), Some((12, 0b10)), "the second one is still the second");
    }

    #[test]
    fn nobody_acts_on_a_key_that_several_clients_have() {
        let rules = [rule(10, &[CHROME], &[], None)];
        assert!(tree(&rules, &[]).resolve(&[(name(7, CHROME, 1), 1)]).is_empty());
    }

    #[test]
    fn what_has_lost_its_name_stays_under_the_rules_in_force() {
        let rules =
            [rule(10, &["t13*_*_*"], &["4:64:0:*:*:*:*:*"], None), rule(11, &["t13*_*_*"], &[], None)];
        let both = ClientRule { pairs: 1, class: 11, reserved: 0 };
        assert_eq!(tree(&rules, &[]).kept(both), Some(both));
        assert_eq!(tree(&rules, &[10]).kept(both), Some(ClientRule { pairs: 0, ..both }));
        assert_eq!(tree(&rules, &[11]).kept(both), Some(ClientRule { class: 0, ..both }));
        assert_eq!(tree(&rules, &[10, 11]).kept(both), None);
    }
}
