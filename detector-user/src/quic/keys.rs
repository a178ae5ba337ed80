//! The keys of a client's Initials (RFC 9001, 5): derived from the connection id that it sent its first one to.

use ring::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, quic::HeaderProtectionKey},
    hkdf,
};

use super::version::Version;

/// Bytes of a packet's tag.
pub(super) const TAG_BYTES: usize = 16;

/// Bytes of a packet that its header protection is made of.
pub(super) const SAMPLE_BYTES: usize = 16;

const IV_BYTES: usize = aead::NONCE_LEN;

/// What opens the Initials of one connection.
pub(super) struct Keys {
    pub(super) packet: LessSafeKey,
    iv: [u8; IV_BYTES],
    header: HeaderProtectionKey,
}

/// A length for [`hkdf`], which derives keys for its own crate or bytes of a length that somebody names.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// "client in" as HKDF-Expand-Label puts it.
const CLIENT_IN: &[u8] = b"\x00\x20\x0ftls13 client in\x00";

impl Keys {
    /// Those of a client. `None` only if the library refuses the lengths of the standard.
    pub(super) fn of_client(version: &Version, connection_id: &[u8]) -> Option<Self> {
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &version.salt).extract(connection_id);
        let mut client = [0; 32];
        initial.expand(&[CLIENT_IN], Length(client.len())).ok()?.fill(&mut client).ok()?;
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &client);
        let mut iv = [0; IV_BYTES];
        secret.expand(&[version.labels.iv], Length(iv.len())).ok()?.fill(&mut iv).ok()?;
        let packet = UnboundKey::from(secret.expand(&[version.labels.key], &aead::AES_128_GCM).ok()?);
        let info = [version.labels.header];
        let header = HeaderProtectionKey::from(secret.expand(&info, &aead::quic::AES_128).ok()?);
        Some(Self { packet: LessSafeKey::new(packet), iv, header })
    }

    /// What the first byte and the packet number of a packet are hidden with.
    pub(super) fn mask(&self, sample: &[u8]) -> Option<[u8; 5]> {
        self.header.new_mask(sample).ok()
    }

    /// The payload of a packet whose header is no longer hidden. `None`: it is not of this client.
    pub(super) fn open(&self, number: u64, header: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let mut payload = payload.to_vec();
        let length =
            self.packet.open_in_place(self.nonce(number), Aad::from(header), &mut payload).ok()?.len();
        payload.truncate(length);
        Some(payload)
    }

    /// What a packet of this number is sealed with.
    pub(super) fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, digit) in nonce[IV_BYTES - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= digit;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}
