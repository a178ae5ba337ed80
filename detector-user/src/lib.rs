//! The daemon and the commands of `detector`: read, think, act, tell.
//!
//! The way of a packet is in `detector-ebpf`; what both sides share is in [`detector_common`]. Here, only [`kernel`]
//! touches maps and only [`clock`] reads time.

pub mod api;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod daemon;
pub mod kernel;
pub mod log;
pub mod policy;
pub mod replay;
