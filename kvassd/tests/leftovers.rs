//! What is left of values that came for nothing, or broke off on their way, takes no space.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod replica;

use kvassd::store::Seq;
use replica::{Replica, fetch, full_key, push};

#[test]
fn a_value_that_came_for_nothing_leaves_no_file() {
    let (a, b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    a.set("x", &[1; 5_000]);
    let (clear, ..) = b.take(&a);
    assert_eq!(b.files(), 1);
    b.set("x", &[2; 6_000]);
    b.pull(&a);
    assert_eq!((b.files(), b.get("x")), (1, Some(vec![2; 6_000])));
    // As a session that took it meanwhile.
    fetch(&b.store, &a.store, &clear);
    assert_eq!(b.files(), 2);
    let records = a.store.outgoing(Seq(0), b.store.opening(), 9).unwrap().records;
    let records = records.into_iter().map(|(_, record)| record).collect();
    b.store.merge(b.store.identity().1, records, a.store.opening(), None).unwrap();
    assert_eq!((b.files(), b.get("x")), (1, Some(vec![2; 6_000])));
    // Once more, with the very version that is here.
    let again = b.store.outgoing(Seq(0), a.store.opening(), 9).unwrap();
    let records = again.records.into_iter().map(|(_, record)| record).collect();
    b.store.merge(b.store.identity().1, records, a.store.opening(), again.cursor).unwrap();
    assert_eq!(b.get("x"), Some(vec![2; 6_000]));
}

#[test]
fn of_two_versions_that_come_together_one_leaves_a_file() {
    let (a, b, c) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    a.set("x", &[1; 5_000]);
    let (_, older, cursor) = c.take(&a);
    b.set("x", &[2; 5_000]);
    let (_, newer, _) = c.take(&b);
    assert_eq!(c.files(), 2);
    let records = vec![older, newer];
    c.store.merge(c.store.identity().1, records, a.store.opening(), cursor).unwrap();
    assert_eq!((c.files(), c.get("x")), (1, Some(vec![2; 5_000])));
}

#[test]
fn what_is_left_of_a_value_goes_once_its_entry_has_another_version() {
    let changes: [fn(&Replica, &Replica) -> usize; 3] = [
        |a, _| {
            a.set("x", &[9; 6_000]);
            1
        },
        |a, _| {
            a.store.remove(vec!["x".into()]).unwrap();
            0
        },
        |_, b| {
            b.set("x", b"short, and from here");
            0
        },
    ];
    for change in changes {
        let (a, mut b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
        a.set("x", &vec![1; 3_000_000]);
        b.begin(&a);
        b.restart();
        assert_eq!(b.files(), 1, "the rest may still come");
        let kept = change(&a, &b);
        b.pull(&a);
        assert_eq!(b.files(), kept);
    }
}

#[test]
fn what_is_left_of_a_value_goes_once_another_version_is_taken() {
    let (a, b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    for number in 0..5 {
        a.set("x", &vec![number; 3_000_000]);
        b.begin(&a);
        assert_eq!(b.files(), 1);
    }
    // One that is being taken goes when it breaks off.
    let (clear, ..) = b.lacking(&a);
    let taken = b.store.download(&clear).unwrap();
    b.set("x", b"short");
    assert_eq!(b.files(), 1);
    drop(taken);
    assert_eq!(b.files(), 0);
}

#[test]
fn what_is_left_of_values_goes_with_the_key() {
    let (a, b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    a.set("whole", &[1; 5_000]);
    b.take(&a);
    a.set("begun", &vec![2; 3_000_000]);
    b.begin(&a);
    assert_eq!(b.files(), 2);
    b.store.set_key(Some(&[6; 32])).unwrap();
    assert_eq!(b.files(), 0);
}

#[test]
fn a_value_that_is_whole_after_the_key_has_changed_is_not_kept() {
    let (a, b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    a.set("x", &[1; 5_000]);
    let (clear, ..) = b.lacking(&a);
    let mut download = b.store.download(&clear).unwrap().unwrap();
    let range = download.wants().unwrap();
    push(&mut download, &a.store, &clear, range);
    b.store.set_key(Some(&[6; 32])).unwrap();
    download.finish().unwrap();
    assert_eq!(b.files(), 0);
}

#[test]
fn a_value_that_is_whole_and_not_stored_goes_once_its_entry_has_another_version() {
    let (a, b) = (Replica::new(&full_key(5)), Replica::new(&full_key(5)));
    a.set("x", &[1; 5_000]);
    b.take(&a);
    a.set("x", b"short");
    b.pull(&a);
    assert_eq!(b.files(), 0);
}
