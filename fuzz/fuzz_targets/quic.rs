//! Datagrams of QUIC: see [`detector_fuzz::packets`].

#![no_main]

use detector_fuzz::packets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| packets::quic(bytes));
