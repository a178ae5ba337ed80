//! Incident rules get into the kernel: a slot of theirs that nobody reads is filled, then the word that names it changes.

use std::io;

use detector_common::{
    generation::{Generation, IncidentSet, Settings},
    limits::{CLASSES_MAX, INCIDENT_CLASSES_MAX, INCIDENT_RULES_MAX, INCIDENT_SLOTS, POLICY_RULE_COUNTERS},
    policy::{Class, incident_cell_place, incident_class_place, incident_tree},
    way::next_epoch,
};

use super::{
    apply::{ACTIVE, ApplyError, FALLBACK, LAST_EPOCH, chunks, reset_rule_counter, set_trees, settle, sized},
    client_rules::{self, Tree},
    maps::Maps,
    read::{self, Active},
};
use crate::policy::{
    compile::{Beside, Clocks, CompileError, Standard, which_client_rules},
    incident::{Incident, Incidents},
};

/// Word of the settings.
const LAST_INCIDENT: usize = std::mem::offset_of!(Settings, last_incident) / size_of::<u64>();

/// Adds incident rules, which get their numbers and counters here, and removes those that have ended or that `is_undone`
/// names; all in one step, also beside a policy on trial and the one before it. What was added and what was removed. The
/// caller keeps other writers of policies away.
///
/// # Errors
///
/// There is no policy, too many incident rules, or the kernel refuses a map. Nothing changes.
pub fn change(
    maps: &mut Maps,
    clocks: Clocks,
    added: Vec<Incident>,
    is_undone: impl Fn(&Incident) -> bool,
) -> Result<Changed, ApplyError> {
    settle(maps);
    let settings = maps.settings.read(0);
    let active = Generation(settings.active);
    if active.epoch() == 0 {
        return Err(ApplyError::NoPolicy);
    }
    if settings.deadline != 0 && Generation(settings.fallback).epoch() == 0 && !added.is_empty() {
        return Err(ApplyError::FirstTrial);
    }
    let now_unix_s = clocks.unix_ns / 1_000_000_000;
    let before = read::incidents(maps)?;
    let is_gone = |incident: &Incident| incident.has_ended(now_unix_s) || is_undone(incident);
    let (removed, mut rules): (Vec<_>, Vec<_>) = before.rules.into_iter().partition(is_gone);
    let added = numbered(added, &rules, settings.last_incident)?;
    if added.is_empty() && removed.is_empty() {
        return Ok(Changed { epoch: active.epoch(), added, removed });
    }
    rules.extend(added.iter().cloned());
    let epoch = put(maps, clocks, Incidents { rules }, &added)?;
    Ok(Changed { epoch, added, removed })
}

/// Brings back incident rules that were in force before the program was loaded, with the numbers that they had. Where
/// there are some already, or those have ended, nothing is done. The rules that are in force again.
///
/// # Errors
///
/// As [`change`].
pub fn restore(maps: &mut Maps, clocks: Clocks, kept: Incidents) -> Result<Vec<Incident>, ApplyError> {
    settle(maps);
    if Generation(maps.settings.read(0).active).epoch() == 0 {
        return Err(ApplyError::NoPolicy);
    }
    let now_unix_s = clocks.unix_ns / 1_000_000_000;
    let rules: Vec<_> = kept.rules.into_iter().filter(|incident| !incident.has_ended(now_unix_s)).collect();
    if rules.is_empty() || !read::incidents(maps)?.rules.is_empty() {
        return Ok(Vec::new());
    }
    put(maps, clocks, Incidents { rules: rules.clone() }, &rules)?;
    Ok(rules)
}

/// Sees to it that no rule to come gets a number up to one that is known elsewhere.
pub fn reserve(maps: &Maps, last: u64) {
    let known = maps.settings.read(0).last_incident;
    maps.settings.write_word(0, LAST_INCIDENT, known.max(last));
}

/// Puts a set in place of the one in force; the counters of `added` begin at zero. The epoch from then on.
fn put(maps: &mut Maps, clocks: Clocks, incidents: Incidents, added: &[Incident]) -> Result<u32, ApplyError> {
    let settings = maps.settings.read(0);
    let active = Generation(settings.active);
    // A policy on trial goes back to the one before with the same incident rules.
    let is_on_trial = settings.deadline != 0;
    let fallback = Some(Generation(settings.fallback)).filter(|before| is_on_trial && before.epoch() != 0);
    let generations: Vec<_> = fallback.into_iter().chain([active]).collect();
    let mut compiled = Vec::new();
    for &generation in &generations {
        let standard = standard(&Active::of(maps, generation))?;
        compiled.push(Beside::new(incidents.clone(), &standard, clocks)?);
    }
    let (mut used, mut epoch) = (generations.clone(), settings.last_epoch as u32);
    let mut next = Vec::new();
    for (generation, beside) in generations.iter().zip(&compiled) {
        let set = match beside {
            None => None,
            Some(beside) => Some(fill(maps, beside, &used)?),
        };
        epoch = next_epoch(epoch);
        let generation = Generation::new(epoch, generation.slot(), set);
        used.push(generation);
        next.push(generation);
    }
    // The slots are filled, so every packet has left that counted for an earlier rule.
    for incident in added {
        reset_rule_counter(maps, incident.counter)?;
    }
    maps.settings.write_word(0, LAST_EPOCH, epoch.into());
    let last = added.iter().map(|incident| incident.id).max().unwrap_or_default();
    maps.settings.write_word(0, LAST_INCIDENT, last.max(settings.last_incident));
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    for (word, generation) in [ACTIVE, FALLBACK].into_iter().zip(next.iter().rev()) {
        maps.settings.write_word(0, word, generation.0);
    }
    Ok(epoch)
}

/// What [`change`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The epoch from now on.
    pub epoch: u32,
    /// Incident rules that came, with their numbers.
    pub added: Vec<Incident>,
    /// Those that went.
    pub removed: Vec<Incident>,
}

/// New incident rules with numbers that none had before and counters that none has now. Each number has its counter, so those are given
/// round: what sources spent under a rule is kept by its counter, and long gone when it is another's. A number whose counter is
/// still in use is left out.
fn numbered(added: Vec<Incident>, present: &[Incident], last: u64) -> Result<Vec<Incident>, CompileError> {
    let count = added.len() + present.len();
    if count > INCIDENT_RULES_MAX {
        return Err(CompileError::too_many_incidents(count));
    }
    let counter = |id: u64| POLICY_RULE_COUNTERS as u16 + ((id - 1) % INCIDENT_RULES_MAX as u64) as u16;
    let is_free = |id: &u64| present.iter().all(|incident| incident.counter != counter(*id));
    let number = |(incident, id)| Incident { id, counter: counter(id), ..incident };
    Ok(added.into_iter().zip((last + 1..).filter(is_free)).map(number).collect())
}

/// What a policy in the kernel says of sources that no rule of its names.
fn standard(active: &Active<'_>) -> Result<Standard, read::ReadError> {
    let services = active.manifest()?.unwrap_or_default().services;
    let class = |number: u16| active.standard_class(number);
    let services = services.into_iter().map(|(name, number)| Ok((name, (number, class(number)?))));
    Ok(Standard(services.collect::<Result<_, read::ReadError>>()?))
}

/// Fills a slot that none of some generations uses. Packets of a generation before them may still read it, until its list is
/// replaced, which no packet reads: the kernel waits for all programs that run then, as `wait_for_packets` says.
pub(super) fn fill(maps: &mut Maps, beside: &Beside, used: &[Generation]) -> Result<IncidentSet, ApplyError> {
    let Beside { incidents, tables } = beside;
    let is_free = |slot: &u32| used.iter().all(|generation| generation.incidents() != Some(*slot));
    let slot = (0..INCIDENT_SLOTS as u32).find(is_free).ok_or_else(|| io::Error::other("no slot is free"))?;
    let list = sized(&chunks(serde_json::to_vec(incidents).map_err(io::Error::other)?))?;
    maps.incidents.set(slot, &list, 0).map_err(|source| ApplyError::Rules { bytes: 0, source })?;
    set_trees(maps, incident_tree(slot), &tables.rules_v4, &tables.rules_v6)?;
    let (rules, classes) = (&tables.fingerprint_rules, (CLASSES_MAX, &tables.classes[..]));
    let (now, number) = (read::now(maps), incident_tree(slot));
    client_rules::fill(maps, &Tree::at(now, number, rules, classes, tables.services.clone()))?;
    for (number, cell) in tables.cells.iter().enumerate() {
        maps.cells.write(incident_cell_place(slot, number as u32) as usize, cell);
    }
    // To the end: readers walk the classes, and should find none of earlier rules.
    let none = std::iter::repeat_n(Class::default(), INCIDENT_CLASSES_MAX - tables.classes.len());
    for (number, class) in tables.classes.iter().copied().chain(none).enumerate() {
        maps.classes.write(incident_class_place(slot, number as u32) as usize, &class);
    }
    let action_of = |number: u16| tables.classes[usize::from(number) - CLASSES_MAX].action;
    Ok(IncidentSet { slot, client_rules: which_client_rules(&tables.fingerprint_rules, action_of) })
}

const _: () =
    assert!(INCIDENT_SLOTS >= 4, "two generations have a set each, and each may get another at once");
const _: () = assert!(INCIDENT_RULES_MAX <= CLASSES_MAX, "the number of a rule fits a class");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Matches, incident::IncidentAction};

    fn new(count: usize) -> Vec<Incident> {
        let incident = Incident {
            id: 0,
            action: IncidentAction::Block,
            matches: Matches::Sources(vec!["192.0.2.1/32".parse().unwrap()]),
            service: None,
            until_s: None,
            reason: "test".to_owned(),
            by: "nobody".to_owned(),
            at_s: 0,
            counter: 0,
        };
        vec![incident; count]
    }

    /// Numbers, and counters from the first one of incident rules.
    fn given(rules: &[Incident]) -> Vec<(u64, usize)> {
        let counter = |incident: &Incident| usize::from(incident.counter) - POLICY_RULE_COUNTERS;
        rules.iter().map(|incident| (incident.id, counter(incident))).collect()
    }

    #[test]
    fn a_counter_is_given_again_as_late_as_possible() {
        let mut present = numbered(new(2), &[], 0).unwrap();
        assert_eq!(given(&present), [(1, 0), (2, 1)]);
        // The second one stays; another comes and goes.
        present.remove(0);
        let mut last = 2;
        let mut counters = Vec::new();
        for _ in 0..2 * (INCIDENT_RULES_MAX - 1) {
            let added = numbered(new(1), &present, last).unwrap();
            last = added[0].id;
            counters.extend(given(&added).into_iter().map(|(_, counter)| counter));
        }
        let (first, second) = counters.split_at(INCIDENT_RULES_MAX - 1);
        assert_eq!(first, second, "in the same order");
        let all: std::collections::BTreeSet<_> = first.iter().copied().collect();
        let others = (0..INCIDENT_RULES_MAX).filter(|counter| *counter != 1);
        assert!(all.into_iter().eq(others), "every other one, once");
    }

    #[test]
    fn there_is_a_counter_for_each_that_fits() {
        let present = numbered(new(100), &[], 1000).unwrap();
        let added = numbered(new(INCIDENT_RULES_MAX - 100), &present, 1100).unwrap();
        let mut counters: Vec<_> =
            given(&[present.clone(), added].concat()).into_iter().map(|(_, at)| at).collect();
        counters.sort_unstable();
        assert!(counters.into_iter().eq(0..INCIDENT_RULES_MAX));
        assert!(numbered(new(INCIDENT_RULES_MAX - 99), &present, 1100).is_err());
    }
}
