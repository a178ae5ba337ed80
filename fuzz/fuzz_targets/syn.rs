//! SYNs: see [`detector_fuzz::syn`].

#![no_main]

use detector_fuzz::syn;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syn::syn(bytes));
