//! Tests of files, of the pcap format, and of every capture at hand.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::fixtures::{Ng, Pcap, frame_of, frames, read, reader};
use super::*;

/// Three packets: one cut by the snap length, one empty.
fn small(big_endian: bool, nanoseconds: bool) -> Pcap {
    Pcap { big_endian, nanoseconds, ..Pcap::default() }
        .packet(1_700_000_000_123_456_000, &frame_of(1), 14)
        .packet(1_700_000_001_000_001_000, &frame_of(2), 60)
        .packet(1_700_000_001_000_002_000, &[], 0)
}

fn error(bytes: &[u8]) -> CaptureError {
    reader(bytes).err().unwrap()
}

#[test]
fn pcap_of_both_byte_orders_and_resolutions() {
    for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
        let read = frames(&small(big_endian, nanoseconds).bytes());
        let times: Vec<u64> = read.iter().map(|frame| frame.time_ns).collect();
        assert_eq!(times, [1_700_000_000_123_456_000, 1_700_000_001_000_001_000, 1_700_000_001_000_002_000]);
        assert_eq!(read[0].data, frame_of(1));
        assert_eq!(read[1].data, [&frame_of(2)[..], &[0; 46]].concat());
        assert_eq!(read[2].data, [0; 14]);
    }
    let exact =
        Pcap { nanoseconds: true, ..Pcap::default() }.packet(u64::from(u32::MAX) * 1_000_000_000 + 7, &[], 0);
    assert_eq!(frames(&exact.bytes())[0].time_ns, 4_294_967_295_000_000_007);
}

#[test]
fn pcap_with_longer_record_headers() {
    let mut bytes = Pcap::default().bytes();
    bytes[..4].copy_from_slice(&0xa1b2_cd34_u32.to_le_bytes());
    for tag in 1..=2_u8 {
        for word in [5_u32, 6, 14, 14, 0, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&frame_of(tag));
    }
    let read = frames(&bytes);
    assert_eq!(read.iter().map(|frame| frame.data[13]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(read[1].time_ns, 5_000_006_000);
}

#[test]
fn a_pcap_cut_anywhere_is_whole_frames_then_an_end_or_an_error() {
    let whole = small(false, false).bytes();
    check_every_cut(&whole, &[24, 54, 84, 100]);
    check_every_cut(&small(true, true).bytes(), &[24, 54, 84, 100]);
}

#[test]
fn a_pcapng_cut_anywhere_is_whole_frames_then_an_end_or_an_error() {
    for big_endian in [false, true] {
        let mut borders = vec![0];
        let section = Ng::new(big_endian);
        borders.push(section.bytes().len());
        let interface = section.interface(1, 0, &[(9, &[9])]);
        borders.push(interface.bytes().len());
        let other = interface.block(0xbad, |body| body.u32(1).raw(b"whatever"));
        borders.push(other.bytes().len());
        let enhanced = other.enhanced(0, 77, &frame_of(1), 14);
        borders.push(enhanced.bytes().len());
        let whole = enhanced.simple(&frame_of(2), 14).bytes();
        borders.push(whole.len());
        check_every_cut(&whole, &borders[1..]);
    }
}

/// Cuts a capture after every byte. `borders` are the cuts where a record ends.
fn check_every_cut(whole: &[u8], borders: &[usize]) {
    let all = frames(whole);
    let mut most = 0;
    for cut in 0..=whole.len() {
        let (some, error) = read(&whole[..cut]);
        assert_eq!(some, all[..some.len()], "cut at {cut}");
        assert!(some.len() >= most, "cut at {cut}");
        most = some.len();
        match error {
            None => assert!(borders.contains(&cut), "cut at {cut}"),
            Some(CaptureError::Empty { .. }) => assert_eq!(cut, 0),
            Some(CaptureError::NotACapture { .. }) => assert!((1..4).contains(&cut), "cut at {cut}"),
            Some(CaptureError::Truncated { packets, offset, expected_bytes, found_bytes, .. }) => {
                assert!(!borders.contains(&cut), "cut at {cut}");
                assert_eq!(packets, some.len() as u64, "cut at {cut}");
                let start = borders.iter().copied().filter(|border| *border < cut).max().unwrap_or(0);
                assert_eq!(offset, start as u64, "cut at {cut}");
                assert_eq!(found_bytes, (cut - start) as u64, "cut at {cut}");
                assert!(expected_bytes > found_bytes, "cut at {cut}");
            }
            Some(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert_eq!(most, all.len());
}

#[test]
fn a_cut_is_told_with_its_place_and_what_to_do() {
    let whole = small(false, false).bytes();
    let (_, error) = read(&whole[..60]);
    assert_eq!(
        error.unwrap().to_string(),
        "read capture test.pcap: the file ends in the middle of the record at byte 54 (whole packets \
         before it: 1): found 6 of the 16 bytes expected so far; replay the complete file, or cut it cleanly with `editcap` or \
         `tcpdump -r IN -w OUT`"
    );
}

#[test]
fn a_packet_may_be_long_but_not_without_bound() {
    let most = vec![1; MAX_CAPTURED_BYTES];
    assert_eq!(frames(&Pcap::default().packet(0, &most, 0).bytes())[0].data.len(), 65_549);
    for claimed in [MAX_CAPTURED_BYTES as u32 + 1, u32::MAX] {
        let mut bytes = Pcap::default().packet(0, &frame_of(1), 14).bytes();
        bytes[32..36].copy_from_slice(&claimed.to_le_bytes());
        let (none, error) = read(&bytes);
        assert_eq!(none, []);
        assert!(matches!(error, Some(CaptureError::Malformed { offset: 24, .. })), "{error:?}");
    }
}

#[test]
fn an_unknown_link_type_is_named_with_those_that_are_known() {
    let error = error(&Pcap { link: 127, ..Pcap::default() }.bytes());
    let text = error.to_string();
    for part in ["test.pcap", "127 (IEEE802_11_RADIOTAP", "LINUX_SLL2 (276)", "capture on an Ethernet"] {
        assert!(text.contains(part), "{text}");
    }
    // With the bits for a frame check sequence of four bytes.
    assert_eq!(frames(&Pcap { link: 0x2400_0001, ..small(false, false) }.bytes()).len(), 3);
}

#[test]
fn what_is_no_capture_is_told_apart() {
    assert!(matches!(error(b""), CaptureError::Empty { .. }));
    let text = error(b"PK\x03\x04 and more").to_string();
    assert!(text.contains("starts with 50 4b 03 04"), "{text}");
    for (start, name) in [
        (&[0x1f, 0x8b][..], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh9", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    ] {
        let text = error(start).to_string();
        assert!(text.contains(name) && text.contains("decompress it first"), "{text}");
    }
    let mut version = Pcap::default().bytes();
    version[4] = 3;
    assert!(matches!(error(&version), CaptureError::Malformed { .. }));
}

#[test]
fn files_that_cannot_be_opened_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let error = |path: &Path| Reader::open(path).err().unwrap();
    assert!(matches!(error(directory.path()), CaptureError::Directory { .. }));
    assert!(matches!(error(&directory.path().join("none")), CaptureError::NotFound { .. }));
    let empty = directory.path().join("empty.pcap");
    fs::write(&empty, b"").unwrap();
    let text = error(&empty).to_string();
    assert!(text.contains("empty.pcap") && text.contains("is empty"), "{text}");
    fs::write(&empty, small(false, false).bytes()).unwrap();
    assert!(Reader::open(&empty).unwrap().next_frame().unwrap().is_some());
    // Nothing is forbidden to root.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o0)).unwrap();
    match Reader::open(&empty) {
        Err(error) => assert!(matches!(error, CaptureError::Permission { .. })),
        Ok(_) => eprintln!("skipped: permission denied, since this user may read everything"),
    }
}

#[test]
fn what_the_system_says_is_handed_on() {
    struct Failing(Cursor<Vec<u8>>, bool);
    impl Read for Failing {
        /// One byte at a time, each after a signal; then the disk fails.
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = buffer.len().min(1);
            match self.0.read(&mut buffer[..len])? {
                0 => Err(io::Error::other("the disk is gone")),
                read => Ok(read),
            }
        }
    }
    let bytes = Pcap::default().packet(1_000, &frame_of(1), 14).bytes();
    let mut reader = Reader::new(Path::new("disk.pcap"), Failing(Cursor::new(bytes), false)).unwrap();
    assert_eq!(reader.next_frame().unwrap().unwrap().data, frame_of(1));
    let error = reader.next_frame().unwrap_err().to_string();
    assert!(error.contains("disk.pcap at byte 54: the disk is gone"), "{error}");
    assert_eq!(reader.next_frame().unwrap(), None);
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let record = [&[0; 8][..], &14_u32.to_le_bytes(), &14_u32.to_le_bytes(), &frame_of(1)].concat();
    let source = Cursor::new(Pcap::default().bytes()).chain(Cursor::new(record.repeat(50_000)));
    let mut reader = Reader::new(Path::new("long.pcap"), source).unwrap();
    let mut count = 0;
    while reader.next_frame().unwrap().is_some() {
        count += 1;
        assert!(reader.input.held_bytes() <= 256 * 1024, "{}", reader.input.held_bytes());
    }
    assert_eq!(count, 50_000);
}

/// Of each capture: packets, bytes of all frames, times of the first and the last in nanoseconds. Counted by
/// `tcpdump -nr` 4.99.3 (packets) and by unpacking the records with Python's `struct` (all).
const CAPTURES: &[(&str, usize, usize, u64, u64)] = &[
    ("foxio-badcurveball.pcap", 12, 3_132, 1_579_293_816_559_976_000, 1_579_293_816_817_749_000),
    ("foxio-browsers-x509.pcapng", 179, 56_012, 1_691_545_909_738_087_000, 1_691_545_998_416_465_000),
    (
        "foxio-chrome-cloudflare-quic-with-secrets.pcapng",
        83,
        38_638,
        1_668_114_405_114_955_000,
        1_668_114_415_964_184_000,
    ),
    ("foxio-https-connect.pcap", 18, 5_426, 1_567_450_613_383_129_000, 1_567_450_613_614_664_000),
    ("foxio-https3-301-get.pcap", 23, 6_340, 1_385_396_821_013_239_000, 1_385_396_821_236_922_000),
    // Of link type NULL: 3,659 bytes, of which 9 headers of 4 bytes become headers of 14.
    ("foxio-ipv6.pcapng", 9, 3_749, 1_593_980_608_621_087_000, 1_593_980_608_696_428_000),
    ("foxio-macos_tcp_flags.pcap", 43, 13_435, 1_666_950_379_418_596_000, 1_666_950_379_634_664_000),
    ("foxio-quic-tls-handshake.pcapng", 1, 1_292, 1_675_707_151_936_380_000, 1_675_707_151_936_380_000),
    ("foxio-socks-https-example.pcap", 93, 32_958, 1_386_004_472_572_394_000, 1_386_004_480_888_510_000),
    ("foxio-tls-non-ascii-alpn.pcapng", 2, 2_037, 1_675_707_151_805_776_000, 1_675_707_151_810_183_000),
    ("foxio-tls12.pcap", 1, 571, 1_703_606_032_925_092_000, 1_703_606_032_925_092_000),
    ("suricata-ja4-tls.pcap", 13, 2_729, 1_425_669_142_414_373_000, 1_425_669_142_478_859_000),
    (
        "zeek-chrome-1250-tls-x25519-kyber.pcap",
        15,
        11_685,
        1_716_310_155_395_250_000,
        1_716_310_155_468_286_000,
    ),
    ("zeek-hrr.pcap", 19, 3_960, 1_556_554_522_001_362_000, 1_556_554_523_858_884_000),
    (
        "zeek-quic-multiple-initial-fragmented-crypto.pcap",
        15,
        15_347,
        1_745_828_022_838_362_000,
        1_745_828_027_111_354_000,
    ),
    (
        "zeek-tls-fragmented-handshake.pcap",
        416,
        367_841,
        1_426_117_218_064_063_000,
        1_426_117_218_286_833_000,
    ),
];

#[test]
fn the_captures_at_hand_read_as_other_tools_read_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    for (name, packets, bytes, first_ns, last_ns) in CAPTURES {
        let path: PathBuf = directory.join(name);
        if !path.exists() {
            eprintln!("skipped: {name} is not at {}", path.display());
            continue;
        }
        let frames = frames(&fs::read(&path).unwrap());
        assert_eq!(frames.len(), *packets, "{name}");
        assert_eq!(frames.iter().map(|frame| frame.data.len()).sum::<usize>(), *bytes, "{name}");
        assert_eq!((frames[0].time_ns, frames[packets - 1].time_ns), (*first_ns, *last_ns), "{name}");
        for frame in &frames {
            let ether_type = u16::from_be_bytes([frame.data[12], frame.data[13]]);
            assert!([0x0800, 0x0806, 0x86dd].contains(&ether_type), "{name}: {ether_type:04x}");
        }
    }
    let Ok(present) = fs::read_dir(&directory) else { return };
    for path in present.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let listed = CAPTURES.iter().any(|(listed, ..)| *listed == name);
        assert!(listed || !name.contains(".pcap"), "{name} has no row here");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(magic in 0..6_usize, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let starts = [vec![], small(false, false).bytes(), small(true, true).bytes(), Ng::new(false).bytes()];
        let start = match magic {
            4 => vec![0x0a, 0x0d, 0x0d, 0x0a],
            5 => Ng::new(true).interface(0, 8, &[]).bytes(),
            known => starts[known].clone(),
        };
        read(&[start, bytes].concat());
    }

    #[test]
    fn random_changes_never_panic(
        pcapng: bool,
        big_endian: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = if pcapng { mixed(big_endian) } else { small(big_endian, big_endian).bytes() };
        for (index, value) in changes {
            *index.get_mut(&mut bytes) = value;
        }
        read(&bytes);
    }
}

/// One block of each kind.
fn mixed(big_endian: bool) -> Vec<u8> {
    let mut file = Ng::new(big_endian)
        .interface(1, 64, &[(9, &[0x8a]), (14, &[0; 8])])
        .interface(113, 0, &[])
        .enhanced(0, 1 << 40, &frame_of(1), 99)
        .enhanced(1, 1, &[0; 21], 21)
        .simple(&frame_of(2), 14)
        .obsolete(1, 3, &[0; 19], 19);
    for block_type in [4, 5, 9, 10, 0xbad, 0x4000_0bad, 0x8000_0001] {
        file = file.block(block_type, |body| body.u32(0).u32(0).u32(0));
    }
    file.bytes()
}
