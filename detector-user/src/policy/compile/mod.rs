//! From a checked policy to the tables that the kernel reads.
//!
//! Pure: the same policy, numbers and clock give the same tables. `kernel::apply` writes them.

mod classes;
mod error;
mod fingerprints;
mod incidents;
mod lookup;
mod ranges;
mod runs;
mod services;
mod sources;

pub use error::CompileError;
use error::Place;
pub use fingerprints::{FingerprintRule, incident_fingerprint_rules, which_client_rules};
pub use incidents::{Beside, IncidentTables, Standard};
pub use lookup::{Judge, Judged};
pub use runs::{Piece, Run, pieces, prefixes_of_run};

use std::collections::{BTreeMap, BTreeSet};

use detector_common::{
    budget::ticks,
    limits::{CELLS_MAX, LINEAGES_MAX, MANIFEST_BYTES, POLICY_RULE_COUNTERS, SERVICES_MAX},
    policy::{Cell, Class, ParentClass, PolicyHeader},
    ranges::{NodeV4, NodeV6},
    service::{DestinationSlot, PortSlot},
};
use serde::{Deserialize, Serialize};

use super::{Action, FleetMode, FleetSettings, Mode, Policy, Profile, patterns::Patterns};

/// The tables of one policy, ready for a slot.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The header; its epoch is set when the policy is applied.
    pub header: PolicyHeader,
    /// As many as [`detector_common::limits::DESTINATION_SLOTS`].
    pub destinations: Vec<DestinationSlot>,
    /// As many as [`detector_common::limits::PORT_SLOTS`].
    pub ports: Vec<PortSlot>,
    /// From the first; the rest of the map is not read.
    pub cells: Vec<Cell>,
    /// From the first; the rest of the map is not read.
    pub classes: Vec<Class>,
    /// From the first; the rest of the map is not read.
    pub parent_classes: Vec<ParentClass>,
    /// Source prefixes of IPv4, as ranges.
    pub rules_v4: Vec<NodeV4>,
    /// Source prefixes of IPv6, as ranges.
    pub rules_v6: Vec<NodeV6>,
    /// The names behind the numbers.
    pub manifest: Manifest,
    /// The clocks that they were made by.
    pub clocks: Clocks,
    /// The incident rules beside the policy, for whoever judges by the tables; when the policy is applied, those that are
    /// in force then stand beside it.
    pub beside: Option<Beside>,
}

/// The clocks that a policy is compiled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The step of the program's clock, which budgets have to tolerate, ns.
    pub tick_ns: u64,
    /// The time of the program's clock, ns.
    pub kernel_ns: u64,
    /// The same moment in nanoseconds since the Unix epoch: rules end by that clock.
    pub unix_ns: u64,
}

impl From<u64> for Clocks {
    /// A step alone, with both clocks at 0: for policies whose rules do not end.
    fn from(tick_ns: u64) -> Self {
        Self { tick_ns, kernel_ns: 0, unix_ns: 0 }
    }
}

impl Clocks {
    /// The ticks of the program's clock at a time of the other; `None`: it is past.
    pub fn ticks_at(self, unix_s: u64) -> Option<u64> {
        let left_ns =
            unix_s.saturating_mul(1_000_000_000).checked_sub(self.unix_ns).filter(|&left| left > 0)?;
        Some(ticks(self.kernel_ns.saturating_add(left_ns).min(END_NS_MAX)))
    }
}

/// Latest end of a rule on the program's clock, ns: it is a number of ticks below 2^63.
const END_NS_MAX: u64 = (1 << 58) - 1;

/// What commands print of a policy without its file: the names behind the numbers in the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where the policy came from.
    pub file: String,
    /// When it was applied, seconds since the Unix epoch.
    pub applied_at_s: u64,
    /// Its version in the history; 0: it could not be recorded.
    #[serde(default)]
    pub version: u64,
    /// What its text and its source files are, as [`PolicyFile::digest`](crate::commands::PolicyFile::digest) says it in
    /// hexadecimal.
    #[serde(default)]
    pub digest: String,
    /// The mode of everything that does not name its own: of so many sources in a hundred packets are dropped.
    pub enforced_percent: u8,
    /// Names of profiles, by number.
    pub profiles: Vec<String>,
    /// Rules, by number.
    pub rules: Vec<ManifestRule>,
    /// Those of them that are about fingerprints, in the order in which they decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprint_rules: Vec<FingerprintRule>,
    /// Numbers of the services of this policy, by name.
    pub services: BTreeMap<String, u16>,
    /// Numbers of services that earlier policies had, so that a name that comes back finds its budgets.
    pub retired: BTreeMap<String, u16>,
    /// Numbers of the profiles that name parents, see [`Lineage`](detector_common::table::Lineage).
    pub lineages: BTreeMap<String, u16>,
    /// Those of earlier policies.
    pub retired_lineages: BTreeMap<String, u16>,
    /// Counters of rules that earlier policies had, see [`ManifestRule::counter`].
    pub retired_rules: BTreeMap<String, u16>,
    /// What is done about fleets.
    #[serde(default, skip_serializing_if = "FleetSettings::is_default")]
    pub fleets: FleetSettings,
    /// What is done about them at services that say so themselves, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fleet_modes: BTreeMap<String, FleetMode>,
}

/// A rule as commands print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRule {
    /// Its name.
    pub name: String,
    /// `allow`, `drop`, `limit NAME`, or `limit NAME shared`.
    pub action: String,
    /// Number of the counter of its drops. A rule keeps it through policies, by its name.
    pub counter: u16,
    /// Its own mode, instead of the policy's: of so many sources in a hundred packets are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced_percent: Option<u8>,
    /// When it ends, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<u64>,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Manifest {
    /// Numbers of the counters of its rules, by name.
    pub fn rule_counters(&self) -> BTreeMap<String, u16> {
        self.rules.iter().map(|rule| (rule.name.clone(), rule.counter)).collect()
    }

    /// The fingerprints that a rule is about, by its number; none: it is about sources.
    pub fn patterns_of(&self, rule: usize) -> Option<&Patterns> {
        let mut about = self.fingerprint_rules.iter();
        about.find(|known| usize::from(known.rule) == rule).map(|known| &known.patterns)
    }

    /// What is done about fleets at a service.
    pub fn fleet_mode(&self, service: &str) -> FleetMode {
        self.fleet_modes.get(service).copied().unwrap_or(self.fleets.mode)
    }

    /// Whether anybody looks for fleets, at any of its services.
    pub fn is_looking_for_fleets(&self) -> bool {
        self.services.keys().any(|service| self.fleet_mode(service) != FleetMode::Off)
    }

    /// The name of a service's number; `none` for packets of no service.
    pub fn service_name(&self, number: u16) -> &str {
        let found = self.services.iter().chain(&self.retired).find(|(_, known)| **known == number);
        found.map_or("none", |(name, _)| name)
    }
}

/// Compiles a policy. `previous` is the manifest of the active one: services keep their numbers, and with them their
/// sources keep their budgets.
pub fn compile(
    policy: &Policy,
    previous: &Manifest,
    clocks: impl Into<Clocks>,
) -> Result<Tables, CompileError> {
    let numbers = number(policy, previous)?;
    let clocks = clocks.into();
    let mut classes = classes::Classes::new(policy, &numbers, clocks);
    let sources = sources::compile(policy, &numbers.services, &mut classes, CELLS_MAX)?;
    let fingerprint_rules =
        fingerprints::of_policy(policy, &numbers, |rule, patterns| classes.of_fingerprints(rule, patterns))?;
    let services = services::compile(policy, &numbers.services)?;
    let (profiles, classes, parent_classes) = classes.finish()?;
    let header = PolicyHeader {
        client_rules: which_client_rules(&fingerprint_rules, |number| classes[usize::from(number)].action),
        rules_v4: u32::from(!sources.v4.is_empty()),
        rules_v6: u32::from(!sources.v6.is_empty()),
        ..services.header
    };
    let enforced_percent = policy.mode.enforced_percent();
    let own_mode = |service: &super::Service| Some((service.name.clone(), service.fleets?));
    let fleet_modes = policy.services.iter().filter_map(own_mode).collect();
    let fleets = policy.fleets;
    let manifest = Manifest { enforced_percent, profiles, fingerprint_rules, fleets, fleet_modes, ..numbers };
    check_manifest(&manifest)?;
    Ok(Tables {
        header,
        destinations: services.destinations,
        ports: services.ports,
        cells: sources.cells,
        classes,
        parent_classes,
        rules_v4: ranges::nodes_v4(&sources.v4),
        rules_v6: ranges::nodes_v6(&sources.v6),
        manifest,
        clocks,
        beside: None,
    })
}

fn manifest_rule(rule: &super::Rule, counter: u16) -> ManifestRule {
    let action = match &rule.action {
        Action::Allow => "allow".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Limit(profile) => format!("limit {profile}"),
        Action::LimitShared(profile) => format!("limit {profile} shared"),
    };
    ManifestRule {
        name: rule.name.clone(),
        action,
        counter,
        enforced_percent: rule.mode.map(Mode::enforced_percent),
        until_s: rule.until_s,
        reason: rule.reason.clone(),
    }
}

/// Bytes of a manifest that are known only when it is applied: its length, the path of the file, the time, the version and
/// the digest.
const MANIFEST_LATER_BYTES: usize = 8 + 4096 + 20 + 20 + 64;

fn check_manifest(manifest: &Manifest) -> Result<(), CompileError> {
    let bytes_of = |json: serde_json::Result<Vec<u8>>| json.map_or(0, |json| json.len());
    let bytes_max = MANIFEST_BYTES - MANIFEST_LATER_BYTES;
    let bytes = bytes_of(serde_json::to_vec(manifest));
    if bytes <= bytes_max {
        return Ok(());
    }
    let mut each: Vec<usize> =
        manifest.rules.iter().map(|rule| bytes_of(serde_json::to_vec(rule)) + 1).collect();
    for rule in &manifest.fingerprint_rules {
        each[usize::from(rule.rule)] += bytes_of(serde_json::to_vec(rule)) + 1;
    }
    let mut taken = bytes - each.iter().sum::<usize>();
    let beyond = each.iter().position(|rule_bytes| {
        taken += rule_bytes;
        taken > bytes_max
    });
    Err(CompileError {
        place: Place::Rule(beyond.unwrap_or_default()),
        message: "names, reasons and patterns of the policy take too much room",
        found: format!("{bytes} bytes, {} of them of rules", each.iter().sum::<usize>()),
        expected: format!("at most {bytes_max} bytes"),
        help: "from this rule on they do not fit: shorten reasons and names, or merge rules that do the same"
            .to_owned(),
    })
}

const _: () = assert!(super::SERVICES_MAX < SERVICES_MAX, "every service has a number, and 0 is none");

/// Names of earlier policies that keep their numbers.
const RETIRED_MAX: usize = 32;

/// Numbers for the services, for the profiles that name parents, and for the counters of rules.
fn number(policy: &Policy, previous: &Manifest) -> Result<Manifest, CompileError> {
    let services = policy.services.iter().map(|service| &service.name);
    let (services, retired) =
        keep_numbers(services, &previous.services, &previous.retired, SERVICES_MAX as u16 - 1);
    let has_parents = |profile: &Profile| profile.parents.levels().iter().any(Option::is_some);
    let lineages = policy.profiles.iter().filter(|(_, profile)| has_parents(profile)).map(|(name, _)| name);
    let count = lineages.clone().count();
    if count > LINEAGES_MAX {
        return Err(CompileError {
            place: Place::Lineage(LINEAGES_MAX),
            message: "too many profiles with parents",
            found: format!("{count} of them"),
            expected: format!("at most {LINEAGES_MAX}"),
            help: "from this one on they do not fit: merge profiles that do the same".to_owned(),
        });
    }
    let (active, retired_active) = (&previous.lineages, &previous.retired_lineages);
    let (lineages, retired_lineages) = keep_numbers(lineages, active, retired_active, LINEAGES_MAX as u16);
    let names = policy.rules.iter().map(|rule| &rule.name);
    let (counters, retired_rules) = keep_numbers(
        names,
        &previous.rule_counters(),
        &previous.retired_rules,
        POLICY_RULE_COUNTERS as u16 - 1,
    );
    let counter = |rule: &super::Rule| counters.get(&rule.name).copied().unwrap_or_default();
    let rules = policy.rules.iter().map(|rule| manifest_rule(rule, counter(rule))).collect();
    Ok(Manifest {
        services,
        retired,
        lineages,
        retired_lineages,
        rules,
        retired_rules,
        ..Manifest::default()
    })
}

/// Numbers by name.
type Numbers = BTreeMap<String, u16>;

/// Numbers from 1 to `most` for some names: the ones they had, else one that was never used, else that of a retired name.
/// Then the retired names with theirs.
fn keep_numbers<'a>(
    names: impl Iterator<Item = &'a String> + Clone,
    active: &Numbers,
    retired: &Numbers,
    most: u16,
) -> (Numbers, Numbers) {
    let mut known = retired.clone();
    known.extend(active.clone());
    let mut numbers = Numbers::new();
    for name in names.clone() {
        if let Some(number) = known.remove(name) {
            numbers.insert(name.clone(), number);
        }
    }
    let in_use: BTreeSet<u16> = numbers.values().chain(known.values()).copied().collect();
    let mut free = (1..=most).filter(|number| !in_use.contains(number));
    for name in names {
        if numbers.contains_key(name) {
            continue;
        }
        let number = match free.next() {
            Some(number) => number,
            // As many names as numbers exist: the first retired one by name gives its number up.
            None => known.pop_first().map_or(0, |(_, number)| number),
        };
        numbers.insert(name.clone(), number);
    }
    // Few enough that rows of cells, which are as long as the highest number of a service, stay short.
    while known.len() > RETIRED_MAX {
        known.pop_first();
    }
    (numbers, known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn policy(services: &[&str]) -> Policy {
        let mut text = "version = 1\n".to_owned();
        for service in services {
            text += &format!(
                "[[service]]\nname = \"{service}\"\naddresses = [\"203.0.113.10\"]\nports = [\"tcp/{}\"]\n",
                service.len()
            );
        }
        parse(&text).unwrap().policy
    }

    #[test]
    fn services_keep_their_numbers_and_returning_ones_get_theirs_back() {
        let first = number(&policy(&["a", "bb"]), &Manifest::default()).unwrap();
        assert_eq!(first.services, BTreeMap::from([("a".into(), 1), ("bb".into(), 2)]));
        let second = number(&policy(&["ccc", "bb"]), &first).unwrap();
        assert_eq!(second.services, BTreeMap::from([("bb".into(), 2), ("ccc".into(), 3)]));
        assert_eq!(second.service_name(1), "a");
        let third = number(&policy(&["a"]), &second).unwrap();
        assert_eq!(third.services, BTreeMap::from([("a".into(), 1)]));
    }

    #[test]
    fn numbers_run_out_only_for_retired_names() {
        let retired = (1..SERVICES_MAX as u16).map(|number| (format!("old{number:03}"), number)).collect();
        let previous = Manifest { retired, ..Manifest::default() };
        let numbers = number(&policy(&["new"]), &previous).unwrap();
        assert_eq!(numbers.services, BTreeMap::from([("new".into(), 1)]));
        assert_eq!(numbers.retired.len(), RETIRED_MAX);
    }
}
