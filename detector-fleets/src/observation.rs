//! Rows: what one client of a source did at a service in one epoch.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    limits::{SIZE_BINS, TIME_BINS},
    source::Source,
};

/// A service, by its place in [`Services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u16);

/// The services of observations, each with a number.
#[derive(Clone, Debug, Default)]
pub struct Services {
    names: Vec<String>,
    numbers: HashMap<String, ServiceId>,
}

impl Services {
    /// The number of a service, which is given one where it has none. `None`: 65,536 have one already.
    pub fn number(&mut self, name: &str) -> Option<ServiceId> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let number = ServiceId(u16::try_from(self.names.len()).ok()?);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// The names, in the order of their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a service; empty for a number that none has.
    pub fn name(&self, number: ServiceId) -> &str {
        self.names.get(usize::from(number.0)).map_or("", String::as_str)
    }
}

impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut services = Self::default();
        for name in Vec::<String>::deserialize(deserializer)? {
            services.number(&name);
        }
        Ok(services)
    }
}

/// Which software and which system a client seems to be: its fingerprints, at a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind {
    /// Where it is a client.
    pub service: ServiceId,
    /// Key of its SYN; 0: unknown, also over QUIC.
    pub syn_key: u64,
    /// Key of its ClientHello, over QUIC of the shape of its first Initial; 0: unknown.
    pub tls_key: u64,
}

/// Packets that a connection brings at least, over QUIC or while it goes on, if there is somebody who gets the answers.
const PACKETS_OF_CONVERSATION: u64 = 4;

/// One row of a recording: who was active in an epoch. Counts are those of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Start of the epoch, seconds since the Unix epoch.
    pub time_s: u64,
    /// Its length.
    pub span_s: u32,
    /// Who was active.
    pub source: Source,
    /// As what.
    pub kind: Kind,
    /// Packets that came.
    pub packets: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Those of the packets that were refused, also where that is only counted and they pass (shadow).
    pub dropped_packets: u64,
    /// SYNs of new connections, and over QUIC first Initials.
    pub connections: u32,
    /// ClientHellos, or first Initials.
    pub handshakes: u32,
    /// Requests with their responses.
    pub exchanges: u32,
    /// Exchanges by the bytes of their requests.
    pub request_sizes: [u32; SIZE_BINS],
    /// … of their responses.
    pub response_sizes: [u32; SIZE_BINS],
    /// Connections by the time from the SYN to the first answer to the server's.
    pub rtt: [u32; TIME_BINS],
    /// … from that to the end of the ClientHello.
    pub hello_gap: [u32; TIME_BINS],
    /// … from the ClientHello to what the client says next.
    pub finish_gap: [u32; TIME_BINS],
}

impl Observation {
    /// Whether most of what came was refused.
    pub const fn is_refused(&self) -> bool {
        self.dropped_packets > self.packets / 2
    }

    /// Whether nothing came that takes more than a packet or two, which can be sent under any address: no ClientHello over TCP, no answer that was
    /// timed, no exchange that was followed, and fewer packets than a conversation has.
    pub fn is_bare(&self) -> bool {
        let is_greeted = self.kind.syn_key != 0 && self.handshakes > 0;
        let is_short = self.packets < PACKETS_OF_CONVERSATION * u64::from(self.connections.max(1));
        is_short && !is_greeted && self.exchanges == 0 && self.rtt.iter().all(|&count| count == 0)
    }
}
