//! Which service a packet is for, if any.

use detector_tests::{
    packet::{ether_type, ethernet, flags, ip, protocol, tcp, udp},
    rows::Rig,
};

use crate::*;

#[test]
fn services_are_found_by_address_protocol_and_port() {
    let mut rig = Rig::under(
        r#"
        version = 1
        [[service]]
        name = "web"
        addresses = ["203.0.113.10", "2001:db8::10"]
        ports = ["tcp/443"]
        [[service]]
        name = "range"
        addresses = ["203.0.113.10"]
        ports = ["tcp/8000-8001", "udp/53"]
        [[service]]
        name = "ping"
        addresses = ["203.0.113.10"]
        ports = ["icmp"]
        [[service]]
        name = "tunnel"
        addresses = ["203.0.113.10"]
        ports = ["protocol/47"]
        [[service]]
        name = "tcp24"
        addresses = ["203.0.113.0/24", "2001:db8::/48"]
        ports = ["tcp"]
        [[service]]
        name = "host"
        addresses = ["203.0.113.11"]
        [[service]]
        name = "port16"
        addresses = ["203.0.0.0/16"]
        ports = ["tcp/9000", "udp/9000"]
        [[service]]
        name = "any15"
        addresses = ["203.0.0.0/15", "2001:db8::/32"]
    "#,
    );
    let at = |service: &str| {
        format!("pass unlimited; {service}.unlimited 1; source_created 1; 10.1.2.3/32@{service} packets 1")
    };
    let at_v6 = |service: &str| {
        format!(
            "pass unlimited; {service}.unlimited 1; source_created 1; 2001:db8:a:b::/64@{service} packets 1"
        )
    };
    let tcp = |to: &str| tcp(SOURCE, to, flags::ACK).frame();
    let udp = |to: &str| udp(SOURCE, to).frame();
    let other = |to: &str, protocol| ip("10.1.2.3", to, protocol, &[0; 8]).frame();
    let tcp_v6 = |to: &str| detector_tests::packet::tcp(SOURCE_V6, to, flags::ACK).frame();
    let udp_v6 = |to: &str| detector_tests::packet::udp(SOURCE_V6, to).frame();
    let later = detector_tests::packet::tcp(SOURCE, "203.0.113.10:1", 0).fragment(9, true).payload(8).frame();
    let none = "pass no_service; none.no_service 1";
    rig.check_each(&[
        ("port", &tcp("203.0.113.10:443"), &at("web")),
        ("the same port of the other protocol", &udp("203.0.113.10:443"), &at("any15")),
        ("first port of a range", &tcp("203.0.113.10:8000"), &at("range")),
        ("last port of a range", &tcp("203.0.113.10:8001"), &at("range")),
        ("behind the range", &tcp("203.0.113.10:8002"), &at("tcp24")),
        ("before the range", &tcp("203.0.113.10:7999"), &at("tcp24")),
        ("port of UDP", &udp("203.0.113.10:53"), &at("range")),
        ("the port as the source's", &tcp("203.0.113.10:4000"), &at("tcp24")),
        ("protocol by name", &other("203.0.113.10", protocol::ICMP), &at("ping")),
        ("protocol by number", &other("203.0.113.10", protocol::GRE), &at("tunnel")),
        ("a protocol of nobody nearer", &other("203.0.113.10", protocol::ESP), &at("any15")),
        (
            "a later fragment: the first service of its protocol",
            &later,
            &at("web").replace("source_created", "later_fragment 1; source_created"),
        ),
        ("a wider prefix", &tcp("203.0.113.12:443"), &at("tcp24")),
        ("a wider prefix, not its protocol", &udp("203.0.113.12:443"), &at("any15")),
        ("everything of an address", &tcp("203.0.113.11:443"), &at("host")),
        (
            "everything of an address comes before the port of a wider prefix",
            &tcp("203.0.113.11:9000"),
            &at("host"),
        ),
        ("a protocol comes before the port of a wider prefix", &tcp("203.0.113.12:9000"), &at("tcp24")),
        ("the port of a wider prefix", &udp("203.0.113.12:9000"), &at("port16")),
        ("the port of a prefix", &tcp("203.0.112.1:9000"), &at("port16")),
        ("first address of the widest prefix", &tcp("203.0.0.0:1"), &at("any15")),
        ("last address of the widest prefix", &tcp("203.1.255.255:1"), &at("any15")),
        ("behind the widest prefix", &tcp("203.2.0.0:1"), none),
        ("before the widest prefix", &tcp("202.255.255.255:443"), none),
        ("IPv6 port", &tcp_v6("[2001:db8::10]:443"), &at_v6("web")),
        ("IPv6 protocol", &tcp_v6("[2001:db8::10]:444"), &at_v6("tcp24")),
        ("IPv6 prefix of 48", &tcp_v6("[2001:db8:0:ffff:ffff:ffff:ffff:ffff]:443"), &at_v6("tcp24")),
        ("IPv6 prefix of 32", &tcp_v6("[2001:db8:1::]:443"), &at_v6("any15")),
        ("IPv6, not its protocol", &udp_v6("[2001:db8::10]:443"), &at_v6("any15")),
        ("IPv6, no service", &tcp_v6("[2001:db9::10]:443"), none),
        ("IPv6 of the same upper half", &tcp_v6("[2001:db8::11]:443"), &at_v6("tcp24")),
    ]);
}

#[test]
fn a_destination_of_no_service_passes_whatever_it_is() {
    let none = "pass no_service; none.no_service 1";
    Rig::under(POLICY).check_each(&[
        ("SYN", &tcp(SOURCE, "192.0.2.1:443", flags::SYN).frame(), none),
        (
            "kinds of frames are counted all the same",
            &tcp(SOURCE, "192.0.2.1:443", flags::SYN).tag(ether_type::VLAN).options(4).frame(),
            "pass no_service; none.no_service 1; vlan 1; ipv4_options 1",
        ),
    ]);
}

#[test]
fn before_the_first_policy_everything_passes() {
    let none = "pass no_policy; none.no_policy 1";
    Rig::bare().check_each(&[
        ("SYN", &tcp(SOURCE, API, flags::SYN).frame(), none),
        ("IPv6", &udp(SOURCE_V6, API_V6).frame(), none),
        (
            "in a VLAN",
            &udp(SOURCE_V6, API_V6).tag(ether_type::VLAN).frame(),
            "pass no_policy; none.no_policy 1; vlan 1",
        ),
        ("ARP", &ethernet(ether_type::ARP, &[0; 46]), NOT_IP),
        ("malformed", &udp(SOURCE, API).cut_transport(2).frame(), MALFORMED),
    ]);
}

/// What hides its ports counts for the service that is limited, though another stands before it in the file.
#[test]
fn hidden_ports_are_no_way_to_a_service_without_limits() {
    let mut rig = Rig::under(
        r#"
        version = 1
        [[service]]
        name = "dns"
        addresses = ["203.0.113.10", "2001:db8::10"]
        ports = ["udp/53", "tcp/53"]
        [[service]]
        name = "api"
        addresses = ["203.0.113.10", "2001:db8::10"]
        ports = ["tcp/443"]
        profile = "customer"
        [[service]]
        name = "voice"
        addresses = ["2001:db8::10"]
        ports = ["udp/5060"]
        profile = "customer"
        [profile.customer]
        connections = { rate = "1/h", burst = 1 }
        "#,
    );
    let syn = tcp("[2001:db8:a:b::7]:4000", "[2001:db8::10]:443", flags::SYN);
    let many = (0..9).fold(syn, |syn, _| syn.extension(protocol::DESTINATION_OPTIONS, 8)).frame();
    let fragment = |source| udp(source, "203.0.113.10:53").fragment(64, false).frame();
    let entry = "2001:db8:a:b::/64@api packets 1";
    let kinds = "ipv6_extensions 1; extension_limit 1";
    rig.check_sequence(&[
        (
            0,
            "a hidden SYN",
            &many,
            &format!("pass conforming; api.conforming 1; {kinds}; source_created 1; {entry} connections 1"),
        ),
        (
            1,
            "another",
            &many,
            &format!("drop connections; api.connections 1; {kinds}; {entry} refused 1 connections 1"),
        ),
        (
            1,
            "a later fragment of UDP, which only dns has",
            &fragment("10.1.2.3:4000"),
            "pass unlimited; dns.unlimited 1; later_fragment 1; source_created 1; 10.1.2.3/32@dns packets 1",
        ),
        (
            1,
            "a later fragment of TCP",
            &tcp("10.1.2.3:4000", "203.0.113.10:53", flags::ACK).fragment(64, false).frame(),
            "pass conforming; api.conforming 1; later_fragment 1; source_created 1; 10.1.2.3/32@api packets 1",
        ),
    ]);
}

/// A service of all ports has every protocol: fragments of one that another service names without limits are limited.
#[test]
fn fragments_are_no_way_around_a_limited_service_of_all_ports() {
    let mut rig = Rig::under(
        r#"
        version = 1
        [[service]]
        name = "dns"
        addresses = ["203.0.113.10"]
        ports = ["udp/53"]
        [[service]]
        name = "rest"
        addresses = ["203.0.113.10"]
        ports = ["*"]
        profile = "customer"
        [profile.customer]
        packets = "1/s"
        "#,
    );
    let fragment = udp("10.1.2.3:4000", "203.0.113.10:53").fragment(64, false).frame();
    let whole = udp("10.1.2.3:4000", "203.0.113.10:53").frame();
    rig.check_each(&[
        (
            "a later fragment",
            &fragment,
            "pass conforming; rest.conforming 1; later_fragment 1; source_created 1; 10.1.2.3/32@rest packets 1",
        ),
        ("a whole packet", &whole, "pass unlimited; dns.unlimited 1; source_created 1; 10.1.2.3/32@dns packets 1"),
    ]);
}
