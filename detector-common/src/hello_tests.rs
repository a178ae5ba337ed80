use super::*;
use proptest::prelude::*;
use std::{vec, vec::Vec};

/// The parts of a hello.
#[derive(Clone, Debug)]
struct Parts {
    legacy_version: u16,
    session_id: Vec<u8>,
    ciphers: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Parts {
    fn browser() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: vec![7; 32],
            ciphers: vec![0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b],
            extensions: vec![
                (0x0000, vec![0, 6, 0, 0, 3, b'a', b'.', b'b']),
                (0x0017, vec![]),
                (0x0010, alpn(&[b"h2", b"http/1.1"])),
                (0x000d, list(&[0x0403, 0x0804, 0x0401], 2)),
                (0x002b, list(&[0x2a2a, 0x0304, 0x0303], 1)),
                (0x0033, vec![9; 1200]),
            ],
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = Vec::from(self.legacy_version.to_be_bytes());
        body.extend([3; 32]);
        body.push(self.session_id.len() as u8);
        body.extend(&self.session_id);
        body.extend(list(&self.ciphers, 2));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for (kind, content) in &self.extensions {
            extensions.extend(kind.to_be_bytes());
            extensions.extend((content.len() as u16).to_be_bytes());
            extensions.extend(content);
        }
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = Vec::from((1_u32 << 24 | body.len() as u32).to_be_bytes());
        message.extend(body);
        message
    }

    fn stream(&self) -> Vec<u8> {
        records(&self.message(), 1 << 14)
    }

    fn key(&self) -> Option<u64> {
        key_of(&self.stream())
    }
}

fn list(values: &[u16], length_bytes: usize) -> Vec<u8> {
    let length = ((values.len() * 2) as u16).to_be_bytes();
    let mut bytes = Vec::from(&length[2 - length_bytes..]);
    bytes.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    bytes
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let names: Vec<u8> =
        names.iter().flat_map(|name| std::iter::once(name.len() as u8).chain(name.iter().copied())).collect();
    let mut bytes = Vec::from((names.len() as u16).to_be_bytes());
    bytes.extend(names);
    bytes
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = (piece.len() as u16).to_be_bytes();
        let mut record = vec![22, 3, 1, length[0], length[1]];
        record.extend(piece);
        record
    };
    message.chunks(size).flat_map(record).collect()
}

fn key_of(stream: &[u8]) -> Option<u64> {
    let mut hello = Hello::start();
    hello.read(stream);
    hello.key(Transport::Tcp)
}

fn phase_of(stream: &[u8]) -> Phase {
    let mut hello = Hello::start();
    hello.read(stream);
    hello.phase()
}

#[test]
fn a_hello_has_a_key_and_its_parts_make_it() {
    let browser = Parts::browser();
    let key = browser.key().expect("a key");
    let with = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::browser();
        change(&mut parts);
        parts.key().expect("a key")
    };
    // What changes from hello to hello of one client.
    assert_eq!(with(&|parts| parts.extensions.reverse()), key);
    assert_eq!(with(&|parts| parts.ciphers.reverse()), key);
    assert_eq!(with(&|parts| parts.ciphers[0] = 0xdada), key);
    assert_eq!(with(&|parts| parts.session_id.clear()), key);
    assert_eq!(with(&|parts| parts.extensions.push((0x0015, vec![0; 77]))), key);
    assert_eq!(with(&|parts| parts.extensions.push((0x0029, vec![1; 9]))), key);
    assert_eq!(with(&|parts| parts.extensions.push((0x3a3a, vec![0]))), key);
    assert_eq!(with(&|parts| parts.extensions[3].1 = list(&[0x5a5a, 0x0403, 0x0804, 0x0401], 2)), key);
    assert_eq!(with(&|parts| parts.extensions[5].1.truncate(32)), key);
    // What does not.
    assert_ne!(with(&|parts| parts.ciphers[1] = 0x1304), key);
    assert_ne!(with(&|parts| parts.extensions[1].0 = 0x0018), key);
    assert_ne!(with(&|parts| parts.extensions[3].1 = list(&[0x0804, 0x0403, 0x0401], 2)), key);
    assert_ne!(with(&|parts| parts.extensions[2].1 = alpn(&[b"http/1.1"])), key);
    assert_ne!(with(&|parts| parts.extensions[4].1 = list(&[0x0303], 1)), key);
    assert_ne!(with(&|parts| _ = parts.extensions.remove(0)), key);
    assert_ne!(with(&|parts| parts.ciphers.push(0x1301)), key);
}

#[test]
fn quic_has_keys_of_its_own_and_no_records() {
    let mut hello = Hello::start_of_message();
    hello.read(&Parts::browser().message());
    assert_ne!(hello.key(Transport::Quic), None);
    assert_eq!(hello.key(Transport::Tcp), Parts::browser().key());
    assert_ne!(hello.key(Transport::Quic), hello.key(Transport::Tcp));
}

#[test]
fn every_cut_in_two_gives_the_same_key() {
    let stream = Parts::browser().stream();
    let key = key_of(&stream).expect("a key");
    for cut in 0..=stream.len() {
        let mut hello = Hello::start();
        hello.read(&stream[..cut]);
        hello.read(&stream[cut..]);
        assert_eq!(hello.key(Transport::Tcp), Some(key), "cut at {cut}");
    }
}

#[test]
fn byte_by_byte_and_in_records_of_every_size() {
    let parts = Parts::browser();
    let key = parts.key().expect("a key");
    for size in 1..300 {
        let stream = records(&parts.message(), size);
        assert_eq!(key_of(&stream), Some(key), "records of {size} bytes");
        let mut hello = Hello::start();
        stream.iter().for_each(|byte| hello.read(&[*byte]));
        assert_eq!(hello.key(Transport::Tcp), Some(key), "records of {size} bytes, byte by byte");
    }
}

#[test]
fn a_hello_that_ends_early_has_no_key_before_its_last_extension() {
    let stream = Parts::browser().stream();
    // The last extension's content is not needed.
    let needed = stream.len() - 1200;
    for length in 0..needed {
        assert_eq!(key_of(&stream[..length]), None, "{length} of {} bytes", stream.len());
    }
    assert_ne!(key_of(&stream[..needed]), None);
}

#[test]
fn other_protocols_are_told_from_broken_hellos() {
    assert_eq!(phase_of(b"GET / HTTP/1.1\r\n"), Phase::NotHello);
    // TLS, but no ClientHello at its start: other messages, an alert, nothing in a record, the form of SSL 2.
    for stream in [
        &b"\x16\x03\x01\x00\x04\x02\0\0\0"[..],
        b"\x16\x03\x01\xff\xff\x01\0\0\0",
        b"\x15\x03\x01\x00\x02\x01\x5a\x16\x03\x01",
        b"\x16\x03\x01\x00\x00\x16\x03\x01",
        b"\x80\x2e\x01\x03\x01\x00\x15",
    ] {
        assert_eq!(phase_of(stream), Phase::Malformed, "{stream:x?}");
    }
    assert_eq!(phase_of(b"\x80\x2e\x02\x03\x01\x00\x15"), Phase::NotHello);
    assert_eq!(phase_of(b"\x05\x01\x00"), Phase::Message);
    let broken = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::browser();
        change(&mut parts);
        phase_of(&parts.stream())
    };
    assert_eq!(broken(&|parts| parts.session_id = vec![0; 33]), Phase::Malformed);
    assert_eq!(broken(&|parts| parts.ciphers.clear()), Phase::Malformed);
    assert_eq!(broken(&|parts| parts.extensions[3].1[1] = 5), Phase::Malformed);
    assert_eq!(broken(&|parts| parts.extensions[3].1[1] = 8), Phase::Malformed);
    assert_eq!(broken(&|parts| parts.extensions[4].1[0] = 4), Phase::Malformed);
    assert_eq!(broken(&|parts| parts.extensions[2].1[1] = 40), Phase::Malformed);
    for twice in [0, 2, 3, 4] {
        let again = |parts: &mut Parts| parts.extensions.insert(5, parts.extensions[twice].clone());
        assert_eq!(broken(&again), Phase::Malformed, "extension {twice} twice");
    }
    assert_eq!(broken(&|parts| parts.ciphers = vec![0x1301; 1100]), Phase::TooLong);
    let mut other_record = records(&Parts::browser().message(), 100);
    other_record[105] = 23;
    assert_eq!(phase_of(&other_record), Phase::Malformed);
}

#[test]
fn names_of_protocols_are_two_characters() {
    let alpn_of = |content: Vec<u8>| {
        let mut parts = Parts::browser();
        parts.extensions[2].1 = content;
        let mut hello = Hello::start();
        hello.read(&parts.stream());
        assert_eq!(hello.phase(), Phase::Complete);
        hello.alpn_characters().to_be_bytes()
    };
    assert_eq!(&alpn_of(alpn(&[b"h2", b"http/1.1"])), b"h2");
    assert_eq!(&alpn_of(alpn(&[b"http/1.1"])), b"h1");
    assert_eq!(&alpn_of(alpn(&[b"x"])), b"xx");
    assert_eq!(&alpn_of(alpn(&[b"\xba\x9d"])), b"bd");
    assert_eq!(&alpn_of(alpn(&[b"h\xab"])), b"6b");
    assert_eq!(&alpn_of(alpn(&[b""])), b"00");
    assert_eq!(&alpn_of(vec![0, 0]), b"00");
    assert_eq!(&alpn_of(vec![]), b"00");
}

fn parts() -> impl Strategy<Value = Parts> {
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    // The extensions that are looked into are added below.
    let kinds = prop_oneof![Just(0x0015), Just(0x0023), Just(0x1a1a), 0x0001..0x000d_u16, 0x0033..0x0100_u16];
    (
        any::<u16>(),
        proptest::collection::vec(any::<u8>(), 0..=32),
        proptest::collection::vec(any::<u16>(), 1..60),
        proptest::collection::vec((kinds, content), 0..12),
        proptest::collection::vec(any::<u16>(), 1..30),
        proptest::collection::vec(any::<u16>(), 1..8),
        proptest::collection::vec(any::<u8>(), 1..20),
    )
        .prop_map(|(legacy_version, session_id, ciphers, mut extensions, signatures, versions, name)| {
            let half = extensions.len() / 2;
            extensions.insert(half, (0x000d, list(&signatures, 2)));
            extensions.insert(half, (0x0010, alpn(&[&name])));
            extensions.push((0x002b, list(&versions, 1)));
            Parts { legacy_version, session_id, ciphers, extensions }
        })
}

proptest! {
    #[test]
    fn any_cuts_and_records_give_the_same_key(
        parts in parts(),
        record in 1..3000_usize,
        cuts in proptest::collection::vec(0..4000_usize, 0..6),
    ) {
        let key = parts.key();
        prop_assert!(key.is_some());
        let stream = records(&parts.message(), record);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let mut hello = Hello::start();
        let mut start = 0;
        for cut in cuts {
            hello.read(&stream[start..cut]);
            start = cut;
        }
        prop_assert_eq!(hello.key(Transport::Tcp), key);
    }

    #[test]
    fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..600), flips in 0..8_usize) {
        let mut hello = Hello::start();
        hello.read(&bytes);
        // Nearly a hello.
        let mut stream = Parts::browser().stream();
        for flip in bytes.chunks_exact(3).take(flips) {
            let place = usize::from(u16::from_be_bytes([flip[0], flip[1]])) % stream.len();
            stream[place] = flip[2];
        }
        let mut whole = Hello::start();
        whole.read(&stream);
        let mut split = Hello::start();
        stream.iter().for_each(|byte| split.read(&[*byte]));
        prop_assert_eq!(whole, split);
    }
}
