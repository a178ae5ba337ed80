//! What is done, one by one: connections and exchanges, of which rows are the sums.

pub use crate::path::Delays;
use crate::source::Source;

/// Something that a client does at a service. Those of one client follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deed {
    /// Index of the service in the scenario.
    pub service: u16,
    /// Where the client is.
    pub source: Source,
    /// The connection, by a number that no other one has.
    pub connection: u64,
    /// What it does.
    pub what: What,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// Opens a connection over TCP.
    Connect(Connect),
    /// Opens one over QUIC.
    ConnectQuic {
        /// Key of the first Initial's shape.
        key: u64,
    },
    /// Asks something on it, and is answered.
    Exchange {
        /// Bytes of the request.
        request_bytes: u32,
        /// Bytes of the response.
        response_bytes: u32,
    },
    /// Ends the connection.
    End,
}

/// How a connection over TCP begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connect {
    /// Key of the SYN.
    pub syn_key: u64,
    /// Key of the ClientHello that the client has, whether it is sent and can be read or not.
    pub tls_key: u64,
    /// What is sent of it.
    pub says: Says,
    /// When.
    pub delays: Delays,
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Its ClientHello.
    Hello,
    /// One that nobody can read.
    Unreadable,
    /// Nothing at all.
    Nothing,
}
