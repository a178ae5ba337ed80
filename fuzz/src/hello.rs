//! What holds for the machine that reads ClientHellos in the kernel, however segments and records cut them, and for the exchanges
//! that the segments after them make. What does not is a panic, which ends the fuzzing with the input that it came from.

use detector_common::{
    client_hello::{ClientHello, HEADER_BYTES, extension},
    exchange::{ClientSegment, Exchanges, REQUEST_BYTES_MIN, ROUND_TRIP_NS_MAX, Sizes},
    hello::{Hello, Phase, Transport, VARIANT_EXTENSIONS, is_grease, step},
    ja4::Ja4,
    limits::HELLO_FIELDS_MAX,
    segment::{SEGMENT_BYTES_MAX, Segment},
};

use crate::{fingerprint::hello::filled, segments::records};

/// Steps that the program takes at most for a segment.
const STEPS_MAX: usize = 2 * HELLO_FIELDS_MAX as usize;

/// Extensions that the machine looks into, of each one.
const LOOKED_INTO: [u16; 4] = [
    extension::SERVER_NAME,
    extension::SIGNATURE_ALGORITHMS,
    extension::APPLICATION_PROTOCOLS,
    extension::SUPPORTED_VERSIONS,
];

/// A value that counts for nothing.
const GREASE: u16 = 0x0a0a;

/// What an input says: bytes of a client, how they come, and what of them is another in a second hello.
struct Input<'a> {
    form: Form,
    segments: &'a [[u8; 3]],
    record_bytes: usize,
    change: (usize, u8),
    said: &'a [u8],
}

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A stream of records.
    Stream,
    /// A handshake message, as in QUIC.
    Message,
    /// A handshake message that is put into records.
    Records,
}

impl<'a> Input<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let ([kind, high, low, change_high, change_low, value], rest) = bytes.split_first_chunk()?;
        let (segments, said) = rest.split_at_checked(3 * usize::from(kind >> 4))?;
        Some(Self {
            form: match kind & 3 {
                0 | 1 => Form::Stream,
                2 => Form::Message,
                _ => Form::Records,
            },
            segments: segments.as_chunks().0,
            record_bytes: 1 + usize::from(u16::from_be_bytes([*high, *low]) & 0x3fff),
            change: (usize::from(u16::from_be_bytes([*change_high, *change_low])), *value),
            said,
        })
    }
}

/// A client's bytes in segments: the key is that of all at once, and that of what the exact parser reads.
///
/// # Panics
///
/// Something does not hold.
pub fn hello(bytes: &[u8]) {
    let Some(input) = Input::read(bytes) else { return };
    let said = input.said;
    let of_message = || read(Hello::start_of_message(), said).0;
    let (hello, message) = match input.form {
        Form::Stream => {
            let (hello, taken) = read(Hello::start(), said);
            assert_uncut(&hello, Hello::start(), said, &input);
            // Its name comes from as much as the machine needed, or from all that the segment has.
            let least = filled(&said[..taken]);
            let message = filled(said);
            let has_key = hello.key(Transport::Tcp).is_some();
            assert!(!has_key || least.is_some() && message.is_some(), "a key and no name: {hello:?}");
            assert_named(&hello, least.as_deref());
            (hello, message)
        }
        Form::Message => {
            let hello = of_message();
            assert_uncut(&hello, Hello::start_of_message(), said, &input);
            (hello, whole_message(said))
        }
        Form::Records => {
            let stream = records(said, input.record_bytes);
            let hello = read(Hello::start(), &stream).0;
            assert_uncut(&hello, Hello::start(), &stream, &input);
            let in_none = of_message();
            // But for what is left of a record.
            assert_eq!(Hello { record_left: 0, ..hello }, Hello { record_left: 0, ..in_none });
            (hello, whole_message(said))
        }
    };
    assert_keys(&hello);
    assert_named(&hello, message.as_deref());
    if let Some(message) = message {
        let mut changed = message.clone();
        let (place, value) = input.change;
        let place = place % message.len();
        changed[place] = value;
        if let (Some(one), Some(other)) = (fingerprint(&message), fingerprint(&changed)) {
            assert_eq!(one.0 == other.0, one.1 == other.1, "{} {}", one.1, other.1);
            assert_counted(&message, input.change.0, &one);
        }
    }
    assert_exchanges(&input);
}

/// Reads bytes as the program does, and says how many were taken.
fn read(mut hello: Hello, bytes: &[u8]) -> (Hello, usize) {
    let mut taken = 0;
    for piece in bytes.chunks(SEGMENT_BYTES_MAX) {
        let mut segment = Segment::of(piece);
        let mut steps = 0;
        loop {
            let before = segment.position;
            if !step(&mut hello, &mut segment) {
                break;
            }
            steps += 1;
            assert!(segment.position > before, "a step that takes nothing: {hello:?}");
        }
        assert!(steps <= STEPS_MAX, "{steps} steps");
        assert!(segment.position <= segment.end, "it read beyond the end: {hello:?}");
        assert!(hello.phase().is_final() || segment.position == segment.end, "it stopped: {hello:?}");
        taken += segment.position as usize;
    }
    (hello, taken)
}

/// Whatever the cuts, the machine is where it is without any.
fn assert_uncut(whole: &Hello, start: Hello, bytes: &[u8], input: &Input<'_>) {
    let mut in_segments = start;
    let mut rest = bytes;
    for [_, high, low] in input.segments {
        let (segment, next) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        in_segments = read(in_segments, segment).0;
        rest = next;
    }
    in_segments.read(rest);
    assert_eq!(in_segments, *whole, "in segments and whole");
}

/// Each transport has a key of its own, and 0 is none.
fn assert_keys(hello: &Hello) {
    let keys = [Transport::Tcp, Transport::Quic].map(|transport| hello.key(transport));
    match keys {
        [Some(tcp), Some(quic)] => assert!(tcp != quic && tcp != 0 && quic != 0, "{keys:?}"),
        _ => assert!(keys == [None; 2] && hello.phase() != Phase::Complete, "{keys:?}: {hello:?}"),
    }
}

/// What the machine read to a key has a name, of that key: `message` is what all of its bytes are, if they are there.
fn assert_named(hello: &Hello, message: Option<&[u8]>) {
    if let (Some(key), Some(message)) = (hello.key(Transport::Tcp), message) {
        assert_eq!(
            fingerprint(message).map(|(exact, _)| exact),
            Some(key),
            "{:?}",
            ClientHello::parse(message)
        );
    }
}

/// A message, if all of it is there.
fn whole_message(bytes: &[u8]) -> Option<Vec<u8>> {
    let [_, length @ ..] = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    bytes.get(..HEADER_BYTES + length).map(<[u8]>::to_vec)
}

/// Key and stable JA4 in full of a message that both read.
fn fingerprint(message: &[u8]) -> Option<(u64, String)> {
    let key = read(Hello::start_of_message(), message).0.key(Transport::Tcp);
    let exact = ClientHello::parse(message).ok()?;
    let Some(key) = key else {
        assert!(is_refused(&exact, message), "no key: {exact:?}");
        return None;
    };
    let (same, ja4) = stable_fingerprint(&exact);
    assert_eq!(same, Some(key), "{ja4}: {exact:?}");
    Some((key, ja4))
}

/// Without one of its numbers a hello has another key, if it has another stable JA4.
fn assert_counted(message: &[u8], place: usize, whole: &(u64, String)) {
    let Ok(mut fewer) = ClientHello::parse(message) else { return };
    let which = place % 3;
    let list = match which {
        0 => &mut fewer.cipher_suites,
        1 => &mut fewer.signature_algorithms,
        _ => &mut fewer.extensions,
    };
    let Some(place) = (place / 3).checked_rem(list.len()) else { return };
    if which == 2 && LOOKED_INTO.contains(&list[place]) {
        return;
    }
    list.remove(place);
    let (key, ja4) = stable_fingerprint(&fewer);
    assert_eq!(key == Some(whole.0), ja4 == whole.1, "{ja4} {}", whole.1);
}

/// Key and stable JA4 in full of what counts of a hello.
fn stable_fingerprint(exact: &ClientHello) -> (Option<u64>, String) {
    let ja4 = Ja4::of(exact, Transport::Tcp).stable().raw();
    // The last two characters of part a.
    let hello = read(Hello::start_of_message(), &stable(exact, &ja4.as_bytes()[8..10])).0;
    (hello.key(Transport::Tcp), ja4)
}

/// Whether the program gives no key to what the exact parser reads.
fn is_refused(exact: &ClientHello, message: &[u8]) -> bool {
    const SESSION_ID_LENGTH: usize = HEADER_BYTES + 2 + 32;
    let has = |kind| exact.extensions.contains(&kind);
    let is_twice = |kind: &u16| exact.extensions.iter().filter(|other| *other == kind).count() > 1;
    let numbers =
        [&exact.cipher_suites, &exact.extensions, &exact.signature_algorithms, &exact.supported_versions];
    // Six of the message, one for the length of each list, three of a protocol's name.
    let fields_max = 11 + numbers.map(Vec::len).iter().sum::<usize>();
    message[SESSION_ID_LENGTH] > 32
        || exact.cipher_suites.is_empty()
        || LOOKED_INTO.iter().any(is_twice)
        || (has(extension::SUPPORTED_VERSIONS) && exact.supported_versions.is_empty())
        || (has(extension::SIGNATURE_ALGORITHMS) && exact.signature_algorithms.is_empty())
        || fields_max > usize::from(HELLO_FIELDS_MAX)
}

/// A message of what counts of a hello, and nothing else. Its application protocol is the two characters that the JA4 has of it.
fn stable(exact: &ClientHello, protocol: &[u8]) -> Vec<u8> {
    // No list is empty, so that it may be that nothing in it counts.
    let counted = |numbers: &[u16]| -> Vec<u16> {
        [&[GREASE], &*numbers.iter().copied().filter(|number| !is_grease(*number)).collect::<Vec<_>>()]
            .concat()
    };
    let mut ciphers = counted(&exact.cipher_suites);
    ciphers.sort_unstable();
    let mut kinds = counted(&exact.extensions);
    kinds.retain(|kind| !VARIANT_EXTENSIONS.contains(kind));
    kinds.sort_unstable_by(|one, other| other.cmp(one));
    let mut extensions = Vec::new();
    for kind in kinds {
        let content = match kind {
            extension::SUPPORTED_VERSIONS => {
                let highest = counted(&exact.supported_versions)[1..].iter().copied().max();
                prefixed(1, &big_endian(&[&[GREASE][..], highest.as_slice()].concat()))
            }
            extension::SIGNATURE_ALGORITHMS => {
                prefixed(2, &big_endian(&counted(&exact.signature_algorithms)))
            }
            extension::APPLICATION_PROTOCOLS => prefixed(2, &prefixed(1, protocol)),
            _ => Vec::new(),
        };
        extensions.extend([kind.to_be_bytes().to_vec(), prefixed(2, &content)].concat());
    }
    let body = [
        &exact.legacy_version.to_be_bytes()[..],
        &[0; 33],
        &prefixed(2, &big_endian(&ciphers)),
        &[0],
        &prefixed(2, &extensions),
    ]
    .concat();
    [&[1][..], &prefixed(3, &body)].concat()
}

fn big_endian(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Bytes with their length before them.
fn prefixed(length_bytes: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short list").to_be_bytes();
    [&length[4 - length_bytes..], bytes].concat()
}

/// The segments of an input make the exchanges that they make when each comes as several.
fn assert_exchanges(input: &Input<'_>) {
    // Numbers wrap soon.
    let mut segment = ClientSegment { at_ns: 0, bytes: 0, acknowledged: u32::MAX - 700 };
    let mut segments = Vec::new();
    for [passed, high, low] in input.segments {
        segment.at_ns += u64::from(passed & 15) * 5_000_000;
        segment.acknowledged = segment.acknowledged.wrapping_add(u32::from(passed >> 4) * 100);
        segment.bytes = u16::from_be_bytes([*high, *low]).into();
        segments.push(segment);
    }
    let round_trip_ns = u64::from(input.change.1) * 10_000_000;
    let ended = exchanges(&segments, round_trip_ns);
    let of = |count: fn(&Sizes) -> u32| ended.iter().map(|sizes| u64::from(count(sizes))).sum::<u64>();
    let sent: u64 = segments.iter().map(|segment| u64::from(segment.bytes)).sum();
    let acknowledged = segment.acknowledged.wrapping_sub(u32::MAX - 700);
    assert!(
        of(|sizes| sizes.request) <= sent && of(|sizes| sizes.response) <= acknowledged.into(),
        "{ended:?}"
    );
    assert!(ended.iter().all(|sizes| sizes.request >= REQUEST_BYTES_MIN), "{ended:?}");
    // Each but the first begins after a silence.
    let with_bytes = segments.iter().enumerate().filter(|(place, segment)| *place == 0 || segment.bytes > 0);
    let times: Vec<_> = with_bytes.map(|(_, segment)| segment.at_ns).collect();
    let silences =
        times.windows(2).filter(|times| times[1] - times[0] >= round_trip_ns.min(ROUND_TRIP_NS_MAX));
    assert!(ended.len() <= 1 + silences.count(), "{ended:?} of {segments:?}");
    let mut finer = Vec::new();
    for (place, segment) in segments.iter().enumerate() {
        // An acknowledgement alone is no beginning.
        finer.extend((place > 0).then_some(ClientSegment { bytes: 0, ..*segment }));
        let first = segment.bytes.min(REQUEST_BYTES_MIN);
        finer.extend([first, segment.bytes - first].map(|bytes| ClientSegment { bytes, ..*segment }));
    }
    assert_eq!(exchanges(&finer, round_trip_ns), ended, "{segments:?}");
}

fn exchanges(segments: &[ClientSegment], round_trip_ns: u64) -> Vec<Sizes> {
    let Some((first, rest)) = segments.split_first() else { return Vec::new() };
    let mut followed = Exchanges::default();
    followed.begin(first);
    let mut ended: Vec<_> = rest.iter().filter_map(|segment| followed.take(segment, round_trip_ns)).collect();
    ended.extend(followed.end());
    ended
}
