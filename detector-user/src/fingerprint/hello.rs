//! The first ClientHello in what a client sends over TCP: at once, or after a dialogue with a proxy (CONNECT, SOCKS) or with
//! the server (STARTTLS), in one TLS record or in several.

use detector_common::{
    client_hello::{CLIENT_HELLO, ClientHello, HEADER_BYTES},
    hello::MESSAGE_BYTES_MAX,
};

/// Bytes that a client may say before its ClientHello. Credentials of HTTP proxies may be long.
pub const DIALOGUE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a ClientHello that is searched. Those of clients with post-quantum keys have 2,500; servers take 16 to 128 KiB.
pub const HELLO_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a ClientHello in which every list is empty.
const HELLO_BYTES_MIN: usize = HEADER_BYTES + 2 + 32 + 1 + 2 + 1;

/// Bytes of a connection that seems to have begun before: until then a capture that begins with segments out of order may still
/// show what comes before them.
const BEGUN_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a TLS record (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

const RECORD_HEADER_BYTES: usize = 5;

/// Content types of TLS records (RFC 8446, B.1).
mod content_type {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// What the start of a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// A ClientHello.
    Found {
        /// Where in the stream its first record starts.
        start: usize,
        /// The handshake message, taken out of its records.
        message: Vec<u8>,
    },
    /// None yet.
    NotYet {
        /// Where to search from when there is more.
        from: usize,
        /// Bytes that the stream has to have before there can be more to say.
        needed: usize,
    },
    /// None, whatever comes: a TLS connection whose ClientHello came earlier, one that is malformed, or too much else before.
    Never,
}

/// Searches the bytes that a client has sent so far, from their start on; `from` is what an earlier search gave, first 0.
pub fn search(stream: &[u8], from: usize) -> Search {
    if is_begun(stream) {
        return match stream.len() {
            0..BEGUN_BYTES_MAX => Search::NotYet { from: 0, needed: stream.len() + 1 },
            _ => Search::Never,
        };
    }
    let mut at = from;
    while at < stream.len() {
        if at >= DIALOGUE_BYTES_MAX {
            return Search::Never;
        }
        match candidate(&stream[at..]) {
            Candidate::No => at += 1,
            Candidate::More { needed } => return Search::NotYet { from: at, needed: at + needed },
            // Not to take a later one for the first.
            Candidate::Whole(message) if ClientHello::parse(&message).is_err() => return Search::Never,
            Candidate::Whole(message) => return Search::Found { start: at, message },
        }
    }
    Search::NotYet { from: at, needed: at + 1 }
}

/// The ClientHello that the bytes begin with, which the program read to its key: what it had no need to see, the end of the last
/// extension, is made up with zeros. `None`: they begin with none.
///
/// It takes what the program takes ([`detector_common::hello`]), whatever versions are said (RFC 8446, 5.1: the one of a record
/// must be ignored) and whatever stands behind what the key needs; a search in a dialogue has to be stricter.
pub fn filled(stream: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut rest = stream;
    while let Some(([kind, major, _, high, low], content)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if (*kind, *major) != (content_type::HANDSHAKE, 3) || !(1..=RECORD_BYTES_MAX).contains(&length) {
            break;
        }
        let (content, next) = content.split_at(length.min(content.len()));
        message.extend_from_slice(content);
        if message.len() >= HEADER_BYTES && message.len() >= message_bytes(&message) {
            break;
        }
        rest = next;
    }
    if message.len() < HEADER_BYTES || message[0] != CLIENT_HELLO {
        return None;
    }
    let bytes = message_bytes(&message);
    if bytes > HEADER_BYTES + MESSAGE_BYTES_MAX as usize {
        return None;
    }
    message.resize(bytes, 0);
    Some(message)
}

/// Whether the stream starts with a TLS record that comes after a ClientHello.
fn is_begun(stream: &[u8]) -> bool {
    let [kind, 3, 0..=4, _, _, first, ..] = stream else { return false };
    match *kind {
        content_type::CHANGE_CIPHER_SPEC | content_type::ALERT | content_type::APPLICATION_DATA => true,
        content_type::HANDSHAKE => *first != CLIENT_HELLO,
        _ => false,
    }
}

/// What may start with these bytes.
enum Candidate {
    /// No ClientHello.
    No,
    /// Perhaps one: so many bytes are needed to say more.
    More { needed: usize },
    /// One, as far as its length says.
    Whole(Vec<u8>),
}

fn candidate(bytes: &[u8]) -> Candidate {
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        let length = match record_length(&bytes[at..]) {
            Ok(length) => length,
            Err(Some(needed)) => return Candidate::More { needed: at + needed },
            Err(None) => return Candidate::No,
        };
        let start = at + RECORD_HEADER_BYTES;
        let end = start + length;
        message.extend_from_slice(&bytes[start..end.min(bytes.len())]);
        let Some(missing) = missing_bytes(&message) else { return Candidate::No };
        if missing == 0 {
            message.truncate(message_bytes(&message));
            return Candidate::Whole(message);
        }
        if bytes.len() < end {
            return Candidate::More { needed: end.min(bytes.len() + missing) };
        }
        at = end;
    }
}

/// The length of a record of the handshake, if these bytes start one; if they may, how many are needed to say so.
fn record_length(bytes: &[u8]) -> Result<usize, Option<usize>> {
    let is_possible = match bytes {
        [] => true,
        [kind] => *kind == content_type::HANDSHAKE,
        [kind, major] => (*kind, *major) == (content_type::HANDSHAKE, 3),
        [kind, major, minor, ..] => (*kind, *major) == (content_type::HANDSHAKE, 3) && *minor <= 4,
    };
    if !is_possible {
        return Err(None);
    }
    let [_, _, _, high, low, ..] = bytes else { return Err(Some(RECORD_HEADER_BYTES)) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if (1..=RECORD_BYTES_MAX).contains(&length) { Ok(length) } else { Err(None) }
}

/// Bytes that a message lacks at least, once it is known to be no other than a ClientHello.
fn missing_bytes(message: &[u8]) -> Option<usize> {
    let is_possible = match message {
        [] => true,
        [kind] | [kind, _] | [kind, _, _] | [kind, _, _, _] => *kind == CLIENT_HELLO,
        [kind, _, _, _, major, ..] => (*kind, *major) == (CLIENT_HELLO, 3),
    };
    if !is_possible {
        return None;
    }
    if message.len() < HEADER_BYTES {
        return Some(HEADER_BYTES - message.len());
    }
    let bytes = message_bytes(message);
    (HELLO_BYTES_MIN..=HELLO_BYTES_MAX).contains(&bytes).then(|| bytes.saturating_sub(message.len()))
}

/// Bytes of a message by what its header says.
fn message_bytes(message: &[u8]) -> usize {
    let length = message.iter().skip(1).take(3).fold(0, |length, byte| length << 8 | usize::from(*byte));
    HEADER_BYTES + length
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
