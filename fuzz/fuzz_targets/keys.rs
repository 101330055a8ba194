#![no_main]

use kvass_fuzz::{keys, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("keys"), |bytes: &[u8]| keys(bytes));
