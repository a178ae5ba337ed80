//! Acting on fleets, as functions without kernel and clock.
//!
//! Detection says which fleets there are. Once in a while, and whenever something of this changes, a [`plan`] is made of the fleets, of what is in
//! force, of the policy's `[fleets]`, and of what operators and the application say. It gives a decision about each fleet, with what
//! every [`guard`] says of it, also where nothing is done: for who asks why. A decision has what is in force from then on; who carries it out
//! compares that with what the kernel has, and writes its [audit](telling::Audit).
//!
//! | question | module |
//! |---|---|
//! | what is done about each fleet? | [`plan`] |
//! | what stands in the way? | [`guard`] |
//! | who of it is acted on? | [`members`], [`prefixes`], [`allowed`] |
//! | what may it use as a whole, and what became of that? | [`budget`] |
//! | what does the application say of sources? | [`hints`] |
//! | what do operators say of fleets? | [`order`] |
//! | what is in force? | [`standing`] |
//! | how is it told? | [`telling`] |
//! | how large can it get? | [`limits`] |

pub mod allowed;
pub mod budget;
pub mod guard;
pub mod hints;
pub mod limits;
pub mod members;
pub mod order;
pub mod plan;
pub mod prefixes;
pub mod standing;
pub mod telling;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod plan_tests;
