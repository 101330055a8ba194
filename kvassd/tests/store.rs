//! The store through its public face: what goes in comes out, also after it was closed, damaged, re-keyed, repaired.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use files::copy;
use kvassd::clock::Clock;
use kvassd::keys::{EncryptionKey, Key};
use kvassd::random::Random;
use kvassd::store::{Condition, Disk, OpenError, Options, Outcome, ReadError, Store, Surroundings, WriteError, repair};
use tempfile::TempDir;

const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };

fn open(directory: &Path) -> Store {
    Store::open(directory, OPTIONS, &|_| {}).unwrap()
}

fn set(store: &Store, name: &str, value: &[u8]) {
    let mut writer = store.writer(Some(value.len() as u64)).unwrap();
    for part in value.chunks(100_000) {
        writer.push(part).unwrap();
    }
    store.set(name, writer.finish().unwrap(), 0).unwrap();
}

fn get(store: &Store, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
    let Some((entry, mut reader)) = store.read(name)? else { return Ok(None) };
    let mut value = Vec::new();
    while reader.next(&mut value)? {}
    assert_eq!(entry.size, value.len() as u64);
    Ok(Some(value))
}

fn names(store: &Store) -> Vec<String> {
    store.entries("", None, false, usize::MAX).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Bytes that look random and are the same for the same seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

fn blob_files(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory.join("blobs")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// A store with short and long values and a removal, closed.
fn filled(keys: usize) -> (TempDir, BTreeMap<String, Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut expected = BTreeMap::new();
    for at in 0..keys {
        let length = if at % 10 == 9 { 5_000 + at } else { at % 300 };
        expected.insert(format!("key/{at:05}"), bytes(at as u64, length));
    }
    for (name, value) in &expected {
        set(&store, name, value);
    }
    set(&store, "gone", b"x");
    store.remove(vec!["gone".into()]).unwrap();
    store.close();
    (directory, expected)
}

fn assert_whole(store: &Store, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(names(store), expected.keys().cloned().collect::<Vec<_>>());
    for (name, value) in expected {
        assert_eq!(get(store, name).unwrap().as_ref(), Some(value), "{name}");
    }
}

#[test]
fn a_store_gives_a_sign_of_life_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), OPTIONS, &|_| {}).unwrap();
    assert!(store.is_alive());
    store.clone().close();
    assert!(!store.is_alive());
}

#[test]
fn an_index_whose_lock_is_still_held_by_what_was_just_closed_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).close();
    let held = fs::File::open(directory.path().join("store/sled/db")).unwrap();
    held.lock().unwrap();
    let path = directory.path().to_owned();
    let (done, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(Store::open(&path, OPTIONS, &|_| {}).map(Store::close)).unwrap());
    // Nothing may come while it is held, however long that is looked at.
    assert!(opened.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    drop(held);
    opened.recv().unwrap().unwrap();
}

#[test]
fn values_of_every_size_come_back_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let sizes = [0, 1, 4_095, 4_096, 4_097, 32_767, 32_768, 32_769, 524_288, 524_289, 1_048_576, 1_048_577, 9_000_000];
    let expected: BTreeMap<_, _> =
        sizes.iter().map(|size| (format!("{size:08}"), bytes(*size as u64, *size))).collect();
    for (name, value) in &expected {
        set(&store, name, value);
    }
    assert_whole(&store, &expected);
    store.close();
    assert_whole(&open(directory.path()), &expected);
    assert_eq!(fs::read_dir(directory.path().join("store/sled/blobs")).unwrap().count(), 0, "sled's own blobs");
}

#[test]
fn a_replaced_or_removed_large_value_gives_its_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    set(&store, "a", &bytes(1, 100_000));
    set(&store, "a", &bytes(2, 100_000));
    assert_eq!(blob_files(directory.path()).len(), 1);
    set(&store, "a", b"short");
    assert_eq!(blob_files(directory.path()).len(), 0);
    set(&store, "a", &bytes(3, 100_000));
    assert_eq!(store.remove(vec!["a".into(), "b".into()]).unwrap(), ["b"]);
    assert_eq!(blob_files(directory.path()).len(), 0);
    assert_eq!(get(&store, "a").unwrap(), None);
}

#[test]
fn an_unfinished_value_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut writer = store.writer(None).unwrap();
    writer.push(&bytes(1, 3_000_000)).unwrap();
    drop(writer);
    let mut writer = store.writer(None).unwrap();
    writer.push(&bytes(1, 30_000)).unwrap();
    drop(writer.finish().unwrap());
    store.close();
    // The threads of an abandoned value may still remove its file; what a crash leaves goes at the next start.
    open(directory.path()).close();
    assert_eq!(blob_files(directory.path()), [""; 0]);
}

#[test]
fn a_value_over_the_limit_is_refused_as_soon_as_it_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Options { value_max: 10_000, ..OPTIONS }, &|_| {}).unwrap();
    assert!(matches!(store.writer(Some(10_001)), Err(WriteError::TooLarge { size: 10_001, most: 10_000 })));
    let mut writer = store.writer(None).unwrap();
    writer.push(&[0; 10_000]).unwrap();
    assert!(matches!(writer.push(&[0]), Err(WriteError::TooLarge { .. })));
}

#[test]
fn many_writers_at_once_are_all_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let store = store.clone();
            scope.spawn(move || {
                for at in 0..50 {
                    set(&store, &format!("{writer}/{at}"), format!("{writer} {at}").as_bytes());
                    set(&store, "shared", format!("{writer} {at}").as_bytes());
                }
            });
        }
    });
    assert_eq!(names(&store).len(), 16 * 50 + 1);
    let shared = get(&store, "shared").unwrap();
    store.close();
    let store = open(directory.path());
    assert_eq!(get(&store, "shared").unwrap(), shared);
    assert_eq!(get(&store, "7/49").unwrap().unwrap(), b"7 49");
}

#[test]
fn changes_show_each_entry_once_with_its_newest_state() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let start = store.position();
    for at in 0..10 {
        set(&store, "a", format!("{at}").as_bytes());
    }
    set(&store, "b", b"x");
    store.remove(vec!["b".into()]).unwrap();
    let (changes, end) = store.changes(start, 100).unwrap();
    let seen: Vec<_> = changes.iter().map(|change| (change.removed, change.entry.name.as_str())).collect();
    assert_eq!(seen, [(false, "a"), (true, "b")]);
    assert_eq!(end, store.position());
    assert!(store.changes(end, 100).unwrap().0.is_empty());

    // A place is good in the next life of the store, and after a change of key it is now.
    store.close();
    let store = open(directory.path());
    set(&store, "c", b"y");
    assert_eq!(store.changes(end, 100).unwrap().0.len(), 1);
    store.set_key(None).unwrap();
    assert_eq!(store.changes(end, 100).unwrap(), (Vec::new(), store.position()));
}

#[test]
fn an_import_stores_what_differs_and_keeps_what_is_newer() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let long = bytes(1, 50_000);
    set(&store, "short", b"a");
    set(&store, "long", &long);
    let import = |name: &str, value: &[u8], time_us, force, dry_run| {
        let mut writer = store.writer(None).unwrap();
        writer.push(value).unwrap();
        let condition = Condition { time_us, force, dry_run };
        store.import(name, writer.finish().unwrap(), 0, condition).unwrap()
    };
    let far = u64::MAX >> 2;
    assert_eq!(import("short", b"a", 0, true, false), Outcome::Unchanged);
    assert_eq!(import("long", &long, 0, true, false), Outcome::Unchanged);
    assert_eq!(import("short", b"b", 1, false, false), Outcome::KeptNewer);
    assert_eq!(import("short", b"b", 1, false, true), Outcome::KeptNewer);
    assert_eq!(import("short", b"b", far, false, true), Outcome::Stored);
    assert_eq!(get(&store, "short").unwrap().unwrap(), b"a");
    assert_eq!(import("short", b"b", far, false, false), Outcome::Stored);
    assert_eq!(import("long", &bytes(2, 50_000), 1, true, false), Outcome::Stored);
    assert_eq!(import("new", b"n", 1, false, false), Outcome::Stored);
    assert_eq!(get(&store, "short").unwrap().unwrap(), b"b");
    assert_eq!(get(&store, "long").unwrap().unwrap(), bytes(2, 50_000));
    assert_eq!(blob_files(directory.path()).len(), 1);
}

#[test]
fn an_expired_entry_is_hidden_and_can_be_set_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut writer = store.writer(None).unwrap();
    writer.push(b"old").unwrap();
    store.set("a", writer.finish().unwrap(), 1).unwrap();
    assert_eq!(get(&store, "a").unwrap(), None);
    assert_eq!(names(&store), [""; 0]);
    assert_eq!(store.remove(vec!["a".into()]).unwrap(), ["a"]);
    set(&store, "a", b"new");
    assert_eq!(get(&store, "a").unwrap().unwrap(), b"new");
}

#[test]
fn removal_by_prefix_takes_a_namespace_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for at in 0..600 {
        set(&store, &format!("a/{at}"), b"");
    }
    set(&store, "a", b"");
    set(&store, "b/1", b"");
    assert_eq!(store.remove_prefix("a/").unwrap(), 600);
    assert_eq!(store.remove_prefix("a/").unwrap(), 0);
    assert_eq!(names(&store), ["a", "b/1"]);
}

#[test]
fn a_new_key_keeps_every_entry_and_what_is_written_meanwhile() {
    let (directory, mut expected) = filled(2_000);
    let store = open(directory.path());
    let before = store.summary().unwrap().fingerprint;
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = BTreeMap::new();
            for at in 0..200 {
                let name = format!("key/{:05}", at * 10 + at % 10);
                let value = bytes(at as u64 + 7, if at % 3 == 0 { 6_000 } else { 20 });
                set(&store, &name, &value);
                written.insert(name, value);
            }
            written
        });
        store.set_key(Some(&[7; 32])).unwrap();
        writer.join().unwrap()
    });
    expected.extend(written);
    assert_ne!(store.summary().unwrap().fingerprint, before);
    assert!(store.key() == Key::Encryption(EncryptionKey::new([7; 32])));
    assert_whole(&store, &expected);
    store.remove(vec!["key/00009".into()]).unwrap();
    expected.remove("key/00009");
    store.close();
    assert_eq!(fs::read_to_string(directory.path().join("key")).unwrap(), format!("{}\n", "07".repeat(32)));
    let store = open(directory.path());
    assert_whole(&store, &expected);
    assert_eq!(store.check(&mut |finding| panic!("{finding:?}")).unwrap().records as usize, expected.len() + 2);
    assert_eq!(blob_files(directory.path()).len(), expected.values().filter(|value| value.len() > 4_096).count());
}

#[test]
fn a_new_key_comes_into_force_however_much_is_written() {
    let (directory, _) = filled(2_000);
    let store = open(directory.path());
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..24 {
            let (store, done, written) = (store.clone(), &done, &written);
            scope.spawn(move || {
                for at in 0.. {
                    if done.load(Ordering::Relaxed) {
                        written.fetch_add(at, Ordering::Relaxed);
                        break;
                    }
                    set(&store, &format!("new/{writer}/{at}"), b"x");
                }
            });
        }
        let changing = {
            let store = store.clone();
            scope.spawn(move || store.set_key(None).unwrap())
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !changing.is_finished() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        let in_time = changing.is_finished();
        done.store(true, Ordering::Relaxed);
        assert!(in_time, "the key did not change beside the writes");
    });
    assert_eq!(names(&store).len() as u64, 2_000 + written.load(Ordering::Relaxed));
    store.check(&mut |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn the_process_id_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.set_pid(4_294_967_295).unwrap();
    assert!(matches!(store.set_pid(0), Err(WriteError::Refused(_))));
    store.close();
    assert_eq!(open(directory.path()).summary().unwrap().pid, 4_294_967_295);
}

#[test]
fn a_store_that_lacks_a_part_is_damaged_and_never_new() {
    for part in ["key", "store", "store/witness", "store/sled/db", "store/sled"] {
        let (directory, _) = filled(20);
        let path = directory.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        for _ in 0..2 {
            let error = Store::open(directory.path(), OPTIONS, &|_| {}).map(|_| ()).unwrap_err();
            assert!(error.is_damage(), "{part}: {error}");
        }
    }
}

/// Why a store of another format does not open; the same the second time.
fn refused(format: u32) -> OpenError {
    let (directory, _) = filled(5);
    let db = sled::open(directory.path().join("store/sled")).unwrap();
    db.open_tree("meta").unwrap().insert("format", &format.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let refused = || Store::open(directory.path(), OPTIONS, &|_| {}).map(|_| ()).unwrap_err();
    let first = refused();
    assert_eq!(first.to_string(), refused().to_string());
    first
}

#[test]
fn a_store_of_another_format_is_refused_in_words_and_left_alone() {
    let newer = refused(9);
    assert!(matches!(newer, OpenError::NewerFormat { found: 9, known: 2, .. }), "{newer}");
    for format in [0, 1] {
        let older = refused(format);
        assert!(matches!(older, OpenError::OlderFormat { found, known: 2, .. } if found == format), "{older}");
        assert!(older.hint().contains("kvass export"), "{}", older.hint());
        assert!(!older.is_damage(), "a repair would find nothing in it");
    }
}

#[test]
fn an_older_index_than_the_last_acknowledged_write_is_refused() {
    let (directory, _) = filled(20);
    let old = tempfile::tempdir().unwrap();
    copy(&directory.path().join("store/sled"), &old.path().join("sled"));
    let store = open(directory.path());
    set(&store, "later", b"x");
    store.close();
    fs::remove_dir_all(directory.path().join("store/sled")).unwrap();
    copy(&old.path().join("sled"), &directory.path().join("store/sled"));
    let error = Store::open(directory.path(), OPTIONS, &|_| {}).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the store in {} is damaged: its index is older than the last acknowledged write",
            directory.path().display()
        )
    );
}

#[test]
fn a_record_that_disappeared_stops_writes() {
    let (directory, _) = filled(20);
    let db = sled::open(directory.path().join("store/sled")).unwrap();
    let records = db.tree_names().into_iter().find(|name| name.starts_with(b"records/")).unwrap();
    db.open_tree(records).unwrap().pop_min().unwrap();
    db.flush().unwrap();
    drop(db);
    let store = open(directory.path());
    assert!(matches!(store.entries("", None, false, 1), Err(ReadError::Damaged(_))));
    assert!(matches!(store.read("never there"), Err(ReadError::Damaged(_))));
    let mut writer = store.writer(None).unwrap();
    writer.push(b"x").unwrap();
    let refused = [
        store.remove(vec!["key/00001".into()]).map(drop),
        store.remove(vec!["never there".into()]).map(drop),
        store.remove_prefix("key/").map(drop),
        store.set_key(None),
        store.set("a", writer.finish().unwrap(), 0),
    ];
    for refused in refused {
        let said = refused.unwrap_err().to_string();
        assert_eq!(said, "the store is damaged: its records are not those of the last commit");
    }
}

#[test]
fn a_damaged_value_is_refused_found_and_the_rest_is_served() {
    let (directory, expected) = filled(30);
    let name = blob_files(directory.path()).remove(0);
    let file = fs::File::options().write(true).open(directory.path().join("blobs").join(&name)).unwrap();
    file.write_all_at(b"damage", 1_000).unwrap();
    let store = open(directory.path());
    let refused = expected.keys().filter(|name| matches!(get(&store, name), Err(ReadError::Value { .. }))).count();
    assert_eq!(refused, 1);
    assert_eq!(names(&store).len(), expected.len());
    let mut findings = Vec::new();
    store
        .check(&mut |finding| {
            findings.push(finding.problem);
            true
        })
        .unwrap();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].ends_with(&format!("is damaged: its file, blobs/{name}, does not verify")), "{findings:?}");
}

#[test]
fn a_value_whose_file_is_cut_or_changed_while_it_is_read_is_told_in_words() {
    for change in [|file: &fs::File| file.set_len(600_000), |file: &fs::File| file.write_all_at(b"damage", 700_000)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        set(&store, "long", &bytes(1, 1_000_000));
        let (_, mut reader) = store.read("long").unwrap().unwrap();
        let mut value = Vec::new();
        assert!(reader.next(&mut value).unwrap());
        let path = directory.path().join("blobs").join(&blob_files(directory.path())[0]);
        change(&fs::File::options().write(true).open(path).unwrap()).unwrap();
        let error = reader.next(&mut value).unwrap_err();
        assert!(matches!(&error, ReadError::Value { key, .. } if key == "long"), "{error:?}");
        assert_eq!(value, bytes(1, 1_000_000)[..value.len()]);
    }
}

#[test]
fn a_flipped_or_cut_tail_is_refused_or_whole_and_repair_keeps_what_is_readable() {
    let (original, expected) = filled(300);
    let db = original.path().join("store/sled/db");
    let content = fs::read(&db).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refused, mut kept) = (0, 0);
    for round in 0..24 {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        let mut damaged = content.clone();
        let at = end - (round * 997) % end.min(60_000);
        if round % 3 == 0 {
            damaged.truncate(at)
        } else {
            damaged[at] ^= 1 << (round % 8)
        }
        fs::write(directory.path().join("store/sled/db"), damaged).unwrap();
        let (store, repaired) = match Store::open(directory.path(), OPTIONS, &|_| {}) {
            Ok(store) => (store, false),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                refused += 1;
                repair(directory.path(), &mut |_| {}).unwrap();
                (open(directory.path()), true)
            }
        };
        for (name, value) in &expected {
            match get(&store, name) {
                Ok(Some(read)) => {
                    assert_eq!(&read, value);
                    kept += 1;
                }
                Ok(None) => assert!(repaired, "{name} is silently missing"),
                Err(error) => assert!(matches!(error, ReadError::Damaged(_) | ReadError::Value { .. }), "{error}"),
            }
        }
        store.close();
    }
    assert!(refused > 0, "no damage was noticed");
    assert!(kept > 24 * 250, "only {kept} values came back");
}

#[test]
fn one_flipped_bit_costs_a_repair_at_most_one_entry_also_after_an_opening_was_refused() {
    let original = tempfile::tempdir().unwrap();
    let store = open(original.path());
    let expected: BTreeMap<_, _> = (0..3_000).map(|at| (format!("key/{at:05}"), bytes(at, 300))).collect();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let (store, expected) = (store.clone(), &expected);
            scope.spawn(move || {
                expected.iter().skip(writer).step_by(16).for_each(|(name, value)| set(&store, name, value))
            });
        }
    });
    store.close();
    let content = fs::read(original.path().join("store/sled/db")).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    for at in [used / 10, used / 10 * 6, used / 10 * 8] {
        for opened in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let mut damaged = content.clone();
            damaged[at] ^= 4;
            fs::write(directory.path().join("store/sled/db"), damaged).unwrap();
            if opened && let Ok(store) = Store::open(directory.path(), OPTIONS, &|_| {}) {
                store.close();
            }
            repair(directory.path(), &mut |_| {}).unwrap();
            let store = open(directory.path());
            let kept = names(&store).len();
            assert!(kept + 1 >= expected.len(), "{kept} entries kept, opened before: {opened}");
            store.check(&mut |finding| panic!("{finding:?}")).unwrap();
            store.close();
        }
    }
}

#[test]
fn a_copy_of_the_log_stays_only_while_it_may_be_needed() {
    let (directory, expected) = filled(20);
    let before = directory.path().join("store/db.before");
    // As a crash in the middle of an opening leaves it.
    fs::copy(directory.path().join("store/sled/db"), &before).unwrap();
    let store = open(directory.path());
    assert_whole(&store, &expected);
    assert!(!before.exists());
    store.close();
    let db = directory.path().join("store/sled/db");
    fs::write(&db, vec![7; 1 << 20]).unwrap();
    for _ in 0..2 {
        assert!(Store::open(directory.path(), OPTIONS, &|_| {}).is_err_and(|error| error.is_damage()));
        assert_eq!(fs::read(&before).unwrap(), vec![7; 1 << 20]);
    }
}

#[test]
fn a_repair_can_be_repeated_at_once_and_finishes_what_a_crash_left() {
    let (directory, expected) = filled(20);
    let first = repair(directory.path(), &mut |_| {}).unwrap();
    let second = repair(directory.path(), &mut |_| {}).unwrap();
    assert_ne!(first.aside, second.aside);
    // Between the two renames of a repair or a rewrite.
    fs::rename(directory.path().join("store"), directory.path().join("store.next")).unwrap();
    assert_eq!(repair(directory.path(), &mut |_| {}).unwrap().kept as usize, expected.len());
    assert_whole(&open(directory.path()), &expected);
}

#[test]
fn repair_moves_the_old_store_aside_and_names_what_is_lost() {
    let (directory, expected) = filled(50);
    let long: Vec<_> = expected.iter().filter(|(_, value)| value.len() > 4_096).map(|(name, _)| name).collect();
    for name in blob_files(directory.path()).into_iter().take(2) {
        fs::remove_file(directory.path().join("blobs").join(name)).unwrap();
    }
    fs::remove_file(directory.path().join("store/witness")).unwrap();
    let repaired = repair(directory.path(), &mut |_| {}).unwrap();
    assert_eq!(repaired.lost.len(), 2);
    assert!(repaired.lost.iter().all(|name| long.contains(&name)));
    assert_eq!(repaired.kept as usize, expected.len() - 2);
    assert!(repaired.aside.join("store/sled/db").exists() && repaired.aside.join("key").exists());
    let store = open(directory.path());
    let whole = expected.into_iter().filter(|(name, _)| !repaired.lost.contains(name)).collect();
    assert_whole(&store, &whole);
    assert_eq!(get(&store, "gone").unwrap(), None);
}

#[test]
fn a_crash_between_the_renames_of_a_replacement_is_finished_at_the_next_start() {
    let (directory, expected) = filled(20);
    fs::rename(directory.path().join("store"), directory.path().join("store.next")).unwrap();
    let store = open(directory.path());
    assert_whole(&store, &expected);
    store.close();
    copy(&directory.path().join("store"), &directory.path().join("store.next"));
    copy(&directory.path().join("store"), &directory.path().join("store.new"));
    assert_whole(&open(directory.path()), &expected);
    assert!(!directory.path().join("store.next").exists() && !directory.path().join("store.new").exists());
}

#[test]
fn a_first_start_that_crashed_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("key.new"), "half a k").unwrap();
    fs::create_dir_all(directory.path().join("store.new/sled")).unwrap();
    let store = open(directory.path());
    set(&store, "a", b"b");
    store.close();
    // The last step of a first start: the store is in its place, the key not yet.
    fs::rename(directory.path().join("key"), directory.path().join("key.new")).unwrap();
    assert_eq!(get(&open(directory.path()), "a").unwrap().unwrap(), b"b");
}

#[test]
fn a_key_that_a_crash_left_beside_the_key_file_is_gone_after_the_next_start() {
    let (directory, expected) = filled(5);
    for name in ["key.tmp", "key.new.tmp", "key.new"] {
        fs::write(directory.path().join(name), "a key that never came into force\n").unwrap();
    }
    assert_whole(&open(directory.path()), &expected);
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    let keys = files.iter().filter(|name| name.to_string_lossy().starts_with("key"));
    assert_eq!(keys.collect::<Vec<_>>(), ["key"]);
}

#[test]
fn half_written_or_torn_snapshots_do_not_keep_a_store_from_opening() {
    let (directory, expected) = filled(50);
    let sled = directory.path().join("store/sled");
    fs::write(sled.join("snap.00000000000000ff.generating"), b"half").unwrap();
    let store = open(directory.path());
    assert_whole(&store, &expected);
    store.close();
    for file in fs::read_dir(&sled).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::write(path, b"torn").unwrap();
        }
    }
    fs::write(sled.join("snap.00000000ffffffff"), b"torn").unwrap();
    assert_whole(&open(directory.path()), &expected);
}

#[test]
fn a_store_that_has_outgrown_its_content_is_rewritten_at_a_start() {
    let (directory, expected) = filled(50);
    let store = open(directory.path());
    let big = vec![7; 4_000];
    std::thread::scope(|scope| {
        for writer in 0..32 {
            let (store, big) = (store.clone(), &big);
            scope.spawn(move || (0..700).for_each(|_| set(&store, &format!("w{writer}"), big)));
        }
    });
    store.remove_prefix("w").unwrap();
    let before = store.summary().unwrap().disk_bytes;
    store.close();
    let told = std::cell::RefCell::new(Vec::new());
    let store = Store::open(directory.path(), OPTIONS, &|doing| told.borrow_mut().push(doing.to_owned())).unwrap();
    assert_whole(&store, &expected);
    let after = store.summary().unwrap().disk_bytes;
    assert!(before < 64 << 20 || told.borrow().iter().any(|doing| doing.starts_with("rewriting")));
    assert!(before < 64 << 20 || after < before / 4, "{before} bytes before, {after} after");
}

/// A clock that stands still, and randomness that can be foreseen.
fn surroundings(threads: bool) -> Surroundings {
    let drawn = AtomicU64::new(0);
    let random = Random::new(move |to| {
        to.copy_from_slice(&bytes(drawn.fetch_add(1, Ordering::Relaxed), to.len()));
        Ok(())
    });
    Surroundings { clock: Clock::new(|| 1_700_000_000_000_000), random, threads, disk: Disk::system() }
}

#[test]
fn with_the_same_time_and_randomness_a_store_is_the_same_with_threads_and_without() {
    let lived = [true, false].map(|threads| {
        let (directory, surroundings) = (tempfile::tempdir().unwrap(), surroundings(threads));
        let open = || Store::open_in(directory.path(), OPTIONS, surroundings.clone(), &|_| {}).unwrap();
        let store = open();
        for at in 0..300 {
            set(&store, &format!("key/{at}"), &bytes(at, 30 * at as usize));
        }
        store.set_key(None).unwrap();
        store.remove(vec!["key/7".into()]).unwrap();
        store.fork(store.identity().0).unwrap();
        let left = (store.identity(), store.digest().unwrap(), store.key().to_text(), names(&store).len());
        store.clone().close();
        assert!(matches!(store.set_pid(7), Err(WriteError::Closed)));
        drop(store);
        let again = open();
        assert_eq!(get(&again, "key/299").unwrap().unwrap(), bytes(299, 30 * 299));
        assert_eq!((again.identity(), again.digest().unwrap(), names(&again).len()), (left.0, left.1, left.3));
        (left, again.run())
    });
    assert_eq!(lived[0], lived[1]);
}
