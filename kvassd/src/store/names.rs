//! The names of all entries, in memory and in order.
//!
//! They are sealed in the index, in the order of ids that say nothing, so the pass over all records that follows a
//! start fills them in; until then whoever needs the whole waits.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::{Entry, ReadError};
use crate::record::Clear;
use crate::value::INLINE_MAX;

/// What is kept of each entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) size: u64,
    pub(crate) time_us: u64,
    pub(crate) expiry_us: u64,
}

impl Named {
    pub(crate) fn of(clear: &Clear) -> Self {
        Self { size: clear.size, time_us: clear.stamp.time_us, expiry_us: clear.expiry_us }
    }
}

#[derive(Default)]
pub(crate) struct Names {
    entries: RwLock<BTreeMap<Box<str>, Named>>,
    load: Mutex<Load>,
    loaded: Condvar,
}

#[derive(Clone, Debug, Default)]
enum Load {
    #[default]
    Running,
    Whole,
    Damaged(String),
    Closed,
}

/// Sums over all entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) keys: u64,
    /// Bytes of all values.
    pub(crate) value_bytes: u64,
    /// Bytes of those that are files of their own.
    pub(crate) blob_bytes: u64,
}

impl Names {
    pub(crate) fn insert(&self, name: &str, named: Named) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match entries.get_mut(name) {
            Some(entry) => *entry = named,
            None => {
                entries.insert(name.into(), named);
            }
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Puts other names in the place of all that there are.
    pub(crate) fn replace(&self, names: BTreeMap<Box<str>, Named>) {
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// At most `limit` entries that begin with `prefix` and have not expired, in byte order or against it, beyond
    /// `after`.
    pub(crate) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
        now_us: u64,
    ) -> Vec<Entry> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let end = prefix_end(prefix);
        let upper_of_prefix = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (lower, upper) = match after {
            Some(after) if reverse => (Bound::Included(prefix), Bound::Excluded(after)),
            Some(after) => (Bound::Excluded(after), upper_of_prefix),
            None => (Bound::Included(prefix), upper_of_prefix),
        };
        if is_empty(lower, upper) {
            return Vec::new();
        }
        let range = entries.range::<str, _>((lower, upper));
        let live = range.filter(|(_, named)| named.expiry_us == 0 || named.expiry_us > now_us);
        let entries = live.map(|(name, named)| Entry {
            name: name.to_string(),
            size: named.size,
            time_us: named.time_us,
            expiry_us: named.expiry_us,
        });
        if reverse { entries.rev().take(limit).collect() } else { entries.take(limit).collect() }
    }

    pub(crate) fn totals(&self, now_us: u64) -> Totals {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::default();
        for named in entries.values().filter(|named| named.expiry_us == 0 || named.expiry_us > now_us) {
            totals.keys += 1;
            totals.value_bytes += named.size;
            if named.size > INLINE_MAX {
                totals.blob_bytes += super::value_reader::blob_length(named.size);
            }
        }
        totals
    }

    /// Waits until all names are there.
    ///
    /// # Errors
    /// The pass found damage, or the store is being closed.
    pub(crate) fn wait(&self) -> Result<(), ReadError> {
        let mut load = self.load();
        loop {
            match &*load {
                Load::Running => load = self.loaded.wait(load).unwrap_or_else(PoisonError::into_inner),
                Load::Whole => return Ok(()),
                Load::Damaged(what) => return Err(ReadError::Damaged(what.clone())),
                Load::Closed => return Err(ReadError::Closed),
            }
        }
    }

    /// Whether the pass has ended well.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(*self.load(), Load::Whole)
    }

    /// What the pass found to be wrong, if it did.
    pub(crate) fn damage(&self) -> Option<String> {
        match &*self.load() {
            Load::Damaged(what) => Some(what.clone()),
            _ => None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.load(), Load::Closed)
    }

    pub(crate) fn set_whole(&self) {
        self.settle(Load::Whole);
    }

    pub(crate) fn set_damaged(&self, what: String) {
        self.settle(Load::Damaged(what));
    }

    /// Ends every wait; the pass may stop.
    pub(crate) fn close(&self) {
        *self.load() = Load::Closed;
        self.loaded.notify_all();
    }

    fn settle(&self, to: Load) {
        let mut load = self.load();
        if matches!(*load, Load::Running) {
            *load = to;
        }
        self.loaded.notify_all();
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a range holds nothing; such a one must not be asked of a `BTreeMap`.
fn is_empty(lower: Bound<&str>, upper: Bound<&str>) -> bool {
    match (lower, upper) {
        (Bound::Included(lower), Bound::Excluded(upper)) | (Bound::Excluded(lower), Bound::Excluded(upper)) => {
            lower >= upper
        }
        _ => false,
    }
}

/// The least text that is greater than every text with this prefix; `None` where there is none.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            char::MAX => None,
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(names: &[String]) -> Names {
        let filled = Names::default();
        for name in names {
            filled.insert(name, Named { size: 1, time_us: 0, expiry_us: 0 });
        }
        filled
    }

    proptest! {
        #[test]
        fn pages_give_what_a_filter_gives(
            names in prop::collection::vec("[a-c\u{d7ff}\u{10ffff}]{1,4}", 0..40),
            prefix in "[a-c\u{d7ff}\u{10ffff}]{0,2}", limit in 1..7usize, reverse in any::<bool>()
        ) {
            let filled = filled(&names);
            let mut expected: Vec<_> = names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect();
            expected.sort();
            expected.dedup();
            if reverse {
                expected.reverse();
            }
            let mut found: Vec<String> = Vec::new();
            loop {
                let page = filled.page(&prefix, found.last().map(String::as_str), reverse, limit, 0);
                if page.is_empty() {
                    break;
                }
                found.extend(page.into_iter().map(|entry| entry.name));
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_expired_entry_is_hidden() {
        let names = Names::default();
        names.insert("a", Named { size: 1, time_us: 0, expiry_us: 10 });
        assert_eq!(names.page("", None, false, 9, 9).len(), 1);
        assert_eq!(names.page("", None, false, 9, 10).len(), 0);
        assert_eq!(names.totals(10).keys, 0);
    }
}
