//! A store with a server key alone: it merges, keeps and forwards what it cannot read, and becomes something else only
//! where that is meant.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod replica;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use files::copy;
use kvassd::keys::{EncryptionKey, Key, Keys, encode_hex};
use kvassd::record::{Clear, Kind, Record, RecordId, ValueHash};
use kvassd::seal;
use kvassd::stamp::Stamp;
use kvassd::store::{
    Condition, OpenError, Opening, ReadError, Rekeyed, RunId, Store, StoreId, Travelling, ValueWriter, WriteError,
    repair,
};
use replica::{OPTIONS, Replica, bytes, full_key, open, server_key};

const OTHER: Opening = Opening { store: StoreId([9; 16]), run: RunId([9; 16]) };

/// A device with entries of every size that matters, and removed ones.
fn device() -> Replica {
    let device = Replica::new(&full_key(1));
    for (name, length) in [("empty", 0), ("small", 5), ("longest inline", 4_096), ("blob", 4_097), ("large", 200_000)] {
        device.set(name, &bytes(length));
    }
    for removed in ["gone", "gone too"] {
        device.set(removed, &bytes(9_000));
        device.store.remove(vec![removed.into()]).unwrap();
    }
    device
}

/// A blind server that holds what the device does.
fn server_of(device: &Replica) -> Replica {
    let server = Replica::new(&server_key(1));
    server.pull(device);
    server
}

fn check(store: &Store) {
    store.check(&mut |finding| panic!("{finding:?}")).unwrap();
}

fn problems(store: &Store) -> Vec<String> {
    let mut problems = Vec::new();
    let report = &mut |finding: kvassd::store::Finding| {
        problems.push(finding.problem);
        true
    };
    store.check(report).unwrap();
    problems
}

fn is_blind<T>(result: Result<T, ReadError>) -> bool {
    matches!(result, Err(ReadError::Blind))
}

fn is_unconfirmed(result: Result<Rekeyed, WriteError>) -> bool {
    matches!(result, Err(WriteError::Unconfirmed(_)))
}

#[test]
fn what_one_device_stores_reaches_another_through_a_server_that_cannot_read_it() {
    let a = device();
    let mut server = server_of(&a);
    let summary = server.store.summary().unwrap();
    assert!(summary.blind && summary.fingerprint == a.store.summary().unwrap().fingerprint);
    assert_eq!((summary.keys, summary.records, summary.value_bytes), (5, 7, 5 + 4_096 + 4_097 + 200_000));
    check(&server.store);
    server.restart();
    check(&server.store);
    assert_eq!(server.store.summary().unwrap().records, 7);
    assert_eq!(server.store.digest().unwrap(), a.store.digest().unwrap());

    let b = Replica::new(&full_key(1));
    b.pull(&server);
    assert_eq!(b.content(), a.content());
    b.set("large", b"now small");
    b.set("small", &bytes(70_000));
    b.store.remove(vec!["blob".into()]).unwrap();
    server.pull(&b);
    a.pull(&server);
    assert_eq!(a.content(), b.content());
    assert_eq!((server.blobs(), server.blobs().len()), (a.blobs(), 1));
    let summary = server.store.summary().unwrap();
    assert_eq!((summary.keys, summary.records, summary.value_bytes), (4, 7, 4_096 + 9 + 70_000));
    server.restart();
    assert_eq!(server.store.summary().unwrap().value_bytes, summary.value_bytes);
    check(&server.store);
}

#[test]
fn whatever_needs_a_name_is_refused() {
    let server = server_of(&device());
    let store = &server.store;
    let position = store.position();
    assert!(is_blind(store.read("small").map(drop)) && is_blind(store.entries("", None, false, 9)));
    assert!(is_blind(store.changes(position, 9)));
    let refused = |result: Result<(), WriteError>| assert!(matches!(result, Err(WriteError::Read(ReadError::Blind))));
    refused(store.writer(None).map(drop));
    refused(store.remove(vec!["small".into()]).map(drop));
    refused(store.remove_prefix("").map(drop));
    assert!(!store.is_held("small", OTHER.store));

    // A value that was begun before the store became blind.
    let device = device();
    let written = |store: &Store| ValueWriter::finish(store.writer(None).unwrap()).unwrap();
    let (set, import) = (written(&device.store), written(&device.store));
    device.store.change_key(server_key(1), true).unwrap();
    refused(device.store.set("a", set, 0));
    let condition = Condition { time_us: 1, force: true, dry_run: false };
    refused(device.store.import("a", import, 0, condition).map(drop));
}

/// A record of the right form that no device wrote.
fn made_up(time_us: u64) -> Travelling {
    let keys = Keys::derive(&EncryptionKey::new([77; 32]));
    let sealed_value = vec![7; 3 + 16];
    let hash = kvassd::value::value_hash(&kvassd::value::chunk_hash(&sealed_value));
    let stamp = kvassd::stamp::Stamp { time_us, counter: kvassd::stamp::Stamp::MAX, pid: 1 };
    let clear = Clear {
        format: 1,
        kind: kvassd::record::Kind::VALUE,
        id: keys.record_id("made up"),
        generation: 0,
        stamp,
        expiry_us: 0,
        size: 3,
        value_hash: hash,
    };
    Travelling { record: seal::seal(&keys, &clear, b"header"), value: Some(sealed_value) }
}

#[test]
fn records_of_the_wrong_form_are_refused_and_counted() {
    let server = Replica::new(&server_key(1));
    let good = made_up(5);
    let clear = Clear::parse(&good.record.clear).unwrap();
    let changed = |clear: Clear| Record { clear: clear.encode().to_vec(), ..good.record.clone() };
    let bad = [
        Travelling { value: None, ..good.clone() },
        Travelling { value: Some(vec![7; 20]), ..good.clone() },
        Travelling { value: Some(vec![8; 19]), ..good.clone() },
        Travelling { record: changed(Clear { size: 4, ..clear }), ..good.clone() },
        Travelling { record: changed(Clear { size: 5_000, ..clear }), ..good.clone() },
        Travelling { record: changed(Clear { value_hash: ValueHash([1; 32]), ..clear }), ..good.clone() },
        Travelling { record: changed(Clear { kind: kvassd::record::Kind::REMOVAL, ..clear }), ..good.clone() },
        Travelling { record: Record { sealed: vec![0; 39], ..good.record.clone() }, ..good.clone() },
        Travelling { record: Record { sealed: vec![0; 70_000], ..good.record.clone() }, ..good.clone() },
        Travelling { record: Record { clear: vec![2; 600], ..good.record.clone() }, ..good.clone() },
        Travelling { record: Record { clear: vec![1; 89], ..good.record.clone() }, ..good.clone() },
    ];
    let count = bad.len();
    let merged = server.store.merge(server.store.identity().1, bad.to_vec(), OTHER, None).unwrap();
    assert_eq!((merged.stored, merged.refused.len(), server.store.refused()), (0, count, count as u64));
    assert_eq!(server.store.summary().unwrap().records, 0);
    assert_eq!(server.store.merge(server.store.identity().1, vec![good], OTHER, None).unwrap().stored, 1);
    check(&server.store);
}

#[test]
fn damage_is_found_without_a_key() {
    let mut server = server_of(&device());
    let blob = server.path().join("blobs").join(&server.blobs()[0]);
    fs::File::options().write(true).open(blob).unwrap().write_all_at(b"damage", 100).unwrap();
    let found = problems(&server.store);
    assert!(found.len() == 1 && found[0].starts_with("the value of record "), "{found:?}");
    assert!(found[0].ends_with("does not verify"), "{found:?}");

    // A bit of a sealed header, which only the sum of its row covers here.
    server.restart_after(|directory| {
        let db = sled::open(directory.join("store/sled")).unwrap();
        let tree = db.tree_names().into_iter().find(|name| name.starts_with(b"records/")).unwrap();
        let records = db.open_tree(tree).unwrap();
        let (id, row) = records.first().unwrap().unwrap();
        let mut row = row.to_vec();
        row[130] ^= 1;
        records.insert(id, row).unwrap();
        db.flush().unwrap();
    });
    assert!(matches!(server.store.change_key(server_key(2), true), Err(WriteError::Read(ReadError::Damaged(_)))));
    assert!(problems(&server.store).iter().any(|problem| problem.contains(": it does not verify")));
}

fn damaged(directory: &Path) {
    fs::remove_file(directory.join("store/witness")).unwrap();
    let error = Store::open(directory, OPTIONS, &|_| {}).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_repair_keeps_what_is_whole_and_names_what_is_lost_by_its_record() {
    let device = device();
    let server = server_of(&device);
    let before = server.store.identity();
    let (directory, digest) = (server.path().to_path_buf(), server.store.digest().unwrap());
    server.store.clone().close();
    damaged(&directory);
    let repaired = repair(&directory, &mut |_| ()).unwrap();
    assert_eq!((repaired.kept, repaired.lost), (5, vec![]));
    let store = open(&directory);
    check(&store);
    assert!(store.is_blind() && store.digest().unwrap() == digest);
    assert!(store.identity().0 != before.0 && store.identity().1 == before.1);
    store.close();
    let lost = Clear::parse(&device.records()[4].record.clear).unwrap();
    fs::remove_file(directory.join("blobs").join(encode_hex(&lost.value_hash.0))).unwrap();
    damaged(&directory);
    let repaired = repair(&directory, &mut |_| ()).unwrap();
    assert_eq!((repaired.kept, repaired.lost), (4, vec![format!("record {}", encode_hex(&lost.id.0))]));
}

#[test]
fn a_repair_brings_no_records_of_an_account_that_was_dropped() {
    let server = server_of(&device());
    server.store.change_key(server_key(2), true).unwrap();
    let other = Replica::new(&full_key(2));
    other.set("x", b"1");
    server.pull(&other);
    let directory = server.path().to_path_buf();
    server.store.clone().close();
    damaged(&directory);
    assert_eq!(repair(&directory, &mut |_| ()).unwrap().kept, 1);
    let store = open(&directory);
    assert_eq!((store.summary().unwrap().records, store.digest().unwrap()), (1, other.store.digest().unwrap()));
}

#[test]
fn an_empty_store_becomes_blind_at_once_and_the_same_key_changes_nothing() {
    let mut server = Replica::new(&server_key(1));
    assert_eq!(server.key_file(), format!("{}\n", *server_key(1).to_text()));
    server.store.change_key(server_key(1), false).unwrap();
    server.restart();
    assert!(server.store.is_blind() && server.store.key() == server_key(1));
}

#[test]
fn a_device_that_becomes_blind_keeps_its_records() {
    let mut device = device();
    let (identity, digest, blobs) = (device.store.identity(), device.store.digest().unwrap(), device.blobs());
    let reader = device.content();
    assert!(is_unconfirmed(device.store.change_key(server_key(1), false)));
    assert_eq!(device.content(), reader);
    device.store.change_key(server_key(1), true).unwrap();
    for _ in 0..2 {
        assert!(is_blind(device.store.read("small").map(drop)));
        assert_eq!((device.store.identity(), device.store.digest().unwrap()), (identity, digest));
        assert_eq!((device.blobs(), device.store.summary().unwrap().keys), (blobs.clone(), 5));
        assert_eq!(device.key_file(), format!("{}\n", *server_key(1).to_text()));
        check(&device.store);
        device.restart();
    }
}

#[test]
fn a_blind_store_that_gets_its_encryption_key_is_a_device_with_all_entries() {
    let a = device();
    let mut server = server_of(&a);
    let before = server.store.identity();
    assert_eq!(server.store.change_key(full_key(1), false).unwrap(), Rekeyed { dropped: 0 });
    assert_eq!((server.content(), server.store.identity()), (a.content(), before));
    assert_eq!(server.key_file(), format!("{}\n", *full_key(1).to_text()));
    server.set("new", b"1");
    server.restart();
    assert_eq!(server.get("new").unwrap(), b"1");
    a.pull(&server);
    assert_eq!(a.content(), server.content());
    check(&server.store);
}

#[test]
fn what_was_made_up_for_a_blind_store_goes_when_it_gets_its_encryption_key() {
    let a = device();
    let mut server = server_of(&a);
    let digest = server.store.digest().unwrap();
    let before = server.store.identity().0;
    // In the place of an entry, with a stamp that beats all.
    let mut forged = a.records().into_iter().find(|record| record.value.is_some()).unwrap();
    forged.record.clear[22..30].copy_from_slice(&(1_u64 << 61).to_be_bytes());
    let merged = server.store.merge(server.store.identity().1, vec![made_up(5), forged], OTHER, None).unwrap();
    assert_eq!(merged.stored, 2);
    assert_ne!(server.store.digest().unwrap(), digest);

    assert_eq!(server.store.change_key(full_key(1), false).unwrap(), Rekeyed { dropped: 2 });
    assert_eq!(server.content().len(), a.content().len() - 1);
    check(&server.store);
    // Under another id, so that the others send again what the forged record replaced.
    assert_ne!(server.store.identity().0, before);
    assert_eq!(server.store.peers().len(), 0);
    server.restart();
    server.pull(&a);
    assert_eq!((server.content(), server.store.digest().unwrap()), (a.content(), digest));
    // What was made up has not raised the counter.
    server.set("new", b"1");
    let counters = server.records().into_iter().map(|record| Clear::parse(&record.record.clear).unwrap().stamp.counter);
    assert!(counters.max().unwrap() < 100);
    check(&server.store);
}

#[test]
fn another_account_begins_empty_and_drops_what_was_there() {
    for (from, to) in [(full_key(1), server_key(2)), (server_key(1), server_key(2)), (server_key(1), full_key(2))] {
        let a = device();
        let mut store = Replica::new(&from);
        store.store.set_remote("http://host:80".into()).unwrap();
        store.pull(&a);
        assert!(is_unconfirmed(store.store.change_key(to.clone(), false)));
        assert_eq!(store.store.summary().unwrap().records, 7);
        store.store.change_key(to.clone(), true).unwrap();
        for _ in 0..2 {
            assert_eq!((store.store.summary().unwrap().records, store.blobs().len()), (0, 0));
            assert_eq!((store.store.digest().unwrap(), store.store.peers().len()), ([0; 32], 0));
            assert_eq!(store.key_file(), format!("{}\n", *to.to_text()));
            assert_eq!(store.store.remote().borrow().as_str(), "http://host:80");
            check(&store.store);
            store.restart();
        }
        let other = Replica::new(&full_key(2));
        other.set("x", &bytes(5_000));
        store.pull(&other);
        assert_eq!(store.store.digest().unwrap(), other.store.digest().unwrap());
        store.restart();
        check(&store.store);
    }
}

/// A copy of a closed store whose key file holds these keys, as a crash around a switch leaves it.
fn crashed(store: &Replica, keys: &[&Key]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(store.path(), directory.path());
    let lines: String = keys.iter().map(|key| format!("{}\n", *key.to_text())).collect();
    fs::write(directory.path().join("key"), lines).unwrap();
    directory
}

#[test]
fn a_crash_before_the_switch_leaves_the_old_key_in_force_and_after_it_the_new_one() {
    for (old, new) in [(full_key(1), server_key(2)), (server_key(1), server_key(2)), (server_key(1), full_key(2))] {
        let a = device();
        let mut store = Replica::new(&old);
        store.pull(&a);
        store.restart_after(|_| ());
        store.store.clone().close();
        // The key file holds both keys; the commit has not been.
        let before = crashed(&store, &[&old, &new]);
        let opened = open(before.path());
        assert!(opened.key() == old);
        assert_eq!((opened.summary().unwrap().records, opened.digest().unwrap()), (7, a.store.digest().unwrap()));
        check(&opened);
        opened.close();
        assert_eq!(fs::read_to_string(before.path().join("key")).unwrap(), format!("{}\n", *old.to_text()));

        // The commit has been; the old key, its rows and its files are still there.
        let files: Vec<_> = store.blobs();
        store.store = open(store.path());
        store.store.change_key(new.clone(), true).unwrap();
        store.store.clone().close();
        let after = crashed(&store, &[&old, &new]);
        for file in &files {
            fs::write(after.path().join("blobs").join(file), b"of the old account").unwrap();
        }
        let db = sled::open(after.path().join("store/sled")).unwrap();
        let account = old.access().account().to_hex();
        db.open_tree(format!("records/{account}")).unwrap().insert([0; 16], b"row").unwrap();
        db.flush().unwrap();
        drop(db);
        let opened = open(after.path());
        assert!(opened.key() == new);
        assert_eq!(opened.summary().unwrap().records, 0);
        check(&opened);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let blobs = after.path().join("blobs");
        while fs::read_dir(&blobs).unwrap().count() > 0 {
            assert!(std::time::Instant::now() < deadline, "files of the old account stay");
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        opened.close();
        assert_eq!(fs::read_to_string(after.path().join("key")).unwrap(), format!("{}\n", *new.to_text()));
        let db = sled::open(after.path().join("store/sled")).unwrap();
        assert!(db.tree_names().iter().all(|tree| !String::from_utf8_lossy(tree).ends_with(&account)));
    }
}

#[test]
fn where_the_account_stays_either_key_opens_what_a_crash_leaves() {
    let device = device();
    let content = device.content();
    device.store.clone().close();
    let blind = crashed(&device, &[&server_key(1)]);
    let store = open(blind.path());
    assert!(store.is_blind());
    check(&store);
    store.close();
    fs::write(blind.path().join("key"), format!("{}\n", *full_key(1).to_text())).unwrap();
    let again = Replica { store: open(blind.path()), directory: blind };
    assert_eq!(again.content(), content);
}

#[test]
fn what_was_verified_for_a_blind_store_is_not_merged_into_a_device() {
    let server = Replica::new(&server_key(1));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let merging = std::thread::spawn({
        let store = server.store.clone();
        move || {
            for time_us in 1.. {
                if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                    return;
                }
                // One that comes in the middle of the change is an error, and any after it is refused.
                let _ = store.merge(store.identity().1, vec![made_up(time_us)], OTHER, None);
            }
        }
    });
    server.store.change_key(full_key(1), true).unwrap();
    check(&server.store);
    drop(stop);
    merging.join().unwrap();
    assert_eq!(server.content().len(), 0);
    check(&server.store);
}

/// A record of nothing that names the file of another's value.
fn made_up_of(file: &Clear) -> Travelling {
    let clear = Clear { id: RecordId([77; 16]), ..*file };
    let keys = Keys::derive(&EncryptionKey::new([66; 32]));
    Travelling { record: seal::seal(&keys, &clear, b"header"), value: None }
}

#[test]
fn what_was_made_up_takes_no_value_with_it_when_it_goes() {
    let device = device();
    let large = device.records().iter().map(|record| Clear::parse(&record.record.clear).unwrap()).find(Clear::has_blob);
    let large = large.unwrap();
    for is_replaced in [false, true] {
        let server = server_of(&device);
        let lie = made_up_of(&large);
        assert_eq!(server.store.merge(server.store.identity().1, vec![lie.clone()], OTHER, None).unwrap().stored, 1);
        if is_replaced {
            let stamp = Stamp { time_us: large.stamp.time_us + 1, ..large.stamp };
            let later = Clear { stamp, size: 0, value_hash: ValueHash::NONE, kind: Kind::REMOVAL, ..large };
            let clear = Clear { id: RecordId([77; 16]), ..later };
            let keys = Keys::derive(&EncryptionKey::new([66; 32]));
            let later = Travelling { record: seal::seal(&keys, &clear, b"header"), value: None };
            assert_eq!(server.store.merge(server.store.identity().1, vec![later], OTHER, None).unwrap().stored, 1);
        }
        // With the encryption key it is known what was made up; what that took away comes again from a device.
        server.store.change_key(full_key(1), false).unwrap();
        check(&server.store);
        server.pull(&device);
        assert_eq!(server.content(), device.content(), "{is_replaced}");
        check(&server.store);
        let mut server = server;
        server.restart();
        assert_eq!(server.content(), device.content(), "{is_replaced}, after a start");
    }
}
