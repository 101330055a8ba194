#![no_main]

use kvass_fuzz::{import, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("import"), |bytes: &[u8]| import(bytes));
