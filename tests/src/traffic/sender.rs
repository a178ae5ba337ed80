//! Datagrams from an ordinary socket, evenly.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};

use super::{Load, Pace, Sent};
use crate::netns::Namespace;

/// Datagrams between two looks at the clock at most.
const CALL_MAX: u32 = 100;

/// A sender that runs. It stops when this is dropped.
#[derive(Debug)]
pub struct Sender(Load);

impl Sender {
    /// Sends datagrams from an address of a namespace.
    ///
    /// # Errors
    ///
    /// The address is not there.
    pub fn start(namespace: &Namespace, from: SocketAddr, to: SocketAddr, pace: Pace) -> Result<Self> {
        let socket = namespace
            .within(|| UdpSocket::bind(from))?
            .with_context(|| format!("binding a sender to {from}"))?;
        let (mut load, run) = Load::pacing(pace, CALL_MAX, move |count| {
            for _ in 0..count {
                socket
                    .send_to(b"detector's steady sender", to)
                    .with_context(|| format!("sending to {to}"))?;
            }
            Ok(count)
        });
        load.thread = Some(namespace.spawn(run)?);
        Ok(Self(load))
    }

    /// Packets sent so far.
    pub fn packets(&self) -> u64 {
        self.0.packets()
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Sending failed.
    pub fn stop(mut self) -> Result<Sent> {
        self.0.finish()
    }
}
