//! A frame of a capture, as far as flows need it: who sends to whom, and where in it the payload is.

use std::net::SocketAddr;

use detector_common::{
    address::Family,
    frame::SliceFrame,
    packet::{self, Packet, Ports, notes},
};

/// A packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) content: Content<'a>,
}

/// What it carries, as far as the capture kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Tcp(Tcp<'a>),
    Udp {
        /// All of it; a datagram that was cut is of no use.
        datagram: &'a [u8],
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tcp<'a> {
    /// Network header and TCP header.
    pub(super) headers: &'a [u8],
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) is_syn: bool,
    pub(super) is_ack: bool,
    pub(super) payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub(super) payload_bytes: usize,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Reads a frame of which the first `captured_bytes` are as they were on the wire. `None`: it is of no flow, or cut off
/// before its payload, or a fragment.
pub(super) fn read(frame: &[u8], captured_bytes: usize) -> Option<Segment<'_>> {
    let packet = packet::parse(&SliceFrame(frame)).ok()?;
    if packet.ports != Ports::Known || packet.notes & notes::FIRST_FRAGMENT != 0 {
        return None;
    }
    let layout = Layout::of(frame, &packet)?;
    let kept = frame.get(..captured_bytes)?;
    let end = layout.end.min(captured_bytes);
    let content = match packet.protocol {
        TCP => {
            let header = kept.get(layout.transport..layout.transport + TCP_HEADER_BYTES)?;
            let start = layout.transport + usize::from(header[12] >> 4) * 4;
            Content::Tcp(Tcp {
                headers: kept.get(layout.network..start)?,
                sequence: u32::from_be_bytes(*header[4..].first_chunk()?),
                acknowledgement: u32::from_be_bytes(*header[8..].first_chunk()?),
                is_syn: header[13] & TCP_SYN != 0,
                is_ack: header[13] & TCP_ACK != 0,
                payload: kept.get(start..end)?,
                payload_bytes: layout.end.checked_sub(start)?,
            })
        }
        UDP => {
            let header = kept.get(layout.transport..layout.transport + UDP_HEADER_BYTES)?;
            // The length may leave out what the network layer carries behind; 0 is a jumbogram's.
            let end = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
                0 => layout.end,
                length => layout.transport + length,
            };
            Content::Udp { datagram: kept.get(layout.transport + UDP_HEADER_BYTES..end)? }
        }
        _ => return None,
    };
    Some(Segment {
        source: SocketAddr::new(packet.source.to_ip(), packet.source_port),
        destination: SocketAddr::new(packet.destination.to_ip(), packet.destination_port),
        content,
    })
}

/// Where the parts of a frame are.
struct Layout {
    network: usize,
    transport: usize,
    /// Where the packet ends; the frame may be padded beyond.
    end: usize,
}

impl Layout {
    /// That of a frame which [`packet::parse`] has read up to its ports: its lengths have been checked.
    fn of(frame: &[u8], packet: &Packet) -> Option<Self> {
        let tags = match packet.notes & (notes::VLAN | notes::QINQ) {
            0 => 0,
            notes::VLAN => 1,
            _ => 2,
        };
        let network = 14 + 4 * tags;
        let header = frame.get(network..)?;
        let length = |at: usize| Some(usize::from(u16::from_be_bytes(*header.get(at..)?.first_chunk()?)));
        match packet.source.family {
            Family::V4 => {
                let transport = network + usize::from(header.first()? & 0xf) * 4;
                let end = match length(2)? {
                    0 => frame.len(),
                    length => network + length,
                };
                Some(Self { network, transport, end })
            }
            Family::V6 => {
                let end = match length(4)? {
                    0 => frame.len(),
                    length => network + 40 + length,
                };
                Some(Self { network, transport: network + extensions_end(header)?, end })
            }
        }
    }
}

/// Where behind an IPv6 header the transport header is.
fn extensions_end(header: &[u8]) -> Option<usize> {
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    let (mut protocol, mut at) = (*header.get(6)?, 40);
    while protocol != TCP && protocol != UDP {
        let [next, length] = *header.get(at..)?.first_chunk()?;
        at += match protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
    }
    Some(at)
}
