//! Stores that exchange their logs end equal, whatever the order, repeats and restarts on the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;

use std::collections::BTreeMap;
use std::path::Path;

use files::copy;
use kvassd::record::Clear;
use kvassd::store::{
    Cursor, DownloadError, Opening, Options, Peer, RunId, Seq, Store, StoreId, Travelling, WriteError,
};
use kvassd::value::{CHUNK, TAG};
use proptest::prelude::*;
use tempfile::TempDir;

const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };
const KEY: [u8; 32] = [5; 32];

/// A store in a directory of its own, which can be closed and opened again.
struct Replica {
    directory: TempDir,
    store: Option<Store>,
}

impl Replica {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.set_key(Some(&KEY)).unwrap();
        Self { directory, store: Some(store) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.store.take().unwrap().close();
        self.store = Some(open(self.directory.path()));
    }

    fn set(&self, name: &str, value: &[u8]) {
        let mut writer = self.store().writer(None).unwrap();
        writer.push(value).unwrap();
        self.store().set(name, writer.finish().unwrap(), 0).unwrap();
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let (_, mut reader) = self.store().read(name).unwrap()?;
        let mut value = Vec::new();
        while reader.next(&mut value).unwrap() {}
        Some(value)
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = self.store().entries("", None, false, usize::MAX).unwrap();
        entries.into_iter().map(|entry| (entry.name.clone(), self.get(&entry.name).unwrap())).collect()
    }

    /// Where the other's log is held up to, by the other's own judgement.
    fn held(&self, other: &Self) -> Seq {
        let held = self.store().peer(other.store().identity().0).held;
        held.filter(|held| other.store().accepts(*held).unwrap()).map_or(Seq(0), |held| held.seq)
    }

    /// Takes one part of the other's log; `false` where there was nothing.
    fn pull(&self, other: &Self, limit: usize) -> bool {
        let from = other.store().opening();
        let after = self.held(other);
        let part = other.store().outgoing(after, self.store().opening(), limit).unwrap();
        let records: Vec<Travelling> = part.records.into_iter().map(|(_, record)| record).collect();
        let merged = self.store().merge(self.store().identity().1, records.clone(), from, part.cursor).unwrap();
        for record in &records {
            let clear = Clear::parse(&record.record.clear).unwrap();
            if merged.lacking.contains(&clear.value_hash) {
                fetch(self.store(), other.store(), &clear);
            }
        }
        if !merged.lacking.is_empty() {
            assert_eq!(self.held(other), after, "the cursor passed a record whose value is not here");
            assert!(
                self.store().merge(self.store().identity().1, records, from, part.cursor).unwrap().lacking.is_empty()
            );
        }
        part.cursor.is_some_and(|cursor| cursor.seq > after)
    }
}

/// Takes a value from another store, range by range.
fn fetch(to: &Store, from: &Store, clear: &Clear) {
    let mut download = to.download(clear).unwrap().unwrap();
    while let Some(range) = download.wants() {
        for (offset, part) in parts(from, clear, range) {
            download.push(offset, &part).unwrap();
        }
    }
    download.finish().unwrap();
}

/// The bytes of a range of a value's file, chunk by chunk.
fn parts(from: &Store, clear: &Clear, (offset, length): (u64, u32)) -> Vec<(u64, Vec<u8>)> {
    let mut bytes = vec![0; length as usize];
    from.blob(clear.value_hash).unwrap().read(offset, &mut bytes).unwrap();
    let at = |number: usize| offset + (number * (CHUNK + TAG)) as u64;
    bytes.chunks(CHUNK + TAG).enumerate().map(|(number, part)| (at(number), part.to_vec())).collect()
}

fn open(directory: &Path) -> Store {
    Store::open(directory, OPTIONS, &|_| {}).unwrap()
}

fn settle(replicas: &[Replica]) {
    loop {
        let mut moved = false;
        for (at, replica) in replicas.iter().enumerate() {
            for other in replicas.iter().enumerate().filter(|(other, _)| *other != at) {
                moved |= replica.pull(other.1, 100);
            }
        }
        if !moved {
            return;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set { at: usize, key: u8, length: usize },
    Remove { at: usize, key: u8 },
    Pull { at: usize, from: usize, limit: usize },
    Restart { at: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, 0..6u8, prop_oneof![0..50usize, Just(5_000usize)])
            .prop_map(|(at, key, length)| Step::Set { at, key, length }),
        2 => (0..3usize, 0..6u8).prop_map(|(at, key)| Step::Remove { at, key }),
        5 => (0..3usize, 0..3usize, 1..4usize).prop_map(|(at, from, limit)| Step::Pull { at, from, limit }),
        1 => (0..3usize).prop_map(|at| Step::Restart { at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn replicas_that_saw_the_same_records_hold_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let mut replicas: Vec<_> = (0..3).map(|_| Replica::new()).collect();
        // A write beats all that its writer had seen, so the last writer among equals is known.
        let mut number = 0u32;
        for step in steps {
            number += 1;
            match step {
                Step::Set { at, key, length } => {
                    let mut value = number.to_be_bytes().to_vec();
                    value.resize(length.max(4), key);
                    replicas[at].set(&format!("k{key}"), &value);
                    prop_assert_eq!(replicas[at].get(&format!("k{key}")), Some(value));
                }
                Step::Remove { at, key } => drop(replicas[at].store().remove(vec![format!("k{key}")]).unwrap()),
                Step::Pull { at, from, limit } if at != from => drop(replicas[at].pull(&replicas[from], limit)),
                Step::Pull { .. } => {}
                Step::Restart { at } => replicas[at].restart(),
            }
        }
        settle(&replicas);
        let digest = replicas[0].store().digest().unwrap();
        let content = replicas[0].content();
        for replica in &replicas {
            prop_assert_eq!(replica.store().digest().unwrap(), digest);
            prop_assert_eq!(replica.content(), content.clone());
            replica.store().check(&mut |finding| panic!("{finding:?}")).unwrap();
        }
    }
}

#[test]
fn what_came_through_a_peer_is_not_sent_back_to_it() {
    let (a, b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    b.pull(&a, 100);
    let back = b.store().outgoing(Seq(0), a.store().opening(), 100).unwrap();
    assert_eq!(back.records, []);
    let opening = a.store().opening();
    // Another store, and a copy of this one or what it is after a restart.
    for other in [Opening { store: StoreId([9; 16]), ..opening }, Opening { run: RunId([9; 16]), ..opening }] {
        assert_eq!(b.store().outgoing(Seq(0), other, 100).unwrap().records.len(), 1);
    }
}

#[test]
fn a_record_goes_out_with_its_own_value_though_it_changes_meanwhile() {
    let (a, b) = (Replica::new(), Replica::new());
    let to = b.store().opening();
    let mut seen = 0;
    a.set("x", b"first");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..400).for_each(|number| a.set("x", &vec![7; number])));
        // Once at least, however late this thread comes.
        let mut goes_on = true;
        while goes_on {
            goes_on = !writer.is_finished();
            for (_, Travelling { record, value }) in a.store().outgoing(Seq(0), to, 9).unwrap().records {
                let size = Clear::parse(&record.clear).unwrap().size;
                assert_eq!(value.unwrap().len() as u64, size + TAG as u64);
                seen += 1;
            }
        }
    });
    assert!(seen > 0, "no record went out");
}

#[test]
fn a_cursor_survives_a_restart_and_a_fork_begins_anew() {
    let (mut a, mut b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    assert!(b.pull(&a, 100));
    b.restart();
    a.restart();
    assert_eq!(b.held(&a), a.store().outgoing(Seq(0), b.store().opening(), 9).unwrap().cursor.unwrap().seq);
    assert!(!b.pull(&a, 100));
    let (before, pid) = (a.store().identity().0, a.store().summary().unwrap().pid);
    a.store().fork(before).unwrap();
    assert_ne!(a.store().identity().0, before);
    assert_ne!(a.store().summary().unwrap().pid, pid);
    assert_eq!(b.held(&a), Seq(0));
    a.restart();
    assert_ne!(a.store().identity().0, before);
}

#[test]
fn a_store_put_back_to_an_older_copy_does_not_accept_what_was_held_of_its_future() {
    let (mut a, b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    a.store.take().unwrap().close();
    let backup = tempfile::tempdir().unwrap();
    copy(a.directory.path(), backup.path());
    a.store = Some(open(a.directory.path()));
    a.set("y", b"2");
    b.pull(&a, 100);
    let held: Cursor = b.store().peer(a.store().identity().0).held.unwrap();
    assert!(a.store().accepts(held).unwrap());
    let restored = open(backup.path());
    assert_eq!(restored.identity().0, a.store().identity().0);
    assert!(!restored.accepts(held).unwrap());
}

#[test]
fn a_record_that_does_not_verify_is_counted_and_changes_nothing() {
    let (a, b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    a.set("y", b"2");
    let part = a.store().outgoing(Seq(0), b.store().opening(), 100).unwrap();
    let mut records: Vec<_> = part.records.into_iter().map(|(_, record)| record).collect();
    let (mut flipped, mut swapped) = (records.clone(), records.clone());
    flipped[0].record.clear[25] ^= 1;
    flipped[1].record.auth.0[0] ^= 1;
    swapped[0].value = records[1].value.clone();
    swapped[1].value = None;
    let digest = b.store().digest().unwrap();
    for bad in [flipped, swapped] {
        let merged = b.store().merge(b.store().identity().1, bad, a.store().opening(), part.cursor).unwrap();
        assert_eq!((merged.stored, merged.refused), (0, vec![0, 1]));
        assert_eq!(b.store().digest().unwrap(), digest);
    }
    records.reverse();
    assert_eq!(b.store().merge(b.store().identity().1, records, a.store().opening(), part.cursor).unwrap().stored, 2);
}

#[test]
fn a_value_goes_on_where_a_session_broke_off_and_lies_are_not_kept() {
    let (a, mut b) = (Replica::new(), Replica::new());
    let value: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    a.set("x", &value);
    let part = a.store().outgoing(Seq(0), b.store().opening(), 9).unwrap();
    let records: Vec<_> = part.records.into_iter().map(|(_, record)| record).collect();
    let clear = Clear::parse(&records[0].record.clear).unwrap();

    let mut download = b.store().download(&clear).unwrap().unwrap();
    assert!(b.store().download(&clear).unwrap().is_none(), "two take the same value");
    let list = download.wants().unwrap();
    let mut wrong = parts(a.store(), &clear, list).remove(0);
    wrong.1[5] ^= 1;
    assert!(matches!(download.push(wrong.0, &wrong.1), Err(DownloadError::Wrong)));
    assert_eq!(download.wants(), Some(list), "a list that is not the value's is forgotten");
    for (offset, part) in parts(a.store(), &clear, list) {
        download.push(offset, &part).unwrap();
    }
    let first = download.wants().unwrap();
    let chunks = parts(a.store(), &clear, first);
    assert!(matches!(download.push(chunks[1].0, &chunks[1].1), Err(DownloadError::Wrong)), "not the next");
    let mut flipped = chunks[0].clone();
    flipped.1[0] ^= 1;
    assert!(matches!(download.push(flipped.0, &flipped.1), Err(DownloadError::Wrong)));
    for (offset, part) in &chunks {
        download.push(*offset, part).unwrap();
    }
    drop(download);
    b.restart();

    let download = b.store().download(&clear).unwrap().unwrap();
    let next = download.wants().unwrap().0;
    assert_eq!(next, first.0 + u64::from(first.1), "what was here is asked for again");
    drop(download);
    assert_eq!(b.get("x"), None);
    fetch(b.store(), a.store(), &clear);
    assert_eq!(b.store().merge(b.store().identity().1, records, a.store().opening(), part.cursor).unwrap().stored, 1);
    assert_eq!(b.get("x"), Some(value));
}

#[test]
fn the_value_of_an_older_version_is_not_asked_for() {
    let (a, b) = (Replica::new(), Replica::new());
    a.set("x", &[1; 5_000]);
    b.set("x", &[2; 5_000]);
    let older = a.store().outgoing(Seq(0), b.store().opening(), 9).unwrap();
    let records = older.records.into_iter().map(|(_, record)| record).collect();
    let merged = b.store().merge(b.store().identity().1, records, a.store().opening(), older.cursor).unwrap();
    assert_eq!((merged.stored, merged.lacking), (0, Vec::new()));
}

#[test]
fn the_counter_follows_what_was_merged() {
    let (a, b) = (Replica::new(), Replica::new());
    for _ in 0..50 {
        a.set("x", b"1");
    }
    b.pull(&a, 100);
    b.set("y", b"2");
    let part = b.store().outgoing(Seq(0), a.store().opening(), 100).unwrap();
    let clear = Clear::parse(&part.records[0].1.record.clear).unwrap();
    assert_eq!(clear.stamp.counter, 51);
}

#[test]
fn strangers_to_a_store_are_remembered_up_to_a_number_and_its_own_peers_before_them() {
    let mut a = Replica::new();
    let (account, own) = (a.store().identity().1, StoreId([1; 16]));
    a.store().begin_peer(account, own, Seq(0));
    for number in 0..3_000_u64 {
        let mut id = [2; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        a.store().begin_peer(account, StoreId(id), Seq(0));
        a.store().acknowledge(account, StoreId(id), Seq(1), &[]);
        if number % 500 == 0 {
            a.store().begin_peer(account, own, Seq(0));
            a.set("x", &number.to_be_bytes());
        }
    }
    a.store().acknowledge(account, own, Seq(5), &[]);
    a.set("x", b"last");
    let all = a.store().peers();
    assert!(all.len() <= 1_024 && all[&own].acknowledged == Seq(5), "{}", all.len());
    a.restart();
    assert_eq!(a.store().peers(), all);
}

#[test]
fn what_belongs_to_another_account_is_neither_merged_nor_held_nor_acknowledged() {
    let (a, b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    b.set("y", b"2");
    let (old, peer) = (b.store().identity().1, a.store().opening());
    let part = a.store().outgoing(Seq(0), b.store().opening(), 100).unwrap();
    let records: Vec<_> = part.records.into_iter().map(|(_, record)| record).collect();
    b.store().set_key(Some(&[6; 32])).unwrap();
    let merged = b.store().merge(old, records, peer, part.cursor);
    assert!(matches!(merged, Err(WriteError::Refused(_))), "{merged:?}");
    b.store().acknowledge(old, peer.store, b.store().head(), &[]);
    assert_eq!(b.store().peer(peer.store), Peer::default());
}

#[test]
fn a_cursor_of_an_account_that_was_left_and_made_anew_is_not_accepted() {
    let (a, b) = (Replica::new(), Replica::new());
    a.set("x", b"1");
    a.set("x", b"2");
    b.pull(&a, 100);
    let held = b.store().peer(a.store().identity().0).held.unwrap();
    assert!(a.store().accepts(held).unwrap());
    a.store().set_key(Some(&[6; 32])).unwrap();
    a.store().set_key(Some(&KEY)).unwrap();
    a.set("y", b"3");
    assert_eq!(a.store().head(), held.seq, "as many places, and other ones");
    assert!(!a.store().accepts(held).unwrap());
}
