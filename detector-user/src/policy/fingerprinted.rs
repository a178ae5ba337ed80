//! Rules about fingerprints: what only the whole policy shows of them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use super::diagnostic::Severity;
use super::model::Action;
use super::patterns::{Moment, Patterns, Specificity};
use super::raw::{RawPolicy, RawProfile, RawRule};
use super::text::{At, Issue, Report};

/// A limit needs the budget that its rule charges.
pub(super) fn errors(raw: &RawPolicy, report: &mut Report<'_>) {
    let profiles = raw.profiles.iter().map(|profile| (profile.name.value.as_str(), profile));
    let profiles: HashMap<_, _> = profiles.collect();
    for rule in raw.rules.iter().filter(|rule| rule.is_about_fingerprints()) {
        let Some(action) = &rule.action else { continue };
        // One that does not exist is reported as that.
        let Some(profile) = action.value.profile().and_then(|name| profiles.get(name)) else { continue };
        let moment = rule.patterns().acts_at();
        let (name, budget) = (&profile.name.value, moment.budget());
        if profile.fields.iter().any(|field| field == budget) {
            continue;
        }
        let acts = match moment {
            Moment::Syn => "a rule with `syn` alone charges it at the SYN",
            Moment::ClientHello => "a rule with `ja4` charges it at the ClientHello",
        };
        let message = format!("profile `{name}` has no budget of {budget}");
        let issue = Issue::new(message, format!("a profile with `{budget}`"));
        let help = format!("write {budget} = \"10/s\" or the like into [profile.{name}]: {acts}");
        report.error(action.span.clone(), issue.help(help));
    }
}

/// What may be said and is probably not meant.
pub(super) fn warnings(raw: &RawPolicy, report: &mut Report<'_>) {
    for rule in raw.rules.iter().filter(|rule| rule.is_about_fingerprints()) {
        beyond_tcp(rule, report);
        repeated(&rule.ja4, report);
        repeated(&rule.syn, report);
    }
    spare_budgets(raw, report);
    never(raw, report);
}

/// Patterns of what the kernel does not read.
fn beyond_tcp(rule: &RawRule, report: &mut Report<'_>) {
    let beyond = rule.ja4.iter().filter(|pattern| pattern.value.is_beyond_tcp());
    report.many(Severity::Warning, beyond.map(|pattern| (pattern.span.clone(), ())), |_, ()| {
        let issue = Issue::remark(BEYOND_TCP);
        issue.help(
            "leave the packets of such clients to the service's profile, or name their sources".to_owned(),
        )
    });
}

/// What is said of a pattern that no ClientHello over TCP has.
pub(super) const BEYOND_TCP: &str =
    "has no effect: the kernel reads the ClientHello of TCP only, and this is one of QUIC or DTLS";

/// Patterns that one rule names more than once.
fn repeated<T: Eq + Hash + fmt::Display>(patterns: &[At<T>], report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    let again = patterns.iter().filter(|pattern| !seen.insert(&pattern.value));
    let again: Vec<_> = again.map(|pattern| (pattern.span.clone(), &pattern.value)).collect();
    report.many(Severity::Warning, again.into_iter(), |_, pattern| {
        Issue::remark(format!("the rule names {pattern} again")).help("once is enough".to_owned())
    });
}

/// Budgets of profiles that only rules about fingerprints use, which charge one each.
fn spare_budgets(raw: &RawPolicy, report: &mut Report<'_>) {
    let mut charged: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut elsewhere: HashSet<&str> =
        raw.services.iter().filter_map(|service| Some(service.profile.as_ref()?.value.as_str())).collect();
    for rule in &raw.rules {
        let Some(profile) = rule.action.as_ref().and_then(|action| action.value.profile()) else { continue };
        if rule.is_about_fingerprints() {
            charged.entry(profile).or_default().insert(rule.patterns().acts_at().budget());
        } else {
            elsewhere.insert(profile);
        }
    }
    for RawProfile { name, fields, .. } in &raw.profiles {
        let Some(charged) = charged.get(name.value.as_str()) else { continue };
        let spare = fields.iter().filter(|field| !charged.contains(field.as_str()));
        let spare: BTreeSet<&str> = spare.map(String::as_str).collect();
        if spare.is_empty() || elsewhere.contains(name.value.as_str()) {
            continue;
        }
        let told = |names: &BTreeSet<&str>| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
        };
        let issue =
            Issue::remark(format!("nothing is charged to {} of profile `{}`", told(&spare), name.value));
        let help = format!("only rules about fingerprints use it, and they charge {}", told(charged));
        report.warning(name.span.clone(), issue.help(help));
    }
}

/// What comes first in the order among rules.
fn order(patterns: &Patterns, action: Option<&At<Action>>) -> (Reverse<Specificity>, Option<u8>) {
    (Reverse(patterns.specificity()), action.map(|action| action.value.rank()))
}

/// Rules about nothing but what earlier ones decide about. A rule that ends leaves it to others then.
fn never(raw: &RawPolicy, report: &mut Report<'_>) {
    let rules = raw.rules.iter().filter(|rule| rule.is_about_fingerprints());
    let mut rules: Vec<_> = rules.map(|rule| (rule, rule.patterns())).collect();
    rules.sort_by_key(|(rule, patterns)| order(patterns, rule.action.as_ref()));
    // The first lasting rule about each piece, at a service or at every one.
    let mut first: HashMap<(Option<&str>, String), &At<String>> = HashMap::new();
    for (rule, patterns) in &rules {
        let Some(name) = &rule.name else { continue };
        let service = rule.service.as_ref().map(|service| service.value.as_str());
        let pieces = pieces(patterns);
        let before = |piece: &String| {
            [None, service].into_iter().find_map(|service| first.get(&(service, piece.clone())).copied())
        };
        let before: Option<Vec<_>> = pieces.iter().map(before).collect();
        if let Some(before) = before.as_ref().and_then(|before| before.first()) {
            let line = report.line(&before.span);
            let issue = Issue::remark(format!(
                "rule `{}` can never fire: rule `{}` of line {line} decides about its fingerprints before it",
                name.value, before.value
            ));
            report.warning(name.span.clone(), issue);
        }
        if rule.until.is_none() {
            for piece in pieces {
                first.entry((service, piece)).or_insert(name);
            }
        }
    }
}

/// What patterns are about, one by one; those of both kinds are about one thing.
fn pieces(patterns: &Patterns) -> Vec<String> {
    if patterns.ja4.is_empty() || patterns.syn.is_empty() {
        return patterns.targets();
    }
    let mut sorted = patterns.clone();
    sorted.ja4.sort_by_cached_key(ToString::to_string);
    sorted.syn.sort_by_cached_key(ToString::to_string);
    vec![sorted.to_string()]
}
