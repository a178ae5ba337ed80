//! Connections of QUIC in the kernel: each is counted once, by the shape of its first Initial, and its datagrams give its
//! ClientHello.

mod cpus;
mod live;
#[expect(dead_code, reason = "what only tests of detector-user call")]
mod sealing;

use std::path::{Path, PathBuf};

use detector_common::{
    fingerprint::Kind,
    hello::Transport,
    initial::Shape,
    limits::{EXEMPLAR_SAMPLE, FLOWS, INITIAL_NS_MAX, INITIALS_SENT_MAX},
    verdict::{Reason, Verdict},
};
use detector_tests::{
    client::Client,
    hello::Hello,
    packet::{Packet as Frame, tcp, udp},
    random::Random,
    rows::Rig,
};
use detector_user::{
    capture::Reader,
    fingerprint::{flows::follow, ja4},
    kernel::{
        exemplar::Exemplar,
        names::ask_again,
        read::{Fingerprint, fingerprints},
    },
    quic,
};
use sealing::fixtures::{Packet, V1, V2, crypto};

const OPEN: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n";

const MS: u64 = 1_000_000;

/// Bytes of a datagram with an Initial.
const DATAGRAM: usize = 1250;

/// Bytes of an Initial's header with a destination id of eight bytes, without token, and of the tag behind.
const OVERHEAD: usize = 1 + 4 + 1 + 8 + 1 + 1 + 2 + 1 + 16;

const ID: &[u8] = b"12345678";

fn initial(number: u64) -> Packet<'static> {
    Packet { version: V1, destination_id: ID, keys_of: ID, token: &[], number, number_bytes: 1, kind: 0 }
}

/// Frames of an Initial that fill a datagram of the usual size up.
fn filled(mut frames: Vec<u8>) -> Vec<u8> {
    frames.resize(DATAGRAM - OVERHEAD, 0);
    frames
}

/// The Initials of a message, so many bytes of it in each.
fn initials(message: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let piece = |(number, piece): (usize, &[u8])| {
        initial(number as u64).sealed(&filled(crypto(number * bytes, piece)))
    };
    message.chunks(bytes).enumerate().map(piece).collect()
}

/// A ClientHello with a large key share.
fn message() -> Vec<u8> {
    Hello::browser(1700).message()
}

/// A datagram from a source.
fn datagram(source: &str, payload: &[u8]) -> Frame {
    let server = if source.starts_with('[') { "[2001:db8::1]:443" } else { "192.0.2.1:443" };
    udp(source, server).content(payload)
}

fn send(rig: &mut Rig, source: &str, payload: &[u8]) {
    assert_eq!(rig.send(&datagram(source, payload).frame()).verdict, Verdict::Pass);
}

fn known(rig: &Rig) -> Vec<Fingerprint> {
    fingerprints(&rig.bench().loaded.maps).collect()
}

#[track_caller]
fn one(rig: &Rig) -> Fingerprint {
    let [known] = &known(rig)[..] else { panic!("one fingerprint, not {:?}", known(rig)) };
    assert_eq!(known.kind, Kind::Initial);
    known.clone()
}

fn shape(known: &Fingerprint) -> String {
    Shape::of_key(known.key).expect("the key of a shape").to_string()
}

/// The ClientHello that exemplars give, as the daemon puts them together.
fn opened(exemplars: &[Exemplar]) -> Option<Vec<u8>> {
    let mut client = quic::Client::default();
    exemplars.iter().find_map(|exemplar| client.take(&exemplar.bytes, 1)).map(|hello| hello.message)
}

#[test]
fn a_connection_is_counted_once_however_many_initials_it_has() {
    for source in ["198.51.100.7:40000", "[2001:db8:7::1]:40000"] {
        let mut rig = Rig::under(OPEN);
        let message = message();
        let initials = initials(&message, 800);
        assert_eq!(initials.len(), 3);
        for initial in &initials {
            send(&mut rig, source, initial);
            rig.advance(MS);
        }
        let known = one(&rig);
        assert_eq!((known.handshakes, known.sources, known.service), (1, 1, rig.service("web")));
        assert_eq!((shape(&known).as_str(), known.variants), ("1:8,0:-:1250", 1));
        assert_eq!(known.last_ns, rig.now_ns() - 3 * MS);

        let exemplars = rig.take_exemplars();
        let sent: Vec<_> = exemplars.iter().map(|exemplar| exemplar.bytes.clone()).collect();
        assert!(sent == initials, "as they came");
        assert!(opened(&exemplars) == Some(message));
        for exemplar in &exemplars {
            let header = &exemplar.header;
            assert_eq!(
                (header.kind, header.key, header.service),
                (Kind::Initial as u8, known.key, known.service)
            );
            assert_eq!((header.source_port, header.destination_port), (40000, 443));
        }
        assert!(exemplars.is_sorted_by_key(|exemplar| exemplar.header.time_ns));

        // Again, and in another order.
        rig.advance(1000 * MS);
        initials.iter().rev().for_each(|initial| send(&mut rig, source, initial));
        assert_eq!(one(&rig).handshakes, 1);
        let counted = ["initial_read", "followed", "fingerprint_created", "hello_read"];
        assert_eq!(counted.map(|name| rig.counter(name)), [1, 1, 1, 0]);
        assert_eq!(["initial_malformed", "initial_late"].map(|name| rig.counter(name)), [0, 0]);
        let address = source.rsplit_once(':').expect("a port").0.trim_matches(['[', ']']);
        assert_eq!(
            rig.entry(address, "web").expect("an entry").meta().pending(),
            0,
            "TCP has nothing to do with it"
        );
    }
}

#[test]
fn connections_are_charged_as_handshakes_with_their_first_initial() {
    let budget = "profile = \"p\"\n[profile.p]\nhandshakes = { rate = \"6/min\", burst = 2 }\n";
    let mut rig = Rig::under(&format!("{OPEN}{budget}"));
    let initials = initials(&message(), 800);
    let mut reasons = |port: u16, initials: &[Vec<u8>]| -> Vec<Reason> {
        let source = format!("198.51.100.7:{port}");
        initials.iter().map(|initial| rig.reason(&datagram(&source, initial).frame())).collect()
    };
    for port in [1000, 1001] {
        assert_eq!(reasons(port, &initials), [Reason::Conforming; 3], "one handshake in three datagrams");
    }
    assert_eq!(reasons(1002, &initials), [Reason::Handshakes; 3]);
    // Sent again, of those that have begun it is free.
    assert_eq!(reasons(1000, &initials[..1]), [Reason::Conforming]);
    assert_eq!(reasons(1002, &initials[..1]), [Reason::Handshakes]);
    rig.advance(10_000 * MS);
    assert!(rig.passes(&datagram("198.51.100.7:1002", &initials[0]).frame()));
    assert_eq!(one(&rig).handshakes, 3);
}

#[test]
fn connections_between_the_same_ports_are_charged_every_eighth_initial() {
    let budget = "profile = \"p\"\n[profile.p]\nhandshakes = { rate = \"2/d\", burst = 2 }\n";
    let mut rig = Rig::under(&format!("{OPEN}{budget}"));
    let initial = initials(&Hello::browser(300).message(), 800).remove(0);
    let passed = (0..40).take_while(|_| rig.passes(&datagram("198.51.100.7:1000", &initial).frame())).count();
    assert_eq!(passed as u64, 2 * INITIALS_SENT_MAX);
}

#[test]
fn initials_may_be_shuffled_and_coalesced() {
    let message = message();
    let piece = |start: usize, end: usize| crypto(start, &message[start..end]);
    let first = [piece(700, 900), vec![1], piece(0, 300)].concat();
    let second = [piece(300, 700), vec![0; 9], piece(1500, message.len())].concat();
    let last = initial(2).sealed(&piece(900, 1500));
    let handshake = Packet { kind: 2, ..initial(0) }.sealed(&[7; 700]);
    let datagrams =
        [initial(1).sealed(&filled(second)), [last, handshake].concat(), initial(0).sealed(&filled(first))];
    let mut rig = Rig::under(OPEN);
    datagrams.iter().for_each(|datagram| send(&mut rig, "198.51.100.7:40000", datagram));
    assert_eq!(one(&rig).handshakes, 1);
    assert!(opened(&rig.take_exemplars()) == Some(message));
}

#[test]
fn version_2_is_another_shape() {
    let mut rig = Rig::under(OPEN);
    let message = Hello::browser(300).message();
    for (version, port) in [(V1, 1), (V2, 2), (V2, 3)] {
        let sealed = Packet { version, ..initial(0) }.sealed(&filled(crypto(0, &message)));
        send(&mut rig, &format!("198.51.100.7:{port}"), &sealed);
        let exemplars = rig.take_exemplars();
        assert_eq!(opened(&exemplars), (port < 3).then(|| message.clone()), "what is known is not sent");
    }
    let mut shapes: Vec<_> = known(&rig).iter().map(|known| (shape(known), known.handshakes)).collect();
    shapes.sort();
    assert_eq!(shapes, [("1:8,0:-:1250".to_owned(), 1), ("2:8,0:-:1250".to_owned(), 2)]);
}

#[test]
fn what_comes_after_a_retry_is_the_same_connection() {
    let mut rig = Rig::under(OPEN);
    let message = message();
    let (head, tail) = message.split_at(1000);
    let server = b"the server's id";
    let after = |number, payload: &[u8]| {
        let mut payload = payload.to_vec();
        payload.resize(1100, 0);
        Packet { destination_id: server, keys_of: server, token: &[7; 80], ..initial(number) }
            .sealed(&payload)
    };
    let source = "198.51.100.7:40000";
    send(&mut rig, source, &initial(0).sealed(&filled(crypto(0, head))));
    rig.advance(50 * MS);
    send(&mut rig, source, &after(1, &crypto(0, head)));
    send(&mut rig, source, &after(2, &crypto(1000, tail)));
    let known = one(&rig);
    assert_eq!((shape(&known).as_str(), known.handshakes), ("1:8,0:-:1250", 1), "the first one's");
    let exemplars = rig.take_exemplars();
    assert!(exemplars.iter().all(|exemplar| exemplar.header.key == known.key));
    assert!(opened(&exemplars) == Some(message.clone()));

    // A client that has a token from before begins with it.
    send(&mut rig, "198.51.100.7:40001", &after(0, &crypto(0, head)));
    assert_eq!(rig.counter("initial_read"), 2);
}

#[test]
fn what_is_no_initial_is_not_counted() {
    let mut rig = Rig::under(OPEN);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    let changed = |at: usize, byte: u8| {
        let mut datagram = sealed.clone();
        datagram[at] = byte;
        datagram
    };
    // Not handed over: they cost other packets one look.
    let others = [
        vec![],
        b"GET /".to_vec(),
        vec![0x40; DATAGRAM],
        changed(0, 0x43),
        changed(0, 0x80),
        changed(0, 0xd0),
        changed(0, 0xe0),
        changed(0, 0xf0),
        changed(4, 2),
        changed(1, 0xff),
        sealed[..1199].to_vec(),
        [&sealed[..], &[0; 4096]].concat(),
    ];
    for (number, datagram) in others.iter().enumerate() {
        send(&mut rig, "198.51.100.7:40000", datagram);
        assert_eq!(rig.counter("initial_malformed"), 0, "{number}");
    }
    // Handed over, and then none: ids, token or length are not what they can be.
    let malformed = [changed(5, 21), changed(14, 21), changed(15, 0xff), changed(16, 0x7f), changed(16, 19)];
    for (number, datagram) in (1..).zip(&malformed) {
        send(&mut rig, "198.51.100.7:40000", datagram);
        assert_eq!(rig.counter("initial_malformed"), number);
    }
    for bytes in 1200..sealed.len() {
        send(&mut rig, "198.51.100.7:40000", &sealed[..bytes]);
    }
    assert_eq!(rig.counter("initial_malformed"), 5 + 50);
    // A header that ends before the packet does, and fragments.
    let mut frame = datagram("198.51.100.7:40000", &sealed).frame();
    frame[38..40].copy_from_slice(&1000_u16.to_be_bytes());
    rig.send(&frame);
    rig.send(&datagram("198.51.100.7:40000", &sealed).fragment(0, true).frame());
    rig.send(&datagram("198.51.100.7:40000", &sealed).fragment(1, false).frame());
    // The same bytes over TCP, and to nobody's address.
    rig.send(&tcp("198.51.100.7:40000", "192.0.2.1:443", 0x10).content(&sealed).frame());
    rig.send(&udp("198.51.100.7:40000", "203.0.113.1:443").content(&sealed).frame());
    // To an id that only a server chooses.
    let late = Packet { destination_id: b"1234", ..initial(3) }.sealed(&[0; 1200]);
    send(&mut rig, "198.51.100.7:40000", &late);
    assert_eq!((rig.counter("initial_malformed"), rig.counter("initial_late")), (56, 1));
    assert_eq!((rig.counter("initial_read"), known(&rig).len(), rig.take_exemplars().len()), (0, 0, 0));
    assert_eq!(rig.counter("followed"), 0);
}

#[test]
fn any_damage_is_counted_as_the_shape_that_it_has_or_not_at_all() {
    let mut rig = Rig::under(OPEN);
    let mut random = Random::new(0x5eed);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    let mut expected = 0;
    for port in 1024..6024 {
        let mut bytes = sealed.clone();
        for _ in 0..random.below(3) {
            bytes[random.below(18) as usize] = random.below(256) as u8;
        }
        bytes.truncate(bytes.len() - random.below(2) as usize * random.below(100) as usize);
        let mut segment = detector_common::segment::Segment::of(&bytes);
        segment.end = bytes.len() as u64;
        let shape = detector_common::initial::read(&segment);
        expected += u64::from(shape.is_some_and(Shape::may_be_first));
        send(&mut rig, &format!("198.51.100.7:{port}"), &bytes);
        assert_eq!(rig.counter("initial_read"), expected, "seed 0x5eed, port {port}: {shape:?}");
    }
    assert!((1000..4500).contains(&expected), "{expected} have a shape");
    let counted: u32 = known(&rig).iter().map(|known| known.handshakes).sum();
    assert_eq!(u64::from(counted), expected);
}

#[test]
fn what_is_dropped_is_not_counted() {
    let mut rig = Rig::under(&format!(
        "{OPEN}[[rule]]\nname = \"refused\"\nsource = [\"198.51.100.7\"]\naction = \"drop\"\n"
    ));
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    assert_eq!(rig.send(&datagram("198.51.100.7:1", &sealed).frame()).verdict, Verdict::Drop);
    assert_eq!(known(&rig).len(), 0);
    send(&mut rig, "198.51.100.8:1", &sealed);
    assert_eq!(one(&rig).handshakes, 1);
}

#[test]
fn between_the_same_ports_another_connection_comes_after_a_while() {
    let mut rig = Rig::under(OPEN);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    let source = "198.51.100.7:40000";
    send(&mut rig, source, &sealed);
    for _ in 0..5 {
        rig.advance(INITIAL_NS_MAX - MS);
        send(&mut rig, source, &sealed);
        assert_eq!(one(&rig).handshakes, 1, "it comes again");
    }
    rig.advance(INITIAL_NS_MAX + MS);
    let late = Packet { destination_id: b"1234", ..initial(3) }.sealed(&[0; 1200]);
    send(&mut rig, source, &late);
    assert_eq!((one(&rig).handshakes, rig.counter("initial_late")), (1, 1), "no connection begins like that");
    send(&mut rig, source, &sealed);
    assert_eq!((one(&rig).handshakes, rig.counter("followed")), (2, 1));
}

#[test]
fn so_many_datagrams_of_a_connection_are_sent() {
    let mut rig = Rig::under(OPEN);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    for _ in 0..20 {
        send(&mut rig, "198.51.100.7:40000", &sealed);
    }
    assert_eq!(rig.take_exemplars().len() as u64, INITIALS_SENT_MAX);
    // Where a connection had some left, the next one between the same ports has none.
    send(&mut rig, "198.51.100.7:40001", &sealed[..1249].iter().copied().chain([0; 100]).collect::<Vec<_>>());
    assert_eq!(rig.take_exemplars().len(), 1, "another size is another shape");
    rig.advance(INITIAL_NS_MAX + MS);
    send(&mut rig, "198.51.100.7:40001", &sealed);
    send(&mut rig, "198.51.100.7:40001", &sealed);
    assert_eq!(rig.take_exemplars().len(), 0);
}

#[test]
fn of_a_known_shape_a_sample_is_sent_until_more_is_asked_for() {
    let mut rig = Rig::under(OPEN);
    let initials = initials(&message(), 800);
    let mut sent = 0;
    for number in 0..4000 {
        let source = format!("10.0.{}.{}:5000", number / 250, number % 250);
        initials.iter().for_each(|initial| send(&mut rig, &source, initial));
        let exemplars = rig.take_exemplars();
        assert!(exemplars.is_empty() || opened(&exemplars) == Some(message()), "all of a connection or none");
        sent += u64::from(!exemplars.is_empty());
        rig.advance(MS);
    }
    let known = one(&rig);
    assert_eq!(known.handshakes, 4000);
    assert!((3200..4800).contains(&known.sources), "{} sources", known.sources);
    assert!((1..5 * 4000 / EXEMPLAR_SAMPLE).contains(&sent), "{sent} connections were sent");
    ask_again(&rig.bench().loaded.maps, known.number);
    initials.iter().for_each(|initial| send(&mut rig, "10.1.0.1:5000", initial));
    assert!(opened(&rig.take_exemplars()) == Some(message()));
}

#[test]
fn a_flood_of_initials_leaves_room_for_others() {
    let mut rig = Rig::under(OPEN);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    let stream = Hello::browser(300).stream();
    let mut early = Client::new("198.51.100.1:40000");
    early.connect(&mut rig);
    for number in 0..2 * FLOWS {
        send(&mut rig, &format!("10.0.{}.9:{}", number % 200, 1024 + number / 200), &sealed);
    }
    assert_eq!((rig.counter("followed"), rig.counter("flows_full")), (2 * FLOWS as u64 + 1, 0));
    // A handshake over TCP that had begun before, and one that begins now.
    assert_ne!(early.send(&mut rig, &stream), 0);
    let mut late = Client::new("198.51.100.2:40000");
    late.connect(&mut rig);
    assert_ne!(late.send(&mut rig, &stream), 0);
}

/// The captures beside the project, if they are there.
fn shared_captures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        println!("skipped: there is no {}", directory.display());
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("a file").path());
    paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("quic")))
        .collect()
}

#[test]
fn datagrams_of_captures_give_the_ja4s_of_their_clients() {
    let mut found = 0;
    for path in shared_captures() {
        let mut expected = Vec::new();
        let mut reader = Reader::open(&path).expect("a capture");
        follow(&mut reader, |flow| {
            if let (Some(hello), Transport::Quic) = (flow.hello, flow.transport) {
                expected.push((
                    (flow.source.port(), flow.destination.port()),
                    ja4(&hello, Transport::Quic).expect("a hello").to_string(),
                ));
            }
        })
        .expect("a capture");
        let mut rig =
            Rig::under("version = 1\n[[service]]\nname = \"all\"\naddresses = [\"0.0.0.0/0\", \"::/0\"]\n");
        let mut reader = Reader::open(&path).expect("a capture");
        while let Some(frame) = reader.next_frame().expect("a frame") {
            rig.send(&frame.data);
        }
        let exemplars = rig.take_exemplars();
        let exemplars: Vec<_> =
            exemplars.into_iter().filter(|exemplar| exemplar.header.kind == Kind::Initial as u8).collect();
        for (ports, ja4_of_capture) in &expected {
            let of_flow: Vec<_> = exemplars
                .iter()
                .filter(|exemplar| (exemplar.header.source_port, exemplar.header.destination_port) == *ports)
                .cloned()
                .collect();
            // A shape that was known is not sent.
            if of_flow.is_empty() {
                continue;
            }
            let message = opened(&of_flow).expect("all of a connection");
            assert_eq!(&ja4(&message, Transport::Quic).expect("a hello").to_string(), ja4_of_capture);
            found += 1;
        }
        let counted: u32 = known(&rig)
            .iter()
            .filter(|known| known.kind == Kind::Initial)
            .map(|known| known.handshakes)
            .sum();
        assert!(counted as usize >= expected.len(), "{}: {counted}", path.display());
        println!("{}: {} clients, {counted} counted", path.display(), expected.len());
    }
    assert!(found > 0 || shared_captures().is_empty());
}
