//! The link to the remote: connects, runs a session, and comes again when it ended.
//!
//! It lives as long as the daemon, follows the remote that is set, and tells at any time how it stands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvass_proto::line::with_causes;
use kvass_proto::v1::entry::Sync;
use kvass_proto::v1::{self, link};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Backoff};
use super::connect::{self, Opened, Way};
pub use super::connect::{RemoteError, Trust};
use super::jump::jumped;
use super::preview::{self, Preview};
use super::session::{self, Ended, Progress, Side};
use crate::keys::{AccountId, EncryptionKey};
use crate::logs::Seldom;
use crate::network::{Connect, Tcp};
use crate::store::{Seq, Store, StoreId};

/// How it stands with the remote.
#[derive(Clone, Debug)]
struct State {
    state: link::State,
    since_us: u64,
    error: String,
    hint: String,
    /// The clock of the remote, as the last session that has ended saw it.
    skew_us: i64,
}

impl State {
    /// Nothing was tried yet.
    fn beginning(now_us: u64) -> Self {
        let (error, hint) = (String::new(), String::new());
        Self { state: link::State::Connecting, since_us: now_us, error, hint, skew_us: 0 }
    }
}

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// All that is here now is at the remote, and all that was there when it was asked is here.
    Both,
    /// All that was at the remote when it was asked is here.
    Taken,
    /// The remote holds this entry as it is here.
    Held(String),
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
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.keep(&url, &stop), if !url.is_empty() => {}
                changed = remote.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Connects again and again to one remote.
    async fn keep(&self, url: &str, stop: &CancellationToken) {
        let (mut backoff, seldom) = (Backoff::new(), Seldom::default());
        let (mut hurry, mut commits) = (self.hurry.subscribe(), self.store.commits());
        // What was learnt of another remote is not so of this one.
        self.state.send_replace(State::beginning(self.store.surroundings().clock.now_us()));
        self.progress.send_replace(Progress::default());
        let mut is_blocked = false;
        loop {
            // What a blocked link tries by itself is shown only once it is mended.
            if !is_blocked {
                self.enter(link::State::Connecting, None);
            }
            // Who asks while an attempt fails is given another one.
            hurry.borrow_and_update();
            let (_, account) = self.store.identity();
            let ended = self.session(url, stop).await;
            let is_permanent = ended.as_ref().is_err_and(RemoteError::is_permanent);
            if self.end_session() {
                backoff.reset();
            }
            match ended {
                Ok(Ended::Stopped) => return,
                Ok(_) => self.enter(link::State::Waiting, None),
                Err(error) => {
                    if seldom.is_new(&with_causes(&error), Instant::now()) {
                        tracing::info!(error = with_causes(&error), "no session with the remote");
                    }
                    let state = if is_permanent { link::State::Blocked } else { link::State::Waiting };
                    self.enter(state, Some(&error));
                }
            }
            commits.borrow_and_update();
            let luck = self.luck();
            let pause = if is_permanent { backoff::longest(luck) } else { backoff.next(luck) };
            is_blocked = false;
            tokio::select! {
                biased;
                // Nobody signs a refusal, and the other side may have been mended.
                () = tokio::time::sleep(pause) => is_blocked = is_permanent,
                // A change that has to go out, or somebody who waits; not more often than once a second.
                _ = async { tokio::time::sleep(Duration::from_secs(1)).await; commits.changed().await }, if !is_permanent => {}
                // Another key may be the one that the remote has.
                () = self.key_changed(account) => backoff.reset(),
                _ = hurry.changed() => {}
                // The machine slept: what was so before need not be so any more.
                () = jumped(&self.store.surroundings().clock), if !is_permanent => backoff.reset(),
            }
        }
    }

    /// Keeps what stays to be read of a session; `false` where there was none.
    fn end_session(&self) -> bool {
        let last = self.progress.send_replace(Progress::default());
        if last.peer.is_some() {
            self.state.send_modify(|state| state.skew_us = last.skew_us);
        }
        last.peer.is_some()
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
                let now = *shown.borrow_and_update();
                let is_known = self.progress.borrow().peer.is_some();
                if let Some(peer) = now.peer.filter(|_| !is_known) {
                    self.meet(peer).await;
                    self.enter(link::State::Connected, None);
                }
                self.progress.send_replace(now);
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            biased;
            ended = running => ended,
            () = show => Ok(Ended::Gone),
        };
        connection.close().await;
        Ok(ended?)
    }

    async fn meet(&self, peer: StoreId) {
        let store = self.store.clone();
        // What is not noted is noted by the next session.
        if let Ok(Err(error)) = session::call(&self.store, move || store.meet_remote(peer)).await {
            tracing::warn!(%error, "which store the remote is was not noted");
        }
    }

    fn enter(&self, state: link::State, error: Option<&RemoteError>) {
        self.state.send_modify(|now| {
            // What went wrong stays to be read until it is better.
            match error {
                Some(error) => (now.error, now.hint) = (with_causes(&error), error.hint().to_owned()),
                None if state == link::State::Connected => (now.error, now.hint) = Default::default(),
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
        let waiting = self.store.waiting().unwrap_or_default();
        let (error, hint) = match progress.full_there {
            true => ("the disk of the other side is full".to_owned(), "free some space there".to_owned()),
            false => (state.error, state.hint),
        };
        Some(v1::Link {
            state: state.state.into(),
            since_us: state.since_us,
            error,
            hint,
            pending: waiting.count,
            skew_us: if progress.peer.is_some() { progress.skew_us } else { state.skew_us },
            oldest_us: waiting.since_us,
            differs: progress.differs,
            full: progress.full,
        })
    }

    /// Whether the remote holds an entry as it is here. Blocks.
    #[must_use]
    pub fn sync_of(&self, name: &str) -> Sync {
        if self.url().is_empty() {
            return Sync::Local;
        }
        match self.holds(name) {
            true => Sync::Synced,
            false => Sync::Pending,
        }
    }

    fn holds(&self, name: &str) -> bool {
        self.store.remote_peer().is_some_and(|peer| self.store.is_held(name, peer))
    }

    /// The state of the link, and what went wrong last; `None` without a remote. It reads no store.
    #[must_use]
    pub fn state(&self) -> Option<(link::State, String)> {
        let state = self.state.borrow();
        (!self.url().is_empty()).then(|| (state.state, state.error.clone()))
    }

    /// Returns once the state of the link is another one.
    pub async fn changed(&self) {
        // An error means that `self` is gone, which it is not.
        let _ = self.state.subscribe().changed().await;
    }

    /// Looks whether a remote answers, which takes some seconds at most.
    pub async fn probe(&self, url: &str) -> Result<(), RemoteError> {
        connect::open(&self.way, &self.store.surroundings().random, &self.store.sync_key(), url).await.map(drop)
    }

    /// Looks at what another remote holds, under its key; `seen` counts the records that came.
    ///
    /// # Errors
    /// As [`preview::preview`].
    pub async fn preview(
        &self,
        url: &str,
        key: &EncryptionKey,
        seen: &watch::Sender<u64>,
    ) -> Result<Preview, RemoteError> {
        preview::preview(&self.store, &self.way, url, key, seen).await
    }

    /// Ends a wait between attempts, also where the last one says that all others must fail: something may have been
    /// mended. Returns the number for [`Remote::reached`].
    #[must_use]
    pub fn ask(&self) -> u64 {
        if self.state.borrow().state == link::State::Blocked {
            self.enter(link::State::Connecting, None);
        }
        self.hurry.send_modify(|number| *number += 1);
        self.questions.send_modify(|number| *number += 1);
        *self.questions.borrow()
    }

    /// Waits until what is wished is so. The question is one of [`Remote::ask`], asked before.
    pub async fn reached(&self, question: u64, goal: &Goal) {
        let mut own = (self.store.identity().1, self.store.head());
        let (mut peers, mut commits) = (self.store.peers_changed(), self.store.commits());
        let mut progress = self.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            peers.borrow_and_update();
            commits.borrow_and_update();
            // The log of another key begins anew, and has other places for what was here.
            let account = self.store.identity().1;
            if account != own.0 {
                own = (account, self.store.head());
            }
            let is_reached = match goal {
                Goal::Held(name) => self.holds(name),
                Goal::Taken => self.has_taken(now, question),
                Goal::Both => self.has_taken(now, question) && self.has_acknowledged(now, own.1),
            };
            if is_reached {
                return;
            }
            tokio::select! {
                biased;
                _ = progress.changed() => {}
                _ = peers.changed() => {}
                // The entry may be another version now, which the remote holds.
                _ = commits.changed(), if matches!(goal, Goal::Held(_)) => {}
            }
        }
    }

    fn has_taken(&self, now: Progress, question: u64) -> bool {
        let held = now.peer.and_then(|peer| self.store.peer(peer).held);
        now.peer.is_some() && now.head.0 >= question && held.map_or(Seq(0), |held| held.seq) >= now.head.1
    }

    fn has_acknowledged(&self, now: Progress, own: Seq) -> bool {
        now.peer.is_some_and(|peer| self.store.peer(peer).acknowledged >= own)
    }
}
