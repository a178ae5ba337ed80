//! Fleets: detection over epochs of any length, what it remembers over restarts, and what is told of it.
//!
//! | question | module |
//! |---|---|
//! | how long is a minute of detection? | [`scale`] |
//! | what is remembered, and what does an epoch add? | [`memory`] |
//! | how does a file hold that? | [`saved`] |
//! | and the epochs since? | [`journal`] |
//! | how do both go together, so that a crash loses one epoch? | [`store`] |
//! | what is told of a fleet? | [`report`] |
//! | and to people? | [`text`] |
//! | who joined, and who left? | [`membership`] |
//! | where do commands find it? | [`told`] |
//! | how large can it get? | [`limits`] |

#[cfg(test)]
pub(crate) mod fixtures;
pub mod journal;
pub mod limits;
pub mod membership;
pub mod memory;
pub mod report;
pub mod saved;
pub mod scale;
pub mod store;
pub mod text;
pub mod told;

pub use membership::Memberships;
pub use memory::{Epoch, Memory};
pub use report::{Found, Report};
pub use scale::Scale;
pub use store::{Restored, Store, StoreError};
pub use told::Told;
