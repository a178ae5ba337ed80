//! Policies: see [`detector_fuzz::promises`].

#![no_main]

use detector_fuzz::{input::Input, promises};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| promises::hold_for(&Input::from(bytes)));
