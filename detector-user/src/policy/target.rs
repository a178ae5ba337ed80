//! Targets of responders, as they write them: addresses, prefixes, `ja4:PATTERN`, `syn:PATTERN`, or
//! `ja4:PATTERN+syn:PATTERN` of clients that match both, about which there are incident rules; and `fleet:ID`.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    Budgets, Matches,
    fingerprinted::BEYOND_TCP,
    incident::IncidentAction,
    patterns::{Moment, PATTERNS_MAX, Patterns},
    prefix,
};

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Sources.
    Prefix(IpNet),
    /// Clients: one pattern, or one of each kind.
    Fingerprint(Patterns),
    /// A fleet, by its number.
    Fleet(u64),
}

/// Whom targets are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Clients, which an incident rule is about.
    Clients(Matches),
    /// Fleets by their numbers, in order and each once, which are acted on as a whole.
    Fleets(Vec<u64>),
}

const FLEET: &str = "fleet:";
const JA4: &str = "ja4:";
const SYN: &str = "syn:";

/// Reads a target that is a source.
///
/// # Errors
///
/// What is wrong with it.
pub fn source(text: &str) -> Result<IpNet, String> {
    prefix::parse(text).map_err(|issue| issue.one_line())
}

/// Reads a target.
///
/// # Errors
///
/// What is wrong with it.
pub fn target(text: &str) -> Result<Target, String> {
    if let Some(number) = text.strip_prefix(FLEET) {
        return fleet(number).map(Target::Fleet);
    }
    let kind = |text: &str| [JA4, SYN].into_iter().find(|kind| text.starts_with(kind));
    if kind(text).is_none() {
        let wrong = |wrong: String| {
            format!(
                "{wrong}; or write ja4:PATTERN or syn:PATTERN for clients with a fingerprint, fleet:ID for a fleet"
            )
        };
        return source(text).map(Target::Prefix).map_err(wrong);
    }
    let mut patterns = Patterns::default();
    // A pattern has `+` in it too, but none of these words.
    let parts = text.split_once("+ja4:").map(|(first, second)| (first, format!("{JA4}{second}")));
    let parts =
        parts.or_else(|| text.split_once("+syn:").map(|(first, second)| (first, format!("{SYN}{second}"))));
    let (first, second) = parts.map_or((text, None), |(first, second)| (first, Some(second)));
    for part in [Some(first), second.as_deref()].into_iter().flatten() {
        if let Some(pattern) = part.strip_prefix(JA4) {
            patterns.ja4.push(pattern.parse()?);
        } else if let Some(pattern) = part.strip_prefix(SYN) {
            patterns.syn.push(pattern.parse()?);
        }
    }
    if patterns.ja4.len() > 1 || patterns.syn.len() > 1 {
        return Err(
            "two patterns of a kind that no client matches both: expected ja4:PATTERN+syn:PATTERN".to_owned()
        );
    }
    Ok(Target::Fingerprint(patterns))
}

/// What is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// An incident rule, by its number.
    Rule(u64),
    /// What is ordered about a fleet, by its number.
    Fleet(u64),
}

/// Reads what is to be taken back.
///
/// # Errors
///
/// What is wrong with it.
pub fn undone(text: &str) -> Result<Undone, String> {
    if let Some(number) = text.strip_prefix(FLEET) {
        return fleet(number).map(Undone::Fleet);
    }
    text.parse().map(Undone::Rule).map_err(|_| {
        "expected the number of an incident rule, like 3, or fleet:ID for what is ordered about a fleet"
            .to_owned()
    })
}

/// Reads the number of a fleet as it is told.
fn fleet(number: &str) -> Result<u64, String> {
    let is_told = !number.starts_with(['0', '+']);
    number.parse().ok().filter(|_| is_told).ok_or_else(|| {
        format!("not the number of a fleet: found {number:?}, expected one from 1 on, like fleet:3")
    })
}

/// Whom some targets are about.
///
/// # Errors
///
/// They are of several kinds, or too many patterns.
pub fn whom(targets: Vec<Target>) -> Result<Whom, String> {
    let number = |target: &Target| if let Target::Fleet(number) = target { Some(*number) } else { None };
    let fleets: BTreeSet<u64> = targets.iter().filter_map(number).collect();
    let Some(first) = fleets.first() else { return matches(targets).map(Whom::Clients) };
    if targets.iter().any(|target| number(target).is_none()) {
        return Err(format!(
            "both fleets and others, fleet:{first} among them: expected one kind; give a command for each"
        ));
    }
    Ok(Whom::Fleets(fleets.into_iter().collect()))
}

/// Whom an incident rule with some targets is about.
///
/// # Errors
///
/// They are of several kinds, which no one rule is about, or too many patterns; or a fleet is among them.
pub fn matches(targets: Vec<Target>) -> Result<Matches, String> {
    let count = targets.len();
    let (mut sources, mut patterns) = (Vec::new(), Patterns::default());
    for target in targets {
        match target {
            Target::Prefix(prefix) => sources.push(prefix),
            Target::Fingerprint(Patterns { ja4, syn }) => {
                patterns.ja4.extend(ja4);
                patterns.syn.extend(syn);
            }
            Target::Fleet(number) => {
                return Err(format!(
                    "fleet:{number} is no target of an incident rule: expected sources or fingerprints; `detector throttle fleet:{number}` orders what is done about a fleet"
                ));
            }
        }
    }
    if patterns.is_empty() {
        return Ok(Matches::Sources(sources));
    }
    if !sources.is_empty() {
        return Err(format!(
            "both sources and fingerprints, {} and {patterns}: expected one of them; add a rule for each",
            sources[0]
        ));
    }
    if !patterns.ja4.is_empty() && !patterns.syn.is_empty() && count > 1 {
        return Err("patterns of JA4s and of SYNs as targets of one rule: join them as ja4:PATTERN+syn:PATTERN where a \
                    client has to match both, else add a rule for each"
            .to_owned());
    }
    if count > PATTERNS_MAX {
        return Err(format!("{count} patterns: expected at most {PATTERNS_MAX}"));
    }
    Ok(Matches::Fingerprints(patterns))
}

/// Checks that an action can be done to whom a rule is about.
///
/// # Errors
///
/// What is wrong, by the options of `throttle`.
pub fn check_action(action: &IncidentAction, matches: &Matches) -> Result<(), String> {
    let Matches::Fingerprints(patterns) = matches else {
        return match action {
            IncidentAction::ThrottleShared(_) => Err("sources share no budget in an incident rule: without \
                                                      `shared` each has its own, or name ja4:PATTERN or syn:PATTERN"
                .to_owned()),
            _ => Ok(()),
        };
    };
    let Some(budgets) = action.budgets() else { return Ok(()) };
    let moment = patterns.acts_at();
    let Budgets { packets, bytes, connections, handshakes } = budgets;
    let all = [
        ("rate", packets),
        ("bytes", bytes),
        (Moment::Syn.budget(), connections),
        (Moment::ClientHello.budget(), handshakes),
    ];
    let wanted = moment.budget();
    let what = match moment {
        Moment::Syn => "a target with syn: alone is limited at the SYN",
        Moment::ClientHello => "a target with ja4: is limited at the ClientHello",
    };
    if let Some((name, _)) = all.iter().find(|(name, budget)| budget.is_some() && *name != wanted) {
        return Err(format!("`{name}` does not limit fingerprints: {what}, by `{wanted}`"));
    }
    if all.iter().any(|(name, budget)| budget.is_none() && *name == wanted) {
        return Err(format!("a throttle without `{wanted}`: {what}"));
    }
    Ok(())
}

/// What is said of patterns that the kernel sees nothing of.
pub fn without_effect(matches: &Matches) -> Vec<String> {
    let patterns = matches.patterns().into_iter().flat_map(|patterns| &patterns.ja4);
    let beyond = patterns.filter(|pattern| pattern.is_beyond_tcp());
    beyond.map(|pattern| format!("ja4:{pattern} {BEYOND_TCP}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Budget, Rate};

    fn whom(texts: &[&str]) -> Result<Matches, String> {
        matches(texts.iter().map(|text| target(text)).collect::<Result<_, _>>()?)
    }

    fn fingerprints(texts: &[&str]) -> Patterns {
        whom(texts).unwrap().patterns().unwrap().clone()
    }

    #[test]
    fn a_rule_is_about_sources_or_about_fingerprints() {
        let sources = vec!["192.0.2.1/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        assert_eq!(whom(&["192.0.2.1", "2001:db8::/32"]), Ok(Matches::Sources(sources)));
        assert_eq!(fingerprints(&["ja4:t13d*_*_*", "ja4:t12d*_*_*"]).to_string(), "ja4:t13d*_*_*|t12d*_*_*");
        for both in ["ja4:t*_*_*+syn:4:*:*:*:*:*:id+:+", "syn:4:*:*:*:*:*:id+:++ja4:t*_*_*"] {
            assert_eq!(fingerprints(&[both]).to_string(), "ja4:t*_*_*+syn:4:*:*:*:*,*:*:id+:+");
        }
        assert_eq!(fingerprints(&["syn:4:*:*:*:*:*:*:*"]).syn.len(), 1);
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_was_expected() {
        for text in [
            "",
            "198.51.100.7/24",
            "fleet-3",
            "::ffff:192.0.2.1",
            "192.0.2.0/33",
            "ja4:",
            "syn:4",
            "JA4:t*_*_*",
        ] {
            assert!(target(text).unwrap_err().contains("expected"), "{text}");
        }
        assert!(target("fleet-3").unwrap_err().ends_with(
            "write ja4:PATTERN or syn:PATTERN for clients with a fingerprint, fleet:ID for a fleet"
        ));
        for text in
            ["fleet:", "fleet:x", "fleet:0", "fleet:03", "fleet:+3", "fleet:-1", "fleet:18446744073709551616"]
        {
            assert!(target(text).unwrap_err().contains("expected one from 1 on, like fleet:3"), "{text}");
        }
        assert!(target("ja4:t*_*_*+ja4:q*_*_*").unwrap_err().contains("expected ja4:PATTERN+syn:PATTERN"));
    }

    #[test]
    fn fleets_are_acted_on_as_such_and_no_rule_is_about_them() {
        let read = |texts: &[&str]| super::whom(texts.iter().map(|text| target(text).unwrap()).collect());
        assert_eq!(target("fleet:18446744073709551615"), Ok(Target::Fleet(u64::MAX)));
        assert_eq!(read(&["fleet:7", "fleet:3", "fleet:7"]), Ok(Whom::Fleets(vec![3, 7])));
        assert!(matches!(read(&["192.0.2.1"]), Ok(Whom::Clients(Matches::Sources(_)))));
        let mixed = read(&["192.0.2.1", "fleet:7"]).unwrap_err();
        assert_eq!(
            mixed,
            "both fleets and others, fleet:7 among them: expected one kind; give a command for each"
        );
        assert!(whom(&["fleet:3"]).unwrap_err().contains("`detector throttle fleet:3` orders"));
        assert_eq!([undone("3"), undone("fleet:3")], [Ok(Undone::Rule(3)), Ok(Undone::Fleet(3))]);
        for wrong in ["", "-1", "fleet:", "fleet:03", "192.0.2.1"] {
            assert!(undone(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_not_mixed() {
        let both = whom(&["192.0.2.1", "ja4:t*_*_*"]).unwrap_err();
        assert_eq!(
            both,
            "both sources and fingerprints, 192.0.2.1/32 and ja4:t*_*_*: expected one of them; add a rule for each"
        );
        for texts in [["ja4:t*_*_*", "syn:4:*:*:*:*:*:*:*"], ["ja4:t*_*_*+syn:4:*:*:*:*:*:*:*", "ja4:q*_*_*"]]
        {
            assert!(whom(&texts).unwrap_err().contains("join them as ja4:PATTERN+syn:PATTERN"));
        }
        let many = vec![target("ja4:t*_*_*").unwrap(); PATTERNS_MAX + 1];
        assert_eq!(matches(many), Err("257 patterns: expected at most 256".to_owned()));
    }

    #[test]
    fn a_throttle_has_the_budget_that_its_targets_are_limited_by() {
        let budget = Some(Budget { rate: Rate { count: 1, per_ns: 1 }, burst: 1 });
        let connections = Budgets { connections: budget, ..Budgets::default() };
        let handshakes = Budgets { handshakes: budget, ..Budgets::default() };
        let both = Budgets { connections: budget, ..handshakes.clone() };
        let check = |action: fn(Budgets) -> IncidentAction, budgets: &Budgets, target: &str| {
            check_action(&action(budgets.clone()), &whom(&[target]).unwrap())
        };
        let (each, shared) = (IncidentAction::Throttle, IncidentAction::ThrottleShared);
        let (hello, syn, pair) = ("ja4:t*_*_*", "syn:4:*:*:*:*:*:*:*", "ja4:t*_*_*+syn:4:*:*:*:*:*:*:*");
        for (budgets, target) in [(&handshakes, hello), (&connections, syn), (&handshakes, pair)] {
            assert_eq!(check(each, budgets, target), Ok(()));
            assert_eq!(check(shared, budgets, target), Ok(()));
        }
        assert_eq!(
            check(each, &connections, hello),
            Err("`connections` does not limit fingerprints: a target with ja4: is limited at the ClientHello, by \
                 `handshakes`"
                .to_owned())
        );
        assert_eq!(
            check(each, &Budgets::default(), syn),
            Err("a throttle without `connections`: a target with syn: alone is limited at the SYN".to_owned())
        );
        assert!(check(each, &both, pair).is_err() && check(each, &both, syn).is_err());
        assert_eq!(check(each, &both, "192.0.2.1"), Ok(()));
        assert!(check(shared, &both, "192.0.2.1").unwrap_err().contains("sources share no budget"));
        assert_eq!(check_action(&IncidentAction::Block, &whom(&[hello]).unwrap()), Ok(()));
    }

    #[test]
    fn what_the_kernel_does_not_see_is_told() {
        assert_eq!(without_effect(&whom(&["ja4:q13d*_*_*", "ja4:t*_*_*"]).unwrap()).len(), 1);
        assert!(without_effect(&whom(&["192.0.2.1"]).unwrap()).is_empty());
    }
}
