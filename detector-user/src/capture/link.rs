//! What the link types of captures look like as Ethernet frames.

use super::{MAX_FRAME_BYTES, MIN_FRAME_BYTES};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_PPPOE_DISCOVERY: u16 = 0x8863;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// IEEE 802 local experimental EtherType 1: for payloads whose protocol the capture does not tell, or that has
/// no EtherType. Nothing parses it as IP.
const ETHERTYPE_UNKNOWN: u16 = 0x88b5;

/// The link types of [`Link::from_number`], for messages.
pub(super) const SUPPORTED: &str = "NULL (0), ETHERNET (1), PPP (9), RAW (12, 14, 101), PPP_ETHER (51), LOOP (108), \
     LINUX_SLL (113), IPV4 (228), IPV6 (229), LINUX_SLL2 (276)";

/// A link type that can be turned into Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Null,
    Ethernet,
    Ppp,
    PppEther,
    Raw,
    Loop,
    LinuxSll,
    Ipv4,
    Ipv6,
    LinuxSll2,
}

impl Link {
    /// The link type of a number of <https://www.tcpdump.org/linktypes.html>.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 => Self::Ppp,
            51 => Self::PppEther,
            // 12 and 14 are the DLT_RAW of BSDs, found in old files.
            12 | 14 | 101 => Self::Raw,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }

    /// The packet as an Ethernet frame of the length that it had on the wire, `wire_len`, in bytes.
    ///
    /// Never fails: a link header that was cut off or names no known protocol gives a frame that is not IP. An
    /// Ethernet runt is filled up with zeros to [`MIN_FRAME_BYTES`].
    pub(super) fn to_ethernet(self, captured: &[u8], wire_len: u32) -> Vec<u8> {
        let wire_len = usize::try_from(wire_len).unwrap_or(usize::MAX).max(captured.len());
        let (header_len, ether_type) = match self {
            Self::Ethernet => return frame(&[], captured, wire_len),
            _ => self.header(captured),
        };
        let mut header = [0; MIN_FRAME_BYTES];
        header[12..].copy_from_slice(&ether_type.to_be_bytes());
        frame(&header, captured.get(header_len..).unwrap_or_default(), wire_len.saturating_sub(header_len))
    }

    /// How many bytes of that frame are the packet's: what follows them is zeros.
    pub(super) fn captured_bytes(self, captured: &[u8]) -> usize {
        match self {
            Self::Ethernet => captured.len(),
            _ => MIN_FRAME_BYTES + captured.len().saturating_sub(self.header(captured).0),
        }
    }

    /// The length of the link header in bytes and the EtherType of what follows it.
    fn header(self, packet: &[u8]) -> (usize, u16) {
        match self {
            Self::Ethernet => (0, ETHERTYPE_UNKNOWN),
            Self::Null => (4, array(packet, 0).map_or(ETHERTYPE_UNKNOWN, family_of_either_order)),
            Self::Loop => (4, array(packet, 0).map_or(ETHERTYPE_UNKNOWN, |b| family(u32::from_be_bytes(b)))),
            Self::Raw => (0, ip_version(packet)),
            Self::Ipv4 => (0, ETHERTYPE_IPV4),
            Self::Ipv6 => (0, ETHERTYPE_IPV6),
            Self::LinuxSll => (16, array(packet, 14).map_or(ETHERTYPE_UNKNOWN, u16::from_be_bytes)),
            Self::LinuxSll2 => (20, array(packet, 0).map_or(ETHERTYPE_UNKNOWN, u16::from_be_bytes)),
            Self::Ppp => ppp(packet),
            // The PPPoE header stays, as it does on the wire. Only its code tells the two EtherTypes apart.
            Self::PppEther => match packet.get(1) {
                Some(0) => (0, ETHERTYPE_PPPOE_SESSION),
                Some(_) => (0, ETHERTYPE_PPPOE_DISCOVERY),
                None => (0, ETHERTYPE_UNKNOWN),
            },
        }
    }
}

/// The name of a link type, without `LINKTYPE_`, for those that turn up in captures and are not supported.
pub(super) fn name(number: u32) -> &'static str {
    match number {
        3 => "AX25",
        6 => "IEEE802_5, token ring",
        7 => "ARCNET_BSD",
        8 => "SLIP",
        10 => "FDDI",
        50 => "PPP_HDLC",
        100 | 11 => "ATM_RFC1483",
        104 => "C_HDLC",
        105 => "IEEE802_11, wireless LAN",
        107 => "FRELAY",
        119 => "IEEE802_11_PRISM, wireless LAN",
        127 => "IEEE802_11_RADIOTAP, wireless LAN",
        147..=162 => "USER0 to USER15, private use",
        163 => "IEEE802_11_AVS, wireless LAN",
        166 => "PPP_PPPD",
        187 => "BLUETOOTH_HCI_H4",
        189 => "USB_LINUX",
        192 => "PPI",
        195 => "IEEE802_15_4_WITHFCS",
        201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
        220 => "USB_LINUX_MMAPPED",
        227 => "CAN_SOCKETCAN",
        230 => "IEEE802_15_4_NOFCS",
        239 => "NFLOG",
        247 => "INFINIBAND",
        249 => "USBPCAP",
        252 => "WIRESHARK_UPPER_PDU",
        253 => "NETLINK",
        258 => "PKTAP",
        271 => "VSOCK",
        274 => "ETHERNET_MPACKET",
        _ => "a type without a name here",
    }
}

/// The header and `packet`, filled up with zeros so that `packet_len` bytes follow the header, within bounds.
fn frame(header: &[u8], packet: &[u8], packet_len: usize) -> Vec<u8> {
    let len = header.len().saturating_add(packet_len).clamp(MIN_FRAME_BYTES, MAX_FRAME_BYTES);
    let mut frame = Vec::with_capacity(len);
    frame.extend_from_slice(header);
    frame.extend_from_slice(&packet[..packet.len().min(len - header.len())]);
    frame.resize(len, 0);
    frame
}

fn array<const N: usize>(packet: &[u8], offset: usize) -> Option<[u8; N]> {
    packet.get(offset..)?.first_chunk().copied()
}

/// The family was written in the byte order of the host that captured, which no header tells. Both orders of a
/// known family are known: families fit one byte.
fn family_of_either_order(bytes: [u8; 4]) -> u16 {
    match family(u32::from_le_bytes(bytes)) {
        ETHERTYPE_UNKNOWN => family(u32::from_be_bytes(bytes)),
        known => known,
    }
}

/// `AF_INET` is 2 everywhere. `AF_INET6` is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on Darwin.
fn family(family: u32) -> u16 {
    match family {
        2 => ETHERTYPE_IPV4,
        10 | 24 | 28 | 30 => ETHERTYPE_IPV6,
        _ => ETHERTYPE_UNKNOWN,
    }
}

fn ip_version(packet: &[u8]) -> u16 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ETHERTYPE_IPV4,
        Some(6) => ETHERTYPE_IPV6,
        _ => ETHERTYPE_UNKNOWN,
    }
}

/// RFC 1661 and 1662: an optional address and control field, then a protocol of one byte (odd) or two.
fn ppp(packet: &[u8]) -> (usize, u16) {
    let start = if packet.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
    let (len, protocol) = match (packet.get(start), packet.get(start + 1)) {
        (Some(&low), _) if low & 1 == 1 => (1, u16::from(low)),
        (Some(&high), Some(&low)) => (2, u16::from_be_bytes([high, low])),
        _ => (2, 0),
    };
    let ether_type = match protocol {
        0x0021 => ETHERTYPE_IPV4,
        0x0057 => ETHERTYPE_IPV6,
        0x0281 => 0x8847,
        _ => ETHERTYPE_UNKNOWN,
    };
    (start + len, ether_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [&[0; 12], &ether_type.to_be_bytes()[..], payload].concat()
    }

    #[test]
    fn every_link_type_becomes_ethernet() {
        let sll = |protocol: u16| {
            [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &protocol.to_be_bytes()].concat()
        };
        let sll2 = |protocol: u16| [&protocol.to_be_bytes()[..], &[0; 2], &[9; 16]].concat();
        let rows: &[(u32, &[u8], &[u8], u16)] = &[
            // link type, link header, payload, EtherType
            (0, &[2, 0, 0, 0], &[0x45, 7], 0x0800),
            (0, &[0, 0, 0, 2], &[0x45, 7], 0x0800),
            (0, &[24, 0, 0, 0], &[0x60, 7], 0x86dd),
            (0, &[0, 0, 0, 28], &[0x60, 7], 0x86dd),
            (0, &[30, 0, 0, 0], &[0x60, 7], 0x86dd),
            (0, &[0, 0, 0, 10], &[0x60, 7], 0x86dd),
            (0, &[7, 0, 0, 0], &[0x45, 7], 0x88b5),
            (108, &[0, 0, 0, 2], &[0x45, 7], 0x0800),
            (108, &[0, 0, 0, 30], &[0x60, 7], 0x86dd),
            (108, &[2, 0, 0, 0], &[0x45, 7], 0x88b5),
            (101, &[], &[0x45, 7], 0x0800),
            (12, &[], &[0x65, 7], 0x86dd),
            (14, &[], &[0x45, 7], 0x0800),
            (101, &[], &[0x05, 7], 0x88b5),
            (101, &[], &[], 0x88b5),
            (228, &[], &[0x45, 7], 0x0800),
            (229, &[], &[0x60, 7], 0x86dd),
            (113, &sll(0x0800), &[0x45, 7], 0x0800),
            (113, &sll(0x8100), &[0, 5, 8, 0, 0x45], 0x8100),
            (276, &sll2(0x86dd), &[0x60, 7], 0x86dd),
            (276, &sll2(0x8100), &[0, 5, 8, 0, 0x45], 0x8100),
            (9, &[0xff, 0x03, 0x00, 0x21], &[0x45, 7], 0x0800),
            (9, &[0x00, 0x57], &[0x60, 7], 0x86dd),
            (9, &[0x21], &[0x45, 7], 0x0800),
            (9, &[0xc0, 0x21], &[1, 7], 0x88b5),
            (51, &[], &[0x11, 0, 0, 1, 0, 4, 0, 0x21, 0x45, 7], 0x8864),
            (51, &[], &[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0], 0x8863),
        ];
        for (number, header, payload, ether_type) in rows {
            let packet = [*header, *payload].concat();
            let link = Link::from_number(*number).unwrap();
            let row = format!("link type {number}, header {header:02x?}");
            assert_eq!(
                link.to_ethernet(&packet, packet.len() as u32),
                ethernet(*ether_type, payload),
                "{row}"
            );
            // Cut by the snap length after the first payload byte, at most: the rest is zeros.
            let kept = packet.len().min(header.len() + 1);
            let mut padded = ethernet(*ether_type, &payload[..kept - header.len()]);
            padded.resize(14 + 1500, 0);
            if *number != 51 {
                assert_eq!(link.to_ethernet(&packet[..kept], header.len() as u32 + 1500), padded, "{row}");
            }
        }
    }

    #[test]
    fn ethernet_stays_as_it_is() {
        let frame: Vec<u8> = (0..60).collect();
        assert_eq!(Link::Ethernet.to_ethernet(&frame, 60), frame);
    }

    #[test]
    fn lengths_are_those_of_the_wire_within_bounds() {
        let rows: &[(Link, usize, u32, usize)] = &[
            // link type, captured bytes, bytes on the wire, bytes of the frame
            (Link::Ethernet, 64, 1514, 1514),
            (Link::Ethernet, 64, 0, 64),
            (Link::Ethernet, 64, 63, 64),
            (Link::Ethernet, 0, 0, 14),
            (Link::Ethernet, 13, 13, 14),
            (Link::Ethernet, 65_549, 65_549, 65_549),
            (Link::Ethernet, 65_550, 65_550, 65_549),
            (Link::Ethernet, 200_000, 200_000, 65_549),
            (Link::Ethernet, 64, u32::MAX, 65_549),
            (Link::Raw, 40, 1500, 1514),
            (Link::Raw, 65_535, 65_535, 65_549),
            (Link::Raw, 65_536, 65_536, 65_549),
            (Link::Null, 3, 3, 14),
            (Link::Null, 44, 1504, 1514),
            (Link::LinuxSll, 56, 1516, 1514),
            (Link::LinuxSll, 15, 1516, 1514),
            (Link::LinuxSll2, 60, 1520, 1514),
            (Link::Ppp, 0, 1502, 1514),
            (Link::PppEther, 1, 1500, 1514),
        ];
        for (link, captured, wire, expected) in rows {
            let frame = link.to_ethernet(&vec![0x46; *captured], *wire);
            assert_eq!(frame.len(), *expected, "{link:?}, {captured} captured of {wire}");
        }
    }

    #[test]
    fn what_the_capture_did_not_keep_is_zero() {
        let frame = Link::Ethernet.to_ethernet(&[0xaa; 20], 100);
        assert_eq!(frame[..20], [0xaa; 20]);
        assert_eq!(frame[20..], [0; 80]);
        assert_eq!(Link::Ethernet.captured_bytes(&[0xaa; 20]), 20);
        // A header of 16 bytes becomes one of 14.
        let cooked = [&[0; 14][..], &[8, 0], &[0xaa; 20]].concat();
        let frame = Link::LinuxSll.to_ethernet(&cooked, 116);
        let kept = Link::LinuxSll.captured_bytes(&cooked);
        assert_eq!((frame.len(), kept), (114, 34));
        assert_eq!((&frame[14..kept], &frame[kept..]), (&[0xaa; 20][..], &[0; 80][..]));
        assert_eq!(Link::LinuxSll.captured_bytes(&cooked[..7]), 14);
    }

    #[test]
    fn wireless_is_refused_by_name() {
        for number in [105, 119, 127, 163] {
            assert_eq!(Link::from_number(number), None);
            assert!(name(number).ends_with("wireless LAN"));
        }
    }

    #[test]
    fn the_list_for_messages_names_exactly_what_is_supported() {
        let numbers: Vec<u32> = SUPPORTED
            .split(|character: char| "(,)".contains(character))
            .filter_map(|word| word.trim().parse().ok())
            .collect();
        let supported: Vec<u32> = (0..1000).filter(|number| Link::from_number(*number).is_some()).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, supported);
    }
}
