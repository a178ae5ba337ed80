//! JA4, the fingerprint of a TLS client by its ClientHello.
//!
//! After FoxIO's text at <https://github.com/FoxIO-LLC/ja4>, under the licence in `LICENSE-JA4`. JA4 for TLS clients only:
//! other fingerprints of that family have other licences and are not in here.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::{
    client_hello::{ClientHello, extension},
    hello::{Transport, VARIANT_EXTENSIONS, is_grease},
};

/// A JA4; [`Display`](fmt::Display) gives its usual form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ja4 {
    transport: Transport,
    version: &'static str,
    has_server_name: bool,
    protocol: [char; 2],
    /// As the lists below without GREASE, in the order of the wire.
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    signature_algorithms: Vec<u16>,
}

impl Ja4 {
    /// The JA4 of a ClientHello.
    pub fn of(hello: &ClientHello, transport: Transport) -> Self {
        let versions = without_grease(&hello.supported_versions);
        let version = versions.into_iter().max().unwrap_or(hello.legacy_version);
        Self {
            transport,
            version: version_name(version),
            has_server_name: hello.has_server_name(),
            protocol: protocol_name(hello.application_protocol.as_deref().unwrap_or_default()),
            ciphers: without_grease(&hello.cipher_suites),
            extensions: without_grease(&hello.extensions),
            signature_algorithms: without_grease(&hello.signature_algorithms),
        }
    }

    /// That of the same client whatever its last connection left behind: without [`VARIANT_EXTENSIONS`], which neither the
    /// list nor the count of extensions has. Other tools do not know it.
    #[must_use]
    pub fn stable(&self) -> Self {
        let mut stable = self.clone();
        stable.extensions.retain(|kind| !VARIANT_EXTENSIONS.contains(kind));
        stable
    }

    /// With the lists instead of their hashes, sorted as they are hashed (JA4_r).
    pub fn raw(&self) -> String {
        format!("{}_{}_{}", self.head(), list(&sorted(&self.ciphers)), self.tail(&self.hashed_extensions()))
    }

    /// With the lists instead of their hashes in the order of the wire, with the extensions for the server's name and the
    /// application protocols (JA4_ro).
    pub fn raw_original(&self) -> String {
        format!("{}_{}_{}", self.head(), list(&self.ciphers), self.tail(&self.extensions))
    }

    /// Part a.
    fn head(&self) -> String {
        let transport = match self.transport {
            Transport::Tcp => 't',
            Transport::Quic => 'q',
        };
        let name = if self.has_server_name { 'd' } else { 'i' };
        let (ciphers, extensions) = (self.ciphers.len().min(99), self.extensions.len().min(99));
        let [first, last] = self.protocol;
        format!("{transport}{}{name}{ciphers:02}{extensions:02}{first}{last}", self.version)
    }

    /// What part a says already does not count again.
    fn hashed_extensions(&self) -> Vec<u16> {
        let is_said = |kind: &u16| [extension::SERVER_NAME, extension::APPLICATION_PROTOCOLS].contains(kind);
        let mut hashed = sorted(&self.extensions);
        hashed.retain(|kind| !is_said(kind));
        hashed
    }

    /// Part c in full.
    fn tail(&self, extensions: &[u16]) -> String {
        let mut tail = list(extensions);
        if !self.signature_algorithms.is_empty() {
            tail.push('_');
            tail += &list(&self.signature_algorithms);
        }
        tail
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ciphers = hash(&list(&sorted(&self.ciphers)));
        let extensions = self.hashed_extensions();
        let tail = if extensions.is_empty() { hash("") } else { hash(&self.tail(&extensions)) };
        write!(formatter, "{}_{ciphers}_{tail}", self.head())
    }
}

fn without_grease(numbers: &[u16]) -> Vec<u16> {
    numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
}

fn sorted(numbers: &[u16]) -> Vec<u16> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Numbers as four digits each.
fn list(numbers: &[u16]) -> String {
    let mut list = String::with_capacity(5 * numbers.len());
    for number in numbers {
        if !list.is_empty() {
            list.push(',');
        }
        list += &format!("{number:04x}");
    }
    list
}

/// The first twelve digits of SHA-256, zeros for nothing.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "000000000000".into();
    }
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

const fn version_name(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        _ => "00",
    }
}

/// First and last character of an application protocol, or where one of them is no letter or digit of ASCII, the first and
/// the last digit of all of it in hexadecimal.
fn protocol_name(protocol: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first.into(), last.into()];
    }
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0xf)]
}

#[cfg(test)]
#[path = "ja4_tests.rs"]
mod tests;
