//! A session: two stores that tell each other their logs, the same code on both sides.
//!
//! It knows no sockets: frames come and go through channels, so that the same code runs over gRPC and in tests. State
//! changes only in the store's commits, so a session may be dropped at any await; the next one goes on from the
//! cursors. docs/protocol.md has the order of the frames.

mod backlog;
mod digest;
mod probe;
mod receive;
mod send;
mod serve;
mod values;
mod window;
mod write;

use std::time::Duration;

use kvass_proto::v1::{self, end::Reason, sync_frame::Frame};
use prost::Message;
use prost::bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, ChannelError, Opener};
use crate::keys::AccountId;
use crate::store::{Cursor, DownloadError, Opening, ReadError, RunId, Seq, Store, StoreId, WriteError};
use backlog::Backlog;
use receive::{Part, Receiver};
use send::{Outbox, Wanted};
use serve::Request;
use values::Values;
use write::Report;

/// How long the last frame may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The version of the protocol that this program speaks.
pub(super) const VERSION: u32 = 1;

/// The wire of a session: whole frames, in order.
pub struct Link {
    /// To the other side.
    pub to: mpsc::Sender<Bytes>,
    /// From the other side; it ends when the connection does.
    pub from: mpsc::Receiver<Bytes>,
}

/// Which side a store is on. It matters only where both sides turn out to be copies of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It made the connection.
    Initiator,
    /// It was connected to.
    Responder,
}

/// What a session has learnt so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The store on the other side.
    pub peer: Option<StoreId>,
    /// By how much the other side's clock is ahead, in microseconds.
    pub skew_us: i64,
    /// Whether the disk here is too full for what the other side sends.
    pub full: bool,
    /// Whether the other side's disk is too full for what this side sends.
    pub full_there: bool,
    /// Whether the other side holds other records though nothing is on its way, also after all was taken once more.
    pub differs: bool,
    /// The newest answer of the other side to how far its log goes: the number of the question, and the place.
    pub head: (u64, Seq),
}

/// How a session ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The connection is gone.
    Gone,
    /// One side stops, or its key or id changed: a new session may begin at once.
    Again,
    /// It was told to stop.
    Stopped,
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SessionError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the other side broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the other side speaks another version of the protocol than {VERSION}")]
    Version,
    #[error("the remote is this very store")]
    Itself,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a part of the session ended by a panic")]
    Panic,
}

impl SessionError {
    /// Whether another attempt must fail in the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Channel(error) => error.is_permanent(),
            Self::Itself | Self::Version => true,
            _ => false,
        }
    }
}

impl From<DownloadError> for SessionError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Wrong => Self::Protocol("a part of a value does not verify"),
            DownloadError::Write(error) => Self::Write(error),
        }
    }
}

/// Runs a session over an open channel until it ends. `progress` shows what is learnt on the way; each new number in
/// `questions` asks the other side how far its log goes.
///
/// # Errors
/// A peer that breaks the protocol or is this very store, or a store that cannot go on.
pub async fn run(
    store: Store,
    side: Side,
    channel: Channel,
    link: Link,
    stop: CancellationToken,
    progress: watch::Sender<Progress>,
    questions: watch::Receiver<u64>,
) -> Result<Ended, SessionError> {
    let (offered, account) = (channel.versions().to_vec(), channel.account());
    let (sealer, opener) = channel.split();
    let Link { to, from } = link;
    let (outbox, writer) = Outbox::new(sealer, to);
    let (requests, asked) = serve::requests();
    let serving = serve::serve(store.clone(), outbox.clone(), asked);
    // What is written is bounded by what was asked for, and what is reported by what is written.
    let ((work, todo), (done, reports)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let storing = write::write(store.clone(), todo, done);
    let values = Values::new(outbox.clone(), work);
    let last = outbox.clone();
    let (here, begun) = (store.clone(), store.identity());
    let session = Session {
        store,
        account,
        side,
        outbox,
        frames: Frames { opener, from, held: None },
        requests,
        values,
        reports,
        progress,
        questions,
        offered,
    };
    let mut writing = std::pin::pin!(writer.run());
    let result = tokio::select! {
        biased;
        ended = session.talk() => ended,
        ended = serving => ended,
        ended = storing => ended,
        written = &mut writing => return written.map(|()| Ended::Gone),
        () = stop.cancelled() => Ok(Ended::Stopped),
        // A device hears of it at the beginning of a session.
        () = public_url_changed(&here), if side == Side::Responder => Ok(Ended::Again),
    };
    let result = match result {
        // The key or the id changed while something was being merged.
        Err(SessionError::Write(WriteError::Refused(_))) if here.identity() != begun => Ok(Ended::Again),
        result => result,
    };
    last.say_goodbye(match &result {
        Err(SessionError::Itself) => Reason::Itself,
        Err(SessionError::Version) => Reason::Version,
        Err(SessionError::Protocol(_)) => Reason::Protocol,
        _ => Reason::Again,
    });
    // A peer that takes nothing any more is not waited for.
    let _ = timeout(GOODBYE, writing).await;
    result
}

/// Returns once another public URL is set here.
async fn public_url_changed(store: &Store) {
    let mut public = store.public_url();
    let own = public.borrow_and_update().own.clone();
    // An error means that the store is gone, and with it this session.
    if public.wait_for(|url| url.own != own).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The frames that come in.
struct Frames {
    opener: Opener,
    from: mpsc::Receiver<Bytes>,
    /// What came when only a part of a value was looked for.
    held: Option<Option<Frame>>,
}

impl Frames {
    /// The next frame; `None` where the connection is gone.
    async fn next(&mut self) -> Result<Option<Frame>, SessionError> {
        match self.held.take() {
            Some(held) => Ok(held),
            None => self.read().await,
        }
    }

    /// The next frame where it is a part of a value. Any other, and the end, is left for [`Self::next`], and this goes
    /// on for ever.
    async fn next_part(&mut self) -> Result<v1::BlobPart, SessionError> {
        if self.held.is_none() {
            match self.read().await? {
                Some(Frame::BlobPart(part)) => return Ok(part),
                other => self.held = Some(other),
            }
        }
        std::future::pending().await
    }

    async fn read(&mut self) -> Result<Option<Frame>, SessionError> {
        let Some(sealed) = self.from.recv().await else { return Ok(None) };
        let bytes = Bytes::from(self.opener.open(&sealed)?);
        let frame = v1::SyncFrame::decode(bytes).map_err(|_| SessionError::Protocol("no frame"))?;
        frame.frame.map(Some).ok_or(SessionError::Protocol("a frame of a kind that is not known"))
    }
}

struct Session {
    store: Store,
    /// The account that the channel is of.
    account: AccountId,
    side: Side,
    outbox: Outbox,
    frames: Frames,
    requests: mpsc::Sender<Request>,
    values: Values,
    reports: mpsc::UnboundedReceiver<Report>,
    questions: watch::Receiver<u64>,
    progress: watch::Sender<Progress>,
    offered: Vec<u8>,
}

impl Session {
    async fn talk(mut self) -> Result<Ended, SessionError> {
        let identity = self.store.identity();
        if identity.1 != self.account {
            // The key changed since the handshake.
            return Ok(Ended::Again);
        }
        let own = identity.0;
        self.outbox.urgent(Frame::Hello(v1::Hello {
            version: VERSION,
            store: own.0.to_vec(),
            run: self.store.run().0.to_vec(),
            clock_us: self.store.surroundings().clock.now_us(),
            public_url: self.public_url(),
        }));
        let Some(hello) = self.frames.next().await? else { return Ok(Ended::Gone) };
        let Frame::Hello(hello) = hello else { return Err(SessionError::Protocol("no greeting")) };
        let peer = self.meet(own, &hello)?;
        self.note_public_url(hello.public_url).await;
        let Some(peer) = peer else { return self.fork(own).await };
        let held = self.store.peer(peer.store).held;
        let resume = v1::Resume {
            run: held.map(|held| held.run.0.to_vec()),
            seq: held.map_or(0, |held| held.seq.0),
            number: 0,
            all: self.store.is_in_full_pass(peer.store),
        };
        self.outbox.urgent(Frame::Resume(resume));
        let resume = match self.frames.next().await? {
            None => return Ok(Ended::Gone),
            Some(Frame::Resume(resume)) => resume,
            Some(Frame::End(end)) => return ended(&end),
            Some(_) => return Err(SessionError::Protocol("no place to go on from")),
        };
        let after = self.place(peer.store, &resume).await?;
        if self.store.identity() != identity {
            // What was asked for is of another log.
            return Ok(Ended::Again);
        }
        let Some(after) = after else { return self.fork(own).await };
        let (wanted, wish) = watch::channel(Wanted { number: 0, after, all: resume.all });
        let (answered, answers) = watch::channel(0);
        let Self { store, account, outbox, frames, requests, values, reports, progress, mut questions, .. } = self;
        let backlog = Backlog::new(held.map_or(Seq(0), |held| held.seq));
        let mut receiver = Receiver {
            store: store.clone(),
            frames,
            account,
            peer,
            outbox: outbox.clone(),
            requests,
            progress,
            wanted,
            reports,
            values,
            backlog,
            part: Part::default(),
            number: 0,
            answered,
            full: None,
        };
        tokio::select! {
            biased;
            ended = receiver.receive() => ended,
            ended = send::questions(&outbox, &mut questions) => ended,
            ended = probe::probe(store.surroundings().clock.clone(), outbox.clone(), answers) => ended,
            ended = digest::tell(store.clone(), outbox.clone(), peer.store) => ended,
            ended = send::log(&store, &outbox, identity, peer, wish) => ended,
        }
    }

    /// Looks at who is on the other side. `None`: this store is a copy of another, and the one that has to change.
    fn meet(&self, own: StoreId, hello: &v1::Hello) -> Result<Option<Opening>, SessionError> {
        if hello.version != VERSION || !self.offered.contains(&(VERSION as u8)) {
            return Err(SessionError::Version);
        }
        let id = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_err(|_| SessionError::Protocol("an id is too short"));
        let (store, run) = (StoreId(id(&hello.store)?), RunId(id(&hello.run)?));
        if store == own && run == self.store.run() {
            return Err(SessionError::Itself);
        }
        let now_us = self.store.surroundings().clock.now_us();
        let skew_us = hello.clock_us.cast_signed().wrapping_sub(now_us.cast_signed());
        self.progress.send_modify(|progress| {
            progress.peer = Some(store);
            progress.skew_us = skew_us;
        });
        if store != own {
            return Ok(Some(Opening { store, run }));
        }
        match self.side {
            Side::Initiator => Ok(None),
            // The other side takes another id.
            Side::Responder => Ok(Some(Opening { store, run })),
        }
    }

    /// What is told of links: by a server alone.
    fn public_url(&self) -> String {
        match self.side {
            Side::Initiator => String::new(),
            Side::Responder => self.store.public_url().borrow().own.clone(),
        }
    }

    /// Keeps what a server says of links.
    async fn note_public_url(&self, url: String) {
        let store = self.store.clone();
        if self.side == Side::Initiator
            && let Ok(Err(error)) = call(&self.store, move || store.meet_public_url(&url)).await
        {
            tracing::warn!(%error, "what stands before links was not noted");
        }
    }

    /// The place in this store's log from which the peer goes on; `None` where it holds a history that is not this one.
    async fn place(&self, peer: StoreId, resume: &v1::Resume) -> Result<Option<Seq>, SessionError> {
        let Some(run) = &resume.run else {
            self.store.begin_peer(self.account, peer, Seq(0));
            return Ok(Some(Seq(0)));
        };
        let run = <[u8; 16]>::try_from(run.as_slice()).map_err(|_| SessionError::Protocol("an id is too short"))?;
        let cursor = Cursor { run: RunId(run), seq: Seq(resume.seq) };
        let store = self.store.clone();
        let accepted = call(&self.store, move || store.accepts(cursor)).await??;
        if accepted {
            self.store.begin_peer(self.account, peer, cursor.seq);
        }
        Ok(accepted.then_some(cursor.seq))
    }

    async fn fork(&self, own: StoreId) -> Result<Ended, SessionError> {
        let store = self.store.clone();
        call(&self.store, move || store.fork(own)).await??;
        Ok(Ended::Again)
    }
}

/// What the other side's goodbye means here.
fn ended(end: &v1::End) -> Result<Ended, SessionError> {
    match end.reason() {
        Reason::Again | Reason::Forked => Ok(Ended::Again),
        Reason::Protocol => Err(SessionError::Protocol("it says that this side did")),
        Reason::Itself => Err(SessionError::Itself),
        Reason::Version => Err(SessionError::Version),
    }
}

/// Runs a call into the store on a thread that may block. Where the runtime has only this one thread, as in a
/// simulation, it runs here: another thread would make time pass by itself.
pub(super) async fn call<T: Send + 'static>(
    store: &Store,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SessionError> {
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        return spawn_blocking(call).await.map_err(|_| SessionError::Panic);
    }
    match store.surroundings().disk.pause() {
        Duration::ZERO => Ok(call()),
        pause => Ok(call_slowly(pause, call).await),
    }
}

/// Runs a call with a pause before and after it. As on a thread, it goes on where nobody waits for it any more.
async fn call_slowly<T: Send + 'static>(pause: Duration, call: impl FnOnce() -> T + Send + 'static) -> T {
    let calling = tokio::spawn(async move {
        sleep(pause).await;
        let done = call();
        sleep(pause).await;
        done
    });
    match calling.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and with it whoever waits.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::{Initiator, respond};
    use super::*;
    use crate::keys::{EncryptionKey, SyncKey};
    use crate::random::Random;

    #[tokio::test]
    async fn what_is_no_part_keeps_its_place() {
        let (key, random) = (SyncKey::derive(&EncryptionKey::new([5; 32])), Random::system());
        let (initiator, first) = Initiator::start(&key, &random).unwrap();
        let (reply, theirs) = respond(&first, &random, |_| Some(key)).unwrap();
        let (mut sealer, _) = initiator.finish(&reply).unwrap().split();
        let (to, from) = mpsc::channel(4);
        let part = |offset| Frame::BlobPart(v1::BlobPart { offset, ..v1::BlobPart::default() });
        for frame in [part(1), Frame::Silence(v1::Silence {}), part(2)] {
            let bytes = v1::SyncFrame { frame: Some(frame) }.encode_to_vec();
            to.send(sealer.seal(&bytes).unwrap().into()).await.unwrap();
        }
        drop(to);
        let mut frames = Frames { opener: theirs.split().1, from, held: None };
        assert_eq!(frames.next_part().await.unwrap().offset, 1);
        for _ in 0..2 {
            tokio::select! {
                biased;
                part = frames.next_part() => panic!("{part:?} came before its turn"),
                () = std::future::ready(()) => {}
            }
        }
        assert!(matches!(frames.next().await.unwrap(), Some(Frame::Silence(_))));
        assert_eq!(frames.next_part().await.unwrap().offset, 2);
        tokio::select! {
            biased;
            part = frames.next_part() => panic!("{part:?} came after the end"),
            () = std::future::ready(()) => {}
        }
        assert!(frames.next().await.unwrap().is_none());
    }
}
