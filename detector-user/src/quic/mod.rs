//! QUIC's first packets, opened: a client's Initials are encrypted with keys that anybody can compute from them, and carry its
//! ClientHello.
//!
//! | question | module |
//! |---|---|
//! | which versions, and with which keys? | `version`, `keys` |
//! | what is in a datagram? | `packet` |
//! | what is in a packet? | `frames` |
//! | how do a client's packets become its ClientHello? | `client` |
//!
//! Versions 1 (RFC 9000, 9001) and 2 (RFC 9369), and the drafts 23 to 34 that old captures have. Packets of servers are left
//! alone: their keys come from the client's first connection id, so as a client's they do not open.

mod client;
mod frames;
mod keys;
mod packet;
mod version;

use std::hash::Hash;

use crate::recent::{self, Recent};
pub use client::Client;

/// Flows that are followed at a time, and bytes that they hold.
pub const BOUNDS: recent::Bounds = recent::Bounds { flows: 65_536, bytes: 256 << 20 };

/// A client's first ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The handshake message, from its type on.
    pub message: Vec<u8>,
    /// The number of the flow's first Initial.
    pub number: u64,
}

/// Opens the Initials of many flows, and puts the ClientHello of each together.
pub struct Opener<K: Hash + Eq> {
    flows: Recent<K, Client>,
}

impl<K: Hash + Eq + Clone> Opener<K> {
    /// None opened yet.
    pub fn new(bounds: recent::Bounds) -> Self {
        Self { flows: Recent::new(bounds) }
    }

    /// Takes a datagram of a flow, whose key tells both ends and the direction, and gives the first ClientHello once it is
    /// whole. The number says which datagram it is.
    pub fn take(&mut self, flow: K, datagram: &[u8], number: u64) -> Option<Hello> {
        // Nothing is kept of other protocols.
        if !packet::may_be_initial(datagram) {
            return None;
        }
        let hello = self.flows.with(&flow, |client| client.take(datagram, number));
        while self.flows.excess().is_some() {}
        hello
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
