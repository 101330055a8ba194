//! Stores in sessions over channels, in the place of a network that can be cut, slowed or meddled with.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test program uses a part")]

use std::path::Path;
use std::time::Duration;

use kvassd::keys::{EncryptionKey, SyncKey};
use kvassd::random::Random;
use kvassd::store::{Options, Store};
use kvassd::sync::channel::{Channel, Initiator, respond};
use kvassd::sync::session::{Ended, Link, Progress, SessionError, Side, run};
use prost::bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::files::copy;

pub const OPTIONS: Options = Options { value_max: 64 << 20, reserve: 0 };
pub const KEY: [u8; 32] = [5; 32];

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Device {
    pub directory: TempDir,
    pub store: Store,
}

impl Device {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.set_key(Some(&KEY)).unwrap();
        Self { directory, store }
    }

    pub async fn set(&self, name: &str, value: Vec<u8>) {
        let (store, name) = (self.store.clone(), name.to_owned());
        let set = move || {
            let mut writer = store.writer(None).unwrap();
            writer.push(&value).unwrap();
            store.set(&name, writer.finish().unwrap(), 0).unwrap();
        };
        tokio::task::spawn_blocking(set).await.unwrap();
    }

    pub async fn get(&self, name: &str) -> Option<Vec<u8>> {
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
    pub async fn sees(&self, name: &str, value: Option<&[u8]>) {
        let mut commits = self.store.commits();
        let seen = async {
            while self.get(name).await.as_deref() != value {
                commits.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} did not come"));
    }
}

pub fn open(directory: &Path) -> Store {
    Store::open(directory, OPTIONS, &|_| {}).unwrap()
}

/// What becomes of a frame on its way.
pub enum Carried {
    On(Bytes),
    Never,
    Cut,
}

pub type End = JoinHandle<Result<Ended, SessionError>>;

/// A connection of two stores, and the means to cut it or to meddle with it.
pub struct Wire {
    pub ends: [End; 2],
    pub stops: [CancellationToken; 2],
    pub progress: [watch::Receiver<Progress>; 2],
    pub carriers: [JoinHandle<()>; 2],
}

impl Wire {
    pub fn new(a: &Device, b: &Device) -> Self {
        Self::meddling(a, b, |_, frame| Some(frame))
    }

    /// Of the frames from a to b only the first come; the others are on their way for ever.
    pub fn stalled(a: &Device, b: &Device, frames: usize) -> Self {
        Self::carried(a, b, move |number, frame| if number < frames { Carried::On(frame) } else { Carried::Never })
    }

    /// `meddle` is given the number of each frame from a to b, and what is to come of it.
    pub fn meddling(
        a: &Device,
        b: &Device,
        mut meddle: impl FnMut(usize, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::carried(a, b, move |number, frame| {
            meddle(number, frame.into()).map_or(Carried::Cut, |frame| Carried::On(frame.into()))
        })
    }

    pub fn carried(a: &Device, b: &Device, mut carry: impl FnMut(usize, Bytes) -> Carried + Send + 'static) -> Self {
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
    pub async fn cut(self) {
        self.carriers.iter().for_each(JoinHandle::abort);
        // One side may have said goodbye to the other before the last of the two ways was gone.
        for ended in self.ends {
            let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
            assert!(matches!(ended, Ended::Gone | Ended::Again));
        }
    }

    pub async fn ended(self) -> [Result<Ended, SessionError>; 2] {
        let [a, b] = self.ends;
        let ended = async { [a.await.unwrap(), b.await.unwrap()] };
        tokio::time::timeout(PATIENCE, ended).await.unwrap()
    }
}

pub fn begin(
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
pub fn slow(a: &Device, b: &Device, rate: u32, latency: Duration) -> Wire {
    let [(end_a, stop_a, progress_a, mut a_out, a_in), (end_b, stop_b, progress_b, mut b_out, b_in)] = ends(a, b);
    let carry = move |from: &mut mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>| {
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
                    let frame: Bytes = frame;
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

pub type Outside = (End, CancellationToken, watch::Receiver<Progress>, mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>);

/// Both ends of a session, and what comes out of them and goes in.
pub fn ends(a: &Device, b: &Device) -> [Outside; 2] {
    let (channel_a, channel_b) = channels();
    [(a, Side::Initiator, channel_a), (b, Side::Responder, channel_b)].map(|(device, side, channel)| {
        let (to, out) = mpsc::channel(4);
        let (inward, from) = mpsc::channel(4);
        let (end, stop, progress) = begin(device, side, channel, Link { to, from });
        (end, stop, progress, out, inward)
    })
}

pub fn channels() -> (Channel, Channel) {
    let key = SyncKey::derive(&EncryptionKey::new(KEY));
    let (initiator, first) = Initiator::start(&key, &Random::system()).unwrap();
    let (reply, responder) = respond(&first, &Random::system(), |_| Some(key)).unwrap();
    (initiator.finish(&reply).unwrap(), responder)
}

pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// A copy of a closed store's directory, opened.
pub fn copied(from: &Path) -> Device {
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    let store = open(directory.path());
    Device { directory, store }
}
