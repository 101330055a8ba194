//! A set of places in a log, as ranges.
//!
//! Pure. It is bounded: where there are too many ranges, the oldest places are forgotten.

use std::collections::BTreeMap;

use super::Seq;

/// The most ranges that are kept.
const RANGES: usize = 4_096;

/// Places in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<u64, u64>);

impl Places {
    /// Adds all places from `first` to `last`, both included; none where `last` is smaller.
    pub fn insert(&mut self, first: Seq, last: Seq) {
        let (mut first, mut last) = (first.0, last.0);
        if last < first {
            return;
        }
        // All ranges that meet the new one, or stand beside it, become one with it.
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if to.saturating_add(1) < first {
                break;
            }
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
        if self.0.len() > RANGES {
            self.0.pop_first();
        }
    }

    /// Forgets all places up to `last`, included.
    pub fn forget(&mut self, last: Seq) {
        let later = last.0.saturating_add(1);
        let mut kept = self.0.split_off(&later);
        if let Some((_, to)) = self.0.last_key_value().filter(|(_, to)| **to > last.0) {
            kept.insert(later, *to);
        }
        self.0 = kept;
    }

    /// Whether a place is in the set.
    #[must_use]
    pub fn contains(&self, place: Seq) -> bool {
        self.0.range(..=place.0).next_back().is_some_and(|(_, last)| *last >= place.0)
    }

    /// The ranges, the last one first: first and last place of each.
    pub fn newest(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.0.iter().rev().map(|(first, last)| (Seq(*first), Seq(*last)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_would_hold(
            steps in prop::collection::vec((any::<bool>(), 0..60u64, 0..8u64), 0..60)
        ) {
            let (mut places, mut set) = (Places::default(), BTreeSet::new());
            for (inserts, first, length) in steps {
                if inserts {
                    places.insert(Seq(first), Seq(first + length));
                    set.extend(first..=first + length);
                } else {
                    places.forget(Seq(first));
                    set.retain(|place| *place > first);
                }
                prop_assert!((0..80).all(|place| places.contains(Seq(place)) == set.contains(&place)));
            }
            let ranges: Vec<_> = places.newest().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[1].1.0 + 1 < pair[0].0.0), "{ranges:?}");
            prop_assert_eq!(ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum::<u64>(), set.len() as u64);
        }
    }

    #[test]
    fn the_greatest_places_overflow_nothing_and_the_oldest_are_forgotten() {
        let mut places = Places::default();
        places.insert(Seq(u64::MAX), Seq(u64::MAX));
        places.insert(Seq(5), Seq(4));
        places.insert(Seq(u64::MAX - 1), Seq(u64::MAX));
        assert_eq!(places.newest().collect::<Vec<_>>(), [(Seq(u64::MAX - 1), Seq(u64::MAX))]);
        places.forget(Seq(u64::MAX));
        assert_eq!(places, Places::default());
        for place in 0..=RANGES as u64 {
            places.insert(Seq(place * 2), Seq(place * 2));
        }
        assert!(!places.contains(Seq(0)) && places.contains(Seq(2)) && places.contains(Seq(RANGES as u64 * 2)));
    }
}
