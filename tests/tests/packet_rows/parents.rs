//! Dropped for what the prefix around a source spent.

use detector_tests::{
    packet::{flags, tcp},
    rows::Rig,
};

use crate::*;

#[test]
fn packets_of_a_parent() {
    let budgets = "[profile.customer]\npackets = \"1000/s\"\n[profile.customer.parents]\n\
                   v4_24 = { packets = { rate = \"1/s\", burst = 2 } }";
    let new = "pass conforming; api.conforming 1; source_created 1";
    let over = "drop parent_packets; api.parent_packets 1; ";
    Rig::under(&budget_policy(budgets)).check_sequence(&[
        (
            0,
            "first source",
            &ack_from("10.1.2.3"),
            &format!("{new}; parent_created 1; 10.1.2.3/32@api packets 1; 10.1.2.0/24@api new"),
        ),
        (0, "second source", &ack_from("10.1.2.4"), &format!("{new}; 10.1.2.4/32@api packets 1")),
        (0, "first again", &ack_from("10.1.2.3"), &format!("{over}10.1.2.3/32@api packets 1 refused 1")),
        (
            0,
            "third source",
            &ack_from("10.1.2.5"),
            &format!("{over}source_created 1; 10.1.2.5/32@api packets 1 refused 1"),
        ),
        (
            0,
            "the prefix beside",
            &ack_from("10.1.3.5"),
            &format!("{new}; parent_created 1; 10.1.3.5/32@api packets 1; 10.1.3.0/24@api new"),
        ),
        (
            1000,
            "a second later",
            &ack_from("10.1.2.5"),
            "pass conforming; api.conforming 1; 10.1.2.5/32@api packets 1",
        ),
    ]);
}

#[test]
fn bytes_and_connections_of_a_parent() {
    let budgets = "[profile.customer.parents]\n\
                   v4_24 = { bytes = { rate = \"1kB/s\", burst = 1514 }, connections = { rate = \"1/s\", burst = 1 } }";
    let full = tcp(SOURCE, API, flags::ACK).of_length(1460).frame();
    let syn = |source: &str| tcp(source, API, flags::SYN).frame();
    Rig::under(&budget_policy(budgets)).check_sequence(&[
        (
            0,
            "one frame",
            &full,
            "pass conforming; api.conforming 1; source_created 1; parent_created 1; \
             10.1.2.3/32@api packets 1; 10.1.2.0/24@api new",
        ),
        (
            0,
            "54 bytes and a connection are left",
            &syn("10.1.2.4:1"),
            "pass conforming; api.conforming 1; source_created 1; followed 1; fingerprint_created 1; 10.1.2.4/32@api packets 1 connections 1",
        ),
        (
            0,
            "no bytes are left",
            &ack_from("10.1.2.3"),
            "drop parent_bytes; api.parent_bytes 1; 10.1.2.3/32@api packets 1 refused 1",
        ),
        (
            500,
            "no connection is left",
            &syn("10.1.2.5:1"),
            "drop parent_connections; api.parent_connections 1; source_created 1; \
             10.1.2.5/32@api packets 1 refused 1 connections 1",
        ),
        (
            0,
            "data goes on",
            &ack_from("10.1.2.3"),
            "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1",
        ),
    ]);
}

#[test]
fn both_parents_of_an_ipv6_source() {
    let budgets = "[profile.customer.parents]\nv6_56 = { packets = { rate = \"1/s\", burst = 2 } }\n\
                   v6_48 = { packets = { rate = \"1/s\", burst = 3 } }";
    let new = "pass conforming; api.conforming 1; source_created 1";
    let over = "drop parent_packets; api.parent_packets 1; source_created 1; ";
    Rig::under(&budget_policy(budgets)).check_sequence(&[
        (
            0,
            "first source",
            &ack_from("2001:db8:a:100::1"),
            &format!(
                "{new}; parent_created 2; 2001:db8:a:100::/64@api packets 1; 2001:db8:a:100::/56@api new; \
                 2001:db8:a::/48@api new"
            ),
        ),
        (
            0,
            "its neighbour",
            &ack_from("2001:db8:a:1ff::1"),
            &format!("{new}; 2001:db8:a:1ff::/64@api packets 1"),
        ),
        (
            0,
            "the /56 is spent",
            &ack_from("2001:db8:a:180::1"),
            &format!("{over}2001:db8:a:180::/64@api packets 1 refused 1"),
        ),
        (
            0,
            "another /56: the /48 was not charged for what the /56 refused",
            &ack_from("2001:db8:a:200::1"),
            &format!(
                "{new}; parent_created 1; 2001:db8:a:200::/64@api packets 1; 2001:db8:a:200::/56@api new"
            ),
        ),
        (
            0,
            "the /48 is spent",
            &ack_from("2001:db8:a:201::1"),
            &format!("{over}2001:db8:a:201::/64@api packets 1 refused 1"),
        ),
        (
            0,
            "another /48",
            &ack_from("2001:db8:b:100::1"),
            &format!(
                "{new}; parent_created 2; 2001:db8:b:100::/64@api packets 1; 2001:db8:b:100::/56@api new; \
                 2001:db8:b::/48@api new"
            ),
        ),
    ]);
}

#[test]
fn new_sources_of_a_parent() {
    let budgets = "[profile.customer]\npackets = \"1000/s\"\n[profile.customer.parents]\n\
                   v4_24 = { new_sources = { rate = \"1/s\", burst = 2 } }\n\
                   v6_48 = { new_sources = { rate = \"1/s\", burst = 1 } }";
    let new = "pass conforming; api.conforming 1; source_created 1";
    let refused = "drop new_sources; api.new_sources 1";
    Rig::under(&budget_policy(budgets)).check_sequence(&[
        (
            0,
            "first",
            &ack_from("10.1.2.3"),
            &format!("{new}; parent_created 1; 10.1.2.3/32@api packets 1; 10.1.2.0/24@api new"),
        ),
        (0, "second", &ack_from("10.1.2.4"), &format!("{new}; 10.1.2.4/32@api packets 1")),
        (0, "third: no entry is made", &ack_from("10.1.2.5"), refused),
        (
            0,
            "those who are known go on",
            &ack_from("10.1.2.3"),
            "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1",
        ),
        (999, "third, too early", &ack_from("10.1.2.5"), refused),
        (1, "third, in time", &ack_from("10.1.2.5"), &format!("{new}; 10.1.2.5/32@api packets 1")),
        (
            0,
            "IPv6",
            &ack_from("2001:db8:a:1::1"),
            &format!("{new}; parent_created 1; 2001:db8:a:1::/64@api packets 1; 2001:db8:a::/48@api new"),
        ),
        (
            0,
            "IPv6, the same source",
            &ack_from("2001:db8:a:1::2"),
            "pass conforming; api.conforming 1; 2001:db8:a:1::/64@api packets 1",
        ),
        (0, "IPv6, another source", &ack_from("2001:db8:a:2::1"), refused),
    ]);
}
