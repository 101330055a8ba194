//! A wall clock that jumps against the monotonic one, as it does when a machine wakes from sleep.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Clock;

/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(10);

/// By how much they may differ in that time: clocks that are set right by little are no sleep.
const SLACK: Duration = Duration::from_secs(5);

/// Returns when the wall clock has jumped.
pub(super) async fn jumped(clock: &Clock) {
    loop {
        let (wall, steady) = (clock.now_us(), Instant::now());
        sleep(LOOK).await;
        let passed = i128::from(clock.now_us()) - i128::from(wall);
        if (passed - steady.elapsed().as_micros().cast_signed()).unsigned_abs() > SLACK.as_micros() {
            return;
        }
    }
}
