use proptest::{collection::vec as many, prelude::*};

use detector_common::hello::{Hello, Transport};

use super::*;
use crate::fingerprint::{
    fixtures::{hello, records},
    ja4, key,
};

/// Searches as a stream does: whenever there are as many bytes as the last search asked for.
fn search_stepwise(stream: &[u8], step: usize) -> Search {
    let (mut from, mut needed) = (0, 0);
    let mut last = Search::NotYet { from, needed };
    for end in (step..=stream.len()).step_by(step).chain([stream.len()]) {
        if end < needed {
            continue;
        }
        last = search(&stream[..end], from);
        match last {
            Search::NotYet { from: next, needed: more } => (from, needed) = (next, more),
            _ => break,
        }
    }
    last
}

const CONNECT: &[u8] =
    b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\nProxy-Authorization: Basic \x16\x03\r\n\r\n";
const SOCKS5: &[u8] = &[5, 1, 0, 5, 1, 0, 3, 1, b'x', 1, 0xbb];
const SMTP: &[u8] = b"EHLO client\r\nSTARTTLS\r\n";
const POSTGRES: &[u8] = &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];

#[test]
fn a_hello_is_found_after_any_dialogue_and_in_any_records() {
    for dialogue in [&b""[..], CONNECT, SOCKS5, SMTP, POSTGRES] {
        for size in [1, 2, 3, 4, 5, 6, 99, 1000, 1024, 16384] {
            let message = hello(1800, 7);
            let stream = [dialogue, &records(&message, size), &[23, 3, 3, 0, 1, 0]].concat();
            for step in [1, 7, 536, 1460, 100_000] {
                let found = search_stepwise(&stream, step);
                let expected = Search::Found { start: dialogue.len(), message: message.clone() };
                assert_eq!(found, expected, "records of {size}, steps of {step}, after {dialogue:02x?}");
            }
        }
    }
}

#[test]
fn what_is_asked_for_is_never_more_than_what_it_takes() {
    let stream = [SOCKS5, &records(&hello(600, 7), 100)].concat();
    let (mut from, mut end) = (0, 0);
    loop {
        match search(&stream[..end], from) {
            Search::NotYet { from: next, needed } => {
                assert!(end < needed && needed <= stream.len(), "{needed} of {} at {end}", stream.len());
                (from, end) = (next, needed);
            }
            found => return assert!(matches!(found, Search::Found { start: 11, .. }) && end == stream.len()),
        }
    }
}

#[test]
fn only_the_first_hello_counts() {
    let first = hello(200, 1);
    let stream = [records(&first, 500), vec![20, 3, 3, 0, 1, 1], records(&hello(300, 2), 500)].concat();
    assert_eq!(search(&stream, 0), Search::Found { start: 0, message: first });
    // One that is malformed is still the first.
    let mut malformed = hello(200, 1);
    malformed[38] = 77;
    let stream = [records(&malformed, 500), records(&hello(300, 2), 500)].concat();
    assert_eq!(search(&stream, 0), Search::Never);
}

#[test]
fn a_connection_that_has_begun_before_has_no_first_hello() {
    let second = records(&hello(300, 2), 500);
    for begun in
        [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 2, 16, 0], &[23, 3, 3, 0, 1, 0]]
    {
        let stream = [begun, &second].concat();
        assert_eq!(search(&stream, 0), Search::NotYet { from: 0, needed: stream.len() + 1 }, "{begun:?}");
        assert_eq!(search(&[&stream[..], &[0; BEGUN_BYTES_MAX]].concat(), 0), Search::Never, "{begun:?}");
    }
}

#[test]
fn what_only_looks_like_a_hello_is_passed_over() {
    let message = hello(200, 7);
    let whole = records(&message, 500);
    let rows: &[&[u8]] = &[
        &[22, 3, 5, 0, 100, 1],
        &[22, 2, 1, 0, 100, 1],
        &[22, 3, 1, 0, 0, 1],
        &[22, 3, 1, 0xff, 0xff, 1],
        &[1, 22, 3, 1, 0, 100, 2],
        // A message that is too short, one that is too long, one of another protocol.
        &[22, 3, 1, 0, 100, 1, 0, 0, 37],
        &[22, 3, 1, 0, 100, 1, 1, 0, 0],
        &[22, 3, 1, 0, 100, 1, 0, 1, 0, 4, 0],
        &[22, 22, 22],
    ];
    for decoy in rows {
        let found = search(&[b"hello ", *decoy, &whole].concat(), 0);
        assert_eq!(found, Search::Found { start: 6 + decoy.len(), message: message.clone() }, "{decoy:?}");
    }
}

#[test]
fn what_the_program_read_to_its_key_has_its_ja4_wherever_it_was_cut() {
    let message = hello(600, 7);
    let fingerprint_key = |message: &[u8]| key(message, Transport::Tcp);
    let key = fingerprint_key(&message);
    assert!(key.is_some());
    for stream in
        [records(&message, 1000), records(&message, 77), [records(&message, 1000), vec![0; 9]].concat()]
    {
        let mut had_keys = 0;
        for cut in 0..=stream.len() {
            let mut machine = Hello::start();
            machine.read(&stream[..cut]);
            let Some(of_machine) = machine.key(Transport::Tcp) else { continue };
            had_keys += 1;
            let filled = filled(&stream[..cut]).expect("a ClientHello");
            assert_eq!((filled.len(), Some(of_machine)), (message.len(), key), "cut at {cut}");
            assert_eq!(fingerprint_key(&filled), key, "cut at {cut}");
            let names =
                [&filled, &message].map(|message| ja4(message, Transport::Tcp).expect("a ClientHello"));
            assert_eq!(names[0], names[1], "cut at {cut}");
        }
        assert!(had_keys > 400, "{had_keys} pieces have the key");
    }
    for none in [&b""[..], b"hello", &[22, 3, 1], &[22, 3, 1, 0, 9, 2, 0], &[22, 3, 1, 0xff, 0xff, 1]] {
        assert_eq!(filled(none), None, "{none:?}");
    }
}

/// A ClientHello with these versions, one extension of protocols and so many bytes of padding behind it.
fn odd_hello(legacy_version: [u8; 2], protocols: &[u8], padding: usize) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).expect("a short list").to_be_bytes();
    let extensions = [
        &[0, 0x10][..],
        &length(protocols.len()),
        protocols,
        &[0, 0x15],
        &length(padding),
        &vec![0; padding],
    ]
    .concat();
    let body =
        [&legacy_version[..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &length(extensions.len()), &extensions]
            .concat();
    [&[1, 0][..], &length(body.len()), &body].concat()
}

#[test]
fn whatever_the_program_gives_a_key_has_a_name() {
    let h2: &[u8] = &[0, 3, 2, b'h', b'2'];
    let rows: [(&str, Vec<u8>, u8); 7] = [
        ("an ordinary one", odd_hello([3, 3], h2, 5), 1),
        ("any minor version of a record", odd_hello([3, 3], h2, 5), 0xfe),
        ("any version of old", odd_hello([0x7f, 0x12], h2, 5), 1),
        ("of almost 64 KiB", odd_hello([3, 3], h2, 0xff00), 1),
        ("with a second protocol that is cut off", odd_hello([3, 3], &[0, 5, 2, b'h', b'2', 9, b'x'], 5), 1),
        ("without room for a protocol", odd_hello([3, 3], &[0, 9], 5), 1),
        ("with an empty protocol", odd_hello([3, 3], &[0, 1, 0], 5), 1),
    ];
    for (what, message, minor) in rows {
        let mut stream = records(&message, 1 << 14);
        stream[2] = minor;
        // As much as a segment has, of which the program reads what it needs.
        for end in [stream.len().min(4096), stream.len()] {
            let mut machine = Hello::start();
            machine.read(&stream[..end]);
            let said = machine.key(Transport::Tcp);
            assert!(said.is_some(), "{what}");
            let filled = filled(&stream[..end]).unwrap_or_else(|| panic!("{what}: no ClientHello"));
            assert_eq!((filled.len(), key(&filled, Transport::Tcp)), (message.len(), said), "{what}");
            let named = ja4(&filled, Transport::Tcp).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(Ok(named), ja4(&message, Transport::Tcp), "{what}");
        }
    }
}

#[test]
fn what_stands_behind_all_that_the_key_needs_does_not_matter() {
    let message = odd_hello([3, 3], &[0, 3, 2, b'h', b'2'], 500);
    let whole = key(&message, Transport::Tcp);
    // The padding goes on in what is no record.
    let cut = records(&message[..200], 1000);
    for behind in [&[0xff; 9][..], &[22, 3, 1, 0, 0, 1], &[22, 3], b""] {
        let filled = filled(&[&cut, behind].concat()).expect("a ClientHello");
        assert_eq!((filled.len(), key(&filled, Transport::Tcp)), (message.len(), whole), "{behind:?}");
    }
}

#[test]
fn a_dialogue_has_an_end() {
    let late = [vec![b'.'; DIALOGUE_BYTES_MAX], records(&hello(200, 7), 500)].concat();
    assert_eq!(search(&late, 0), Search::Never);
    assert_eq!(search_stepwise(&late, 1460), Search::Never);
    assert!(matches!(search(&late[1..], 0), Search::Found { .. }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in many(prop_oneof![Just(22_u8), Just(3), Just(1), Just(0), any::<u8>()], 0..200)) {
        let whole = search(&bytes, 0);
        let stepwise = search_stepwise(&bytes, 1);
        filled(&bytes);
        match whole {
            Search::NotYet { .. } => prop_assert!(matches!(stepwise, Search::NotYet { .. }), "{stepwise:?}"),
            _ => prop_assert_eq!(stepwise, whole),
        }
    }
}
