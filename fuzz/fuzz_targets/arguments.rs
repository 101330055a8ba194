#![no_main]

use kvass_fuzz::{arguments, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("arguments"), |bytes: &[u8]| arguments(bytes));
