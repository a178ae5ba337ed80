//! How large what is kept of fleets can get.

use crate::recording::epoch::ROWS_MAX;

/// The shortest epoch, ms: less than a look at a large table takes says nothing.
pub const EPOCH_MS_MIN: u64 = 100;

/// The longest one, ms: an hour.
pub const EPOCH_MS_MAX: u64 = 3_600_000;

/// Sources that a new memory has room for, each at each service: 72 MB.
pub const SOURCES: u64 = 20_000_000;

/// Epochs that wait for detection at most, while it looks. Beyond, the oldest that nobody has taken yet stay and the new one is lost.
pub const EPOCHS_QUEUED_MAX: usize = 8;

/// Bytes of a memory before it is compressed.
pub const MEMORY_BYTES_MAX: u64 = 16 << 30;

/// Bytes of an epoch before it is compressed.
pub const EPOCH_BYTES_MAX: u64 = 256 << 20;

/// Bytes that a row takes at most: 68 counts of 32 bits, five numbers of 64 bits and four of 32, in seven bits each.
const ROW_BYTES_MAX: u64 = 72 * 5 + 6 * 10 + 3;

// An epoch has so many rows of clients, and one more for each source without.
const _: () = assert!(2 * ROWS_MAX as u64 * ROW_BYTES_MAX < EPOCH_BYTES_MAX);

/// Bytes of epochs after which all is saved anew.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// Time after which it is, s.
pub const SAVE_EVERY_S: u64 = 15 * 60;

/// Time after which what is told of detection is written for commands, also where nothing happened, s.
pub const REPORT_EVERY_S: u64 = 60;

/// Members of a fleet that are shown to people.
pub const SHOWN_MEMBERS: usize = 5;

/// Members of a fleet that the history keeps by name.
pub const KEPT_MEMBERS: usize = 100;

/// Fleets that the history keeps, of each instance: those that were seen last.
pub const KEPT_FLEETS: u64 = 10_000;
