#![no_main]

use kvass_fuzz::{protobuf, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::begin("protobuf"), |bytes: &[u8]| protobuf(bytes));
