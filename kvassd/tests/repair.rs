//! What a repair gives back beside entries, and what it must never make of a store whose key was hit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod replica;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use files::copy;
use kvassd::keys::Key;
use kvassd::store::{OpenError, Store, repair};
use replica::{OPTIONS, Replica, bytes, full_key, open, server_key};

const REMOTE: &str = "http://example.org:8000";

/// A store with entries and settings, and its directory once it is closed.
fn closed(key: &Key) -> Replica {
    let replica = Replica::new(key);
    if !replica.store.is_blind() {
        replica.set("small", b"value");
        replica.set("large", &bytes(100_000));
    }
    replica.store.set_remote(REMOTE.into()).unwrap();
    replica.store.set_public_url("https://example.org/kv").unwrap();
    replica.store.set_pid(7).unwrap();
    replica.store.clone().close();
    replica
}

fn refused(directory: &Path) -> String {
    match Store::open(directory, OPTIONS, &|_| {}) {
        Ok(_) => panic!("it opened"),
        Err(error) => {
            assert!(error.is_damage(), "{error}");
            error.to_string()
        }
    }
}

fn set_up(store: &Store) -> (String, String, u32) {
    let public_url = store.public_url().borrow().own.clone();
    (store.remote().borrow().clone(), public_url, store.summary().unwrap().pid)
}

#[test]
fn a_repair_keeps_the_remote_the_public_url_and_the_process_id() {
    for key in [full_key(1), server_key(1)] {
        let original = closed(&key);
        // Whether sled opens what is left of its files or not.
        for file in ["store/witness", "store/sled/conf", "store/sled/db"] {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let hit = fs::File::options().write(true).open(directory.path().join(file)).unwrap();
            hit.write_all_at(&[7; 100], 0).unwrap();
            hit.write_all_at(&[7; 100], 4_096).unwrap();
            // sled does without its settings, and may wipe what follows damage.
            if let Ok(store) = Store::open(directory.path(), OPTIONS, &|_| {}) {
                store.close();
            }
            repair(directory.path(), &mut |_| {}).unwrap();
            for _ in 0..2 {
                let store = open(directory.path());
                let expected = (REMOTE.to_owned(), "https://example.org/kv".to_owned(), 7);
                assert_eq!(set_up(&store), expected, "{file}");
                store.close();
            }
        }
    }
}

#[test]
fn a_repair_keeps_what_was_set_last_also_under_another_key() {
    let mut replica = closed(&full_key(1));
    replica.restart();
    replica.store.set_remote("http://other.example".into()).unwrap();
    replica.store.change_key(full_key(2), true).unwrap();
    replica.store.set_public_url("").unwrap();
    replica.store.clone().close();
    fs::write(replica.path().join("store/sled/conf"), b"damage").unwrap();
    repair(replica.path(), &mut |_| {}).unwrap();
    let store = open(replica.path());
    assert_eq!(set_up(&store), ("http://other.example".to_owned(), String::new(), 7));
    store.close();
}

#[test]
fn a_repair_says_which_remote_it_found() {
    let replica = closed(&full_key(1));
    assert_eq!(repair(replica.path(), &mut |_| {}).unwrap().remote, REMOTE);
    fs::write(replica.path().join("store/sled/db"), b"").unwrap();
    let repaired = repair(replica.path(), &mut |_| {}).unwrap();
    assert_eq!((repaired.kept, repaired.remote.as_str()), (0, ""));
}

#[test]
fn a_store_whose_key_file_holds_another_key_is_refused_and_no_repair_makes_an_empty_one_of_it() {
    for key in [full_key(1), server_key(1)] {
        let original = closed(&key);
        for (text, words) in [
            (full_key(3).to_text(), "the key of another store"),
            (server_key(3).to_text(), "the key of another store"),
            (String::new().into(), "no key"),
            ("\n".to_owned().into(), "no key"),
            (original.key_file()[..40].to_owned().into(), "no key"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let path = directory.path().join("key");
            fs::write(&path, &*text).unwrap();
            let error = refused(directory.path());
            assert!(error.contains("its key file holds ") && error.ends_with(words), "{error}");
            let error = repair(directory.path(), &mut |_| {}).unwrap_err();
            assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains(words)), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), *text);
            // Put back, it opens what is there.
            fs::write(&path, original.key_file()).unwrap();
            assert_eq!(set_up(&open(directory.path())).0, REMOTE);
        }
    }
}

#[test]
fn a_key_from_before_a_change_is_refused_and_no_repair_makes_the_old_store_of_it() {
    let mut replica = closed(&full_key(1));
    let old = replica.key_file();
    replica.restart();
    replica.store.change_key(full_key(2), true).unwrap();
    replica.set("after", b"value");
    replica.store.clone().close();
    let new = replica.key_file();
    fs::write(replica.path().join("key"), &old).unwrap();
    assert!(refused(replica.path()).contains("the key of another store"));
    let error = repair(replica.path(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("the key of another store"), "{error}");
    fs::write(replica.path().join("key"), &new).unwrap();
    assert_eq!(open(replica.path()).summary().unwrap().keys, 3);
}

#[test]
fn an_index_from_before_a_change_of_key_is_damage_and_its_log_is_kept() {
    let mut replica = closed(&full_key(1));
    let before = tempfile::tempdir().unwrap();
    copy(replica.path(), before.path());
    replica.restart();
    replica.store.change_key(full_key(2), true).unwrap();
    replica.store.clone().close();
    let index = replica.path().join("store/sled");
    fs::remove_dir_all(&index).unwrap();
    fs::create_dir(&index).unwrap();
    copy(&before.path().join("store/sled"), &index);
    let error = refused(replica.path());
    assert!(error.contains("its index is older than its key"), "{error}");
    assert!(replica.path().join("store/db.before").exists());
}

#[test]
fn a_key_of_another_store_is_not_taken_for_it_where_the_witness_is_damaged_too() {
    let replica = closed(&full_key(1));
    fs::write(replica.path().join("key"), &*full_key(3).to_text()).unwrap();
    fs::write(replica.path().join("store/witness"), b"damage").unwrap();
    let error = repair(replica.path(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("the key of another store"), "{error}");
}

#[test]
fn a_repair_mends_one_wrong_bit_of_the_key_file() {
    for key in [full_key(1), server_key(1)] {
        let original = closed(&key);
        let whole = original.key_file();
        for at in [0, 20, whole.len() - 2, whole.len() - 1] {
            for bit in 0..8 {
                let directory = tempfile::tempdir().unwrap();
                copy(original.path(), directory.path());
                let path = directory.path().join("key");
                let mut flipped = whole.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                // Either case of a letter is the same key.
                if Store::open(directory.path(), OPTIONS, &|_| {}).is_err_and(|error| error.is_damage()) {
                    repair(directory.path(), &mut |_| {}).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
                }
                let store = open(directory.path());
                assert_eq!(store.key().to_text(), key.to_text(), "bit {bit} of byte {at}");
                assert_eq!(set_up(&store).0, REMOTE);
                store.close();
            }
        }
    }
}
