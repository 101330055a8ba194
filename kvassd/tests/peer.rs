//! A store in a session with a peer that speaks the protocol by hand: one that lies, is damaged, or speaks another
//! version.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvass_proto::v1::{self, end::Reason, sync_frame::Frame};
use kvassd::clock::{Clock, now_us};
use kvassd::store::{Cursor, Seq, Store, StoreId, Surroundings, Travelling};
use kvassd::sync::channel::{Opener, Sealer};
use kvassd::sync::session::{Ended, Link, SessionError, Side};
use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use wire::{Device, End, OPTIONS, PATIENCE, Wire, begin, bytes, channels};

const STORE: [u8; 16] = [3; 16];
const RUN: [u8; 16] = [4; 16];

/// A peer whose frames the test writes.
struct Peer {
    sealer: Sealer,
    opener: Opener,
    to: mpsc::Sender<Bytes>,
    from: mpsc::Receiver<Bytes>,
    end: End,
    progress: tokio::sync::watch::Receiver<kvassd::sync::session::Progress>,
}

impl Peer {
    /// One that connects to a device, and has said nothing.
    fn silent(device: &Device) -> Self {
        let (own, theirs) = channels();
        let (sealer, opener) = own.split();
        let ((to, in_), (out, from)) = (mpsc::channel(4), mpsc::channel(4));
        let (end, _, progress) = begin(device, Side::Responder, theirs, Link { to: out, from: in_ });
        Self { sealer, opener, to, from, end, progress }
    }

    /// One that has greeted, and holds the device's log up to a place.
    async fn greeted(device: &Device, held: Option<Cursor>) -> Self {
        let mut peer = Self::silent(device);
        peer.greet(1).await;
        let (run, seq) = (held.map(|held| held.run.0.to_vec()), held.map_or(0, |held| held.seq.0));
        peer.send(Frame::Resume(v1::Resume { run, seq, ..v1::Resume::default() })).await;
        assert!(matches!(peer.next().await, Frame::Hello(_)));
        assert!(matches!(peer.next().await, Frame::Resume(_)));
        peer
    }

    async fn greet(&mut self, version: u32) {
        let hello = v1::Hello {
            version,
            store: STORE.to_vec(),
            run: RUN.to_vec(),
            clock_us: now_us(),
            public_url: String::new(),
        };
        self.send(Frame::Hello(hello)).await;
    }

    async fn send(&mut self, frame: Frame) {
        let sealed = self.sealer.seal(&v1::SyncFrame { frame: Some(frame) }.encode_to_vec()).unwrap();
        // A device that has ended takes no more.
        let _ = self.to.send(sealed.into()).await;
    }

    async fn next(&mut self) -> Frame {
        let sealed = tokio::time::timeout(PATIENCE, self.from.recv()).await.unwrap().unwrap();
        v1::SyncFrame::decode(self.opener.open(&sealed).unwrap().as_slice()).unwrap().frame.unwrap()
    }

    /// The next frame that is wanted; others are passed over.
    async fn next_of<T>(&mut self, wanted: impl Fn(Frame) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    async fn wanted(&mut self) -> v1::BlobWant {
        self.next_of(|frame| if let Frame::BlobWant(want) = frame { Some(want) } else { None }).await
    }

    async fn acknowledged(&mut self, seq: u64) -> v1::Acknowledge {
        let named = |held: &v1::Acknowledge| {
            held.seq >= seq || held.beyond.iter().any(|places| (places.first..=places.last).contains(&seq))
        };
        self.next_of(|frame| if let Frame::Acknowledge(held) = frame { Some(held).filter(named) } else { None }).await
    }

    /// Sends records as a log from a place on.
    async fn log(&mut self, first: u64, records: Vec<Travelling>) {
        let seq = first + records.len() as u64 - 1;
        let records = records.into_iter().zip(first..).map(|(Travelling { record, value }, seq)| v1::LogRecord {
            clear: record.clear,
            sealed: record.sealed,
            auth: record.auth.0.to_vec(),
            value,
            seq,
        });
        let log = v1::Log { records: records.collect(), run: Some(RUN.to_vec()), seq, number: 0 };
        self.send(Frame::Log(log)).await;
    }

    async fn ended(self) -> Result<Ended, SessionError> {
        tokio::time::timeout(PATIENCE, self.end).await.unwrap().unwrap()
    }
}

/// All records of a store, in the order of its log.
fn records(store: &Store) -> Vec<Travelling> {
    store.outgoing_all(Seq(0), 1_000).unwrap().records.into_iter().map(|(_, record)| record).collect()
}

fn held(device: &Device) -> u64 {
    device.store.peer(StoreId(STORE)).held.map_or(0, |held| held.seq.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_for_and_what_asks_for_nothing_ends_the_session() {
    let hash = vec![7; 32];
    let part = |offset, length| v1::BlobPart { hash: vec![7; 32].into(), offset, data: vec![0; length].into() };
    let want = |offset, length| v1::BlobWant { hash: vec![7; 32], offset, length };
    let log = |seq, first| {
        let record = v1::LogRecord { auth: vec![0; 32], seq: first, ..v1::LogRecord::default() };
        v1::Log { records: vec![record], run: Some(RUN.to_vec()), seq, number: 0 }
    };
    let lies = [
        Frame::BlobPart(part(0, 100)),
        Frame::BlobGone(v1::BlobGone { hash }),
        Frame::BlobWant(want(0, 0)),
        Frame::BlobWant(want(0, u32::MAX)),
        Frame::BlobWant(want(u64::MAX, 10)),
        Frame::Log(log(5, 6)),
        Frame::Log(log(1, 0)),
        Frame::Hello(v1::Hello::default()),
    ];
    for lie in lies {
        let device = Device::new();
        let mut peer = Peer::greeted(&device, None).await;
        peer.send(lie.clone()).await;
        let reason = peer.next_of(|frame| if let Frame::End(end) = frame { Some(end.reason()) } else { None }).await;
        assert_eq!(reason, Reason::Protocol, "{lie:?}");
        let Err(error) = peer.ended().await else { panic!("{lie:?}") };
        assert!(matches!(error, SessionError::Protocol(_)) && !error.is_permanent(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_not_those_that_were_asked_for_end_the_session() {
    let owner = Device::new();
    owner.set("large", bytes(200_000)).await;
    for lie in 0..3 {
        let device = Device::new();
        let mut peer = Peer::greeted(&device, None).await;
        peer.log(1, records(&owner.store)).await;
        let want = peer.wanted().await;
        let (hash, offset) = (want.hash.clone().into(), want.offset);
        let data = vec![0; want.length as usize].into();
        peer.send(Frame::BlobPart(match lie {
            0 => v1::BlobPart { hash, offset: offset + 1, data },
            1 => v1::BlobPart { hash, offset, data: vec![0; want.length as usize + 1].into() },
            _ => v1::BlobPart { hash: vec![7; 32].into(), offset, data },
        }))
        .await;
        assert!(matches!(peer.ended().await, Err(SessionError::Protocol(_))), "{lie}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_ends_the_session() {
    let device = Device::new();
    device.set("large", bytes(1_000_000)).await;
    let hash = kvassd::record::Clear::parse(&records(&device.store)[0].record.clear).unwrap().value_hash;
    let mut peer = Peer::greeted(&device, None).await;
    // Nothing of what it asks for is taken.
    for _ in 0..1_000 {
        let want = v1::BlobWant { hash: hash.0.to_vec(), offset: 0, length: 500_000 };
        peer.send(Frame::BlobWant(want)).await;
    }
    assert!(matches!(peer.ended().await, Err(SessionError::Protocol(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_whose_answers_nobody_takes_ends_the_session() {
    let device = Device::new();
    let mut peer = Peer::greeted(&device, None).await;
    for number in 0..1_000 {
        peer.send(Frame::HeadWant(v1::HeadWant { number })).await;
    }
    assert!(matches!(peer.ended().await, Err(SessionError::Protocol(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_takes_another_id_only_now_and_then_whatever_peers_claim_to_hold() {
    let (device, clock_us) = device_with_clock();
    let claim = |peer: &mut Peer| {
        let resume = v1::Resume { run: Some(vec![9; 16]), seq: 7, ..v1::Resume::default() };
        peer.sealer.seal(&v1::SyncFrame { frame: Some(Frame::Resume(resume)) }.encode_to_vec()).unwrap()
    };
    let id = || device.store.identity().0;
    let lie = async || {
        let mut peer = Peer::silent(&device);
        peer.greet(1).await;
        let claim = claim(&mut peer);
        let _ = peer.to.send(claim.into()).await;
        peer.ended().await
    };
    let first = id();
    assert_eq!(lie().await.unwrap(), Ended::Again);
    let second = id();
    assert_ne!(first, second);
    for _ in 0..3 {
        let error = lie().await.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("fork"), "{error}");
        assert_eq!(id(), second);
    }
    // Who tells the truth is not in the way of it.
    let peer = Peer::greeted(&device, None).await;
    drop(peer);
    clock_us.fetch_add(600_000_000, Ordering::Relaxed);
    assert_eq!(lie().await.unwrap(), Ended::Again);
    assert_ne!(id(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_gone_holds_the_cursor_and_nothing_else_until_it_comes_from_elsewhere() {
    let (owner, device) = (Device::new(), Device::new());
    owner.set("large", bytes(50_000)).await;
    owner.set("small", b"x".to_vec()).await;
    let mut peer = Peer::greeted(&device, None).await;
    peer.log(1, records(&owner.store)).await;
    let hash = peer.wanted().await.hash;
    peer.send(Frame::BlobGone(v1::BlobGone { hash: hash.clone() })).await;
    device.sees("small", Some(b"x")).await;
    let told = peer.acknowledged(2).await;
    assert_eq!((told.seq, held(&device)), (0, 0), "the cursor passed a record that is not here");
    // Another peer has it.
    let wire = Wire::new(&owner, &device);
    device.sees("large", Some(&bytes(50_000))).await;
    peer.next_of(
        |frame| if let Frame::Acknowledge(held) = frame { Some(held.seq).filter(|seq| *seq == 2) } else { None },
    )
    .await;
    assert_eq!(held(&device), 2);
    wire.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_gone_because_its_record_was_replaced_lets_the_cursor_pass() {
    let (owner, device) = (Device::new(), Device::new());
    owner.set("large", bytes(50_000)).await;
    let older = records(&owner.store);
    owner.set("large", b"now short".to_vec()).await;
    let mut peer = Peer::greeted(&device, None).await;
    peer.log(1, older).await;
    let hash = peer.wanted().await.hash;
    peer.send(Frame::BlobGone(v1::BlobGone { hash })).await;
    peer.log(2, records(&owner.store)).await;
    device.sees("large", Some(b"now short")).await;
    assert_eq!(peer.acknowledged(2).await.seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_verify_holds_up_nothing_else() {
    let (owner, device) = (Device::new(), Device::new());
    owner.set("rotten", bytes(20_000)).await;
    owner.set("small", b"x".to_vec()).await;
    let mut peer = Peer::greeted(&device, None).await;
    peer.log(1, records(&owner.store)).await;
    let want = peer.wanted().await;
    let data = vec![1; want.length as usize].into();
    let part = v1::BlobPart { hash: want.hash.into(), offset: want.offset, data };
    peer.send(Frame::BlobPart(part)).await;
    device.sees("small", Some(b"x")).await;
    peer.log(3, records(&owner.store).split_off(1)).await;
    assert_eq!(peer.acknowledged(3).await.seq, 0);
    assert_eq!(device.get("rotten").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_protocol_is_named_and_is_for_good() {
    let device = Device::new();
    let mut peer = Peer::silent(&device);
    peer.greet(2).await;
    let reason = peer.next_of(|frame| if let Frame::End(end) = frame { Some(end.reason()) } else { None }).await;
    assert_eq!(reason, Reason::Version);
    let Err(error) = peer.ended().await else { panic!("no error") };
    assert!(matches!(error, SessionError::Version) && error.is_permanent(), "{error}");

    let mut peer = Peer::greeted(&device, None).await;
    peer.send(Frame::End(v1::End { reason: Reason::Version.into() })).await;
    assert!(matches!(peer.ended().await, Err(SessionError::Version)));
}

#[tokio::test(start_paused = true)]
async fn a_difference_is_mended_by_one_full_pass() {
    let (a, b) = (Device::new(), Device::new());
    a.set("x", b"1".to_vec()).await;
    a.set("large", bytes(50_000)).await;
    let wire = Wire::new(&a, &b);
    b.sees("large", Some(&bytes(50_000))).await;
    a.set("y", b"2".to_vec()).await;
    b.sees("y", Some(b"2")).await;
    wire.cut().await;
    // What b holds of a's log is said to be more than it is.
    a.set("lost", b"3".to_vec()).await;
    a.set("lost too", bytes(60_000)).await;
    let (own, peer) = (a.store.identity().0, b.store.identity().0);
    let end = a.store.outgoing_all(Seq(0), 1_000).unwrap().cursor;
    b.store.merge(b.store.identity().1, Vec::new(), a.store.opening(), end).unwrap();
    let wire = Wire::new(&a, &b);
    b.sees("lost", Some(b"3")).await;
    b.sees("lost too", Some(&bytes(60_000))).await;
    assert_eq!(a.store.digest().unwrap(), b.store.digest().unwrap());
    // Time is simulated; the next comparison finds nothing.
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(wire.progress.iter().all(|progress| !progress.borrow().differs));
    assert!(!a.store.is_in_full_pass(peer) && !b.store.is_in_full_pass(own));
    wire.cut().await;
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_stays_is_shown_and_starts_one_pass_a_day() {
    let device = Device::new();
    device.set("x", b"1".to_vec()).await;
    let head = device.store.outgoing_all(Seq(0), 10).unwrap().cursor.unwrap();
    let mut peer = Peer::greeted(&device, Some(head)).await;
    // It has a record that the device refuses.
    let mut made_up = records(&device.store);
    made_up[0].record.auth.0[0] ^= 1;
    peer.log(1, made_up.clone()).await;
    let digest = v1::Digest { digest: vec![9; 32], head: 1, held: head.seq.0 };
    assert_eq!(peer.acknowledged(1).await.seq, 1);
    // Not at the same place: this says nothing.
    peer.send(Frame::Digest(v1::Digest { head: 2, ..digest.clone() })).await;
    peer.send(Frame::Digest(digest.clone())).await;
    let resume = peer.next_of(|frame| if let Frame::Resume(resume) = frame { Some(resume) } else { None }).await;
    assert_eq!((resume.run, resume.seq, resume.number, resume.all), (None, 0, 1, true));
    let again = v1::Log { run: Some(RUN.to_vec()), seq: 1, number: 1, records: Vec::new() };
    peer.send(Frame::Log(again)).await;
    assert_eq!(peer.acknowledged(1).await.seq, 1);
    for _ in 0..3 {
        peer.send(Frame::Digest(digest.clone())).await;
    }
    let differs = peer.progress.wait_for(|progress| progress.differs);
    tokio::time::timeout(PATIENCE, differs).await.unwrap().unwrap();
    assert_eq!(device.store.refused(), 1);
    peer.send(Frame::HeadWant(v1::HeadWant { number: 5 })).await;
    let next = peer.next_of(|frame| match frame {
        Frame::Digest(_) | Frame::Acknowledge(_) => None,
        other => Some(other),
    });
    assert!(matches!(next.await, Frame::Head(v1::Head { number: 5, .. })), "a second pass began");
}

/// A device whose wall clock can be moved.
fn device_with_clock() -> (Device, Arc<AtomicU64>) {
    let ahead = Arc::new(AtomicU64::new(0));
    let (read, began) = (Arc::clone(&ahead), tokio::time::Instant::now());
    let clock =
        Clock::new(move || 1_700_000_000_000_000 + began.elapsed().as_micros() as u64 + read.load(Ordering::Relaxed));
    let directory = tempfile::tempdir().unwrap();
    let surroundings = Surroundings { clock, ..Surroundings::system() };
    let store = Store::open_in(directory.path(), OPTIONS, surroundings, &|_| {}).unwrap();
    store.set_key(Some(&wire::KEY)).unwrap();
    (Device { directory, store }, ahead)
}

#[tokio::test(start_paused = true)]
async fn a_session_over_which_the_clock_jumped_is_probed_at_once() {
    let (device, ahead) = device_with_clock();
    let mut peer = Peer::greeted(&device, None).await;
    let number = |frame| if let Frame::HeadWant(want) = frame { Some(want.number) } else { None };
    assert_eq!(peer.next_of(number).await, 0, "this one is asked at the beginning");
    ahead.fetch_add(3_600_000_000, Ordering::Relaxed);
    let probe = peer.next_of(number).await;
    peer.send(Frame::Head(v1::Head { number: probe, seq: 0 })).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!peer.end.is_finished(), "it answered");
    ahead.fetch_sub(3_600_000_000, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    assert_eq!(peer.ended().await.unwrap(), Ended::Gone);
    // Time is simulated: this is what the session waits, and not how fast it runs.
    assert!(began.elapsed() <= Duration::from_secs(15), "{:?}", began.elapsed());
}
