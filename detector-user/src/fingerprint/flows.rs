//! The client flows of a capture, with the first ClientHello of each.
//!
//! A capture may begin in the midst of a connection and lack any packet. What is missing is never guessed: a ClientHello is
//! whole or it is none.

use std::net::SocketAddr;

use detector_common::{hello::Transport, syn::Syn};

use super::{
    packet::{Content, Segment, Tcp, read},
    tcp::{Connection, Hello, Side},
};
use crate::{
    capture::{CaptureError, Reader},
    quic::{self, Opener},
    recent::{Bounds, Recent},
};

/// TCP connections that are followed at a time.
const BOUNDS: Bounds = Bounds { flows: 65_536, bytes: 256 << 20 };

/// What a client and a server say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The frame that it begins with, from 1.
    pub number: u64,
    /// The client.
    pub source: SocketAddr,
    /// The server.
    pub destination: SocketAddr,
    /// How the ClientHello came; of one without, TCP.
    pub transport: Transport,
    /// The first ClientHello, a handshake message from its type on.
    pub hello: Option<Vec<u8>>,
    /// Whether the segments that carry it came one after the other: each starts where the one before ended, nothing twice.
    /// Of QUIC always false, since its frames have no order.
    pub in_order: bool,
    /// The signature of the client's SYN, if the capture has it.
    pub syn: Option<Syn>,
}

/// Follows flows, frame by frame, and hands each over as soon as nothing more is to come of it.
pub struct Flows<S> {
    connections: Recent<(SocketAddr, SocketAddr), Connection>,
    quic: Opener<(SocketAddr, SocketAddr)>,
    frames: u64,
    sink: S,
}

/// Gives every client flow of a capture to `sink`: those with a ClientHello, and TCP connections without.
///
/// # Errors
///
/// The capture cannot be read to its end.
pub fn follow(capture: &mut Reader, sink: impl FnMut(Flow)) -> Result<(), CaptureError> {
    let mut flows = Flows::new(sink);
    while let Some(frame) = capture.next_frame()? {
        flows.take(&frame.data, frame.captured_bytes);
    }
    flows.end();
    Ok(())
}

impl<S: FnMut(Flow)> Flows<S> {
    /// None yet; `sink` takes them.
    pub fn new(sink: S) -> Self {
        Self { connections: Recent::new(BOUNDS), quic: Opener::new(quic::BOUNDS), frames: 0, sink }
    }

    /// Takes the next frame, of which the first `captured_bytes` are as they were on the wire.
    pub fn take(&mut self, frame: &[u8], captured_bytes: usize) {
        self.frames += 1;
        match read(frame, captured_bytes) {
            Some(Segment { source, destination, content: Content::Tcp(segment) }) => {
                self.take_tcp(source, destination, &segment);
            }
            Some(Segment { source, destination, content: Content::Udp { datagram } }) => {
                self.take_udp(source, destination, datagram);
            }
            None => {}
        }
    }

    /// There are no more frames.
    pub fn end(mut self) {
        while let Some((ends, connection)) = self.connections.pop() {
            self.give_without(ends, connection);
        }
    }

    fn take_tcp(&mut self, source: SocketAddr, destination: SocketAddr, segment: &Tcp<'_>) {
        let (ends, side) = match source <= destination {
            true => ((source, destination), Side::Lower),
            false => ((destination, source), Side::Higher),
        };
        let number = self.frames;
        let (ended, found) = self.connections.with(&ends, |connection| {
            let ended = connection.is_ended_by(segment).then(|| std::mem::take(connection));
            let hello = connection.take(side, segment, number);
            let begun = (connection.number, connection.syn);
            (ended, hello.map(|hello| (hello, begun)))
        });
        if let Some(ended) = ended {
            self.give_without(ends, ended);
        }
        if let Some((Hello { message, in_order }, (number, syn))) = found {
            let hello = Some(message);
            (self.sink)(Flow {
                number,
                source,
                destination,
                transport: Transport::Tcp,
                hello,
                in_order,
                syn,
            });
        }
        while let Some((ends, connection)) = self.connections.excess() {
            self.give_without(ends, connection);
        }
    }

    fn take_udp(&mut self, source: SocketAddr, destination: SocketAddr, datagram: &[u8]) {
        if let Some(quic::Hello { message, number }) =
            self.quic.take((source, destination), datagram, self.frames)
        {
            let (hello, transport) = (Some(message), Transport::Quic);
            (self.sink)(Flow { number, source, destination, transport, hello, in_order: false, syn: None });
        }
    }

    /// Hands over a connection that ends without a ClientHello.
    fn give_without(&mut self, (lower, higher): (SocketAddr, SocketAddr), connection: Connection) {
        if connection.has_hello {
            return;
        }
        let (source, destination) = match connection.client_of(lower.port(), higher.port()) {
            Side::Lower => (lower, higher),
            Side::Higher => (higher, lower),
        };
        let Connection { number, syn, .. } = connection;
        let transport = Transport::Tcp;
        (self.sink)(Flow { number, source, destination, transport, hello: None, in_order: false, syn });
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
