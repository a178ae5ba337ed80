use detector_common::{initial, segment::Segment};
use proptest::{collection::vec as many, prelude::*};

use super::{
    fixtures::{Packet, V1, V2, bytes, crypto, number},
    keys::Keys,
    packet::initials,
    version::Version,
    *,
};
use crate::fingerprint::fixtures::hello;

/// RFC 9001 and RFC 9369, appendix A: the client's connection id, and what it says in its first packet.
const ID: &str = "8394c8f03e515708";
const CRYPTO: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c0000041301130201\
    0000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000\
    0000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e04\
    03050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

/// The first and the last bytes of that packet; what is between hangs on the last sixteen, which authenticate it.
const SEALED: [(u32, &str, &str); 2] = [
    (
        V1,
        "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd\
         449f63300099f399",
        "e221af44860018ab0856972e194cd934",
    ),
    (
        V2,
        "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071bf03dceebfa162e75d6c96058bdbfb127cdf\
         cbf903388e99ad04",
        "a18b2faa745b6fe189cf772a9f84cbfc",
    ),
];

fn initial(id: &[u8]) -> Packet<'_> {
    Packet { version: V1, destination_id: id, keys_of: id, token: &[], number: 0, number_bytes: 1, kind: 0 }
}

/// What datagrams of one flow give.
fn opened(datagrams: &[Vec<u8>]) -> Vec<(usize, Hello)> {
    let mut opener = Opener::new(BOUNDS);
    let number = |datagram: usize| datagram as u64 + 1;
    let take = |(at, datagram): (usize, &Vec<u8>)| Some((at, opener.take((), datagram, number(at))?));
    datagrams.iter().enumerate().filter_map(take).collect()
}

/// The one ClientHello is given with the last datagram.
#[track_caller]
fn assert_opened(datagrams: &[Vec<u8>], message: &[u8]) {
    let found = opened(datagrams);
    let [(at, hello)] = &found[..] else { panic!("{} hellos", found.len()) };
    assert!(hello.message == message);
    assert_eq!((*at, hello.number), (datagrams.len() - 1, 1));
}

#[test]
fn the_packets_of_the_standards_open() {
    let id = bytes(ID);
    let mut payload = bytes(CRYPTO);
    let message = payload[4..].to_vec();
    payload.resize(1162, 0);
    for (version, head, tail) in SEALED {
        let sealed = Packet { version, number: 2, number_bytes: 4, ..initial(&id) }.sealed(&payload);
        assert_eq!(sealed.len(), 1200);
        assert_eq!(
            (&sealed[..64], &sealed[1184..]),
            (&bytes(head)[..], &bytes(tail)[..]),
            "version {version:x}"
        );
        assert_opened(&[sealed], &message);
    }
}

#[test]
fn masks_are_those_of_the_standards() {
    for (version, sample, mask) in [
        (V1, "d1b1c98dd7689fb8ec11d242b123dc9b", "437b9aec36"),
        (V2, "ffe67b6abcdb4298b485dd04de806071", "94a0c95e80"),
    ] {
        let keys = Keys::of_client(&Version::of(version).unwrap(), &bytes(ID)).unwrap();
        assert_eq!(keys.mask(&bytes(sample)).unwrap()[..], bytes(mask));
    }
}

#[test]
fn drafts_open_too() {
    let message = hello(300, 1);
    for version in [0xff00_0017, 0xff00_001c, 0xff00_001d, 0xff00_0020, 0xff00_0022] {
        assert_opened(&[Packet { version, ..initial(b"12345678") }.sealed(&crypto(0, &message))], &message);
    }
    assert_eq!(Version::of(0xff00_0016), None);
    assert_eq!(Version::of(0), None, "a server that does not know a version says so with this one");
}

#[test]
fn pieces_may_be_shuffled_over_frames_packets_and_datagrams() {
    let message = hello(2300, 1);
    let piece = |start: usize, end: usize| crypto(start, &message[start..end]);
    let (ping, padding, ack) = (vec![1], vec![0; 40], vec![2, 9, 0, 1, 2, 3, 4]);
    let ack_ecn = vec![3, 9, 0, 0, 2, 5, 6, 7];
    let first = [piece(700, 900), ping.clone(), piece(5, 300), padding.clone(), piece(1700, 2300)].concat();
    let second = [ack, piece(250, 700), ack_ecn, padding, piece(0, 5), ping].concat();
    let third = piece(900, 1700);
    let packet = |number: u64, payload: &[u8]| {
        Packet { number, number_bytes: 1 + number as usize, ..initial(b"12345678") }.sealed(payload)
    };
    let handshake = |id| Packet { kind: 2, ..initial(id) }.sealed(b"not the first flight");
    let early = |id| Packet { kind: 1, ..initial(id) }.sealed(b"sent with the first flight");
    let id = b"12345678";
    // One of zeros behind the packets.
    let two = [packet(1, &second), early(id), handshake(id), packet(2, &third), vec![0; 100]].concat();
    assert_opened(&[packet(0, &first), two.clone()], &message);
    assert_opened(&[two, packet(0, &first)], &message);
    assert_opened(&[packet(2, &third), packet(1, &second), packet(2, &third), packet(0, &first)], &message);
}

#[test]
fn a_client_goes_over_to_the_servers_connection_id_and_keeps_its_keys() {
    let message = hello(2000, 1);
    let (head, tail) = message.split_at(1000);
    let first = initial(b"12345678").sealed(&crypto(0, head));
    let second =
        Packet { destination_id: b"server", number: 1, ..initial(b"12345678") }.sealed(&crypto(1000, tail));
    assert_opened(&[first, second], &message);
}

#[test]
fn after_a_retry_the_keys_are_new() {
    let message = hello(2000, 1);
    let (head, tail) = message.split_at(1000);
    let before = initial(b"12345678").sealed(&crypto(0, head));
    let after = |number, payload: &[u8]| {
        Packet { token: &[7; 80], number, ..initial(b"the server's") }.sealed(payload)
    };
    let (head, tail) = (after(1, &crypto(0, head)), after(2, &crypto(1000, tail)));
    assert_opened(&[before.clone(), head.clone(), tail.clone()], &message);
    // One from before that was held up.
    assert_opened(&[before.clone(), tail, before, head], &message);
}

#[test]
fn what_is_not_the_clients_is_nothing() {
    let message = hello(300, 1);
    let sealed = initial(b"12345678").sealed(&crypto(0, &message));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 0x41;
        assert_eq!(opened(&[changed]), [], "changed at {at}");
        assert_eq!(opened(&[sealed[..at].to_vec()]), [], "cut off at {at}");
    }
    // Of a server, whose keys come from the client's connection id.
    let server = Packet { destination_id: b"client", ..initial(b"12345678") }.sealed(&crypto(0, &message));
    assert_eq!(opened(&[server]), []);
    // What comes later is no first message.
    let (other, later) =
        ([11, 0, 0, 1, 0], Packet { number: 1, ..initial(b"12345678") }.sealed(&crypto(0, &message)));
    assert_eq!(opened(&[initial(b"12345678").sealed(&crypto(0, &other)), later]), []);
    // A frame that has no place in an Initial ends it.
    let stream = [vec![8, 0, 0], crypto(0, &message)].concat();
    assert_eq!(opened(&[initial(b"12345678").sealed(&stream)]), []);
}

#[test]
fn a_hello_is_given_once() {
    let message = hello(300, 1);
    let sealed = initial(b"12345678").sealed(&crypto(0, &message));
    let found = opened(&[sealed.clone(), sealed]);
    assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_is_kept_has_bounds() {
    let mut opener = Opener::new(recent::Bounds { flows: 2, bytes: 5000 });
    let part = initial(b"12345678").sealed(&crypto(0, &hello(2000, 1)[..1000]));
    let rest = Packet { number: 1, ..initial(b"12345678") }.sealed(&crypto(1000, &hello(2000, 1)[1000..]));
    for flow in [1, 2, 3] {
        assert_eq!(opener.take(flow, &part, 1), None);
    }
    assert_eq!(opener.take(1, &rest, 2), None, "the first flow had to go");
    assert!(opener.take(3, &rest, 2).is_some());
    assert_eq!(opener.take(4, b"no QUIC", 3), None);
    assert_eq!(opener.take(5, &initial(b"12345678").sealed(&crypto(40_000, b"far away")), 3), None);
}

proptest! {
    #[test]
    fn no_datagrams_make_it_panic(
        payloads in many(many(any::<u8>(), 0..60), 1..6),
        noise in many(any::<u8>(), 0..60),
        start in proptest::sample::select(vec![0xc0_u8, 0xd0, 0xe0, 0xf0]),
    ) {
        let mut datagrams: Vec<_> = payloads
            .iter()
            .map(|payload| initial(b"12345678").sealed(&[&payload[..], &[0; 4]].concat()))
            .collect();
        datagrams.push([&[start, 0, 0, 0, 1], &noise[..]].concat());
        datagrams.push([&[start, 0x6b, 0x33, 0x43, 0xcf], &noise[..]].concat());
        datagrams.push(noise);
        opened(&datagrams);
        for datagram in &datagrams {
            prop_assert!(initials(datagram).count() <= 8);
        }
    }

    #[test]
    fn what_the_program_takes_for_an_initial_is_one(
        version in proptest::sample::select(vec![V1, V2, 0xff00_001d, 2]),
        first in proptest::sample::select(vec![0xc0_u8, 0xd0, 0xe0, 0xf0, 0x80, 0x40]),
        ids in (0..23_u8, 0..23_u8),
        token in prop_oneof![Just(0_usize), 1..80_usize, 1000..1400_usize],
        length in prop_oneof![0..30_usize, 1000..1300_usize],
        bytes in 1100..1400_usize,
    ) {
        let id = |length: u8| [&[length], &vec![7; length.into()][..]].concat();
        let token = [number(token), vec![8; token]].concat();
        let mut datagram =
            [&[first], &version.to_be_bytes()[..], &id(ids.0), &id(ids.1), &token, &number(length)].concat();
        datagram.resize(bytes, 0);
        let shape = initial::read(&Segment::of(&datagram));
        // What begins behind another packet is not looked at.
        let opened = initials(&datagram).next().filter(|initial| initial.destination_id.as_ptr() == datagram[6..].as_ptr());
        let is_expected = opened.is_some() && length >= 20 && bytes >= 1200 && version != 0xff00_001d;
        prop_assert_eq!(shape.is_some(), is_expected);
        if let (Some(shape), Some(opened)) = (shape, opened) {
            prop_assert_eq!(usize::from(shape.destination_id_bytes), opened.destination_id.len());
        }
    }
}
