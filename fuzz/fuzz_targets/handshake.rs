#![no_main]

use kvass_fuzz::{handshake, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("handshake"), |bytes: &[u8]| handshake(bytes));
