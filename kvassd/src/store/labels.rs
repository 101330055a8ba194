//! The links of all entries, in memory, by the entry that they lead to.
//!
//! Their records stand in the order of ids that say nothing, so the pass over all records that follows a start finds
//! them, beside the names.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use crate::keys::Token;
use crate::record::{Clear, RecordId};
use crate::share::Label;

/// A link as it is in force.
#[derive(Clone)]
pub(crate) struct Labelled {
    pub(crate) label: Label,
    /// When it was made, in microseconds since 1970.
    pub(crate) time_us: u64,
    /// When it ends, likewise; 0 is never.
    pub(crate) expiry_us: u64,
}

impl Labelled {
    /// Whether it leads to the entry for good, whoever opens it and however often.
    fn is_plain(&self) -> bool {
        self.label.is_plain(self.expiry_us)
    }
}

/// What is kept of each link; its name is the key of the map.
struct Kept {
    token: Token,
    reads: u64,
    pin: bool,
    time_us: u64,
    expiry_us: u64,
}

impl Kept {
    fn labelled(&self, name: &str) -> Labelled {
        let Self { token, reads, pin, time_us, expiry_us } = self;
        let label = Label { name: name.to_owned(), token: token.clone(), reads: *reads, pin: *pin };
        Labelled { label, time_us: *time_us, expiry_us: *expiry_us }
    }
}

type Map = BTreeMap<Box<str>, BTreeMap<RecordId, Kept>>;

#[derive(Default)]
pub(crate) struct Labels(RwLock<Map>);

impl Labels {
    pub(crate) fn insert(&self, label: &Label, clear: &Clear) {
        let Label { name, token, reads, pin } = label;
        let (time_us, expiry_us) = (clear.stamp.time_us, clear.expiry_us);
        let kept = Kept { token: token.clone(), reads: *reads, pin: *pin, time_us, expiry_us };
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(name.as_str().into()).or_default().insert(clear.id, kept);
    }

    pub(crate) fn remove(&self, name: &str, id: RecordId) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = map.get_mut(name) {
            links.remove(&id);
            if links.is_empty() {
                map.remove(name);
            }
        }
    }

    /// Puts other links in the place of all that there are.
    pub(crate) fn replace(&self, other: Self) {
        let other = other.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// The links of an entry, the oldest first.
    pub(crate) fn of(&self, name: &str) -> Vec<Labelled> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(name).map_or_else(Vec::new, |links| in_order(name, links))
    }

    /// The links of the next entry after `name` that has any; of the first one without.
    pub(crate) fn after(&self, name: Option<&str>) -> Vec<Labelled> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let next = map.range::<str, _>((from, Bound::Unbounded)).next();
        next.map_or_else(Vec::new, |(name, links)| in_order(name, links))
    }

    /// The entries that have links and begin with `prefix`, in order.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(name, _)| name.to_string()).take_while(|name| name.starts_with(prefix)).collect()
    }

    /// The oldest plain link of an entry.
    pub(crate) fn plain(&self, name: &str) -> Option<Labelled> {
        self.of(name).into_iter().find(Labelled::is_plain)
    }
}

fn in_order(name: &str, links: &BTreeMap<RecordId, Kept>) -> Vec<Labelled> {
    let mut links: Vec<_> = links.iter().collect();
    links.sort_by_key(|(id, kept)| (kept.time_us, **id));
    links.into_iter().map(|(_, kept)| kept.labelled(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{FORMAT, Kind, ValueHash};
    use crate::stamp::Stamp;

    fn link(name: &str, byte: u8, time_us: u64, reads: u64) -> (Label, Clear) {
        let token = Token::from_bytes(&[byte; 16]).unwrap();
        let clear = Clear {
            format: FORMAT,
            kind: Kind::LINK,
            id: token.locator(),
            generation: 0,
            stamp: Stamp { time_us, counter: 1, pid: 1 },
            expiry_us: 0,
            size: 1,
            value_hash: ValueHash([1; 32]),
        };
        (Label { name: name.into(), token, reads, pin: false }, clear)
    }

    #[test]
    fn links_are_found_by_their_entry_the_oldest_first() {
        let labels = Labels::default();
        let links = [link("a", 1, 9, 0), link("a", 2, 5, 0), link("a", 3, 1, 7), link("b", 4, 1, 0)];
        for (label, clear) in &links {
            labels.insert(label, clear);
        }
        let found: Vec<_> = labels.of("a").into_iter().map(|link| link.label).collect();
        assert_eq!(found, [links[2].0.clone(), links[1].0.clone(), links[0].0.clone()]);
        assert_eq!(labels.plain("a").map(|link| link.label), Some(links[1].0.clone()), "the oldest without a limit");
        assert_eq!((labels.after(None).len(), labels.after(Some("a")).len(), labels.after(Some("b")).len()), (3, 1, 0));
        assert_eq!(
            (labels.names(""), labels.names("b"), labels.names("c")),
            (vec!["a".into(), "b".into()], vec!["b".into()], vec![])
        );
        labels.remove("a", links[1].1.id);
        assert_eq!(labels.plain("a").map(|link| link.label), Some(links[0].0.clone()));
        labels.remove("b", links[3].1.id);
        assert!(labels.of("b").is_empty() && labels.after(Some("a")).is_empty());
        labels.replace(Labels::default());
        assert!(labels.after(None).is_empty());
    }
}
