//! Observations: what the program counted, as a row for each client and epoch, in memory and as files.
//!
//! | question | module |
//! |---|---|
//! | what was counted between two looks at the clients? (of sources: [`crate::traffic::Look::next`]) | [`clients`] |
//! | which rows are that in an epoch? | [`epoch`] |
//! | how do both go together, look by look? | [`recorder`] |
//! | how are rows written and read? | [`mod@file`] |
//! | how are several files read as one? | [`merge`] |
//! | which files are there, and for how long? | [`directory`] |

pub mod clients;
pub mod directory;
pub mod epoch;
pub mod file;
#[cfg(test)]
mod fixtures;
pub mod merge;
pub mod recorder;

pub use directory::{Directory, Tidied};
pub use file::{Recording, RecordingError};
pub use merge::Merged;
pub use recorder::{Over, Recorder};
