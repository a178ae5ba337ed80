//! A client's side of a connection.

use detector_common::verdict::Reason;

use crate::{
    packet::{Packet, flags, tcp},
    rows::Rig,
};

/// Where it connects to over IPv4.
pub const SERVER: &str = "192.0.2.1:443";
/// The round trip to the client, ns.
pub const ROUND_TRIP_NS: u64 = 20_000_000;

/// A client's side of a connection.
#[derive(Debug)]
pub struct Client {
    /// Address and port.
    pub source: String,
    /// Number of its next byte.
    pub sequence: u32,
    /// Number of the next byte that it expects.
    pub acknowledged: u32,
}

impl Client {
    /// One that connects from an address and port, to [`SERVER`] or over IPv6 to its like.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), sequence: u32::MAX - 700, acknowledged: u32::MAX - 900 }
    }

    /// A segment without content at the next byte.
    pub fn packet(&self, flags: u8) -> Packet {
        let server = if self.source.starts_with('[') { "[2001:db8::1]:443" } else { SERVER };
        let acknowledged = if flags & flags::ACK != 0 { self.acknowledged } else { 0 };
        tcp(&self.source, server, flags).sequence(self.sequence).acknowledged(acknowledged)
    }

    /// Its SYN.
    pub fn syn(&self) -> Packet {
        self.packet(flags::SYN).tcp_options(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7])
    }

    /// SYN and the answer to the server's.
    pub fn connect(&mut self, rig: &mut Rig) -> u64 {
        let key = rig.send(&self.syn().frame()).trace.syn_key;
        self.sequence = self.sequence.wrapping_add(1);
        rig.advance(ROUND_TRIP_NS);
        self.send(rig, &[]);
        key
    }

    /// The next bytes of the stream. The key of the ClientHello that they complete.
    pub fn send(&mut self, rig: &mut Rig, bytes: &[u8]) -> u64 {
        let key = self.send_at(rig, 0, bytes);
        self.sequence = self.sequence.wrapping_add(bytes.len() as u32);
        key
    }

    /// Bytes that stand so far behind the next ones.
    pub fn send_at(&self, rig: &mut Rig, offset: i32, bytes: &[u8]) -> u64 {
        rig.send(&self.segment(offset, bytes)).trace.tls_key
    }

    /// Sends bytes that stand so far behind the next ones: what is decided of the segment.
    pub fn reason(&self, rig: &mut Rig, offset: i32, bytes: &[u8]) -> Reason {
        rig.reason(&self.segment(offset, bytes))
    }

    /// Acknowledges so many bytes more of the server's.
    pub fn acknowledge(&mut self, rig: &mut Rig, bytes: u32) {
        self.acknowledged = self.acknowledged.wrapping_add(bytes);
        self.send(rig, &[]);
    }

    /// Ends the connection.
    pub fn end(&self, rig: &mut Rig) {
        rig.send(&self.packet(flags::FIN | flags::ACK).frame());
    }

    /// A segment with bytes that stand so far behind the next ones.
    pub fn segment(&self, offset: i32, bytes: &[u8]) -> Vec<u8> {
        let packet = self.packet(flags::ACK).sequence(self.sequence.wrapping_add_signed(offset));
        packet.content(bytes).frame().to_vec()
    }

    /// Connections of its source that are in their handshake.
    ///
    /// # Panics
    ///
    /// The source has no entry.
    pub fn pending(&self, rig: &Rig) -> u32 {
        let address = self.source.rsplit_once(':').expect("a port").0;
        let address = address.trim_matches(['[', ']']);
        rig.entry(address, "web").expect("an entry").meta().pending()
    }
}
