//! What this store knows of the stores that it syncs with: how far each side holds the other's log.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Fault, Index, meta};
use super::row::Via;
use super::{Places, Seq};
use crate::keys::AccountId;

/// Which store a log belongs to. A store that finds that its history has forked takes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

/// One opening of a store, in which places of its log were given out by one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub [u8; 16]);

/// A store in one of its openings. A copy of it, or what it is after an older copy was put back, has the same id and
/// another run: only of this very opening it is certain that it has what came from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The store.
    pub store: StoreId,
    /// Its run.
    pub run: RunId,
}

impl Opening {
    /// The mark of what came through it: half of each id.
    pub(crate) fn via(self) -> Via {
        let mut via = [0; 16];
        via[..8].copy_from_slice(&self.store.0[..8]);
        via[8..].copy_from_slice(&self.run.0[..8]);
        via
    }
}

/// Whether a mark is that of some opening of a store.
pub(crate) fn is_via(via: Via, store: StoreId) -> bool {
    via[..8] == store.0[..8]
}

/// How far somebody holds a store's log: up to a place, which was given out in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The run that the place lies in.
    pub run: RunId,
    /// The last place that is held.
    pub seq: Seq,
}

/// A peer, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// How far this store holds the peer's log.
    pub held: Option<Cursor>,
    /// Up to which place of this store's log the peer has said that it holds all, durably.
    pub acknowledged: Seq,
}

/// The most peers that are remembered. Whoever has the server key can come under any number of ids.
const PEERS: usize = 1_024;

const ROW: usize = 1 + 16 + 8 + 8;

impl Peer {
    pub(crate) fn encode(self) -> [u8; ROW] {
        let mut row = [0; ROW];
        if let Some(Cursor { run, seq }) = self.held {
            row[0] = 1;
            row[1..17].copy_from_slice(&run.0);
            row[17..25].copy_from_slice(&seq.0.to_be_bytes());
        }
        row[25..].copy_from_slice(&self.acknowledged.0.to_be_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let (has_held, rest) = row.split_first_chunk::<1>()?;
        let (run, rest) = rest.split_first_chunk::<16>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let acknowledged = Seq(u64::from_be_bytes(rest.try_into().ok()?));
        let cursor = Cursor { run: RunId(*run), seq: Seq(u64::from_be_bytes(*seq)) };
        Some(Self { held: (has_held == &[1]).then_some(cursor), acknowledged })
    }
}

/// This store and all peers of the account in force. What changes without a commit is on the disk with the next one:
/// what is lost of it in a crash is only sent again.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    own: StoreId,
    all: BTreeMap<StoreId, Peer>,
    /// What peers hold of this store's log beyond what they have acknowledged. Only in memory: they say it again.
    beyond: BTreeMap<StoreId, Places>,
    /// The last full pass over each peer's log. Only in memory: a restart may begin another.
    passes: BTreeMap<StoreId, FullPass>,
    /// In which order they were last met since this store was opened.
    met: BTreeMap<StoreId, u64>,
    /// Those that are otherwise on the disk; what is not known any more has to go there.
    unsaved: BTreeSet<StoreId>,
    remote: RemotePeer,
}

/// Which peer the remote is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemotePeer {
    /// `None` until it has answered once.
    pub(crate) id: Option<StoreId>,
    /// Since when changes go to it, in microseconds since 1970: older ones have not waited for it any longer.
    pub(crate) since_us: u64,
}

const REMOTE_ROW: usize = 16 + 16 + 8;

impl RemotePeer {
    /// One that has not answered yet.
    pub(crate) fn unknown(now_us: u64) -> Self {
        Self { id: None, since_us: now_us }
    }

    pub(crate) fn encode(self, account: AccountId) -> [u8; REMOTE_ROW] {
        let mut row = [0; REMOTE_ROW];
        row[..16].copy_from_slice(&account.0);
        row[16..32].copy_from_slice(&self.id.unwrap_or(StoreId([0; 16])).0);
        row[32..].copy_from_slice(&self.since_us.to_be_bytes());
        row
    }

    /// `None` for a row of another account: its peers are not those of this one.
    fn decode(row: &[u8], account: AccountId) -> Option<Self> {
        let rest = row.strip_prefix(&account.0)?;
        let (id, since_us) = rest.split_first_chunk::<16>()?;
        let since_us = u64::from_be_bytes(since_us.try_into().ok()?);
        Some(Self { id: (id != &[0; 16]).then_some(StoreId(*id)), since_us })
    }
}

impl Peers {
    /// Reads what the index has of them.
    pub(crate) fn read(index: &Index) -> Result<Self, Fault> {
        let own = index.meta.get(meta::STORE)?.and_then(|row| <[u8; 16]>::try_from(&row[..]).ok());
        let own = own.ok_or_else(|| Fault::Other("its index names no store".into()))?;
        let mut all = BTreeMap::new();
        for row in index.meta.scan_prefix(meta::peers(index.account.keys.account())) {
            let (key, row) = row?;
            if let (Some(id), Some(peer)) = (key.last_chunk::<16>(), Peer::decode(&row)) {
                all.insert(StoreId(*id), peer);
            }
        }
        let account = index.account.keys.account();
        let remote = index.meta.get(meta::REMOTE_PEER)?.and_then(|row| RemotePeer::decode(&row, account));
        let remote = remote.unwrap_or_default();
        Ok(Self { all, ..Self::none(StoreId(own), remote) })
    }

    pub(crate) fn own(&self) -> StoreId {
        self.own
    }

    pub(crate) fn all(&self) -> &BTreeMap<StoreId, Peer> {
        &self.all
    }

    pub(crate) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    pub(crate) fn remote(&self) -> RemotePeer {
        self.remote
    }

    /// The remote is another one than before, or has become known; that is on the disk.
    pub(crate) fn set_remote(&mut self, remote: RemotePeer) {
        self.remote = remote;
    }

    /// Everything of the peer's log up to the cursor is here.
    pub(crate) fn hold(&mut self, peer: StoreId, cursor: Cursor) {
        self.all.entry(peer).or_default().held = Some(cursor);
        self.unsaved.insert(peer);
    }

    /// What a peer says at the beginning of a session to hold of this store's log. It may be less than it once had: then
    /// an older copy was put back.
    pub(crate) fn begin(&mut self, peer: StoreId, seq: Seq) {
        self.make_room(peer);
        let known = self.all.entry(peer).or_default();
        if known.acknowledged != seq {
            known.acknowledged = seq;
            self.unsaved.insert(peer);
        }
        self.beyond.remove(&peer);
    }

    /// Notes that a peer is here. Where there are too many, those that were not here for longest are forgotten: should
    /// one come again, both begin anew.
    fn make_room(&mut self, peer: StoreId) {
        let last = self.met.values().max().copied().unwrap_or_default();
        self.met.insert(peer, last + 1);
        while !self.all.contains_key(&peer) && self.all.len() >= PEERS {
            let others = self.all.keys().filter(|id| Some(**id) != self.remote.id);
            let Some(oldest) = others.min_by_key(|id| self.met.get(*id).copied()).copied() else { return };
            self.all.remove(&oldest);
            self.beyond.remove(&oldest);
            self.passes.remove(&oldest);
            self.met.remove(&oldest);
            self.unsaved.insert(oldest);
        }
    }

    /// The peers of which something may be on the disk.
    pub(crate) fn written(&self) -> BTreeSet<StoreId> {
        self.all.keys().chain(&self.unsaved).copied().collect()
    }

    /// The peer holds this store's log up to a place, and the places of some ranges after it.
    pub(crate) fn acknowledge(&mut self, peer: StoreId, seq: Seq, beyond: &[(Seq, Seq)]) {
        let known = self.all.entry(peer).or_default();
        if seq > known.acknowledged {
            known.acknowledged = seq;
            self.unsaved.insert(peer);
        }
        let acknowledged = known.acknowledged;
        let places = self.beyond.entry(peer).or_default();
        beyond.iter().for_each(|(first, last)| places.insert(*first, *last));
        places.forget(acknowledged);
    }

    /// Begins to take all of a peer's log once more, from its beginning; `false` where that was done within a day.
    pub(crate) fn begin_pass(&mut self, peer: StoreId, now_us: u64) -> bool {
        let again = |pass: &FullPass| now_us.abs_diff(pass.began_us) >= PASS_US;
        let is_due = self.passes.get(&peer).is_none_or(again);
        if is_due {
            self.passes.insert(peer, FullPass { began_us: now_us, is_open: true });
            self.all.entry(peer).or_default().held = None;
            self.unsaved.insert(peer);
        }
        is_due
    }

    /// Whether a full pass over a peer's log has begun and not ended.
    pub(crate) fn is_passing(&self, peer: StoreId) -> bool {
        self.passes.get(&peer).is_some_and(|pass| pass.is_open)
    }

    pub(crate) fn end_pass(&mut self, peer: StoreId) {
        if let Some(pass) = self.passes.get_mut(&peer) {
            pass.is_open = false;
        }
    }

    /// What a peer has said to hold of this store's log.
    pub(crate) fn held_by(&self, peer: StoreId) -> Held {
        let acknowledged = self.all.get(&peer).map_or(Seq(0), |peer| peer.acknowledged);
        Held { acknowledged, beyond: self.beyond.get(&peer).cloned().unwrap_or_default() }
    }

    /// Forgets all peers, under a new id or another account.
    pub(crate) fn begin_anew(&mut self, own: StoreId, remote: RemotePeer) {
        *self = Self::none(own, remote);
    }

    fn none(own: StoreId, remote: RemotePeer) -> Self {
        let (all, beyond, passes, met) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { own, all, beyond, passes, met, unsaved: BTreeSet::new(), remote }
    }

    /// Adds what is not on the disk to a commit, and returns whose it is.
    pub(crate) fn write(&self, to: &mut sled::Batch, account: AccountId) -> Vec<StoreId> {
        let unsaved: Vec<_> = self.unsaved.iter().copied().collect();
        for id in &unsaved {
            match self.all.get(id) {
                Some(peer) => to.insert(meta::peer(account, id.0), &peer.encode()[..]),
                None => to.remove(meta::peer(account, id.0)),
            }
        }
        unsaved
    }

    /// What was added to a commit is on the disk.
    pub(crate) fn saved(&mut self, peers: &[StoreId]) {
        self.unsaved.retain(|peer| !peers.contains(peer));
    }
}

/// The least time between two full passes over a peer's log: a day.
const PASS_US: u64 = 24 * 60 * 60 * 1_000_000;

/// A full pass over a peer's log.
#[derive(Clone, Copy, Debug)]
struct FullPass {
    began_us: u64,
    is_open: bool,
}

/// What a peer holds of this store's log.
#[derive(Default)]
pub(crate) struct Held {
    /// All up to here.
    pub(crate) acknowledged: Seq,
    beyond: Places,
}

impl Held {
    pub(crate) fn contains(&self, place: Seq) -> bool {
        place <= self.acknowledged || self.beyond.contains(place)
    }
}

/// The runs of the account in force, in order: each with the first place of the log that it may have written.
pub(crate) fn runs(index: &Index) -> Result<Vec<(RunId, Seq)>, Fault> {
    let mut runs = Vec::new();
    for row in index.meta.scan_prefix(meta::runs(index.account.keys.account())) {
        let (_, row) = row?;
        let (run, first) = row.split_first_chunk::<16>().ok_or_else(|| Fault::Other("a run makes no sense".into()))?;
        let first = first.try_into().map_err(|_| Fault::Other("a run makes no sense".into()))?;
        runs.push((RunId(*run), Seq(u64::from_be_bytes(first))));
    }
    Ok(runs)
}

/// Whether a cursor lies in a history that ends with `last`: its run is known, and its place lies within that run.
pub(crate) fn accepts(runs: &[(RunId, Seq)], last: Seq, cursor: Cursor) -> bool {
    let Some(at) = runs.iter().position(|(run, _)| *run == cursor.run) else { return false };
    let first = runs[at].1.0;
    let end = runs.get(at + 1).map_or(last.0, |(_, next)| next.0 - 1);
    (first.saturating_sub(1)..=end).contains(&cursor.seq.0)
}

/// The cursor of a place: the run that gave it out, or, between two runs, the later one.
pub(crate) fn cursor(runs: &[(RunId, Seq)], seq: Seq) -> Option<Cursor> {
    let run = runs.iter().rev().find(|(_, first)| first.0 <= seq.0 + 1)?.0;
    Some(Cursor { run, seq })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(byte: u8) -> RunId {
        RunId([byte; 16])
    }

    #[test]
    fn a_cursor_of_a_lost_tail_or_of_another_history_is_not_accepted() {
        let runs = [(run(1), Seq(1)), (run(2), Seq(5)), (run(3), Seq(5))];
        let accepts = |byte, seq| accepts(&runs, Seq(9), Cursor { run: run(byte), seq: Seq(seq) });
        assert!(accepts(1, 0) && accepts(1, 4) && !accepts(1, 5));
        assert!(accepts(2, 4) && !accepts(2, 5), "nothing was written in this run");
        assert!(accepts(3, 4) && accepts(3, 9) && !accepts(3, 10) && !accepts(3, 3));
        assert!(!accepts(4, 4));
    }

    proptest! {
        #[test]
        fn a_peer_comes_back_as_it_was_written(
            held in prop::option::of((any::<[u8; 16]>(), any::<u64>())), acknowledged in any::<u64>()
        ) {
            let held = held.map(|(run, seq)| Cursor { run: RunId(run), seq: Seq(seq) });
            let peer = Peer { held, acknowledged: Seq(acknowledged) };
            prop_assert_eq!(Peer::decode(&peer.encode()), Some(peer));
        }

        #[test]
        fn the_cursor_of_every_place_is_accepted(lengths in prop::collection::vec(0..4u64, 1..6), at in any::<prop::sample::Index>()) {
            let mut first = 1;
            let mut runs = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                runs.push((run(number as u8), Seq(first)));
                first += length;
            }
            let last = Seq(first - 1);
            let seq = Seq(at.index(first as usize) as u64);
            let cursor = cursor(&runs, seq).unwrap();
            prop_assert!(accepts(&runs, last, cursor), "{:?} {:?}", runs, cursor);
        }
    }
}
