//! What holds for everything that comes from the wire. What does not is a panic, which ends the fuzzing with the input that it
//! came from.

use std::{io::Cursor, net::SocketAddr, path::Path};

use detector_common::{
    client_hello::{ClientHello, HEADER_BYTES},
    hello::Transport,
    ja4::Ja4,
};

use crate::{
    capture::Reader,
    fingerprint::{
        flows::{Flow, Flows, follow},
        hello::{Search, search},
        ja4,
    },
    quic::{BOUNDS, Opener},
    sealing::fixtures::{Packet, V1, V2},
    segments::{ACK, SYN, Segment},
};

/// A ClientHello is one at its full length only, and its fingerprints have their form.
///
/// # Panics
///
/// Something does not hold.
pub fn client_hello(bytes: &[u8]) {
    let Ok(hello) = ClientHello::parse(bytes) else { return };
    for length in 0..bytes.len() {
        assert!(ClientHello::parse(&bytes[..length]).is_err(), "cut off at {length}");
    }
    let ja4 = Ja4::of(&hello, Transport::Tcp);
    for text in [ja4.to_string(), ja4.stable().to_string()] {
        assert_eq!(text.split('_').map(str::len).collect::<Vec<_>>(), [10, 12, 12], "{text}");
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{text}");
        assert!(text.starts_with('t'), "{text}");
    }
    // The same with its extensions turned round.
    let mut turned = hello;
    turned.extensions.reverse();
    let other = Ja4::of(&turned, Transport::Tcp);
    assert_eq!((other.to_string(), other.raw()), (ja4.to_string(), ja4.raw()));
}

/// Datagrams of one flow, some of them sealed as a client would.
///
/// # Panics
///
/// Something does not hold.
pub fn quic(bytes: &[u8]) {
    let mut opener = Opener::new(BOUNDS);
    let mut found = 0;
    for (control, datagram) in pieces(bytes) {
        let sealed = match control & 3 {
            0 => datagram.to_vec(),
            _ if datagram.len() < 4 => datagram.to_vec(),
            kind => {
                let destination_id: &[u8] = if control & 4 == 0 { b"12345678" } else { b"the server" };
                let packet = Packet {
                    version: if kind == 3 { V2 } else { V1 },
                    destination_id,
                    keys_of: if control & 8 == 0 { destination_id } else { b"12345678" },
                    token: &datagram[..usize::from(control >> 4 & 3)],
                    number: u64::from(control >> 4),
                    number_bytes: 1 + usize::from(control >> 6),
                    kind: 0,
                };
                packet.sealed(datagram)
            }
        };
        if let Some(hello) = opener.take((), &sealed, 1) {
            found += 1;
            ja4(&hello.message, Transport::Quic).expect("what was found is a ClientHello");
        }
    }
    assert!(found <= 1, "{found} first ClientHellos of one flow");
}

/// A capture if the input is one, else what a client sends, in pieces in some order.
///
/// # Panics
///
/// Something does not hold.
pub fn flows(bytes: &[u8]) {
    if let Ok(mut reader) = Reader::new(Path::new("input"), Cursor::new(bytes.to_vec())) {
        // One that is broken somewhere has flows before that.
        let _ = follow(&mut reader, assert_flow);
        return;
    }
    let Some((&is_mixed, plan)) = bytes.split_first() else { return };
    let mut stream = Vec::new();
    let mut segments = Vec::new();
    for (place, (control, piece)) in pieces(plan).enumerate() {
        let start = stream.len();
        stream.extend_from_slice(piece);
        // Some of what came before once more.
        let from = start.saturating_sub(usize::from(control & 15));
        let at = if control & 0x80 == 0 {
            segments.len()
        } else {
            segments.len() * usize::from(control & 15) / 15
        };
        segments.insert(at, (place, from, stream.len()));
    }
    let expected = match search(&stream, 0) {
        Search::Found { message, .. } => Some(message),
        Search::NotYet { .. } | Search::Never => None,
    };
    let (source, destination): (SocketAddr, SocketAddr) =
        (([192, 0, 2, 1], 50_000).into(), ([192, 0, 2, 2], 443).into());
    let segment = |sequence: usize, flags, payload: &[u8]| {
        let sequence = u32::MAX.wrapping_sub(100).wrapping_add(sequence as u32);
        Segment { source, destination, sequence, acknowledgement: 1, flags, payload: payload.to_vec() }
            .frame()
    };
    let mut found = Vec::new();
    let mut flows = Flows::new(|flow: Flow| {
        assert_flow(flow.clone());
        found.extend(flow.hello);
    });
    let mut take = |frame: Vec<u8>| flows.take(&frame, frame.len());
    if is_mixed & 1 == 0 {
        take(segment(0, SYN, &[]));
    }
    let is_in_order = segments.is_sorted();
    for (_, from, end) in segments {
        take(segment(1 + from, ACK, &stream[from..end]));
    }
    flows.end();
    // Runs that are too many are left out, and without a SYN the first segment may not be the first one.
    if is_mixed & 1 == 0 && (is_in_order || stream.len() < 64) {
        assert_eq!(found, Vec::from_iter(expected));
    }
}

fn assert_flow(flow: Flow) {
    let Some(message) = flow.hello else { return };
    let ja4 = ja4(&message, flow.transport).expect("what was found is a ClientHello");
    assert!(message.len() > HEADER_BYTES && !ja4.raw().is_empty());
}

/// Pieces of an input: a byte that says what to do with it, its length, and itself.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [control, high, low, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]) & 0x0fff).min(after.len());
        let (piece, next) = after.split_at(length);
        rest = next;
        Some((*control, piece))
    })
}
