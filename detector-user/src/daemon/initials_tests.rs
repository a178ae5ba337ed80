use detector_common::hello::Transport;

use super::*;
use crate::{
    fingerprint::{self, fixtures::hello},
    quic::fixtures::{Packet, V1, V2, crypto},
};

const SECOND: u64 = 1_000_000_000;

fn initial(id: &[u8]) -> Packet<'_> {
    Packet { version: V1, destination_id: id, keys_of: id, token: &[], number: 0, number_bytes: 1, kind: 0 }
}

/// A datagram of a connection, told by the port of its client, at some second.
fn exemplar(port: u16, second: u64, datagram: Vec<u8>) -> Exemplar {
    // SAFETY: plain numbers.
    let mut header: ExemplarHeader = unsafe { std::mem::zeroed() };
    header.kind = Kind::Initial as u8;
    header.time_ns = second * SECOND;
    header.source_port = port;
    header.bytes = datagram.len() as u32;
    Exemplar { header, bytes: datagram }
}

/// What became of connections: opened, incomplete, unopened.
fn counted(counts: &Counts) -> [u64; 3] {
    [&counts.opened, &counts.incomplete, &counts.unopened].map(|count| count.load(Ordering::Relaxed))
}

/// The two Initials of a message.
fn pieces(message: &[u8], id: &[u8]) -> [Vec<u8>; 2] {
    let (head, tail) = message.split_at(message.len() / 2);
    let second = Packet { number: 1, ..initial(id) }.sealed(&crypto(head.len(), tail));
    [initial(id).sealed(&crypto(0, head)), second]
}

#[test]
fn datagrams_of_connections_that_come_at_once_give_their_hellos() {
    let (mut initials, counts) = (Initials::new(), Counts::default());
    let messages = [hello(2000, 1), hello(1800, 2)];
    let [one, two] = [pieces(&messages[0], b"12345678"), pieces(&messages[1], b"87654321")];
    let mut take = |port, datagram: &Vec<u8>| initials.take(&exemplar(port, 7, datagram.clone()), &counts);
    assert_eq!(take(1, &one[1]), None);
    assert_eq!(take(2, &two[0]), None);
    assert_eq!(take(1, &one[1]), None, "again");
    assert!(take(1, &one[0]).as_ref() == Some(&messages[0]));
    assert!(take(2, &two[1]).as_ref() == Some(&messages[1]));
    assert_eq!(take(2, &two[1]), None, "once");
    assert_eq!(counted(&counts), [2, 0, 0]);
}

#[test]
fn what_is_not_whole_in_time_is_counted_and_another_begins() {
    let (mut initials, counts) = (Initials::new(), Counts::default());
    let message = hello(2000, 1);
    let [head, tail] = pieces(&message, b"12345678");
    let garbage = [&head[..30], &[0x5a; 1220]].concat();
    assert_eq!(initials.take(&exemplar(1, 0, head.clone()), &counts), None);
    assert_eq!(initials.take(&exemplar(2, 0, garbage), &counts), None);
    assert_eq!(
        initials.take(&exemplar(3, 0, initial(b"12345678").sealed(&crypto(0, &[11; 99]))), &counts),
        None
    );
    assert_eq!(counted(&counts), [0, 0, 0]);
    // Its second half after the program has forgotten it: of another connection.
    assert_eq!(initials.take(&exemplar(1, 4, tail.clone()), &counts), None);
    assert_eq!(counted(&counts), [0, 2, 1]);
    assert!(initials.take(&exemplar(1, 6, head), &counts) == Some(message));
    initials.end_idle(9 * SECOND, &counts);
    assert_eq!(counted(&counts), [1, 2, 1]);
    initials.end_idle(10 * SECOND, &counts);
    assert_eq!((counted(&counts), initials.connections.pop().is_none()), ([1, 2, 1], true));
}

#[test]
fn what_is_kept_has_bounds() {
    let (mut initials, counts) = (Initials::new(), Counts::default());
    let [head, _] = pieces(&hello(2000, 1), b"12345678");
    for port in 0..BOUNDS.flows as u16 + 10 {
        initials.take(&exemplar(port, 0, head.clone()), &counts);
    }
    assert_eq!(counted(&counts), [0, 10, 0]);
    // Pieces with gaps between are held until they have too many bytes.
    let (mut initials, counts) = (Initials::new(), Counts::default());
    for number in 0..20_000_u32 {
        let piece = crypto(1 + (number as usize % 20) * 1300, &[0; 1200]);
        let sealed = Packet { version: V2, ..initial(b"12345678") }.sealed(&piece);
        initials.take(&exemplar((number / 20) as u16, 0, sealed), &counts);
    }
    assert!(counted(&counts)[1] > 600, "{:?}", counted(&counts));
}

#[test]
fn a_shape_has_the_last_client_and_how_many_there_were() {
    let ja4 = |mark: u8| fingerprint::ja4(&hello(300, mark), Transport::Quic).expect("a hello");
    let header = exemplar(1, 0, vec![]).header;
    let mut shapes = Shapes::new();
    let (name, is_new) = shapes.note(&header, &ja4(1), None);
    assert_eq!((name.clients, is_new, name.kind), (1, true, Kind::Initial as u8));
    assert_eq!(ja4_text(&name.stable_ja4), Some(ja4(1).stable().to_string().as_str()));
    assert_eq!(ja4_text(&name.ja4), Some(ja4(1).to_string().as_str()));
    assert_eq!(shapes.note(&header, &ja4(1), Some(&name)), (name, false));
    let (name, is_new) = shapes.note(&header, &ja4(2), Some(&name));
    assert_eq!((name.clients, is_new), (2, true));
    let (again, is_new) = shapes.note(&header, &ja4(1), Some(&name));
    assert_eq!((again.clients, is_new), (2, false));
    assert_eq!(ja4_text(&again.ja4), Some(ja4(1).to_string().as_str()), "the last one");
    // At another service.
    let other = ExemplarHeader { service: 9, ..header };
    assert_eq!(shapes.note(&other, &ja4(1), None).0.clients, 1);
    // Another daemon knows the last one, and how many.
    let mut shapes = Shapes::new();
    assert_eq!(shapes.note(&header, &ja4(1), Some(&again)), (again, false));
    let (name, is_new) = shapes.note(&header, &ja4(3), Some(&again));
    assert_eq!((name.clients, is_new), (2, true));
    assert_eq!(shapes.note(&header, &ja4(4), Some(&name)).0.clients, 3);
    // The shape had gone.
    assert_eq!(shapes.note(&header, &ja4(4), None).0.clients, 1);
    for mark in 0..=255 {
        shapes.note(&header, &ja4(mark), Some(&name));
    }
    assert_eq!(shapes.note(&header, &ja4(0), Some(&name)).0.clients as usize, CLIENTS_MAX);
}
