use std::{format, string::ToString as _, vec};

use proptest::{collection::vec as many, prelude::*};

use super::*;
use crate::client_hello::tests::{Wire, protocols, signature_algorithms, supported_versions, wires};

const CIPHERS: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
    0x002f, 0x0035,
];
const EXTENSIONS: [u16; 16] =
    [0x1b, 0, 0x33, 0x10, 0x4469, 0x17, 0x2d, 0xd, 5, 0x23, 0x12, 0x2b, 0xff01, 0xb, 0xa, 0x15];
const ALGORITHMS: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

/// The example of the text.
fn example() -> ClientHello {
    ClientHello {
        legacy_version: 0x0303,
        cipher_suites: CIPHERS.to_vec(),
        extensions: EXTENSIONS.to_vec(),
        supported_versions: vec![0x0304, 0x0303],
        signature_algorithms: ALGORITHMS.to_vec(),
        application_protocol: Some(b"h2".to_vec()),
    }
}

fn ja4(hello: &ClientHello) -> String {
    Ja4::of(hello, Transport::Tcp).to_string()
}

#[test]
fn the_example_of_the_text() {
    let ja4 = Ja4::of(&example(), Transport::Tcp);
    assert_eq!(ja4.to_string(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        ja4.raw(),
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,000d,\
         0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601"
    );
    assert_eq!(
        ja4.raw_original(),
        "t13d1516h2_1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035_001b,0000,0033,0010,\
         4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015_0403,0804,0401,0503,0805,0501,0806,0601"
    );
    let quic = Ja4::of(&example(), Transport::Quic).to_string();
    assert_eq!(quic, "q13d1516h2_8daaf6152771_e5627efa2ab1");
}

#[test]
fn without_signature_algorithms_there_is_no_second_list() {
    let hello = ClientHello { signature_algorithms: vec![], ..example() };
    assert_eq!(ja4(&hello), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    assert!(Ja4::of(&hello, Transport::Tcp).raw().ends_with("4469,ff01"));
    // Those that mean nothing are none.
    assert_eq!(ja4(&ClientHello { signature_algorithms: vec![0xeaea], ..example() }), ja4(&hello));
}

#[test]
fn empty_lists_are_zeros() {
    let nothing = ClientHello { legacy_version: 0x0301, ..ClientHello::default() };
    assert_eq!(ja4(&nothing), "t10i000000_000000000000_000000000000");
    assert_eq!(Ja4::of(&nothing, Transport::Tcp).raw(), "t10i000000__");
    // The server's name and the application protocols are not hashed.
    let hello = ClientHello { extensions: vec![0x0010, 0x0000], ..example() };
    assert_eq!(ja4(&hello), "t13d1502h2_8daaf6152771_000000000000");
    assert!(Ja4::of(&hello, Transport::Tcp).raw_original().contains("_0010,0000_0403"));
}

#[test]
fn versions_are_the_highest_that_is_meant() {
    let rows: &[(u16, &[u16], &str)] = &[
        (0x0303, &[0x0303, 0x0304, 0x0302], "13"),
        (0x0303, &[0xfafa, 0x0303], "12"),
        (0x0302, &[], "11"),
        (0x0302, &[0xfafa], "11"),
        (0x0301, &[], "10"),
        (0x0300, &[], "s3"),
        (0x0303, &[0x7f1c, 0x0303], "00"),
        (0x0304, &[], "13"),
        (0x0002, &[], "00"),
    ];
    for (legacy_version, versions, expected) in rows {
        let hello = ClientHello {
            legacy_version: *legacy_version,
            supported_versions: versions.to_vec(),
            ..example()
        };
        assert_eq!(&ja4(&hello)[1..3], *expected, "{legacy_version:04x} {versions:04x?}");
    }
}

#[test]
fn application_protocols_have_two_characters() {
    let rows: &[(&[u8], &str)] = &[
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"", "00"),
        (&[0xab], "ab"),
        (&[0xab, 0xcd], "ad"),
        (&[0x30, 0xab], "3b"),
        (&[0x30, 0x31, 0xab, 0xcd], "3d"),
        (&[0x30, 0xab, 0xcd, 0x31], "01"),
        (b"h-", "6d"),
        (b"\x0a", "0a"),
    ];
    for (protocol, expected) in rows {
        let hello = ClientHello { application_protocol: Some(protocol.to_vec()), ..example() };
        assert_eq!(&ja4(&hello)[8..10], *expected, "{protocol:02x?}");
    }
    assert_eq!(&ja4(&ClientHello { application_protocol: None, ..example() })[8..10], "00");
}

#[test]
fn counts_end_at_99() {
    let many: Vec<u16> = (1..=120).map(|number| 0x2000 + number).collect();
    let hello = ClientHello { cipher_suites: many.clone(), extensions: many, ..example() };
    assert_eq!(&ja4(&hello)[..10], "t13i9999h2");
}

#[test]
fn the_stable_variant_lacks_what_comes_and_goes() {
    let hello = example();
    let stable = Ja4::of(&hello, Transport::Tcp).stable();
    let without: Vec<u16> = EXTENSIONS.into_iter().filter(|kind| ![0x15, 0x23].contains(kind)).collect();
    assert_eq!(stable, Ja4::of(&ClientHello { extensions: without.clone(), ..example() }, Transport::Tcp));
    assert!(stable.to_string().starts_with("t13d1514h2_8daaf6152771_"), "{stable}");
    let resumed = ClientHello { extensions: [&without[..], &[0x2a, 0x23, 0x29]].concat(), ..example() };
    assert_ne!(ja4(&resumed), ja4(&hello));
    assert_eq!(Ja4::of(&resumed, Transport::Tcp).stable(), stable);
}

#[test]
fn grease_has_sixteen_values() {
    let grease: Vec<u16> = (0..=u16::MAX).filter(|number| is_grease(*number)).collect();
    assert_eq!(grease, (0..16).map(|digit| 0x0a0a + 0x1010 * digit).collect::<Vec<u16>>());
}

/// One of the sixteen.
fn grease() -> impl Strategy<Value = u16> {
    (0..16_u16).prop_map(|digit| 0x0a0a + 0x1010 * digit)
}

/// The same ClientHello with GREASE wherever clients put it, and its extensions in another order.
fn disguised(wire: Wire) -> impl Strategy<Value = (Wire, Wire)> {
    let places = any::<[prop::sample::Index; 4]>();
    let values = many(grease(), 4);
    let extensions = Just(wire.extensions.clone().unwrap_or_default()).prop_shuffle();
    (places, values, extensions).prop_map(move |(places, values, mut extensions)| {
        let (mut plain, mut disguised) = (wire.clone(), wire.clone());
        let put = |list: &mut Vec<u16>, number: usize| {
            list.insert(places[number].index(list.len() + 1), values[number])
        };
        put(&mut disguised.cipher_suites, 0);
        let (versions, algorithms) = (vec![0x0304, 0x0301], ALGORITHMS.to_vec());
        let own = |extensions: &mut Vec<(u16, Vec<u8>)>, versions: &[u16], algorithms: &[u16]| {
            extensions.retain(|(kind, _)| ![0xd, 0x2b].contains(kind) && !is_grease(*kind));
            extensions.extend([supported_versions(versions), signature_algorithms(algorithms)]);
        };
        own(plain.extensions.get_or_insert_default(), &versions, &algorithms);
        let (mut greased_versions, mut greased_algorithms) = (versions, algorithms);
        put(&mut greased_versions, 1);
        put(&mut greased_algorithms, 2);
        own(&mut extensions, &greased_versions, &greased_algorithms);
        let at = places[3].index(extensions.len() + 1);
        extensions.insert(at, (values[3], vec![0]));
        disguised.extensions = Some(extensions);
        (plain, disguised)
    })
}

proptest! {
    #[test]
    fn order_of_extensions_and_grease_change_nothing((plain, disguised) in wires().prop_flat_map(disguised)) {
        let [plain, disguised] = [plain, disguised].map(|wire| {
            Ja4::of(&ClientHello::parse(&wire.bytes()).unwrap(), Transport::Tcp)
        });
        prop_assert_eq!(plain.to_string(), disguised.to_string());
        prop_assert_eq!(plain.raw(), disguised.raw());
        prop_assert_eq!(plain.stable().to_string(), disguised.stable().to_string());
    }

    #[test]
    fn the_stable_variant_is_blind_to_unstable_extensions(
        wire in wires(),
        kind in proptest::sample::select(VARIANT_EXTENSIONS.to_vec()),
    ) {
        let mut more = wire.clone();
        let extensions = more.extensions.get_or_insert_default();
        extensions.retain(|(other, _)| *other != kind);
        extensions.push((kind, vec![1, 2, 3]));
        let [wire, more] = [wire, more].map(|wire| {
            Ja4::of(&ClientHello::parse(&wire.bytes()).unwrap(), Transport::Quic).stable().to_string()
        });
        prop_assert_eq!(wire, more);
    }

    #[test]
    fn the_form_is_always_the_same(wire in wires()) {
        let hello = ClientHello::parse(&wire.bytes()).unwrap();
        let ja4 = Ja4::of(&hello, Transport::Tcp);
        let text = format!("{ja4}");
        prop_assert_eq!(text.len(), 36);
        let parts: Vec<_> = text.split('_').map(str::len).collect();
        prop_assert_eq!(parts, [10, 12, 12]);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        prop_assert!(ja4.raw().starts_with(&text[..11]) && ja4.raw_original().starts_with(&text[..11]));
        // Names that the wire may give: the longest list of protocols is read, the first one counts.
        let named = ClientHello::parse(&Wire { extensions: Some(vec![protocols(&[b"h3", b"h2"])]), ..wire }.bytes());
        prop_assert_eq!(&Ja4::of(&named.unwrap(), Transport::Tcp).to_string()[8..10], "h3");
    }
}
