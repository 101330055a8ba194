//! A server that has only the server key, and lies: nothing that it makes up gets into a device, and nothing keeps the
//! device from what is true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod replica;

use std::time::Duration;

use kvass_proto::v1::{self, sync_frame::Frame};
use kvassd::keys::{EncryptionKey, Keys, SyncKey};
use kvassd::record::{Clear, Kind, RecordId, ValueHash};
use kvassd::seal;
use kvassd::stamp::Stamp;
use kvassd::store::{Seq, Store, StoreId, Travelling};
use kvassd::sync::channel::{Initiator, Opener, Sealer, respond};
use kvassd::sync::session::{Link, Progress, Side, run};
use kvassd::value;
use prost::Message;
use prost::bytes::Bytes;
use replica::{Replica, bytes, full_key};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

const STORE: [u8; 16] = [8; 16];

/// The server's end of a session with a device: whole frames, as it likes.
struct Server {
    sealer: Sealer,
    opener: Opener,
    to: mpsc::Sender<Bytes>,
    from: mpsc::Receiver<Bytes>,
    seq: u64,
    stop: CancellationToken,
}

impl Server {
    /// Accepts a device with nothing but the account's server key.
    async fn accept(device: &Replica) -> Self {
        let key = SyncKey::derive(&EncryptionKey::new([1; 32]));
        let (initiator, first) =
            Initiator::start(&device.store.sync_key(), &device.store.surroundings().random).unwrap();
        let (reply, channel) = respond(&first, &device.store.surroundings().random, |_| Some(key)).unwrap();
        let ((device_to, from), (to, device_from)) = (mpsc::channel(64), mpsc::channel(64));
        let (progress, _) = watch::channel(Progress::default());
        let (_, questions) = watch::channel(0);
        let stop = CancellationToken::new();
        let link = Link { to: device_to, from: device_from };
        let of_device = initiator.finish(&reply).unwrap();
        tokio::spawn(run(device.store.clone(), Side::Initiator, of_device, link, stop.clone(), progress, questions));
        let (sealer, opener) = channel.split();
        let mut server = Self { sealer, opener, to, from, seq: 0, stop };
        let (store, run) = (STORE.to_vec(), STORE.to_vec());
        server.send(Frame::Hello(v1::Hello { version: 1, store, run, clock_us: 0, public_url: String::new() })).await;
        server.send(Frame::Resume(v1::Resume::default())).await;
        server
    }

    async fn send(&mut self, frame: Frame) {
        let bytes = v1::SyncFrame { frame: Some(frame) }.encode_to_vec();
        self.to.send(self.sealer.seal(&bytes).unwrap().into()).await.unwrap();
    }

    async fn receive(&mut self) -> Frame {
        let sealed = tokio::time::timeout(PATIENCE, self.from.recv()).await.unwrap().expect("the device is gone");
        v1::SyncFrame::decode(self.opener.open(&sealed).unwrap().as_slice()).unwrap().frame.unwrap()
    }

    /// Sends records as the next part of its log.
    async fn tell(&mut self, records: Vec<Travelling>) {
        let records = records.into_iter().map(|Travelling { record, value }| {
            self.seq += 1;
            v1::LogRecord {
                clear: record.clear,
                sealed: record.sealed,
                auth: record.auth.0.to_vec(),
                value,
                seq: self.seq,
            }
        });
        let records: Vec<_> = records.collect();
        let log = v1::Log { records, run: Some(STORE.to_vec()), seq: self.seq, number: 0 };
        self.send(Frame::Log(log)).await;
    }

    /// Waits until the device says that it holds all that it was told.
    async fn acknowledged(&mut self) {
        while !matches!(self.receive().await, Frame::Acknowledge(held) if held.seq == self.seq) {}
    }

    /// Waits until the device asks for a part of a value.
    async fn wanted(&mut self) -> v1::BlobWant {
        loop {
            if let Frame::BlobWant(want) = self.receive().await {
                return want;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A device that others of its account have written for, and what they wrote, as a server holds it.
struct Scene {
    device: Replica,
    held: Vec<Travelling>,
    /// An older version of one of them.
    older: Travelling,
    /// A true record that the device has not.
    news: Vec<Travelling>,
}

fn scene() -> Scene {
    let (device, other) = (Replica::new(&full_key(1)), Replica::new(&full_key(1)));
    other.set("x", b"old");
    let older = other.records().remove(0);
    other.set("x", b"1");
    other.set("y", b"2");
    other.store.remove(vec!["y".into()]).unwrap();
    other.set("z", b"zzz");
    other.set("large", &bytes(50_000));
    device.pull(&other);
    let held = other.records();
    other.set("news", b"true");
    let news = other.records().into_iter().filter(|record| !held.contains(record)).collect();
    Scene { device, held, older, news }
}

fn clear(record: &Travelling) -> Clear {
    Clear::parse(&record.record.clear).unwrap()
}

/// The record with another clear part.
fn with(record: &Travelling, change: impl FnOnce(&mut Clear)) -> Travelling {
    let mut changed = clear(record);
    change(&mut changed);
    let mut record = record.clone();
    record.record.clear = changed.encode().to_vec();
    record
}

/// A record that is sealed and authenticated under keys that are not the account's.
fn made_up(name: &str) -> Travelling {
    let keys = Keys::derive(&EncryptionKey::new([66; 32]));
    let sealed = vec![7; 3 + 16];
    let clear = Clear {
        format: 1,
        kind: Kind::VALUE,
        id: Keys::derive(&EncryptionKey::new([1; 32])).record_id(name),
        generation: 0,
        stamp: Stamp { time_us: Stamp::MAX, counter: Stamp::MAX, pid: 1 },
        expiry_us: 0,
        size: 3,
        value_hash: value::value_hash(&value::chunk_hash(&sealed)),
    };
    Travelling { record: seal::seal(&keys, &clear, b"header"), value: Some(sealed) }
}

/// Everything wrong that can be done to a record by somebody without its keys, and what it is called.
fn lies(held: &[Travelling]) -> Vec<(&'static str, Travelling)> {
    let values: Vec<_> = held.iter().filter(|record| record.value.is_some()).cloned().collect();
    let (one, two) = (&values[0], &values[1]);
    let removal = held.iter().find(|record| clear(record).kind == Kind::REMOVAL).unwrap();
    let large = held.iter().find(|record| clear(record).has_blob()).unwrap();
    let late = |clear: &mut Clear| clear.stamp.time_us = 1 << 61;
    let tampered = |bit: usize| {
        let mut record = one.clone();
        record.value.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        record
    };
    let mut swapped_header = one.clone();
    swapped_header.record.sealed.clone_from(&two.record.sealed);
    let mut other_auth = with(one, late);
    other_auth.record.auth = two.record.auth;
    let mut cut_sealed = one.clone();
    cut_sealed.record.sealed.pop();
    vec![
        ("made up", made_up("never there")),
        ("made up for an entry", made_up("x")),
        ("a later time", with(one, late)),
        ("a greater counter", with(one, |clear| clear.stamp.counter = Stamp::MAX)),
        ("another pid", with(one, |clear| clear.stamp.pid ^= 1 << 20)),
        ("a removal at a later time", with(removal, late)),
        ("a blob at a later time", with(large, late)),
        ("no removal any more", with(removal, |clear| clear.kind = Kind(7))),
        ("another kind", with(one, |clear| clear.kind = Kind(7))),
        ("another format", with(one, |clear| clear.format = 9)),
        ("another generation", with(one, |clear| clear.generation = 1)),
        ("the id of another", with(one, |value| value.id = clear(two).id)),
        ("an id of nothing", with(one, |clear| clear.id = RecordId([5; 16]))),
        ("a value of another", Travelling { value: two.value.clone(), ..one.clone() }),
        ("no value", Travelling { value: None, ..one.clone() }),
        ("a value for a removal", Travelling { value: one.value.clone(), ..removal.clone() }),
        ("a short value for a large one", Travelling { value: one.value.clone(), ..large.clone() }),
        ("the first bit of a value", tampered(0)),
        ("the last bit of a value", tampered(8 * one.value.as_ref().unwrap().len() - 1)),
        ("a hash that fits another value", {
            let hash = clear(two).value_hash;
            let changed = with(one, |clear| clear.value_hash = hash);
            Travelling { value: two.value.clone(), ..changed }
        }),
        ("a header of another", swapped_header),
        ("an authentication of another", other_auth),
        ("an expiry", with(one, |clear| clear.expiry_us = 1)),
        ("an expiry of a large value", with(large, |clear| clear.expiry_us = 1)),
        ("a size that is too small", with(one, |clear| clear.size -= 1)),
        ("a size that is too large", with(large, |clear| clear.size = value::SIZE_MAX)),
        ("a size of a blob", with(one, |clear| clear.size = 1 << 40)),
        ("a hash of nothing", with(large, |clear| clear.value_hash = ValueHash([3; 32]))),
        ("a header that is cut", cut_sealed),
        ("a clear part that is cut", {
            let mut record = one.clone();
            record.record.clear.pop();
            record
        }),
        ("a clear part that goes on", {
            let mut record = one.clone();
            record.record.clear.push(0);
            record
        }),
        ("an empty record", {
            let mut record = one.clone();
            (record.record.clear, record.record.sealed) = (Vec::new(), Vec::new());
            record
        }),
    ]
}

/// The greatest counter of what a store holds.
fn greatest_counter(replica: &Replica) -> u64 {
    replica.records().iter().map(|record| clear(record).stamp.counter).max().unwrap()
}

fn held_of_server(store: &Store) -> Seq {
    store.peer(StoreId(STORE)).held.map_or(Seq(0), |held| held.seq)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_refused_and_counted_and_the_truth_behind_it_arrives() {
    let Scene { device, held, news, .. } = scene();
    let (content, digest, counter) = (device.content(), device.store.digest().unwrap(), greatest_counter(&device));
    let mut server = Server::accept(&device).await;
    let mut count = 0;
    for (what, lie) in lies(&held) {
        server.tell(vec![lie]).await;
        server.acknowledged().await;
        count += 1;
        assert_eq!(device.store.refused(), count, "{what} is not counted");
        assert_eq!(device.store.digest().unwrap(), digest, "{what} changed something");
        assert_eq!(held_of_server(&device.store), Seq(server.seq), "{what} holds the cursor");
    }
    // All of them at once, with the truth in their middle.
    let mut part: Vec<_> = lies(&held).into_iter().map(|(_, lie)| lie).collect();
    let half = part.len() / 2;
    part.splice(half..half, news);
    server.tell(part).await;
    server.acknowledged().await;
    assert_eq!(device.store.refused(), 2 * count);
    let mut expected = content;
    expected.insert("news".into(), b"true".to_vec());
    assert_eq!(device.content(), expected);
    // The next write has a counter as if none of it had been said.
    device.set("own", b"1");
    assert_eq!(greatest_counter(&device), counter + 2);
    device.store.check(&mut |finding| panic!("{finding:?}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_version_is_older_and_changes_nothing() {
    let Scene { device, held, older, news } = scene();
    let digest = device.store.digest().unwrap();
    let mut server = Server::accept(&device).await;
    server.tell(vec![older]).await;
    server.acknowledged().await;
    server.tell([held.clone(), held].concat()).await;
    server.acknowledged().await;
    assert_eq!((device.store.digest().unwrap(), device.store.refused()), (digest, 0));
    assert_eq!(device.get("x").unwrap(), b"1");
    server.tell(news).await;
    server.acknowledged().await;
    assert_eq!(device.get("news").unwrap(), b"true");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_in_the_place_of_a_large_value_are_not_taken() {
    let Scene { device, .. } = scene();
    let writer = Replica::new(&full_key(1));
    writer.set("large", &bytes(60_000));
    writer.set("small", b"true");
    let records = writer.records();
    let before = device.get("large").unwrap();
    let file = |hash: &[u8], length: u64| {
        let mut file = vec![0; length as usize];
        let hash = ValueHash(hash.try_into().unwrap());
        writer.store.blob(hash).unwrap().read(0, &mut file).unwrap();
        file
    };
    let length = 60_000 + 2 * 48;
    // The list of hashes of another file; the true list, and then another chunk; nothing at all.
    for (round, wrong_from) in [0, 60_032].into_iter().enumerate() {
        let mut server = Server::accept(&device).await;
        server.tell(records.clone()).await;
        let mut sent_wrong = false;
        while !sent_wrong {
            let want = server.wanted().await;
            let mut file = file(&want.hash, length);
            let is_list = want.offset >= 60_032;
            sent_wrong = (wrong_from == 0) == is_list;
            if sent_wrong {
                file[want.offset as usize] ^= 1;
            }
            let data = file[want.offset as usize..][..want.length as usize].to_vec();
            for (number, part) in data.chunks(value::CHUNK + value::TAG).enumerate() {
                let offset = want.offset + (number * (value::CHUNK + value::TAG)) as u64;
                server
                    .send(Frame::BlobPart(v1::BlobPart {
                        hash: want.hash.clone().into(),
                        offset,
                        data: part.to_vec().into(),
                    }))
                    .await;
            }
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while device.store.refused() <= round as u64 {
            assert!(std::time::Instant::now() < deadline, "it is not counted");
            tokio::task::yield_now().await;
        }
        assert_eq!(device.get("large").unwrap(), before);
        // Smaller changes do not wait for it.
        assert_eq!(device.get("small").unwrap(), b"true");
    }
    // Somebody who tells the truth.
    device.pull(&writer);
    assert_eq!(device.get("large").unwrap(), bytes(60_000));
    device.store.check(&mut |finding| panic!("{finding:?}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_an_entry_does_not_take_the_place_of_the_true_record_that_waits_for_its_value() {
    let Scene { device, .. } = scene();
    let writer = Replica::new(&full_key(1));
    writer.set("slow", &bytes(60_000));
    let truth = writer.records().remove(0);
    let lies = [with(&truth, |clear| clear.stamp.time_us += 1), with(&truth, |clear| clear.size = 1 << 30)];
    for lie in lies {
        let mut server = Server::accept(&device).await;
        server.tell(vec![truth.clone()]).await;
        let want = server.wanted().await;
        server.tell(vec![lie]).await;
        let held = loop {
            if let Frame::Acknowledge(held) = server.receive().await
                && (held.seq == 2 || held.beyond.iter().any(|places| places.last == 2))
            {
                break held;
            }
        };
        assert_eq!((held.seq, held_of_server(&device.store)), (0, Seq(0)));
        // The value is still waited for: its parts are no parts that nobody asked for.
        server.send(Frame::BlobGone(v1::BlobGone { hash: want.hash })).await;
        server.tell(vec![made_up("more")]).await;
        while !matches!(server.receive().await, Frame::Acknowledge(held) if held.seq == 0 && held.beyond.iter().any(|places| places.last == 3))
        {
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_size_beside_the_truth_changes_nothing_of_what_is_asked_for() {
    let Scene { device, .. } = scene();
    let writer = Replica::new(&full_key(1));
    writer.set("slow", &bytes(60_000));
    let truth = writer.records().remove(0);
    let lie = |size| with(&truth, |clear| clear.size = size);
    let mut server = Server::accept(&device).await;
    server.tell(vec![lie(5_000), truth.clone(), lie(1 << 30), lie(1 << 45)]).await;
    let mut file = vec![0; 60_000 + 2 * 48];
    let hash = clear(&truth).value_hash;
    writer.store.blob(hash).unwrap().read(0, &mut file).unwrap();
    while device.get("slow").is_none() {
        let want = loop {
            match server.receive().await {
                Frame::BlobWant(want) => break Some(want),
                Frame::Acknowledge(held) if held.seq == 4 => break None,
                _ => {}
            }
        };
        let Some(want) = want else { break };
        let range = want.offset as usize..want.offset as usize + want.length as usize;
        let data = file.get(range).expect("it asks for what is in the file");
        for (number, part) in data.chunks(value::CHUNK + value::TAG).enumerate() {
            let offset = want.offset + (number * (value::CHUNK + value::TAG)) as u64;
            let part = v1::BlobPart { hash: want.hash.clone().into(), offset, data: part.to_vec().into() };
            server.send(Frame::BlobPart(part)).await;
        }
    }
    assert_eq!(device.get("slow").unwrap(), bytes(60_000));
    assert_eq!(device.store.refused(), 3);
}
