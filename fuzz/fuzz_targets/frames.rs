#![no_main]

use kvass_fuzz::{frames, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("frames"), |bytes: &[u8]| frames(bytes));
