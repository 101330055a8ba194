//! How long to wait before the next attempt to connect.
//!
//! Pure: whoever waits brings the randomness.

use std::time::Duration;

/// The longest wait after the first failure.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest wait after any number of failures.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);

/// A wait as after many failures: from half of [`LONGEST`] to all of it.
#[must_use]
pub fn longest(random: u64) -> Duration {
    LONGEST / 2 + scaled(LONGEST / 2, random)
}

/// Waits that double from [`FIRST`] to [`LONGEST`]. Each is shortened at random by up to a half, so that devices which
/// lost their server in the same moment do not all come back in the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
}

impl Backoff {
    /// Starts with the shortest wait.
    #[must_use]
    pub fn new() -> Self {
        Self { base: FIRST }
    }

    /// The next wait: from half of the present base to all of it, spread evenly over the values of `random`.
    #[must_use]
    pub fn next(&mut self, random: u64) -> Duration {
        let half = self.base / 2;
        self.base = (self.base * 2).min(LONGEST);
        half + scaled(half, random)
    }

    /// Begins again with the shortest wait, after a success.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// `span` × `random` / 2^64, where the greatest `random` gives all of `span`.
fn scaled(span: Duration, random: u64) -> Duration {
    let nanos = ((span.as_nanos() + 1) * u128::from(random)) >> 64;
    Duration::from_nanos(nanos as u64)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_from_half_of_its_base_to_its_base(random in vec(any::<u64>(), 1..40)) {
            let (mut backoff, mut base) = (Backoff::new(), FIRST);
            for random in random {
                let wait = backoff.next(random);
                prop_assert!(base / 2 <= wait && wait <= base, "{wait:?} of {base:?}");
                prop_assert!(!wait.is_zero() && wait <= LONGEST);
                base = (base * 2).min(LONGEST);
            }
        }

        #[test]
        fn with_the_same_luck_waits_grow_to_the_longest(random: u64) {
            let mut backoff = Backoff::new();
            let waits: Vec<_> = (0..12).map(|_| backoff.next(random)).collect();
            prop_assert!(waits.is_sorted());
            prop_assert!(waits[..9].windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(waits[9..].iter().all(|wait| *wait == waits[9] && *wait >= LONGEST / 2));
        }

        #[test]
        fn a_greater_random_number_never_waits_shorter(one: u64, other: u64, failures in 0..20) {
            let mut backoff = Backoff::new();
            for _ in 0..failures {
                let _ = backoff.next(0);
            }
            prop_assert!(backoff.clone().next(one.min(other)) <= backoff.next(one.max(other)));
        }

        #[test]
        fn a_success_begins_again(random in vec(any::<u64>(), 0..40), next: u64) {
            let mut backoff = Backoff::new();
            for random in random {
                let _ = backoff.next(random);
            }
            backoff.reset();
            prop_assert_eq!(backoff.next(next), Backoff::new().next(next));
        }
    }

    #[test]
    fn waits_double_from_a_second_to_five_minutes() {
        let (mut longest, mut shortest) = (Backoff::new(), Backoff::new());
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert_eq!(longest.next(u64::MAX), Duration::from_secs(seconds));
            assert_eq!(shortest.next(0), Duration::from_millis(500 * seconds));
        }
    }
}
