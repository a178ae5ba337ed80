//! What a frame says: who sends to whom, and what kind of packet it is.
//!
//! Read through: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with up to
//! [`EXTENSION_HEADERS_MAX`] extension headers, TCP, UDP, ICMP, ICMPv6. What cannot be judged passes, with the reason
//! that this parser gives. Sources: RFC 791, 8200, 9293, 768, 4861, 6946, IEEE 802.1Q.

use network_types::{
    eth::{EthHdr, EtherType},
    icmp::Icmpv6Hdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
    vlan::VlanHdr,
};

use crate::{
    address::Address,
    branchless::bounded,
    frame::{ExtensionHdr, Frame, PortBytes, TcpStart},
    initial::{self, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN},
    limits::{EXTENSION_HEADERS_MAX, VLAN_TAGS_MAX},
    verdict::Reason,
};

/// What is known of the ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ports {
    /// TCP or UDP: both are in the packet.
    Known = 0,
    /// The protocol has none that are read (ICMP, GRE, …).
    None = 1,
    /// A later fragment of IPv4: the protocol is known, the ports are in another packet.
    InFirstFragment = 2,
    /// A later fragment of IPv6, or headers that are not read to their end: not even the protocol is known.
    Unread = 3,
}

/// A packet that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// [`notes`] of the way here: bits that each have a counter.
    pub notes: u32,
    // The ports stand at a multiple of 4: the compiler loads both at once, and a BPF stack takes aligned accesses only.
    /// Source port, 0 unless known.
    pub source_port: u16,
    /// Destination port, 0 unless known.
    pub destination_port: u16,
    /// IP protocol number of the transport; meaningless with [`Ports::Unread`].
    pub protocol: u8,
    /// Whether the ports mean something.
    pub ports: Ports,
    /// A TCP segment that asks for a new connection: SYN without ACK.
    pub connection: bool,
}

const _: () = assert!(core::mem::offset_of!(Packet, source_port).is_multiple_of(4));

/// Bits of [`Packet::notes`], one for each kind of frame that is handled on purpose. Bit *i* has the frame counter *i*
/// of [`crate::counters::FRAME_KINDS`].
pub mod notes {
    /// One VLAN tag.
    pub const VLAN: u32 = 1 << 0;
    /// Two VLAN tags.
    pub const QINQ: u32 = 1 << 1;
    /// IPv4 options.
    pub const IPV4_OPTIONS: u32 = 1 << 2;
    /// IPv6 extension headers.
    pub const IPV6_EXTENSIONS: u32 = 1 << 3;
    /// First fragment: judged by its ports.
    pub const FIRST_FRAGMENT: u32 = 1 << 4;
    /// Later fragment: judged by its source, of IPv4 also by its protocol.
    pub const LATER_FRAGMENT: u32 = 1 << 5;
    /// More extension headers than are walked: judged by its source, as a new connection.
    pub const EXTENSION_LIMIT: u32 = 1 << 6;
    /// First fragment that ends before the TCP flags (RFC 1858): judged as a new connection.
    pub const TINY_FRAGMENT: u32 = 1 << 7;
    /// Headers that go on beyond the frame's first buffer: judged by what was read, as a new connection.
    pub const SPLIT_HEADERS: u32 = 1 << 8;
}

/// The protocol number of TCP.
pub const TCP: u8 = IpProto::Tcp as u8;
/// The protocol number of UDP.
pub const UDP: u8 = IpProto::Udp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Whether a protocol number is an extension header that is walked (RFC 8200, 7045).
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// Where the headers of a packet lie, bytes from the start of the frame. All 0 where the transport header was not read, and of
/// fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Where the network header starts.
    pub network: u32,
    /// Where the transport header starts.
    pub transport: u32,
    /// Where the packet ends; an Ethernet frame may be padded beyond.
    pub end: u32,
    /// Whether it may begin a handshake: its bytes start as a ClientHello over TCP does, or as an Initial of QUIC. Told here since the
    /// parser has the headers at hand: no other packet pays for the look.
    pub begins_handshake: bool,
}

impl Layout {
    /// In the lowest [`Self::BITS`] bits of a word: 7 bits and one, then 17 and 17.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.network as u64 & NETWORK_MASK
            | (self.begins_handshake as u64) << NETWORK_BITS
            | (self.transport as u64 & PLACE_MASK) << 8
            | (self.end as u64 & PLACE_MASK) << (8 + PLACE_BITS)
    }

    /// Bits of the packed form.
    pub const BITS: u32 = 8 + 2 * PLACE_BITS;

    /// Of such a word.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            network: (word & NETWORK_MASK) as u32,
            begins_handshake: word >> NETWORK_BITS & 1 != 0,
            transport: (word >> 8 & PLACE_MASK) as u32,
            end: (word >> (8 + PLACE_BITS) & PLACE_MASK) as u32,
        }
    }
}

/// Bits of the place of a network header, which follows Ethernet and [`VLAN_TAGS_MAX`] tags.
const NETWORK_BITS: u32 = 7;

const NETWORK_MASK: u64 = (1 << NETWORK_BITS) - 1;

const _: () = assert!(EthHdr::LEN + VLAN_TAGS_MAX * VlanHdr::LEN <= NETWORK_MASK as usize);

/// Bits of a place in a frame. The kernel's longest frame has 17 fragments of a page.
pub const PLACE_BITS: u32 = 17;

const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// A packet and where it lies in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The packet.
    pub packet: Packet,
    /// Where its headers are.
    pub layout: Layout,
}

/// Where the parser stands in the network layer.
struct Network {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Where the network header starts.
    start: usize,
    /// Where the transport header starts.
    transport: usize,
    /// Where the packet ends; an Ethernet frame may be padded beyond.
    end: usize,
    first_fragment: bool,
    notes: u32,
}

/// Reads a frame: a packet to judge, or the reason why it passes unjudged.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Parsed, Reason> {
    let ethernet = frame.read::<EthHdr>(0).ok_or(Reason::Truncated)?;
    let mut ether_type = ethernet.ether_type;
    let mut offset = EthHdr::LEN;
    let mut notes = 0;
    for tag in 0..VLAN_TAGS_MAX {
        if !is_vlan(ether_type) {
            break;
        }
        let vlan = frame.read::<VlanHdr>(offset).ok_or(Reason::Truncated)?;
        ether_type = vlan.ether_type;
        offset += VlanHdr::LEN;
        notes = if tag == 0 { notes::VLAN } else { notes::QINQ };
    }
    if ether_type == EtherType::Ipv4 as u16 {
        return parse_v4(frame, offset, notes);
    }
    if ether_type == EtherType::Ipv6 as u16 {
        return parse_v6(frame, offset, notes);
    }
    if is_vlan(ether_type) {
        return Err(Reason::VlanDepth);
    }
    Err(Reason::NotIp)
}

#[inline(always)]
const fn is_vlan(ether_type: u16) -> bool {
    ether_type == EtherType::Ieee8021q as u16
        || ether_type == EtherType::Ieee8021ad as u16
        || ether_type == EtherType::Ieee8021QinQ1 as u16
}

#[inline(always)]
fn parse_v4<F: Frame>(frame: &F, offset: usize, mut notes: u32) -> Result<Parsed, Reason> {
    let header = frame.read::<Ipv4Hdr>(offset).ok_or(Reason::Truncated)?;
    let header_length = header.ihl() as usize;
    // Segmentation offload leaves length 0 in frames that have not been cut yet (captures, veth): such a packet ends
    // where the frame ends.
    let total_length = match u16::from_be_bytes(header.tot_len) {
        0 => frame.length().saturating_sub(offset),
        length => length as usize,
    };
    if header.version() != 4 || header_length < Ipv4Hdr::LEN || total_length < header_length {
        return Err(Reason::Malformed);
    }
    if offset + total_length > frame.length() {
        return Err(Reason::Truncated);
    }
    if header_length > Ipv4Hdr::LEN {
        notes |= notes::IPV4_OPTIONS;
    }
    let fragment = u16::from_be_bytes(header.frags);
    let fragment_offset = fragment & 0x1fff;
    let more_fragments = fragment & 0x2000 != 0;
    let network = Network {
        source: Address::v4(header.src_addr),
        destination: Address::v4(header.dst_addr),
        protocol: header.proto,
        start: offset,
        transport: offset + header_length,
        end: offset + total_length,
        first_fragment: more_fragments,
        notes,
    };
    if fragment_offset != 0 {
        return Ok(unlocated(without_ports(&network, Ports::InFirstFragment, notes::LATER_FRAGMENT)));
    }
    parse_transport(frame, network)
}

#[inline(always)]
fn parse_v6<F: Frame>(frame: &F, offset: usize, notes: u32) -> Result<Parsed, Reason> {
    let header = frame.read::<Ipv6Hdr>(offset).ok_or(Reason::Truncated)?;
    if header.vcf[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let payload_length = u16::from_be_bytes(header.payload_len) as usize;
    let transport = offset + Ipv6Hdr::LEN;
    // A payload of length 0 is a jumbogram's (RFC 2675) or one that segmentation offload has not cut yet: it ends where
    // the frame ends.
    let end = match payload_length {
        0 => frame.length(),
        length => transport + length,
    };
    if end > frame.length() {
        return Err(Reason::Truncated);
    }
    let mut network = Network {
        source: Address::v6(header.src_addr),
        destination: Address::v6(header.dst_addr),
        protocol: header.next_hdr,
        start: offset,
        transport,
        end,
        first_fragment: false,
        notes,
    };
    if is_extension(network.protocol) {
        network.notes |= notes::IPV6_EXTENSIONS;
        if let Some(packet) = walk_extensions(frame, &mut network)? {
            return Ok(unlocated(packet));
        }
    }
    if network.protocol == ICMPV6
        && header.hop_limit == 255
        && !network.first_fragment
        && is_neighbour_discovery(frame, &network)
    {
        return Err(Reason::NeighbourDiscovery);
    }
    parse_transport(frame, network)
}

/// Walks to the transport header; `Some` where the walk ends before it.
#[inline(always)]
fn walk_extensions<F: Frame>(frame: &F, network: &mut Network) -> Result<Option<Packet>, Reason> {
    // Hidden from the compiler: unrolled eight times, the walk would take more stack than a BPF program has.
    for _ in 0..core::hint::black_box(EXTENSION_HEADERS_MAX) {
        if !is_extension(network.protocol) {
            return Ok(None);
        }
        if network.transport + ExtensionHdr::LEN > network.end {
            return Err(Reason::Malformed);
        }
        let Some(extension) = frame.read::<ExtensionHdr>(network.transport) else {
            return Ok(Some(unread(network, notes::SPLIT_HEADERS)));
        };
        let length = match network.protocol {
            FRAGMENT => ExtensionHdr::LEN,
            AUTHENTICATION => (extension.length as usize + 2) * 4,
            _ => (extension.length as usize + 1) * 8,
        };
        if network.protocol == FRAGMENT {
            let fragment = u16::from_be_bytes(extension.fragment);
            network.first_fragment = fragment & 1 != 0;
            if fragment >> 3 != 0 {
                // The next header of a later fragment is whatever its sender writes: only the first one's counts
                // (RFC 8200, 4.5).
                return Ok(Some(without_ports(network, Ports::Unread, notes::LATER_FRAGMENT)));
            }
        }
        network.protocol = extension.next_header;
        network.transport += length;
    }
    if is_extension(network.protocol) {
        return Ok(Some(unread(network, notes::EXTENSION_LIMIT)));
    }
    Ok(None)
}

/// Router and neighbour solicitations and advertisements and redirects (RFC 4861, 4): a node that loses them is cut off.
/// A hop limit of 255, asked for by the caller, shows that they come from the link itself.
#[inline(always)]
fn is_neighbour_discovery<F: Frame>(frame: &F, network: &Network) -> bool {
    match frame.read::<Icmpv6Hdr>(network.transport) {
        Some(header) => matches!(header.type_, 133..=137),
        None => false,
    }
}

#[inline(always)]
fn without_ports(network: &Network, ports: Ports, note: u32) -> Packet {
    Packet {
        source: network.source,
        destination: network.destination,
        protocol: network.protocol,
        ports,
        source_port: 0,
        destination_port: 0,
        connection: false,
        notes: network.notes | note,
    }
}

/// A packet whose transport header is out of reach. It could ask for a connection, and is charged as if it did: otherwise
/// a sender would choose what its packets count as.
#[inline(always)]
fn unread(network: &Network, note: u32) -> Packet {
    Packet { connection: true, ..without_ports(network, Ports::Unread, note) }
}

#[inline(always)]
fn unlocated(packet: Packet) -> Parsed {
    Parsed { packet, layout: Layout::default() }
}

#[inline(always)]
fn parse_transport<F: Frame>(frame: &F, network: Network) -> Result<Parsed, Reason> {
    let first_fragment = if network.first_fragment { notes::FIRST_FRAGMENT } else { 0 };
    if network.protocol != TCP && network.protocol != UDP {
        return Ok(unlocated(without_ports(&network, Ports::None, first_fragment)));
    }
    if network.transport + size_of::<PortBytes>() > network.end {
        return Err(Reason::Malformed);
    }
    let Some(ports) = frame.read::<PortBytes>(network.transport) else {
        return Ok(unlocated(unread(&network, first_fragment | notes::SPLIT_HEADERS)));
    };
    // Of a packet in fragments the end is somewhere else.
    let mut layout = match network.first_fragment {
        true => Layout::default(),
        false => Layout {
            network: network.start as u32,
            transport: network.transport as u32,
            end: network.end as u32,
            begins_handshake: false,
        },
    };
    let mut packet = without_ports(&network, Ports::Known, first_fragment);
    packet.source_port = u16::from_be_bytes([ports[0], ports[1]]);
    packet.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    if network.protocol == UDP {
        check_udp(frame, &network)?;
        layout.begins_handshake = !network.first_fragment && begins_initial(frame, &network);
        return Ok(Parsed { packet, layout });
    }
    let length = network.end - network.transport;
    if length < TcpHdr::LEN {
        if !network.first_fragment {
            return Err(Reason::Malformed);
        }
        packet.connection = true;
        packet.notes |= notes::TINY_FRAGMENT;
        return Ok(unlocated(packet));
    }
    let Some(header) = frame.read::<TcpStart>(network.transport) else {
        packet.connection = true;
        packet.notes |= notes::SPLIT_HEADERS;
        return Ok(unlocated(packet));
    };
    // Byte 12 holds the data offset in its upper half, byte 13 the flags (RFC 9293, 3.1).
    let (header_length, flags) = ((header[12] >> 4) as usize * 4, header[13]);
    if header_length < TcpHdr::LEN || (header_length > length && !network.first_fragment) {
        return Err(Reason::Malformed);
    }
    packet.connection = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    layout.begins_handshake =
        !network.first_fragment && begins_hello(frame, network.transport + header_length, network.end);
    Ok(Parsed { packet, layout })
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Whether the bytes of a TCP segment may be the start of a ClientHello: a handshake record of TLS and the message's type in it, or
/// as much of that as there is; or what servers take before it or for it.
#[inline(always)]
fn begins_hello<F: Frame>(frame: &F, start: usize, end: usize) -> bool {
    // No bytes at all, most often.
    if end <= start {
        return false;
    }
    // With the last byte of the header: the verifier wants a read of more than one. Bounded, since it wants no place behind which
    // something is subtracted.
    let place = bounded::<0x7fff>(start as u64 - 1);
    match frame.read::<[u8; 7]>(place) {
        Some([_, kind, major, minor, high, low, message]) if end - start >= 6 => {
            let length = (high as u16) << 8 | low as u16;
            match (kind, major) {
                (TLS_HANDSHAKE, 3) => message == CLIENT_HELLO || length == 0,
                // Servers skip a warning, or an empty record, before it.
                (TLS_ALERT, 3) => length == TLS_ALERT_BYTES,
                // The form of SSL 2 (RFC 5246, E.2).
                (0x80.., _) => minor == CLIENT_HELLO && high == 3,
                _ => false,
            }
        }
        // Fewer than a ClientHello begins with, and maybe padding behind.
        _ => matches!(frame.read::<[u8; 2]>(place), Some([_, TLS_HANDSHAKE | TLS_ALERT])),
    }
}

/// Type of a TLS record with handshake messages (RFC 8446, 5.1), and of a ClientHello among these (4).
const TLS_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Type of a TLS record with an alert, and the length of one that is not encrypted (RFC 8446, 6).
const TLS_ALERT: u8 = 21;
const TLS_ALERT_BYTES: u16 = 2;

/// Whether a UDP packet may be an Initial, by its size and its first bytes.
#[inline(always)]
fn begins_initial<F: Frame>(frame: &F, network: &Network) -> bool {
    let start = network.transport + UdpHdr::LEN;
    let sizes = DATAGRAM_BYTES_MIN as usize..=DATAGRAM_BYTES_MAX as usize;
    sizes.contains(&network.end.wrapping_sub(start)) && frame.read(start).is_some_and(initial::may_begin)
}

/// The length in a UDP header covers the header and stays inside the packet, fragments aside (RFC 768).
#[inline(always)]
fn check_udp<F: Frame>(frame: &F, network: &Network) -> Result<(), Reason> {
    if network.first_fragment {
        return Ok(());
    }
    let length = network.end - network.transport;
    if length < UdpHdr::LEN {
        return Err(Reason::Malformed);
    }
    let Some(header) = frame.read::<UdpHdr>(network.transport) else { return Ok(()) };
    let claimed = u16::from_be_bytes(header.len) as usize;
    // 0 stands for "to the end of the jumbogram" (RFC 2675, 4).
    if claimed > length || (claimed < UdpHdr::LEN && claimed != 0) {
        return Err(Reason::Malformed);
    }
    Ok(())
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
