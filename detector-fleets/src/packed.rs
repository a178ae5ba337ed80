//! Tables of millions of small numbers are kept as bytes: to write them one by one takes ten times as long.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, SeqAccess, Visitor},
};

/// Bytes of a row.
const BYTES: usize = ROW * size_of::<u16>();

/// Numbers of a row.
const ROW: usize = 8;

/// Writes rows of numbers of 16 bits, the lowest byte first.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(rows: &[[u16; ROW]], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    serializer.serialize_bytes(&bytes)
}

/// Reads them.
///
/// # Errors
///
/// Those of the deserializer, and that a row is not whole.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u16; ROW]>, D::Error> {
    deserializer.deserialize_bytes(Rows)
}

struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<[u16; ROW]>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rows of {BYTES} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let (rows, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let number =
            |row: &[u8; BYTES], place: usize| u16::from_le_bytes([row[2 * place], row[2 * place + 1]]);
        Ok(rows.iter().map(|row| std::array::from_fn(|place| number(row, place))).collect())
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
