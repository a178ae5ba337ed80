//! A client that talks to a service: connections, handshakes and exchanges, and what an edge node counts of them.
//!
//! What is counted follows the program: SYNs, handshakes and their times of every connection, exchanges and their sizes of one connection
//! in [`crate::Scenario::exchange_sample`] (chosen at random), from its first exchange to its last. `exchanges` of the row is what was
//! counted times the sample: right on average, for one source often 0. Of QUIC only packets, connections and handshakes are known.

use crate::deed::{Connect, Deed, Says, What};
use crate::path::Path;
use crate::random::Stream;
use crate::row::{Row, delay_bin, size_bin};
use crate::rows::Rows;
use crate::source::{Family, Source};

/// Bytes of a full segment; what it takes beside them.
const SEGMENT_BYTES: f64 = 1400.0;

/// Bytes of headers: IPv4 and TCP with timestamps; IPv6 has 20 more.
const HEADER_BYTES: u64 = 52;

/// Packets and bytes of a handshake beside its headers: SYN, acknowledgements, ClientHello, Finished.
const HANDSHAKE_PACKETS: u64 = 5;
const HANDSHAKE_BYTES: u64 = 720;

/// Bytes of an exchange: lognormal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) request: f64,
    pub(crate) request_sigma: f64,
    pub(crate) response: f64,
    pub(crate) response_sigma: f64,
}

impl Sizes {
    /// Those of one client among many: its own medians, `spread` around the population's.
    pub(crate) fn of_one(self, spread: f64, stream: &mut Stream) -> Self {
        Self {
            request: stream.lognormal(self.request, spread),
            response: stream.lognormal(self.response, spread),
            ..self
        }
    }
}

/// Keys of one piece of software on one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint {
    pub(crate) syn_key: u64,
    /// Of its first ClientHello, of one that resumes, and of one with what comes and goes (an extension for the size, early data).
    pub(crate) tls_keys: [u64; 3],
    /// Of its Initials' shape; 0: it does not speak QUIC.
    pub(crate) quic_key: u64,
}

/// Who talks, how, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) service: u16,
    pub(crate) source: Source,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) path: Path,
    pub(crate) sizes: Sizes,
    /// Chance that an exchange takes a new connection.
    pub(crate) reconnect: f64,
    /// Chance that a connection after the first one resumes.
    pub(crate) resume: f64,
    /// Chance that a new connection has another one beside it, which nobody needs.
    pub(crate) spare: f64,
}

/// Of the connections of a client that speaks QUIC.
const QUIC: f64 = 0.5;

/// Of handshakes, those with the third variant.
const ODD: f64 = 0.06;

/// Of connections, those whose ClientHello cannot be read: their key stays 0, and there is no handshake.
const UNREAD: f64 = 0.01;

/// Of connections that nobody needs, those on which no ClientHello is sent.
const MUTE: f64 = 0.12;

/// A client, and the connection that it has.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) client: Client,
    pub(crate) stream: Stream,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// See [`Deed::connection`].
    number: u64,
    syn_key: u64,
    tls_key: u64,
    /// Its exchanges are counted.
    is_followed: bool,
}

impl Conversation {
    pub(crate) const fn new(client: Client, stream: Stream) -> Self {
        Self { client, stream, connection: None }
    }

    /// So many exchanges in this epoch.
    pub(crate) fn talk(&mut self, exchanges: u32, rows: &mut Rows) {
        for _ in 0..exchanges {
            let connection = match self.connection {
                Some(connection) if !self.stream.chance(self.client.reconnect) => connection,
                _ => self.open(rows),
            };
            self.exchange(connection, rows);
        }
    }

    /// It has nothing more to say: whoever meets its packets sees the end of its connection.
    pub(crate) fn end(&self, rows: &mut Rows) {
        if let Some(connection) = self.connection {
            self.tell(connection.number, rows, || What::End);
        }
    }

    fn tell(&self, connection: u64, rows: &mut Rows, what: impl FnOnce() -> What) {
        let Client { service, source, .. } = self.client;
        if let Some(deeds) = &mut rows.deeds {
            deeds.push(Deed { service, source, connection, what: what() });
        }
    }

    fn open(&mut self, rows: &mut Rows) -> Connection {
        let has_spare = self.client.spare > 0.0 && self.stream.chance(self.client.spare);
        self.end(rows);
        let connection = self.connect(0.0, rows);
        self.connection = Some(connection);
        if has_spare {
            self.connect(MUTE, rows);
        }
        connection
    }

    /// `mute`: chance that no ClientHello is sent.
    fn connect(&mut self, mute: f64, rows: &mut Rows) -> Connection {
        let Client { service, source, fingerprint, path, .. } = self.client;
        let number = rows.number_connection();
        let stream = &mut self.stream;
        if fingerprint.quic_key != 0 && self.connection.is_some() && stream.chance(QUIC) {
            let row = rows.at(service, source, 0, fingerprint.quic_key);
            row.connections += 1;
            row.handshakes += 1;
            send(row, HANDSHAKE_PACKETS, 2 * 1200 + 200);
            let quic_key = fingerprint.quic_key;
            self.tell(number, rows, || What::ConnectQuic { key: quic_key });
            return Connection { number, syn_key: 0, tls_key: quic_key, is_followed: false };
        }
        let luck = stream.unit();
        let variant = match self.connection {
            _ if luck < ODD => 2,
            Some(_) if luck < ODD + (1.0 - ODD) * self.client.resume => 1,
            _ => 0,
        };
        let delays = path.handshake(stream);
        let is_followed = rows.exchange_sample == 1 || stream.below(u64::from(rows.exchange_sample)) == 0;
        let is_unread = stream.chance(UNREAD + mute);
        let tls_key = if is_unread { 0 } else { fingerprint.tls_keys[variant] };
        let row = rows.at(service, source, fingerprint.syn_key, tls_key);
        row.connections += 1;
        row.rtt[delay_bin(delays.rtt)] += 1;
        send(row, HANDSHAKE_PACKETS, HANDSHAKE_BYTES);
        if !is_unread {
            row.handshakes += 1;
            row.hello_gap[delay_bin(delays.hello_gap)] += 1;
            row.finish_gap[delay_bin(delays.finish_gap)] += 1;
        }
        let says = match is_unread {
            false => Says::Hello,
            true if mute > 0.0 => Says::Nothing,
            true => Says::Unreadable,
        };
        let (syn_key, variant_key) = (fingerprint.syn_key, fingerprint.tls_keys[variant]);
        self.tell(number, rows, || What::Connect(Connect { syn_key, tls_key: variant_key, says, delays }));
        Connection { number, syn_key, tls_key, is_followed }
    }

    fn exchange(&mut self, connection: Connection, rows: &mut Rows) {
        let Client { service, source, sizes, .. } = self.client;
        let request = self.stream.lognormal(sizes.request, sizes.request_sigma).clamp(80.0, 2e7);
        let response = self.stream.lognormal(sizes.response, sizes.response_sigma).clamp(40.0, 1e9);
        let sample = rows.exchange_sample;
        let row = rows.at(service, source, connection.syn_key, connection.tls_key);
        let acknowledgements = response / (2.0 * SEGMENT_BYTES);
        send(row, 2 + (request / SEGMENT_BYTES) as u64 + acknowledgements as u64, request as u64);
        if connection.is_followed {
            row.exchanges += sample;
            row.request_sizes[size_bin(request)] += 1;
            row.response_sizes[size_bin(response)] += 1;
        }
        self.tell(connection.number, rows, || What::Exchange {
            request_bytes: request as u32,
            response_bytes: response as u32,
        });
    }
}

/// Counts packets, and their headers with the bytes in them.
fn send(row: &mut Row, packets: u64, bytes: u64) {
    let header = if row.source.family == Family::V4 { HEADER_BYTES } else { HEADER_BYTES + 20 };
    row.packets += packets;
    row.bytes += bytes + packets * header;
}
