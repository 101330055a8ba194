#![no_main]

use kvass_fuzz::{blob, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("blob"), |bytes: &[u8]| blob(bytes));
