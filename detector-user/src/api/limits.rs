//! The bounds of the API, each in one place.

use std::time::Duration;

use crate::daemon::{BLOCKING_THREADS_MAX, turns::Kind};

/// Bytes of a request with a policy: its source files may have 64 MiB.
pub const POLICY_BYTES_MAX: usize = crate::policy::SOURCE_FILES_BYTES_MAX;

/// Bytes of a request with the targets of an incident rule: 100,000 prefixes of IPv6, and what stands between them.
pub const INCIDENT_BYTES_MAX: usize = 8 << 20;

/// Bytes of a request with hints: as many, likewise.
pub const HINTS_BYTES_MAX: usize = INCIDENT_BYTES_MAX;

/// Bytes of any other request.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of the head of a request. One that is larger is refused when the buffer is full, which is twice that at most.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// The time from the first byte of a request to the last one of its head, and from the end of an answer to the next request.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// The time a body may take, as a multiple of that: 64 MiB in 30 s are 18 Mbit/s.
pub const BODY_TIME_HEADS: u32 = 3;

/// The time a whole request may take, as a multiple of [`HEAD_TIME_MAX`]: 60 s. A change that was begun and takes longer comes
/// to its end all the same.
pub const REQUEST_TIME_HEADS: u32 = 6;

/// The time a client may take to read a part of an answer.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;

/// Connections of one user at a time, so that nobody can keep the others out.
pub const CONNECTIONS_OF_ONE_MAX: usize = 24;

/// Connections of one IPv4 address or IPv6 /64 at a time: whose they are is known only after a request with a token.
pub const CONNECTIONS_OF_ADDRESS_MAX: usize = 8;

/// The time from when a connection over TCP is accepted until the head of its first request is there, with the handshake.
pub const STRANGER_TIME_MAX: Duration = Duration::from_secs(5);

/// Followers of events at a time.
pub const FOLLOWERS_MAX: usize = 16;

/// Followers of one caller at a time, so that nobody can keep the others out.
pub const FOLLOWERS_OF_ONE_MAX: usize = 4;

/// Readers of whole tables at a time; more of them wait.
pub const READERS_MAX: usize = 4;

/// Requests for rates at a time, each of which remembers every source between two looks; more of them wait.
pub const SAMPLERS_MAX: usize = 2;

/// Policies to check or plan that are received and read at a time; more of them wait.
pub const CHECKS_MAX: usize = 2;

/// Of one caller, so that nobody can keep the others waiting.
pub const CHECKS_OF_ONE_MAX: usize = 1;

/// Bodies of each kind of large change (apply, incidents, hints) that are received and read at a time; more of them wait.
pub const UPLOADS_MAX: usize = 1;

/// Refused changes that are written down at a time.
pub const AUDITS_MAX: usize = 1;

/// Threads that anything else finds free: a look, metrics, and looking up the host of a webhook, which may take longer than
/// the attempts that ask for it.
const THREADS_OF_OTHERS: usize = 6;

const _: () = assert!(
    READERS_MAX + CHECKS_MAX + 3 * UPLOADS_MAX + AUDITS_MAX + Kind::COUNT + THREADS_OF_OTHERS
        <= BLOCKING_THREADS_MAX,
    "what nobody may keep from its work finds a thread"
);

/// Changes that one caller may ask for at once.
pub const CHANGES_BURST: u64 = 20;

/// The time after which a caller may ask for one more change.
pub const CHANGE_EVERY: Duration = Duration::from_secs(1);

/// The time between two refusals of one caller that are logged and recorded, and between two of callers that nobody knows
/// that are logged.
pub const REFUSAL_EVERY: Duration = Duration::from_secs(1);

/// Versions that `history` answers with at most: for each, its text is read and compared.
pub const VERSIONS_MAX: usize = 100;

/// Rows that `sources` answers with at most.
pub const ROWS_MAX: usize = 10_000;

/// Rows that `fingerprints` answers with at most: all there may be.
pub const FINGERPRINT_ROWS_MAX: usize = detector_common::limits::FINGERPRINTS;

/// Seconds between the two looks of `sources` at most.
pub const INTERVAL_S_MAX: u64 = 10;

/// Tokens of a file.
pub const TOKENS_MAX: usize = 1024;
