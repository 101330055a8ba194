#![no_main]

use kvass_fuzz::{record, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("record"), |bytes: &[u8]| record(bytes));
