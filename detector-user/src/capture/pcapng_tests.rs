//! Tests of the pcapng format.

use super::super::fixtures::{Ng, frame_of, frames, read};
use super::*;

/// Code and value of each.
type Options<'a> = &'a [(u16, &'a [u8])];

fn times_ns(bytes: &[u8]) -> Vec<u64> {
    frames(bytes).iter().map(|frame| frame.time_ns).collect()
}

fn malformed(file: &Ng) -> String {
    match read(&file.bytes()) {
        (frames, Some(error @ CaptureError::Malformed { .. })) if frames.is_empty() => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn interfaces_have_their_own_link_types() {
    for big_endian in [false, true] {
        let file = Ng::new(big_endian)
            .interface(1, 0, &[])
            .interface(101, 0, &[])
            .interface(0, 0, &[])
            .interface(105, 0, &[])
            .enhanced(1, 1, &[0x45, 9], 2)
            .enhanced(0, 2, &frame_of(7), 14)
            .enhanced(2, 3, &[30, 0, 0, 0, 0x60], 5);
        let read = frames(&file.bytes());
        assert_eq!(read[0].data[12..], [0x08, 0x00, 0x45, 9]);
        assert_eq!(read[1].data, frame_of(7));
        assert_eq!(read[2].data[12..], [0x86, 0xdd, 0x60]);
        // The interface of an unsupported type does not disturb until it has a packet.
        let (before, error) = super::super::fixtures::read(&file.enhanced(3, 4, &[0; 30], 30).bytes());
        assert_eq!(before.len(), 3);
        assert!(matches!(error, Some(CaptureError::UnsupportedLink { number: 105, .. })), "{error:?}");
    }
}

#[test]
fn interfaces_have_their_own_clocks() {
    let offset = |seconds: i64, big_endian: bool| {
        if big_endian { seconds.to_be_bytes() } else { seconds.to_le_bytes() }
    };
    for big_endian in [false, true] {
        let rows: &[(Options<'_>, u64, u64)] = &[
            // options, ticks, nanoseconds
            (&[], 1_700_000_000_000_001, 1_700_000_000_000_001_000),
            (&[(9, &[6])], 5, 5_000),
            (&[(9, &[0])], 1_700_000_000, 1_700_000_000_000_000_000),
            (&[(9, &[3])], 5, 5_000_000),
            (&[(9, &[9])], 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
            (&[(9, &[12])], 5_999, 5),
            (&[(9, &[19])], u64::MAX, 1_844_674_407),
            (&[(9, &[127])], u64::MAX, 0),
            (&[(9, &[0x80])], 3, 3_000_000_000),
            (&[(9, &[0x80 | 10])], 1_536, 1_500_000_000),
            (&[(9, &[0x80 | 32])], 0x0000_0005_8000_0000, 5_500_000_000),
            (&[(9, &[0xff])], u64::MAX, 0),
            (&[(14, &offset(1_700_000_000, big_endian))], 5, 1_700_000_000_000_005_000),
            (&[(14, &offset(-3, big_endian)), (9, &[9])], 5_000_000_000, 2_000_000_000),
            (&[(2, b"eth0"), (9, &[9])], 5, 5),
            // Behind the end of the options, and of a wrong length: not options.
            (&[(0, &[]), (9, &[9])], 5, 5_000),
            (&[(9, &[9, 9])], 5, 5_000),
            (&[(14, &[1, 0, 0, 0])], 5, 5_000),
        ];
        for (options, ticks, expected) in rows {
            let file = Ng::new(big_endian).interface(1, 0, options).enhanced(0, *ticks, &frame_of(0), 14);
            assert_eq!(times_ns(&file.bytes()), [*expected], "{options:?}, {ticks} ticks, {big_endian}");
        }
    }
}

#[test]
fn times_out_of_range_are_malformed() {
    for (options, ticks) in [
        (&[(9, &[0][..])][..], u64::MAX),
        (&[], u64::MAX),
        (&[(14, &(-1_i64).to_le_bytes())], 5),
        (&[(14, &i64::MAX.to_le_bytes())], 5),
        (&[(14, &i64::MIN.to_le_bytes())], u64::MAX),
        (&[(9, &[0x80])], u64::MAX),
    ] {
        let text = malformed(&Ng::new(false).interface(1, 0, options).enhanced(0, ticks, &frame_of(0), 14));
        assert!(text.contains("a time of"), "{text}");
    }
}

#[test]
fn sections_start_anew_and_have_their_own_byte_order() {
    let first = Ng::new(false).interface(101, 0, &[]).interface(1, 0, &[]).enhanced(1, 5, &frame_of(1), 14);
    let second = Ng::new(true).interface(1, 0, &[(9, &[9])]).enhanced(0, 6, &frame_of(2), 14);
    let third = Ng::new(false).enhanced(0, 7, &frame_of(3), 14);
    let (read, error) = read(&first.then(&second).then(&third).bytes());
    assert_eq!(
        read.iter().map(|frame| (frame.data[13], frame.time_ns)).collect::<Vec<_>>(),
        [(1, 5_000), (2, 6)]
    );
    let error = error.unwrap().to_string();
    assert!(error.contains("a packet of interface 0, the section describes 0"), "{error}");
    assert!(error.contains("whole packets before it: 2"), "{error}");
}

#[test]
fn simple_packets_have_the_time_before_and_no_padding() {
    for big_endian in [false, true] {
        let file = Ng::new(big_endian)
            .interface(1, 17, &[])
            .simple(&frame_of(1), 14)
            .enhanced(0, 9, &frame_of(2), 14)
            .simple(&[7; 17], 100)
            .simple(&[7; 15], 15);
        assert_eq!(times_ns(&file.bytes()), [0, 9_000, 9_000, 9_000]);
        let read = frames(&file.bytes());
        assert_eq!(read[0].data, frame_of(1));
        assert_eq!(read[2].data, [&[7; 17][..], &[0; 83]].concat());
        assert_eq!(read[3].data, [7; 15]);
    }
    assert!(malformed(&Ng::new(false).simple(&frame_of(1), 14)).contains("interface 0"));
}

#[test]
fn packets_cut_by_the_snap_length_are_padded() {
    for big_endian in [false, true] {
        let file = Ng::new(big_endian)
            .interface(1, 15, &[])
            .enhanced(0, 1, &[7; 15], 1_514)
            .obsolete(0, 2, &[7; 15], 1_514)
            .enhanced(0, 3, &[7; 15], u32::MAX)
            .enhanced(0, 4, &[7; 15], 3);
        let read = frames(&file.bytes());
        let lens: Vec<usize> = read.iter().map(|frame| frame.data.len()).collect();
        assert_eq!(lens, [1_514, 1_514, 65_549, 15]);
        assert_eq!(read[0].data, [&[7; 15][..], &[0; 1_499]].concat());
        assert_eq!(read[1].data, read[0].data);
        assert_eq!(read[1].time_ns, 2_000);
    }
}

#[test]
fn blocks_without_packets_are_passed_over_whatever_they_hold() {
    let mut file = Ng::new(false).interface(1, 0, &[]);
    for block_type in [4, 5, 9, 10, 0xbad, 0x4000_0bad, 0x8000_0001, 77] {
        file = file.block(block_type, |body| body).block(block_type, |body| body.u32(u32::MAX));
    }
    let long = vec![1; MAX_BLOCK_BYTES * 2];
    let file = file.block(10, |body| body.raw(&long)).enhanced(0, 1, &frame_of(1), 14);
    assert_eq!(frames(&file.bytes()).len(), 1);
}

#[test]
fn blocks_that_contradict_themselves_are_malformed() {
    let start = Ng::new(false).interface(1, 0, &[]);
    let offset = start.bytes().len();
    let block = start.clone().enhanced(0, 1, &frame_of(1), 14).bytes();
    let change = |at: usize, value: u32| {
        let mut bytes = block.clone();
        bytes[offset + at..offset + at + 4].copy_from_slice(&value.to_le_bytes());
        let (frames, error) = read(&bytes);
        assert_eq!(frames, []);
        error.unwrap()
    };
    // Total length: none, shorter than a block, not a multiple of 4, more than is held, than the file.
    for len in [0, 4, 8, 11, 13, 70, MAX_BLOCK_BYTES as u32 + 4, u32::MAX - 3] {
        assert!(matches!(change(4, len), CaptureError::Malformed { .. }), "{len}");
    }
    assert!(matches!(change(4, 1_000), CaptureError::Truncated { .. }));
    // Captured length.
    for len in [100, MAX_BLOCK_BYTES as u32, u32::MAX - 5, u32::MAX] {
        assert!(matches!(change(20, len), CaptureError::Malformed { .. }), "{len}");
    }
    let tail = block.len() - offset - 4;
    assert!(change(tail, 12).to_string().contains("ends as 12 bytes long"));
    let most = vec![0; super::super::MAX_CAPTURED_BYTES + 4];
    assert!(malformed(&start.clone().enhanced(0, 1, &most, 14)).contains("expected 262144 at most"));
    assert_eq!(frames(&start.clone().enhanced(0, 1, &most[4..], 14).bytes()).len(), 1);
    assert!(malformed(&start.clone().enhanced(1, 1, &frame_of(1), 14)).contains("interface 1"));
    malformed(&start.block(2, |body| body.u32(0).u32(0).u32(0).u32(9).u32(9).u32(0)));
    malformed(&Ng::new(false).block(0x0a0d_0d0a, |body| body.u32(0x1111_1111).u32(0).u32(0).u32(0)));
    malformed(&Ng::new(false).block(0x0a0d_0d0a, |body| body.u32(0x1a2b_3c4d).u16(2).u16(0).u32(0).u32(0)));
}

#[test]
fn interfaces_are_bounded() {
    let one = Ng::new(false).interface(1, 0, &[]).bytes()[28..].to_vec();
    let mut bytes = [Ng::new(false).bytes(), one.repeat(MAX_INTERFACES)].concat();
    assert_eq!(frames(&bytes), []);
    bytes.extend_from_slice(&one);
    assert!(matches!(read(&bytes).1, Some(CaptureError::Malformed { .. })));
}
