//! Destinations and ports: the two hashes behind [`detector_common::service::find`].

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot};

use detector_common::{
    address::{Address, Family},
    limits::{DESTINATION_SLOTS, PORT_SLOTS, PREFIX_LENGTHS_MAX, PROBES_MAX},
    policy::{NO_LENGTH, PolicyHeader},
    service::{DestinationSlot, PortKind, PortSlot, destination_place, port_key, port_place},
};

use super::{CompileError, Place};
use crate::policy::{Policy, Ports, Service};

/// Seeds that are tried before giving up; hashes a quarter full need a handful (tested at their bounds).
const SEEDS_MAX: u64 = 10_000;

/// Destination prefixes, and keys of ports at them, that a policy may have.
const DESTINATIONS_MAX: usize = DESTINATION_SLOTS / 4;
const PORTS_MAX: usize = PORT_SLOTS / 4;

/// What [`compile`] makes.
pub(super) struct Services {
    pub(super) header: PolicyHeader,
    pub(super) destinations: Vec<DestinationSlot>,
    pub(super) ports: Vec<PortSlot>,
}

pub(super) fn compile(policy: &Policy, numbers: &BTreeMap<String, u16>) -> Result<Services, CompileError> {
    let (prefixes, beyond) = distinct(placed_prefixes(policy), DESTINATIONS_MAX);
    if let Some(place) = beyond {
        return Err(CompileError {
            place,
            message: "too many destination prefixes",
            found: format!("{} in all services", prefixes.len()),
            expected: format!("at most {DESTINATIONS_MAX}"),
            help: "from this one on they do not fit: name the wider prefixes that they lie in".to_owned(),
        });
    }
    let (lengths_v4, lengths_v6) = (lengths(Family::V4, policy)?, lengths(Family::V6, policy)?);
    let mut destinations = Vec::new();
    let mut ports = Vec::new();
    for (index, &(prefix, length)) in prefixes.iter().enumerate() {
        let destination = index as u16 + 1;
        let mut entries = Entries::default();
        for (service, outer_length) in services_around(policy, prefix, length) {
            let service = &policy.services[service];
            entries.add(service, numbers[&service.name], outer_length);
        }
        entries.leave_hidden_to_any();
        let kinds = entries.ports.keys().fold(0, |kinds, (kind, _, _)| kinds | 1 << kind);
        destinations.push(DestinationSlot {
            high: prefix.high,
            low: prefix.low,
            destination,
            length,
            family: prefix.family as u8,
            kinds,
        });
        for ((kind, protocol, port), entry) in entries.ports {
            ports.push(PortSlot {
                key: port_key(destination, kind_of(kind), protocol, port),
                service: entry.number.into(),
            });
        }
        if ports.len() > PORTS_MAX {
            let most = "in all services, each counted at every destination prefix of its service";
            let expected = format!("at most {PORTS_MAX} ports {most}");
            return Err(ports_error(policy, &prefixes, "too many ports", expected));
        }
    }
    let header = PolicyHeader {
        epoch: 0,
        service_seed: 0,
        lengths_v4,
        lengths_v6,
        rules_v4: 0,
        rules_v6: 0,
        client_rules: 0,
        reserved: 0,
    };
    arrange(header, &destinations, &ports).ok_or_else(|| {
        let expected =
            format!("a policy for which one of {SEEDS_MAX} arrangements suits the kernel's hashes");
        ports_error(policy, &prefixes, "addresses and ports of the services cannot be arranged", expected)
    })
}

/// Every entry of `addresses` in the file's order, with its place.
fn placed_prefixes(policy: &Policy) -> impl Iterator<Item = ((Address, u8), Place)> {
    policy.services.iter().enumerate().flat_map(|(service, of)| {
        let place = move |(entry, prefix)| (prefix, Place::Address { service, entry });
        prefixes_of(of).enumerate().map(place)
    })
}

/// All different keys, and the place of the first that is more than `most`.
fn distinct<K: Ord>(keys: impl Iterator<Item = (K, Place)>, most: usize) -> (BTreeSet<K>, Option<Place>) {
    let mut found = BTreeSet::new();
    let mut beyond = None;
    for (key, place) in keys {
        if found.insert(key) && found.len() == most + 1 {
            beyond = Some(place);
        }
    }
    (found, beyond)
}

/// An error at the entry of `ports` that takes the most room: its ports at every prefix that its service holds.
fn ports_error(
    policy: &Policy,
    prefixes: &BTreeSet<(Address, u8)>,
    message: &'static str,
    expected: String,
) -> CompileError {
    let mut held = vec![0; policy.services.len()];
    for &(prefix, length) in prefixes {
        for (service, _) in services_around(policy, prefix, length) {
            held[service] += 1;
        }
    }
    let entries = policy.services.iter().zip(held).enumerate().flat_map(|(service, (of, held))| {
        let entries = of.ports.iter().enumerate();
        entries.map(move |(entry, ports)| (ports_in(*ports), held, Place::Ports { service, entry }))
    });
    // The first of the largest.
    let largest = entries.rev().max_by_key(|&(ports, held, _)| ports * held);
    let (ports, held, place) = largest.unwrap_or((0, 0, Place::Ports { service: 0, entry: 0 }));
    CompileError {
        place,
        message,
        found: format!("{ports} here × {held} destination prefixes, the most of all"),
        expected,
        help: "write wide ranges as tcp/* or udp/*, or name fewer and wider prefixes".to_owned(),
    }
}

fn ports_in(ports: Ports) -> usize {
    match ports {
        Ports::Any | Ports::Protocol(_) => 1,
        Ports::Range { first, last, .. } => usize::from(last - first) + 1,
    }
}

fn prefixes_of(service: &Service) -> impl Iterator<Item = (Address, u8)> {
    service.addresses.iter().map(|net| (Address::from(net.network()), net.prefix_len()))
}

/// The services that hold a prefix, by their place in the file: the one with the most specific prefix around it first, then in the file's order.
fn services_around(policy: &Policy, prefix: Address, length: u8) -> Vec<(usize, u8)> {
    let mut around: Vec<_> = policy
        .services
        .iter()
        .enumerate()
        .filter_map(|(number, service)| {
            let contains = |&(outer, outer_length): &(Address, u8)| {
                outer.family == prefix.family
                    && outer_length <= length
                    && prefix.prefix(outer_length) == outer
            };
            let outer_length =
                prefixes_of(service).filter(contains).map(|(_, outer_length)| outer_length).max()?;
            Some((number, outer_length))
        })
        .collect();
    around.sort_by_key(|&(_, outer_length)| std::cmp::Reverse(outer_length));
    around
}

fn kind_of(number: u8) -> PortKind {
    match number {
        0 => PortKind::Port,
        1 => PortKind::Protocol,
        2 => PortKind::Any,
        3 => PortKind::Fragment,
        _ => PortKind::Unread,
    }
}

/// The ports of one destination, by kind, protocol and port.
#[derive(Default)]
struct Entries {
    ports: BTreeMap<(u8, u8, u16), Entry>,
}

/// The service of a key.
struct Entry {
    number: u16,
    /// Length of the service's prefix.
    length: u8,
    is_limited: bool,
}

impl Entries {
    /// Adds a service, all of whose competitors with more specific prefixes are in already.
    fn add(&mut self, service: &Service, number: u16, length: u8) {
        let is_limited = service.profile.is_some();
        let mut enter = |kind, protocol, port| {
            self.enter((kind, protocol, port), Entry { number, length, is_limited });
        };
        for ports in &service.ports {
            match *ports {
                Ports::Any => enter(PortKind::Any, 0, 0),
                Ports::Protocol(protocol) => enter(PortKind::Protocol, protocol, 0),
                Ports::Range { protocol, first, last } => {
                    for port in first..=last {
                        enter(PortKind::Port, protocol, port);
                    }
                }
            }
        }
        for ports in &service.ports {
            match *ports {
                // Fragments of protocols that others name find "any" after their own protocol.
                Ports::Any => {}
                Ports::Protocol(protocol) | Ports::Range { protocol, .. } => {
                    enter(PortKind::Fragment, protocol, 0);
                }
            }
        }
        enter(PortKind::Unread, 0, 0);
    }

    /// Where a service of all ports is limited, fragments of the protocols of services without a profile are its, too: a
    /// packet finds "any" after its own protocol.
    fn leave_hidden_to_any(&mut self) {
        if self.ports.get(&(PortKind::Any as u8, 0, 0)).is_some_and(|any| any.is_limited) {
            self.ports.retain(|&(kind, _, _), entry| kind != PortKind::Fragment as u8 || entry.is_limited);
        }
    }

    /// Enters a key unless it is there, or a more specific prefix has it under a wider key. Of the services whose ports
    /// a packet may hide, the first with a profile stays: else hiding them would be a way to the one without.
    fn enter(&mut self, (kind, protocol, port): (PortKind, u8, u16), entry: Entry) {
        let wider: &[(PortKind, u8)] = match kind {
            PortKind::Port => &[(PortKind::Protocol, protocol), (PortKind::Any, 0)],
            PortKind::Protocol | PortKind::Fragment | PortKind::Unread => &[(PortKind::Any, 0)],
            PortKind::Any => &[],
        };
        let is_covered = wider.iter().any(|&(kind, protocol)| {
            self.ports.get(&(kind as u8, protocol, 0)).is_some_and(|other| other.length > entry.length)
        });
        if is_covered {
            return;
        }
        let is_hidden = matches!(kind, PortKind::Fragment | PortKind::Unread);
        match self.ports.entry((kind as u8, protocol, port)) {
            Slot::Vacant(slot) => _ = slot.insert(entry),
            Slot::Occupied(mut slot) if is_hidden && entry.is_limited && !slot.get().is_limited => {
                slot.insert(entry);
            }
            Slot::Occupied(_) => {}
        }
    }
}

/// Finds a seed for which every key lies within [`PROBES_MAX`] slots of its place.
fn arrange(header: PolicyHeader, destinations: &[DestinationSlot], ports: &[PortSlot]) -> Option<Services> {
    for seed in 1..=SEEDS_MAX {
        let service_seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let placed_destinations = place_all(
            destinations,
            DESTINATION_SLOTS,
            |slot| {
                let family = if slot.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
                destination_place(
                    service_seed,
                    Address { family, high: slot.high, low: slot.low },
                    slot.length,
                )
            },
            |slot| slot.destination == 0,
        );
        let placed_ports =
            place_all(ports, PORT_SLOTS, |slot| port_place(service_seed, slot.key), |slot| slot.key == 0);
        if let (Some(destinations), Some(ports)) = (placed_destinations, placed_ports) {
            let header = PolicyHeader { service_seed, ..header };
            return Some(Services { header, destinations, ports });
        }
    }
    None
}

fn place_all<T: Copy + Default>(
    entries: &[T],
    slots: usize,
    place: impl Fn(&T) -> u32,
    is_empty: impl Fn(&T) -> bool,
) -> Option<Vec<T>> {
    let mut table = vec![T::default(); slots];
    for entry in entries {
        let first = place(entry) as usize;
        let free = (0..PROBES_MAX).map(|probe| (first + probe) % slots).find(|&at| is_empty(&table[at]))?;
        table[free] = *entry;
    }
    Some(table)
}

/// The lengths of a family's prefixes, longest first.
fn lengths(family: Family, policy: &Policy) -> Result<[u8; PREFIX_LENGTHS_MAX], CompileError> {
    let keys = placed_prefixes(policy)
        .filter(|((prefix, _), _)| prefix.family == family)
        .map(|((_, length), place)| (length, place));
    let (found, beyond) = distinct(keys, PREFIX_LENGTHS_MAX);
    if let Some(place) = beyond {
        let listed: Vec<_> = found.iter().map(|length| format!("/{length}")).collect();
        return Err(CompileError {
            place,
            message: "too many different prefix lengths in the addresses of services",
            found: format!("{}: {}", found.len(), listed.join(", ")),
            expected: format!("at most {PREFIX_LENGTHS_MAX} for each of IPv4 and IPv6"),
            help: "each length costs every packet a lookup: split this prefix into ones of a length in use"
                .to_owned(),
        });
    }
    let mut lengths = [NO_LENGTH; PREFIX_LENGTHS_MAX];
    for (place, length) in lengths.iter_mut().zip(found.into_iter().rev()) {
        *place = length;
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn seed_of(addresses: &str, ports: &str) -> u64 {
        let service = format!("[[service]]\nname = \"a\"\naddresses = [{addresses}]\nports = [{ports}]\n");
        let policy = parse(&format!("version = 1\n{service}")).unwrap().policy;
        compile(&policy, &BTreeMap::from([("a".to_owned(), 1)])).unwrap().header.service_seed
    }

    #[test]
    fn as_many_keys_as_promised_are_arranged() {
        let tries =
            |seed: u64| (1..=SEEDS_MAX).find(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) == seed);
        // Each destination has a key for its protocol, for fragments of it, and for packets that cannot be read.
        let addresses: Vec<_> =
            (0..PORT_SLOTS / 4 / 3).map(|i| format!("\"203.0.{}.{}\"", i / 256, i % 256)).collect();
        assert!(tries(seed_of(&addresses.join(","), "\"gre\"")).unwrap() < SEEDS_MAX / 10);
        let ports = format!("\"tcp/1-{}\"", PORT_SLOTS / 4 - 2);
        assert!(tries(seed_of("\"203.0.113.10\"", &ports)).unwrap() < SEEDS_MAX / 10);
    }
}
