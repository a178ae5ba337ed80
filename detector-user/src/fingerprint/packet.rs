//! A frame of a capture, as far as flows need it: who sends to whom, and where in it the payload is.

use std::net::SocketAddr;

use detector_common::{
    frame::SliceFrame,
    packet::{self, Layout, Parsed, TCP},
    syn::Syn,
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
    /// The signature of a client's SYN.
    pub(super) syn: Option<Syn>,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) is_syn: bool,
    pub(super) is_ack: bool,
    pub(super) payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub(super) payload_bytes: usize,
}

const UDP: u8 = 17;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Reads a frame of which the first `captured_bytes` are as they were on the wire. `None`: it is of no flow, or cut off
/// before its payload, or a fragment.
pub(super) fn read(frame: &[u8], captured_bytes: usize) -> Option<Segment<'_>> {
    let Parsed { packet, layout } = packet::parse(&SliceFrame(frame)).ok()?;
    if layout == Layout::NOWHERE {
        return None;
    }
    let [network, transport, end_of_packet] =
        [layout.network(), layout.transport(), layout.end()].map(|place| place as usize);
    let kept = frame.get(..captured_bytes)?;
    let end = end_of_packet.min(captured_bytes);
    let content = match packet.protocol {
        TCP => {
            let header = kept.get(transport..transport + TCP_HEADER_BYTES)?;
            let start = transport + usize::from(header[12] >> 4) * 4;
            Content::Tcp(Tcp {
                syn: match header[13] & (TCP_SYN | TCP_ACK) {
                    TCP_SYN => Syn::of(kept.get(network..start)?, transport - network, start < end_of_packet),
                    _ => None,
                },
                sequence: u32::from_be_bytes(*header[4..].first_chunk()?),
                acknowledgement: u32::from_be_bytes(*header[8..].first_chunk()?),
                is_syn: header[13] & TCP_SYN != 0,
                is_ack: header[13] & TCP_ACK != 0,
                payload: kept.get(start..end)?,
                payload_bytes: end_of_packet.checked_sub(start)?,
            })
        }
        UDP => {
            let header = kept.get(transport..transport + UDP_HEADER_BYTES)?;
            // The length may leave out what the network layer carries behind; 0 is a jumbogram's.
            let end = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
                0 => end_of_packet,
                length => transport + length,
            };
            Content::Udp { datagram: kept.get(transport + UDP_HEADER_BYTES..end)? }
        }
        _ => return None,
    };
    Some(Segment {
        source: SocketAddr::new(packet.source.to_ip(), packet.source_port),
        destination: SocketAddr::new(packet.destination.to_ip(), packet.destination_port),
        content,
    })
}
