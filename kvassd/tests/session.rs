//! Two stores in a session, over channels in the place of a network that can be cut.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod wire;

use std::time::Duration;

use kvassd::store::{Options, Seq, Store, WriteError};
use kvassd::sync::session::{Ended, SessionError};
use wire::{Device, KEY, OPTIONS, PATIENCE, Wire, bytes, copied, open, slow};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_and_what_comes_reaches_the_other_side_both_ways() {
    let (a, b) = (Device::new(), Device::new());
    for at in 0..600 {
        a.set(&format!("a{at}"), vec![7; at % 300]).await;
    }
    b.set("b", b"from b".to_vec()).await;
    let wire = Wire::new(&a, &b);
    b.sees("a599", Some(&vec![7; 599 % 300])).await;
    a.sees("b", Some(b"from b")).await;
    b.set("live", b"1".to_vec()).await;
    a.sees("live", Some(b"1")).await;
    a.set("live", b"2".to_vec()).await;
    b.sees("live", Some(b"2")).await;
    a.store.remove(vec!["b".into()]).unwrap();
    b.sees("b", None).await;
    assert_eq!(a.store.digest().unwrap(), b.store.digest().unwrap());
    let skew = wire.progress[0].borrow().skew_us;
    assert!(skew.abs() < 5_000_000 && wire.progress[0].borrow().peer == Some(b.store.identity().0));
    wire.stops[0].cancel();
    let [ended_a, ended_b] = wire.ended().await;
    assert_eq!((ended_a.unwrap(), ended_b.unwrap()), (Ended::Stopped, Ended::Again));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_travel_and_small_changes_do_not_wait_behind_them() {
    let (a, b) = (Device::new(), Device::new());
    let large = bytes(20_000_000);
    a.set("large", large.clone()).await;
    let wire = Wire::new(&a, &b);
    a.set("small", b"x".to_vec()).await;
    b.sees("small", Some(b"x")).await;
    b.sees("large", Some(&large)).await;
    b.store.check(&mut |finding| panic!("{finding:?}")).unwrap();
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change_behind_a_large_value_is_known_to_be_held_at_once() {
    let (a, b) = (Device::new(), Device::new());
    a.set("large", bytes(6_000_000)).await;
    a.set("small", b"x".to_vec()).await;
    a.set("later", b"x".to_vec()).await;
    let mut changed = a.store.peers_changed();
    // Only the beginning of the value comes through, then nothing more.
    let wire = Wire::stalled(&a, &b, 20);
    let peer = b.store.identity().0;
    let held = async {
        while !a.store.is_held("later", peer) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
    assert!(a.store.is_held("small", peer) && !a.store.is_held("large", peer));
    assert_eq!(a.store.pending(peer).unwrap(), 1);
    assert!(a.store.peer(peer).acknowledged < Seq(1));
    wire.cut().await;
}

#[tokio::test(start_paused = true)]
async fn many_values_do_not_take_a_round_trip_each() {
    let (a, b) = (Device::new(), Device::new());
    for at in 0..300 {
        a.set(&format!("file{at}"), bytes(10_000 + at)).await;
    }
    let began = tokio::time::Instant::now();
    let wire = slow(&a, &b, 100_000_000, Duration::from_millis(25));
    for at in 0..300 {
        b.sees(&format!("file{at}"), Some(&bytes(10_000 + at))).await;
    }
    // The time is simulated: what passes is only what the line takes.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?} for 300 values and 50 ms there and back");
    wire.cut().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_of_some_kilobytes_does_not_wait_for_a_large_one() {
    let (a, b) = (Device::new(), Device::new());
    let large = bytes(20_000_000);
    a.set("large", large.clone()).await;
    let wire = slow(&a, &b, 1_000_000, Duration::from_millis(10));
    a.set("first", b"x".to_vec()).await;
    b.sees("first", Some(b"x")).await;
    for at in 0..10 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let began = tokio::time::Instant::now();
        let name = format!("file{at}");
        a.set(&name, bytes(6_000)).await;
        b.sees(&name, Some(&bytes(6_000))).await;
        let took = began.elapsed();
        assert!(took < Duration::from_millis(600), "{took:?}");
    }
    assert_eq!(b.get("large").await, None);
    b.sees("large", Some(&large)).await;
    wire.cut().await;
}

/// Takes space away until it is dropped.
struct Filler(std::path::PathBuf);

impl Filler {
    fn new(path: std::path::PathBuf, bytes: u64) -> Self {
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), bytes), &mut file).unwrap();
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_full_disk_makes_a_session_wait_and_it_goes_on_by_itself() {
    // A file system in memory: what others do to the disk does not change its free space.
    let place = std::path::Path::new("/dev/shm");
    let Ok(disk) = nix::sys::statvfs::statvfs(place) else { return eprintln!("SKIPPED: there is no /dev/shm") };
    let free = disk.blocks_available() * disk.fragment_size();
    if free < 400 << 20 {
        return eprintln!("SKIPPED: /dev/shm has too little space");
    }
    let directory = tempfile::tempdir_in(place).unwrap();
    let store = Store::open(directory.path(), Options { reserve: free - (60 << 20), ..OPTIONS }, &|_| {}).unwrap();
    store.set_key(Some(&KEY)).unwrap();
    let (a, b) = (Device::new(), Device { directory, store });
    a.set("before", b"1".to_vec()).await;
    let mut wire = Wire::new(&a, &b);
    b.sees("before", Some(b"1")).await;
    let filler = Filler::new(b.directory.path().join("filler"), 80 << 20);
    a.set("small", b"2".to_vec()).await;
    a.set("large", bytes(300_000)).await;
    let full = wire.progress[1].wait_for(|progress| progress.full);
    tokio::time::timeout(PATIENCE, full).await.unwrap().unwrap();
    // Reads go on, and what frees space is taken; all else waits.
    assert_eq!(b.get("before").await.unwrap(), b"1");
    a.store.remove(vec!["before".into()]).unwrap();
    b.sees("before", None).await;
    assert_eq!((b.get("small").await, b.get("large").await), (None, None));
    assert!(b.store.peer(a.store.identity().0).held.map_or(Seq(0), |held| held.seq) < a.store.head());
    drop(filler);
    b.sees("small", Some(b"2")).await;
    b.sees("large", Some(&bytes(300_000))).await;
    let has_space = wire.progress[1].wait_for(|progress| !progress.full);
    tokio::time::timeout(PATIENCE, has_space).await.unwrap().unwrap();
    assert_eq!(a.store.digest().unwrap(), b.store.digest().unwrap());
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_written_ends_the_session() {
    let (a, b) = (Device::new(), Device::new());
    a.set("large", bytes(100_000)).await;
    let blobs = b.directory.path().join("blobs");
    std::fs::rename(&blobs, b.directory.path().join("elsewhere")).unwrap();
    let [_, ended] = Wire::new(&a, &b).ended().await;
    assert!(matches!(ended, Err(SessionError::Write(WriteError::Io { .. }))), "{ended:?}");
    std::fs::rename(b.directory.path().join("elsewhere"), &blobs).unwrap();
    let wire = Wire::new(&a, &b);
    b.sees("large", Some(&bytes(100_000))).await;
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_cut_goes_on_where_it_stopped() {
    let (a, b) = (Device::new(), Device::new());
    let large = bytes(6_000_000);
    a.set("large", large.clone()).await;
    a.set("after", b"x".to_vec()).await;
    // Cut within the value, again and again, a little later each time.
    for frames in [6, 40, 90] {
        let wire = Wire::meddling(&a, &b, move |number, frame| (number < frames).then_some(frame));
        let [_, ended_b] = wire.ended().await;
        assert_eq!(ended_b.unwrap(), Ended::Gone);
        assert_eq!(b.get("large").await, None);
        let held = b.store.peer(a.store.identity().0).held.map_or(Seq(0), |held| held.seq);
        assert!(held < a.store.head(), "the cursor passed a value that is not here");
    }
    let wire = Wire::new(&a, &b);
    b.sees("large", Some(&large)).await;
    assert_eq!(b.get("after").await.unwrap(), b"x");
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_devices_meet_through_one() {
    let (a, hub, c) = (Device::new(), Device::new(), Device::new());
    let wires = [Wire::new(&a, &hub), Wire::new(&c, &hub)];
    a.set("x", b"from a".to_vec()).await;
    c.sees("x", Some(b"from a")).await;
    c.set("x", bytes(50_000)).await;
    a.sees("x", Some(&bytes(50_000))).await;
    assert_eq!(a.store.digest().unwrap(), c.store.digest().unwrap());
    for wire in wires {
        wire.cut().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_frame_ends_the_session_and_nothing_of_it_is_kept() {
    let (a, b) = (Device::new(), Device::new());
    a.set("x", b"1".to_vec()).await;
    let wire = Wire::meddling(&a, &b, |number, mut frame| {
        if number == 2 {
            frame[3] ^= 1;
        }
        Some(frame)
    });
    let [_, ended_b] = wire.ended().await;
    assert!(matches!(ended_b, Err(SessionError::Channel(_))));
    assert_eq!(b.get("x").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_does_not_sync_with_itself() {
    let a = Device::new();
    let same = Device { directory: tempfile::tempdir().unwrap(), store: a.store.clone() };
    let ended = Wire::new(&a, &same).ended().await;
    assert!(ended.iter().any(|ended| matches!(ended, Err(SessionError::Itself))));
    assert!(ended.iter().all(|ended| !matches!(ended, Ok(Ended::Again))));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_store_and_its_copy_the_one_that_connects_takes_another_id() {
    let mut a = Device::new();
    a.set("x", b"1".to_vec()).await;
    let original = a.store.identity().0;
    a.store.clone().close();
    let copy = copied(a.directory.path());
    a.store = open(a.directory.path());
    copy.set("y", b"2".to_vec()).await;
    a.set("z", b"3".to_vec()).await;
    let [ended_copy, _] = Wire::new(&copy, &a).ended().await;
    assert_eq!(ended_copy.unwrap(), Ended::Again);
    assert_ne!(copy.store.identity().0, original);
    assert_eq!(a.store.identity().0, original);
    let wire = Wire::new(&copy, &a);
    a.sees("y", Some(b"2")).await;
    copy.sees("z", Some(b"3")).await;
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_notices_and_gets_its_lost_writes_again() {
    let (mut a, b) = (Device::new(), Device::new());
    a.set("x", b"1".to_vec()).await;
    let wire = Wire::new(&a, &b);
    b.sees("x", Some(b"1")).await;
    wire.cut().await;
    a.store.clone().close();
    let backup = copied(a.directory.path());
    a.store = open(a.directory.path());
    a.set("y", b"after the backup".to_vec()).await;
    let wire = Wire::new(&a, &b);
    b.sees("y", Some(b"after the backup")).await;
    wire.cut().await;

    let before = backup.store.identity().0;
    let [ended_backup, ended_b] = Wire::new(&backup, &b).ended().await;
    assert_eq!((ended_backup.unwrap(), ended_b.unwrap()), (Ended::Again, Ended::Again));
    assert_ne!(backup.store.identity().0, before);
    let wire = Wire::new(&backup, &b);
    backup.sees("y", Some(b"after the backup")).await;
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_gets_also_what_was_merged_before_the_cursor_passed_it() {
    let (mut a, b) = (Device::new(), Device::new());
    a.set("large", bytes(6_000_000)).await;
    a.store.clone().close();
    let backup = copied(a.directory.path());
    a.store = open(a.directory.path());
    a.set("small", b"after the backup".to_vec()).await;
    // It is merged, and the cursor stays before the large value.
    let wire = Wire::meddling(&a, &b, |number, frame| (number < 40).then_some(frame));
    let [_, ended_b] = wire.ended().await;
    assert_eq!(ended_b.unwrap(), Ended::Gone);
    b.sees("small", Some(b"after the backup")).await;

    let wire = Wire::new(&backup, &b);
    backup.sees("small", Some(b"after the backup")).await;
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_put_back_is_not_taken_to_hold_what_it_held_once() {
    let (a, b) = (Device::new(), Device::new());
    a.set("x", b"1".to_vec()).await;
    let peer = b.store.identity().0;
    a.store.acknowledge(a.store.identity().1, peer, a.store.head(), &[]);
    // Only the greetings pass.
    let wire = Wire::meddling(&a, &b, |number, frame| (number < 2).then_some(frame));
    let _ = wire.ended().await;
    assert_eq!((a.store.peer(peer).acknowledged, b.get("x").await), (Seq(0), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_key_ends_the_session() {
    let (a, b) = (Device::new(), Device::new());
    let wire = Wire::new(&a, &b);
    a.set("x", b"1".to_vec()).await;
    b.sees("x", Some(b"1")).await;
    let store = a.store.clone();
    tokio::task::spawn_blocking(move || store.set_key(None).unwrap()).await.unwrap();
    let [ended_a, ended_b] = wire.ended().await;
    assert_eq!((ended_a.unwrap(), ended_b.unwrap()), (Ended::Again, Ended::Again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_right_after_the_handshake_ends_the_session_before_it_begins() {
    let (a, b) = (Device::new(), Device::new());
    a.set("x", b"1".to_vec()).await;
    b.set("y", b"2".to_vec()).await;
    for store in [a.store.clone(), b.store.clone()] {
        tokio::task::spawn_blocking(move || store.set_key(Some(&[6; 32])).unwrap()).await.unwrap();
    }
    // Both ends of the channel have shown that they hold the old key.
    let [ended_a, ended_b] = Wire::new(&a, &b).ended().await;
    assert_eq!((ended_a.unwrap(), ended_b.unwrap()), (Ended::Again, Ended::Again));
    assert!(a.store.peers().is_empty() && b.store.peers().is_empty());
}
