#![no_main]

use kvass_fuzz::{chunks, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("chunks"), |bytes: &[u8]| chunks(bytes));
