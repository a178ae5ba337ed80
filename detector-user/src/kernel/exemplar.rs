//! Exemplars as they come from the program: the bytes of a fingerprint.

use detector_common::fingerprint::{EXEMPLAR_CONTENT_START, ExemplarHeader};

/// An exemplar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// What it is of.
    pub header: ExemplarHeader,
    /// Bytes of TLS records from the first of the ClientHello on.
    pub bytes: Vec<u8>,
}

impl Exemplar {
    /// The exemplar of a record of the ring buffer; `None` if it is none.
    pub fn of(record: &[u8]) -> Option<Self> {
        let header = record.get(..size_of::<ExemplarHeader>())?;
        // SAFETY: as many bytes as the header has, which is plain data.
        let header = unsafe { header.as_ptr().cast::<ExemplarHeader>().read_unaligned() };
        let bytes = record.get(EXEMPLAR_CONTENT_START..)?.get(..header.bytes as usize)?.to_vec();
        Some(Self { header, bytes })
    }
}
