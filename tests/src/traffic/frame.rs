//! The frame that a flood repeats.

use std::net::{IpAddr, SocketAddr};

/// Whose frame.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// MAC addresses of sender and receiver.
    pub macs: ([u8; 6], [u8; 6]),
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// Source.
    pub from: SocketAddr,
    /// Destination, of the same family.
    pub to: SocketAddr,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

impl Flow {
    /// A UDP datagram of 18 bytes: a frame of the shortest length on a wire, over IPv4.
    pub fn datagram(&self) -> Vec<u8> {
        let payload = [0_u8; 18];
        let length = (8 + payload.len()) as u16;
        let mut segment = self.ports();
        segment.extend(length.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        self.frame(UDP, segment, 6)
    }

    /// A TCP segment that asks for a connection.
    pub fn syn(&self) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        // Five words of header; SYN; window 1024; checksum; urgent pointer.
        segment.extend([0x50, 0x02, 4, 0, 0, 0, 0, 0]);
        self.frame(TCP, segment, 16)
    }

    fn ports(&self) -> Vec<u8> {
        [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat()
    }

    fn frame(&self, protocol: u8, mut segment: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        let (pseudo, header, ether_type) = self.network(protocol, segment.len() as u16);
        let checksum = checksum(&[pseudo, segment.clone()].concat());
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        let (from, to) = self.macs;
        let tag = self.vlan.map(|id| [0x8100_u16.to_be_bytes(), id.to_be_bytes()].concat());
        [&to[..], &from[..], &tag.unwrap_or_default(), &ether_type.to_be_bytes(), &header, &segment].concat()
    }

    /// The pseudo header of the checksum, the IP header, the Ethernet type.
    fn network(&self, protocol: u8, length: u16) -> (Vec<u8>, Vec<u8>, u16) {
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let addresses = [from.octets(), to.octets()].concat();
                let pseudo = [&addresses[..], &[0, protocol], &length.to_be_bytes()].concat();
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                // No identification, do not fragment, 64 hops, checksum to come.
                header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                header.extend(addresses);
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                (pseudo, header, 0x0800)
            }
            (from, to) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V6(address) => address.octets(),
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                };
                let addresses = [octets(from), octets(to)].concat();
                let pseudo = [&addresses[..], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([protocol, 64]);
                header.extend(addresses);
                (pseudo, header, 0x86dd)
            }
        }
    }
}

/// The checksum of the Internet (RFC 1071); never 0, which in UDP means that there is none.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_frame_is_as_long_as_on_a_wire() {
        let flow = |from: &str, to: &str, vlan| Flow {
            macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            vlan,
            from: from.parse().expect("an address"),
            to: to.parse().expect("an address"),
        };
        let v4 = flow("192.0.2.1:1", "192.0.2.2:2", None);
        assert_eq!((v4.datagram().len(), v4.syn().len()), (60, 54));
        // Over a header with its checksum in place, the sum is zero, which is written as all ones.
        assert_eq!(checksum(&v4.datagram()[14..34]), 0xffff);
        assert_eq!(flow("192.0.2.1:1", "192.0.2.2:2", Some(7)).datagram().len(), 64);
        assert_eq!(flow("[2001:db8::1]:1", "[2001:db8::2]:2", None).datagram().len(), 80);
    }
}
