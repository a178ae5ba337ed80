//! What is asked of the policy language, and of what reads packets, for any input at all. `cargo xtask fuzz` asks it.
//!
//! Both are compiled here once more, from the sources of detector-user: they need few of that crate's dependencies, so
//! that they, and the parsers below them, are soon built for fuzzing.

#![expect(
    clippy::duplicate_mod,
    reason = "`sealing` has the keys of `quic` once more, which are private there"
)]

#[path = "../../detector-user/src/assembly.rs"]
pub mod assembly;
#[path = "../../detector-user/src/capture/mod.rs"]
pub mod capture;
#[path = "../../detector-user/src/fingerprint/mod.rs"]
pub mod fingerprint;
pub mod hello;
pub mod input;
pub mod packets;
#[expect(dead_code, reason = "what only the rest of detector-user calls")]
#[path = "../../detector-user/src/policy/mod.rs"]
pub mod policy;
pub mod promises;
#[path = "../../detector-user/src/quic/mod.rs"]
pub mod quic;
#[path = "../../detector-user/src/recent.rs"]
pub mod recent;
#[expect(dead_code, reason = "what only tests of detector-user call")]
mod sealing;
pub mod syn;

/// Segments that carry what an input says.
#[expect(dead_code, reason = "what only tests of detector-user call")]
#[path = "../../detector-user/src/fingerprint/fixtures.rs"]
mod segments;
