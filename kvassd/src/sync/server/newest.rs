//! The newest session of each store, which ends the one before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::store::StoreId;

/// The newest sessions; a cheap clone.
#[derive(Clone, Default)]
pub(super) struct Newest(Arc<Mutex<Sessions>>);

#[derive(Default)]
struct Sessions {
    next: u64,
    of: HashMap<StoreId, (u64, CancellationToken)>,
}

impl Newest {
    /// Notes a session as the newest of a store, and ends the one before it.
    pub(super) fn enter(&self, peer: StoreId, stop: CancellationToken) -> Place {
        let mut sessions = self.sessions();
        let number = sessions.next;
        sessions.next += 1;
        if let Some((_, older)) = sessions.of.insert(peer, (number, stop)) {
            older.cancel();
        }
        Place { newest: self.clone(), peer, number }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one session. Once this is dropped nothing is kept of the store, unless a newer session has the place.
pub(super) struct Place {
    newest: Newest,
    peer: StoreId,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.newest.sessions();
        if sessions.of.get(&self.peer).is_some_and(|(number, _)| *number == self.number) {
            sessions.of.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_ends_the_older_one_and_keeps_its_place() {
        let (newest, peer) = (Newest::default(), StoreId([1; 16]));
        let (first, second, other) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let older = newest.enter(peer, first.clone());
        let _elsewhere = newest.enter(StoreId([2; 16]), other.clone());
        let newer = newest.enter(peer, second.clone());
        assert!(first.is_cancelled() && !second.is_cancelled() && !other.is_cancelled());
        drop(older);
        assert!(newest.sessions().of.contains_key(&peer));
        drop(newer);
        assert!(!newest.sessions().of.contains_key(&peer));
    }

    #[test]
    fn nothing_is_kept_of_stores_whose_sessions_have_ended() {
        let newest = Newest::default();
        for number in 0..100 {
            drop(newest.enter(StoreId([number; 16]), CancellationToken::new()));
        }
        assert!(newest.sessions().of.is_empty());
    }
}
