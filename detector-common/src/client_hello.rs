//! What a TLS client says first: the ClientHello, as far as fingerprints need it.
//!
//! Strict on lengths: every vector fills exactly the place that its surroundings give it, but for the application protocols
//! behind the first one, which nobody asks for. What is inside the vectors is taken
//! as it comes; a fingerprint wants to know what a client says, not whether a server would agree. Sources: RFC 8446, 4.1.2 and
//! 4.2; RFC 5246, 7.4.1.2; RFC 7301, 3.1.

use alloc::vec::Vec;

use thiserror::Error;

/// The handshake type of a ClientHello.
pub const CLIENT_HELLO: u8 = 1;

/// Bytes of a handshake message before its body: type and length.
pub const HEADER_BYTES: usize = 4;

/// Numbers of the extensions whose content is read.
pub mod extension {
    /// The name of the server that the client wants.
    pub const SERVER_NAME: u16 = 0x0000;
    /// Signature algorithms that the client can check.
    pub const SIGNATURE_ALGORITHMS: u16 = 0x000d;
    /// Application protocols (ALPN).
    pub const APPLICATION_PROTOCOLS: u16 = 0x0010;
    /// Versions of TLS.
    pub const SUPPORTED_VERSIONS: u16 = 0x002b;
}

/// A ClientHello. Values that clients make up to keep servers honest (GREASE) are still in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version in the message itself, not in a record; since TLS 1.3 always that of TLS 1.2.
    pub legacy_version: u16,
    /// In the order of the wire.
    pub cipher_suites: Vec<u16>,
    /// The types of all extensions, in the order of the wire, as often as they come.
    pub extensions: Vec<u16>,
    /// What extension 0x002b says, in the order of the wire.
    pub supported_versions: Vec<u16>,
    /// What extension 0x000d says, in the order of the wire.
    pub signature_algorithms: Vec<u16>,
    /// The first application protocol; none: no extension 0x0010, or one without a name.
    pub application_protocol: Option<Vec<u8>>,
}

/// Why bytes are not a ClientHello. Places are counted from the first byte of the handshake message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HelloError {
    /// Another handshake message.
    #[error("the handshake message has type {found}, expected {CLIENT_HELLO}: it is no ClientHello")]
    NotClientHello {
        /// Its type.
        found: u8,
    },
    /// Something goes on beyond its surroundings.
    #[error(
        "{what} at byte {at}: expected {expected} bytes, found {found}; the ClientHello is cut off or malformed"
    )]
    Truncated {
        /// What is read there.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Its length, or the least that it has.
        expected: usize,
        /// Bytes that are left there.
        found: usize,
    },
    /// Something ends before its surroundings do.
    #[error("{what}: found {found} bytes more at byte {at}, expected its end; the ClientHello is malformed")]
    Trailing {
        /// What should have ended.
        what: &'static str,
        /// Where its content ends.
        at: usize,
        /// Bytes that follow.
        found: usize,
    },
    /// A list of two-byte numbers of an odd length.
    #[error(
        "{what} at byte {at}: found a length of {found} bytes, expected an even one; the ClientHello is malformed"
    )]
    Odd {
        /// The list.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Its length.
        found: usize,
    },
}

impl ClientHello {
    /// Reads a complete handshake message, from its type on.
    ///
    /// Where an extension comes more than once, which no version of TLS allows, the first one's content counts.
    ///
    /// # Errors
    ///
    /// The message is of another type, or a length in it contradicts another.
    pub fn parse(handshake_message: &[u8]) -> Result<Self, HelloError> {
        let mut message = Reader { bytes: handshake_message, at: 0, what: "the message" };
        let found = message.u8("the handshake type")?;
        if found != CLIENT_HELLO {
            return Err(HelloError::NotClientHello { found });
        }
        let mut body = message.list(3, "the body")?;
        message.end()?;
        let mut hello = Self { legacy_version: body.u16("the legacy version")?, ..Self::default() };
        body.take(32, "the random number")?;
        body.list(1, "the session id")?;
        hello.cipher_suites = body.list(2, "the cipher suites")?.numbers()?;
        body.list(1, "the compression methods")?;
        // Before TLS 1.3 a ClientHello without extensions may end here.
        if body.bytes.is_empty() {
            return Ok(hello);
        }
        let mut extensions = body.list(2, "the extensions")?;
        body.end()?;
        while !extensions.bytes.is_empty() {
            let kind = extensions.u16("the type of an extension")?;
            let content = extensions.list(2, "an extension")?;
            if !hello.extensions.contains(&kind) {
                hello.read_extension(kind, content)?;
            }
            hello.extensions.push(kind);
        }
        Ok(hello)
    }

    /// Whether it names the server, in whatever way: whether there is an extension 0x0000.
    pub fn has_server_name(&self) -> bool {
        self.extensions.contains(&extension::SERVER_NAME)
    }

    fn read_extension(&mut self, kind: u16, mut content: Reader<'_>) -> Result<(), HelloError> {
        match kind {
            extension::SUPPORTED_VERSIONS => {
                self.supported_versions = content.list(1, "the supported versions")?.numbers()?;
                content.end()
            }
            extension::SIGNATURE_ALGORITHMS => {
                self.signature_algorithms = content.list(2, "the signature algorithms")?.numbers()?;
                content.end()
            }
            extension::APPLICATION_PROTOCOLS => {
                // As the program in the kernel: only the first name counts, and where there is no room for one there is none.
                const NAMED_BYTES_MIN: usize = 3;
                if content.bytes.len() < NAMED_BYTES_MIN {
                    return Ok(());
                }
                let mut protocols = content.list(2, "the application protocols")?;
                let protocol = protocols.list(1, "an application protocol")?.bytes;
                self.application_protocol = Some(protocol.to_vec());
                content.end()
            }
            _ => Ok(()),
        }
    }
}

/// What is left of a part of the message.
struct Reader<'a> {
    bytes: &'a [u8],
    /// Where they start in the message.
    at: usize,
    /// What part it is.
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], HelloError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(HelloError::Truncated {
                what,
                at: self.at,
                expected: length,
                found: self.bytes.len(),
            });
        };
        self.bytes = rest;
        self.at += length;
        Ok(taken)
    }

    /// A number of up to three bytes.
    fn number(&mut self, bytes: usize, what: &'static str) -> Result<usize, HelloError> {
        Ok(self.take(bytes, what)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, HelloError> {
        Ok(self.number(1, what)? as u8)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, HelloError> {
        Ok(self.number(2, what)? as u16)
    }

    /// A part with its length in so many bytes before it.
    fn list(&mut self, length_bytes: usize, what: &'static str) -> Result<Self, HelloError> {
        let length = self.number(length_bytes, what)?;
        let at = self.at;
        Ok(Self { bytes: self.take(length, what)?, at, what })
    }

    /// All of it as numbers of two bytes.
    fn numbers(self) -> Result<Vec<u16>, HelloError> {
        let (numbers, rest) = self.bytes.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(HelloError::Odd { what: self.what, at: self.at, found: self.bytes.len() });
        }
        Ok(numbers.iter().map(|number| u16::from_be_bytes(*number)).collect())
    }

    fn end(&self) -> Result<(), HelloError> {
        match self.bytes.len() {
            0 => Ok(()),
            found => Err(HelloError::Trailing { what: self.what, at: self.at, found }),
        }
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
pub(crate) mod tests;
