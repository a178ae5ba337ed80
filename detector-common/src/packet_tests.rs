//! The parser on frames of every kind, whole, cut and damaged.

use std::{vec, vec::Vec};

use proptest::{collection::vec as vec_of, prelude::*, sample::select};

use super::*;
use crate::{
    address::Family,
    frame::{SliceFrame, Wire},
};

/// A frame of which only the first bytes are in its first buffer, as a jumbo frame's are.
struct InBuffers<'a> {
    first: SliceFrame<'a>,
    length: usize,
}

impl Frame for InBuffers<'_> {
    fn length(&self) -> usize {
        self.length
    }

    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        self.first.read(offset)
    }
}

fn parsed(frame: &[u8]) -> Result<Packet, Reason> {
    parse(&SliceFrame(frame)).map(|parsed| parsed.packet)
}

#[test]
fn headers_lie_where_the_layout_says() {
    let frame = |bytes: &str| -> Vec<u8> {
        (0..bytes.len() / 2).map(|i| u8::from_str_radix(&bytes[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    // A tag, four bytes of IPv4 options, TCP with one byte, two bytes of padding.
    let tagged = frame(concat!(
        "020000000001020000000002",
        "8100",
        "0007",
        "0800",
        "4600002d",
        "12340000",
        "40060000",
        "0a010203",
        "cb00710a",
        "01010101",
        "9c4001bb",
        "00000001",
        "00000000",
        "5010ffff",
        "00000000",
        "aa",
        "0000",
    ));
    let layout = Layout::new(18, 42, 63);
    assert_eq!(parse(&SliceFrame(&tagged)).map(|parsed| parsed.layout), Ok(layout));
    assert_eq!((layout.network(), layout.transport(), layout.end()), (18, 42, 63));
    let far = Layout::new(22, (1 << 17) - 1, (1 << 17) - 1).beginning_handshake();
    assert_eq!((far.network(), far.transport(), far.end()), (22, (1 << 17) - 1, (1 << 17) - 1));
    assert!(far.begins_handshake() && !layout.begins_handshake());
    assert_eq!(Layout::of_word(far.word()), far);
    // The first of several fragments: its end is in another packet.
    let mut fragment = tagged;
    fragment[24] = 0x20;
    assert_eq!(parse(&SliceFrame(&fragment)).map(|parsed| parsed.layout), Ok(Layout::NOWHERE));
}

/// A frame over IPv4 with a transport header and bytes behind it.
fn frame_of(protocol: u8, transport: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + transport.len() + bytes.len()).unwrap().to_be_bytes();
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend([10, 1, 2, 3, 203, 0, 113, 10]);
    frame.extend(transport);
    frame.extend(bytes);
    frame
}

fn begins_handshake(frame: &[u8]) -> bool {
    parse(&SliceFrame(frame)).unwrap().layout.begins_handshake()
}

#[test]
fn the_start_of_a_client_hello_is_seen_however_little_there_is_of_it() {
    // With options of four bytes.
    let header: Vec<u8> =
        [&[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x10][..], &[0; 10]].concat();
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    for bytes in 0..=hello.len() {
        let mut frame = frame_of(TCP, &header, &hello[..bytes]);
        assert_eq!(begins_handshake(&frame), bytes != 0, "{bytes} bytes");
        // Padding is not looked at.
        frame.extend([0xff; 20]);
        assert_eq!(begins_handshake(&frame), bytes != 0, "{bytes} bytes and padding");
    }
    for place in [0, 1, 5] {
        let mut other = hello;
        other[place] += 1;
        assert!(!begins_handshake(&frame_of(TCP, &header, &other)), "byte {place} is another");
    }
    for before in [
        &[21, 3, 1, 0, 2, 1, 90, 22, 3][..],
        &[22, 3, 1, 0, 0, 22, 3],
        &[0x80, 46, 1, 3, 1, 0, 21],
        &[21, 3, 1],
    ] {
        assert!(begins_handshake(&frame_of(TCP, &header, before)), "{before:?}");
    }
    // An alert that is encrypted, a message of another kind, data.
    for other in [
        &[21, 3, 3, 0, 26, 1, 90][..],
        &[22, 3, 3, 0, 40, 0x9a, 1],
        &[23, 3, 3, 0, 40, 1, 1],
        &[0x80, 46, 4, 3, 1, 0, 21],
    ] {
        assert!(!begins_handshake(&frame_of(TCP, &header, other)), "{other:?}");
    }
    let mut padded = frame_of(TCP, &header, &[]);
    padded.extend(hello);
    assert!(!begins_handshake(&padded), "it is no part of the packet");
    assert!(!begins_handshake(&frame_of(UDP, &[0x9c, 0x40, 0x01, 0xbb, 0, 17, 0, 0], &hello)));
    let mut fragment = frame_of(TCP, &header, &hello);
    fragment[20] = 0x20;
    assert!(!begins_handshake(&fragment));
}

#[test]
fn the_start_of_an_initial_is_seen_in_datagrams_of_its_size() {
    let datagram = |bytes: usize, start: [u8; 5]| {
        let length = u16::try_from(8 + bytes).unwrap().to_be_bytes();
        let content = [&start[..], &vec![0; bytes - 5]].concat();
        frame_of(UDP, &[0x9c, 0x40, 0x01, 0xbb, length[0], length[1], 0, 0], &content)
    };
    let (v1, v2) = ([0xc3, 0, 0, 0, 1], [0xd0, 0x6b, 0x33, 0x43, 0xcf]);
    for start in [v1, v2] {
        for (bytes, is_seen) in [(1199, false), (1200, true), (4096, true), (4097, false)] {
            assert_eq!(begins_handshake(&datagram(bytes, start)), is_seen, "{bytes} bytes, {start:?}");
        }
    }
    assert!(!begins_handshake(&datagram(1200, [0x43, 0, 0, 0, 1])), "a short header");
    assert!(!begins_handshake(&datagram(1200, [0xc3, 0, 0, 0, 9])), "a version that nobody knows");
}

/// What a frame is made of; every combination is a whole frame.
#[derive(Clone, Debug)]
struct Parts {
    tags: Vec<u16>,
    is_v6: bool,
    source: [u8; 16],
    destination: [u8; 16],
    /// IPv4 options, in words.
    options: u8,
    /// IPv6 extension headers: number, and units of 8 bytes beyond the first.
    extensions: Vec<(u8, u8)>,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    flags: u8,
    payload: usize,
}

const ADDRESS_BYTES_V4: usize = 4;

impl Parts {
    /// The frame, and what a parser should find in it.
    fn frame(&self) -> (Vec<u8>, Packet) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        let transport = self.transport();
        if self.is_v6 {
            self.put_v6(&mut frame, transport.len())
        } else {
            self.put_v4(&mut frame, transport.len())
        }
        frame.extend(transport);
        (frame, self.packet())
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        match self.protocol {
            TCP => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]),
            UDP => {
                bytes.extend((8 + self.payload as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            _ => {}
        }
        bytes.resize(bytes.len() + self.payload, 0x5a);
        bytes
    }

    fn put_v4(&self, frame: &mut Vec<u8>, transport: usize) {
        let header = 20 + 4 * usize::from(self.options);
        frame.extend([0x08, 0x00, 0x45 + self.options, 0]);
        frame.extend(((header + transport) as u16).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, self.protocol, 0, 0]);
        frame.extend(&self.source[..ADDRESS_BYTES_V4]);
        frame.extend(&self.destination[..ADDRESS_BYTES_V4]);
        frame.resize(frame.len() + header - 20, 1);
    }

    fn put_v6(&self, frame: &mut Vec<u8>, transport: usize) {
        let lengths = self.extensions.iter().map(|(_, units)| 8 + 8 * usize::from(*units));
        let numbers: Vec<_> =
            self.extensions.iter().map(|(number, _)| *number).chain([self.protocol]).collect();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(((lengths.clone().sum::<usize>() + transport) as u16).to_be_bytes());
        frame.extend([numbers[0], 64]);
        frame.extend(self.source);
        frame.extend(self.destination);
        for ((length, next), (_, units)) in lengths.zip(&numbers[1..]).zip(&self.extensions) {
            frame.extend([*next, *units]);
            frame.resize(frame.len() + length - 2, 0);
        }
    }

    fn packet(&self) -> Packet {
        let address = |bytes: [u8; 16]| match self.is_v6 {
            true => Address::v6(bytes),
            false => Address::v4([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        let mut notes = match self.tags.len() {
            0 => 0,
            1 => notes::VLAN,
            _ => notes::QINQ,
        };
        if !self.is_v6 && self.options > 0 {
            notes |= notes::IPV4_OPTIONS;
        }
        if self.is_v6 && !self.extensions.is_empty() {
            notes |= notes::IPV6_EXTENSIONS;
        }
        let has_ports = matches!(self.protocol, TCP | UDP);
        Packet {
            source: address(self.source),
            destination: address(self.destination),
            protocol: self.protocol,
            ports: if has_ports { Ports::Known } else { Ports::None },
            source_port: if has_ports { self.source_port } else { 0 },
            destination_port: if has_ports { self.destination_port } else { 0 },
            connection: self.protocol == TCP && self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN,
            notes,
        }
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let tags = vec_of(select(vec![0x8100_u16, 0x88a8, 0x9100]), 0..=VLAN_TAGS_MAX);
    // Without the fragment and authentication headers, whose lengths are written in other ways.
    let extension =
        (select(vec![HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY, HOST_IDENTITY, SHIM6]), 0_u8..4);
    let addresses = (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let transport =
        (select(vec![TCP, TCP, UDP, 1, 47, 50, 59, 132]), any::<[u16; 2]>(), any::<u8>(), 0_usize..100);
    (tags, addresses, 0_u8..=10, vec_of(extension, 0..=EXTENSION_HEADERS_MAX), transport).prop_map(
        |(tags, (is_v6, source, destination), options, extensions, (protocol, ports, flags, payload))| {
            Parts {
                tags,
                is_v6,
                source,
                destination,
                options,
                extensions,
                protocol,
                source_port: ports[0],
                destination_port: ports[1],
                flags,
                payload,
            }
        },
    )
}

/// A frame with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec_of((0_usize..120, any::<u8>()), 0..6);
    (parts(), changes, 0_usize..200).prop_map(|(parts, changes, length)| {
        let (mut frame, _) = parts.frame();
        for (place, byte) in changes {
            let place = place % frame.len();
            frame[place] = byte;
        }
        if length < frame.len() && length % 2 == 0 {
            frame.truncate(length);
        }
        frame
    })
}

/// What holds for every packet, whatever frame it came from.
fn assert_consistent(packet: &Packet) {
    let has = |note| packet.notes & note != 0;
    let is_known = packet.ports == Ports::Known;
    assert!(is_known || (packet.source_port, packet.destination_port) == (0, 0), "{packet:?}");
    assert!(!is_known || matches!(packet.protocol, TCP | UDP), "{packet:?}");
    let is_hidden = packet.ports == Ports::Unread && !has(notes::LATER_FRAGMENT);
    assert!(!packet.connection || is_hidden || (is_known && packet.protocol == TCP), "{packet:?}");
    assert!(!is_hidden || packet.connection, "{packet:?}");
    assert!(!(has(notes::VLAN) && has(notes::QINQ)), "{packet:?}");
    assert!(!has(notes::TINY_FRAGMENT) || (has(notes::FIRST_FRAGMENT) && packet.connection), "{packet:?}");
    assert!(!(has(notes::FIRST_FRAGMENT) && has(notes::LATER_FRAGMENT)), "{packet:?}");
    let is_later = matches!(packet.ports, Ports::InFirstFragment);
    assert!(!is_later || has(notes::LATER_FRAGMENT), "{packet:?}");
    let is_out_of_reach = has(notes::EXTENSION_LIMIT) || has(notes::SPLIT_HEADERS);
    assert!(!is_hidden || is_out_of_reach, "{packet:?}");
    assert!(packet.notes < 1 << 9, "{packet:?}");
    let family = packet.source.family;
    assert_eq!(family, packet.destination.family);
    assert!(family == Family::V6 || (packet.source.low, packet.destination.low) == (0, 0), "{packet:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_whole_frame_says_what_it_is_made_of(parts in parts(), padding in 0_usize..40) {
        let (mut frame, packet) = parts.frame();
        prop_assert_eq!(parsed(&frame), Ok(packet));
        frame.resize(frame.len() + padding, 0xff);
        prop_assert_eq!(parsed(&frame), Ok(packet), "with padding behind it");
    }

    #[test]
    fn every_prefix_of_a_whole_frame_is_truncated(parts in parts()) {
        let (frame, _) = parts.frame();
        for length in 0..frame.len() {
            prop_assert_eq!(parsed(&frame[..length]), Err(Reason::Truncated), "{} of {}", length, frame.len());
        }
    }

    #[test]
    fn damaged_frames_give_a_reason_to_pass_or_a_consistent_packet(frame in damaged()) {
        match parsed(&frame) {
            Ok(packet) => assert_consistent(&packet),
            Err(reason) => prop_assert!(matches!(
                reason,
                Reason::NotIp | Reason::VlanDepth | Reason::Truncated | Reason::Malformed | Reason::NeighbourDiscovery
            ), "{:?}", reason),
        }
    }

    #[test]
    fn noise_gives_a_reason_to_pass_or_a_consistent_packet(
        noise in vec_of(any::<u8>(), 0..200),
        ether_type in select(vec![0x0800_u16, 0x86dd, 0x8100]),
        first in select(vec![0x45_u8, 0x46, 0x60]),
    ) {
        let mut frame = noise;
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            frame[14] = first;
        }
        if let Ok(packet) = parsed(&frame) {
            assert_consistent(&packet);
        }
    }

    /// What the first buffer does not hold is charged as if it asked for a connection; without addresses it is unjudged.
    /// Neighbour discovery that cannot be read is judged like any ICMPv6, a defect that cannot be read is not seen.
    #[test]
    fn a_first_buffer_that_ends_early_never_makes_a_cheaper_packet(frame in damaged(), first in 0_usize..200) {
        let whole = parsed(&frame);
        let in_first = &frame[..first.min(frame.len())];
        match parse(&InBuffers { first: SliceFrame(in_first), length: frame.len() }).map(|parsed| parsed.packet) {
            Err(Reason::Truncated) => {}
            Ok(packet) if packet.notes & notes::SPLIT_HEADERS != 0 => {
                prop_assert!(packet.connection);
                if let Ok(whole) = whole {
                    prop_assert_eq!((packet.source, packet.destination), (whole.source, whole.destination));
                }
            }
            Ok(_) if whole == Err(Reason::Malformed) => {}
            Ok(packet) if whole == Err(Reason::NeighbourDiscovery) => prop_assert_eq!(packet.protocol, ICMPV6),
            other => prop_assert_eq!(other, whole),
        }
    }
}

/// Every byte of some frames takes every value.
#[test]
fn no_single_byte_breaks_the_parser() {
    let parts = |is_v6, protocol| Parts {
        tags: vec![0x8100],
        is_v6,
        source: [0x20; 16],
        destination: [0x30; 16],
        options: 1,
        extensions: vec![(HOP_BY_HOP, 0), (DESTINATION_OPTIONS, 1)],
        protocol,
        source_port: 1,
        destination_port: 2,
        flags: TCP_SYN,
        payload: 3,
    };
    for (is_v6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP), (true, ICMPV6)] {
        let (frame, _) = parts(is_v6, protocol).frame();
        for place in 0..frame.len() {
            for byte in 0..=u8::MAX {
                let mut frame = frame.clone();
                frame[place] = byte;
                if let Ok(packet) = parsed(&frame) {
                    assert_consistent(&packet);
                }
            }
        }
    }
}

#[test]
fn extension_headers_are_bounded() {
    let with = |count| Parts {
        tags: vec![],
        is_v6: true,
        source: [1; 16],
        destination: [2; 16],
        options: 0,
        extensions: vec![(DESTINATION_OPTIONS, 0); count],
        protocol: TCP,
        source_port: 1,
        destination_port: 2,
        flags: 0,
        payload: 0,
    };
    assert_eq!(parsed(&with(EXTENSION_HEADERS_MAX).frame().0).unwrap().ports, Ports::Known);
    let beyond = parsed(&with(EXTENSION_HEADERS_MAX + 1).frame().0).unwrap();
    assert_eq!(beyond.ports, Ports::Unread);
    assert_eq!(beyond.notes, notes::IPV6_EXTENSIONS | notes::EXTENSION_LIMIT);
}
