//! Two stores in a session, over channels in the place of a network that can be cut.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;

use std::path::Path;
use std::time::Duration;

use files::copy;
use kvassd::keys::{EncryptionKey, SyncKey};
use kvassd::random::Random;
use kvassd::store::{Options, Seq, Store};
use kvassd::sync::channel::{Channel, Initiator, respond};
use kvassd::sync::session::{Ended, Link, Progress, SessionError, Side, run};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };
const KEY: [u8; 32] = [5; 32];

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Device {
    directory: TempDir,
    store: Store,
}

impl Device {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.set_key(Some(&KEY)).unwrap();
        Self { directory, store }
    }

    async fn set(&self, name: &str, value: Vec<u8>) {
        let (store, name) = (self.store.clone(), name.to_owned());
        let set = move || {
            let mut writer = store.writer(None).unwrap();
            writer.push(&value).unwrap();
            store.set(&name, writer.finish().unwrap(), 0).unwrap();
        };
        tokio::task::spawn_blocking(set).await.unwrap();
    }

    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let get = move || {
            let (_, mut reader) = store.read(&name).unwrap()?;
            let mut value = Vec::new();
            while reader.next(&mut value).unwrap() {}
            Some(value)
        };
        tokio::task::spawn_blocking(get).await.unwrap()
    }

    /// Waits until a key has a value here.
    async fn sees(&self, name: &str, value: Option<&[u8]>) {
        let mut commits = self.store.commits();
        let seen = async {
            while self.get(name).await.as_deref() != value {
                commits.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} did not come"));
    }
}

fn open(directory: &Path) -> Store {
    Store::open(directory, OPTIONS, &|_| {}).unwrap()
}

/// What becomes of a frame on its way.
enum Carried {
    On(Vec<u8>),
    Never,
    Cut,
}

type End = JoinHandle<Result<Ended, SessionError>>;

/// A connection of two stores, and the means to cut it or to meddle with it.
struct Wire {
    ends: [End; 2],
    stops: [CancellationToken; 2],
    progress: [watch::Receiver<Progress>; 2],
    carriers: [JoinHandle<()>; 2],
}

impl Wire {
    fn new(a: &Device, b: &Device) -> Self {
        Self::meddling(a, b, |_, frame| Some(frame))
    }

    /// Of the frames from a to b only the first come; the others are on their way for ever.
    fn stalled(a: &Device, b: &Device, frames: usize) -> Self {
        Self::carried(a, b, move |number, frame| if number < frames { Carried::On(frame) } else { Carried::Never })
    }

    /// `meddle` is given the number of each frame from a to b, and what is to come of it.
    fn meddling(
        a: &Device,
        b: &Device,
        mut meddle: impl FnMut(usize, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::carried(a, b, move |number, frame| meddle(number, frame).map_or(Carried::Cut, Carried::On))
    }

    fn carried(a: &Device, b: &Device, mut carry: impl FnMut(usize, Vec<u8>) -> Carried + Send + 'static) -> Self {
        let [(end_a, stop_a, progress_a, mut a_out, a_in), (end_b, stop_b, progress_b, mut b_out, b_in)] = ends(a, b);
        let there = tokio::spawn(async move {
            let mut number = 0;
            while let Some(frame) = a_out.recv().await {
                let frame = match carry(number, frame) {
                    Carried::On(frame) => frame,
                    Carried::Never => std::future::pending().await,
                    Carried::Cut => return,
                };
                number += 1;
                if b_in.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let back = tokio::spawn(async move {
            while let Some(frame) = b_out.recv().await {
                if a_in.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Self {
            ends: [end_a, end_b],
            stops: [stop_a, stop_b],
            progress: [progress_a, progress_b],
            carriers: [there, back],
        }
    }

    /// The connection is gone from one moment to the next.
    async fn cut(self) {
        self.carriers.iter().for_each(JoinHandle::abort);
        // One side may have said goodbye to the other before the last of the two ways was gone.
        for ended in self.ends {
            let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
            assert!(matches!(ended, Ended::Gone | Ended::Again));
        }
    }

    async fn ended(self) -> [Result<Ended, SessionError>; 2] {
        let [a, b] = self.ends;
        let ended = async { [a.await.unwrap(), b.await.unwrap()] };
        tokio::time::timeout(PATIENCE, ended).await.unwrap()
    }
}

fn begin(
    device: &Device,
    side: Side,
    channel: Channel,
    link: Link,
) -> (End, CancellationToken, watch::Receiver<Progress>) {
    let stop = CancellationToken::new();
    let (progress, shown) = watch::channel(Progress::default());
    // Nobody asks how far the other side's log goes.
    let (_, questions) = watch::channel(0);
    let running = run(device.store.clone(), side, channel, link, stop.clone(), progress, questions);
    (tokio::spawn(running), stop, shown)
}

/// A line that carries so many bytes a second, with a latency, for a runtime whose time is simulated.
fn slow(a: &Device, b: &Device, rate: u32, latency: Duration) -> Wire {
    let [(end_a, stop_a, progress_a, mut a_out, a_in), (end_b, stop_b, progress_b, mut b_out, b_in)] = ends(a, b);
    let carry = move |from: &mut mpsc::Receiver<Vec<u8>>, to: mpsc::Sender<Vec<u8>>| {
        let mut from = std::mem::replace(from, mpsc::channel(1).1);
        tokio::spawn(async move {
            let (travelling, mut arriving) = mpsc::unbounded_channel();
            let deliver = async {
                while let Some((at, frame)) = arriving.recv().await {
                    tokio::time::sleep_until(at).await;
                    if to.send(frame).await.is_err() {
                        return;
                    }
                }
            };
            let take = async move {
                while let Some(frame) = from.recv().await {
                    let frame: Vec<u8> = frame;
                    tokio::time::sleep(Duration::from_secs(1) / rate * frame.len() as u32).await;
                    travelling.send((tokio::time::Instant::now() + latency, frame)).unwrap();
                }
            };
            tokio::join!(deliver, take);
        })
    };
    let carriers = [carry(&mut a_out, b_in), carry(&mut b_out, a_in)];
    Wire { ends: [end_a, end_b], stops: [stop_a, stop_b], progress: [progress_a, progress_b], carriers }
}

type Outside = (End, CancellationToken, watch::Receiver<Progress>, mpsc::Receiver<Vec<u8>>, mpsc::Sender<Vec<u8>>);

/// Both ends of a session, and what comes out of them and goes in.
fn ends(a: &Device, b: &Device) -> [Outside; 2] {
    let (channel_a, channel_b) = channels();
    [(a, Side::Initiator, channel_a), (b, Side::Responder, channel_b)].map(|(device, side, channel)| {
        let (to, out) = mpsc::channel(4);
        let (inward, from) = mpsc::channel(4);
        let (end, stop, progress) = begin(device, side, channel, Link { to, from });
        (end, stop, progress, out, inward)
    })
}

fn channels() -> (Channel, Channel) {
    let key = SyncKey::derive(&EncryptionKey::new(KEY));
    let (initiator, first) = Initiator::start(&key, &Random::system()).unwrap();
    let (reply, responder) = respond(&first, &Random::system(), |_| Some(key)).unwrap();
    (initiator.finish(&reply).unwrap(), responder)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

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

/// A copy of a closed store's directory, opened.
fn copied(from: &Path) -> Device {
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    let store = open(directory.path());
    Device { directory, store }
}
