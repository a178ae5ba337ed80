//! Tables of millions of small numbers are kept as bytes: to write them one by one takes ten times as long.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::seen::{Bucket, PLACES};

/// Bytes of a bucket: the places, each with the lowest byte first, and then for how long.
const BYTES: usize = PLACES * (size_of::<u16>() + size_of::<u8>());

/// Writes buckets.
///
/// # Errors
///
/// Those of the serializer.
pub(crate) fn serialize<S: Serializer>(buckets: &[Bucket], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(buckets.len() * BYTES);
    for bucket in buckets {
        bytes.extend(bucket.places.iter().flat_map(|place| place.to_le_bytes()));
        bytes.extend(bucket.seen_for);
    }
    serializer.serialize_bytes(&bytes)
}

/// Reads them.
///
/// # Errors
///
/// Those of the deserializer, and that a bucket is not whole.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bucket>, D::Error> {
    deserializer.deserialize_bytes(Buckets)
}

struct Buckets;

impl<'de> Visitor<'de> for Buckets {
    type Value = Vec<Bucket>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "buckets of {BYTES} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let (buckets, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let bucket = |bytes: &[u8; BYTES]| Bucket {
            places: std::array::from_fn(|place| u16::from_le_bytes([bytes[2 * place], bytes[2 * place + 1]])),
            seen_for: std::array::from_fn(|place| bytes[2 * PLACES + place]),
        };
        Ok(buckets.iter().map(bucket).collect())
    }

    /// As formats for people write bytes.
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}
