//! ClientHellos in segments, and what follows them: see [`detector_fuzz::hello`].

#![no_main]

use detector_fuzz::hello;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hello::hello(bytes));
