//! Places among the large values that are on their way: how many there are, and how many of them one address may have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::accept::Subnet;

/// Large values that are on their way at once; each costs a piece of memory and a descriptor.
const ALL: usize = 256;

/// As many of them may go to one address, so that it does not keep all others waiting.
const EACH: usize = ALL / 2;

/// All places; a cheap clone.
#[derive(Clone, Default)]
pub(in crate::http) struct Places(Arc<Mutex<HashMap<Option<Subnet>, usize>>>);

/// One place, which is free again once this is dropped.
pub(in crate::http) struct Place {
    places: Places,
    subnet: Option<Subnet>,
}

impl Places {
    /// A place for somebody from there; `None` where no more are left for them.
    pub(super) fn take(&self, subnet: Option<Subnet>) -> Option<Place> {
        let mut taken = self.taken();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&subnet).copied().unwrap_or_default());
        if all >= ALL || own >= EACH {
            return None;
        }
        taken.insert(subnet, own + 1);
        Some(Place { places: self.clone(), subnet })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Option<Subnet>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let left = taken.remove(&self.subnet).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            taken.insert(self.subnet, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Option<Subnet> {
        Some(Subnet::of(text.parse().unwrap()))
    }

    fn take(places: &Places, text: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(subnet(text))).collect()
    }

    #[test]
    fn an_address_has_half_of_the_places_and_all_together_no_more_than_there_are() {
        let places = Places::default();
        let one = take(&places, "192.0.2.1");
        let other = take(&places, "2001:db8::1");
        assert_eq!((one.len(), other.len()), (EACH, ALL - EACH));
        assert!(take(&places, "192.0.2.3").is_empty());
        drop(one);
        assert!(take(&places, "2001:db8::ffff").is_empty(), "the same network");
        assert_eq!(take(&places, "192.0.2.3").len(), EACH);
        drop(other);
        assert!(places.taken().is_empty());
    }
}
