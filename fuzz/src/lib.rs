//! What is asked of the policy language for any input at all. `cargo xtask fuzz` asks it.
//!
//! The language is compiled here once more, from the sources of detector-user: it needs few of that crate's
//! dependencies, so that it, and the TOML parser below it, are soon built for fuzzing.

pub mod input;
#[expect(dead_code, reason = "what only the rest of detector-user calls")]
#[path = "../../detector-user/src/policy/mod.rs"]
pub mod policy;
pub mod promises;
