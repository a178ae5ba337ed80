//! Which destinations belong to which service, read back from the hashes that packets are looked up in.

use std::{collections::BTreeMap, net::IpAddr};

use detector_common::{
    address::{Address, Family},
    limits::{DESTINATION_SLOTS, PORT_SLOTS},
    service::PortKind,
};
use ipnet::IpNet;

use super::{
    maps::Maps,
    read::{Active, ReadError},
};
use crate::policy::Ports;

/// Ports of a prefix that belong to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Addresses; those of a longer prefix of the policy are that one's.
    pub prefix: IpNet,
    /// In order, neighbouring ports as one range.
    pub ports: Vec<Ports>,
}

/// The destinations of each service of the active policy, by its number.
///
/// # Errors
///
/// The hash of ports names a destination that there is not.
pub fn destinations(maps: &Maps, active: &Active<'_>) -> Result<BTreeMap<u16, Vec<Destination>>, ReadError> {
    let mut prefixes = BTreeMap::new();
    for place in 0..DESTINATION_SLOTS as u32 {
        let slot = active.element(&maps.destinations, DESTINATION_SLOTS, "destination", place)?;
        if slot.destination != 0 {
            let family = if slot.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
            let address = Address { family, high: slot.high, low: slot.low };
            prefixes.insert(slot.destination, prefix(address.to_ip(), slot.length));
        }
    }
    let mut ports: BTreeMap<(u16, IpNet), Vec<Ports>> = BTreeMap::new();
    for place in 0..PORT_SLOTS as u32 {
        let slot = active.element(&maps.ports, PORT_SLOTS, "port", place)?;
        if slot.key == 0 {
            continue;
        }
        let (destination, of) = parts(slot.key);
        let dangling = || ReadError::Dangling { what: "destination", number: destination.into() };
        let prefix = prefixes.get(&destination).ok_or_else(dangling)?;
        ports.entry((slot.service as u16, *prefix)).or_default().extend(of);
    }
    let mut services: BTreeMap<u16, Vec<Destination>> = BTreeMap::new();
    for ((service, prefix), ports) in ports {
        let ports = ranges(ports);
        // Of fragments or of what cannot be read alone: the ports are those of another service.
        if !ports.is_empty() {
            services.entry(service).or_default().push(Destination { prefix, ports });
        }
    }
    Ok(services)
}

fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
}

/// The destination of a key of the hash of ports, and what of it people named; see
/// [`port_key`](detector_common::service::port_key).
fn parts(key: u64) -> (u16, Option<Ports>) {
    let (destination, protocol, port) = ((key >> 32) as u16, (key >> 16) as u8, key as u16);
    let ports = match (key >> 24) as u8 {
        kind if kind == PortKind::Port as u8 => Some(Ports::Range { protocol, first: port, last: port }),
        kind if kind == PortKind::Protocol as u8 => Some(Ports::Protocol(protocol)),
        kind if kind == PortKind::Any as u8 => Some(Ports::Any),
        _ => None,
    };
    (destination, ports)
}

/// Sorts, and joins neighbouring ports.
fn ranges(mut ports: Vec<Ports>) -> Vec<Ports> {
    ports.sort_by_key(|ports| match *ports {
        Ports::Any => (0, 0, 0),
        Ports::Protocol(protocol) => (1, protocol, 0),
        Ports::Range { protocol, first, .. } => (2, protocol, first),
    });
    let mut joined: Vec<Ports> = Vec::new();
    for next in ports {
        if let (
            Some(Ports::Range { protocol, last, .. }),
            Ports::Range { protocol: next_protocol, first, last: next_last },
        ) = (joined.last_mut(), next)
            && *protocol == next_protocol
            && last.checked_add(1) == Some(first)
        {
            *last = next_last;
        } else {
            joined.push(next);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use detector_common::service::port_key;

    use super::*;

    #[test]
    fn keys_become_what_people_wrote() {
        let key = |kind, protocol, port| parts(port_key(7, kind, protocol, port));
        let port = |protocol, port| Ports::Range { protocol, first: port, last: port };
        assert_eq!(key(PortKind::Port, 6, 443), (7, Some(port(6, 443))));
        assert_eq!(key(PortKind::Protocol, 47, 0), (7, Some(Ports::Protocol(47))));
        assert_eq!(key(PortKind::Any, 0, 0), (7, Some(Ports::Any)));
        assert_eq!(key(PortKind::Fragment, 17, 0), (7, None));
        let ports = vec![port(17, 8001), port(6, 443), port(17, 8000), port(17, 8003), port(17, 8002)];
        let text: Vec<_> = ranges(ports).iter().map(Ports::to_string).collect();
        assert_eq!(text, ["tcp/443", "udp/8000-8003"]);
        assert_eq!(ranges(vec![port(6, u16::MAX), port(17, 0)]).len(), 2);
    }
}
