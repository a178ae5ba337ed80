//! Frames, built layer by layer. Lengths are right unless a test changes the finished bytes; checksums are 0, since
//! nothing here looks at them.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, BytesMut};

/// TCP flags.
pub mod flags {
    /// Ends the connection.
    pub const FIN: u8 = 0x01;
    /// Asks for a connection.
    pub const SYN: u8 = 0x02;
    /// Refuses it.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// Protocol numbers, of transports and of IPv6 extension headers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// IPsec's encrypted payload.
    pub const ESP: u8 = 50;
    /// IPsec's authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobile IPv6.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HOST_IDENTITY: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// EtherTypes.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// LLDP.
    pub const LLDP: u16 = 0x88cc;
    /// 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad.
    pub const QINQ: u16 = 0x88a8;
    /// What some switches wrote before 802.1ad.
    pub const QINQ_OLD: u16 = 0x9100;
}

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// Where in the packet a fragment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    /// Units of 8 bytes.
    offset: u16,
    more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extension {
    /// A header of a protocol number and of so many bytes, of which the first two are set here.
    Options { protocol: u8, bytes: usize },
    /// An authentication header of so many bytes; a multiple of 4.
    Authentication { bytes: usize },
    /// A fragment header.
    Fragment(Fragment),
}

/// A packet on its way to a frame.
#[derive(Debug, Clone)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    tags: Vec<u16>,
    protocol: u8,
    hop_limit: u8,
    options: usize,
    extensions: Vec<Extension>,
    fragment: Option<Fragment>,
    transport: BytesMut,
    /// Bytes of the payload; then come as many others as `padding` says.
    content: Vec<u8>,
    padding: usize,
}

/// A TCP segment with these flags between two socket addresses, without payload: a frame of 54 or 74 bytes.
///
/// # Panics
///
/// One of them is no socket address.
pub fn tcp(source: &str, destination: &str, flags: u8) -> Packet {
    let (source, destination) = (socket(source), socket(destination));
    let mut header = BytesMut::new();
    header.put_u16(source.port());
    header.put_u16(destination.port());
    header.put_u32(1); // sequence
    header.put_u32(0); // acknowledgement
    header.put_u8(5 << 4); // data offset
    header.put_u8(flags);
    header.put_u16(0xffff); // window
    header.put_u32(0); // checksum, urgent pointer
    Packet::new(source.ip(), destination.ip(), protocol::TCP, header)
}

/// A UDP datagram between two socket addresses, without payload: a frame of 42 or 62 bytes.
///
/// # Panics
///
/// One of them is no socket address.
pub fn udp(source: &str, destination: &str) -> Packet {
    let (source, destination) = (socket(source), socket(destination));
    let mut header = BytesMut::new();
    header.put_u16(source.port());
    header.put_u16(destination.port());
    header.put_u16(0); // length, at the end
    header.put_u16(0); // checksum
    Packet::new(source.ip(), destination.ip(), protocol::UDP, header)
}

/// A packet of another protocol between two addresses, with a header of these bytes.
///
/// # Panics
///
/// One of them is no address.
pub fn ip(source: &str, destination: &str, protocol: u8, header: &[u8]) -> Packet {
    Packet::new(address(source), address(destination), protocol, header.into())
}

/// An ICMPv6 message of a type, between two addresses.
///
/// # Panics
///
/// One of them is no address.
pub fn icmpv6(source: &str, destination: &str, message: u8) -> Packet {
    ip(source, destination, protocol::ICMPV6, &[message, 0, 0, 0, 0, 0, 0, 0])
}

/// A frame that is not IP.
pub fn ethernet(ether_type: u16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    put_ethernet(&mut frame, &[], ether_type);
    frame.put_slice(body);
    frame
}

/// A frame with other bytes at an offset.
///
/// # Panics
///
/// The frame ends before.
pub fn patched(mut frame: BytesMut, offset: usize, bytes: &[u8]) -> BytesMut {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The first bytes of a frame.
pub fn cut(mut frame: BytesMut, bytes: usize) -> BytesMut {
    frame.truncate(bytes);
    frame
}

/// A frame with so many bytes behind the packet, as Ethernet pads short ones.
pub fn padded(mut frame: BytesMut, bytes: usize) -> BytesMut {
    frame.put_bytes(0xff, bytes);
    frame
}

impl Packet {
    fn new(source: IpAddr, destination: IpAddr, protocol: u8, transport: BytesMut) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "two families in one packet");
        Self {
            source,
            destination,
            tags: Vec::new(),
            protocol,
            hop_limit: 64,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
            transport,
            content: Vec::new(),
            padding: 0,
        }
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// With so many bytes after the transport header.
    pub fn payload(self, bytes: usize) -> Self {
        Self { padding: bytes, ..self }
    }

    /// With these bytes after the transport header.
    pub fn content(self, bytes: &[u8]) -> Self {
        Self { content: bytes.to_vec(), ..self }
    }

    /// With the sequence number of a TCP segment.
    pub fn sequence(mut self, number: u32) -> Self {
        self.transport[4..8].copy_from_slice(&number.to_be_bytes());
        self
    }

    /// With the acknowledgement number of a TCP segment.
    pub fn acknowledged(mut self, number: u32) -> Self {
        self.transport[8..12].copy_from_slice(&number.to_be_bytes());
        self
    }

    /// With TCP options: a multiple of four bytes.
    ///
    /// # Panics
    ///
    /// They do not fit in a header.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        self.transport.put_slice(bytes);
        let words = self.transport.len() / 4;
        assert!(words <= 15 && bytes.len().is_multiple_of(4), "{} bytes of options", bytes.len());
        self.transport[12] = (words as u8) << 4;
        self
    }

    /// With payload that makes a frame of so many bytes.
    ///
    /// # Panics
    ///
    /// The headers alone are longer.
    pub fn of_length(self, frame_bytes: usize) -> Self {
        let headers = Self { padding: 0, ..self.clone() }.frame().len();
        let payload = frame_bytes.checked_sub(headers);
        self.payload(payload.unwrap_or_else(|| panic!("the headers alone have {headers} bytes")))
    }

    /// With another source address; the port stays.
    ///
    /// # Panics
    ///
    /// The address is of the other family.
    pub fn from(self, source: IpAddr) -> Self {
        assert_eq!(self.destination.is_ipv4(), source.is_ipv4(), "two families in one packet");
        Self { source, ..self }
    }

    /// With one more tag of an EtherType, inside those that are there.
    pub fn tag(mut self, ether_type: u16) -> Self {
        self.tags.push(ether_type);
        self
    }

    /// With a hop limit, or time to live.
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// With IPv4 options of so many bytes, a multiple of 4 up to 40.
    pub fn options(self, bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(4) && bytes <= 40 && self.source.is_ipv4());
        Self { options: bytes, ..self }
    }

    /// With one more IPv6 extension header of so many bytes, a multiple of 8.
    pub fn extension(mut self, protocol: u8, bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(8) && (8..=2048).contains(&bytes) && self.source.is_ipv6());
        self.extensions.push(Extension::Options { protocol, bytes });
        self
    }

    /// With an IPv6 authentication header of so many bytes, a multiple of 4.
    pub fn authentication(mut self, bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(4) && (12..=1028).contains(&bytes) && self.source.is_ipv6());
        self.extensions.push(Extension::Authentication { bytes });
        self
    }

    /// As a fragment at an offset in units of 8 bytes. The payload is this fragment's. Where the offset is not 0, the
    /// transport header is gone.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        let fragment = Fragment { offset, more };
        match self.source {
            IpAddr::V4(_) => self.fragment = Some(fragment),
            IpAddr::V6(_) => self.extensions.push(Extension::Fragment(fragment)),
        }
        if offset != 0 {
            self.transport.clear();
        }
        self
    }

    /// With only the first bytes of the transport header, and no payload: lengths are those of what is left.
    pub fn cut_transport(mut self, bytes: usize) -> Self {
        self.transport.truncate(bytes);
        self.padding = 0;
        self
    }

    /// Where the network header starts in the frame.
    pub fn network_offset(&self) -> usize {
        ETHERNET_BYTES + 4 * self.tags.len()
    }

    /// Where the transport header starts in the frame.
    pub fn transport_offset(&self) -> usize {
        let network = if self.source.is_ipv4() { 20 + self.options } else { 40 };
        self.network_offset() + network + self.extensions.iter().map(Extension::length).sum::<usize>()
    }

    /// The frame.
    ///
    /// # Panics
    ///
    /// It is longer than a packet can be.
    pub fn frame(&self) -> BytesMut {
        let mut frame = BytesMut::new();
        let is_v4 = self.source.is_ipv4();
        put_ethernet(&mut frame, &self.tags, if is_v4 { ether_type::IPV4 } else { ether_type::IPV6 });
        let mut transport = self.transport.clone();
        transport.put_slice(&self.content);
        transport.put_bytes(0x5a, self.padding);
        let length = u16::try_from(transport.len()).expect("a payload below 64 KiB");
        if self.protocol == protocol::UDP && self.transport.len() >= 8 {
            transport[4..6].copy_from_slice(&length.to_be_bytes());
        }
        if is_v4 {
            self.put_v4(&mut frame, length)
        } else {
            self.put_v6(&mut frame, length)
        }
        frame.put(transport);
        frame
    }

    fn put_v4(&self, frame: &mut BytesMut, payload: u16) {
        let header = 20 + self.options;
        let fragment = self.fragment.unwrap_or(Fragment { offset: 0, more: false });
        frame.put_u8(4 << 4 | (header / 4) as u8);
        frame.put_u8(0); // type of service
        frame.put_u16(payload.checked_add(header as u16).expect("a packet below 64 KiB"));
        frame.put_u16(0x1234); // identification
        frame.put_u16(u16::from(fragment.more) << 13 | fragment.offset);
        frame.put_u8(self.hop_limit);
        frame.put_u8(self.protocol);
        frame.put_u16(0); // checksum
        put_address(frame, self.source);
        put_address(frame, self.destination);
        frame.put_bytes(1, self.options); // no-operation options
    }

    fn put_v6(&self, frame: &mut BytesMut, payload: u16) {
        let extensions: usize = self.extensions.iter().map(Extension::length).sum();
        let mut next = self.extensions.iter().map(Extension::protocol).chain([self.protocol]);
        frame.put_u32(6 << 28);
        frame.put_u16(payload.checked_add(extensions as u16).expect("a packet below 64 KiB"));
        frame.put_u8(next.next().unwrap_or(self.protocol));
        frame.put_u8(self.hop_limit);
        put_address(frame, self.source);
        put_address(frame, self.destination);
        for (extension, next) in self.extensions.iter().zip(next) {
            extension.put(frame, next);
        }
    }
}

impl Extension {
    fn protocol(&self) -> u8 {
        match self {
            Self::Options { protocol, .. } => *protocol,
            Self::Authentication { .. } => protocol::AUTHENTICATION,
            Self::Fragment(_) => protocol::FRAGMENT,
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Options { bytes, .. } | Self::Authentication { bytes } => *bytes,
            Self::Fragment(_) => 8,
        }
    }

    fn put(&self, frame: &mut BytesMut, next: u8) {
        frame.put_u8(next);
        match self {
            Self::Options { bytes, .. } => frame.put_u8((bytes / 8 - 1) as u8),
            Self::Authentication { bytes } => frame.put_u8((bytes / 4 - 2) as u8),
            Self::Fragment(fragment) => {
                frame.put_u8(0);
                frame.put_u16(fragment.offset << 3 | u16::from(fragment.more));
                frame.put_u32(0x1234_5678);
                return;
            }
        }
        frame.put_bytes(0, self.length() - 2);
    }
}

fn put_ethernet(frame: &mut BytesMut, tags: &[u16], ether_type: u16) {
    frame.put_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    for (vlan, &tag) in (7..).zip(tags) {
        frame.put_u16(tag);
        frame.put_u16(vlan);
    }
    frame.put_u16(ether_type);
}

fn put_address(frame: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => frame.put_slice(&address.octets()),
        IpAddr::V6(address) => frame.put_slice(&address.octets()),
    }
}

/// A socket address from text.
fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no socket address"))
}

/// An address from text.
fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
