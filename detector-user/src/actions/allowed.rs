//! Whom an operator lets pass: sources that no action on a fleet is ever about.

use ipnet::IpNet;

use super::prefixes::Prefixes;
use crate::policy::{
    Action, Policy,
    incident::{IncidentAction, Incidents},
};

/// The sources of `defaults.allow`, and of the rules and incident rules that allow sources at a service and have not ended. An `allow` of a
/// responder so clears a member. Where a more specific rule drops a part of them they are left alone all the same: that rule sees to it.
///
/// A rule that allows fingerprints names no source: its clients are not charged by the fleet's fingerprints, which the program sees to, and those
/// at a member's address are charged as all that comes from there. `policy`: none where its text is not known.
pub fn allowed(policy: Option<&Policy>, incidents: &Incidents, service: &str, now_unix_s: u64) -> Prefixes {
    let is_here = |of: &Option<String>| of.as_deref().is_none_or(|of| of == service);
    let lasts = |until_s: Option<u64>| until_s.is_none_or(|until_s| until_s > now_unix_s);
    let rules = policy
        .into_iter()
        .flat_map(|policy| &policy.rules)
        .filter(|rule| rule.action == Action::Allow && is_here(&rule.service) && lasts(rule.until_s))
        .flat_map(|rule| rule.matches.sources());
    let incidents = incidents
        .rules
        .iter()
        .filter(|rule| {
            rule.action == IncidentAction::Allow && is_here(&rule.service) && !rule.has_ended(now_unix_s)
        })
        .flat_map(|rule| rule.matches.sources());
    let always = policy.into_iter().flat_map(|policy| &policy.allow);
    let all: Vec<IpNet> = always.chain(rules).chain(incidents).copied().collect();
    Prefixes::of(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Matches, incident::Incident, parse};

    #[test]
    fn whoever_is_allowed_at_the_service_now_is_left_alone() {
        let text = r#"
            version = 1
            defaults.allow = ["192.0.2.1"]
            [[service]]
            name = "api"
            addresses = ["203.0.113.1"]
            [[service]]
            name = "web"
            addresses = ["203.0.113.2"]
            [[rule]]
            name = "everywhere"
            source = ["192.0.2.2"]
            action = "allow"
            [[rule]]
            name = "elsewhere"
            service = "web"
            source = ["192.0.2.3"]
            action = "allow"
            [[rule]]
            name = "ends"
            source = ["192.0.2.4"]
            action = "allow"
            until = 2026-01-01T00:00:00Z
            [[rule]]
            name = "client"
            ja4 = ["t13d1516h2_8daaf6152771_*"]
            action = "allow"
            [[rule]]
            name = "drops"
            source = ["192.0.2.5"]
            action = "drop"
        "#;
        let policy = parse(text).expect("a policy").policy;
        let incident = |address: &str, action, until_s| Incident {
            id: 1,
            action,
            matches: Matches::Sources(vec![address.parse().unwrap()]),
            service: None,
            until_s,
            reason: "partner".to_owned(),
            by: "ann".to_owned(),
            at_s: 0,
            counter: 0,
        };
        let end_s = 1_767_225_600;
        let rules = vec![
            incident("192.0.2.6/32", IncidentAction::Allow, Some(end_s)),
            incident("192.0.2.7/32", IncidentAction::Block, None),
        ];
        let incidents = Incidents { rules };
        let at = |now_s| -> Vec<u8> {
            let allowed = allowed(Some(&policy), &incidents, "api", now_s);
            let touched = (1..=7_u8).filter(|last| allowed.touch(format!("192.0.2.{last}").parse().unwrap()));
            touched.collect()
        };
        assert_eq!(at(end_s - 1), [1, 2, 4, 6]);
        assert_eq!(at(end_s), [1, 2]);
        let address = |last: u8| format!("192.0.2.{last}").parse().unwrap();
        let without = allowed(None, &incidents, "api", end_s - 1);
        assert!(
            without.touch(address(6)) && !without.touch(address(1)),
            "what responders say is known all the same"
        );
    }
}
