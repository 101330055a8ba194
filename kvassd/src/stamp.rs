//! The order of writes: which of two versions of an entry is the newer.
//!
//! Pure: no clock in here; whoever writes says what time it is.

use std::cmp::Ordering;

/// When and by whom a version was written. The greater time wins, then the greater counter, then the lower pid.
///
/// A stamp never changes once it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The writer's wall clock, in microseconds since 1970.
    pub time_us: u64,
    /// The writer's Lamport counter.
    pub counter: u64,
    /// The writer's process id, at least 1.
    pub pid: u32,
}

impl Stamp {
    /// The greatest time and the greatest counter of a stamp that verifies. A greater one would leave no room for the
    /// writes that have to beat it, so a peer could make a key unwritable.
    pub const MAX: u64 = 1 << 62;

    /// The stamp of a local write: it beats what it replaces, even where that was written by a clock that runs ahead.
    ///
    /// `greatest_counter` is the greatest counter that this store has seen. Once that is [`Self::MAX`] no counter can
    /// beat it, so the time does. Only a stamp with both at [`Self::MAX`], which no clock makes, cannot be beaten.
    #[must_use]
    pub fn next(now_us: u64, replaced: Option<Self>, greatest_counter: u64, pid: u32) -> Self {
        let exhausted = greatest_counter >= Self::MAX;
        let least = replaced.map_or(0, |stamp| stamp.time_us.saturating_add(exhausted.into()));
        let counter = if exhausted { Self::MAX } else { greatest_counter + 1 };
        Self { time_us: now_us.max(least).min(Self::MAX), counter, pid }
    }

    /// Whether the stamp lies within what a store accepts.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.time_us <= Self::MAX && self.counter <= Self::MAX && self.pid > 0
    }
}

impl Ord for Stamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time_us, self.counter, other.pid).cmp(&(other.time_us, other.counter, self.pid))
    }
}

impl PartialOrd for Stamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn stamp()(time_us in 0..4u64, counter in 0..4u64, pid in 1..4u32) -> Stamp {
            Stamp { time_us, counter, pid }
        }
    }

    fn pid() -> std::ops::RangeInclusive<u32> {
        1..=u32::MAX
    }

    #[test]
    fn time_then_counter_then_the_lower_pid() {
        let stamp = |time_us, counter, pid| Stamp { time_us, counter, pid };
        assert!(stamp(2, 1, 1) > stamp(1, 9, 1));
        assert!(stamp(1, 2, 9) > stamp(1, 1, 1));
        assert!(stamp(1, 1, 1) > stamp(1, 1, 2));
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in stamp(), b in stamp(), c in stamp()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn a_local_write_beats_what_it_saw_though_the_clock_goes_back(
            now in any::<u64>(), time_us in 0..=Stamp::MAX, counter in 0..Stamp::MAX, pid in pid(), mine in pid()
        ) {
            let seen = Stamp { time_us, counter, pid };
            let next = Stamp::next(now, Some(seen), counter, mine);
            prop_assert!(next > seen);
            prop_assert!(next.is_valid());
        }

        #[test]
        fn a_counter_at_its_end_leaves_the_key_writable(
            now in any::<u64>(), time_us in 0..Stamp::MAX, pid in pid(), mine in pid()
        ) {
            let seen = Stamp { time_us, counter: Stamp::MAX, pid };
            let next = Stamp::next(now, Some(seen), seen.counter, mine);
            prop_assert!(next > seen);
            prop_assert!(next.is_valid());
        }

        #[test]
        fn a_first_write_is_valid(now in any::<u64>(), counter in 0..=Stamp::MAX, mine in pid()) {
            prop_assert!(Stamp::next(now, None, counter, mine).is_valid());
        }
    }

    #[test]
    fn stamps_beyond_the_bounds_are_not_valid() {
        let valid = Stamp { time_us: Stamp::MAX, counter: Stamp::MAX, pid: 1 };
        assert!(valid.is_valid());
        assert!(!Stamp { time_us: Stamp::MAX + 1, ..valid }.is_valid());
        assert!(!Stamp { counter: Stamp::MAX + 1, ..valid }.is_valid());
        assert!(!Stamp { pid: 0, ..valid }.is_valid());
    }
}
