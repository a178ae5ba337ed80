//! The first datagrams of connections over QUIC, as exemplars: opened, and put together to ClientHellos. And what is known of the
//! clients behind a shape of Initials.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
};

use detector_common::{
    fingerprint::{ExemplarHeader, Kind, Name, ja4_bytes, ja4_text},
    ja4::Ja4,
    limits::{FINGERPRINTS, INITIAL_NS_MAX},
};
use lru::LruCache;

use crate::{
    kernel::exemplar::Exemplar,
    quic::Client,
    recent::{Bounds, Held, Recent},
};

/// Connections that are put together at a time, and bytes that they hold.
const BOUNDS: Bounds = Bounds { flows: 1024, bytes: 8 << 20 };

/// Shapes whose clients are remembered, each at a service.
const SHAPES_MAX: NonZeroUsize = NonZeroUsize::new(FINGERPRINTS).expect("some");

/// Clients of one shape that are remembered.
const CLIENTS_MAX: usize = 64;

/// What became of connections, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whose ClientHello was put together.
    pub(super) opened: AtomicU64,
    /// That opened, and whose ClientHello was not whole in time, or is none.
    pub(super) incomplete: AtomicU64,
    /// That no key opens.
    pub(super) unopened: AtomicU64,
}

/// Between which ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ends {
    source: [u64; 2],
    destination: [u64; 2],
    ports: [u16; 2],
}

impl Ends {
    fn of(header: &ExemplarHeader) -> Self {
        let ExemplarHeader { source, destination, source_port, destination_port, .. } = *header;
        Self { source, destination, ports: [source_port, destination_port] }
    }
}

/// A connection as far as its datagrams have come.
#[derive(Default)]
struct Connection {
    client: Client,
    /// When its last datagram came, kernel time.
    last_ns: u64,
    has_hello: bool,
}

impl Held for Connection {
    fn held_bytes(&self) -> usize {
        self.client.held_bytes()
    }
}

impl Connection {
    /// Whether the program, too, has forgotten it.
    fn is_over(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) > INITIAL_NS_MAX
    }

    fn end(&self, counts: &Counts) {
        if self.has_hello {
            return;
        }
        let count = if self.client.has_opened() { &counts.incomplete } else { &counts.unopened };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections that are being put together.
pub(super) struct Initials {
    connections: Recent<Ends, Connection>,
}

impl Initials {
    pub(super) fn new() -> Self {
        Self { connections: Recent::new(BOUNDS) }
    }

    /// Takes a datagram, and gives the ClientHello that it completes.
    pub(super) fn take(&mut self, exemplar: &Exemplar, counts: &Counts) -> Option<Vec<u8>> {
        let now_ns = exemplar.header.time_ns;
        // What is over stands first, and what begins between the same ports is another connection.
        self.end_idle(now_ns, counts);
        let hello = self.connections.with(&Ends::of(&exemplar.header), |connection| {
            connection.last_ns = connection.last_ns.max(now_ns);
            let hello = connection.client.take(&exemplar.bytes, 1)?;
            connection.has_hello = true;
            Some(hello.message)
        });
        while let Some((_, connection)) = self.connections.excess() {
            connection.end(counts);
        }
        if hello.is_some() {
            counts.opened.fetch_add(1, Ordering::Relaxed);
        }
        hello
    }

    /// Ends connections that nothing more is expected of.
    pub(super) fn end_idle(&mut self, now_ns: u64, counts: &Counts) {
        while let Some((_, connection)) = self.connections.pop_if(|connection| connection.is_over(now_ns)) {
            connection.end(counts);
        }
    }
}

/// Stable JA4s behind shapes, each at a service.
pub(super) struct Shapes {
    clients: LruCache<(u16, u64), Vec<String>>,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self { clients: LruCache::new(SHAPES_MAX) }
    }

    /// Notes a client of a shape, whose name was `before`: its name now, and whether the client is new there. Of the clients that
    /// another daemon has seen, only the last one is known and how many there were.
    pub(super) fn note(&mut self, header: &ExemplarHeader, ja4: &Ja4, before: Option<&Name>) -> (Name, bool) {
        let known = self.clients.get_or_insert_mut((header.service, header.key), Vec::new);
        match before.and_then(|name| ja4_text(&name.stable_ja4)) {
            // The shape has gone meanwhile, and has come again.
            None => known.clear(),
            Some(last) if known.is_empty() => known.push(last.to_owned()),
            Some(_) => {}
        }
        let stable = ja4.stable().to_string();
        let is_new = !known.contains(&stable);
        if is_new {
            if known.len() == CLIENTS_MAX {
                known.remove(0);
            }
            known.push(stable.clone());
        }
        let clients = u16::try_from(known.len()).unwrap_or(u16::MAX);
        let name = Name {
            key: header.key,
            stable_ja4: ja4_bytes(&stable),
            ja4: ja4_bytes(&ja4.to_string()),
            kind: Kind::Initial as u8,
            clients: clients.max(before.map_or(0, |name| name.clients)),
            ..Name::NONE
        };
        (name, is_new)
    }
}

#[cfg(test)]
#[path = "initials_tests.rs"]
mod tests;
