//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now, in microseconds since 1970; 0 where the clock stands before that.
#[must_use]
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
