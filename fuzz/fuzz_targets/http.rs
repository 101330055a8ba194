#![no_main]

use kvass_fuzz::{http, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("http"), |bytes: &[u8]| http(bytes));
