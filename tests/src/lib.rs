//! Harness.

pub mod api;
pub mod bpf;
pub mod capture;
pub mod client;
pub mod cpus;
pub mod daemon;
pub mod follower;
pub mod hello;
pub mod https;
pub mod lab;
pub mod metrics;
pub mod netns;
pub mod packet;
pub mod process;
pub mod python;
pub mod random;
pub mod rows;
pub mod simulated;
pub mod skip;
pub mod snapshot;
pub mod ssh;
pub mod stage;
pub mod traffic;
