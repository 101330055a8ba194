#![no_main]

use kvass_fuzz::{proxy, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("proxy"), |bytes: &[u8]| proxy(bytes));
