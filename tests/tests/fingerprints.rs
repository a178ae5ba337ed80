//! Fingerprints in the kernel: keys of SYNs and ClientHellos, however these are cut; what is counted of them; exemplars.

use detector_common::{
    fingerprint::Kind,
    hello::{Hello as Machine, Transport},
    limits::{FLOWS, HALF_OPEN_NS_MIN, SYN_FLOOD_NS, SYN_SAMPLE},
    syn::Syn,
    way::PENDING_MAX,
};
use detector_tests::{client::Client, hello::Hello, packet::flags, random::Random, rows::Rig};
use detector_user::kernel::{
    exemplar::Exemplar,
    names::ask_again,
    read::{Fingerprint, clients, fingerprints},
};

const OPEN: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n";

const MS: u64 = 1_000_000;

fn key_of(stream: &[u8]) -> u64 {
    let mut machine = Machine::start();
    machine.read(stream);
    machine.key(Transport::Tcp).expect("a whole ClientHello")
}

fn known(rig: &Rig, kind: Kind) -> Vec<Fingerprint> {
    fingerprints(&rig.bench().loaded.maps).filter(|known| known.kind == kind).collect()
}

/// The exemplars of a kind that were sent.
fn sent(rig: &mut Rig, kind: Kind) -> Vec<Exemplar> {
    rig.take_exemplars().into_iter().filter(|exemplar| exemplar.header.kind == kind as u8).collect()
}

#[test]
fn a_handshake_is_followed_from_its_syn_to_what_comes_after_the_hello() {
    for source in ["198.51.100.7:40000", "[2001:db8:7::1]:40000"] {
        let mut rig = Rig::under(OPEN);
        let mut client = Client::new(source);
        let stream = Hello::browser(400).stream();
        let syn_frame = client.syn().frame();
        let network = client.syn().network_offset();
        let transport = client.syn().transport_offset() - network;
        let syn = Syn::of(&syn_frame[network..], transport, false).expect("a signature");

        assert_eq!(client.connect(&mut rig), syn.key(), "{syn}");
        assert_eq!(client.pending(&rig), 1);
        rig.advance(100 * MS);
        assert_eq!(client.send(&mut rig, &stream), key_of(&stream));
        assert_eq!(client.pending(&rig), 1, "until the client goes on");
        rig.advance(300 * MS);
        assert_eq!(client.send(&mut rig, b"finished"), 0);
        client.end(&mut rig);
        assert_eq!(client.pending(&rig), 0);

        let [tls] = &known(&rig, Kind::Tls)[..] else { panic!("one ClientHello") };
        let [of_syn] = &known(&rig, Kind::Syn)[..] else { panic!("one SYN") };
        assert_eq!((tls.key, of_syn.key), (key_of(&stream), syn.key()));
        for seen in [tls, of_syn] {
            assert_eq!((seen.handshakes, seen.sources, seen.service), (1, 1, rig.service("web")));
            assert_eq!(seen.connections, u32::from(seen.kind == Kind::Syn));
            // One connection in eight is followed to its end.
            assert!(matches!(seen.packets, 4 | 5), "{}", seen.packets);
            // 20 ms: 16.8 to 33.6; 100 ms: 67 to 134.
            assert_eq!((seen.round_trip[8], seen.round_trip.iter().sum::<u32>()), (1, 1));
            assert_eq!((seen.hello_delay[10], seen.hello_delay.iter().sum::<u32>()), (1, 1));
        }
        assert_eq!(
            (tls.finish_delay[12], tls.finish_delay.iter().sum::<u32>()),
            (1, 1),
            "300 ms: 268 to 537"
        );
        let [of_syn, exemplar] = &rig.take_exemplars()[..] else { panic!("two exemplars") };
        assert_eq!((exemplar.header.key, exemplar.header.syn_key), (tls.key, syn.key()));
        assert_eq!(exemplar.header.source_port, 40000);
        assert_eq!(exemplar.bytes, stream);
        assert_eq!((of_syn.header.kind, of_syn.header.key), (Kind::Syn as u8, syn.key()));
        assert_eq!(of_syn.syn(), Some(syn));
        assert_eq!(exemplar.syn(), None);
    }
}

#[test]
fn clients_are_counted_by_source_and_pair_of_fingerprints() {
    let mut rig = Rig::under(OPEN);
    let (one, other) = (Hello::browser(400).stream(), {
        let mut hello = Hello::browser(400);
        hello.ciphers.push(0xc030);
        hello.stream()
    });
    let visits = [
        ("198.51.100.7:1000", &one),
        ("198.51.100.7:1001", &one),
        ("198.51.100.7:1002", &other),
        ("198.51.100.8:1000", &one),
        ("[2001:db8:7::1]:1000", &one),
        ("[2001:db8:7::2]:1000", &one),
    ];
    for (source, stream) in visits {
        let mut client = Client::new(source);
        client.connect(&mut rig);
        rig.advance(100 * MS);
        client.send(&mut rig, stream);
        rig.advance(300 * MS);
        client.send(&mut rig, b"finished");
    }
    let mut seen: Vec<_> = clients(&rig.bench().loaded.maps).collect();
    seen.sort_by_key(|client| (client.source.high, client.handshakes));
    let told: Vec<_> = seen
        .iter()
        .map(|client| (client.source.to_ip().to_string(), client.counts.tls_key, client.handshakes))
        .collect();
    let (one, other) = (key_of(&one), key_of(&other));
    assert_eq!(
        told,
        [
            ("2001:db8:7::".to_owned(), one, 2),
            ("198.51.100.7".to_owned(), other, 1),
            ("198.51.100.7".to_owned(), one, 2),
            ("198.51.100.8".to_owned(), one, 1),
        ]
    );
    for client in &seen {
        let counts = &client.counts;
        assert_ne!(counts.syn_key, 0);
        assert_eq!((client.service, counts.exchanges), (rig.service("web"), 0));
        let handshakes = client.handshakes as u16;
        // 20 ms: 16 to 32; 100 ms: 64 to 128; 300 ms: 256 to 512.
        assert_eq!(
            (counts.round_trip[6], counts.hello_delay[8], counts.finish_delay[10]),
            (handshakes, handshakes, handshakes)
        );
        let counted =
            [counts.round_trip, counts.hello_delay, counts.finish_delay].as_flattened().iter().sum::<u16>();
        assert_eq!(counted, 3 * handshakes);
    }
}

#[test]
fn a_hello_cut_anywhere_has_its_key_and_its_exemplar() {
    let mut rig = Rig::under(OPEN);
    let hello = Hello::browser(700);
    for stream in [hello.stream(), hello.records(77)] {
        let key = key_of(&stream);
        for cut in 1..stream.len() {
            let mut client = Client::new(&format!("198.51.100.7:{}", 1024 + cut));
            client.connect(&mut rig);
            let keys = [&stream[..cut], &stream[cut..]].map(|piece| client.send(&mut rig, piece));
            assert!(keys == [0, key] || keys == [key, 0], "cut at {cut} of {}: {keys:x?}", stream.len());
            client.send(&mut rig, b"finished");
            client.end(&mut rig);
            assert_eq!(client.pending(&rig), 0, "cut at {cut}");
        }
    }
    let taken = sent(&mut rig, Kind::Tls);
    assert!(!taken.is_empty());
    for exemplar in taken {
        assert_eq!(key_of(&exemplar.bytes), exemplar.header.key);
    }
    let [tls] = &known(&rig, Kind::Tls)[..] else { panic!("one fingerprint") };
    assert_eq!(tls.sources, 1);
}

#[test]
fn a_hello_byte_by_byte_has_its_key() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(200).stream();
    let mut client = Client::new("198.51.100.7:40000");
    client.connect(&mut rig);
    let keys: Vec<u64> = stream.iter().map(|byte| client.send(&mut rig, &[*byte])).collect();
    assert_eq!(keys.iter().filter(|&&key| key != 0).collect::<Vec<_>>(), [&key_of(&stream)]);
}

#[test]
fn segments_out_of_order_give_the_key_or_none() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(700).stream();
    let key = key_of(&stream);
    let (first, second) = stream.split_at(500);

    // Retransmitted: each piece twice.
    let mut client = Client::new("198.51.100.7:1001");
    client.connect(&mut rig);
    client.send(&mut rig, first);
    assert_eq!(client.send_at(&mut rig, -500, first), 0);
    assert_eq!(client.send(&mut rig, second), key);
    assert_eq!(client.send_at(&mut rig, -(second.len() as i32), second), 0);
    assert_eq!(client.pending(&rig), 1, "nothing new");
    client.send(&mut rig, b"finished");

    // The second piece before the first, and again after it.
    let mut client = Client::new("198.51.100.7:1002");
    client.connect(&mut rig);
    assert_eq!(client.send_at(&mut rig, 500, second), 0);
    client.send(&mut rig, first);
    assert_eq!(client.send(&mut rig, second), key);
    client.send(&mut rig, b"finished");

    // The second piece before the first, and not again: no key, and it is not waited for.
    let mut client = Client::new("198.51.100.7:1003");
    client.connect(&mut rig);
    assert_eq!(client.send_at(&mut rig, 500, second), 0);
    client.send(&mut rig, first);
    client.sequence = client.sequence.wrapping_add(second.len() as u32);
    for _ in 0..8 {
        assert_eq!(client.send(&mut rig, b"finished"), 0);
    }
    assert_eq!(rig.counter("hello_strayed"), 1);
    assert_eq!(client.pending(&rig), 0);

    // Overlapping, with the same bytes and with others.
    for (port, overlap) in [(1004, stream[400..].to_vec()), (1005, vec![0; 300])] {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        client.send(&mut rig, first);
        assert_eq!(client.send_at(&mut rig, -100, &overlap), 0);
        assert_eq!(client.send(&mut rig, second), 0);
        assert_eq!(client.pending(&rig), 0);
    }
    assert_eq!(rig.counter("hello_strayed"), 3);
    assert_eq!(rig.counter("hello_read"), 2);
}

#[test]
fn hellos_that_are_none_or_end_early_are_counted_and_forgotten() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(700).stream();

    let mut client = Client::new("198.51.100.7:1001");
    client.connect(&mut rig);
    client.send(&mut rig, &stream[..300]);
    rig.send(&client.packet(flags::ACK | flags::FIN).frame());
    assert_eq!((rig.counter("hello_unfinished"), client.pending(&rig)), (1, 0));

    let mut malformed = stream.clone();
    malformed[43] = 0xff; // length of the session id
    let mut client = Client::new("198.51.100.7:1002");
    client.connect(&mut rig);
    assert_eq!(client.send(&mut rig, &malformed), 0);
    assert_eq!((rig.counter("hello_malformed"), client.pending(&rig)), (1, 0));

    let mut long = Hello::browser(20);
    long.ciphers = vec![0x1301; 1100];
    let mut client = Client::new("198.51.100.7:1003");
    client.connect(&mut rig);
    assert_eq!(client.send(&mut rig, &long.stream()), 0);
    assert_eq!((rig.counter("hello_too_long"), client.pending(&rig)), (1, 0));

    // Another protocol: looked at for a while.
    let mut client = Client::new("198.51.100.7:1004");
    client.connect(&mut rig);
    for line in 0..9 {
        assert_eq!(client.pending(&rig), 1, "line {line}");
        client.send(&mut rig, b"EHLO example.org\r\n");
    }
    assert_eq!((rig.counter("no_hello"), client.pending(&rig)), (1, 0));
    assert_eq!(client.send(&mut rig, &stream), key_of(&stream), "it is known by its first bytes");
    client.end(&mut rig);

    // A dialogue before it.
    let mut client = Client::new("198.51.100.7:1005");
    client.connect(&mut rig);
    client.send(&mut rig, b"\x05\x01\x00");
    client.send(&mut rig, b"\x05\x01\x00\x01\x5d\xb8\xd8\x22\x01\xbb");
    assert_eq!(client.send(&mut rig, &stream), key_of(&stream));
    assert!(known(&rig, Kind::Tls).iter().all(|known| known.key == key_of(&stream)));
}

#[test]
fn any_damage_gives_the_key_of_what_was_sent_or_none() {
    let mut rig = Rig::under(OPEN);
    let mut random = Random::new(0x5eed);
    let stream = Hello::browser(300).stream();
    let mut read = 0;
    for port in 1024..4024 {
        let mut bytes = stream.clone();
        for _ in 0..random.below(4) {
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] = random.below(256) as u8;
        }
        bytes.truncate(bytes.len() - random.below(2) as usize * random.below(400) as usize);
        let mut machine = Machine::start();
        machine.read(&bytes);
        let expected = machine.key(Transport::Tcp).unwrap_or(0);
        let mut client = Client::new(&format!("198.51.{}.7:{port}", port % 100));
        client.connect(&mut rig);
        let cut = random.below(bytes.len() as u64) as usize;
        let keys = [&bytes[..cut], &bytes[cut..]].map(|piece| client.send(&mut rig, piece));
        assert_eq!(keys[0] | keys[1], expected, "seed 0x5eed, port {port}, cut at {cut}");
        read += u32::from(expected != 0);
        rig.send(&client.packet(flags::RST).frame());
        assert_eq!(client.pending(&rig), 0);
    }
    assert!(read > 500, "{read} were read");
}

#[test]
fn a_source_forgets_connections_that_are_not_heard_of() {
    let mut rig = Rig::under(OPEN);
    let mut client = Client::new("198.51.100.7:1");
    for port in 1..=PENDING_MAX + 5 {
        client.source = format!("198.51.100.7:{port}");
        rig.send(&client.syn().frame());
    }
    assert_eq!(client.pending(&rig), PENDING_MAX);
    client.source = "198.51.100.7:60000".to_owned();
    rig.advance(9_000 * MS);
    client.send(&mut rig, b"data");
    assert_eq!(client.pending(&rig), PENDING_MAX, "they may still come");
    rig.advance(2_000 * MS);
    client.send(&mut rig, b"data");
    assert_eq!(client.pending(&rig), 0);
}

#[test]
fn a_thousand_sources_of_one_fingerprint_are_counted() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(300).stream();
    for number in 0..1000 {
        let mut client = Client::new(&format!("10.0.{}.{}:5000", number / 250, number % 250));
        client.connect(&mut rig);
        client.send(&mut rig, &stream);
        client.send(&mut rig, b"finished");
    }
    assert_eq!(rig.counter("hello_read"), 1000);
    let [tls] = &known(&rig, Kind::Tls)[..] else { panic!("one fingerprint") };
    assert_eq!(tls.handshakes, 1000);
    assert!((800..1200).contains(&tls.sources), "{} sources", tls.sources);
    // The first one and a sample; of the SYN the first one.
    let (tls, syn): (Vec<_>, Vec<_>) =
        rig.take_exemplars().into_iter().partition(|exemplar| exemplar.header.kind == Kind::Tls as u8);
    assert!((1..10).contains(&tls.len()), "{}", tls.len());
    assert_eq!(syn.len(), 1);
}

#[test]
fn handshakes_that_end_make_room_for_others() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(32).stream();
    for number in 0..FLOWS + FLOWS / 8 {
        let mut client = Client::new(&format!("10.0.0.{}:{}", number % 50, 1024 + number / 50));
        rig.send(&client.syn().frame());
        client.sequence = client.sequence.wrapping_add(1);
        assert_ne!(client.send(&mut rig, &stream), 0, "handshake {number}");
        client.send(&mut rig, b"finished");
    }
    assert_eq!(rig.counter("flows_full"), 0);
}

/// SYNs of a flood, each of another connection.
fn flood(rig: &mut Rig, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let source = format!("10.0.{}.9:{}", number % 200, 1024 + number / 200);
        rig.send(&Client::new(&source).syn().frame());
    }
}

#[test]
fn a_flood_of_syns_leaves_room_for_handshakes() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(700).stream();
    let mut early = Client::new("198.51.100.1:40000");
    early.connect(&mut rig);
    flood(&mut rig, 0..2 * FLOWS);
    let (followed, skipped) = (rig.counter("followed"), rig.counter("syns_skipped"));
    assert_eq!(followed + skipped, 1 + 2 * FLOWS as u64);
    assert!(skipped > 0 && rig.counter("flow_replaced") > 0 && rig.counter("flows_full") == 0);

    // The one that had answered was not pushed out, and knows its SYN.
    assert_eq!(early.send(&mut rig, &stream), key_of(&stream));
    let told: Vec<_> = clients(&rig.bench().loaded.maps).map(|client| client.counts.syn_key).collect();
    assert!(matches!(told[..], [key] if key != 0), "{told:x?}");
    // In the midst of the flood: whether its SYN was followed or not, the ClientHello is read.
    for port in 40_000..40_064 {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        assert_eq!(client.send(&mut rig, &stream), key_of(&stream), "port {port}");
        client.send(&mut rig, b"finished");
    }
    let of_syns = clients(&rig.bench().loaded.maps).filter(|client| client.counts.syn_key != 0);
    assert_eq!(of_syns.map(|client| client.handshakes).sum::<u32>(), 1 + 64 / SYN_SAMPLE as u32);

    // Afterwards every SYN is followed again; those of the flood give way.
    rig.advance(HALF_OPEN_NS_MIN.max(SYN_FLOOD_NS) + MS);
    let (followed, skipped) = (rig.counter("followed"), rig.counter("syns_skipped"));
    flood(&mut rig, 2 * FLOWS..2 * FLOWS + FLOWS / 4);
    assert_eq!(
        (rig.counter("followed"), rig.counter("syns_skipped")),
        (followed + FLOWS as u64 / 4, skipped)
    );
}

#[test]
fn who_has_begun_a_hello_gives_way_last_and_nobody_keeps_others_out() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(700).stream();
    let mut early = Client::new("198.51.100.1:40000");
    early.connect(&mut rig);
    early.send(&mut rig, &stream[..300]);
    for number in 0..2 * FLOWS {
        let mut client = Client::new(&format!("10.0.{}.9:{}", number % 200, 1024 + number / 200));
        rig.send(&client.syn().frame());
        client.sequence = client.sequence.wrapping_add(1);
        client.send(&mut rig, &[]);
    }
    assert_eq!(early.send(&mut rig, &stream[300..]), key_of(&stream), "the others had only answered");
    // As many that have begun, without a connection.
    for number in 0..2 * FLOWS {
        let source = format!("10.1.{}.9:{}", number % 200, 1024 + number / 200);
        Client::new(&source).send(&mut rig, &stream[..6]);
    }
    let mut late = Client::new("198.51.100.2:40000");
    late.connect(&mut rig);
    assert_eq!(late.send(&mut rig, &stream), key_of(&stream));
    assert!(rig.counter("flows_full") > 0, "it is told");
}

#[test]
fn extensions_that_come_and_go_are_variants_of_one_key() {
    let mut rig = Rig::under(OPEN);
    let mut keys = Vec::new();
    for (port, more) in
        [(1, vec![]), (2, vec![0x0029]), (3, vec![0x0015]), (4, vec![0x0029, 0x002a]), (5, vec![])]
    {
        let mut hello = Hello::browser(50);
        hello.extensions.extend(more.into_iter().map(|kind| (kind, vec![0; 9])));
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(&mut rig);
        keys.push(client.send(&mut rig, &hello.stream()));
    }
    assert!(keys.iter().all(|&key| key == keys[0] && key != 0), "{keys:x?}");
    let [tls] = &known(&rig, Kind::Tls)[..] else { panic!("one fingerprint") };
    assert_eq!(tls.variants, 1 << 0 | 1 << 0b10 | 1 << 0b1 | 1 << 0b110);
    assert_eq!(sent(&mut rig, Kind::Tls).len(), 4, "one of each");
}

#[test]
fn exemplars_that_are_asked_for_are_sent_again() {
    let mut rig = Rig::under(OPEN);
    let stream = Hello::browser(50).stream();
    let exchange = |rig: &mut Rig, port: u32| {
        let mut client = Client::new(&format!("198.51.100.7:{port}"));
        client.connect(rig);
        client.send(rig, &stream[..100]);
        client.send(rig, &stream[100..]);
        rig.take_exemplars().iter().map(|exemplar| exemplar.header.kind).collect::<Vec<_>>()
    };
    let both = [Kind::Syn as u8, Kind::Tls as u8];
    assert_eq!(exchange(&mut rig, 1), both);
    assert!(exchange(&mut rig, 2).is_empty(), "none is new");
    let maps = &rig.bench().loaded.maps;
    let numbers: Vec<_> = fingerprints(maps).map(|known| known.number).collect();
    numbers.iter().for_each(|&number| ask_again(maps, number));
    assert_eq!(exchange(&mut rig, 3), both);
    assert!(exchange(&mut rig, 4).is_empty(), "none is new");
    assert_eq!(rig.counter("fingerprint_created"), 2, "the same ones");
}
