//! Everything of `detector` that is true without a kernel.
//!
//! The XDP program and the daemon share this crate: frames are parsed, budgets are charged and tables are laid out by
//! the very same code on both sides, so a test on the host is a test of what runs in the kernel.
//!
//! | question | module |
//! |---|---|
//! | what is in a frame? | [`frame`], [`packet`], [`address`], [`segment`] |
//! | which entry of a table belongs to a source, and what is in it? | [`table`], [`table_size`], [`way`] |
//! | who made the client? | [`syn`], [`hello`], [`initial`], [`flow`], [`fingerprint`] |
//! | may it pass? | [`budget`], [`verdict`] |
//! | what did the policy say? | [`generation`], [`policy`], [`service`], [`ranges`] |
//! | what is counted? | [`verdict`], [`counters`] |
//! | what do kernel and daemon share byte by byte? | [`abi`], and the structs of the modules above |
//! | how large can it get? | [`limits`] |
//!
//! With the feature `fingerprint`, which is part of `user` and which the program is built without: `client_hello` (what a TLS
//! client says) and `ja4` (its fingerprint).
#![no_std]
// One instruction that the verifier needs to see; see `branchless::bounded`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(feature = "fingerprint")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod address;
pub mod branchless;
pub mod budget;
pub mod client;
#[cfg(feature = "fingerprint")]
pub mod client_hello;
pub mod counters;
pub mod exchange;
pub mod fingerprint;
pub mod fleet;
pub mod flow;
pub mod frame;
pub mod generation;
pub mod hash;
pub mod hello;
pub mod initial;
#[cfg(feature = "fingerprint")]
pub mod ja4;
pub mod limits;
pub mod packet;
pub mod policy;
pub mod ranges;
pub mod segment;
pub mod service;
pub mod syn;
pub mod table;
pub mod table_size;
pub mod verdict;
pub mod way;
