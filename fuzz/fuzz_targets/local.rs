#![no_main]

use kvass_fuzz::{local, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("local"), |bytes: &[u8]| local(bytes));
