//! Who a client is, by what its software says first.
//!
//! | question | module |
//! |---|---|
//! | where in a client's bytes is its ClientHello? | [`hello`] |
//! | which client flows are in a capture? | [`flows`], and below it `tcp` and `packet` |
//! | what software is known to say such? | [`labels`] |
//!
//! What a ClientHello says and its JA4 are in [`detector_common`]; QUIC's packets are opened in [`crate::quic`].

pub mod flows;
pub mod hello;
pub mod labels;
mod packet;
mod tcp;

#[cfg(test)]
pub(crate) mod fixtures;

use std::net::SocketAddr;

use detector_common::{
    client_hello::{ClientHello, HelloError},
    hello::{Hello, Transport},
    ja4::Ja4,
};

/// The JA4 of a ClientHello, given as a handshake message from its type on.
///
/// # Errors
///
/// The bytes are no ClientHello.
pub fn ja4(handshake_message: &[u8], transport: Transport) -> Result<Ja4, HelloError> {
    Ok(Ja4::of(&ClientHello::parse(handshake_message)?, transport))
}

/// The key that the program gives a ClientHello; `None` where it gives none.
pub fn key(handshake_message: &[u8], transport: Transport) -> Option<u64> {
    let mut hello = Hello::start_of_message();
    hello.read(handshake_message);
    hello.key(transport)
}

/// Who sends a frame to whom, if it is a whole segment or datagram.
pub fn ends_of(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let segment = packet::read(frame, frame.len())?;
    Some((segment.source, segment.destination))
}
