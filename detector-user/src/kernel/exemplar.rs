//! Exemplars as they come from the program: the bytes of a fingerprint.

use detector_common::{
    fingerprint::{EXEMPLAR_CONTENT_START, ExemplarHeader, Kind},
    syn::Syn,
};

/// An exemplar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// What it is of.
    pub header: ExemplarHeader,
    /// Bytes of TLS records from the first of the ClientHello on, or of a signature.
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

    /// The signature that it is of; `None` if it is none, or is not of the key that is said of it: another CPU changed it
    /// while it was sent.
    pub fn syn(&self) -> Option<Syn> {
        if self.header.kind != Kind::Syn as u8 || self.bytes.len() != size_of::<Syn>() {
            return None;
        }
        // SAFETY: as many bytes as a signature has, which is plain data.
        let syn = unsafe { self.bytes.as_ptr().cast::<Syn>().read_unaligned() };
        (syn.key() == self.header.key).then_some(syn)
    }
}
