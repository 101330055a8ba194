#![no_main]

use kvass_fuzz::{seeds, session};

libfuzzer_sys::fuzz_target!(init: seeds::begin("session"), |bytes: &[u8]| session(bytes));
