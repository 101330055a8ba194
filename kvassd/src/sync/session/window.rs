//! How much of values may be on its way at once: about as much as arrives in 200 ms.
//!
//! Pure. With less, a line of high latency would stand idle; with more, small changes would wait in the buffers of the
//! way behind it. What arrives in a time is measured only while the window holds something back.

use std::time::Duration;

use crate::value::{CHUNK, TAG};

/// The least and the most that may be on its way, in chunks.
const LEAST: u64 = 2;
const MOST: u64 = 128;

/// What a new session begins with, in chunks.
const FIRST: u64 = 8;

/// Bytes of a chunk.
const SEALED: u64 = (CHUNK + TAG) as u64;

/// What may wait on its way beside what is travelling.
const WAITING: Duration = Duration::from_millis(200);

/// The shortest time over which arrivals are counted.
const INTERVAL: Duration = Duration::from_millis(50);

/// The window of one session. Times are counted from any fixed moment.
#[derive(Debug)]
pub(super) struct Window {
    chunks: u64,
    began: Duration,
    arrived: u64,
    is_full: bool,
    /// The least time from a request to its answer.
    latency: Duration,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { chunks: FIRST, began: Duration::ZERO, arrived: 0, is_full: false, latency: Duration::MAX }
    }

    /// How many bytes may be on their way.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks * SEALED
    }

    /// Something is asked for while nothing was on its way.
    pub(super) fn begin(&mut self, now: Duration) {
        (self.began, self.arrived, self.is_full) = (now, 0, false);
    }

    /// More would be asked for if the window were larger.
    pub(super) fn hold_back(&mut self) {
        self.is_full = true;
    }

    /// Bytes arrived which were asked for some time ago.
    pub(super) fn arrive(&mut self, now: Duration, bytes: u64, after: Duration) {
        self.latency = self.latency.min(after);
        self.arrived = self.arrived.saturating_add(bytes);
        let elapsed = now.saturating_sub(self.began);
        if elapsed < INTERVAL.max(self.latency) {
            return;
        }
        if self.is_full {
            let target = WAITING.saturating_add(self.latency).as_secs_f64() / elapsed.as_secs_f64();
            let chunks = (self.arrived as f64 / SEALED as f64 * target).ceil() as u64;
            self.chunks = chunks.clamp(self.chunks.div_ceil(2), self.chunks * 2).clamp(LEAST, MOST);
        }
        self.begin(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// The last seconds of a simulation, which are looked at. They come in bursts, one each latency.
    const LAST: u64 = 8;

    /// Asks for chunks over a line of so many chunks a second, and returns how many came a second in the last of
    /// `seconds`, and the longest time that one took in them.
    fn simulate(rate: u64, latency_ms: u64, seconds: u64) -> (f64, Duration) {
        let (mut window, mut asked) = (Window::new(), VecDeque::new());
        let (one, latency) = (Duration::from_secs(1) / rate as u32, Duration::from_millis(latency_ms));
        let (mut now, mut free) = (Duration::ZERO, Duration::ZERO);
        let (mut count, mut longest) = (0u32, Duration::ZERO);
        while now < Duration::from_secs(seconds) {
            while (asked.len() as u64 + 1) * SEALED <= window.bytes() {
                if asked.is_empty() {
                    window.begin(now);
                }
                free = free.max(now + latency) + one;
                asked.push_back((now, free));
            }
            window.hold_back();
            let (at, comes) = asked.pop_front().unwrap();
            now = comes;
            window.arrive(now, SEALED, now - at);
            if now > Duration::from_secs(seconds - LAST) {
                count += 1;
                longest = longest.max(now - at);
            }
        }
        (f64::from(count) / LAST as f64, longest)
    }

    proptest! {
        #[test]
        fn it_uses_the_line_and_fills_no_more_of_it(rate in 10..20_000u64, latency_ms in 0..400u64) {
            let (count, longest) = simulate(rate, latency_ms, 20);
            let latency = Duration::from_millis(latency_ms) + Duration::from_secs(1) / rate as u32;
            let possible = (rate as f64).min(MOST as f64 / latency.as_secs_f64());
            prop_assert!(count >= possible * 0.8, "{count} of {possible} chunks a second");
            // Two chunks are always on their way, so on the slowest lines these.
            let most = latency + WAITING * 2 + Duration::from_secs(2) / rate as u32;
            prop_assert!(longest <= most, "{longest:?} and not {most:?}");
        }

        #[test]
        fn it_stays_within_its_bounds(steps in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u32>(), any::<bool>()), 0..50)) {
            let (mut window, mut now) = (Window::new(), Duration::ZERO);
            for (later, bytes, after, is_full) in steps {
                now += Duration::from_micros(later.into());
                if is_full {
                    window.hold_back();
                }
                window.arrive(now, bytes, Duration::from_micros(after.into()));
                prop_assert!((LEAST..=MOST).contains(&(window.bytes() / SEALED)));
            }
        }
    }

    #[test]
    fn what_is_small_does_not_make_it_smaller() {
        let mut window = Window::new();
        for step in 0..100 {
            window.arrive(Duration::from_millis(step * 60), 10, Duration::from_millis(1));
        }
        assert_eq!(window.bytes(), FIRST * SEALED);
    }
}
