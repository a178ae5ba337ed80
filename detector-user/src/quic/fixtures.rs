//! A client of QUIC, for tests and for fuzzing.

use ring::aead::Aad;

use super::{keys::Keys, version::Version};

pub(crate) const V1: u32 = 1;
pub(crate) const V2: u32 = 0x6b33_43cf;

/// A number of variable length.
pub(crate) fn number(value: usize) -> Vec<u8> {
    match value {
        0..64 => vec![value as u8],
        64..16_384 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        _ => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
    }
}

/// A CRYPTO frame.
pub(crate) fn crypto(offset: usize, bytes: &[u8]) -> Vec<u8> {
    [&[6][..], &number(offset), &number(bytes.len()), bytes].concat()
}

/// An Initial to be sealed.
#[derive(Clone, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) version: u32,
    pub(crate) destination_id: &'a [u8],
    /// What its keys are made of.
    pub(crate) keys_of: &'a [u8],
    pub(crate) token: &'a [u8],
    pub(crate) number: u64,
    pub(crate) number_bytes: usize,
    /// The two bits for the kind of packet, as version 1 has them.
    pub(crate) kind: u8,
}

impl Packet<'_> {
    pub(crate) fn sealed(&self, payload: &[u8]) -> Vec<u8> {
        let version = Version::of(self.version).expect("a version");
        let keys = Keys::of_client(&version, self.keys_of).expect("keys");
        let kind = (self.kind + version.initial_type) & 3;
        let mut header = vec![0xc0 | kind << 4 | (self.number_bytes as u8 - 1)];
        header.extend(self.version.to_be_bytes());
        for id in [self.destination_id, &[]] {
            header.extend([id.len() as u8]);
            header.extend(id);
        }
        if self.kind == 0 {
            header.extend(number(self.token.len()));
            header.extend(self.token);
        }
        header.extend(number(self.number_bytes + payload.len() + 16));
        let number_at = header.len();
        header.extend(&self.number.to_be_bytes()[8 - self.number_bytes..]);
        let mut sealed = payload.to_vec();
        let nonce = keys.nonce(self.number);
        keys.packet
            .seal_in_place_append_tag(nonce, Aad::from(&header), &mut sealed)
            .expect("a short payload");
        let mut packet = [&header[..], &sealed].concat();
        let mask = keys.mask(&packet[number_at + 4..][..16]).expect("a sample");
        packet[0] ^= mask[0] & 0x0f;
        for (byte, mask) in packet[number_at..][..self.number_bytes].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        packet
    }
}

/// Bytes of hexadecimal digits.
pub(crate) fn bytes(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    (0..digits.len()).step_by(2).map(digit).collect()
}
