//! Frames: Ethernet, IP, and TCP or UDP, with their checksums.

use std::net::IpAddr;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) client: IpAddr,
    pub(super) client_port: u16,
    pub(super) server: IpAddr,
    /// Hop limit that is left at the edge.
    pub(super) hops: u8,
}

/// Port of every service.
pub(super) const SERVER_PORT: u16 = 443;

/// A segment of the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// From one made-up address of the link layer to another one.
const LINK: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// The frame of a segment.
pub(super) fn tcp(ends: &Ends, segment: &Segment<'_>) -> Vec<u8> {
    let header_bytes = 20 + segment.options.len();
    let (mut frame, transport) = begin(ends, TCP, header_bytes + segment.payload.len());
    frame.extend(ends.client_port.to_be_bytes());
    frame.extend(SERVER_PORT.to_be_bytes());
    frame.extend(segment.sequence.to_be_bytes());
    frame.extend(segment.acknowledged.to_be_bytes());
    frame.extend([(header_bytes as u8 / 4) << 4, segment.flags]);
    frame.extend(segment.window.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(segment.options);
    frame.extend(segment.payload);
    check(ends, TCP, &mut frame, transport, 16);
    frame
}

/// The frame of a datagram.
pub(super) fn udp(ends: &Ends, payload: &[u8]) -> Vec<u8> {
    let (mut frame, transport) = begin(ends, UDP, 8 + payload.len());
    frame.extend(ends.client_port.to_be_bytes());
    frame.extend(SERVER_PORT.to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0; 2]);
    frame.extend(payload);
    check(ends, UDP, &mut frame, transport, 6);
    frame
}

/// The headers before the transport's, and where that begins.
fn begin(ends: &Ends, protocol: u8, transport_bytes: usize) -> (Vec<u8>, usize) {
    let mut frame = Vec::with_capacity(14 + 40 + transport_bytes);
    frame.extend(LINK);
    match (ends.client, ends.server) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + transport_bytes as u16).to_be_bytes());
            // An identification that is not 0, and "don't fragment".
            frame.extend([0x2f, 0x31, 0x40, 0, ends.hops, protocol, 0, 0]);
            frame.extend(client.octets());
            frame.extend(server.octets());
            let sum = folded(sum_of(&frame[14..34]));
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        (client, server) => {
            // With a flow label, as clients have.
            frame.extend([0x86, 0xdd, 0x60, 0x05, 0x1a, 0x2b]);
            frame.extend((transport_bytes as u16).to_be_bytes());
            frame.extend([protocol, ends.hops]);
            for address in [client, server] {
                match address {
                    IpAddr::V6(address) => frame.extend(address.octets()),
                    IpAddr::V4(address) => frame.extend(address.to_ipv6_mapped().octets()),
                }
            }
        }
    }
    let transport = frame.len();
    (frame, transport)
}

/// Writes the transport's checksum (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1), which stands `at` bytes behind where it begins.
fn check(ends: &Ends, protocol: u8, frame: &mut [u8], transport: usize, at: usize) {
    let addresses = if ends.client.is_ipv4() { transport - 8 } else { transport - 32 };
    let length = (frame.len() - transport) as u64;
    let sum = sum_of(&frame[addresses..]) + u64::from(protocol) + length;
    let sum = match folded(sum) {
        // Over UDP 0 says that there is none.
        0 if protocol == UDP => u16::MAX,
        sum => sum,
    };
    frame[transport + at..transport + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The sum of 16-bit words, the last byte padded with 0.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    words + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// The complement of a sum in 16 bits, carries added.
const fn folded(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over a header, or a segment with its addresses, is all ones with its checksum in it.
    #[test]
    fn checksums_hold() {
        for (client, server) in
            [("240.0.0.1", "203.0.113.1"), ("2001:db8:1::1", "2001:db8:ff00::1")].map(|(client, server)| {
                let address = |text: &str| text.parse::<IpAddr>().expect("an address");
                (address(client), address(server))
            })
        {
            let ends = Ends { client, client_port: 4711, server, hops: 57 };
            let segment = Segment {
                sequence: 7,
                acknowledged: 9,
                flags: SYN,
                window: 64240,
                options: &[2, 4, 5, 0xb4],
                payload: &[1, 2, 3],
            };
            let frames = [(TCP, tcp(&ends, &segment)), (UDP, udp(&ends, &[5; 1200]))];
            let transport = if client.is_ipv4() { 34 } else { 54 };
            for (protocol, frame) in frames {
                if client.is_ipv4() {
                    assert_eq!(folded(sum_of(&frame[14..34])), 0);
                }
                let addresses = if client.is_ipv4() { transport - 8 } else { transport - 32 };
                let length = (frame.len() - transport) as u64;
                assert_eq!(folded(sum_of(&frame[addresses..]) + u64::from(protocol) + length), 0);
            }
        }
    }
}
