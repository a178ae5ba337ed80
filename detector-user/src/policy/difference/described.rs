//! The parts of compiled tables as people write them.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::{
    address::{Address, Family},
    budget::{BYTE_INTERVAL_FRACTION_BITS, Budget, TICKS_PER_NS},
    policy::{Class, DEFAULT_ROW, NO_PROFILE, RuleValue},
    service::{DestinationSlot, PortKind},
};
use ipnet::IpNet;

use crate::policy::{
    Ports,
    compile::{ManifestRule, Tables},
    until,
};

/// The names of a parent's budgets.
macro_rules! names {
    ($level:literal) => {
        [
            concat!($level, ".packets"),
            concat!($level, ".bytes"),
            concat!($level, ".connections"),
            concat!($level, ".new_sources"),
        ]
    };
}

/// Attributes by name, as the language has them.
pub(super) type Attributes = BTreeMap<&'static str, String>;

/// What holds of everything that does not say otherwise.
pub(super) fn defaults(tables: &Tables) -> BTreeMap<String, Attributes> {
    let mode = mode(tables.manifest.enforced_percent);
    let mut attributes = Attributes::from([("mode", mode)]);
    let fleets = tables.manifest.fleets;
    attributes.extend((!fleets.is_default()).then(|| ("fleets", fleets.to_string())));
    BTreeMap::from([("defaults".to_owned(), attributes)])
}

fn mode(enforced_percent: u8) -> String {
    match enforced_percent {
        0 => "shadow".to_owned(),
        100 => "enforce".to_owned(),
        percent => format!("enforce {percent} %"),
    }
}

/// The rules.
pub(super) fn rules(tables: &Tables) -> BTreeMap<String, Attributes> {
    let rule = |(number, rule): (usize, &ManifestRule)| {
        let patterns = tables.manifest.patterns_of(number).cloned().unwrap_or_default();
        let listed = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(" "));
        let optional = [
            ("ja4", listed(patterns.ja4.iter().map(ToString::to_string).collect())),
            ("syn", listed(patterns.syn.iter().map(ToString::to_string).collect())),
            ("mode", rule.enforced_percent.map(mode)),
            ("until", rule.until_s.map(until::text)),
            ("reason", rule.reason.clone()),
        ];
        let some = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
        (rule.name.clone(), some.chain([("action", rule.action.clone())]).collect())
    };
    tables.manifest.rules.iter().enumerate().map(rule).collect()
}

/// The services.
pub(super) fn services(tables: &Tables) -> BTreeMap<String, Attributes> {
    let service = |(name, &number): (&String, &u16)| {
        let destinations = widest(tables, number);
        let addresses: BTreeSet<_> = destinations.iter().map(|slot| prefix(slot)).collect();
        let mut attributes = Attributes::from([
            ("addresses", joined(addresses.iter())),
            ("ports", ports(tables, number, &destinations)),
        ]);
        let class = tables.class_in(RuleValue::new(DEFAULT_ROW, true), number, 0);
        attributes.extend(
            class.and_then(|class| tables.profile_of(class)).map(|name| ("profile", name.to_owned())),
        );
        let fleets = tables.manifest.fleet_modes.get(name);
        attributes.extend(fleets.map(|mode| ("fleets", mode.to_string())));
        (name.clone(), attributes)
    };
    tables.manifest.services.iter().map(service).collect()
}

fn joined(values: impl Iterator<Item = impl ToString>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

/// The destinations of a service that are in no other of its own: it has entries at narrower ones of other services, too.
fn widest(tables: &Tables, service: u16) -> Vec<&DestinationSlot> {
    let numbers: BTreeSet<_> = keys(tables, service).map(|(destination, ..)| destination).collect();
    let own: Vec<_> = tables.destinations.iter().filter(|slot| numbers.contains(&slot.destination)).collect();
    let is_inside = |slot: &DestinationSlot| {
        own.iter().any(|outer| {
            outer.length < slot.length && outer.family == slot.family && {
                let cut = address(slot).prefix(outer.length);
                (cut.high, cut.low) == (outer.high, outer.low)
            }
        })
    };
    own.iter().copied().filter(|slot| !is_inside(slot)).collect()
}

fn address(slot: &DestinationSlot) -> Address {
    let family = if slot.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
    Address { family, high: slot.high, low: slot.low }
}

fn prefix(slot: &DestinationSlot) -> IpNet {
    let address = address(slot).to_ip();
    IpNet::new(address, slot.length).unwrap_or_else(|_| IpNet::from(address))
}

/// Destination, kind, protocol and port of the keys of a service.
fn keys(tables: &Tables, service: u16) -> impl Iterator<Item = (u16, u8, u8, u16)> {
    let own = tables.ports.iter().filter(move |slot| slot.key != 0 && slot.service == u64::from(service));
    own.map(|slot| ((slot.key >> 32) as u16, (slot.key >> 24) as u8, (slot.key >> 16) as u8, slot.key as u16))
}

fn ports(tables: &Tables, service: u16, destinations: &[&DestinationSlot]) -> String {
    let numbers: BTreeSet<_> = destinations.iter().map(|slot| slot.destination).collect();
    let of_widest = keys(tables, service).filter(|(destination, ..)| numbers.contains(destination));
    let of_widest: BTreeSet<_> = of_widest.map(|(_, kind, protocol, port)| (protocol, kind, port)).collect();
    let mut all: Vec<Ports> = Vec::new();
    for (protocol, kind, port) in of_widest {
        match kind {
            kind if kind == PortKind::Any as u8 => all.push(Ports::Any),
            kind if kind == PortKind::Protocol as u8 => all.push(Ports::Protocol(protocol)),
            kind if kind == PortKind::Port as u8 => match all.last_mut() {
                Some(Ports::Range { protocol: same, last, .. })
                    if *same == protocol && last.checked_add(1) == Some(port) =>
                {
                    *last = port;
                }
                _ => all.push(Ports::Range { protocol, first: port, last: port }),
            },
            // Fragments and what cannot be read follow from the others.
            _ => {}
        }
    }
    joined(all.iter())
}

/// The profiles that something uses.
pub(super) fn profiles(tables: &Tables) -> BTreeMap<String, Attributes> {
    // The first class is nobody's, and so are those after the last.
    let used = tables.classes.iter().skip(1);
    let used = used.filter(|class| class.profile != NO_PROFILE && **class != Class::default());
    let mut profiles = BTreeMap::new();
    for class in used {
        // A rule about fingerprints has only the budget that it charges.
        if let Some(name) = tables.profile_of(class) {
            let profile: &mut Attributes = profiles.entry(name.to_owned()).or_default();
            profile.extend(budgets(tables, class));
        }
    }
    profiles
}

fn budgets(tables: &Tables, class: &Class) -> Attributes {
    let mut all = vec![
        ("packets", units(&class.packets)),
        ("bytes", bytes(&class.bytes)),
        ("connections", units(&class.connections)),
        ("handshakes", units(&class.handshakes)),
    ];
    let levels: [(u16, [&'static str; 4]); 3] = [
        (class.v4_24, names!("parents.v4_24")),
        (class.v6_56, names!("parents.v6_56")),
        (class.v6_48, names!("parents.v6_48")),
    ];
    for (number, names) in levels {
        let Some(parent) = tables.parent_classes.get(usize::from(number)).filter(|_| number != 0) else {
            continue;
        };
        let texts = [
            units(&parent.packets),
            bytes(&parent.bytes),
            units(&parent.connections),
            units(&parent.new_sources),
        ];
        all.extend(names.into_iter().zip(texts));
    }
    all.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

const TICKS_PER_S: f64 = 1e9 * TICKS_PER_NS as f64;

/// A budget of things that are counted; none without one.
fn units(budget: &Budget) -> Option<String> {
    let interval = budget.is_limited().then_some(budget.interval as f64)?;
    let burst = (budget.burst_ticks as f64 / interval).round();
    let per_s = TICKS_PER_S / interval;
    let (rate, period) = match per_s {
        whole if is_whole(whole) => (whole, "s"),
        per_min if is_whole(per_min * 60.0) => (per_min * 60.0, "min"),
        per_h if is_whole(per_h * 3600.0) => (per_h * 3600.0, "h"),
        per_d if is_whole(per_d * 86_400.0) => (per_d * 86_400.0, "d"),
        other => (other, "s"),
    };
    Some(format!("{}/{period}, burst {burst}", short(rate)))
}

/// Whether a rate was written in whole numbers: the interval that it became is rounded.
fn is_whole(rate: f64) -> bool {
    let whole = rate.round();
    whole >= 1.0 && (rate - whole).abs() <= whole * 1e-4
}

fn bytes(budget: &Budget) -> Option<String> {
    let interval = budget.is_limited().then_some(budget.interval as f64)?;
    let unit_ticks = interval / f64::from(1_u32 << BYTE_INTERVAL_FRACTION_BITS);
    let size = |bytes: f64| match bytes {
        large if large >= 1e9 => format!("{}GB", short(large / 1e9)),
        large if large >= 1e6 => format!("{}MB", short(large / 1e6)),
        large if large >= 1e3 => format!("{}kB", short(large / 1e3)),
        small => format!("{}B", short(small)),
    };
    Some(format!(
        "{}/s, burst {}",
        size(TICKS_PER_S / unit_ticks),
        size(budget.burst_ticks as f64 / unit_ticks)
    ))
}

/// A number with as many digits as its rounding leaves right.
fn short(number: f64) -> String {
    if is_whole(number) {
        return format!("{}", number.round());
    }
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
