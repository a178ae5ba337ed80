//! Rows of one epoch, from what was counted in each look of it.

use std::collections::{HashMap, hash_map::Entry};

use detector_common::{address::Address, limits::EXCHANGE_SAMPLE};
use detector_fleets::{
    limits::{SIZE_BINS, TIME_BINS},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};

use crate::{kernel::read::Client, traffic::Flow};

/// Rows of an epoch, and as many sources with traffic, 100 MB at the most: a flood of made-up addresses brings millions a minute.
pub const ROWS_MAX: usize = 1 << 18;

/// A source at a service.
type Place = (ServiceId, Source);

/// The fingerprints of a client.
type Keys = (u64, u64);

/// What a source sent, whoever it is.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    packets: u64,
    bytes: u64,
    dropped_packets: u64,
    connections: u32,
}

/// An epoch that is going on.
#[derive(Debug)]
pub struct Epoch {
    start_s: u64,
    span_s: u32,
    sent: HashMap<Place, Sent>,
    rows: HashMap<(Place, Keys), Observation>,
    lost: u64,
}

impl Epoch {
    /// The epoch of so many seconds that a time is in, seconds since the Unix epoch.
    pub fn at(time_s: u64, span_s: u32) -> Self {
        let start_s = time_s - time_s % u64::from(span_s.max(1));
        Self { start_s, span_s, sent: HashMap::new(), rows: HashMap::new(), lost: 0 }
    }

    /// Whether a time is in another epoch. One before this is none: a clock that was set back brings no epoch twice.
    pub const fn is_over(&self, time_s: u64) -> bool {
        time_s >= self.start_s + self.span_s as u64
    }

    /// When it began, seconds since the Unix epoch.
    pub const fn start_s(&self) -> u64 {
        self.start_s
    }

    /// Sources and clients that found no room, each look anew.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds what a source sent since the last look.
    pub fn add_flow(&mut self, flow: &Flow) {
        let Some(source) = source_of(flow.source) else { return };
        let is_full = self.sent.len() >= ROWS_MAX;
        let sent = match self.sent.entry((ServiceId(flow.service), source)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.lost += 1;
                return;
            }
            Entry::Vacant(entry) => entry.insert(Sent::default()),
        };
        sent.packets += u64::from(flow.packets);
        sent.bytes += u64::from(flow.bytes);
        sent.dropped_packets += u64::from(flow.refused);
        sent.connections = sent.connections.saturating_add(flow.connections);
    }

    /// Adds what a client did since the last look.
    pub fn add_client(&mut self, client: &Client) {
        let Some(source) = source_of(client.source) else { return };
        let place = (ServiceId(client.service), source);
        let keys = (client.counts.syn_key, client.counts.tls_key);
        let is_full = self.rows.len() >= ROWS_MAX;
        let empty = self.empty(place, keys);
        let row = match self.rows.entry((place, keys)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.lost += 1;
                return;
            }
            Entry::Vacant(entry) => entry.insert(empty),
        };
        let counts = &client.counts;
        row.handshakes = row.handshakes.saturating_add(client.handshakes);
        // Over QUIC each is a connection. So is that of a client whose SYN was not seen: such a connection may be counted among those of its
        // source once more.
        row.connections =
            row.connections.saturating_add(client.handshakes).saturating_add(client.connections);
        // Of a sample of the connections all are counted.
        row.exchanges = row.exchanges.saturating_add(counts.exchanges.saturating_mul(EXCHANGE_SAMPLE as u32));
        add(&mut row.request_sizes, &counts.request_sizes);
        add(&mut row.response_sizes, &counts.response_sizes);
        add(&mut row.rtt, &counts.round_trip);
        add(&mut row.hello_gap, &counts.hello_delay);
        add(&mut row.finish_gap, &counts.finish_delay);
    }

    /// The epoch is over: its rows, by service, source and keys.
    ///
    /// What a source sent is told of one of its clients, since the program counts packets by source: of the one with the most handshakes
    /// in this epoch. Where there was none, of the one that `latest` was: connections outlive epochs.
    pub fn rows(mut self, latest: impl Iterator<Item = Client>) -> Vec<Observation> {
        let mut owners: HashMap<Place, (u32, Keys)> = HashMap::new();
        let mut connections: HashMap<Place, u32> = HashMap::new();
        for ((place, keys), row) in &self.rows {
            let owner = owners.entry(*place).or_insert((row.handshakes, *keys));
            *owner = (*owner).max((row.handshakes, *keys));
            if row.kind.syn_key != 0 {
                let sum = connections.entry(*place).or_default();
                *sum = sum.saturating_add(row.connections);
            }
        }
        let mut seen_last: HashMap<Place, (u64, Keys)> = HashMap::new();
        for client in latest {
            let Some(source) = source_of(client.source) else { continue };
            let seen = (client.last_ns, (client.counts.syn_key, client.counts.tls_key));
            let last = seen_last.entry((ServiceId(client.service), source)).or_insert(seen);
            *last = (*last).max(seen);
        }
        for (place, sent) in std::mem::take(&mut self.sent) {
            let of_epoch = owners.get(&place).map(|(_, keys)| *keys);
            let keys = of_epoch.or_else(|| seen_last.get(&place).map(|(_, keys)| *keys)).unwrap_or_default();
            let empty = self.empty(place, keys);
            let row = self.rows.entry((place, keys)).or_insert(empty);
            row.packets = sent.packets;
            row.bytes = sent.bytes;
            row.dropped_packets = sent.dropped_packets;
            let told = connections.get(&place).copied().unwrap_or(0);
            row.connections = row.connections.saturating_add(sent.connections.saturating_sub(told));
        }
        let mut rows: Vec<_> = self.rows.into_values().collect();
        rows.sort_unstable_by_key(|row| (row.kind.service, row.source, row.kind));
        rows
    }

    fn empty(&self, (service, source): Place, (syn_key, tls_key): Keys) -> Observation {
        Observation {
            time_s: self.start_s,
            span_s: self.span_s,
            source,
            kind: Kind { service, syn_key, tls_key },
            packets: 0,
            bytes: 0,
            dropped_packets: 0,
            connections: 0,
            handshakes: 0,
            exchanges: 0,
            request_sizes: [0; SIZE_BINS],
            response_sizes: [0; SIZE_BINS],
            rtt: [0; TIME_BINS],
            hello_gap: [0; TIME_BINS],
            finish_gap: [0; TIME_BINS],
        }
    }
}

/// `None`: an address of `::/32`, which is nobody's.
fn source_of(address: Address) -> Option<Source> {
    match address.to_ip() {
        std::net::IpAddr::V4(address) => Some(Source::of_v4(address)),
        std::net::IpAddr::V6(address) => Source::of_v6(address),
    }
}

fn add<const BINS: usize>(sums: &mut [u32; BINS], counts: &[u16; BINS]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(u32::from(*count)));
}

#[cfg(test)]
mod tests {
    use detector_common::{address::Family, client::Client as Counts, table::Unit};

    use super::*;

    const START_S: u64 = 1_763_816_400;

    fn flow(source: u8, packets: u32, connections: u32) -> Flow {
        let source = Address::v4([198, 51, 100, source]);
        Flow { source, service: 3, packets, bytes: packets * 100, connections, refused: packets / 10 }
    }

    fn client(source: u8, (syn_key, tls_key): Keys, handshakes: u32, last_ns: u64) -> Client {
        let counts = Counts {
            key: 1,
            source: 0,
            tag: 0,
            syn_key,
            tls_key,
            followed: 1,
            segments: 10,
            exchanges: 2,
            reserved: 0,
            round_trip: [1; _],
            hello_delay: [0; _],
            finish_delay: [0; _],
            request_sizes: [3; _],
            response_sizes: [0; _],
        };
        let source = Address {
            family: Family::V4,
            high: u64::from(u32::from_be_bytes([198, 51, 100, source])) << 32,
            low: 0,
        };
        let unit = Unit::V4Source;
        Client { way: 0, life: 0, source, unit, service: 3, connections: 1, handshakes, last_ns, counts }
    }

    /// Keys, packets, connections and handshakes of each row.
    fn told(rows: &[Observation]) -> Vec<(Keys, u64, u32, u32)> {
        rows.iter()
            .map(|row| ((row.kind.syn_key, row.kind.tls_key), row.packets, row.connections, row.handshakes))
            .collect()
    }

    #[test]
    fn looks_add_up_and_packets_are_those_of_the_client_with_the_most_handshakes() {
        let mut epoch = Epoch::at(START_S + 59, 60);
        assert!(!epoch.is_over(START_S + 59) && epoch.is_over(START_S + 60) && !epoch.is_over(START_S - 60));
        for _ in 0..2 {
            epoch.add_flow(&flow(7, 50, 6));
            epoch.add_client(&client(7, (1, 10), 1, 0));
            epoch.add_client(&client(7, (1, 20), 2, 0));
        }
        let rows = epoch.rows(std::iter::empty());
        // Of twelve connections ten are told with their handshakes or what came instead of one.
        assert_eq!(told(&rows), [((1, 10), 0, 4, 2), ((1, 20), 100, 8, 4)]);
        let row = &rows[1];
        assert_eq!((row.time_s, row.span_s, row.bytes, row.dropped_packets), (START_S, 60, 10_000, 10));
        assert_eq!(
            (row.exchanges, row.request_sizes, row.rtt, row.hello_gap),
            (4 * 8, [6; _], [2; _], [0; _])
        );
        assert_eq!(row.source.to_string(), "198.51.100.7/32");
    }

    #[test]
    fn packets_of_a_connection_that_began_earlier_are_those_of_the_client_that_was_seen_last() {
        let mut epoch = Epoch::at(START_S, 60);
        [7, 8].into_iter().for_each(|source| epoch.add_flow(&flow(source, 50, 0)));
        let latest = [client(7, (1, 10), 1, 5), client(7, (1, 20), 9, 4)];
        let rows = epoch.rows(latest.into_iter());
        assert_eq!(told(&rows), [((1, 10), 50, 0, 0), ((0, 0), 50, 0, 0)], "nobody knows the other");
    }

    #[test]
    fn over_quic_first_packets_are_connections_beside_those_of_tcp() {
        let mut epoch = Epoch::at(START_S, 60);
        let over_quic = Client { connections: 0, ..client(7, (0, 10), 3, 0) };
        epoch.add_client(&over_quic);
        epoch.add_client(&client(7, (1, 20), 2, 0));
        epoch.add_flow(&flow(7, 50, 4));
        let rows = epoch.rows(std::iter::empty());
        assert_eq!(
            told(&rows),
            [((0, 10), 50, 4, 3), ((1, 20), 0, 3, 2)],
            "one of four SYNs is followed by nothing"
        );
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_told() {
        let mut epoch = Epoch::at(START_S, 60);
        for number in 0..ROWS_MAX as u32 + 5 {
            epoch.add_flow(&Flow { source: Address::v4(number.to_be_bytes()), ..flow(0, 1, 0) });
        }
        assert_eq!(epoch.lost(), 5);
        assert_eq!(epoch.rows(std::iter::empty()).len(), ROWS_MAX);
    }
}
