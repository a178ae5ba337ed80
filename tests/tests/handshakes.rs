//! Budgets of handshakes, through the real program: charged where a ClientHello ends, once a connection, and no way around.

use detector_common::{limits::FLOWS, verdict::Reason};
use detector_tests::{client::Client, hello::Hello, packet::flags, rows::Rig};

const MS: u64 = 1_000_000;

fn policy(profile: &str) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nprofile = \"p\"\n[profile.p]\n{profile}\n"
    )
}

/// Two at once, then one in ten seconds.
const TWO: &str = "handshakes = { rate = \"6/min\", burst = 2 }";

fn two() -> Rig {
    Rig::under(&policy(TWO))
}

/// The reason of a whole ClientHello on a new connection.
fn shake(rig: &mut Rig, source: &str) -> Reason {
    let mut client = Client::new(source);
    client.connect(rig);
    client.reason(rig, 0, &Hello::browser(200).stream())
}

#[test]
fn handshakes_are_charged_where_the_hello_ends_and_given_back_over_time() {
    for address in ["198.51.100.7", "[2001:db8:7::1]"] {
        let mut rig = two();
        let reasons = |rig: &mut Rig, ports: std::ops::Range<u16>| -> Vec<Reason> {
            ports.map(|port| shake(rig, &format!("{address}:{port}"))).collect()
        };
        assert_eq!(
            reasons(&mut rig, 1000..1004),
            [Reason::Conforming, Reason::Conforming, Reason::Handshakes, Reason::Handshakes]
        );
        rig.advance(10_000 * MS);
        assert_eq!(reasons(&mut rig, 1004..1006), [Reason::Conforming, Reason::Handshakes]);
        // Others have their own, and so has the same source elsewhere.
        assert_eq!(shake(&mut rig, "198.51.100.8:1000"), Reason::Conforming);
    }
}

#[test]
fn packets_that_are_no_handshake_cost_none() {
    let mut rig = two();
    for port in 1000..1100 {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        assert_eq!(client.reason(&mut rig, 0, b"GET / HTTP/1.1\r\n\r\n"), Reason::Conforming);
    }
    assert_eq!(shake(&mut rig, "198.51.100.7:2000"), Reason::Conforming);
}

#[test]
fn who_asks_whether_the_server_is_there_pays_for_no_handshake() {
    let mut rig = two();
    let mut client = Client::new("198.51.100.7:1000");
    client.connect(&mut rig);
    for byte in [0, b'x', 0xff] {
        assert_eq!(client.reason(&mut rig, -1, &[byte]), Reason::Conforming);
    }
    assert_eq!(shake(&mut rig, "198.51.100.7:2000"), Reason::Conforming);
    assert_eq!(client.reason(&mut rig, 0, &Hello::browser(700).stream()), Reason::Conforming);
    assert_eq!(shake(&mut rig, "198.51.100.7:2001"), Reason::Handshakes);
}

#[test]
fn a_refused_hello_is_asked_again_when_it_is_sent_again_and_costs_nothing_until_then() {
    let mut rig = two();
    shake(&mut rig, "198.51.100.7:1000");
    shake(&mut rig, "198.51.100.7:1001");
    let stream = Hello::browser(700).stream();
    let (first, second) = stream.split_at(500);
    let mut client = Client::new("198.51.100.7:1002");
    client.connect(&mut rig);
    for part in [&stream[..], first, first] {
        assert_eq!(client.reason(&mut rig, 0, part), Reason::Handshakes);
        assert_eq!(client.send_at(&mut rig, 0, part), 0, "no key of what did not pass");
        rig.advance(1_000 * MS);
    }
    // Where the client goes on all the same, the program cannot read it, and asks for that too.
    assert_eq!(client.reason(&mut rig, 500, second), Reason::Handshakes);
    rig.advance(7_000 * MS);
    assert_eq!(client.reason(&mut rig, 0, first), Reason::Conforming);
    client.sequence = client.sequence.wrapping_add(500);
    assert_ne!(client.send(&mut rig, second), 0);
    // Sent again after they passed: free.
    assert_eq!(client.reason(&mut rig, -(second.len() as i32), second), Reason::Conforming);
    assert_eq!(client.reason(&mut rig, -(stream.len() as i32), first), Reason::Conforming);
    assert_eq!(client.reason(&mut rig, 0, b"finished"), Reason::Conforming);
    assert_eq!(shake(&mut rig, "198.51.100.7:1003"), Reason::Handshakes, "one was charged, not two");
    rig.advance(10_000 * MS);
    assert_eq!(shake(&mut rig, "198.51.100.7:1004"), Reason::Conforming);
}

#[test]
fn whoever_holds_all_states_has_nobody_elses_handshakes_go_uncharged() {
    let mut rig = two();
    for number in 0..2 * FLOWS {
        let source = format!("10.0.0.{}:{}", number % 50, 1024 + number / 50);
        rig.send(&Client::new(&source).segment(0, &Hello::browser(700).stream()[..6]));
    }
    let reasons: Vec<_> = (1000..1003).map(|port| shake(&mut rig, &format!("198.51.100.7:{port}"))).collect();
    assert_eq!(reasons, [Reason::Conforming, Reason::Conforming, Reason::Handshakes]);
}

/// The reason of the first segment that is refused: the server does not have it, nor what comes after it.
fn first_refused<const SEGMENTS: usize>(reasons: [Reason; SEGMENTS]) -> Reason {
    reasons.into_iter().find(|&reason| reason != Reason::Conforming).unwrap_or(Reason::Conforming)
}

/// Makes a handshake of a client from the two halves of a ClientHello; the reason of its last segment.
type Trick = fn(&mut Client, &mut Rig, &[u8], &[u8]) -> Reason;

/// Each is charged as others are, of a budget of two.
fn check_each(profile: &str, tricks: &[(&str, Trick)]) {
    let stream = Hello::browser(700).stream();
    let (first, second) = stream.split_at(500);
    for (name, trick) in tricks {
        let mut rig = Rig::under(&policy(profile));
        let mut reason = |port: u16| {
            let mut client = Client::new(&format!("198.51.100.7:{port}"));
            client.connect(&mut rig);
            trick(&mut client, &mut rig, first, second)
        };
        assert_eq!(
            [reason(1000), reason(1001), reason(1002), reason(1003)],
            [Reason::Conforming, Reason::Conforming, Reason::Handshakes, Reason::Handshakes],
            "{name}"
        );
    }
}

#[test]
fn hellos_that_are_not_read_are_charged_too() {
    // Each ends in what the program does not read.
    let tricks: [(&str, Trick); 8] = [
        ("an alert before it", |client, rig, first, second| {
            client.reason(rig, 0, &[&[21, 3, 1, 0, 2, 1, 90], first, second].concat())
        }),
        ("an alert before it, in pieces", |client, rig, first, second| {
            let rest = [&[2, 1, 90], first, second].concat();
            first_refused([client.reason(rig, 0, &[21, 3, 1, 0]), client.reason(rig, 4, &rest)])
        }),
        ("an empty record before it", |client, rig, first, second| {
            client.reason(rig, 0, &[&[22, 3, 1, 0, 0], first, second].concat())
        }),
        ("the form of SSL 2", |client, rig, _, _| {
            client.reason(rig, 0, &[&[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16][..], &[7; 37]].concat())
        }),
        ("the second segment first", |client, rig, _, second| client.reason(rig, 500, second)),
        ("overlapping segments", |client, rig, first, second| {
            let over: Vec<u8> = first[490..].iter().chain(second).copied().collect();
            first_refused([client.reason(rig, 0, first), client.reason(rig, 490, &over)])
        }),
        ("damaged", |client, rig, first, _| {
            let mut damaged = first.to_vec();
            // The session id of a ClientHello has at most 32 bytes.
            damaged[43] = 255;
            client.reason(rig, 0, &damaged)
        }),
        ("a segment that is too long", |client, rig, first, _| {
            let long: Vec<u8> = first.iter().copied().chain(std::iter::repeat_n(0, 5000)).collect();
            client.reason(rig, 0, &long)
        }),
    ];
    check_each(TWO, &tricks);
}

/// What only the program takes for something: the server drops it, for its sequence number or its checksum.
#[test]
fn nothing_that_the_server_does_not_take_hides_a_handshake() {
    // Each ends in the segment with which the server has the whole ClientHello.
    let tricks: [(&str, Trick); 10] = [
        ("a reset", |client, rig, first, second| {
            rig.send(&client.packet(flags::RST).sequence(client.sequence.wrapping_add(1 << 30)).frame());
            client.reason(rig, 0, &[first, second].concat())
        }),
        ("a reset in the midst", |client, rig, first, second| {
            let of_first = client.reason(rig, 0, first);
            rig.send(&client.packet(flags::RST).sequence(client.sequence.wrapping_add(500)).frame());
            first_refused([of_first, client.reason(rig, 500, second)])
        }),
        ("a SYN in the midst", |client, rig, first, second| {
            let of_first = client.reason(rig, 0, first);
            rig.send(&client.syn().sequence(client.sequence.wrapping_add(499)).frame());
            first_refused([of_first, client.reason(rig, 500, second)])
        }),
        ("a pause in the midst", |client, rig, first, second| {
            let of_first = client.reason(rig, 0, first);
            rig.advance(11_000 * MS);
            Client::new("198.51.100.7:1").send(rig, &[]);
            first_refused([of_first, client.reason(rig, 500, second)])
        }),
        ("a reset, and an alert before it", |client, rig, first, second| {
            rig.send(&client.packet(flags::RST).frame());
            client.reason(rig, 0, &[&[21, 3, 1, 0, 2, 1, 90], first, second].concat())
        }),
        ("a pause", |client, rig, first, second| {
            rig.advance(11_000 * MS);
            let mut other = Client::new("198.51.100.7:1");
            other.send(rig, &[]);
            client.reason(rig, 0, &[first, second].concat())
        }),
        ("a pause, and few bytes at first", |client, rig, first, second| {
            rig.advance(11_000 * MS);
            let mut other = Client::new("198.51.100.7:1");
            other.send(rig, &[]);
            let rest = [&first[3..], second].concat();
            first_refused([client.reason(rig, 0, &first[..3]), client.reason(rig, 3, &rest)])
        }),
        ("another SYN", |client, rig, first, second| {
            let ahead = client.sequence.wrapping_add(100_000);
            rig.send(&client.syn().sequence(ahead).frame());
            client.reason(rig, 0, &[first, second].concat())
        }),
        ("another SYN, by which its first byte asks if the server is there", |client, rig, first, second| {
            rig.send(&client.syn().sequence(client.sequence).frame());
            let stream = [first, second].concat();
            first_refused([client.reason(rig, 0, &stream[..1]), client.reason(rig, 1, &stream[1..])])
        }),
        ("bytes that are no ClientHello", |client, rig, first, second| {
            client.reason(rig, 0, &[b'x'; 1400]);
            client.reason(rig, 0, &[first, second].concat())
        }),
    ];
    // Nothing is given back during the pauses.
    check_each("handshakes = { rate = \"2/d\", burst = 2 }", &tricks);
}

#[test]
fn a_hello_out_of_order_is_charged_once() {
    let mut rig = two();
    let stream = Hello::browser(700).stream();
    let (first, second) = stream.split_at(500);
    let mut client = Client::new("198.51.100.7:1000");
    client.connect(&mut rig);
    assert_eq!(client.reason(&mut rig, 500, second), Reason::Conforming);
    client.send(&mut rig, first);
    assert_ne!(client.send(&mut rig, second), 0, "read after all");
    assert_eq!(shake(&mut rig, "198.51.100.7:1001"), Reason::Conforming);
    assert_eq!(shake(&mut rig, "198.51.100.7:1002"), Reason::Handshakes);
}

#[test]
fn modes_and_rules_hold_for_handshakes() {
    // Shadow: all pass, and are counted.
    let mut rig = Rig::under(&policy(TWO).replace("version = 1", "version = 1\ndefaults.mode = \"shadow\""));
    for port in 1000..1004 {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        assert_ne!(client.send(&mut rig, &Hello::browser(200).stream()), 0, "it is read all the same");
    }
    assert_eq!(rig.shadowed("web", Reason::Handshakes).packets, 2);
    assert_eq!(rig.counted("web", Reason::Handshakes).packets, 0);
    assert_eq!(rig.entry("198.51.100.7", "web").expect("an entry").refused(), 2);

    // A rule that allows the source.
    let allow = "[[rule]]\nname = \"partner\"\nsource = [\"198.51.100.7\"]\naction = \"allow\"\n";
    let mut rig = Rig::under(&(policy(TWO) + allow));
    for port in 1000..1004 {
        assert_eq!(shake(&mut rig, &format!("198.51.100.7:{port}")), Reason::Allowed);
    }
    // A rule with a profile of its own, whose drops it counts.
    let limit = "[profile.one]\nhandshakes = { rate = \"1/min\", burst = 1 }\n[[rule]]\nname = \"slow\"\nsource = [\"198.51.100.7\"]\naction = { limit = \"one\" }\n";
    let mut rig = Rig::under(&(policy(TWO) + limit));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000"), Reason::Conforming);
    assert_eq!(shake(&mut rig, "198.51.100.7:1001"), Reason::Handshakes);
    assert_eq!(rig.rule_drops("slow").dropped, 1);
}

#[test]
fn a_policy_keeps_what_was_charged_under_the_one_before() {
    let mut rig = two();
    shake(&mut rig, "198.51.100.7:1000");
    shake(&mut rig, "198.51.100.7:1001");
    rig.apply(&policy(TWO));
    assert_eq!(shake(&mut rig, "198.51.100.7:1002"), Reason::Handshakes);
}

#[test]
fn where_there_is_no_room_for_budgets_handshakes_pass_and_are_counted() {
    let mut rig = Rig::under(&policy("handshakes = { rate = \"1/h\", burst = 1 }"));
    let mut full = 0;
    // More sources than there is room for, all within a budget's time.
    for number in 0..4000_u32 {
        let source = format!("198.18.{}.{}:1000", number >> 8, number & 255);
        shake(&mut rig, &source);
        full = rig.counter("client_budgets_full");
        if full > 10 {
            break;
        }
    }
    assert!(full > 10, "there is room for all");
    assert_eq!(rig.counted("web", Reason::Handshakes).packets, 0);
}

#[test]
fn a_connection_that_ends_gives_no_handshake_back_and_a_reset_costs_none() {
    let mut rig = two();
    for port in 1000..1010 {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        rig.send(&client.packet(flags::RST | flags::ACK).frame());
    }
    assert_eq!(shake(&mut rig, "198.51.100.7:2000"), Reason::Conforming);
}
