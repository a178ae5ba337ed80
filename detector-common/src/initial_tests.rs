use proptest::{collection::vec as many, prelude::*};
use std::{format, string::ToString, vec, vec::Vec};

use super::*;

const V1: [u8; 4] = [0, 0, 0, 1];
const V2: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];

/// A number of variable length, in so many bytes.
fn number_in(value: u64, bytes: usize) -> Vec<u8> {
    let prefix = (bytes.trailing_zeros() as u64) << (8 * bytes - 2);
    (value | prefix).to_be_bytes()[8 - bytes..].to_vec()
}

/// An Initial that fills its datagram.
fn initial(version: [u8; 4], ids: [usize; 2], token: usize, datagram: usize) -> Vec<u8> {
    let mut packet = vec![if version == V2 { 0xd3 } else { 0xc3 }];
    packet.extend(version);
    for id in ids {
        packet.push(id as u8);
        packet.extend(vec![0xaa; id]);
    }
    packet.extend(number_in(token as u64, if token < 64 { 1 } else { 2 }));
    packet.extend(vec![0xbb; token]);
    packet.extend(number_in((datagram - packet.len() - 2) as u64, 2));
    packet.resize(datagram, 0xcc);
    packet
}

fn shape_of(datagram: &[u8]) -> Option<Shape> {
    let mut segment = Segment::of(datagram);
    // What was in the room before, and how long the datagram really is.
    segment.bytes[datagram.len().min(SEGMENT_BYTES_MAX)..].fill(0xff);
    segment.end = datagram.len() as u64;
    read(&segment)
}

fn text(datagram: &[u8]) -> Option<std::string::String> {
    shape_of(datagram).map(|shape| shape.to_string())
}

#[test]
fn initials_have_shapes() {
    let rows = [
        (initial(V1, [8, 0], 0, 1250), "1:8,0:-:1250"),
        (initial(V1, [8, 0], 1, 1250), "1:8,0:short:1250"),
        (initial(V1, [20, 20], 63, 1200), "1:20,20:short:1200"),
        (initial(V2, [18, 5], 64, 1499), "2:18,5:long:1499"),
        (initial(V2, [0, 20], 0, 1500), "2:0,20:-:1500+"),
        (initial(V1, [8, 8], 1100, 4096), "1:8,8:long:1500+"),
    ];
    for (datagram, expected) in rows {
        assert_eq!(text(&datagram).as_deref(), Some(expected));
    }
}

#[test]
fn what_is_not_certainly_an_initial_has_no_shape() {
    let whole = initial(V1, [8, 8], 10, 1250);
    let changed = |at: usize, byte: u8| {
        let mut datagram = whole.clone();
        datagram[at] = byte;
        datagram
    };
    let rows = [
        ("a short header", changed(0, 0x40)),
        ("a bit that is always set is not", changed(0, 0x80)),
        ("0-RTT", changed(0, 0xd0)),
        ("Handshake", changed(0, 0xe0)),
        ("Retry", changed(0, 0xf0)),
        ("version 0", changed(4, 0)),
        ("a draft", [&[0xc0, 0xff, 0, 0, 0x1d], &whole[5..]].concat()),
        ("version 2 with the kind of version 1", [&[0xc0], &V2[..], &whole[5..]].concat()),
        ("version 1 with the kind of version 2", [&[0xd0], &V1[..], &whole[5..]].concat()),
        ("a destination id that is too long", changed(5, 21)),
        ("a source id that is too long", changed(14, 21)),
        ("a token that is longer than the datagram", [&whole[..23], &[0x7f, 0xff], &whole[25..]].concat()),
        (
            "a token up to the end of the datagram",
            [&whole[..23], &number_in(1250 - 25, 2), &whole[25..]].concat(),
        ),
        ("a token of nearly 2^62 bytes", [&whole[..23], &[0xff; 8], &whole[31..]].concat()),
        (
            "a length that is longer than the datagram",
            [&whole[..34], &number_in(1215, 2), &whole[36..]].concat(),
        ),
        ("a length without a sample", [&whole[..34], &number_in(19, 2), &whole[36..]].concat()),
        ("a length of nearly 2^62 bytes", [&whole[..34], &[0xff; 8], &whole[42..]].concat()),
        ("a datagram that is too small", initial(V1, [8, 8], 0, 1199)),
        ("a datagram that is too large", initial(V1, [8, 8], 0, 4097)),
        ("a datagram that was cut", whole[..1249].to_vec()),
        ("nothing", Vec::new()),
    ];
    assert_eq!(text(&whole).as_deref(), Some("1:8,8:short:1250"));
    // The same in a coalesced datagram, and with the smallest length.
    let shorter = [&whole[..34], &number_in(20, 2), &whole[36..]].concat();
    assert_eq!(shape_of(&shorter), shape_of(&whole));
    for (name, datagram) in rows {
        assert_eq!(text(&datagram), None, "{name}");
    }
}

#[test]
fn later_initials_may_go_to_an_id_of_the_servers() {
    let is_first = |ids, token| shape_of(&initial(V1, ids, token, 1200)).unwrap().may_be_first();
    assert!(
        is_first([8, 0], 0) && is_first([20, 0], 0) && is_first([4, 0], 16),
        "the last one after a Retry"
    );
    assert!(!is_first([7, 8], 0) && !is_first([0, 8], 0));
}

fn shapes() -> impl Strategy<Value = (Vec<u8>, Shape)> {
    let token = prop_oneof![Just(0_usize), 1..64_usize, 64..1000_usize];
    (any::<bool>(), 0..=20_usize, 0..=20_usize, token, 1200..2000_usize).prop_map(
        |(is_v1, destination, source, token, datagram)| {
            let shape = Shape {
                version: if is_v1 { Version::V1 } else { Version::V2 },
                destination_id_bytes: destination as u8,
                source_id_bytes: source as u8,
                token: match token {
                    0 => Token::None,
                    1..64 => Token::Short,
                    _ => Token::Long,
                },
                datagram_bytes: datagram.min(1500) as u16,
            };
            (initial(if is_v1 { V1 } else { V2 }, [destination, source], token, datagram), shape)
        },
    )
}

proptest! {
    #[test]
    fn the_shape_is_that_of_the_header((datagram, shape) in shapes(), hidden in any::<u8>()) {
        prop_assert_eq!(shape_of(&datagram), Some(shape));
        // What is hidden in the first byte does not count.
        let mut other = datagram.clone();
        other[0] = other[0] & KIND | hidden & !KIND;
        prop_assert_eq!(shape_of(&other), Some(shape));
        prop_assert!(may_begin(*other.first_chunk().unwrap()));
        prop_assert_eq!(shape_of(&datagram[..datagram.len() - 1]), None, "cut");
    }

    #[test]
    fn keys_and_texts_are_equal_as_shapes_are((_, one) in shapes(), (_, two) in shapes()) {
        prop_assert_eq!(one.key() == two.key(), one == two);
        prop_assert_eq!(format!("{one}") == format!("{two}"), one == two);
        prop_assert_eq!(Shape::of_key(one.key()), Some(one));
    }

    #[test]
    fn few_numbers_are_keys(key in any::<u64>()) {
        prop_assert_eq!(mix(unmix(key)), key);
        prop_assert_eq!(unmix(mix(key)), key);
        prop_assert_eq!(Shape::of_key(key), None);
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_has_a_shape_may_begin(
        head in many(any::<u8>(), 0..80),
        start in proptest::sample::select(vec![[0xc0, 0, 0, 0, 1], [0xd0, 0x6b, 0x33, 0x43, 0xcf]]),
        tail in any::<u8>(),
        bytes in 0..4096_usize,
    ) {
        let mut datagram = [&start[..], &head].concat();
        datagram.resize(bytes, tail);
        if let Some(shape) = shape_of(&datagram) {
            prop_assert!(may_begin(*datagram.first_chunk().unwrap()));
            prop_assert_eq!(Shape::of_key(shape.key()), Some(shape));
        }
        // Bytes of all kinds at the start, and an end that is none of theirs.
        let mut segment = Segment::of(&head);
        segment.end = bytes as u64 * 3;
        let _ = read(&segment);
    }
}
