//! Frames of every kind over IPv4, and what is the same in both families.

use detector_tests::{
    packet::{cut, ether_type, ethernet, flags, ip, padded, patched, protocol, tcp, udp},
    rows::Rig,
};

use crate::*;

#[test]
fn frames_that_are_not_ip_pass() {
    Rig::under(POLICY).check_each(&[
        ("ARP", &ethernet(ether_type::ARP, &[0; 46]), NOT_IP),
        ("LLDP", &ethernet(ether_type::LLDP, &[2; 46]), NOT_IP),
        ("a length instead of a type (802.3)", &ethernet(46, &[0; 46]), NOT_IP),
        ("nothing but an Ethernet header", &ethernet(ether_type::ARP, &[]), NOT_IP),
        ("ARP in a VLAN", &ethernet(ether_type::VLAN, &[0, 7, 8, 6, 0, 0]), NOT_IP),
        ("nothing behind the header", &ethernet(ether_type::IPV4, &[]), TRUNCATED),
        ("nothing behind the header, IPv6", &ethernet(ether_type::IPV6, &[]), TRUNCATED),
        ("half a VLAN tag", &ethernet(ether_type::VLAN, &[0, 7, 8]), TRUNCATED),
        ("half a second tag", &ethernet(ether_type::QINQ, &[0, 7, 0x81, 0, 0, 7]), TRUNCATED),
    ]);
}

#[test]
fn no_frame_is_shorter_than_an_ethernet_header() {
    let mut rig = Rig::under(POLICY);
    let refused = rig.bench_mut().run(&[0; 13]);
    assert!(refused.is_err(), "the kernel shows an XDP program no less than 14 bytes: {refused:?}");
}

#[test]
fn tags_are_read_through_up_to_two() {
    let syn_ack = tcp(SOURCE, API, flags::SYN | flags::ACK);
    let tagged = |tags: &[u16]| tags.iter().fold(syn_ack.clone(), |packet, &tag| packet.tag(tag)).frame();
    let vlan = "pass conforming; api.conforming 1; vlan 1; source_created 1; 10.1.2.3/32@api packets 1";
    let qinq = "pass conforming; api.conforming 1; qinq 1; source_created 1; 10.1.2.3/32@api packets 1";
    let too_deep = "pass vlan_depth; none.vlan_depth 1";
    Rig::under(POLICY).check_each(&[
        ("no tag", &tagged(&[]), CONFORMING),
        ("802.1Q", &tagged(&[ether_type::VLAN]), vlan),
        ("802.1ad alone", &tagged(&[ether_type::QINQ]), vlan),
        ("802.1ad, 802.1Q", &tagged(&[ether_type::QINQ, ether_type::VLAN]), qinq),
        ("802.1Q twice", &tagged(&[ether_type::VLAN, ether_type::VLAN]), qinq),
        ("the older outer type", &tagged(&[ether_type::QINQ_OLD, ether_type::VLAN]), qinq),
        ("three tags", &tagged(&[ether_type::QINQ, ether_type::VLAN, ether_type::VLAN]), too_deep),
        (
            "IPv6 in two tags",
            &udp(SOURCE_V6, API_V6).tag(ether_type::QINQ).tag(ether_type::VLAN).frame(),
            "pass conforming; api.conforming 1; qinq 1; source_created 1; 2001:db8:a:b::/64@api packets 1",
        ),
    ]);
}

#[test]
fn ipv4_headers() {
    let ack = tcp(SOURCE, API, flags::ACK);
    let network = ack.network_offset();
    let options = "pass conforming; api.conforming 1; ipv4_options 1; source_created 1; \
                   10.1.2.3/32@api packets 1";
    let with_length = |length: u16| patched(ack.frame(), network + 2, &length.to_be_bytes());
    let with_first_byte = |byte| patched(ack.frame(), network, &[byte]);
    Rig::under(POLICY).check_each(&[
        ("no options", &ack.frame(), CONFORMING),
        ("4 bytes of options", &ack.clone().options(4).frame(), options),
        ("40 bytes of options", &ack.clone().options(40).frame(), options),
        ("header of 16 bytes", &with_first_byte(0x44), MALFORMED),
        ("header of 0 bytes", &with_first_byte(0x40), MALFORMED),
        ("version 6 under the type of IPv4", &with_first_byte(0x65), MALFORMED),
        ("version 0", &with_first_byte(0x05), MALFORMED),
        ("header longer than the packet", &with_first_byte(0x4f), MALFORMED),
        ("total length below the header's", &with_length(19), MALFORMED),
        ("total length that ends in the TCP header", &with_length(39), MALFORMED),
        ("total length beyond the frame", &with_length(41), TRUNCATED),
        ("total length 0, as segmentation offload leaves it", &with_length(0), CONFORMING),
        ("padding behind the packet", &padded(ack.frame(), 6), CONFORMING),
        ("header cut", &cut(ack.frame(), network + 19), TRUNCATED),
        ("frame ends with the header", &cut(ack.frame(), network + 20), TRUNCATED),
        ("frame ends with the ports", &cut(ack.frame(), network + 24), TRUNCATED),
    ]);
}

#[test]
fn tcp_segments() {
    let segment = |flags| tcp(SOURCE, API, flags).frame();
    let transport = tcp(SOURCE, API, 0).transport_offset();
    let with_data_offset = |words: u8| patched(segment(flags::ACK), transport + 12, &[words << 4]);
    Rig::under(POLICY).check_each(&[
        ("SYN", &segment(flags::SYN), CONNECTION),
        ("SYN with data", &tcp(SOURCE, API, flags::SYN).payload(100).frame(), CONNECTION),
        (
            "SYN FIN: the stack decides, it is counted as a connection",
            &segment(flags::SYN | flags::FIN),
            CONNECTION,
        ),
        ("SYN ACK", &segment(flags::SYN | flags::ACK), CONFORMING),
        ("ACK", &segment(flags::ACK), CONFORMING),
        ("RST", &segment(flags::RST), CONFORMING),
        ("FIN ACK", &segment(flags::FIN | flags::ACK), CONFORMING),
        ("no flags", &segment(0), CONFORMING),
        ("a full frame", &tcp(SOURCE, API, flags::ACK).of_length(1514).frame(), CONFORMING),
        ("data offset of 16 bytes", &with_data_offset(4), MALFORMED),
        ("data offset 0", &with_data_offset(0), MALFORMED),
        ("data offset beyond the packet", &with_data_offset(6), MALFORMED),
        ("packet ends in the ports", &tcp(SOURCE, API, flags::ACK).cut_transport(3).frame(), MALFORMED),
        ("packet ends behind the ports", &tcp(SOURCE, API, flags::ACK).cut_transport(4).frame(), MALFORMED),
        ("packet ends in the header", &tcp(SOURCE, API, flags::ACK).cut_transport(19).frame(), MALFORMED),
    ]);
}

#[test]
fn udp_datagrams() {
    let datagram = udp(SOURCE, API).payload(10);
    let with_length =
        |length: u16| patched(datagram.frame(), datagram.transport_offset() + 4, &length.to_be_bytes());
    Rig::under(POLICY).check_each(&[
        ("whole", &datagram.frame(), CONFORMING),
        ("no payload", &udp(SOURCE, API).frame(), CONFORMING),
        ("length below the packet's", &with_length(9), CONFORMING),
        ("length 0", &with_length(0), CONFORMING),
        ("length below the header's", &with_length(7), MALFORMED),
        ("length beyond the packet", &with_length(19), MALFORMED),
        ("packet ends in the ports", &udp(SOURCE, API).cut_transport(2).frame(), MALFORMED),
        ("packet ends in the header", &udp(SOURCE, API).cut_transport(7).frame(), MALFORMED),
    ]);
}

#[test]
fn protocols_without_ports() {
    let of = |protocol| ip("10.1.2.3", "203.0.113.10", protocol, &[8, 0, 0, 0, 0, 0, 0, 0]).frame();
    let of_v6 = |protocol| ip("2001:db8:a:b::7", "2001:db8::10", protocol, &[0; 8]).frame();
    Rig::under(POLICY).check_each(&[
        ("ICMP", &of(protocol::ICMP), REST),
        ("GRE", &of(protocol::GRE), REST),
        ("ESP", &of(protocol::ESP), REST),
        ("SCTP", &of(protocol::SCTP), REST),
        ("an AH of IPv4 is not walked", &of(protocol::AUTHENTICATION), REST),
        ("a protocol that nobody has", &of(254), REST),
        ("no transport at all", &ip("10.1.2.3", "203.0.113.10", protocol::ICMP, &[]).frame(), REST),
        ("GRE over IPv6", &of_v6(protocol::GRE), REST_V6),
        ("ESP over IPv6", &of_v6(protocol::ESP), REST_V6),
        ("nothing follows", &of_v6(protocol::NO_NEXT_HEADER), REST_V6),
    ]);
}

#[test]
fn ipv4_fragments() {
    let syn = tcp(SOURCE, API, flags::SYN).payload(12);
    let later = "pass conforming; api.conforming 1; later_fragment 1; source_created 1; \
                 10.1.2.3/32@api packets 1";
    let first = "pass conforming; api.conforming 1; first_fragment 1; source_created 1; \
                 10.1.2.3/32@api packets 1";
    let first_syn = "pass conforming; api.conforming 1; first_fragment 1; source_created 1; \
                     10.1.2.3/32@api packets 1 connections 1";
    let tiny = "pass conforming; api.conforming 1; first_fragment 1; tiny_fragment 1; source_created 1; \
                10.1.2.3/32@api packets 1 connections 1";
    let tiny_part = |bytes| tcp(SOURCE, API, flags::ACK).fragment(0, true).cut_transport(bytes).frame();
    let icmp =
        |offset| ip("10.1.2.3", "203.0.113.10", protocol::ICMP, &[8; 8]).fragment(offset, true).frame();
    Rig::under(POLICY).check_each(&[
        ("first", &syn.clone().fragment(0, true).frame(), first_syn),
        ("later", &syn.clone().fragment(4, true).frame(), later),
        ("last", &syn.clone().fragment(8, false).frame(), later),
        ("one that would overwrite the flags", &syn.clone().fragment(1, false).frame(), later),
        ("later, of one byte", &syn.clone().fragment(8191, false).payload(1).frame(), later),
        ("later, without payload", &syn.clone().fragment(8, false).payload(0).frame(), later),
        ("tiny: ports and sequence number", &tiny_part(8), tiny),
        ("tiny: all but the last byte", &tiny_part(19), tiny),
        ("tiny: ports alone", &tiny_part(4), tiny),
        ("tinier than ports", &tiny_part(3), MALFORMED),
        ("first, of UDP, of 8 bytes", &udp(SOURCE, API).fragment(0, true).frame(), first),
        (
            "first, of UDP, whose length is that of all fragments",
            &patched(udp(SOURCE, API).fragment(0, true).frame(), 38, &[9, 0]),
            first,
        ),
        ("later, of UDP", &udp(SOURCE, API).payload(99).fragment(185, false).frame(), later),
        (
            "first, of ICMP",
            &icmp(0),
            "pass unlimited; rest.unlimited 1; first_fragment 1; source_created 1; 10.1.2.3/32@rest packets 1",
        ),
        (
            "later, of ICMP",
            &icmp(2),
            "pass unlimited; rest.unlimited 1; later_fragment 1; source_created 1; 10.1.2.3/32@rest packets 1",
        ),
        (
            "later, in a VLAN, with options",
            &syn.clone().options(8).tag(ether_type::VLAN).fragment(4, true).frame(),
            "pass conforming; api.conforming 1; vlan 1; ipv4_options 1; later_fragment 1; source_created 1; \
             10.1.2.3/32@api packets 1",
        ),
    ]);
}

#[test]
fn frames_in_several_buffers_count_whole() {
    // The kernel's test run puts some 3,500 bytes into the first buffer.
    let jumbo = tcp(SOURCE, API, flags::ACK).of_length(9014);
    let largest = tcp(SOURCE, API, flags::ACK).of_length(65_549);
    let far = tcp(SOURCE_V6, API_V6, flags::ACK)
        .extension(protocol::DESTINATION_OPTIONS, 2048)
        .extension(protocol::DESTINATION_OPTIONS, 2048);
    Rig::under(POLICY).check_each(&[
        ("9,014 bytes", &jumbo.frame(), CONFORMING),
        ("the longest IPv4 packet", &largest.frame(), CONFORMING),
        ("a packet that claims more than the frame has", &cut(jumbo.frame(), 9013), TRUNCATED),
    ]);
    // Behind the first buffer may stand whatever its sender wants to hide: it counts as a new connection.
    Rig::under(POLICY).check_each(&[(
        "a transport header behind the first buffer",
        &far.frame(),
        "pass conforming; api.conforming 1; ipv6_extensions 1; split_headers 1; source_created 1; \
             2001:db8:a:b::/64@api packets 1 connections 1",
    )]);
}

/// Every place where a frame may be cut. What is judged behind the cut is not in the way.
#[test]
fn every_cut_of_a_frame_is_truncated_and_moves_nothing_else() {
    let mut rig = Rig::under(POLICY);
    let frames = [
        tcp(SOURCE, API, flags::SYN).options(8).tag(ether_type::QINQ).tag(ether_type::VLAN).frame(),
        udp(SOURCE_V6, API_V6).extension(protocol::ROUTING, 24).fragment(0, true).payload(3).frame(),
    ];
    for frame in frames {
        for length in 14..frame.len() {
            assert_eq!(rig.row(&frame[..length]), TRUNCATED, "{length} of {} bytes", frame.len());
        }
    }
}
