//! The link to the remote: connects, runs a session, and comes again when it ended.
//!
//! It lives as long as the daemon, follows the remote that is set, and tells at any time how it stands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvass_proto::v1::entry::Sync;
use kvass_proto::v1::{self, link};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::connect::{self, Opened, Way};
pub use super::connect::{RemoteError, Trust};
use super::session::{self, Ended, Progress, Side};
use crate::keys::AccountId;
use crate::network::{Connect, Tcp};
use crate::store::{Seq, Store, StoreId};

/// How it stands with the remote.
#[derive(Clone, Debug)]
struct State {
    state: link::State,
    since_us: u64,
    error: String,
}

impl State {
    /// Nothing was tried yet.
    fn beginning(now_us: u64) -> Self {
        Self { state: link::State::Connecting, since_us: now_us, error: String::new() }
    }
}

/// The link to the remote, as others see it; a cheap clone.
#[derive(Clone)]
pub struct Remote {
    store: Store,
    way: Way,
    state: Arc<watch::Sender<State>>,
    progress: Arc<watch::Sender<Progress>>,
    questions: Arc<watch::Sender<u64>>,
    /// Ends a wait between attempts.
    hurry: Arc<watch::Sender<u64>>,
}

impl Remote {
    /// The link of a store, which [`Remote::run`] keeps. With `https` it trusts whom the system does, and `trust`.
    #[must_use]
    pub fn new(store: Store, trust: Trust) -> Self {
        Self::with(Way { network: Arc::new(Tcp), trust }, store)
    }

    /// The same over another network than TCP.
    #[must_use]
    pub fn over(network: Arc<dyn Connect>, store: Store) -> Self {
        Self::with(Way { network, trust: Trust::default() }, store)
    }

    fn with(way: Way, store: Store) -> Self {
        let state = State::beginning(store.surroundings().clock.now_us());
        Self {
            store,
            way,
            state: Arc::new(watch::Sender::new(state)),
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
        self.state.send_replace(State::beginning(self.store.surroundings().clock.now_us()));
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
            let pause = backoff.next(self.luck());
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

    fn luck(&self) -> u64 {
        // Without randomness all devices come at the same time, no more.
        self.store.surroundings().random.bytes().map_or(0, u64::from_be_bytes)
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
        let opened = connect::open(&self.way, &self.store.surroundings().random, &self.store.sync_key(), url).await?;
        let Opened { channel, link, connection } = opened;
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
        let ended = tokio::select! {
            ended = running => ended,
            () = show => Ok(Ended::Gone),
        };
        connection.close().await;
        Ok(ended?)
    }

    fn enter(&self, state: link::State, error: Option<&RemoteError>) {
        self.state.send_modify(|now| {
            // What went wrong stays to be read until it is better.
            match error {
                Some(error) => now.error = error.text(),
                None if state == link::State::Connected => now.error.clear(),
                None => {}
            }
            // Attempts in between do not begin the time anew.
            if now.state != state && !(now.state == link::State::Waiting && state == link::State::Connecting) {
                now.state = state;
                now.since_us = self.store.surroundings().clock.now_us();
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
            refused: progress.refused,
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
        connect::open(&self.way, &self.store.surroundings().random, &self.store.sync_key(), url).await.map(drop)
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
