//! A part of a recording as a capture, for whatever reads captures.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::Range;

use serde::Serialize;

use super::{Player, pcap, server};
use crate::deed::{Deed, Says, What};
use crate::source::{Family, Source};
use crate::{Epoch, Scenario};

/// Packets of the largest capture.
pub const PACKETS_MAX: u64 = 500_000;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What is true of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureTruth {
    /// When it begins, seconds since 1970.
    pub start_s: u64,
    /// When it ends.
    pub end_s: u64,
    /// Where the services are, in the order of their indices.
    pub services: Vec<CapturedService>,
    /// Packets.
    pub packets: u64,
    /// Different sources that open connections.
    pub sources: u64,
    /// SYNs of new connections.
    pub connections: u64,
    /// ClientHellos that can be read, over TCP.
    pub handshakes: u64,
    /// First Initials of connections over QUIC.
    pub quic_connections: u64,
}

/// Where a service is in a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CapturedService {
    /// Its name.
    pub name: String,
    /// Its addresses; the port is 443.
    pub addresses: Vec<IpAddr>,
}

/// A capture that is being written.
#[derive(Debug)]
pub struct Capture<W> {
    out: pcap::Writer<W>,
    player: Player,
    sources: HashSet<(u16, Source)>,
    truth: CaptureTruth,
}

impl<W: Write> Capture<W> {
    /// Of what happens in a span of time, seconds since 1970: of whole epochs.
    pub fn new(scenario: &Scenario, span_s: Range<u64>, out: W) -> io::Result<Self> {
        let services = (0..).zip(&scenario.service).map(|(index, service)| CapturedService {
            name: service.name.clone(),
            addresses: [Family::V4, Family::V6].map(|family| server(index, family)).to_vec(),
        });
        let truth = CaptureTruth {
            start_s: span_s.start,
            end_s: span_s.end,
            services: services.collect(),
            packets: 0,
            sources: 0,
            connections: 0,
            handshakes: 0,
            quic_connections: 0,
        };
        let out = pcap::Writer::new(out)?;
        Ok(Self { out, player: Player::new(scenario), sources: HashSet::new(), truth })
    }

    /// Adds an epoch, with what is done in it; whether it fits. Where it does not, [`PACKETS_MAX`] are written.
    pub fn add(&mut self, epoch: &Epoch, deeds: &[Deed]) -> io::Result<bool> {
        self.player.add(epoch.time_s, epoch.span_s, deeds);
        let end_ns = (epoch.time_s + u64::from(epoch.span_s)) * SECOND_NS;
        let (mut written, out, packets) = (Ok(()), &mut self.out, &mut self.truth.packets);
        self.player.play(end_ns, |at_ns, frame| {
            if written.is_ok() && *packets < PACKETS_MAX {
                written = out.write(at_ns, frame);
                *packets += 1;
            }
            true
        });
        written?;
        for deed in deeds {
            match deed.what {
                What::Connect(connect) => {
                    self.truth.connections += 1;
                    self.truth.handshakes += u64::from(connect.says == Says::Hello);
                }
                What::ConnectQuic { .. } => self.truth.quic_connections += 1,
                What::Exchange { .. } | What::End => continue,
            }
            self.sources.insert((deed.service, deed.source));
        }
        Ok(self.truth.packets < PACKETS_MAX)
    }

    /// Ends the capture: what is true of it.
    pub fn finish(mut self) -> io::Result<(W, CaptureTruth)> {
        self.truth.sources = self.sources.len() as u64;
        Ok((self.out.finish()?, self.truth))
    }
}
