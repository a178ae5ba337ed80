//! What two compiled policies differ in, in the words of the policy language.
//!
//! Both are told from their tables, since of the policy that is loaded there is nothing else: profiles that nothing uses
//! are not seen, bursts are those that the program has, and sources are the addresses that a rule decides about.

mod described;
mod sources;

pub use sources::SourceChange;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::compile::Tables;
use described::{Attributes, defaults, profiles, rules, services};

/// What two policies differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicyDifference)]
pub struct Difference {
    /// Defaults, services, profiles and rules, in this order and by name.
    pub changes: Vec<Change>,
    /// Sources that come to rules or to `defaults.allow`, and that leave them, by name.
    pub sources: Vec<SourceChange>,
}

/// A part of a policy that is there once, or otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicyChange)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub change: Happened,
    /// What differs; of what is added or removed, everything.
    pub attributes: Vec<AttributeChange>,
}

/// A kind of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PolicyPart)]
pub enum Kind {
    /// `[defaults]`.
    Defaults,
    /// `[[service]]`.
    Service,
    /// `[profile.NAME]`.
    Profile,
    /// `[[rule]]`.
    Rule,
}

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Happened {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, with other attributes.
    Changed,
}

/// An attribute that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AttributeChange {
    /// Its name, as in the policy language.
    pub name: String,
    /// What it says now.
    pub before: Option<String>,
    /// What it will say.
    pub after: Option<String>,
}

/// What two policies differ in, at a time in ticks, by which rules may have ended.
pub fn difference(before: &Tables, after: &Tables, now: u64) -> Difference {
    let both = |of: fn(&Tables) -> BTreeMap<String, Attributes>| (of(before), of(after));
    let kinds = [
        (Kind::Defaults, both(defaults)),
        (Kind::Service, both(services)),
        (Kind::Profile, both(profiles)),
        (Kind::Rule, both(rules)),
    ];
    let changes =
        kinds.into_iter().flat_map(|(kind, (before, after))| changes(kind, &before, &after)).collect();
    Difference { changes, sources: sources::changes(before, after, now) }
}

fn changes(
    kind: Kind,
    before: &BTreeMap<String, Attributes>,
    after: &BTreeMap<String, Attributes>,
) -> Vec<Change> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let none = Attributes::new();
    let change = |name: &String| {
        let (was, is) = (before.get(name), after.get(name));
        let change = match (was, is) {
            (None, _) => Happened::Added,
            (_, None) => Happened::Removed,
            (Some(was), Some(is)) if was == is => return None,
            _ => Happened::Changed,
        };
        let attributes = differing(was.unwrap_or(&none), is.unwrap_or(&none));
        Some(Change { kind, name: name.clone(), change, attributes })
    };
    names.into_iter().filter_map(change).collect()
}

fn differing(before: &Attributes, after: &Attributes) -> Vec<AttributeChange> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let change = |name: &str| AttributeChange {
        name: name.to_owned(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    };
    names.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        compile::{Manifest, compile},
        parse,
    };

    const BEFORE: &str = r#"
version = 1
[defaults]
allow = ["192.0.2.0/28"]
[[service]]
name = "web"
addresses = ["203.0.113.10", "203.0.113.0/24"]
ports = ["tcp/443", "tcp/80-82", "udp/443"]
profile = "each"
[[service]]
name = "dns"
addresses = ["203.0.113.53"]
ports = ["udp"]
profile = "slow"
[profile.each]
packets = { rate = "2000/s", burst = 4000 }
bytes = { rate = "8MB/s", burst = "16MB" }
[profile.each.parents]
v4_24 = { packets = "50000/s" }
[profile.slow]
packets = { rate = "30/min", burst = 100 }
[[rule]]
name = "old"
source = ["198.51.100.0/24"]
action = "drop"
[[rule]]
name = "kept"
source = ["198.18.0.0/16", "2001:db8::/48"]
action = { limit = "slow" }
"#;

    fn told(after: &str) -> (Vec<String>, Vec<SourceChange>) {
        let tables = |text: &str, previous: &Manifest| {
            compile(&parse(text).unwrap().policy, previous, 1_000_000).unwrap()
        };
        let before = tables(BEFORE, &Manifest::default());
        let difference = difference(&before, &tables(after, &before.manifest), 0);
        let line = |change: &Change| {
            let attributes = change.attributes.iter().map(|attribute| {
                let [before, after] =
                    [&attribute.before, &attribute.after].map(|value| value.as_deref().unwrap_or("nothing"));
                format!("{} {before} → {after}", attribute.name)
            });
            let attributes: Vec<_> = attributes.collect();
            format!("{:?} {:?} {}: {}", change.change, change.kind, change.name, attributes.join("; "))
        };
        (difference.changes.iter().map(line).collect(), difference.sources)
    }

    #[test]
    fn the_same_policy_differs_in_nothing() {
        assert_eq!(told(BEFORE), (Vec::new(), Vec::new()));
        // Another order of the same.
        let swapped = BEFORE.replace("\"203.0.113.10\", \"203.0.113.0/24\"", "\"203.0.113.0/24\"");
        assert_eq!(told(&swapped), (Vec::new(), Vec::new()));
    }

    #[test]
    fn rules_about_fingerprints_are_told_with_them() {
        let after = BEFORE.to_owned()
            + "[profile.hello]\nhandshakes = \"10/s\"\nconnections = \"5/s\"\n\
               [[rule]]\nname = \"library\"\nja4 = [\"t13d1516h2_*_*\", \"t12*_*_*\"]\nsyn = \"4:64:*:*:*:*:*:*\"\n\
               action = { limit = \"hello\", shared = true }\n\
               [[rule]]\nname = \"stack\"\nsyn = \"4:128:*:*:*:*:*:*\"\naction.limit = \"hello\"\n";
        let (lines, sources) = told(&after);
        assert_eq!(
            lines,
            [
                "Added Profile hello: connections nothing → 5/s, burst 5; handshakes nothing → 10/s, burst 10",
                "Added Rule library: action nothing → limit hello shared; ja4 nothing → t13d1516h2_*_* t12*_*_*; \
                 syn nothing → 4:64:*:*:*,*:*:*:*",
                "Added Rule stack: action nothing → limit hello; syn nothing → 4:128:*:*:*,*:*:*:*",
            ]
        );
        assert!(sources.is_empty());
    }

    #[test]
    fn budgets_are_told_as_they_are_written() {
        let after = BEFORE
            .replace("rate = \"2000/s\", burst = 4000", "rate = \"1/s\", burst = 7")
            .replace("8MB/s", "100Mbit/s")
            .replace("v4_24 = { packets = \"50000/s\" }", "v4_24 = { new_sources = \"100/h\" }");
        assert_eq!(
            told(&after).0,
            ["Changed Profile each: bytes 8MB/s, burst 16MB → 12.5MB/s, burst 16MB; \
              packets 2000/s, burst 4000 → 1/s, burst 7; \
              parents.v4_24.new_sources nothing → 100/h, burst 1; \
              parents.v4_24.packets 50000/s, burst 50000 → nothing"]
        );
        let faster = BEFORE.replace("30/min", "3/s");
        assert_eq!(told(&faster).0, ["Changed Profile slow: packets 30/min, burst 100 → 3/s, burst 100"]);
    }

    #[test]
    fn what_is_done_about_fleets_is_told() {
        let after = BEFORE.replace("name = \"dns\"", "name = \"dns\"\nfleets = \"off\"");
        let (changes, _) = told(&(after + "[fleets]\nmode = \"throttle\"\n"));
        assert_eq!(
            changes,
            [
                "Changed Defaults defaults: fleets nothing → throttle, hold out 5 %, members 100000, new 20000/h, collateral 0.01 %, factor 200 %, share 1 %, for 1h",
                "Changed Service dns: fleets nothing → off"
            ]
        );
    }

    #[test]
    fn services_rules_and_sources_come_and_go() {
        let after = BEFORE
            .replace("tcp/80-82", "tcp/80")
            .replace("\"udp\"", "\"*\"")
            .replace("profile = \"slow\"\n[profile", "[profile")
            .replace(
                "name = \"old\"",
                "name = \"new\"\nmode = { enforce = 10 }\nuntil = 2026-12-01T06:00:00Z",
            )
            .replace("\"198.18.0.0/16\"", "\"198.18.0.0/17\", \"198.19.0.0/24\"")
            .replace("192.0.2.0/28", "192.0.2.0/29")
            .replace("[defaults]", "[defaults]\nmode = \"shadow\"");
        let (changes, sources) = told(&after);
        assert_eq!(
            changes,
            [
                "Changed Defaults defaults: mode enforce → shadow",
                "Changed Service dns: ports udp → *; profile slow → nothing",
                "Changed Service web: ports tcp/80-82, tcp/443, udp/443 → tcp/80, tcp/443, udp/443",
                "Added Rule new: action nothing → drop; mode nothing → enforce 10 %; until nothing → 2026-12-01T06:00:00Z",
                "Removed Rule old: action drop → nothing",
            ]
        );
        let sources: Vec<_> = sources
            .iter()
            .map(|change| {
                (change.name.as_str(), change.first_added.join(" "), change.first_removed.join(" "))
            })
            .collect();
        assert_eq!(
            sources,
            [
                ("defaults.allow", String::new(), "192.0.2.8/29".into()),
                ("kept", "198.19.0.0/24".into(), "198.18.128.0/17".into()),
                ("new", "198.51.100.0/24".into(), String::new()),
                ("old", String::new(), "198.51.100.0/24".into()),
            ]
        );
    }
}
