//! What is done as packets, as they meet the edge: those of clients, since servers answer another way.
//!
//! A connection has its SYN, the answer to the server's, a ClientHello, the end of the handshake, requests in segments, acknowledgements of
//! responses, and an end; with the keys, times and sizes of its deeds. When exactly something is done within its epoch no row tells, so a
//! number that belongs to the connection says it. A client whose packet is dropped sends it again, three times in all, then gives the
//! connection up with all that was to be done on it. The services stand behind one address of each family, see [`server`].
//!
//! | question | module |
//! |---|---|
//! | what does software look like? | `shape` |
//! | what does a client send, one after the other? | `talk` |
//! | how is that a frame? | `frame` |
//! | how is it a file? | [`pcap`] |
//! | how is a part of a recording a file, and what is true of it? | [`capture`] |

pub mod capture;
mod frame;
pub mod pcap;
mod shape;
mod talk;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Scenario;
use crate::deed::{Connect, Deed, Says, What};
use crate::random::Key;
use crate::source::{Family, Source};

use frame::Ends;
use talk::{Ended, Talk};

const SECOND_NS: u64 = 1_000_000_000;

/// Where a service is, by its index in the scenario: 203.0.113.1 is the first one, and 2001:db8:ff00::1.
pub fn server(service: u16, family: Family) -> IpAddr {
    let number = service + 1;
    match family {
        Family::V4 => Ipv4Addr::from_bits(0xcb00_7100 + u32::from(number)).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xff00, 0, 0, 0, 0, number).into(),
    }
}

/// The address of a client: of an IPv6 /64, one of its hosts.
pub fn address(source: Source) -> IpAddr {
    match source.family {
        Family::V4 => Ipv4Addr::from_bits(source.address as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(source.address | 0x1d).into(),
    }
}

/// An exchange that was made, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Index of the service in the scenario.
    pub service: u16,
    /// Whose it was.
    pub source: Source,
    /// All of it passed in the end.
    pub is_done: bool,
    /// A packet of it, or of the handshake before it, was dropped; it may have been sent again.
    pub is_hurt: bool,
}

/// What a client of a service is at.
#[derive(Debug)]
struct Client {
    service: u16,
    source: Source,
    talk: Talk,
    is_queued: bool,
}

/// Clients that send their packets in the order of time.
#[derive(Debug)]
pub struct Player {
    names: Vec<String>,
    clients: HashMap<u64, Client>,
    /// How connections began that nobody has seen a packet of.
    before: HashMap<u64, What>,
    /// (when, of which connection), the earliest first.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    outcomes: Vec<Outcome>,
    payload: Vec<u8>,
}

impl Player {
    /// Of a scenario's services.
    pub fn new(scenario: &Scenario) -> Self {
        let names = scenario.service.iter().map(|service| format!("{}.example", service.name)).collect();
        // Application data, as far as anybody can see.
        let payload = [&[23, 3, 3, 5, 0xe0][..], &[0x5a; 1400]].concat();
        let (clients, before) = (HashMap::new(), HashMap::new());
        Self { names, clients, before, queue: BinaryHeap::new(), outcomes: Vec::new(), payload }
    }

    /// Takes note of what is done before packets are looked at: a connection that goes on then begins anew.
    pub fn skip(&mut self, deeds: &[Deed]) {
        for deed in deeds {
            match deed.what {
                // On which nothing will be said.
                What::Connect(Connect { says: Says::Nothing, .. }) | What::Exchange { .. } => {}
                What::Connect(_) | What::ConnectQuic { .. } => {
                    self.before.insert(deed.connection, deed.what);
                }
                What::End => {
                    self.before.remove(&deed.connection);
                }
            }
        }
    }

    /// Takes what is done in an epoch. What was to be done earlier is played before.
    pub fn add(&mut self, time_s: u64, span_s: u32, deeds: &[Deed]) {
        let is_of_one = |one: &Deed, other: &Deed| (one.service, one.source) == (other.service, other.source);
        for deeds in deeds.chunk_by(is_of_one) {
            let Some(first) = deeds.first() else { continue };
            // What somebody does is spread over what is left of the epoch when they begin.
            let span_ns = u64::from(span_s) * SECOND_NS;
            let begins_ns = (Key::root(first.connection).at(time_s).unit() * 0.6 * span_ns as f64) as u64;
            let each_ns = (span_ns * 95 / 100 - begins_ns) / deeds.len() as u64;
            for (place, deed) in (0..).zip(deeds) {
                self.take(deed, time_s * SECOND_NS + begins_ns + place * each_ns);
            }
        }
    }

    fn take(&mut self, deed: &Deed, at_ns: u64) {
        let Deed { service, source, connection, what } = *deed;
        let ends = Ends {
            client: address(source),
            client_port: 1024 + (connection % 64_512) as u16,
            server: server(service, source.family),
            hops: 57,
        };
        let name = self.names.get(usize::from(service)).map_or("", String::as_str);
        let began = self.before.remove(&connection).unwrap_or(what);
        let client = match self.clients.entry(connection) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Nobody has seen it, and nobody will.
            Entry::Vacant(_) if what == What::End => return,
            Entry::Vacant(entry) => {
                let talk = match &began {
                    What::Connect(connect) => Talk::tcp(ends, connection, connect, name, at_ns),
                    What::ConnectQuic { key } => Talk::quic(ends, connection, *key, at_ns),
                    What::Exchange { .. } | What::End => Talk::known(ends, connection),
                };
                entry.insert(Client { service, source, talk, is_queued: false })
            }
        };
        if let Some(Ended { is_done, is_hurt }) = client.talk.add(&what, at_ns) {
            self.outcomes.push(Outcome { service, source, is_done, is_hurt });
        }
        self.go_on(connection);
    }

    /// Sends all packets of before a time, ns since 1970. `edge` is told when, and the frame; it says whether that passes.
    pub fn play(&mut self, until_ns: u64, mut edge: impl FnMut(u64, &[u8]) -> bool) {
        while let Some(&Reverse((at_ns, connection))) = self.queue.peek()
            && at_ns < until_ns
        {
            self.queue.pop();
            let Some(client) = self.clients.get_mut(&connection) else { continue };
            client.is_queued = false;
            if let Some(frame) = client.talk.frame(&self.payload) {
                let has_passed = edge(at_ns, &frame);
                let (service, source) = (client.service, client.source);
                client.talk.sent(at_ns, has_passed, |Ended { is_done, is_hurt }| {
                    self.outcomes.push(Outcome { service, source, is_done, is_hurt });
                });
            }
            self.go_on(connection);
        }
    }

    /// Puts a connection in the queue if it has a packet to send, and forgets it where it has ended.
    fn go_on(&mut self, connection: u64) {
        let Entry::Occupied(mut entry) = self.clients.entry(connection) else { return };
        let client = entry.get_mut();
        match client.talk.next_ns() {
            _ if client.is_queued => {}
            Some(at_ns) => {
                client.is_queued = true;
                self.queue.push(Reverse((at_ns, connection)));
            }
            None if client.talk.has_ended() => drop(entry.remove()),
            None => {}
        }
    }

    /// The exchanges that ended since this was asked last.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }
}
