#![no_main]

use kvass_fuzz::{header, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("header"), |bytes: &[u8]| header(bytes));
