//! Datagrams and the packets in them (RFC 9000, 12 and 17): a client's Initials, found and opened.

use super::{
    keys::{Keys, SAMPLE_BYTES, TAG_BYTES},
    version::Version,
};

/// Bytes of a connection id (RFC 9000, 17.2).
const CONNECTION_ID_BYTES_MAX: usize = 20;

/// Packets of one datagram that are looked at. A client coalesces three kinds.
const PACKETS_MAX: usize = 8;

/// Bytes of a packet number, at most.
const NUMBER_BYTES_MAX: usize = 4;

/// Bits of a first byte: a long header, the bit that is always set, the kind of packet.
const LONG_HEADER: u8 = 0x80;
const FIXED: u8 = 0x40;
const KIND: u8 = 0x30;
/// Those of them that are hidden in a long header, and in those the length of the packet number.
const HIDDEN: u8 = 0x0f;
const NUMBER_LENGTH: u8 = 0x03;

/// Whether a datagram starts with what may be an Initial, without a look at its inside.
pub(super) fn may_be_initial(datagram: &[u8]) -> bool {
    initials(datagram).next().is_some()
}

/// An Initial as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initial<'a> {
    pub(super) version: Version,
    /// Where it goes; of a client's first one, what its keys are made of.
    pub(super) destination_id: &'a [u8],
    /// From the first byte to the end of the tag.
    packet: &'a [u8],
    /// Where in it the packet number is.
    number_at: usize,
}

/// The Initials of a datagram, those too that stand behind other packets.
pub(super) fn initials(datagram: &[u8]) -> impl Iterator<Item = Initial<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (packet, after) = next_packet(rest)?;
        rest = after;
        Some(packet)
    })
    .take(PACKETS_MAX)
    .flatten()
}

/// The next packet with a long header and a length: an Initial or nothing of interest, and what stands behind it.
fn next_packet(datagram: &[u8]) -> Option<(Option<Initial<'_>>, &[u8])> {
    let mut header = Reader { bytes: datagram, at: 0 };
    let first = *header.take(1)?.first()?;
    // A short header has no length; zeros fill a datagram up.
    if first & LONG_HEADER == 0 || first & FIXED == 0 {
        return None;
    }
    let version = Version::of(u32::from_be_bytes(*header.take(4)?.first_chunk()?))?;
    let destination_id = header.connection_id()?;
    header.connection_id()?;
    // Of version 1: Initial, 0-RTT, Handshake, Retry. Version 2 counts on by one.
    let kind = ((first & KIND) >> 4).wrapping_sub(version.initial_type) & 3;
    match kind {
        0 => {
            let token_bytes = header.number()?;
            header.take(usize::try_from(token_bytes).ok()?)?;
        }
        1 | 2 => {}
        _ => return None,
    }
    let length = usize::try_from(header.number()?).ok()?;
    let number_at = header.at;
    header.take(length)?;
    let (packet, after) = datagram.split_at(header.at);
    let initial = Initial { version, destination_id, packet, number_at };
    Some(((kind == 0).then_some(initial), after))
}

impl Initial<'_> {
    /// Its payload and its number; `largest` is the largest number seen of this connection. `None`: the keys are not its own.
    pub(super) fn open(&self, keys: &Keys, largest: Option<u64>) -> Option<(u64, Vec<u8>)> {
        let sample = self.packet.get(self.number_at + NUMBER_BYTES_MAX..)?.get(..SAMPLE_BYTES)?;
        let [first_mask, number_mask @ ..] = keys.mask(sample)?;
        let first = self.packet.first()? ^ first_mask & HIDDEN;
        let number_bytes = usize::from(first & NUMBER_LENGTH) + 1;
        let (header, payload) = self.packet.split_at_checked(self.number_at + number_bytes)?;
        if payload.len() < TAG_BYTES {
            return None;
        }
        let mut header = header.to_vec();
        *header.first_mut()? = first;
        let mut truncated = 0;
        for (byte, mask) in header[self.number_at..].iter_mut().zip(number_mask) {
            *byte ^= mask;
            truncated = truncated << 8 | u64::from(*byte);
        }
        let number = full_number(truncated, number_bytes, largest);
        Some((number, keys.open(number, &header, payload)?))
    }
}

/// The number that ends with these bytes and is next to what is expected (RFC 9000, A.3).
fn full_number(truncated: u64, bytes: usize, largest: Option<u64>) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1_u64 << (8 * bytes);
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected && candidate + window < 1 << 62 {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// Reads headers and frames.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(taken)
    }

    /// A number of variable length (RFC 9000, 16).
    pub(super) fn number(&mut self) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        let bytes = self.take(1 << (first >> 6))?;
        Some(
            bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
                & (u64::MAX >> 2 >> (64 - 8 * bytes.len())),
        )
    }

    fn connection_id(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        if length > CONNECTION_ID_BYTES_MAX { None } else { self.take(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_lengths() {
        // RFC 9000, A.1.
        let rows: &[(&[u8], u64)] = &[
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, number) in rows {
            let mut reader = Reader { bytes, at: 0 };
            assert_eq!((reader.number(), reader.at), (Some(*number), bytes.len()));
            assert_eq!(Reader { bytes: &bytes[..bytes.len() - 1], at: 0 }.number(), None);
        }
    }

    #[test]
    fn packet_numbers_are_next_to_what_is_expected() {
        // RFC 9000, A.3.
        assert_eq!(full_number(0x9b32, 2, Some(0xa82f_30ea)), 0xa82f_9b32);
        assert_eq!(full_number(2, 4, None), 2);
        assert_eq!(full_number(0xff, 1, None), 0xff);
        assert_eq!(full_number(0x00, 1, Some(0xff)), 0x100);
        assert_eq!(full_number(0xfe, 1, Some(0x100)), 0xfe);
        assert_eq!(full_number(u64::from(u32::MAX), 4, Some((1 << 62) - 1)), (1 << 62) - 1);
    }
}
