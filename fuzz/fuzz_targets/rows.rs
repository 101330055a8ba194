#![no_main]

use kvass_fuzz::{rows, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("rows"), |bytes: &[u8]| rows(bytes));
