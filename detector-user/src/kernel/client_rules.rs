//! Rules about fingerprints get into the kernel: which keys have a name that a pattern is of, at which service, and the
//! class of the rule that decides there.

use std::collections::{HashMap, HashSet};

use aya::maps::MapError;
use detector_common::{
    fingerprint::{Kind, Name},
    limits::{CLASSES_MAX, PAIRS_MAX},
    policy::{Action, Class, ClientRule, ClientRuleKey, Generation, Trait, incident_tree, pair_place},
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
    /// In their order, without those that have ended.
    pub(super) rules: Vec<&'a FingerprintRule>,
    /// Numbers of all services of the policy.
    pub(super) services: Vec<u16>,
}

/// What the rules of a tree say of the fingerprints that have a name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolved {
    rules: HashMap<ClientRuleKey, ClientRule>,
    /// Classes of the rules that name both, by their numbers.
    pairs: Vec<u16>,
}

impl<'a> Tree<'a> {
    /// The tree of rules whose classes are these, by their numbers from `first_class` on, without those that have ended by a time,
    /// in ticks.
    pub(super) fn in_force_at(
        now: u64,
        number: u32,
        rules: &'a [FingerprintRule],
        (first_class, classes): (usize, &[Class]),
        services: Vec<u16>,
    ) -> Self {
        let has_ended =
            |rule: &&FingerprintRule| classes[usize::from(rule.class) - first_class].has_ended(now);
        let rules = rules.iter().filter(|rule| !has_ended(rule)).collect();
        Self { number, rules, services }
    }
}

impl Tree<'_> {
    fn resolve(&self, names: &[Name]) -> Resolved {
        let (pairs, single): (Vec<_>, Vec<_>) = self.rules.iter().copied().partition(|rule| rule.is_pair());
        let pairs = &pairs[..pairs.len().min(PAIRS_MAX)];
        let mut rules = HashMap::new();
        for name in names {
            let (of, is_of): (Trait, fn(&FingerprintRule, &Names<'_>) -> bool) =
                match Kind::from_number(name.kind) {
                    Some(Kind::Tls) => (Trait::Tls, |rule, names| rule.patterns.names_ja4(names)),
                    Some(Kind::Syn) => (Trait::Syn, |rule, names| rule.patterns.names_syn(names)),
                    // The program sees no ClientHello of QUIC.
                    Some(Kind::Initial) | None => continue,
                };
            let called = Names::from(name);
            let single: Vec<_> = single.iter().filter(|rule| is_of(rule, &called)).collect();
            let pairs: Vec<_> = pairs.iter().enumerate().filter(|(_, rule)| is_of(rule, &called)).collect();
            if single.is_empty() && pairs.is_empty() {
                continue;
            }
            for &service in &self.services {
                let class = single.iter().find(|rule| rule.is_about(service)).map_or(0, |rule| rule.class);
                let about = pairs.iter().filter(|(_, rule)| rule.is_about(service));
                let bits = about.fold(0, |bits, (number, _)| bits | 1_u64 << number);
                if class != 0 || bits != 0 {
                    let rule = ClientRule { pairs: bits, class: class.into(), reserved: 0 };
                    rules.insert(ClientRuleKey::new(self.number, service, of, name.key), rule);
                }
            }
        }
        Resolved { rules, pairs: pairs.iter().map(|rule| rule.class).collect() }
    }
}

/// Every name that a fingerprint has, each once.
fn names(maps: &Maps) -> Vec<Name> {
    let mut seen = HashSet::new();
    names::all(maps).filter(|name| seen.insert((name.kind, name.key))).collect()
}

/// Writes what the rules of a tree say, in place of what it said before; how many fingerprints they are about.
///
/// # Errors
///
/// There is no room for so many, or the kernel refuses.
pub(super) fn fill(maps: &mut Maps, tree: &Tree<'_>) -> Result<usize, ApplyError> {
    let names = if tree.rules.is_empty() { Vec::new() } else { names(maps) };
    let resolved = tree.resolve(&names);
    let refused = |source| ApplyError::ClientRules { count: resolved.rules.len(), source };
    let keys: Vec<_> = maps
        .client_rules
        .keys()
        .filter(|key| !matches!(key, Ok(key) if key.tree() != tree.number))
        .collect::<Result<_, _>>()
        .map_err(refused)?;
    // First what is there no longer, so that there is room; of a tree in use that is what has ended.
    for key in keys.iter().filter(|key| !resolved.rules.contains_key(key)) {
        match maps.client_rules.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    for (number, &class) in resolved.pairs.iter().enumerate() {
        maps.pair_classes.write(pair_place(tree.number, number as u32) as usize, &class.into());
    }
    let before: HashSet<_> = keys.into_iter().collect();
    for (key, rule) in &resolved.rules {
        let is_there =
            before.contains(key) && maps.client_rules.get(key, 0).is_ok_and(|known| known == *rule);
        if !is_there {
            maps.client_rules.insert(key, rule, 0).map_err(refused)?;
        }
    }
    Ok(resolved.rules.len())
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
    if is_on_trial {
        refresh_generation(maps, fallback)?;
    }
    if active.epoch() == 0 { Ok(0) } else { refresh_generation(maps, active) }
}

fn refresh_generation(maps: &mut Maps, generation: Generation) -> Result<usize, ApplyError> {
    let now = read::now(maps);
    let looked = Active::of(maps, generation);
    let manifest = looked.manifest()?.unwrap_or_default();
    let incidents = incident_fingerprint_rules(&looked.incidents()?, &manifest.services);
    let in_force = |rules| in_force(&looked, rules, now);
    let (of_policy, of_incidents) = (in_force(&manifest.fingerprint_rules)?, in_force(&incidents)?);
    let services: Vec<u16> = manifest.services.values().copied().collect();
    let mut count =
        fill(maps, &Tree { number: generation.slot(), rules: of_policy, services: services.clone() })?;
    if let Some(slot) = generation.incidents() {
        count += fill(maps, &Tree { number: incident_tree(slot), rules: of_incidents, services })?;
    }
    Ok(count)
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

/// The rules that have not ended by a time, in ticks.
fn in_force<'r>(
    active: &Active<'_>,
    rules: &'r [FingerprintRule],
    now: u64,
) -> Result<Vec<&'r FingerprintRule>, ReadError> {
    let mut kept = Vec::new();
    for rule in rules {
        if !active.class(rule.class)?.has_ended(now) {
            kept.push(rule);
        }
    }
    Ok(kept)
}
