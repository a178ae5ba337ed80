//! Dropped for packets, bytes and connections of a source.

use detector_tests::{
    packet::{flags, tcp, udp},
    rows::Rig,
};

use crate::*;

#[test]
fn packets_of_a_source() {
    let frame = ack_from("10.1.2.3");
    let over = "drop packets; api.packets 1; 10.1.2.3/32@api packets 1 refused 1";
    let within = "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1";
    Rig::under(&budget_policy("[profile.customer]\npackets = { rate = \"10/s\", burst = 2 }"))
        .check_sequence(&[
            (0, "first of the burst", &frame, CONFORMING),
            (0, "second of the burst", &frame, within),
            (0, "over", &frame, over),
            (99, "a millisecond too early", &frame, over),
            (1, "a tenth of a second after the burst", &frame, within),
            (0, "and only one", &frame, over),
            (
                0,
                "a neighbour has its own",
                &ack_from("10.1.2.4"),
                &first("pass", "conforming", "10.1.2.4/32", "api"),
            ),
            (10_000, "after a long pause", &frame, within),
            (0, "the burst again", &frame, within),
            (0, "no more than the burst", &frame, over),
        ]);
}

#[test]
fn bytes_of_a_source() {
    let full = tcp(SOURCE, API, flags::ACK).of_length(1514).frame();
    let small = tcp(SOURCE, API, flags::ACK).of_length(86).frame();
    let over = "drop bytes; api.bytes 1; 10.1.2.3/32@api packets 1 refused 1";
    let within = "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1";
    Rig::under(&budget_policy("[profile.customer]\nbytes = { rate = \"16kB/s\", burst = 1600 }"))
        .check_sequence(&[
            (0, "a full frame", &full, CONFORMING),
            (0, "another", &full, over),
            (0, "what is left", &small, within),
            (0, "nothing is left", &small, over),
            (5, "80 bytes are not enough", &small, over),
            (1, "96 are", &small, within),
            (100, "a full budget", &full, within),
        ]);
}

#[test]
fn connections_of_a_source() {
    let syn = tcp(SOURCE, API, flags::SYN).frame();
    let syn_ack = tcp(SOURCE, API, flags::SYN | flags::ACK).frame();
    let within = "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1 connections 1";
    let over = "drop connections; api.connections 1; 10.1.2.3/32@api packets 1 refused 1 connections 1";
    let data = "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1";
    Rig::under(&budget_policy("[profile.customer]\nconnections = { rate = \"1/s\", burst = 2 }"))
        .check_sequence(&[
            (0, "first", &syn, CONNECTION),
            (0, "second", &syn, within),
            (0, "third", &syn, over),
            (0, "data is no connection", &ack_from("10.1.2.3"), data),
            (0, "nor is an answer", &syn_ack, data),
            (0, "nor a datagram", &udp(SOURCE, API).frame(), data),
            (1000, "a second later", &syn, within),
            (0, "and no more", &syn, over),
            (
                0,
                "a tiny fragment that may hide a SYN",
                &tcp(SOURCE, API, 0).fragment(0, true).cut_transport(8).frame(),
                "drop connections; api.connections 1; first_fragment 1; tiny_fragment 1; \
          10.1.2.3/32@api packets 1 refused 1 connections 1",
            ),
        ]);
}

#[test]
fn the_first_budget_that_is_spent_gives_the_reason() {
    let budgets = "[profile.customer]\npackets = { rate = \"1/s\", burst = 2 }\n\
                   bytes = { rate = \"1kB/s\", burst = 1514 }\nconnections = { rate = \"1/s\", burst = 1 }";
    let big = |flags| tcp(SOURCE, API, flags).of_length(1400).frame();
    let small = |flags| tcp(SOURCE, API, flags).frame();
    let drop = |reason: &str, rest: &str| {
        format!("drop {reason}; api.{reason} 1; 10.1.2.3/32@api packets 1 refused 1{rest}")
    };
    Rig::under(&budget_policy(budgets)).check_sequence(&[
        (0, "within all", &big(flags::SYN), CONNECTION),
        (0, "bytes before connections", &big(flags::SYN), &drop("bytes", " connections 1")),
        (0, "connections", &small(flags::SYN), &drop("connections", " connections 1")),
        (0, "within", &small(flags::ACK), "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1"),
        (0, "packets before bytes and connections", &big(flags::SYN), &drop("packets", " connections 1")),
    ]);
}
