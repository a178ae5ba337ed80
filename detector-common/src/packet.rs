//! What a frame says: who sends to whom, and what kind of packet it is.
//!
//! Read through: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with up to
//! [`EXTENSION_HEADERS_MAX`] extension headers, TCP, UDP, ICMP, ICMPv6. What cannot be judged passes, with the reason
//! that this parser gives. Sources: RFC 791, 8200, 9293, 768, 4861, 6946, IEEE 802.1Q.

use core::ops::ControlFlow;

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
    limits::{EXTENSION_HEADERS_MAX, FRAME_BYTES_MAX, VLAN_TAGS_MAX},
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

/// Where the headers of a packet lie, bytes from the start of the frame, and whether it may begin a handshake. All 0 where the transport
/// header was not read, and of fragments.
///
/// | bits | meaning |
/// |---|---|
/// | 0–7 | start of the network header |
/// | 8–31 | start of the transport header |
/// | 32–62 | end of the packet |
/// | 63 | whether it may begin a handshake |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Layout(u64);

const TRANSPORT_SHIFT: u32 = 8;
const END_SHIFT: u32 = 32;
const BEGINS_HANDSHAKE: u64 = 1 << 63;

const _: () = assert!(EthHdr::LEN + VLAN_TAGS_MAX * VlanHdr::LEN < 1 << TRANSPORT_SHIFT);
const _: () = assert!(FRAME_BYTES_MAX < 1 << (END_SHIFT - TRANSPORT_SHIFT));

impl Layout {
    /// Of a packet whose transport header is not read to its end, or that is not whole.
    pub const NOWHERE: Self = Self(0);

    /// Of a packet that begins no handshake, in a frame of at most [`FRAME_BYTES_MAX`].
    #[inline(always)]
    pub const fn new(network: usize, transport: usize, end: usize) -> Self {
        Self(network as u64 | (transport as u64) << TRANSPORT_SHIFT | (end as u64) << END_SHIFT)
    }

    /// The same of a packet that may begin a handshake: its bytes start as a ClientHello over TCP does, or as an Initial of QUIC. Told
    /// by the parser since it has the headers at hand: no other packet pays for the look.
    #[inline(always)]
    pub const fn beginning_handshake(self) -> Self {
        Self(self.0 | BEGINS_HANDSHAKE)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Of such a word.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// Where the network header starts.
    #[inline(always)]
    pub const fn network(self) -> u32 {
        self.0 as u32 & ((1 << TRANSPORT_SHIFT) - 1)
    }

    /// Where the transport header starts.
    #[inline(always)]
    pub const fn transport(self) -> u32 {
        self.0 as u32 >> TRANSPORT_SHIFT
    }

    /// Where the packet ends; an Ethernet frame may be padded beyond.
    #[inline(always)]
    pub const fn end(self) -> u32 {
        (self.0 >> END_SHIFT) as u32 & !(1 << 31)
    }

    /// See [`Self::beginning_handshake`].
    #[inline(always)]
    pub const fn begins_handshake(self) -> bool {
        self.0 & BEGINS_HANDSHAKE != 0
    }
}

/// A packet and where it lies in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Parsed {
    /// The packet.
    pub packet: Packet,
    /// Where its headers are.
    pub layout: Layout,
}

impl Parsed {
    /// All zero: nothing is known yet.
    pub const EMPTY: Self = Self {
        packet: Packet {
            source: Address::v4([0; 4]),
            destination: Address::v4([0; 4]),
            notes: 0,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            ports: Ports::Known,
            connection: false,
        },
        layout: Layout::NOWHERE,
    };

    #[inline(always)]
    fn note(&mut self, note: u32) {
        self.packet.notes |= note;
    }

    #[inline(always)]
    fn set_ports(&mut self, source: [u8; 2], destination: [u8; 2]) {
        self.packet.source_port = u16::from_be_bytes(source);
        self.packet.destination_port = u16::from_be_bytes(destination);
    }

    /// A packet whose ports are not read.
    #[inline(always)]
    fn end_without_ports(&mut self, ports: Ports, note: u32) {
        self.packet.ports = ports;
        self.note(note);
    }

    /// A packet whose transport header is out of reach. It could ask for a connection, and is charged as if it did: otherwise
    /// a sender would choose what its packets count as.
    #[inline(always)]
    fn end_unread(&mut self, note: u32) {
        self.packet.connection = true;
        self.end_without_ports(Ports::Unread, note);
    }
}

/// Where the parser stands in the network layer.
struct Network {
    /// Where the network header starts.
    start: usize,
    /// Where the transport header starts.
    transport: usize,
    /// Where the packet ends; an Ethernet frame may be padded beyond.
    end: usize,
    protocol: u8,
    first_fragment: bool,
}

impl Network {
    #[inline(always)]
    fn layout(&self) -> Layout {
        Layout::new(self.start, self.transport, self.end)
    }
}

/// Reads a frame: a packet to judge, or the reason why it passes unjudged.
///
/// # Errors
///
/// The reason.
pub fn parse<F: Frame>(frame: &F) -> Result<Parsed, Reason> {
    let mut parsed = Parsed::EMPTY;
    parse_into(frame, &mut parsed)?;
    Ok(parsed)
}

/// Reads a frame as [`parse`] does, into what is [`Parsed::EMPTY`] before: field by field as they are read, since a BPF program has few
/// registers to carry them in.
///
/// # Errors
///
/// The reason why it passes unjudged; then what was read means nothing.
#[inline(always)]
pub fn parse_into<F: Frame>(frame: &F, parsed: &mut Parsed) -> Result<(), Reason> {
    let ethernet = frame.read::<EthHdr>(0).ok_or(Reason::Truncated)?;
    let mut ether_type = ethernet.ether_type;
    let mut offset = EthHdr::LEN;
    for tag in 0..VLAN_TAGS_MAX {
        if !is_vlan(ether_type) {
            break;
        }
        let vlan = frame.read::<VlanHdr>(offset).ok_or(Reason::Truncated)?;
        ether_type = vlan.ether_type;
        offset += VlanHdr::LEN;
        parsed.packet.notes = if tag == 0 { notes::VLAN } else { notes::QINQ };
    }
    if ether_type == EtherType::Ipv4 as u16 {
        return parse_v4(frame, offset, parsed);
    }
    if ether_type == EtherType::Ipv6 as u16 {
        return parse_v6(frame, offset, parsed);
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
fn parse_v4<F: Frame>(frame: &F, offset: usize, parsed: &mut Parsed) -> Result<(), Reason> {
    let header = frame.read::<Ipv4Hdr>(offset).ok_or(Reason::Truncated)?;
    parsed.packet.source = Address::v4(header.src_addr);
    parsed.packet.destination = Address::v4(header.dst_addr);
    parsed.packet.protocol = header.proto;
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
        parsed.note(notes::IPV4_OPTIONS);
    }
    let fragment = u16::from_be_bytes(header.frags);
    if fragment & 0x1fff != 0 {
        parsed.end_without_ports(Ports::InFirstFragment, notes::LATER_FRAGMENT);
        return Ok(());
    }
    let network = Network {
        start: offset,
        transport: offset + header_length,
        end: offset + total_length,
        protocol: header.proto,
        first_fragment: fragment & 0x2000 != 0,
    };
    parse_transport(frame, &network, parsed)
}

#[inline(always)]
fn parse_v6<F: Frame>(frame: &F, offset: usize, parsed: &mut Parsed) -> Result<(), Reason> {
    let header = frame.read::<Ipv6Hdr>(offset).ok_or(Reason::Truncated)?;
    if header.vcf[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    parsed.packet.source = Address::v6(header.src_addr);
    parsed.packet.destination = Address::v6(header.dst_addr);
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
    let mut network =
        Network { start: offset, transport, end, protocol: header.next_hdr, first_fragment: false };
    if is_extension(network.protocol) {
        parsed.note(notes::IPV6_EXTENSIONS);
        if walk_extensions(frame, &mut network, parsed)?.is_break() {
            return Ok(());
        }
    }
    parsed.packet.protocol = network.protocol;
    if network.protocol == ICMPV6
        && header.hop_limit == 255
        && !network.first_fragment
        && is_neighbour_discovery(frame, &network)
    {
        return Err(Reason::NeighbourDiscovery);
    }
    parse_transport(frame, &network, parsed)
}

/// Walks to the transport header, or breaks off before it.
#[inline(always)]
fn walk_extensions<F: Frame>(
    frame: &F,
    network: &mut Network,
    parsed: &mut Parsed,
) -> Result<ControlFlow<()>, Reason> {
    // Hidden from the compiler: unrolled eight times, the walk would take more stack than a BPF program has.
    for _ in 0..core::hint::black_box(EXTENSION_HEADERS_MAX) {
        if !is_extension(network.protocol) {
            return Ok(ControlFlow::Continue(()));
        }
        if network.transport + ExtensionHdr::LEN > network.end {
            return Err(Reason::Malformed);
        }
        let Some(extension) = frame.read::<ExtensionHdr>(network.transport) else {
            parsed.end_unread(notes::SPLIT_HEADERS);
            return Ok(ControlFlow::Break(()));
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
                parsed.end_without_ports(Ports::Unread, notes::LATER_FRAGMENT);
                return Ok(ControlFlow::Break(()));
            }
        }
        network.protocol = extension.next_header;
        network.transport += length;
    }
    if is_extension(network.protocol) {
        parsed.end_unread(notes::EXTENSION_LIMIT);
        return Ok(ControlFlow::Break(()));
    }
    Ok(ControlFlow::Continue(()))
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
fn parse_transport<F: Frame>(frame: &F, network: &Network, parsed: &mut Parsed) -> Result<(), Reason> {
    if network.first_fragment {
        parsed.note(notes::FIRST_FRAGMENT);
    }
    if network.protocol != TCP && network.protocol != UDP {
        parsed.end_without_ports(Ports::None, 0);
        return Ok(());
    }
    if network.transport + size_of::<PortBytes>() > network.end {
        return Err(Reason::Malformed);
    }
    match network.protocol == UDP {
        true => parse_udp(frame, network, parsed),
        false => parse_tcp(frame, network, parsed),
    }
}

/// Reads the ports of a packet whose transport header is not there as a whole; false where they are not either.
#[inline(always)]
fn read_ports<F: Frame>(frame: &F, network: &Network, parsed: &mut Parsed) -> bool {
    let ports = frame.read::<PortBytes>(network.transport);
    match ports {
        Some([a, b, c, d]) => parsed.set_ports([a, b], [c, d]),
        None => parsed.end_unread(notes::SPLIT_HEADERS),
    }
    ports.is_some()
}

#[inline(always)]
fn parse_tcp<F: Frame>(frame: &F, network: &Network, parsed: &mut Parsed) -> Result<(), Reason> {
    let length = network.end - network.transport;
    if length < TcpHdr::LEN {
        if !network.first_fragment {
            return Err(Reason::Malformed);
        }
        parse_part_of_tcp(frame, network, parsed, notes::TINY_FRAGMENT);
        return Ok(());
    }
    let Some(header) = frame.read::<TcpStart>(network.transport) else {
        parse_part_of_tcp(frame, network, parsed, notes::SPLIT_HEADERS);
        return Ok(());
    };
    parsed.set_ports([header[0], header[1]], [header[2], header[3]]);
    // Byte 12 holds the data offset in its upper half, byte 13 the flags (RFC 9293, 3.1).
    let header_length = (header[12] >> 4) as usize * 4;
    if header_length < TcpHdr::LEN {
        return Err(Reason::Malformed);
    }
    parsed.packet.connection = header[13] & (TCP_SYN | TCP_ACK) == TCP_SYN;
    if network.first_fragment {
        return Ok(());
    }
    if header_length > length {
        return Err(Reason::Malformed);
    }
    parsed.layout = network.layout();
    if begins_hello(frame, network.transport + header_length, network.end) {
        parsed.layout = parsed.layout.beginning_handshake();
    }
    Ok(())
}

/// A TCP segment whose flags are out of reach. It could ask for a connection, as in [`Parsed::end_unread`].
#[inline(always)]
fn parse_part_of_tcp<F: Frame>(frame: &F, network: &Network, parsed: &mut Parsed, note: u32) {
    if read_ports(frame, network, parsed) {
        parsed.packet.connection = true;
        parsed.note(note);
    }
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
    let Some([_, kind]) = frame.read::<[u8; 2]>(place) else { return false };
    if !matches!(kind, TLS_HANDSHAKE | TLS_ALERT | SSL2..) {
        return false;
    }
    // Fewer than a ClientHello begins with, and maybe padding behind.
    if end - start < 6 {
        return kind < SSL2;
    }
    let Some([_, _, major, minor, high, low, message]) = frame.read::<[u8; 7]>(place) else {
        return kind < SSL2;
    };
    let length = (high as u16) << 8 | low as u16;
    match kind {
        TLS_HANDSHAKE => major == 3 && (message == CLIENT_HELLO || length == 0),
        // Servers skip a warning, or an empty record, before it.
        TLS_ALERT => major == 3 && length == TLS_ALERT_BYTES,
        _ => minor == CLIENT_HELLO && high == 3,
    }
}

/// Where the first bytes of a ClientHello in the form of SSL 2 start (RFC 5246, E.2).
const SSL2: u8 = 0x80;

/// Type of a TLS record with handshake messages (RFC 8446, 5.1), and of a ClientHello among these (4).
const TLS_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Type of a TLS record with an alert, and the length of one that is not encrypted (RFC 8446, 6).
const TLS_ALERT: u8 = 21;
const TLS_ALERT_BYTES: u16 = 2;

/// The length in the header covers the header and stays inside the packet, fragments aside (RFC 768).
#[inline(always)]
fn parse_udp<F: Frame>(frame: &F, network: &Network, parsed: &mut Parsed) -> Result<(), Reason> {
    let length = network.end - network.transport;
    if length < UdpHdr::LEN && !network.first_fragment {
        return Err(Reason::Malformed);
    }
    let Some(header) = frame.read::<UdpHdr>(network.transport) else {
        read_ports(frame, network, parsed);
        return Ok(());
    };
    parsed.set_ports(header.src, header.dst);
    if network.first_fragment {
        return Ok(());
    }
    let claimed = u16::from_be_bytes(header.len) as usize;
    // 0 stands for "to the end of the jumbogram" (RFC 2675, 4).
    if claimed > length || (claimed < UdpHdr::LEN && claimed != 0) {
        return Err(Reason::Malformed);
    }
    parsed.layout = network.layout();
    if begins_initial(frame, network) {
        parsed.layout = parsed.layout.beginning_handshake();
    }
    Ok(())
}

/// Whether a UDP packet may be an Initial, by its size and its first bytes.
#[inline(always)]
fn begins_initial<F: Frame>(frame: &F, network: &Network) -> bool {
    let start = network.transport + UdpHdr::LEN;
    let sizes = DATAGRAM_BYTES_MIN as usize..=DATAGRAM_BYTES_MAX as usize;
    sizes.contains(&network.end.wrapping_sub(start)) && frame.read(start).is_some_and(initial::may_begin)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
