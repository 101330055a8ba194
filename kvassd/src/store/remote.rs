//! What the store knows of its remote: which one is set, which peer it is, and what that peer does not hold yet.

use std::ops::Bound;

use tokio::sync::watch;

use super::commit::{Committer, Job};
use super::index;
use super::peers::{self, RemotePeer, StoreId};
use super::row::{self, RecordRow};
use super::settings::Settings;
use super::{ReadError, Seq, Store, WriteError};
use crate::record::RecordId;

/// What the remote does not hold durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many changes; what came from the remote does not count.
    pub count: u64,
    /// Since when the oldest of them waits, in microseconds since 1970; 0 where there is none.
    pub since_us: u64,
}

impl Store {
    /// Watches the remote, as a URL; empty: none.
    #[must_use]
    pub fn remote(&self) -> watch::Receiver<String> {
        self.shared.remote.subscribe()
    }

    /// Sets the remote, as a URL; empty: none. Which peer another one is has to be learnt.
    ///
    /// # Errors
    /// A full disk or a damaged store.
    pub fn set_remote(&self, remote: String) -> Result<(), WriteError> {
        self.ask(|answer| Job::SetRemote { remote, answer })
    }

    /// Which peer the remote is; `None` until it has answered.
    #[must_use]
    pub fn remote_peer(&self) -> Option<StoreId> {
        self.shared.peers().remote().id
    }

    /// Notes which peer the remote is. Where it was another one, all changes go to it from now on.
    ///
    /// # Errors
    /// A full disk or a damaged store.
    pub fn meet_remote(&self, peer: StoreId) -> Result<(), WriteError> {
        if self.remote_peer() == Some(peer) {
            return Ok(());
        }
        self.ask(|answer| Job::MeetRemote { peer, answer })
    }

    /// What the remote has not said to hold. It reads the part of the log that the remote does not hold.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn waiting(&self) -> Result<Waiting, ReadError> {
        let remote = self.shared.peers().remote();
        self.lacking(remote, usize::MAX)
    }

    /// Since when the oldest change that the remote does not hold waits, in microseconds since 1970; 0 where none is
    /// found among the first `limit` rows of the log that it does not hold.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn oldest_waiting_us(&self, limit: usize) -> Result<u64, ReadError> {
        let remote = self.shared.peers().remote();
        Ok(self.lacking(remote, limit)?.since_us)
    }

    /// How many changes here a peer has not said to hold; what came from it does not count.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn pending(&self, peer: StoreId) -> Result<u64, ReadError> {
        Ok(self.lacking(RemotePeer { id: Some(peer), since_us: 0 }, usize::MAX)?.count)
    }

    fn lacking(&self, peer: RemotePeer, limit: usize) -> Result<Waiting, ReadError> {
        let held = peer.id.map(|id| self.shared.peers().held_by(id)).unwrap_or_default();
        let range = (Bound::Excluded(held.acknowledged.0.to_be_bytes()), Bound::Included(self.head().0.to_be_bytes()));
        let read = self.shared.read_index(|index| {
            let mut waiting = Waiting::default();
            for row in index.account.trees.log.range::<[u8; 8], _>(range).take(limit) {
                let (seq, row) = row?;
                let seq = <[u8; 8]>::try_from(&seq[..]).map_or(0, u64::from_be_bytes);
                let Some((id, via)) = row::decode_log(&row) else { continue };
                if peer.id.is_some_and(|id| peers::is_via(via, id)) || held.contains(Seq(seq)) {
                    continue;
                }
                if waiting.count == 0 {
                    waiting.since_us = written_us(index, id)?.max(peer.since_us);
                }
                waiting.count += 1;
            }
            Ok(waiting)
        });
        read.map_err(|fault| self.failed(fault))
    }
}

/// When a record was written, by its writer's clock.
fn written_us(index: &index::Index, id: RecordId) -> Result<u64, index::Fault> {
    let clear = index.record(id)?.and_then(|row| RecordRow::decode(&row)).and_then(|row| row.clear().ok());
    Ok(clear.map_or(0, |clear| clear.stamp.time_us))
}

impl Committer {
    pub(super) fn set_remote(&mut self, remote: String) -> Result<(), WriteError> {
        let is_another = *self.shared.remote.borrow() != remote;
        let before = self.shared.peers().remote();
        let peer = if is_another { RemotePeer::unknown(self.shared.now_us()) } else { before };
        let settings = Settings { remote: remote.clone(), ..self.shared.settings() };
        self.write_settings(&settings, |meta, account| {
            meta.insert(index::meta::REMOTE, remote.as_bytes());
            meta.insert(index::meta::REMOTE_PEER, &peer.encode(account)[..]);
            if is_another {
                meta.remove(index::meta::REMOTE_PUBLIC_URL);
            }
        })?;
        if is_another {
            self.forget_remote_public_url();
        }
        self.shared.change_peers(|peers| peers.set_remote(peer));
        self.shared.remote.send_replace(remote);
        Ok(())
    }

    pub(super) fn meet_remote(&mut self, peer: StoreId) -> Result<(), WriteError> {
        let before = self.shared.peers().remote();
        // The first that answers is the one that was waited for.
        let since_us = if before.id.is_none() { before.since_us } else { self.shared.now_us() };
        let remote = RemotePeer { id: Some(peer), since_us };
        self.write_meta(|meta, account| meta.insert(index::meta::REMOTE_PEER, &remote.encode(account)[..]))?;
        self.shared.change_peers(|peers| peers.set_remote(remote));
        Ok(())
    }
}
