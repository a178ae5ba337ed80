//! Observations: what the program counted, as a row for each client and epoch, in memory and as files.
//!
//! | question | module |
//! |---|---|
//! | what was counted between two looks at the clients? (of sources: [`crate::traffic::Look::next`]) | [`clients`] |
//! | which rows are that in an epoch? | [`epoch`] |
//! | at which service was it, when the policy changes? | [`numbering`] |
//! | how do both go together, look by look? | [`recorder`] |
//! | which columns has a file? | [`columns`] |
//! | how are rows written, and read? | [`writer`], [`reader`], there `row_group`, `texts` and `elements` |
//! | what are the fingerprints in a file called? | [`names`] |
//! | how are several files read as one? | [`merge`] |
//! | which files are there, and for how long? | [`directory`] |
//! | what is left of one when the disk is full? | `part` |

pub mod clients;
pub mod columns;
pub mod directory;
mod elements;
pub mod epoch;
pub mod error;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod merge;
pub mod names;
pub mod numbering;
mod part;
pub mod reader;
pub mod recorder;
mod row_group;
mod texts;
pub mod writer;

pub use directory::{Directory, Tidied};
pub use error::RecordingError;
pub use merge::Merged;
pub use names::Names;
pub use numbering::Numbering;
pub use reader::Recording;
pub use recorder::{Over, Recorder};
