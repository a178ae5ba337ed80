use alloc::string::ToString as _;
use std::{vec, vec::Vec};

use proptest::{collection::vec as many, prelude::*};

use super::{extension::*, *};

/// A ClientHello to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) legacy_version: u16,
    pub(crate) cipher_suites: Vec<u16>,
    /// Types and contents; none at all: not even their length is there.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

/// A list with its length before it.
pub(crate) fn list(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a short list").to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

pub(crate) fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

impl Wire {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend(list(1, &[9; 32]));
        body.extend(list(2, &numbers(&self.cipher_suites)));
        body.extend(list(1, &[0]));
        if let Some(extensions) = &self.extensions {
            let one =
                |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &list(2, content)].concat();
            body.extend(list(2, &extensions.iter().flat_map(one).collect::<Vec<_>>()));
        }
        [&[CLIENT_HELLO][..], &list(3, &body)].concat()
    }
}

pub(crate) fn supported_versions(versions: &[u16]) -> (u16, Vec<u8>) {
    (SUPPORTED_VERSIONS, list(1, &numbers(versions)))
}

pub(crate) fn signature_algorithms(algorithms: &[u16]) -> (u16, Vec<u8>) {
    (SIGNATURE_ALGORITHMS, list(2, &numbers(algorithms)))
}

pub(crate) fn protocols(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let names: Vec<u8> = names.iter().flat_map(|name| list(1, name)).collect();
    (APPLICATION_PROTOCOLS, list(2, &names))
}

/// Any ClientHello that is well-formed, in which every type comes once.
pub(crate) fn wires() -> impl Strategy<Value = Wire> {
    let content = |kind: u16| match kind {
        SUPPORTED_VERSIONS => {
            many(any::<u16>(), 0..5).prop_map(|versions| supported_versions(&versions)).boxed()
        }
        SIGNATURE_ALGORITHMS => {
            many(any::<u16>(), 0..9).prop_map(|algorithms| signature_algorithms(&algorithms)).boxed()
        }
        APPLICATION_PROTOCOLS => many(many(any::<u8>(), 0..9), 0..3)
            .prop_map(|names| protocols(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .boxed(),
        _ => many(any::<u8>(), 0..20).prop_map(move |content| (kind, content)).boxed(),
    };
    let kinds =
        proptest::sample::select(vec![0, 0xa, 0xd, 0x10, 0x15, 0x17, 0x23, 0x29, 0x2a, 0x2b, 0x33, 0xff01]);
    let kinds = proptest::collection::btree_set(prop_oneof![4 => kinds, 1 => any::<u16>()], 0..12);
    let extensions = kinds.prop_flat_map(move |kinds| kinds.into_iter().map(content).collect::<Vec<_>>());
    let version = prop_oneof![Just(0x303), 0x300..0x305_u16, any::<u16>()];
    (version, many(any::<u16>(), 0..20), proptest::option::weighted(0.9, extensions.prop_shuffle())).prop_map(
        |(legacy_version, cipher_suites, extensions)| Wire { legacy_version, cipher_suites, extensions },
    )
}

fn sample() -> Wire {
    Wire {
        legacy_version: 0x0303,
        cipher_suites: vec![0x1301, 0xc02b, 0x00ff],
        extensions: Some(vec![
            (0x0017, vec![]),
            (SERVER_NAME, vec![0, 4, 0, 0, 1, b'x']),
            supported_versions(&[0x0304, 0x0303]),
            protocols(&[b"h2", b"http/1.1"]),
            signature_algorithms(&[0x0403, 0x0804]),
        ]),
    }
}

#[test]
fn a_hello_is_read_in_the_order_of_the_wire() {
    let hello = ClientHello::parse(&sample().bytes()).unwrap();
    let expected = ClientHello {
        legacy_version: 0x0303,
        cipher_suites: vec![0x1301, 0xc02b, 0x00ff],
        extensions: vec![0x0017, 0, 0x2b, 0x10, 0xd],
        supported_versions: vec![0x0304, 0x0303],
        signature_algorithms: vec![0x0403, 0x0804],
        application_protocol: Some(b"h2".to_vec()),
    };
    assert_eq!(hello, expected);
    assert!(hello.has_server_name());
}

#[test]
fn a_hello_may_end_without_extensions() {
    let hello = ClientHello::parse(&Wire { extensions: None, ..sample() }.bytes()).unwrap();
    assert_eq!(hello.extensions, []);
    assert!(!hello.has_server_name() && hello.application_protocol.is_none());
    assert_eq!(ClientHello::parse(&Wire { extensions: Some(vec![]), ..sample() }.bytes()), Ok(hello));
}

#[test]
fn of_a_repeated_extension_the_first_counts() {
    let twice = Some(vec![protocols(&[b"a"]), protocols(&[b"b"]), (0x17, vec![]), (0x17, vec![])]);
    let hello = ClientHello::parse(&Wire { extensions: twice, ..sample() }.bytes()).unwrap();
    assert_eq!(hello.extensions, [0x10, 0x10, 0x17, 0x17]);
    assert_eq!(hello.application_protocol, Some(b"a".to_vec()));
}

#[test]
fn of_the_application_protocols_only_the_first_is_asked_for() {
    let read = |content: &[u8]| {
        let extensions = Some(vec![(APPLICATION_PROTOCOLS, content.to_vec())]);
        ClientHello::parse(&Wire { extensions, ..sample() }.bytes()).unwrap().application_protocol
    };
    assert_eq!(read(&[0, 5, 2, b'h', b'2', 9, b'x']), Some(b"h2".to_vec()), "the second one is cut off");
    assert_eq!(read(&[0, 1, 0]), Some(vec![]));
    for none in [&[][..], &[7], &[0, 0], &[0, 9]] {
        assert_eq!(read(none), None, "{none:?}");
    }
}

#[test]
fn errors_say_what_and_where() {
    let said = |bytes: &[u8]| ClientHello::parse(bytes).unwrap_err().to_string();
    let with = |extension| Wire { extensions: Some(vec![extension]), ..sample() }.bytes();
    assert!(said(&[2, 0, 0, 0]).contains("type 2, expected 1"), "{}", said(&[2, 0, 0, 0]));
    // Behind 4 + 2 + 32 bytes, 33 of session id, 8 of cipher suites and 2 of compression methods.
    let rows: &[(Vec<u8>, &[&str])] = &[
        (vec![], &["the handshake type at byte 0: expected 1 bytes, found 0"]),
        (vec![1, 0, 1, 0], &["the body at byte 4: expected 256 bytes, found 0"]),
        (vec![1, 0, 0, 1, 3], &["the legacy version at byte 4: expected 2 bytes, found 1"]),
        ([sample().bytes(), vec![0]].concat(), &["the message: found 1 bytes more at byte"]),
        (
            with((SUPPORTED_VERSIONS, vec![3, 3, 4, 3])),
            &["the supported versions at byte 88: found a length of 3"],
        ),
        (
            with((SUPPORTED_VERSIONS, vec![4, 3, 4, 3])),
            &["the supported versions at byte 88: expected 4 bytes, found 3"],
        ),
        (with((SIGNATURE_ALGORITHMS, vec![0, 2, 4, 3, 0])), &["an extension: found 1 bytes more at byte 91"]),
        (with((APPLICATION_PROTOCOLS, vec![0, 3, 3, b'h', b'2'])), &["an application protocol at byte 90"]),
        (
            with((APPLICATION_PROTOCOLS, vec![0, 4, 2, b'h', b'2'])),
            &["the application protocols at byte 89: expected 4 bytes, found 3"],
        ),
    ];
    for (bytes, parts) in rows {
        for part in *parts {
            assert!(said(bytes).contains(part), "{part:?} is missing in: {}", said(bytes));
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(wire in wires()) {
        let hello = ClientHello::parse(&wire.bytes()).unwrap();
        prop_assert_eq!(hello.legacy_version, wire.legacy_version);
        prop_assert_eq!(&hello.cipher_suites, &wire.cipher_suites);
        let kinds: Vec<u16> = wire.extensions.iter().flatten().map(|(kind, _)| *kind).collect();
        prop_assert_eq!(&hello.extensions, &kinds);
    }

    #[test]
    fn every_truncation_is_an_error(wire in wires(), part in any::<prop::sample::Index>()) {
        let bytes = wire.bytes();
        let cut = &bytes[..part.index(bytes.len())];
        prop_assert!(ClientHello::parse(cut).is_err());
        // Also where the length of the message was made to fit.
        if let Some(body) = cut.get(HEADER_BYTES..) {
            let fitting = [&[CLIENT_HELLO][..], &list(3, body)].concat();
            let is_whole = Wire { extensions: None, ..wire }.bytes() == fitting;
            prop_assert_eq!(ClientHello::parse(&fitting).is_ok(), is_whole);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in many(any::<u8>(), 0..400)) {
        let _ = ClientHello::parse(&bytes);
        let _ = ClientHello::parse(&[&[CLIENT_HELLO][..], &list(3, &bytes)].concat());
    }

    #[test]
    fn no_change_of_a_hello_makes_it_panic(wire in wires(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = wire.bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ClientHello::parse(&bytes);
    }
}
