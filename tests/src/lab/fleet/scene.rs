//! Two namespaces: the edge, and the internet with all addresses of people and of a proxy's exits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::{
    netns::{End, Namespace, veth},
    random::Random,
    stage::{MTU, PORT},
};

/// The edge's interface.
pub(super) const INTERFACE: &str = "wan0";

const INTERNET: &str = "internet0";
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 3, 0, 1], [2, 0, 0, 3, 0, 2]];
const EDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INTERNET_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The service.
pub(super) const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), PORT);

/// Where everybody lives: the range for tests between networks (RFC 2544).
const WORLD: &str = "198.18.0.0/15";

/// The namespaces; removed when this is dropped.
pub(super) struct Scene {
    pub(super) edge: Namespace,
    pub(super) internet: Namespace,
}

impl Scene {
    /// Makes the namespaces and what connects them.
    pub(super) fn new() -> Result<Self> {
        let scene = Self { edge: Namespace::new("edge")?, internet: Namespace::new("internet")? };
        let [edge, internet] = MACS;
        veth(
            End { namespace: &scene.edge, interface: INTERFACE, mac: edge },
            End { namespace: &scene.internet, interface: INTERNET, mac: internet },
            MTU,
        )?;
        scene.edge.address("lo", SERVICE.ip(), 32)?;
        scene.edge.address(INTERFACE, EDGE_ADDRESS.into(), 24)?;
        scene.edge.ip(&format!("route add {WORLD} via {INTERNET_ADDRESS} dev {INTERFACE}"))?;
        scene.internet.address(INTERNET, INTERNET_ADDRESS.into(), 24)?;
        // All of it is local: programs may send from any address of it.
        scene.internet.ip(&format!("route add local {WORLD} dev lo"))?;
        scene.internet.ip(&format!("route add {} via {EDGE_ADDRESS} dev {INTERNET}", SERVICE.ip()))?;
        Ok(scene)
    }
}

/// Addresses of the world, each once, in a random order: homes and exits are strewn alike.
pub(super) struct Addresses {
    /// A permutation of all numbers: an odd factor, and something that is added.
    factor: u32,
    more: u32,
    next: u32,
}

impl Addresses {
    const COUNT: u32 = 1 << 17;

    pub(super) fn new(random: &mut Random) -> Self {
        let draw = |random: &mut Random| random.below(u64::from(Self::COUNT)) as u32;
        Self { factor: draw(random) | 1, more: draw(random), next: 0 }
    }

    /// One that nobody had.
    pub(super) fn next(&mut self) -> Ipv4Addr {
        let number = self.next.wrapping_mul(self.factor).wrapping_add(self.more) % Self::COUNT;
        self.next += 1;
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nobody_has_an_address_twice() {
        let mut addresses = Addresses::new(&mut Random::new(1));
        let drawn: HashSet<_> = (0..10_000).map(|_| addresses.next()).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(drawn.iter().all(|address| matches!(address.octets(), [198, 18 | 19, ..])));
    }
}
