//! The daemon of kvass.
fn main() {}
