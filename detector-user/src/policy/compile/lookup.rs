//! What compiled tables say, on the host: the same lookups as the program's.

use detector_common::{
    address::{Address, Family},
    hash::Seed,
    limits::{CLASSES_MAX, ENDS_MAX},
    packet::{Packet, Ports},
    policy::{Action, Class, DEFAULT_ROW, NO_PROFILE, NO_RULE, ParentClass, RuleValue, is_enforced},
    ranges::{self, NodeV4, NodeV6},
    service::{self, DestinationSlot, PortSlot, ServiceTables},
    table::{Key, Unit},
};

use super::{Beside, ManifestRule, Tables};

impl ServiceTables for Tables {
    fn destination(&self, place: u32) -> Option<&DestinationSlot> {
        self.destinations.get(place as usize)
    }

    fn port(&self, place: u32) -> Option<&PortSlot> {
        self.ports.get(place as usize)
    }
}

impl Tables {
    /// The service that a packet is for.
    pub fn service(&self, packet: &Packet) -> Option<u16> {
        service::find(self, &self.header, packet)
    }

    /// The service of a packet of a protocol to a port, or of a protocol without ports.
    pub fn service_at(&self, destination: Address, protocol: u8, port: Option<u16>) -> Option<u16> {
        self.service(&Packet {
            // The service does not depend on it.
            source: destination,
            destination,
            notes: 0,
            source_port: 0,
            destination_port: port.unwrap_or_default(),
            protocol,
            ports: if port.is_some() { Ports::Known } else { Ports::None },
            connection: false,
        })
    }

    /// The row of cells of a source: what the most specific prefix around it says.
    pub fn row(&self, source: Address) -> RuleValue {
        match source.family {
            Family::V4 if self.header.rules_v4 == 0 => RuleValue(DEFAULT_ROW),
            Family::V6 if self.header.rules_v6 == 0 => RuleValue(DEFAULT_ROW),
            _ => row_in(&self.rules_v4, &self.rules_v6, source),
        }
    }

    /// The class that a row gives the sources of a service at a time, in ticks. None only of tables that are not whole.
    pub fn class_in(&self, row: RuleValue, service: u16, now: u64) -> Option<&Class> {
        let cell = self.cells.get(row.first_cell() as usize + usize::from(service))?;
        let mut class = self.classes.get(cell.class as usize)?;
        for _ in 0..ENDS_MAX {
            if !class.has_ended(now) {
                break;
            }
            class = self.classes.get(usize::from(class.next))?;
        }
        Some(class)
    }

    /// The class of a source at a service at a time, in ticks.
    pub fn class(&self, source: Address, service: u16, now: u64) -> Option<&Class> {
        self.class_in(self.row(source), service, now)
    }

    /// Whether the policy has a service of that number.
    pub fn has_service(&self, service: u16) -> bool {
        self.manifest.services.values().any(|&number| number == service)
    }

    /// The rule of a class.
    pub fn rule_of(&self, class: &Class) -> Option<&ManifestRule> {
        (class.rule != NO_RULE).then(|| self.manifest.rules.get(usize::from(class.rule))).flatten()
    }

    /// The profile of a class.
    pub fn profile_of(&self, class: &Class) -> Option<&str> {
        let named = class.profile != NO_PROFILE;
        named.then(|| self.manifest.profiles.get(usize::from(class.profile))).flatten().map(String::as_str)
    }
}

/// The value of the most specific prefix around a source.
fn row_in(v4: &[NodeV4], v6: &[NodeV6], source: Address) -> RuleValue {
    RuleValue(match source.family {
        Family::V4 => ranges::find::<NodeV4, _>(
            |number| v4.get(number as usize),
            (source.high >> 32) as u32,
            DEFAULT_ROW,
        ),
        Family::V6 => ranges::find::<NodeV6, _>(
            |number| v6.get(number as usize),
            (source.high, source.low),
            DEFAULT_ROW,
        ),
    })
}

impl Beside {
    /// The class that the incident rules give a source at a service at a time, in ticks, whether the policy is stricter or
    /// not.
    pub fn class(&self, source: Address, service: u16, now: u64) -> Option<&Class> {
        let tables = &self.tables;
        let row = row_in(&tables.rules_v4, &tables.rules_v6, source);
        let cell = tables.cells.get(row.first_cell() as usize + usize::from(service))?;
        let mut number = cell.class as usize;
        for _ in 0..=ENDS_MAX {
            let class = tables.classes.get(number.checked_sub(CLASSES_MAX)?)?;
            if !class.has_ended(now) {
                return Some(class);
            }
            number = usize::from(class.next);
        }
        None
    }

    /// The number of the rule of one of their classes.
    pub fn id_of(&self, class: &Class) -> Option<u64> {
        self.incidents.rules.get(usize::from(class.rule)).map(|incident| incident.id)
    }
}

/// A policy at a moment, with the seed of the tables that it is, or is to be, in.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    /// The policy.
    pub tables: &'a Tables,
    seed: Seed,
    now: u64,
    /// By service number: whether it is a service of the policy.
    services: Vec<bool>,
}

/// What a policy says of a source at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged<'a> {
    /// The class.
    pub class: &'a Class,
    /// Whether what the class refuses is dropped, of this source.
    pub enforced: bool,
    /// The number of the incident rule that says so, if one does.
    pub incident: Option<u64>,
}

impl Judged<'_> {
    /// The same in mode `enforce`.
    pub const fn as_enforced(self) -> Self {
        Self { enforced: true, ..self }
    }
}

impl<'a> Judge<'a> {
    /// The policy of `tables` at `now`, in ticks.
    pub fn new(tables: &'a Tables, seed: Seed, now: u64) -> Self {
        let most = tables.manifest.services.values().max().copied().unwrap_or_default();
        let mut services = vec![false; usize::from(most) + 1];
        for &number in tables.manifest.services.values() {
            services[usize::from(number)] = true;
        }
        Self { tables, seed, now, services }
    }

    /// What is said of a source at a service; none: the policy has no such service, so the packet passes.
    pub fn judge(&self, source: Address, service: u16) -> Option<Judged<'a>> {
        if !self.services.get(usize::from(service)).copied().unwrap_or_default() {
            return None;
        }
        let of_policy = self.tables.class(source, service, self.now)?;
        let beside = self.tables.beside.as_ref();
        let incident = beside.and_then(|beside| Some((beside, beside.class(source, service, self.now)?)));
        let hash = self.hash(source, service);
        let enforced = is_enforced(hash, of_policy.enforced_percent);
        let (class, incident) = match incident.filter(|(_, class)| !of_policy.prevails_over(class, enforced))
        {
            None => (of_policy, None),
            Some((beside, class)) => (class, beside.id_of(class)),
        };
        Some(Judged { class, enforced: is_enforced(hash, class.enforced_percent), incident })
    }

    /// The time, in ticks.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Whether what a class refuses is dropped, of a source at a service.
    pub fn is_enforced(&self, class: &Class, source: Address, service: u16) -> bool {
        is_enforced(self.hash(source, service), class.enforced_percent)
    }

    fn hash(&self, source: Address, service: u16) -> u64 {
        Key::new(source, Unit::of_source(source.family), service).hash(&self.seed)
    }

    /// The rule that says so, if one does; `incident N` is an incident rule.
    pub fn rule_of(&self, judged: &Judged<'_>) -> Option<String> {
        match judged.incident {
            Some(id) => Some(format!("incident {id}")),
            None => self.tables.rule_of(judged.class).map(|rule| rule.name.clone()),
        }
    }

    /// The class that a row gives the sources of a service.
    pub fn class_in(&self, row: RuleValue, service: u16) -> Option<&'a Class> {
        self.tables.class_in(row, service, self.now)
    }

    /// The parent class of a number; none for 0, "not limited".
    pub fn parent_class(&self, number: u16) -> Option<&'a ParentClass> {
        self.tables.parent_classes.get(usize::from(number)).filter(|_| number != 0)
    }

    /// A class for people: `limit customer`, `drop by INC-4711`, `allow`, `count`.
    pub fn label(&self, judged: Option<Judged<'_>>) -> String {
        let Some(Judged { class, enforced, incident }) = judged else { return "no service".to_owned() };
        let with_rule = |does: &str| match incident {
            Some(id) => format!("{does} by incident {id}"),
            None => self.with_rule(does, class),
        };
        let does = match class.action {
            action if action == Action::Allow as u8 => return with_rule("allow"),
            action if action == Action::Count as u8 => return "count".to_owned(),
            action if action == Action::Deny as u8 => "drop".to_owned(),
            _ => format!("limit {}", self.tables.profile_of(class).unwrap_or("nothing")),
        };
        let does = with_rule(&does);
        if enforced { does } else { format!("{does} (shadow)") }
    }

    fn with_rule(&self, does: &str, class: &Class) -> String {
        match self.tables.rule_of(class) {
            Some(rule) => format!("{does} by {}", rule.name),
            None => does.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        compile::{Clocks, Manifest, compile},
        parse,
    };

    const POLICY: &str = r#"
version = 1
[defaults]
allow = ["192.0.2.0/28", "2001:db8:ffff::/48"]
[[service]]
name = "web"
addresses = ["203.0.113.10", "2001:db8::10"]
ports = ["tcp/443"]
profile = "each"
[[service]]
name = "rest"
addresses = ["203.0.113.0/24"]
ports = ["*"]
[profile.each]
packets = "100/s"
[[rule]]
name = "part"
source = ["198.18.0.0/15"]
action = "drop"
mode = { enforce = 50 }
[[rule]]
name = "hour"
service = "web"
source = ["198.51.100.0/24"]
action = "drop"
until = 2026-12-01T06:00:00Z
"#;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<std::net::IpAddr>().unwrap())
    }

    fn tables() -> Tables {
        let hour_before =
            Clocks { tick_ns: 0, kernel_ns: 0, unix_ns: 1_796_104_800_000_000_000 - 3_600_000_000_000 };
        compile(&parse(POLICY).unwrap().policy, &Manifest::default(), hour_before).unwrap()
    }

    #[test]
    fn services_are_found_by_address_and_port() {
        let tables = tables();
        let (web, rest) = (tables.manifest.services["web"], tables.manifest.services["rest"]);
        let service = |to, protocol, port| tables.service_at(address(to), protocol, port);
        assert_eq!(service("203.0.113.10", 6, Some(443)), Some(web));
        assert_eq!(service("2001:db8::10", 6, Some(443)), Some(web));
        assert_eq!(service("203.0.113.10", 17, Some(443)), Some(rest));
        assert_eq!(service("203.0.113.11", 1, None), Some(rest));
        assert_eq!(service("203.0.114.1", 6, Some(443)), None);
    }

    #[test]
    fn classes_are_told_by_prefix_service_and_time() {
        let tables = tables();
        let (web, rest) = (tables.manifest.services["web"], tables.manifest.services["rest"]);
        let label = |source: &str, service: u16, now: u64| {
            let judge = Judge::new(&tables, Seed::new([1, 2, 3, 4]), now);
            judge.label(judge.judge(address(source), service))
        };
        assert_eq!(label("192.0.2.3", web, 0), "allow");
        assert_eq!(label("2001:db8:ffff:1::1", web, 0), "allow");
        assert_eq!(label("192.0.2.16", web, 0), "limit each");
        assert_eq!(label("192.0.2.16", rest, 0), "count");
        assert_eq!(label("198.51.100.9", web, 0), "drop by hour");
        assert_eq!(label("198.51.100.9", rest, 0), "count");
        let hour = detector_common::budget::ticks(3_600_000_000_000);
        assert_eq!(label("198.51.100.9", web, hour), "limit each");
        assert_eq!(label("198.51.100.9", web, hour - 1), "drop by hour");
        assert_eq!(label("198.51.100.9", 77, 0), "no service");
        let parts = (0..=255_u8).map(|last| label(&format!("198.18.0.{last}"), web, 0));
        let enforced = parts.filter(|label| label == "drop by part").count();
        assert!((90..166).contains(&enforced), "{enforced} of 256 at 50 %");
        assert_eq!(label("198.18.0.1", 77, 0), "no service");
    }
}
