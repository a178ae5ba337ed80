//! One client of QUIC, as far as its ClientHello.

use detector_common::client_hello::{CLIENT_HELLO, ClientHello, HEADER_BYTES};

use super::{Hello, frames, keys::Keys, packet::initials};
use crate::{
    assembly::{Assembly, Bounds},
    recent::Held,
};

/// What is kept of one attempt: a ClientHello, in as many pieces as clients make of it to be shuffled.
const BOUNDS: Bounds = Bounds { bytes: 32 * 1024, runs: 256 };

/// Connections that are followed between the same two ports: one that a Retry ends, one that it begins. Or a client that comes
/// again from the same port.
const ATTEMPTS_MAX: usize = 3;

/// Packets of a flow that are tried with keys before it is given up: those of a ClientHello of the largest size, and as many
/// again.
const PACKETS_MAX: u32 = 64;

/// What is known of a client, as far as its ClientHello.
#[derive(Default)]
pub struct Client {
    attempts: Vec<Attempt>,
    packets: u32,
    number: Option<u64>,
    /// Nothing more is expected of it.
    is_done: bool,
}

/// What was sent under the keys of one connection id.
struct Attempt {
    keys: Keys,
    largest: Option<u64>,
    crypto: Assembly,
}

impl Held for Client {
    fn held_bytes(&self) -> usize {
        self.attempts.iter().map(|attempt| size_of::<Attempt>() + attempt.crypto.held_bytes()).sum()
    }
}

impl Client {
    /// Takes a datagram, and gives the ClientHello that it completes. The number says which datagram it is.
    pub fn take(&mut self, datagram: &[u8], number: u64) -> Option<Hello> {
        for initial in initials(datagram) {
            if self.is_done {
                return None;
            }
            self.packets += 1;
            self.is_done = self.packets > PACKETS_MAX;
            // A client goes over to the connection id that the server chose, and keeps its keys.
            let known = self.attempts.iter_mut().find_map(|attempt| {
                initial.open(&attempt.keys, attempt.largest).map(|opened| (attempt, opened))
            });
            let (attempt, (packet_number, payload)) = match known {
                Some(opened) => opened,
                None => {
                    let Some(keys) = Keys::of_client(&initial.version, initial.destination_id) else {
                        continue;
                    };
                    let Some(opened) = initial.open(&keys, None) else { continue };
                    if self.attempts.len() == ATTEMPTS_MAX {
                        self.attempts.remove(0);
                    }
                    self.attempts.push(Attempt { keys, largest: None, crypto: Assembly::default() });
                    let Some(attempt) = self.attempts.last_mut() else { continue };
                    (attempt, opened)
                }
            };
            let number = *self.number.get_or_insert(number);
            attempt.largest = attempt.largest.max(Some(packet_number));
            frames::crypto(&payload, |offset, bytes| {
                attempt.crypto.insert(usize::try_from(offset).unwrap_or(usize::MAX), bytes, BOUNDS);
            });
            match first_message(attempt.crypto.start()) {
                First::Incomplete => {}
                First::ClientHello(message) => {
                    let message = message.to_vec();
                    self.end();
                    return Some(Hello { message, number });
                }
                First::Other => self.end(),
            }
        }
        if self.is_done {
            self.end();
        }
        None
    }

    /// Whether any of its packets opened.
    pub fn has_opened(&self) -> bool {
        self.number.is_some()
    }

    fn end(&mut self) {
        self.is_done = true;
        self.attempts = Vec::new();
    }
}

/// What the CRYPTO frames start with.
enum First<'a> {
    Incomplete,
    ClientHello(&'a [u8]),
    /// Something else, or a ClientHello that is malformed or beyond all bounds.
    Other,
}

fn first_message(crypto: &[u8]) -> First<'_> {
    let Some(&[kind, high, middle, low]) = crypto.first_chunk() else { return First::Incomplete };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if kind != CLIENT_HELLO || HEADER_BYTES + length > BOUNDS.bytes {
        return First::Other;
    }
    match crypto.get(..HEADER_BYTES + length) {
        None => First::Incomplete,
        Some(message) if ClientHello::parse(message).is_err() => First::Other,
        Some(message) => First::ClientHello(message),
    }
}
