use proptest::prelude::*;

use super::*;
use crate::fingerprint::fixtures::{ACK, SYN, Segment as Sent, datagram, hello, records};

const ISN: u32 = u32::MAX - 100;

fn client() -> SocketAddr {
    "192.0.2.1:51234".parse().unwrap()
}

fn server() -> SocketAddr {
    "192.0.2.2:443".parse().unwrap()
}

fn sent(sequence: u32, flags: u8, payload: &[u8]) -> Sent {
    let (source, destination, payload) = (client(), server(), payload.to_vec());
    Sent { source, destination, sequence, acknowledgement: 7000, flags, payload }
}

/// What the client sends at an offset from its first byte.
fn data(offset: usize, payload: &[u8]) -> Sent {
    sent(ISN.wrapping_add(1).wrapping_add(offset as u32), ACK, payload)
}

fn syn() -> Sent {
    sent(ISN, SYN, &[])
}

/// The same from the server.
fn answered(segment: Sent) -> Sent {
    Sent { source: segment.destination, destination: segment.source, ..segment }
}

fn syn_ack() -> Sent {
    answered(Sent { acknowledgement: ISN.wrapping_add(1), ..sent(7000, SYN | ACK, &[]) })
}

fn followed(frames: &[Vec<u8>]) -> Vec<Flow> {
    let mut found = Vec::new();
    let mut flows = Flows::new(|flow| found.push(flow));
    for frame in frames {
        flows.take(frame, frame.len());
    }
    flows.end();
    found.sort_by_key(|flow| flow.number);
    found
}

fn of(segments: &[Sent]) -> Vec<Flow> {
    followed(&segments.iter().map(Sent::frame).collect::<Vec<_>>())
}

/// The only flow, which is the client's: its ClientHello and whether that came in order.
#[track_caller]
fn only(segments: &[Sent]) -> (Option<Vec<u8>>, bool) {
    let flows = of(segments);
    let [flow] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((flow.source, flow.destination), (client(), server()));
    (flow.hello.clone(), flow.in_order)
}

#[test]
fn a_hello_may_be_split_at_every_byte() {
    let message = hello(400, 7);
    let stream = records(&message, 150);
    for cut in 1..stream.len() {
        let (head, tail) = stream.split_at(cut);
        let (head, tail) = (data(0, head), data(cut, tail));
        let whole = |in_order| (Some(message.clone()), in_order);
        assert_eq!(only(&[syn(), syn_ack(), head.clone(), tail.clone()]), whole(true), "cut at {cut}");
        assert_eq!(only(&[syn(), tail.clone(), head.clone()]), whole(false), "cut at {cut}, turned round");
        assert_eq!(
            only(&[syn(), head.clone(), head.clone(), tail.clone()]),
            whole(false),
            "cut at {cut}, twice"
        );
        // The capture begins in the midst.
        assert_eq!(only(&[head.clone(), tail.clone()]), whole(true), "cut at {cut}, without a SYN");
        assert_eq!(
            only(&[tail.clone(), head.clone()]),
            whole(false),
            "cut at {cut}, turned round without a SYN"
        );
        assert_eq!(
            only(&[syn_ack(), head.clone(), tail]),
            whole(true),
            "cut at {cut}, without the client's SYN"
        );
        assert_eq!(only(&[syn(), head]), (None, false), "cut off at {cut}");
    }
}

#[test]
fn overlaps_keep_what_came_first() {
    let message = hello(400, 7);
    let stream = records(&message, 500);
    let other = [0xee; 200];
    let (first, rest) = (data(0, &stream[..200]), data(150, &[&other[..50], &stream[200..]].concat()));
    assert_eq!(only(&[syn(), first.clone(), data(20, &other[..100]), rest]), (Some(message.clone()), false));
    // Sent again, with more behind; a segment before the first byte of all.
    let longer = data(0, &stream[..300]);
    let all = [
        syn(),
        first,
        longer,
        sent(ISN, ACK, &[&[0][..], &stream[..10]].concat()),
        data(300, &stream[300..]),
    ];
    assert_eq!(only(&all), (Some(message.clone()), false));
    // A probe whether the client is still there is no disorder before its first byte.
    let all = [syn(), sent(ISN, ACK, &[0]), data(0, &stream)];
    assert_eq!(only(&all), (Some(message), true));
}

#[test]
fn what_comes_before_the_hello_may_be_in_any_order() {
    let message = hello(600, 7);
    let dialogue = b"CONNECT example.org:443 HTTP/1.1\r\n\r\n";
    let stream = [dialogue, &records(&message, 1000)[..]].concat();
    let hello = [data(dialogue.len(), &stream[dialogue.len()..400]), data(400, &stream[400..])];
    let all = [&[syn(), data(10, &dialogue[10..]), data(0, &dialogue[..10])], &hello[..]].concat();
    assert_eq!(only(&all), (Some(message.clone()), true));
    // The server's part of the dialogue is not the client's.
    let ok = answered(sent(7001, ACK, &records(&hello_of_another(), 500)));
    let all = [&[syn(), syn_ack(), data(0, dialogue), ok], &hello[..]].concat();
    assert_eq!(only(&all), (Some(message), true));
}

fn hello_of_another() -> Vec<u8> {
    hello(300, 9)
}

#[test]
fn a_second_hello_is_not_looked_at() {
    let (first, second) = (hello(250, 1), hello(300, 2));
    let again = [&[20, 3, 3, 0, 1, 1][..], &records(&second, 500)].concat();
    let at = records(&first, 500).len();
    let retry = answered(sent(7001, ACK, &[22, 3, 3, 0, 1, 2]));
    let all = [syn(), syn_ack(), data(0, &records(&first, 500)), retry.clone(), data(at, &again)];
    assert_eq!(only(&all), (Some(first), true));
    // Nor is it the first because the capture lacks that.
    assert_eq!(only(&[retry, data(at, &again)]), (None, false));
    assert_eq!(only(&[syn(), data(at, &again)]), (None, false));
}

#[test]
fn a_gap_is_never_guessed() {
    let stream = records(&hello(400, 7), 500);
    assert_eq!(only(&[syn(), data(0, &stream[..100]), data(101, &stream[101..])]), (None, false));
    // What a capture cut off was not zeros.
    let frame = data(0, &stream).frame();
    let mut found = Vec::new();
    let mut flows = Flows::new(|flow| found.push(flow));
    let mut cut = frame.clone();
    cut[200..].fill(0);
    flows.take(&cut, 200);
    flows.end();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].hello, None);
}

#[test]
fn the_same_ports_may_be_used_again() {
    let (first, second) = (hello(250, 1), hello(300, 2));
    let again = |offset: usize, flags, payload: &[u8]| sent(5000 + offset as u32, flags, payload);
    let all = [
        syn(),
        syn(),
        data(0, &records(&first, 500)),
        again(0, SYN, &[]),
        again(1, ACK, &records(&second, 500)),
        sent(9000, SYN, &[]),
    ];
    let flows: Vec<_> =
        of(&all).into_iter().map(|flow| (flow.number, flow.hello, flow.syn.is_some())).collect();
    assert_eq!(flows, [(1, Some(first), true), (4, Some(second), true), (6, None, true)]);
}

#[test]
fn a_syn_is_kept_with_its_headers_and_may_carry_the_hello() {
    let message = hello(250, 1);
    let stream = records(&message, 500);
    let flows = of(&[sent(ISN, SYN, &stream[..100]), data(100, &stream[100..])]);
    assert_eq!((flows[0].hello.as_ref(), flows[0].in_order), (Some(&message), true));
    let syn = Syn::of(&sent(ISN, SYN, &stream[..100]).frame()[14..54], 20, true);
    assert!(syn.is_some() && flows[0].syn == syn, "{:?}", flows[0].syn);
}

#[test]
fn who_is_the_client_is_told_by_the_ports_where_nothing_else_does() {
    assert_eq!(only(&[answered(sent(7001, ACK, b"220 ready\r\n")), data(0, b"NOOP\r\n")]), (None, false));
    assert_eq!(only(&[answered(sent(7001, ACK, &[]))]), (None, false));
}

#[test]
fn other_families_and_protocols() {
    let (source, destination) =
        ("[2001:db8::1]:50000".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap());
    let message = hello(250, 1);
    let segment = Sent { source, destination, ..data(0, &records(&message, 500)) };
    let flows = followed(&[segment.frame(), datagram(source, destination, b"no QUIC"), vec![0; 14]]);
    let [flow] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((flow.source, flow.destination, flow.hello.as_ref()), (source, destination, Some(&message)));
}

#[test]
fn over_the_bound_the_longest_idle_connection_goes() {
    let mut found = Vec::new();
    let mut flows = Flows::new(|flow| found.push(flow));
    let message = hello(250, 1);
    let stream = records(&message, 500);
    let mut take = |segment: &Sent| {
        let frame = segment.frame();
        flows.take(&frame, frame.len());
    };
    take(&syn());
    take(&data(0, &stream[..100]));
    for number in 0..BOUNDS.flows as u32 {
        let source = SocketAddr::new([10, 0, (number >> 8) as u8, number as u8].into(), 5000);
        take(&Sent { source, ..syn() });
    }
    // Its start is gone, and no other takes its place.
    take(&data(100, &stream[100..]));
    flows.end();
    assert!(found.iter().all(|flow| flow.hello.is_none()));
    assert_eq!(found.len(), BOUNDS.flows + 2);
}

proptest! {
    #[test]
    fn any_order_of_any_pieces_gives_the_same_hello(
        cuts in proptest::collection::btree_set(1..1700_usize, 0..12),
        order in any::<u64>(),
        overlap in 0..40_usize,
        size in 20..2000_usize,
    ) {
        let message = hello(1700, 3);
        let stream = records(&message, size);
        let mut ends: Vec<usize> = cuts.into_iter().chain([stream.len()]).collect();
        let mut start = 0;
        let mut segments: Vec<Sent> = ends
            .drain(..)
            .map(|end| {
                let segment = data(start, &stream[start..(end + overlap).min(stream.len())]);
                start = end;
                segment
            })
            .collect();
        // Fisher and Yates, by the digits of one number.
        let mut digits = order;
        for place in (1..segments.len()).rev() {
            segments.swap(place, (digits % (place as u64 + 1)) as usize);
            digits = digits.rotate_right(7) ^ order;
        }
        prop_assert!(only(&[&[syn()], &segments[..]].concat()).0 == Some(message));
    }

    #[test]
    fn no_frames_make_it_panic(
        frames in proptest::collection::vec((any::<[u8; 6]>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..30),
    ) {
        let frames: Vec<_> = frames
            .iter()
            .map(|(bytes, payload)| {
                let [low, high, flags, side, ..] = *bytes;
                let sequence = if high < 128 { u32::from(low) } else { u32::from_be_bytes([high, low, low, low]) };
                let segment = sent(sequence, flags, payload);
                if side % 2 == 0 { segment.frame() } else { answered(segment).frame() }
            })
            .collect();
        followed(&frames);
    }
}
