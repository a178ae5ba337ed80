//! Random frames: most of them whole, some of them damaged.

use bytes::BytesMut;
use detector_tests::{
    packet::{Packet, ether_type, ethernet, flags, ip, padded, protocol, tcp, udp},
    random::Random,
};

use crate::policies::{DESTINATIONS, PORTS, SOURCES};

/// A frame.
pub(crate) fn random(random: &mut Random) -> BytesMut {
    if random.once_in(50) {
        let kind = *random.pick(&[ether_type::ARP, ether_type::LLDP, ether_type::IPV4, ether_type::VLAN]);
        return ethernet(kind, &vec![0; random.index(60)]);
    }
    let packet = transport(random);
    let packet = decorated(random, packet);
    let frame = packet.frame();
    match random.below(3) {
        0 => damaged(random, frame),
        1 if random.once_in(4) => padded(frame, random.index(20)),
        _ => frame,
    }
}

fn transport(random: &mut Random) -> Packet {
    let is_v4 = random.once_in(2);
    let of_family = |address: &&&str| address.contains('.') == is_v4;
    let sources: Vec<_> = SOURCES.iter().filter(of_family).collect();
    let destinations: Vec<_> = DESTINATIONS.iter().filter(of_family).collect();
    let (source, destination) = (**random.pick(&sources), **random.pick(&destinations));
    let port = *random.pick(PORTS);
    let (from, to) = if is_v4 {
        (format!("{source}:4000"), format!("{destination}:{port}"))
    } else {
        (format!("[{source}]:4000"), format!("[{destination}]:{port}"))
    };
    match random.below(8) {
        0..3 => {
            let flags =
                *random.pick(&[flags::SYN, flags::SYN, flags::SYN, flags::ACK, flags::SYN | flags::ACK]);
            tcp(&from, &to, flags)
        }
        3..6 => udp(&from, &to),
        6 if !is_v4 => {
            let kind = *random.pick(&[128, 132, 133, 135, 136, 137, 138]);
            ip(source, destination, protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0])
                .hop_limit(*random.pick(&[64, 255]))
        }
        _ => {
            let number = *random.pick(&[protocol::ICMP, protocol::GRE, protocol::ESP, protocol::SCTP, 255]);
            ip(source, destination, number, &[0; 8])
        }
    }
}

fn decorated(random: &mut Random, mut packet: Packet) -> Packet {
    let is_v6 = packet.is_ipv6();
    for _ in 0..[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3][random.index(16)] {
        packet = packet.tag(*random.pick(&[ether_type::VLAN, ether_type::QINQ, ether_type::QINQ_OLD]));
    }
    if !is_v6 && random.once_in(4) {
        packet = packet.options(4 * random.index(11));
    }
    if is_v6 && random.once_in(3) {
        for _ in 0..1 + random.below(10) {
            let extensions = [
                protocol::HOP_BY_HOP,
                protocol::ROUTING,
                protocol::DESTINATION_OPTIONS,
                protocol::MOBILITY,
                protocol::HOST_IDENTITY,
                protocol::SHIM6,
            ];
            packet = match random.below(8) {
                0 => packet.authentication(12 + 4 * random.index(5)),
                _ => packet.extension(*random.pick(&extensions), 8 + 8 * random.index(3)),
            };
        }
    }
    if random.once_in(6) {
        let offset = *random.pick(&[0, 0, 0, 1, 185, 8191]);
        packet = packet.fragment(offset, random.once_in(2));
    }
    match random.below(4) {
        0 => packet.payload(random.index(1400)),
        1 if random.once_in(4) => packet.cut_transport(random.index(20)),
        _ => packet.payload(random.index(20)),
    }
}

/// A frame with one to three things wrong.
fn damaged(random: &mut Random, mut frame: BytesMut) -> BytesMut {
    for _ in 0..1 + random.below(3) {
        // Headers are where it hurts.
        let place = random.index(frame.len().min(120));
        match random.below(5) {
            0 => frame[place] ^= 1 << random.below(8),
            1 => frame[place] = *random.pick(&[0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x60, 0x7f, 0x80, 0xff]),
            2 => frame.truncate(14 + random.index(frame.len() - 13)),
            3 => frame.extend_from_slice(&random.bytes()),
            _ => {
                let bytes = random.bytes();
                let end = (place + 2).min(frame.len());
                frame[place..end].copy_from_slice(&bytes[..end - place]);
            }
        }
    }
    frame
}
