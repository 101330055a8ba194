//! What was sent of a log and is not held yet: records whose values are not here, and the cursors after them.
//!
//! Pure. The cursor moves only over parts of the log that lack nothing; what is held beyond it is known by its place.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use kvass_proto::v1;

use crate::record::{Clear, RecordId, ValueHash};
use crate::store::{Cursor, Places, Seq, Travelling};

/// About how many bytes of records may wait for their values.
const BYTES: usize = 8 << 20;

/// Bytes that a waiting record takes beside its own.
const EXTRA: usize = 256;

/// Ranges that one acknowledgement names.
pub(super) const RANGES: usize = 64;

/// A record whose value is not here.
pub(super) struct Lacking {
    pub(super) seq: Seq,
    pub(super) clear: Clear,
    pub(super) record: Travelling,
}

impl Lacking {
    fn bytes(&self) -> usize {
        EXTRA + self.record.record.clear.len() + self.record.record.sealed.len()
    }
}

/// What is sent of a log from a place on.
#[derive(Default)]
pub(super) struct Backlog {
    /// All up to here is held.
    held: Seq,
    /// Up to here everything is held, or lacking.
    through: Seq,
    /// The ends of parts before which something is lacking.
    ends: VecDeque<Cursor>,
    lacking: BTreeMap<Seq, Lacking>,
    ids: HashMap<RecordId, Seq>,
    hashes: HashMap<ValueHash, BTreeSet<Seq>>,
    beyond: Places,
    bytes: usize,
    /// More was lacking than is kept: it has to be sent again.
    overrun: bool,
}

impl Backlog {
    /// Nothing waits; the log is held up to a place.
    pub(super) fn new(held: Seq) -> Self {
        Self { held, through: held, ..Self::default() }
    }

    /// Whether a part that lacks nothing may move the cursor at once.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && !self.overrun
    }

    /// Up to where the log was sent.
    pub(super) fn through(&self) -> Seq {
        self.through
    }

    /// Whether the log has to be sent again, and there is room for it.
    pub(super) fn has_room_again(&self) -> bool {
        self.overrun && self.bytes <= BYTES / 4
    }

    /// Whether what is sent is not kept.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// What is sent from now on is not kept: it has to be sent again.
    pub(super) fn overrun(&mut self) {
        self.overrun = true;
    }

    /// The log is sent again after what is held; what waits goes on waiting.
    pub(super) fn restart(&mut self) {
        self.ends.clear();
        self.through = self.held;
        self.overrun = false;
    }

    /// Adds a part of the log: the places of its records, and those of them that lack a value. A record at a later
    /// place is the newer version of its entry, so nobody needs the value of the older one any more. Returns whether
    /// there was one.
    pub(super) fn add(&mut self, cursor: Cursor, places: &[(Seq, RecordId)], lacking: Vec<Lacking>) -> bool {
        let older: Vec<_> = places.iter().filter_map(|(_, id)| self.ids.get(id).copied()).collect();
        older.iter().for_each(|older| self.replace(*older));
        self.take(cursor, places, lacking);
        !older.is_empty()
    }

    /// The record at a place is sent again, there or at a later place.
    fn replace(&mut self, older: Seq) {
        // One that is after what was sent counts only once it is sent again.
        if self.remove(older) && older <= self.through {
            self.beyond.insert(older, older);
        }
    }

    fn take(&mut self, cursor: Cursor, places: &[(Seq, RecordId)], lacking: Vec<Lacking>) {
        let lacking: BTreeMap<_, _> = lacking.into_iter().map(|lacking| (lacking.seq, lacking)).collect();
        let bytes: usize = lacking.values().map(Lacking::bytes).sum();
        self.overrun |= self.bytes + bytes > BYTES;
        if self.overrun {
            let held = places.iter().filter(|(seq, _)| !lacking.contains_key(seq));
            held.for_each(|(seq, _)| self.beyond.insert(*seq, *seq));
            return;
        }
        let mut from = self.through.0 + 1;
        for (seq, lacking) in lacking {
            self.beyond.insert(Seq(from), Seq(seq.0 - 1));
            from = seq.0 + 1;
            self.wait(seq, lacking);
        }
        self.beyond.insert(Seq(from), cursor.seq);
        self.through = cursor.seq;
        // A part that lacks nothing ends with the one before it.
        if self.ends.back().is_some_and(|last| self.lacking.range(Seq(last.seq.0 + 1)..).next().is_none()) {
            self.ends.pop_back();
        }
        self.ends.push_back(cursor);
    }

    fn wait(&mut self, seq: Seq, lacking: Lacking) {
        self.bytes += lacking.bytes();
        self.ids.insert(lacking.clear.id, seq);
        self.hashes.entry(lacking.clear.value_hash).or_default().insert(seq);
        self.lacking.insert(seq, lacking);
    }

    /// The record at a place waits no more: it is held, or its entry has a newer version.
    pub(super) fn settle(&mut self, seq: Seq) {
        if self.remove(seq) {
            self.beyond.insert(seq, seq);
        }
    }

    fn remove(&mut self, seq: Seq) -> bool {
        let Some(lacking) = self.lacking.remove(&seq) else { return false };
        self.bytes -= lacking.bytes();
        if self.ids.get(&lacking.clear.id) == Some(&seq) {
            self.ids.remove(&lacking.clear.id);
        }
        if let Some(places) = self.hashes.get_mut(&lacking.clear.value_hash) {
            places.remove(&seq);
            if places.is_empty() {
                self.hashes.remove(&lacking.clear.value_hash);
            }
        }
        true
    }

    /// The records that wait for a value.
    pub(super) fn waiting_for(&self, hash: ValueHash) -> Vec<(Seq, Travelling)> {
        let places = self.hashes.get(&hash).into_iter().flatten();
        places.filter_map(|seq| Some((*seq, self.lacking.get(seq)?.record.clone()))).collect()
    }

    /// Whether a value is waited for.
    pub(super) fn needs(&self, hash: ValueHash) -> bool {
        self.hashes.contains_key(&hash)
    }

    /// The records that wait.
    pub(super) fn lacking(&self) -> impl Iterator<Item = &Clear> {
        self.lacking.values().map(|lacking| &lacking.clear)
    }

    /// The last cursor before which nothing is lacking, once for each.
    pub(super) fn pass(&mut self) -> Option<Cursor> {
        let first = self.lacking.first_key_value().map_or(Seq(u64::MAX), |(seq, _)| *seq);
        let mut passed = None;
        while let Some(cursor) = self.ends.front().copied().filter(|cursor| cursor.seq < first) {
            self.ends.pop_front();
            passed = Some(cursor);
        }
        let passed = passed?;
        self.hold(passed.seq);
        Some(passed)
    }

    /// All up to a place is held.
    pub(super) fn hold(&mut self, seq: Seq) {
        self.held = self.held.max(seq);
        self.through = self.through.max(seq);
        self.beyond.forget(self.held);
    }

    /// What to tell the owner of the log, where the disk is not full.
    pub(super) fn acknowledgement(&self) -> v1::Acknowledge {
        let ranges = self.beyond.newest().take(RANGES);
        let beyond = ranges.map(|(first, last)| v1::Places { first: first.0, last: last.0 }).collect();
        v1::Acknowledge { seq: self.held.0, beyond, full: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Auth, FORMAT, Kind, Record};
    use crate::stamp::Stamp;
    use crate::store::RunId;

    fn cursor(seq: u64) -> Cursor {
        Cursor { run: RunId([1; 16]), seq: Seq(seq) }
    }

    fn lacking(seq: u64, id: u8, hash: u8, bytes: usize) -> Lacking {
        let stamp = Stamp { time_us: 1, counter: 1, pid: 1 };
        let (id, value_hash) = (RecordId([id; 16]), ValueHash([hash; 32]));
        let clear = Clear {
            format: FORMAT,
            kind: Kind::VALUE,
            id,
            generation: 0,
            stamp,
            expiry_us: 0,
            size: 5_000,
            value_hash,
        };
        let record = Record { clear: vec![0; bytes], sealed: Vec::new(), auth: Auth([0; 32]) };
        Lacking { seq: Seq(seq), clear, record: Travelling { record, value: None } }
    }

    fn held(backlog: &Backlog) -> (u64, Vec<(u64, u64)>) {
        let told = backlog.acknowledgement();
        (told.seq, told.beyond.into_iter().map(|places| (places.first, places.last)).collect())
    }

    #[test]
    fn a_small_change_behind_a_large_value_is_acknowledged_alone() {
        let mut backlog = Backlog::new(Seq(4));
        let id = |byte| RecordId([byte; 16]);
        backlog.add(cursor(7), &[(Seq(5), id(1)), (Seq(6), id(2)), (Seq(7), id(3))], vec![lacking(6, 2, 9, 10)]);
        backlog.add(cursor(9), &[(Seq(9), id(4))], Vec::new());
        assert_eq!((held(&backlog), backlog.pass()), ((4, vec![(7, 9), (5, 5)]), None));
        assert!(backlog.needs(ValueHash([9; 32])) && backlog.waiting_for(ValueHash([9; 32])).len() == 1);
        backlog.settle(Seq(6));
        assert_eq!(backlog.pass(), Some(cursor(9)));
        assert!(backlog.is_empty());
        assert_eq!(held(&backlog), (9, Vec::new()));
    }

    #[test]
    fn a_newer_version_lets_the_cursor_pass_the_older_one() {
        let mut backlog = Backlog::new(Seq(0));
        backlog.add(cursor(1), &[(Seq(1), RecordId([1; 16]))], vec![lacking(1, 1, 9, 10)]);
        backlog.add(cursor(2), &[(Seq(2), RecordId([1; 16]))], vec![lacking(2, 1, 8, 10)]);
        assert_eq!(backlog.pass(), Some(cursor(1)));
        assert!(!backlog.needs(ValueHash([9; 32])) && backlog.needs(ValueHash([8; 32])));
        backlog.add(cursor(3), &[(Seq(3), RecordId([1; 16]))], Vec::new());
        assert_eq!(backlog.pass(), Some(cursor(3)));
    }

    #[test]
    fn more_than_is_kept_is_asked_for_again_and_holds_the_cursor() {
        let mut backlog = Backlog::new(Seq(0));
        let id = |byte| RecordId([byte; 16]);
        backlog.add(cursor(1), &[(Seq(1), id(1))], vec![lacking(1, 1, 1, BYTES / 2)]);
        backlog.add(cursor(3), &[(Seq(2), id(2)), (Seq(3), id(3))], vec![lacking(2, 2, 2, BYTES / 2)]);
        backlog.add(cursor(4), &[(Seq(4), id(4))], Vec::new());
        assert!(!backlog.has_room_again() && !backlog.needs(ValueHash([2; 32])));
        assert_eq!(held(&backlog), (0, vec![(3, 4)]));
        backlog.settle(Seq(1));
        assert_eq!(backlog.pass(), Some(cursor(1)));
        assert!(backlog.has_room_again() && !backlog.is_empty());
    }

    proptest! {
        #[test]
        fn the_cursor_never_passes_what_is_lacking_and_passes_all_else(
            parts in prop::collection::vec(prop::collection::vec((any::<bool>(), 0..6u8), 0..6), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let mut backlog = Backlog::new(Seq(0));
            let (mut seq, mut open, mut ends) = (0, BTreeMap::new(), BTreeSet::new());
            for part in parts {
                let (mut places, mut without) = (Vec::new(), Vec::new());
                let first = seq + 1;
                let mut seen = BTreeSet::new();
                for (lacks, id) in part.into_iter().filter(|(_, id)| seen.insert(*id)) {
                    seq += 1;
                    places.push((Seq(seq), RecordId([id; 16])));
                    open.retain(|_, other| *other != id);
                    if lacks {
                        without.push(lacking(seq, id, seq as u8, 10));
                        open.insert(seq, id);
                    }
                }
                seq = seq.max(first);
                ends.insert(seq);
                backlog.add(cursor(seq), &places, without);
            }
            let mut passed = backlog.pass().map_or(0, |cursor| cursor.seq.0);
            for at in order {
                let first = open.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
                let expected = ends.iter().rev().find(|end| **end < first).copied().unwrap_or(0);
                prop_assert_eq!(passed, expected);
                let (seq_held, beyond) = held(&backlog);
                prop_assert_eq!(seq_held, passed);
                let is_held = |place: u64| place <= seq_held || beyond.iter().any(|(a, b)| (*a..=*b).contains(&place));
                prop_assert!((1..=seq).all(|place| is_held(place) != open.contains_key(&place)));
                if open.is_empty() {
                    break;
                }
                let next = *open.keys().nth(at.index(open.len())).unwrap();
                open.remove(&next);
                backlog.settle(Seq(next));
                passed = backlog.pass().map_or(passed, |cursor| cursor.seq.0);
            }
        }
    }
}
