//! A peer that holds the server key, and so an open channel, and says what it likes: a stolen server, or one that lies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use kvass_proto::v1::{self, sync_frame::Frame};
use kvassd::keys::SyncKey;
use kvassd::record::{Auth, ValueHash};
use kvassd::store::{Seq, Travelling};
use kvassd::sync::channel::{Channel, FRAME_MAX, Initiator, Opener, Sealer, respond};
use kvassd::sync::session::{self, Ended, Link, Progress, SessionError, Side};
use kvassd::value::{CHUNK, TAG};
use prost::Message;
use prost::bytes::Bytes;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::place::{BLIND, NOW_US, OWN, Original, PEER, Place, STRANGER, random};
use crate::{flip, key};

/// How long anything may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(600);

/// The ids of the peer.
const STORE: [u8; 16] = [3; 16];
const RUN: [u8; 16] = [4; 16];

#[derive(Arbitrary, Debug)]
struct Talk {
    is_initiator: bool,
    is_blind: bool,
    /// Whether it greets as it should before it begins to lie.
    is_polite: bool,
    /// Whether the store is opened anew before it is looked at.
    is_restarted: bool,
    says: Vec<Say>,
}

#[derive(Arbitrary, Debug)]
enum Id {
    Peer,
    Own,
    Other(u8),
    Wrong(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Hash {
    /// That of a value of the peer, or of the store itself.
    Peer(u8),
    Own(u8),
    Wrong(Vec<u8>),
}

/// A record to be sent.
#[derive(Arbitrary, Debug)]
struct Which {
    from: u8,
    number: u8,
    /// How far its place is behind the one before it.
    gap: u8,
    change: Change,
}

#[derive(Arbitrary, Debug)]
enum Change {
    None,
    None2,
    None3,
    Clear(u8),
    Sealed(u8),
    Auth(u8),
    Value(u16),
    NoValue,
    OtherValue(Vec<u8>),
    All { clear: Vec<u8>, sealed: Vec<u8>, auth: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
enum Say {
    Hello {
        version: u8,
        store: Id,
        run: Id,
        clock_us: u64,
        public_url: String,
    },
    Resume {
        run: Option<Id>,
        seq: u8,
        number: u8,
        all: bool,
    },
    Log {
        records: Vec<Which>,
        end: Option<Id>,
        seq: Option<u64>,
        number: u8,
    },
    Acknowledge {
        seq: u64,
        beyond: Vec<(u8, u64)>,
        full: bool,
    },
    Want {
        hash: Hash,
        offset: u64,
        length: u32,
    },
    Part {
        hash: Hash,
        offset: u64,
        data: Vec<u8>,
    },
    Gone(Hash),
    HeadWant(u64),
    Head(u64, u64),
    Digest {
        digest: Vec<u8>,
        head: u64,
        held: u64,
    },
    Silence,
    End(u8),
    /// What was asked for next: as it is, or with a bit flipped.
    Answer(Option<u16>),
    /// Answers to all that was asked for.
    Answers,
    /// All records of the peer, in the order of its log.
    All,
    /// Any bytes in a frame that opens.
    Opens(Vec<u8>),
    /// Any bytes in the place of a frame.
    Raw(Vec<u8>),
    /// Time passes, in milliseconds.
    Pause(u16),
}

/// Runs a session with what is said. Whatever that was: nothing panics, the session ends with the connection, and the
/// store holds no record but its own and true ones of its account, with their own values.
pub fn session(bytes: &[u8]) {
    let Ok(talk) = Talk::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let original = if talk.is_blind { &*BLIND } else { &*OWN };
    let place = original.copy();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let ended = runtime.block_on(run(&place, &talk));
    assert!(!matches!(ended, Err(SessionError::Panic | SessionError::Write(_) | SessionError::Read(_))), "{ended:?}");
    drop(runtime);
    let place = if talk.is_restarted { place.restarted() } else { place };
    check(&place, talk.is_blind, original);
    place.store.close();
}

fn check(place: &Place, is_blind: bool, original: &Original) {
    let all = place.store.outgoing_all(Seq(0), 10_000).expect("a log");
    let seqs: BTreeSet<_> = all.records.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs.len(), all.records.len());
    if is_blind {
        // It cannot tell, and every device will.
        return;
    }
    for (_, record) in &all.records {
        let is_true = original.records.contains(record) || PEER.records.contains(record);
        assert!(is_true, "a record that nobody with the key has sealed: {record:?}");
    }
    for (name, value) in place.content() {
        let is_own = original.content.get(&name) == Some(&value);
        assert!(is_own || PEER.content.get(&name) == Some(&value), "another value of {name}");
    }
    let names: Vec<_> = original.content.keys().filter(|name| place.get(name).is_none()).collect();
    assert!(names.iter().all(|name| *name == "both"), "{names:?} are gone");
}

/// The other end of the channel.
struct Mouth {
    sealer: Sealer,
    to: mpsc::Sender<Bytes>,
    asked: Arc<Mutex<VecDeque<v1::BlobWant>>>,
    /// The store that is spoken to, and its run.
    own: ([u8; 16], [u8; 16]),
    /// The last place of its log that it has told.
    seq: u64,
}

async fn run(place: &Place, talk: &Talk) -> Result<Ended, SessionError> {
    let (channel, theirs) = channels();
    let (sealer, opener) = channel.split();
    let ((to, inward), (out, from)) = (mpsc::channel(4), mpsc::channel(4));
    let side = if talk.is_initiator { Side::Initiator } else { Side::Responder };
    let (stop, (progress, _shown)) = (CancellationToken::new(), watch::channel(Progress::default()));
    let (_questions, questions) = watch::channel(0);
    let link = Link { to: out, from: inward };
    let running = session::run(place.store.clone(), side, theirs, link, stop, progress, questions);
    let ending = tokio::spawn(running);
    let asked = Arc::new(Mutex::new(VecDeque::new()));
    tokio::spawn(listen(opener, from, Arc::clone(&asked)));
    let own = (place.store.identity().0.0, place.store.run().0);
    let mut mouth = Mouth { sealer, to, asked, own, seq: 0 };
    if talk.is_polite {
        mouth.greet().await;
    }
    for say in &talk.says {
        if ending.is_finished() {
            break;
        }
        mouth.say(say).await;
    }
    drop(mouth);
    let ended = timeout(PATIENCE, ending).await.expect("a session that ends with its connection");
    ended.expect("a session without a panic")
}

/// Reads all that the store says, and notes what it asks for.
async fn listen(mut opener: Opener, mut from: mpsc::Receiver<Bytes>, asked: Arc<Mutex<VecDeque<v1::BlobWant>>>) {
    while let Some(frame) = from.recv().await {
        let bytes = opener.open(&frame).expect("a frame that the store has sealed");
        let frame = v1::SyncFrame::decode(bytes.as_slice()).expect("a frame");
        if let Some(Frame::BlobWant(want)) = frame.frame {
            asked.lock().expect("no panic").push_back(want);
        }
    }
}

impl Mouth {
    async fn greet(&mut self) {
        self.say(&Say::Hello {
            version: 1,
            store: Id::Peer,
            run: Id::Peer,
            clock_us: NOW_US,
            public_url: String::new(),
        })
        .await;
        self.say(&Say::Resume { run: None, seq: 0, number: 0, all: false }).await;
    }

    async fn say(&mut self, say: &Say) {
        let frame = match say {
            Say::Answer(flip) => return self.answer(*flip).await,
            Say::Answers => return self.answer_all().await,
            Say::All => Frame::Log(self.all()),
            Say::Opens(bytes) => return self.send(bytes).await,
            Say::Raw(bytes) => return self.put(bytes.clone()).await,
            Say::Pause(milliseconds) => return sleep(Duration::from_millis((*milliseconds).into())).await,
            say => self.frame(say),
        };
        self.frame_out(frame).await;
    }

    async fn frame_out(&mut self, frame: Frame) {
        self.send(&v1::SyncFrame { frame: Some(frame) }.encode_to_vec()).await;
    }

    async fn send(&mut self, plain: &[u8]) {
        let sealed = self.sealer.seal(&plain[..plain.len().min(FRAME_MAX)]).expect("few frames");
        self.put(sealed).await;
    }

    /// Hands bytes over, and lets the store do what it does about them.
    async fn put(&self, bytes: Vec<u8>) {
        // A session that has ended takes nothing.
        let _ = timeout(PATIENCE, self.to.send(bytes.into())).await.expect("a session that takes what it is sent");
        sleep(Duration::from_millis(1)).await;
    }

    fn frame(&mut self, say: &Say) -> Frame {
        match say {
            Say::Hello { version, store, run, clock_us, public_url } => Frame::Hello(v1::Hello {
                version: (*version).into(),
                store: self.store(store),
                run: self.run(run),
                clock_us: *clock_us,
                public_url: public_url.clone(),
            }),
            Say::Resume { run, seq, number, all } => Frame::Resume(v1::Resume {
                run: run.as_ref().map(|run| self.run(run)),
                seq: (*seq).into(),
                number: (*number).into(),
                all: *all,
            }),
            Say::Log { records, end, seq, number } => {
                let records = records.iter().map(|which| self.record(which)).collect();
                let run = end.as_ref().map(|run| self.run(run));
                let seq = seq.unwrap_or(self.seq);
                Frame::Log(v1::Log { records, run, seq, number: (*number).into() })
            }
            Say::Acknowledge { seq, beyond, full } => {
                let places = |(first, last): &(u8, u64)| v1::Places { first: (*first).into(), last: *last };
                Frame::Acknowledge(v1::Acknowledge {
                    seq: *seq,
                    beyond: beyond.iter().map(places).collect(),
                    full: *full,
                })
            }
            Say::Want { hash, offset, length } => {
                Frame::BlobWant(v1::BlobWant { hash: named(hash), offset: *offset, length: *length })
            }
            Say::Part { hash, offset, data } => {
                Frame::BlobPart(v1::BlobPart { hash: named(hash).into(), offset: *offset, data: data.clone().into() })
            }
            Say::Gone(hash) => Frame::BlobGone(v1::BlobGone { hash: named(hash) }),
            Say::HeadWant(number) => Frame::HeadWant(v1::HeadWant { number: *number }),
            Say::Head(number, seq) => Frame::Head(v1::Head { number: *number, seq: *seq }),
            Say::Digest { digest, head, held } => {
                Frame::Digest(v1::Digest { digest: digest.clone(), head: *head, held: *held })
            }
            Say::End(reason) => Frame::End(v1::End { reason: (*reason).into() }),
            _ => Frame::Silence(v1::Silence {}),
        }
    }

    fn store(&self, id: &Id) -> Vec<u8> {
        bytes_of(id, STORE, self.own.0)
    }

    fn run(&self, id: &Id) -> Vec<u8> {
        bytes_of(id, RUN, self.own.1)
    }

    fn all(&mut self) -> v1::Log {
        let records = (0..PEER.records.len())
            .map(|number| self.record(&Which { from: 0, number: number as u8, gap: 1, change: Change::None }));
        let records = records.collect();
        v1::Log { records, run: Some(RUN.to_vec()), seq: self.seq, number: 0 }
    }

    fn record(&mut self, which: &Which) -> v1::LogRecord {
        let from = match which.from % 4 {
            0 | 1 => &PEER.records,
            2 => &OWN.records,
            _ => &STRANGER.records,
        };
        let Travelling { record, value } = from[usize::from(which.number) % from.len()].clone();
        let Auth(auth) = record.auth;
        self.seq = self.seq.wrapping_add(which.gap.into());
        let mut sent =
            v1::LogRecord { clear: record.clear, sealed: record.sealed, auth: auth.to_vec(), value, seq: self.seq };
        change(&mut sent, &which.change);
        sent
    }

    async fn answer(&mut self, changed: Option<u16>) {
        let want = self.asked.lock().expect("no panic").pop_front();
        let Some(want) = want else { return };
        let hash = ValueHash(want.hash.as_slice().try_into().expect("a hash"));
        let Some(file) = PEER.blobs.get(&hash) else {
            return self.frame_out(Frame::BlobGone(v1::BlobGone { hash: want.hash })).await;
        };
        let (mut offset, end) = (want.offset as usize, want.offset as usize + want.length as usize);
        while offset < end {
            let most = end.min(offset + CHUNK + TAG);
            let mut data = file[offset..most].to_vec();
            if let Some(bit) = changed {
                flip(&mut data, bit.into());
            }
            let part = v1::BlobPart { hash: want.hash.clone().into(), offset: offset as u64, data: data.into() };
            self.frame_out(Frame::BlobPart(part)).await;
            offset = most;
        }
    }

    async fn answer_all(&mut self) {
        // What is asked for grows by answers, and ends with the values that there are.
        for _ in 0..64 {
            self.answer(None).await;
        }
    }
}

fn bytes_of(id: &Id, peer: [u8; 16], own: [u8; 16]) -> Vec<u8> {
    match id {
        Id::Peer => peer.to_vec(),
        Id::Own => own.to_vec(),
        Id::Other(byte) => vec![*byte; 16],
        Id::Wrong(bytes) => bytes.clone(),
    }
}

fn named(hash: &Hash) -> Vec<u8> {
    let of = |blobs: &BTreeMap<ValueHash, Vec<u8>>, number: u8| {
        let hash = blobs.keys().nth(usize::from(number) % blobs.len());
        hash.map_or_else(Vec::new, |hash| hash.0.to_vec())
    };
    match hash {
        Hash::Peer(number) => of(&PEER.blobs, *number),
        Hash::Own(number) => of(&OWN.blobs, *number),
        Hash::Wrong(bytes) => bytes.clone(),
    }
}

fn change(sent: &mut v1::LogRecord, change: &Change) {
    match change {
        Change::None | Change::None2 | Change::None3 => {}
        Change::Clear(bit) => flip(&mut sent.clear, usize::from(*bit) * 3),
        Change::Sealed(bit) => flip(&mut sent.sealed, usize::from(*bit) * 3),
        Change::Auth(bit) => flip(&mut sent.auth, (*bit).into()),
        Change::Value(bit) => flip(sent.value.get_or_insert_default(), (*bit).into()),
        Change::NoValue => sent.value = None,
        Change::OtherValue(bytes) => sent.value = Some(bytes.clone()),
        Change::All { clear, sealed, auth } => {
            (sent.clear, sent.sealed, sent.auth) = (clear.clone(), sealed.clone(), auth.clone());
        }
    }
}

fn channels() -> (Channel, Channel) {
    let key = SyncKey::derive(&key());
    let (initiator, first) = Initiator::start(&key, &random(7)).expect("randomness");
    let (reply, responder) = respond(&first, &random(8), |_| Some(key)).expect("a first message");
    (initiator.finish(&reply).expect("a reply"), responder)
}
