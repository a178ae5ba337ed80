//! The bounds of the API, each in one place.

use std::time::Duration;

/// Bytes of a request with a policy: its source files may have 64 MiB.
pub const POLICY_BYTES_MAX: usize = crate::policy::SOURCE_FILES_BYTES_MAX;

/// Bytes of any other request.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of the head of a request. One that is larger is refused when the buffer is full, which is twice that at most.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// The time from the first byte of a request to the last one of its head, and from the end of an answer to the next request.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// The time a body may take, as a multiple of that: 64 MiB in 30 s are 18 Mbit/s.
pub const BODY_TIME_HEADS: u32 = 3;

/// The time a whole request may take. A change that takes longer comes to its end all the same.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// The time a client may take to read a part of an answer.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;

/// Connections of one user or address at a time, so that nobody can keep the others out.
pub const CONNECTIONS_OF_ONE_MAX: usize = 24;

/// Followers of events at a time.
pub const FOLLOWERS_MAX: usize = 16;

/// Readers of whole tables at a time; more of them wait.
pub const READERS_MAX: usize = 4;

/// Requests for rates at a time, each of which remembers every source between two looks; more of them wait.
pub const SAMPLERS_MAX: usize = 2;

/// Policies of one kind of request (check, apply) that are received and read at a time; more of them wait.
pub const POLICIES_MAX: usize = 1;

/// Changes that one caller may ask for at once.
pub const CHANGES_BURST: u64 = 20;

/// The time after which a caller may ask for one more change.
pub const CHANGE_EVERY: Duration = Duration::from_secs(1);

/// Rows that `sources` answers with at most.
pub const ROWS_MAX: usize = 10_000;

/// Seconds between the two looks of `sources` at most.
pub const INTERVAL_S_MAX: u64 = 10;

/// Tokens of a file.
pub const TOKENS_MAX: usize = 1024;
