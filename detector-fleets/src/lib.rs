//! Finds fleets: one actor behind many sources, each of them below every limit.
//!
//! The unit is the population, not the source: first it is seen that a population changed, or is not natural, then who belongs to it
//! (Javed & Paxson 2013). Everything here is a function of observations and of what was kept of earlier ones, so it is the same on live
//! snapshots, on recordings and on simulated rows.
//!
//! | question | module |
//! |---|---|
//! | what is a row? | [`observation`], [`source`] |
//! | what is kept of a quarter of an hour, and of a window of them? | [`block`], [`interval`] with `blocks`, [`window`] |
//! | who was seen before? | [`seen`] |
//! | what have new sources in common, and what did they do? | [`cells`], [`projection`], [`family`] |
//! | how much do counts say against what was expected? | [`history`], [`span`], [`evidence`], [`dirichlet`] |
//! | is it a fleet? | [`alarm`] |
//! | who belongs to it? | [`profile`], [`users`], [`mixture`], [`cut`], [`membership`] |
//! | what do members have in common, and what innocent thing could it be? | [`traits`], [`explanation`] |
//! | what does it use, what did its population use before, and what would acting on it cost others? | [`usage`] |
//! | is it the fleet of yesterday? | [`fleet`], [`fleets`] |
//! | how does it all go together? | [`detection`] |
//! | how is it kept over restarts? | all of it is `serde`'s; [`ordered`] and `packed` say how tables are |
//! | how large can it get? | [`limits`] |

pub mod alarm;
mod beginnings;
pub mod block;
mod blocks;
pub mod cells;
pub mod cut;
pub mod detection;
pub mod dirichlet;
pub mod evidence;
pub mod explanation;
pub mod family;
pub mod fleet;
pub mod fleets;
pub mod history;
pub mod interval;
pub mod limits;
pub mod membership;
pub mod mixture;
pub mod observation;
pub mod ordered;
mod packed;
pub mod profile;
pub mod projection;
pub mod seen;
pub mod source;
pub mod span;
pub mod traits;
pub mod usage;
pub mod users;
pub mod window;

#[cfg(test)]
mod fleets_tests;
