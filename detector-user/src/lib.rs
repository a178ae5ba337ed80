//! The daemon and the commands of `detector`: read, think, act, tell.
//!
//! The way of a packet is in `detector-ebpf`; what both sides share is in [`detector_common`]. Here, only [`kernel`]
//! touches maps and only [`clock`] reads time. What changes a policy goes through [`change`], which records it in the
//! [`history`].

pub mod actions;
pub mod api;
pub mod assembly;
pub mod capture;
pub mod change;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod daemon;
pub mod fingerprint;
pub mod fleets;
pub mod guard;
pub mod hexadecimal;
pub mod history;
pub mod huge_pages;
pub mod kernel;
pub mod log;
pub mod policy;
pub mod quic;
pub mod recent;
pub mod recording;
pub mod replay;
pub mod traffic;
