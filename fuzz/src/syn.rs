//! What holds for the signature of any SYN. What does not is a panic, which ends the fuzzing with the input that it came from.

use detector_common::{
    frame::SliceFrame,
    packet::{self, Layout, TCP},
    segment::Segment,
    syn::{self, OPTION_BYTES_MAX, Syn, quirks},
};

use crate::policy::{patterns::SynPattern, target};

/// Where the transport header begins, as an input says it.
#[derive(Clone, Copy)]
enum Transport {
    /// Where the headers say so.
    Parsed,
    /// There, whatever they say.
    At(usize),
}

/// Headers of a SYN, and the same with a byte changed: signatures that are equal have one key and one text, which is a pattern of
/// them alone.
///
/// # Panics
///
/// Something does not hold.
pub fn syn(bytes: &[u8]) {
    let Some(([kind, transport, place, value], headers)) = bytes.split_first_chunk() else { return };
    let transport = match kind & 1 {
        0 => Transport::Parsed,
        _ => Transport::At(usize::from(*transport)),
    };
    let has_payload = kind & 2 != 0;
    let Some(one) = signature(headers, transport, has_payload) else { return };
    let pattern = assert_told(&one);
    let mut changed = headers.to_vec();
    let Some(byte) = changed.get_mut(usize::from(*place)) else { return };
    *byte = *value;
    let Some(other) = signature(&changed, transport, has_payload ^ (kind & 4 != 0)) else { return };
    assert_told(&other);
    let is_same = one == other;
    assert_eq!(one.key() == other.key(), is_same, "{one} {other}");
    assert_eq!(one.to_string() == other.to_string(), is_same, "{one} {other}");
    assert_eq!(pattern.matches(&other), is_same, "{one} {other}");
}

/// The signature, as user space and as the program read it.
fn signature(headers: &[u8], transport: Transport, has_payload: bool) -> Option<Syn> {
    let transport = match transport {
        Transport::At(place) => place,
        Transport::Parsed => parsed(headers)?,
    };
    let syn = Syn::of(headers, transport, has_payload)?;
    let segment = Segment::of(headers);
    let mut stepped = Syn::EMPTY;
    syn::begin(&mut stepped, &segment, transport as u32, has_payload);
    let mut steps = 1;
    while syn::step(&mut stepped, &segment) {
        steps += 1;
    }
    assert!(steps <= OPTION_BYTES_MAX + 1, "{steps} steps");
    syn::finish(&mut stepped, &segment);
    assert_eq!(syn, stepped);
    assert_eq!(Syn::of(&unread(headers, transport), transport, has_payload), Some(syn));
    assert!(syn.quirks & quirks::TRAILING == 0 || syn.padding_bytes > 0, "{syn}");
    Some(syn)
}

/// The same SYN between other ends, without what is behind its headers.
fn unread(headers: &[u8], transport: usize) -> Vec<u8> {
    let mut other = headers[..transport + usize::from(headers[transport + 12] >> 4) * 4].to_vec();
    let addresses = if headers[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let (ports, checksum) = (transport..transport + 4, transport + 16..transport + 18);
    for place in addresses.chain(ports).chain(checksum) {
        other[place] = !other[place];
    }
    other
}

/// Where the transport header of a packet begins, if it is one over TCP that the program reads.
fn parsed(headers: &[u8]) -> Option<usize> {
    let kind: [u8; 2] = if headers.first()? >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let frame = [&[0; 12][..], &kind, headers].concat();
    let parsed = packet::parse(&SliceFrame(&frame)).ok()?;
    let is_tcp = parsed.packet.protocol == TCP && parsed.layout != Layout::NOWHERE;
    is_tcp.then_some((parsed.layout.transport() - parsed.layout.network()) as usize)
}

/// The text is a pattern and a target, of this SYN.
fn assert_told(syn: &Syn) -> SynPattern {
    let text = syn.to_string();
    let pattern: SynPattern = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(pattern.to_string(), text);
    assert!(pattern.matches(syn), "{text}");
    let target = format!("syn:{text}");
    assert!(target::target(&target).is_ok(), "{target} is no target");
    assert_ne!(syn.key(), 0, "{text}");
    pattern
}
