//! Exemplars as they come from the program: the bytes of a fingerprint.

use detector_common::{
    fingerprint::{EXEMPLAR_CONTENT_START, ExemplarHeader, Kind, Name, ja4_bytes},
    hello::Transport,
    ja4::Ja4,
    syn::Syn,
};

use crate::fingerprint::{self, hello::filled};

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

    /// The JA4 of the ClientHello that it is of; `None` if it is none, or is not of the key that is said of it.
    pub fn ja4(&self) -> Option<Ja4> {
        if self.header.kind != Kind::Tls as u8 {
            return None;
        }
        let message = filled(&self.bytes)?;
        let is_its_own = fingerprint::key(&message, Transport::Tcp) == Some(self.header.key);
        fingerprint::ja4(&message, Transport::Tcp).ok().filter(|_| is_its_own)
    }

    /// What its fingerprint is called, as far as it alone tells.
    pub fn name(&self) -> Option<Name> {
        let name = Name { key: self.header.key, kind: self.header.kind, ..Name::NONE };
        match Kind::from_number(self.header.kind)? {
            // One datagram of several does not tell.
            Kind::Initial => None,
            Kind::Syn => Some(Name { syn: self.syn()?, ..name }),
            Kind::Tls => {
                let ja4 = self.ja4()?;
                let [stable_ja4, ja4] = [ja4.stable().to_string(), ja4.to_string()];
                Some(Name { stable_ja4: ja4_bytes(&stable_ja4), ja4: ja4_bytes(&ja4), ..name })
            }
        }
    }
}
