//! Exchanges of sampled connections, through the real program: how many, of which size, and that the others are let go.

use detector_common::{
    client::size_bin,
    limits::{EXCHANGE_SAMPLE, EXCHANGE_SEGMENTS_MAX, FLOWS},
};
use detector_tests::{client::Client, hello::Hello, packet::flags, rows::Rig};
use detector_user::kernel::read::{Client as Counted, clients};

const OPEN: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\"]\n";
const MS: u64 = 1_000_000;

/// Connections of one client, a sample of which is followed.
const CONNECTIONS: u16 = 256;

/// What is counted of a client that makes its connections one after the other; each does `work` after its ClientHello.
fn counted(rig: &mut Rig, mut work: impl FnMut(&mut Rig, &mut Client)) -> Counted {
    let stream = Hello::browser(200).stream();
    for port in 0..CONNECTIONS {
        let mut client = Client::new(&format!("198.51.100.7:{}", 20_000 + port));
        client.connect(rig);
        assert_ne!(client.send(rig, &stream), 0);
        rig.advance(25 * MS);
        client.acknowledged = client.acknowledged.wrapping_add(1400);
        work(rig, &mut client);
        assert_eq!(client.pending(rig), 0, "it is let go");
    }
    let [counted] = clients(&rig.bench().loaded.maps).collect::<Vec<_>>()[..] else { panic!("one client") };
    assert_eq!(counted.handshakes, u32::from(CONNECTIONS));
    let expected = u64::from(CONNECTIONS) / EXCHANGE_SAMPLE;
    let followed = u64::from(counted.counts.followed);
    // Six deviations of a binomial count.
    assert!(
        followed.abs_diff(expected) < 6 * expected.isqrt(),
        "{followed} are followed, not about {expected}"
    );
    counted
}

#[test]
fn one_request_on_each_connection() {
    let mut rig = Rig::under(OPEN);
    let counted = counted(&mut rig, |rig, client| {
        // Finished and the request.
        client.send(rig, &[0; 74]);
        client.send(rig, &[0; 300]);
        rig.advance(50 * MS);
        client.acknowledge(rig, 1400);
        client.acknowledge(rig, 1400);
        client.end(rig);
    });
    let counts = counted.counts;
    assert_eq!(counts.exchanges, counts.followed);
    // SYN, its answer, ClientHello, two of the request, two acknowledgements, FIN.
    assert_eq!(counts.segments, 8 * counts.followed);
    let all = counts.followed as u16;
    assert_eq!((counts.request_sizes[size_bin(374)], counts.response_sizes[size_bin(2800)]), (all, all));
    assert_eq!(counts.request_sizes.iter().sum::<u16>(), all);
    assert_eq!(counts.response_sizes.iter().sum::<u16>(), all);
}

#[test]
fn requests_on_a_connection_that_is_kept_are_each_counted() {
    let mut rig = Rig::under(OPEN);
    let counted = counted(&mut rig, |rig, client| {
        client.send(rig, &[0; 126]); // the end of a TLS 1.2 handshake
        rig.advance(25 * MS);
        client.acknowledge(rig, 258);
        for _ in 0..3 {
            client.send(rig, &[0; 500]);
            rig.advance(30 * MS);
            client.acknowledge(rig, 100_000);
            rig.advance(700 * MS);
        }
        // A request that is sent again is the same one, and an alert is none.
        client.send_at(rig, -500, &[0; 500]);
        client.send(rig, &[0; 24]);
        client.end(rig);
    });
    let counts = counted.counts;
    let three = 3 * counts.followed;
    assert_eq!(counts.exchanges, three);
    assert_eq!(u32::from(counts.request_sizes[size_bin(500)]), three);
    assert_eq!(u32::from(counts.response_sizes[size_bin(100_000)]), three);
}

/// nginx closes first, after two session tickets and a page; curl's alert is answered by a reset, and nothing else comes of it.
#[test]
fn a_connection_that_the_server_closed_ends_with_the_clients_alert() {
    let mut rig = Rig::under(OPEN);
    let counted = counted(&mut rig, |rig, client| {
        client.send(rig, &[0; 80]);
        client.acknowledged = client.acknowledged.wrapping_add(542);
        rig.advance(25 * MS);
        client.send(rig, &[0; 833]);
        rig.advance(25 * MS);
        client.acknowledge(rig, 9282);
        client.send(rig, &[0; 24]);
    });
    let counts = counted.counts;
    assert_eq!(counts.exchanges, counts.followed, "tickets are no response");
    let all = counts.followed as u16;
    assert_eq!((counts.request_sizes[size_bin(833)], counts.response_sizes[size_bin(9282)]), (all, all));
}

#[test]
fn a_long_connection_is_let_go() {
    let mut rig = Rig::under(OPEN);
    let counted = counted(&mut rig, |rig, client| {
        for _ in 0..40 {
            client.send(rig, &[0; 500]);
            rig.advance(30 * MS);
            client.acknowledge(rig, 1000);
        }
    });
    let counts = counted.counts;
    assert_eq!(counts.segments, u32::from(EXCHANGE_SEGMENTS_MAX) * counts.followed);
    // Three segments before, then two for each.
    assert_eq!(counts.exchanges, (u32::from(EXCHANGE_SEGMENTS_MAX) - 3) / 2 * counts.followed);
}

#[test]
fn a_connection_that_ends_with_its_handshake_has_no_exchange() {
    let mut rig = Rig::under(OPEN);
    let counted = counted(&mut rig, |rig, client| {
        client.send(rig, &[0; 74]);
        rig.send(&client.packet(flags::RST).frame());
    });
    assert_eq!(counted.counts.exchanges, 0);
}

#[test]
fn connections_that_are_followed_take_no_room_from_handshakes() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(200).stream();
    // More that are followed than there is room for.
    for number in 0..FLOWS * EXCHANGE_SAMPLE as usize * 5 / 4 {
        let mut client = Client::new(&format!("10.0.{}.9:{}", number % 200, 1024 + number / 200));
        rig.send(&client.syn().frame());
        client.sequence = client.sequence.wrapping_add(1);
        assert_ne!(client.send(&mut rig, &stream), 0, "connection {number}");
        client.send(&mut rig, &[0; 300]);
    }
    assert_eq!(rig.counter("flows_full"), 0);
}
