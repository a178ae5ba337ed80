//! IPv6: extension headers, fragments, neighbour discovery.

use detector_tests::{
    packet::{cut, flags, icmpv6, ip, padded, patched, protocol, tcp, udp},
    rows::Rig,
};

use crate::*;

#[test]
fn neighbour_discovery_passes_from_the_link_only() {
    let message = |kind, hop_limit| icmpv6("2001:db8:a:b::7", "2001:db8::10", kind).hop_limit(hop_limit);
    let discovery = "pass neighbour_discovery; none.neighbour_discovery 1";
    let walked = "pass unlimited; rest.unlimited 1; ipv6_extensions 1; first_fragment 1; source_created 1; \
                  2001:db8:a:b::/64@rest packets 1";
    Rig::under(POLICY).check_each(&[
        ("router solicitation", &message(133, 255).frame(), discovery),
        ("router advertisement", &message(134, 255).frame(), discovery),
        ("neighbour solicitation", &message(135, 255).frame(), discovery),
        ("neighbour advertisement", &message(136, 255).frame(), discovery),
        ("redirect", &message(137, 255).frame(), discovery),
        (
            "behind a hop-by-hop header",
            &message(135, 255).extension(protocol::HOP_BY_HOP, 8).frame(),
            discovery,
        ),
        ("through a router", &message(135, 64).frame(), REST_V6),
        ("through one router", &message(135, 254).frame(), REST_V6),
        ("echo", &message(128, 64).frame(), REST_V6),
        ("echo from the link", &message(128, 255).frame(), REST_V6),
        ("the type before", &message(132, 255).frame(), REST_V6),
        ("the type after", &message(138, 255).frame(), REST_V6),
        ("in fragments (RFC 6980 forbids it)", &message(135, 255).fragment(0, true).frame(), walked),
        ("cut before the type", &message(135, 255).cut_transport(0).frame(), REST_V6),
    ]);
}

#[test]
fn ipv6_headers() {
    let ack = tcp(SOURCE_V6, API_V6, flags::ACK);
    let network = ack.network_offset();
    let with_length = |length: u16| patched(ack.frame(), network + 4, &length.to_be_bytes());
    Rig::under(POLICY).check_each(&[
        ("TCP", &ack.frame(), CONFORMING_V6),
        ("UDP", &udp(SOURCE_V6, API_V6).frame(), CONFORMING_V6),
        ("padding behind the packet", &padded(ack.frame(), 5), CONFORMING_V6),
        ("version 4 under the type of IPv6", &patched(ack.frame(), network, &[0x45]), MALFORMED),
        ("traffic class and flow label", &patched(ack.frame(), network, &[0x6f, 0xff, 0xff]), CONFORMING_V6),
        ("payload beyond the frame", &with_length(21), TRUNCATED),
        ("payload that ends in the TCP header", &with_length(19), MALFORMED),
        ("payload of 0, as segmentation offload leaves it", &with_length(0), CONFORMING_V6),
        ("header cut", &cut(ack.frame(), network + 39), TRUNCATED),
        ("frame ends with the header", &cut(ack.frame(), network + 40), TRUNCATED),
        (
            "SYN",
            &tcp(SOURCE_V6, API_V6, flags::SYN).frame(),
            "pass conforming; api.conforming 1; source_created 1; followed 1; fingerprint_created 1; 2001:db8:a:b::/64@api packets 1 connections 1",
        ),
    ]);
}

#[test]
fn ipv6_extension_headers() {
    let ack = tcp(SOURCE_V6, API_V6, flags::ACK);
    let behind = |protocol, bytes| ack.clone().extension(protocol, bytes).frame();
    let many = |count| (0..count).fold(ack.clone(), |ack, _| ack.extension(protocol::DESTINATION_OPTIONS, 8));
    let unread = "pass conforming; api.conforming 1; ipv6_extensions 1; extension_limit 1; source_created 1; \
                  2001:db8:a:b::/64@api packets 1 connections 1";
    let jumbogram = ack.clone().extension(protocol::HOP_BY_HOP, 8).frame();
    let one = ack.clone().extension(protocol::ROUTING, 24);
    Rig::under(POLICY).check_each(&[
        ("hop-by-hop", &behind(protocol::HOP_BY_HOP, 8), EXTENSIONS_V6),
        ("routing", &behind(protocol::ROUTING, 24), EXTENSIONS_V6),
        ("destination options", &behind(protocol::DESTINATION_OPTIONS, 2048), EXTENSIONS_V6),
        ("authentication", &ack.clone().authentication(24).frame(), EXTENSIONS_V6),
        ("authentication of 12 bytes", &ack.clone().authentication(12).frame(), EXTENSIONS_V6),
        ("mobility", &behind(protocol::MOBILITY, 8), EXTENSIONS_V6),
        ("host identity", &behind(protocol::HOST_IDENTITY, 40), EXTENSIONS_V6),
        ("shim6", &behind(protocol::SHIM6, 8), EXTENSIONS_V6),
        ("eight", &many(8).frame(), EXTENSIONS_V6),
        ("nine", &many(9).frame(), unread),
        ("ten", &many(10).frame(), unread),
        ("a jumbogram", &patched(jumbogram, 18, &[0, 0]), EXTENSIONS_V6),
        ("longer than the payload", &patched(one.frame(), 55, &[200]), MALFORMED),
        ("payload ends in it", &patched(one.frame(), 18, &[0, 7]), MALFORMED),
        ("frame ends in it, after eight bytes", &cut(one.frame(), 62), TRUNCATED),
        ("frame ends in it, before eight bytes", &cut(one.frame(), 61), TRUNCATED),
        (
            "nothing follows",
            &ip("2001:db8:a:b::7", "2001:db8::10", protocol::NO_NEXT_HEADER, &[])
                .extension(protocol::HOP_BY_HOP, 8)
                .frame(),
            "pass unlimited; rest.unlimited 1; ipv6_extensions 1; source_created 1; \
             2001:db8:a:b::/64@rest packets 1",
        ),
    ]);
}

#[test]
fn ipv6_fragments() {
    let syn = tcp(SOURCE_V6, API_V6, flags::SYN).payload(12);
    let later = "pass conforming; api.conforming 1; ipv6_extensions 1; later_fragment 1; source_created 1; \
                 2001:db8:a:b::/64@api packets 1";
    Rig::under(POLICY).check_each(&[
        (
            "first",
            &syn.clone().fragment(0, true).frame(),
            "pass conforming; api.conforming 1; ipv6_extensions 1; first_fragment 1; source_created 1; \
             2001:db8:a:b::/64@api packets 1 connections 1",
        ),
        (
            "atomic: first and last at once (RFC 6946)",
            &syn.clone().fragment(0, false).frame(),
            "pass conforming; api.conforming 1; ipv6_extensions 1; source_created 1; \
             followed 1; fingerprint_created 1; 2001:db8:a:b::/64@api packets 1 connections 1",
        ),
        (
            "tiny",
            &syn.clone().fragment(0, true).cut_transport(8).frame(),
            "pass conforming; api.conforming 1; ipv6_extensions 1; first_fragment 1; tiny_fragment 1; \
             source_created 1; 2001:db8:a:b::/64@api packets 1 connections 1",
        ),
        ("later", &syn.clone().fragment(4, true).frame(), later),
        ("last", &syn.clone().fragment(8, false).frame(), later),
        (
            "later, behind a hop-by-hop header",
            &syn.clone().extension(protocol::HOP_BY_HOP, 8).fragment(4, true).frame(),
            later,
        ),
        (
            "later, of a chain of headers",
            &syn.clone().fragment(4, true).extension(protocol::DESTINATION_OPTIONS, 8).frame(),
            later,
        ),
        (
            "later, that says it is of ICMPv6: only the first fragment's word counts",
            &icmpv6("2001:db8:a:b::7", "2001:db8::10", 128).fragment(4, true).frame(),
            later,
        ),
    ]);
}
