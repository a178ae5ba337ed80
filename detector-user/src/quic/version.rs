//! What differs between the versions of QUIC, as far as Initials go.

/// A version whose Initials are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// What turns connection ids into keys.
    pub(super) salt: [u8; 20],
    pub(super) labels: Labels,
    /// The two bits of a long header that say Initial.
    pub(super) initial_type: u8,
}

/// What keys are derived with, as HKDF-Expand-Label puts it (RFC 8446, 7.1): length of the key, length of the label, the
/// label, an empty context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) key: &'static [u8],
    pub(super) iv: &'static [u8],
    pub(super) header: &'static [u8],
}

const LABELS_V1: Labels = Labels {
    key: b"\x00\x10\x0etls13 quic key\x00",
    iv: b"\x00\x0c\x0dtls13 quic iv\x00",
    header: b"\x00\x10\x0dtls13 quic hp\x00",
};
const LABELS_V2: Labels = Labels {
    key: b"\x00\x10\x10tls13 quicv2 key\x00",
    iv: b"\x00\x0c\x0ftls13 quicv2 iv\x00",
    header: b"\x00\x10\x0ftls13 quicv2 hp\x00",
};

/// RFC 9001, 5.2.
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
/// RFC 9369, 3.3.1.
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
    0xbd, 0x2e, 0xd9,
];
/// draft-ietf-quic-tls-29, 5.2.
const SALT_DRAFT_29: [u8; 20] = [
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43,
    0x90, 0xa8, 0x99,
];
/// draft-ietf-quic-tls-23, 5.2.
const SALT_DRAFT_23: [u8; 20] = [
    0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe,
    0xf9, 0xf5, 0x02,
];

const V1: Version = Version { salt: SALT_V1, labels: LABELS_V1, initial_type: 0 };

impl Version {
    /// The version of a number, if its Initials are opened.
    pub(super) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0x0000_0001 | 0xff00_0021..=0xff00_0022 => V1,
            0x6b33_43cf => Self { salt: SALT_V2, labels: LABELS_V2, initial_type: 1 },
            0xff00_001d..=0xff00_0020 => Self { salt: SALT_DRAFT_29, ..V1 },
            0xff00_0017..=0xff00_001c => Self { salt: SALT_DRAFT_23, ..V1 },
            _ => return None,
        })
    }
}
