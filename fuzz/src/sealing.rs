//! A client of QUIC that seals what an input says.

#[path = "../../detector-user/src/quic/fixtures.rs"]
pub(crate) mod fixtures;
#[path = "../../detector-user/src/quic/keys.rs"]
mod keys;
#[path = "../../detector-user/src/quic/version.rs"]
mod version;
