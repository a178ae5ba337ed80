//! ClientHellos, their records and frames that carry them, for tests.

use std::net::SocketAddr;

/// A ClientHello of so many bytes, at least 100: a handshake message. `mark` makes it another one.
pub(crate) fn hello(bytes: usize, mark: u8) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[mark; 32], &[0]].concat();
    body.extend([0, 4, 0x13, 1, 0x13, mark, 1, 0]);
    let versions = [0, 0x2b, 0, 3, 2, 3, 4];
    // Padding makes up what is missing: its header has four bytes, and so has that of the message.
    let padding = bytes - 4 - body.len() - 2 - versions.len() - 4;
    let length = |bytes: usize| u16::try_from(bytes).expect("a short list").to_be_bytes();
    body.extend(length(versions.len() + 4 + padding));
    body.extend(versions);
    body.extend([0, 0x15]);
    body.extend(length(padding));
    body.extend(vec![0x16; padding]);
    let message = [&[1, 0][..], &length(body.len()), &body].concat();
    assert_eq!(message.len(), bytes);
    message
}

/// A message in TLS records of so many bytes.
pub(crate) fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        [&[22, 3, 1][..], &u16::try_from(part.len()).expect("a short record").to_be_bytes(), part].concat()
    };
    message.chunks(bytes).flat_map(record).collect()
}

/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// A segment between two ends of one family.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// An Ethernet frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut tcp = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        tcp.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.payload);
        frame(self.source, self.destination, 6, &tcp)
    }
}

/// An Ethernet frame with a UDP datagram.
pub(crate) fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short datagram").to_be_bytes();
    let udp = [source.port().to_be_bytes(), destination.port().to_be_bytes(), length, [0, 0]].concat();
    frame(source, destination, 17, &[udp, payload.to_vec()].concat())
}

fn frame(source: SocketAddr, destination: SocketAddr, protocol: u8, packet: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).expect("a short packet").to_be_bytes();
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        let address = |end: SocketAddr| match end.ip() {
            std::net::IpAddr::V6(address) => address.octets(),
            std::net::IpAddr::V4(_) => panic!("two families"),
        };
        let mut frame =
            [&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0], &length(packet.len()), &[protocol, 64]].concat();
        frame.extend(address(source));
        frame.extend(address(destination));
        return [&frame, packet].concat();
    };
    let mut frame =
        [&[0; 12][..], &[8, 0, 0x45, 0], &length(20 + packet.len()), &[0, 0, 0x40, 0, 64, protocol, 0, 0]]
            .concat();
    frame.extend(source.ip().octets());
    frame.extend(destination.ip().octets());
    [&frame, packet].concat()
}
