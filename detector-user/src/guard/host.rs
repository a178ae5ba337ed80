//! Who must not be locked out: by the files of this host SSH peers, gateways and resolvers, and who asks over the API.
//!
//! Only what is read here is known: with another root, a tree of fixtures. What is missing names nobody.

mod sockets;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Ancestors that are looked at, at most.
const ANCESTORS_MAX: usize = 64;

/// `RTF_GATEWAY` of linux/route.h.
const ROUTE_GATEWAY: u32 = 2;

/// Local ports of connections that this host opens, where the kernel does not say.
const EPHEMERAL_FIRST: u16 = 32_768;

/// A host, by its files.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    /// The process whose ancestors are asked for their SSH connections.
    process: Option<u32>,
    /// Whether every sshd is asked for its own.
    is_everybody: bool,
    /// A connection to the API: who asks, and this end.
    client: Option<(IpAddr, SocketAddr)>,
}

/// Somebody who must not be locked out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Who.
    pub address: IpAddr,
    /// What for.
    pub role: Role,
    /// Where that stands.
    pub found: String,
}

/// What somebody is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The other end of the caller's SSH connection to here.
    Ssh {
        /// This end.
        local: SocketAddr,
    },
    /// The other end of the connection to the API that a change came by.
    ApiClient {
        /// This end.
        local: SocketAddr,
    },
    /// A default gateway.
    Gateway,
    /// A resolver of names.
    Resolver,
}

impl Role {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ssh { .. } => "the other end of your SSH connection",
            Self::ApiClient { .. } => "this API client",
            Self::Gateway => "the default gateway",
            Self::Resolver => "a DNS resolver in use",
        }
    }
}

impl Host {
    /// This host, seen by this process.
    pub fn own() -> Self {
        Self::at("/", std::process::id())
    }

    /// This host, seen by nobody in particular: a signal does not say who sent it.
    pub fn of_everybody() -> Self {
        Self { root: PathBuf::from("/"), process: None, is_everybody: true, client: None }
    }

    /// A host whose files lie under a root.
    pub fn at(root: impl Into<PathBuf>, process: u32) -> Self {
        Self { root: root.into(), process: Some(process), is_everybody: false, client: None }
    }

    /// The same host, and the ancestors of a process besides.
    pub fn and_of_process(self, process: Option<u32>) -> Self {
        Self { process, ..self }
    }

    /// The same host, and who asks over the network besides.
    pub fn and_client(self, client: SocketAddr, local: SocketAddr) -> Self {
        // Behind IPv6 sockets IPv4 addresses are mapped ones.
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Self { client: Some((canonical(client).ip(), canonical(local))), ..self }
    }

    /// Everybody who must not be locked out.
    pub fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> = self.client().into_iter().chain(self.ssh_peers()).collect();
        peers.extend(self.gateways().into_iter().chain(self.resolvers()));
        // Somebody may be found in several ways; one is enough.
        let mut known = BTreeSet::new();
        peers.retain(|peer| known.insert((peer.address, peer.role)));
        peers
    }

    /// Addresses of this host that are not loopback ones.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.read("proc/net/fib_trie").map(|text| local_v4(&text)).unwrap_or_default();
        let v6 = self.read("proc/net/if_inet6").unwrap_or_default();
        let v6 = v6.lines().filter_map(|line| v6_of_hex(line.split_whitespace().next()?));
        let all: BTreeSet<IpAddr> = v4.into_iter().map(IpAddr::V4).chain(v6.map(IpAddr::V6)).collect();
        all.into_iter().filter(|address| !address.is_loopback()).collect()
    }

    /// The first local port of connections that this host opens.
    pub fn ephemeral_first(&self) -> u16 {
        let range = self.read("proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL_FIRST)
    }

    /// Who asks over the API. Over loopback nobody is filtered.
    fn client(&self) -> Option<Peer> {
        let (address, local) = self.client.filter(|(address, _)| !address.is_loopback())?;
        Some(Peer { address, role: Role::ApiClient { local }, found: format!("its connection to {local}") })
    }

    fn ssh_peers(&self) -> Vec<Peer> {
        let ancestors = self.processes();
        let by_variable = ancestors.iter().filter_map(|&process| {
            let environment = fs::read(self.path(&format!("proc/{process}/environ"))).ok()?;
            let of_variable = |entry: &[u8]| ssh_connection(std::str::from_utf8(entry).ok()?);
            let (peer, local) = environment.split(|&byte| byte == 0).find_map(of_variable)?;
            Some((peer, local, format!("SSH_CONNECTION of process {process}")))
        });
        let by_socket = ancestors.iter().filter(|&&process| self.is_sshd(process)).flat_map(|&process| {
            let connections = self.connections_of(process).into_iter();
            connections
                .map(move |(peer, local)| (peer, local, format!("connection of sshd, process {process}")))
        });
        by_variable
            .chain(by_socket)
            .map(|(peer, local, found)| Peer { address: peer, role: Role::Ssh { local }, found })
            .collect()
    }

    /// The process and its ancestors, the process itself first; then everybody's sshd, if these are asked.
    fn processes(&self) -> Vec<u32> {
        let parent = |&process: &u32| {
            let status = self.read(&format!("proc/{process}/status"))?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            parent.trim().parse().ok().filter(|&parent| parent != 0)
        };
        let mut processes: Vec<_> = std::iter::successors(self.process, parent).take(ANCESTORS_MAX).collect();
        if self.is_everybody {
            let all = fs::read_dir(self.path("proc")).into_iter().flatten().flatten();
            let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            processes.extend(all.filter(|&process| self.is_sshd(process) && !self.is_logging_in(process)));
        }
        processes
    }

    /// Whether an sshd does not know yet who connects: whoever just opens a connection is nobody to be guarded. Its title
    /// ends with `[accepted]`, `[net]`, `[pam]` or `[priv]` then; that of a session with a terminal or `notty`.
    fn is_logging_in(&self, process: u32) -> bool {
        let title = self.read(&format!("proc/{process}/cmdline")).unwrap_or_default();
        title.trim_end_matches(['\0', ' ']).ends_with(']')
    }

    fn is_sshd(&self, process: u32) -> bool {
        // `sshd`, since OpenSSH 9.8 `sshd-session`.
        self.read(&format!("proc/{process}/comm")).is_some_and(|name| name.starts_with("sshd"))
    }

    fn connections_of(&self, process: u32) -> Vec<(IpAddr, SocketAddr)> {
        let descriptors =
            fs::read_dir(self.path(&format!("proc/{process}/fd"))).into_iter().flatten().flatten();
        let inodes: BTreeSet<u64> = descriptors
            .filter_map(|entry| sockets::inode(fs::read_link(entry.path()).ok()?.to_str()?))
            .collect();
        let tables = ["proc/net/tcp", "proc/net/tcp6"].into_iter().filter_map(|path| self.read(path));
        tables.flat_map(|table| sockets::established(&table, &inodes)).collect()
    }

    fn gateways(&self) -> Vec<Peer> {
        let v4 = self.read("proc/net/route").unwrap_or_default();
        let v6 = self.read("proc/net/ipv6_route").unwrap_or_default();
        let v4 = v4.lines().filter_map(gateway_v4).map(|address| (IpAddr::V4(address), "/proc/net/route"));
        let v6 =
            v6.lines().filter_map(gateway_v6).map(|address| (IpAddr::V6(address), "/proc/net/ipv6_route"));
        v4.chain(v6)
            .map(|(address, found)| Peer { address, role: Role::Gateway, found: found.to_owned() })
            .collect()
    }

    fn resolvers(&self) -> Vec<Peer> {
        let of = |path: &'static str| {
            let text = self.read(path.trim_start_matches('/')).unwrap_or_default();
            let servers: Vec<_> = text.lines().filter_map(name_server).collect();
            servers.into_iter().map(move |address| (address, path))
        };
        let mut servers: Vec<_> = of("/etc/resolv.conf").collect();
        // A stub on loopback: those that it asks stand elsewhere.
        if servers.iter().any(|(address, _)| address.is_loopback()) {
            servers.extend(of("/run/systemd/resolve/resolv.conf"));
        }
        servers
            .into_iter()
            .filter(|(address, _)| !address.is_loopback())
            .map(|(address, path)| Peer { address, role: Role::Resolver, found: path.to_owned() })
            .collect()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path))
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }
}

/// `SSH_CONNECTION=PEER PORT LOCAL PORT`: the peer and this end.
fn ssh_connection(variable: &str) -> Option<(IpAddr, SocketAddr)> {
    let mut words = variable.strip_prefix("SSH_CONNECTION=")?.split(' ');
    let peer = address(words.next()?)?;
    let _peer_port: u16 = words.next()?.parse().ok()?;
    let local = address(words.next()?)?;
    Some((peer, SocketAddr::new(local, words.next()?.parse().ok()?)))
}

/// An address, perhaps with a zone.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

fn name_server(line: &str) -> Option<IpAddr> {
    address(line.trim().strip_prefix("nameserver")?.trim_start_matches([' ', '\t']))
}

/// A line `INTERFACE DESTINATION GATEWAY FLAGS … MASK …` of a default route.
fn gateway_v4(line: &str) -> Option<Ipv4Addr> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |field: usize| u32::from_str_radix(fields.get(field)?, 16).ok();
    let is_default = number(1)? == 0 && number(7)? == 0 && number(3)? & ROUTE_GATEWAY != 0;
    // The bytes of the address as this machine reads them as a number.
    is_default.then_some(Ipv4Addr::from(number(2)?.to_ne_bytes()))
}

/// A line `DESTINATION LENGTH SOURCE LENGTH GATEWAY METRIC REFERENCES USES FLAGS INTERFACE` of a default route.
fn gateway_v6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let is_default = v6_of_hex(fields[0])?.is_unspecified() && fields[1] == "00";
    let gateway = v6_of_hex(fields[4])?;
    (is_default && flags & ROUTE_GATEWAY != 0 && !gateway.is_unspecified()).then_some(gateway)
}

fn v6_of_hex(digits: &str) -> Option<Ipv6Addr> {
    (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from))?
}

/// Addresses whose host route is local: two lines, `|-- ADDRESS` and `/32 host LOCAL`.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
