//! The link to the remote: connects, runs a session, and comes again when it ended.
//!
//! It lives as long as the daemon, follows the remote that is set, and tells at any time how it stands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvass_proto::v1::entry::Sync;
use kvass_proto::v1::{self, link};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel as Transport, Endpoint};

use super::backoff::Backoff;
use super::channel::{ChannelError, Initiator};
use super::grpc::{self, sync_client};
use super::session::{self, Ended, Link, Progress, SessionError, Side};
use crate::clock::now_us;
use crate::keys::AccountId;
use crate::store::{Seq, Store, StoreId};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a remote is not reached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RemoteError {
    #[error("{0} is no address")]
    Address(String),
    #[error("nothing answers at {0}")]
    Absent(String),
    #[error("{0} does not answer in time")]
    Silent(String),
    #[error("{0} is no kvassd server")]
    Other(String),
    #[error("https is not supported yet")]
    Tls,
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RemoteError {
    fn is_permanent(&self) -> bool {
        match self {
            Self::Session(error) => error.is_permanent(),
            Self::Address(_) | Self::Tls => true,
            _ => false,
        }
    }

    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Session(SessionError::Channel(ChannelError::Refused)) => {
                "compare 'Fingerprint' in 'kvass config show' on both machines, then set one key with 'kvass config key'"
            }
            Self::Absent(_) => "is 'kvass serve' running there? Without a port 80 is meant; kvass serve has 8000",
            _ => "",
        }
    }
}

/// How it stands with the remote.
#[derive(Clone, Debug)]
struct State {
    state: link::State,
    since_us: u64,
    error: String,
}

impl State {
    /// Nothing was tried yet.
    fn beginning() -> Self {
        Self { state: link::State::Connecting, since_us: now_us(), error: String::new() }
    }
}

/// The link to the remote, as others see it; a cheap clone.
#[derive(Clone)]
pub struct Remote {
    store: Store,
    state: Arc<watch::Sender<State>>,
    progress: Arc<watch::Sender<Progress>>,
    questions: Arc<watch::Sender<u64>>,
    /// Ends a wait between attempts.
    hurry: Arc<watch::Sender<u64>>,
}

impl Remote {
    /// The link of a store, which [`Remote::run`] keeps.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            state: Arc::new(watch::Sender::new(State::beginning())),
            progress: Arc::new(watch::Sender::new(Progress::default())),
            questions: Arc::new(watch::Sender::new(0)),
            hurry: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Keeps the link until the stop.
    ///
    /// # Errors
    /// None: what fails is tried again, or shown.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut remote = self.store.remote();
        loop {
            let url = remote.borrow_and_update().clone();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.keep(&url, &stop), if !url.is_empty() => {}
                changed = remote.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Connects again and again to one remote.
    async fn keep(&self, url: &str, stop: &CancellationToken) {
        let mut backoff = Backoff::new();
        let (mut hurry, mut commits) = (self.hurry.subscribe(), self.store.commits());
        // What was learnt of another remote is not so of this one.
        self.state.send_replace(State::beginning());
        self.progress.send_replace(Progress::default());
        loop {
            self.enter(link::State::Connecting, None);
            let (_, account) = self.store.identity();
            let ended = self.session(url, stop).await;
            let is_permanent = ended.as_ref().is_err_and(RemoteError::is_permanent);
            if self.progress.send_replace(Progress::default()).peer.is_some() {
                backoff.reset();
            }
            match ended {
                Ok(Ended::Stopped) => return,
                Ok(_) => self.enter(link::State::Waiting, None),
                Err(error) => {
                    tracing::info!(%error, "no session with the remote");
                    let state = if is_permanent { link::State::Blocked } else { link::State::Waiting };
                    self.enter(state, Some(&error));
                }
            }
            commits.borrow_and_update();
            hurry.borrow_and_update();
            let pause = backoff.next(random());
            tokio::select! {
                () = tokio::time::sleep(pause), if !is_permanent => {}
                // A change that has to go out, or somebody who waits; not more often than once a second.
                _ = async { tokio::time::sleep(Duration::from_secs(1)).await; commits.changed().await }, if !is_permanent => {}
                // Another key may be the one that the remote has.
                () = self.key_changed(account) => backoff.reset(),
                _ = hurry.changed() => {}
            }
        }
    }

    async fn key_changed(&self, from: AccountId) {
        let mut commits = self.store.commits();
        while self.store.identity().1 == from {
            if commits.changed().await.is_err() {
                // The store is being closed.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn session(&self, url: &str, stop: &CancellationToken) -> Result<Ended, RemoteError> {
        let (channel, link, stream) = open(&self.store, url).await?;
        let (inbound, from) = grpc::incoming();
        let link = Link { to: link, from };
        let (progress, mut shown) = watch::channel(Progress::default());
        let running = session::run(
            self.store.clone(),
            Side::Initiator,
            channel,
            link,
            stop.clone(),
            progress,
            self.questions.subscribe(),
        );
        let show = async {
            while shown.changed().await.is_ok() {
                if self.progress.send_replace(*shown.borrow_and_update()).peer.is_none() {
                    self.enter(link::State::Connected, None);
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = running => Ok(ended?),
            ((), ()) = async { tokio::join!(grpc::carry(stream, inbound), show) } => Ok(Ended::Gone),
        }
    }

    fn enter(&self, state: link::State, error: Option<&RemoteError>) {
        self.state.send_modify(|now| {
            // What went wrong stays to be read until it is better.
            match error {
                Some(error) => now.error = text(error),
                None if state == link::State::Connected => now.error.clear(),
                None => {}
            }
            // Attempts in between do not begin the time anew.
            if now.state != state && !(now.state == link::State::Waiting && state == link::State::Connecting) {
                now.state = state;
                now.since_us = now_us();
            }
        });
    }

    /// The remote's URL; empty: none.
    #[must_use]
    pub fn url(&self) -> String {
        self.store.remote().borrow().clone()
    }

    /// How it stands; `None` without a remote. Blocks: it counts what the remote does not hold.
    #[must_use]
    pub fn link(&self) -> Option<v1::Link> {
        if self.url().is_empty() {
            return None;
        }
        let (state, progress) = (self.state.borrow().clone(), *self.progress.borrow());
        let pending = self.peer().map_or_else(|| self.store.head().0, |peer| self.store.pending(peer).unwrap_or(0));
        Some(v1::Link {
            state: state.state.into(),
            since_us: state.since_us,
            error: state.error,
            pending,
            skew_us: progress.skew_us,
            refused: self.store.refused(),
        })
    }

    /// Whether the remote holds an entry as it is here. Blocks.
    #[must_use]
    pub fn sync_of(&self, name: &str) -> Sync {
        if self.url().is_empty() {
            return Sync::Local;
        }
        match self.peer().is_some_and(|peer| self.store.is_held(name, peer)) {
            true => Sync::Synced,
            false => Sync::Pending,
        }
    }

    fn peer(&self) -> Option<StoreId> {
        self.progress.borrow().peer.or_else(|| self.store.last_peer())
    }

    /// Looks whether a remote answers, which takes some seconds at most.
    pub async fn probe(&self, url: &str) -> Result<(), RemoteError> {
        open(&self.store, url).await.map(drop)
    }

    /// Ends a wait between attempts, also where the last one says that all others must fail: something may have been
    /// mended. Returns what [`Remote::synced`] waits for.
    #[must_use]
    pub fn ask(&self) -> u64 {
        if self.state.borrow().state == link::State::Blocked {
            self.enter(link::State::Connecting, None);
        }
        self.hurry.send_modify(|number| *number += 1);
        self.questions.send_modify(|number| *number += 1);
        *self.questions.borrow()
    }

    /// Waits until all that is here now is at the remote, and all that was there when it was asked is here.
    pub async fn synced(&self, question: u64) {
        let own = self.store.head();
        let (mut commits, mut progress) = (self.store.commits(), self.progress.subscribe());
        loop {
            let now = *progress.borrow_and_update();
            commits.borrow_and_update();
            if let Some(peer) = now.peer {
                let known = self.store.peer(peer);
                let held = known.held.map_or(Seq(0), |held| held.seq);
                if now.head.0 >= question && held >= now.head.1 && known.acknowledged >= own {
                    return;
                }
            }
            tokio::select! {
                _ = progress.changed() => {}
                _ = commits.changed() => {}
                // What is acknowledged, or held without a commit, wakes nobody.
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
}

/// An error with its causes, on one line.
fn text(error: &RemoteError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness all devices come at the same time, no more.
    let _ = getrandom::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

type Opened = (super::channel::Channel, tokio::sync::mpsc::Sender<Vec<u8>>, tonic::Streaming<grpc::Frame>);

/// Connects and makes the handshake.
async fn open(store: &Store, url: &str) -> Result<Opened, RemoteError> {
    let transport = connect(url).await?;
    let mut client = sync_client::SyncClient::new(transport)
        .max_decoding_message_size(grpc::FRAME_MAX)
        .max_encoding_message_size(grpc::FRAME_MAX);
    let key = store.sync_key();
    let (initiator, first) = Initiator::start(&key).map_err(SessionError::from)?;
    let (to, frames) = grpc::outgoing();
    // The queue has room: nothing was put into it.
    let _ = to.send(first).await;
    let other = |_| RemoteError::Other(url.to_owned());
    let silent = |_| RemoteError::Silent(url.to_owned());
    let answer = timeout(CONNECT, client.session(grpc::encode(frames))).await.map_err(silent)?;
    let mut stream = answer.map_err(other)?.into_inner();
    let reply = timeout(grpc::HANDSHAKE, grpc::receive(&mut stream)).await.map_err(silent)?;
    let reply = reply.map_err(other)?.ok_or_else(|| RemoteError::Other(url.to_owned()))?;
    let channel = initiator.finish(&reply).map_err(SessionError::from)?;
    Ok((channel, to, stream))
}

async fn connect(url: &str) -> Result<Transport, RemoteError> {
    if url.starts_with("https:") {
        return Err(RemoteError::Tls);
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| RemoteError::Address(url.to_owned()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(grpc::KEEPALIVE)
        .keep_alive_timeout(grpc::KEEPALIVE)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|_| RemoteError::Absent(url.to_owned()))
}
