#![no_main]

use kvass_fuzz::{remote, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("remote"), |bytes: &[u8]| remote(bytes));
