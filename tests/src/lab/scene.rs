//! Three namespaces: clients — edge — offenders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{
    netns::{End, Namespace, veth},
    stage::{MTU, PORT},
    traffic::Flow,
};

/// The edge's interfaces: to the clients, to the offenders.
pub(super) const INTERFACES: [&str; 2] = ["wan0", "wan1"];

/// The offenders' interface.
pub(super) const OFFENDERS: &str = "internet0";

const CLIENTS: &str = "access0";
const MACS: [[u8; 6]; 4] = [[2, 0, 0, 1, 0, 1], [2, 0, 0, 1, 0, 2], [2, 0, 0, 2, 0, 1], [2, 0, 0, 2, 0, 2]];

/// The service, over both families.
pub(super) const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), PORT);
pub(super) const SERVICE_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10)), PORT);

/// The namespaces; removed when this is dropped.
pub(super) struct Scene {
    pub(super) edge: Namespace,
    pub(super) clients: Namespace,
    pub(super) offenders: Namespace,
}

/// An address of the clients' net.
pub(super) const fn client(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, host))
}

/// An address of a /64 of the clients' net.
pub(super) const fn client_v6(net: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, net, 0, 0, 0, 1))
}

/// An address of the offenders' net.
pub(super) const fn offender(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}

impl Scene {
    /// Makes the namespaces and what connects them. Programs of the offenders that name no address have `default`.
    pub(super) fn new(clients: &[IpAddr], offenders: &[IpAddr], default: IpAddr) -> Result<Self> {
        let scene = Self {
            edge: Namespace::new("edge")?,
            clients: Namespace::new("clients")?,
            offenders: Namespace::new("offenders")?,
        };
        let end = |namespace, interface, mac| End { namespace, interface, mac };
        let [wan0, wan1] = INTERFACES;
        veth(end(&scene.edge, wan0, MACS[0]), end(&scene.clients, CLIENTS, MACS[1]), MTU)?;
        veth(end(&scene.edge, wan1, MACS[2]), end(&scene.offenders, OFFENDERS, MACS[3]), MTU)?;
        scene.edge.address("lo", SERVICE.ip(), 32)?;
        // Neighbour discovery answers for addresses of the interface only.
        scene.edge.address(wan0, SERVICE_V6.ip(), 64)?;
        scene.edge.address(wan0, client(1), 24)?;
        scene.edge.address(wan1, offender(1), 24)?;
        scene.edge.ip(&format!("route add 2001:db8:c::/48 dev {wan0}"))?;
        for &address in clients {
            let length = if address.is_ipv6() { 64 } else { 24 };
            scene.clients.address(CLIENTS, address, length)?;
        }
        for &address in offenders {
            scene.offenders.address(OFFENDERS, address, 24)?;
        }
        scene.clients.ip(&format!("route add {} dev {CLIENTS}", SERVICE.ip()))?;
        scene.clients.ip(&format!("route add {} dev {CLIENTS}", SERVICE_V6.ip()))?;
        scene.offenders.ip(&format!("route add {} dev {OFFENDERS} src {default}", SERVICE.ip()))?;
        Ok(scene)
    }

    /// What an offender floods the service with.
    pub(super) fn flow(from: IpAddr) -> Flow {
        Flow { macs: (MACS[3], MACS[2]), vlan: None, from: SocketAddr::new(from, 4444), to: SERVICE }
    }
}
