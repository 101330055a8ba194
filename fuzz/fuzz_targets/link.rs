#![no_main]

use kvass_fuzz::{link, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("link"), |bytes: &[u8]| link(bytes));
