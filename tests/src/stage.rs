//! The scene of most tests: an edge with the service, and the world outside, over one or more links.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::MutexGuard,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    netns::{End, Namespace, may_run, turn, veth},
    process::{PATIENCE, wait_until},
    traffic::Flow,
};

/// Port of the service.
pub const PORT: u16 = 443;

/// Port that belongs to no service.
const FENCE_PORT: u16 = 9;

/// Largest unit of a veth pair unless a test is about it.
pub const MTU: u32 = 1500;

/// A link: interface `edgeN` in the edge, `outN` outside.
#[derive(Debug)]
pub struct Stage {
    /// Where the service is, and the daemon.
    pub edge: Namespace,
    /// Where clients and offenders are.
    pub outside: Namespace,
    /// The last to go: the next test begins when nothing of this one is left.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Addresses of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    link: u8,
    family: Family,
    vlan: Option<u16>,
}

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Sources of each net: a well-behaved one and one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Stays below its limit.
    Client = 2,
    /// Does not.
    Offender = 3,
}

/// The VLAN of tests.
const VLAN: u16 = 100;

impl Net {
    /// IPv4 on a link.
    pub const fn v4(link: u8) -> Self {
        Self { link, family: Family::V4, vlan: None }
    }

    /// IPv6 on a link.
    pub const fn v6(link: u8) -> Self {
        Self { link, family: Family::V6, vlan: None }
    }

    /// IPv4 on a link that [`Stage::tag`] made a VLAN.
    pub const fn vlan(link: u8) -> Self {
        Self { link, family: Family::V4, vlan: Some(VLAN) }
    }

    /// The address of the service.
    pub fn service(self) -> SocketAddr {
        SocketAddr::new(self.address(10), PORT)
    }

    /// The address of a source; IPv6 ones are in different /64, and so are different sources.
    pub fn source(self, who: Who) -> IpAddr {
        self.address(who as u8)
    }

    /// Its prefix as detector writes it.
    pub fn prefix(self, who: Who) -> String {
        match self.source(who) {
            IpAddr::V4(address) => format!("{address}/32"),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }

    /// What a source floods the service with.
    pub fn flow(self, who: Who) -> Flow {
        Flow {
            macs: (mac(self.link, Side::Outside), mac(self.link, Side::Edge)),
            vlan: self.vlan,
            from: SocketAddr::new(self.source(who), 4444),
            to: self.service(),
        }
    }

    /// Whether frames carry a VLAN tag.
    pub fn is_tagged(self) -> bool {
        self.vlan.is_some()
    }

    fn address(self, host: u8) -> IpAddr {
        let link = self.link;
        match self.family {
            Family::V4 => Ipv4Addr::new(198, 18, link, host).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, link.into(), host.into(), 0, 0, 0, 1).into(),
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Edge = 1,
    Outside = 2,
}

fn mac(link: u8, side: Side) -> [u8; 6] {
    [2, 0, 0, 0, link, side as u8]
}

impl Stage {
    /// Sets the scene of a test, when it is its turn: so many links with ordinary frames. `None`: the test is skipped, which
    /// is said.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn in_turn(links: u8) -> Result<Option<Self>> {
        if !may_run() {
            return Ok(None);
        }
        let turn = turn();
        Ok(Some(Self { _turn: Some(turn), ..Self::new(links, MTU)? }))
    }

    /// Sets the scene: so many links, each with IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// Not root.
    pub fn new(links: u8, mtu: u32) -> Result<Self> {
        let (edge, outside) = (Namespace::new("edge")?, Namespace::new("outside")?);
        let stage = Self { edge, outside, _turn: None };
        for link in 0..links {
            stage.link(link, mtu).with_context(|| format!("making link {link}"))?;
        }
        Ok(stage)
    }

    /// Makes a link, or makes one anew that was deleted: with another number then.
    ///
    /// # Errors
    ///
    /// It is there already.
    pub fn link(&self, link: u8, mtu: u32) -> Result<()> {
        let (inner, outer) = (edge_interface(link), outside_interface(link));
        let edge = End { namespace: &self.edge, interface: &inner, mac: mac(link, Side::Edge) };
        let outside = End { namespace: &self.outside, interface: &outer, mac: mac(link, Side::Outside) };
        veth(edge, outside, mtu)?;
        for net in [Net::v4(link), Net::v6(link)] {
            let length = if net.family == Family::V4 { 24 } else { 48 };
            self.edge.address(&inner, net.service().ip(), length)?;
            for who in [Who::Client, Who::Offender] {
                self.outside.address(&outer, net.source(who), length)?;
            }
        }
        Ok(())
    }

    /// Makes a link a VLAN: what comes to the edge carries a tag.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn tag(&self, link: u8) -> Result<()> {
        self.outside.tag_sent(&outside_interface(link), VLAN)?;
        self.edge.untag_received(&edge_interface(link))
    }

    /// Whether an XDP program is attached to the edge's end of a link.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub fn is_attached(&self, link: u8) -> Result<bool> {
        Ok(self.program(link)?.is_some())
    }

    /// The kernel's number of the XDP program at the edge's end of a link: each that is loaded has its own.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub fn program(&self, link: u8) -> Result<Option<u32>> {
        let shown = self.edge.ip(&format!("link show dev {}", edge_interface(link)))?;
        let Some((_, program)) = shown.split_once("prog/xdp id ") else { return Ok(None) };
        let digits = program.split_whitespace().next().unwrap_or_default();
        digits.parse().map(Some).with_context(|| format!("no number of a program in {shown}"))
    }

    /// Waits until everything that was sent over a link before is judged and delivered: a later packet of no service
    /// has come through, and a veth pair keeps the order.
    ///
    /// # Errors
    ///
    /// Nothing comes through.
    pub fn fence(&self, link: u8) -> Result<()> {
        let net = Net::v4(link);
        let to = SocketAddr::new(net.service().ip(), FENCE_PORT);
        let from = SocketAddr::new(net.source(Who::Client), 0);
        let receiver = self.edge.within(|| UdpSocket::bind(to))?.context("binding the fence")?;
        let sender = self.outside.within(|| UdpSocket::bind(from))?.context("binding the fence")?;
        receiver.set_read_timeout(Some(Duration::from_millis(100))).context("setting a timeout")?;
        wait_until("a packet of no service comes through", PATIENCE, || {
            sender.send_to(b"fence", to).context("sending the fence")?;
            Ok(receiver.recv(&mut [0; 8]).ok())
        })
        .map(drop)
    }
}

/// The edge's end of a link.
pub fn edge_interface(link: u8) -> String {
    format!("edge{link}")
}

/// The other end.
pub fn outside_interface(link: u8) -> String {
    format!("out{link}")
}

/// A policy with one service on every address of the stage and one profile.
pub fn policy(profile: &str) -> String {
    format!(
        "version = 1\n\n[[service]]\nname = \"edge\"\naddresses = [\"198.18.0.0/16\", \"2001:db8::/32\"]\n\
         ports = [\"tcp/443\", \"udp/443\"]\nprofile = \"each\"\n\n[profile.each]\n{profile}\n"
    )
}
