//! TLS handshakes through the program, packet by packet: what a new connection costs from its SYN to the client's first bytes
//! after the ClientHello.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use bytes::BytesMut;
use detector_common::counters::{HandshakeEvent, handshake_event_slot};
use detector_tests::{
    hello::Hello,
    packet::{flags, tcp},
};
use detector_user::kernel::{load::Clock, read};

use crate::{report, sampling::in_turn, say, subject::Subject};

/// A service whose sources may make any number of connections.
const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"203.0.113.10\"]\n";

/// Sources that the table is sized for.
const SOURCES: u32 = 1 << 17;

/// What is measured: bytes of the key share, and whether the ClientHello comes in two segments.
const KINDS: [(&str, usize, bool); 2] =
    [("X25519, one segment", 32, false), ("post-quantum, two segments", 1600, true)];

/// Bytes of the first segment of two: what fits in an Ethernet frame.
const SEGMENT_BYTES: usize = 1448;

/// Measures all kinds.
pub(crate) fn measure(quick: bool) -> Result<Vec<report::Handshake>> {
    say("handshakes");
    let connections = if quick { 20_000 } else { 100_000 };
    let mut subject = Subject::new(SOURCES, Clock::Kernel, POLICY)?;
    let packets: Vec<Vec<BytesMut>> =
        KINDS.iter().map(|&(_, share_bytes, split)| packets(share_bytes, split)).collect();
    let before = hellos_read(&subject)?;
    let rounds = if quick { 3 } else { 9 };
    let mut source = 0;
    let samples = in_turn(KINDS.len(), rounds, |kind| {
        let mut total_ns = 0.0;
        for _ in 0..connections {
            source += 1;
            for packet in &packets[kind] {
                let mut packet = packet.clone();
                set_source(&mut packet, source);
                let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::new() };
                let result = subject.loaded.program()?.test_run(options).context("a test run")?;
                total_ns += result.duration.as_nanos() as f64;
            }
        }
        Ok(total_ns / f64::from(connections))
    })?;
    let read = hellos_read(&subject)? - before;
    ensure!(read == u64::from(source), "{read} of {source} ClientHellos were read");
    let rows =
        KINDS.iter().zip(&packets).zip(samples).map(|(((name, ..), packets), samples)| report::Handshake {
            hello: (*name).to_owned(),
            packets: packets.len() as u32,
            ns_median: samples.median(),
            ns_min: samples.min(),
            ns_max: samples.max(),
        });
    Ok(rows.collect())
}

fn hellos_read(subject: &Subject) -> Result<u64> {
    let counters = read::counters(&subject.loaded.maps).context("counters")?;
    Ok(counters[handshake_event_slot(HandshakeEvent::HelloRead) as usize])
}

/// The packets of a client: SYN, the answer to the server's, the ClientHello, its first bytes after it.
fn packets(share_bytes: usize, split: bool) -> Vec<BytesMut> {
    let stream = Hello::browser(share_bytes).stream();
    let segment = |flags, sequence, content: &[u8]| {
        tcp("10.0.0.0:40000", "203.0.113.10:443", flags).sequence(sequence).content(content).frame()
    };
    let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7];
    let syn = tcp("10.0.0.0:40000", "203.0.113.10:443", flags::SYN).sequence(0).tcp_options(&options).frame();
    let mut packets = vec![syn, segment(flags::ACK, 1, &[])];
    let cut = if split { SEGMENT_BYTES.min(stream.len()) } else { stream.len() };
    let mut sequence = 1;
    for piece in [&stream[..cut], &stream[cut..]].into_iter().filter(|piece| !piece.is_empty()) {
        packets.push(segment(flags::ACK, sequence, piece));
        sequence += piece.len() as u32;
    }
    packets.push(segment(flags::ACK, sequence, &[20; 64]));
    packets
}

/// Gives a packet of IPv4 another source address: so many after 10.0.0.0.
fn set_source(packet: &mut BytesMut, number: u32) {
    const SOURCE_OFFSET: usize = 14 + 12;
    let address = (0x0a00_0000 + number % (1 << 24)).to_be_bytes();
    packet[SOURCE_OFFSET..SOURCE_OFFSET + 4].copy_from_slice(&address);
}
