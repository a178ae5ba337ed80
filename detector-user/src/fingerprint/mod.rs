//! Who a client is, by what its software says first.
//!
//! | question | module |
//! |---|---|
//! | where in a client's bytes is its ClientHello? | [`hello`] |
//! | which client flows are in a capture? | [`flows`], and below it `tcp` and `packet` |
//!
//! What a ClientHello says and its JA4 are in [`detector_common`]; QUIC's packets are opened in [`crate::quic`].

pub mod flows;
pub mod hello;
mod packet;
mod tcp;

#[cfg(test)]
pub(crate) mod fixtures;

use detector_common::{
    client_hello::{ClientHello, HelloError},
    ja4::{Ja4, Transport},
};

/// The JA4 of a ClientHello, given as a handshake message from its type on.
///
/// # Errors
///
/// The bytes are no ClientHello.
pub fn ja4(handshake_message: &[u8], transport: Transport) -> Result<Ja4, HelloError> {
    Ok(Ja4::of(&ClientHello::parse(handshake_message)?, transport))
}
