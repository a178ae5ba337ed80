//! A client of QUIC, with the keys of `detector_user::quic` once more, which are private there.

#[path = "../../../detector-user/src/quic/fixtures.rs"]
pub(crate) mod fixtures;
#[path = "../../../detector-user/src/quic/keys.rs"]
mod keys;
#[path = "../../../detector-user/src/quic/version.rs"]
mod version;
