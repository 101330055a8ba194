//! The life of a daemon: open the store, serve, wait for the stop, drain, close.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::accept::{Door, Tls};
use crate::config::Config;
use crate::given::{self, GivenError};
use crate::local;
use crate::local::failure;
use crate::local::state::{Identity, Serving, Shared, State};
use crate::process;
use crate::socket::{Bound, Lock, Place};
use crate::store::{OpenError, Store};
use crate::sync::remote::{Remote, Trust};
use crate::sync::server;

/// How long requests that were begun may take once the daemon is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// How often a daemon that was started on demand looks whether its directory is still there.
const LOOK: Duration = Duration::from_secs(30);

/// Why a daemon ended otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum DaemonError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Given(#[from] GivenError),
    #[error("devices cannot be accepted at {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the socket cannot be served")]
    Socket(#[source] io::Error),
    #[error("a part of the daemon ended by a panic")]
    Panic(#[source] JoinError),
}

impl DaemonError {
    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Open(error) => error.hint(),
            Self::Given(error) => error.hint(),
            Self::Bind { .. } => "name another address or port with --bind",
            Self::Socket(_) | Self::Panic(_) => "",
        }
    }
}

/// What the surroundings of a daemon may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The store is open and requests are answered, from the moment that the report returns.
    Serving,
    /// The tasks run and the committer answers; reported as often as [`Config::watchdog`] wants it.
    Alive,
    /// No more requests are taken.
    Stopping,
}

/// Serves `place` until `stop`, and returns once everything begun is answered and the store is closed. Devices are
/// accepted with `tls`, where there is one.
///
/// Needs a runtime of several threads. Every task lives in one set; one that ends before the stop ends the daemon.
///
/// # Errors
/// A store that does not open, or a task that ended early.
pub async fn run(
    config: &Config,
    place: Place,
    tls: Option<Tls>,
    stop: CancellationToken,
    report: impl Fn(Phase),
) -> Result<(), DaemonError> {
    let Place { directory, lock, listeners, bound } = place;
    let identity = Identity { directory, on_demand: config.on_demand, arguments: config.arguments.clone() };
    let shared = Arc::new(Shared::new(identity, stop.clone()));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).map_err(DaemonError::Socket)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(DaemonError::Socket)?;
        tasks.spawn(local::serve(listener, shared.clone()));
    }
    let store = match open(config, &shared).await {
        Ok(store) => store,
        Err(error) => {
            shared.enter(State::Failed(Arc::new(failed(&error))));
            end(tasks, bound.as_ref()).await;
            return Err(error);
        }
    };
    let remote = Remote::new(store.clone(), Trust { file: config.authorities.clone() });
    let mut syncing = JoinSet::new();
    let bind = match accept_devices(config, tls, &store, &stop, &mut syncing).await {
        Ok(bind) => bind,
        Err(error) => {
            shared.enter(State::Failed(Arc::new(failed(&error))));
            let _ = spawn_blocking(move || store.close()).await;
            end(tasks, bound.as_ref()).await;
            return Err(error);
        }
    };
    syncing.spawn(remote.clone().run(stop.clone()));
    report(Phase::Serving);
    shared.enter(State::Serving(Serving { store: store.clone(), remote, bind }));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving");
    let result = tokio::select! {
        result = until_stop(config, &lock, &mut tasks, &stop) => result,
        ended = early(&mut syncing, &stop) => ended,
        never = pulse(config.watchdog, &store, &report) => match never {},
    };
    report(Phase::Stopping);
    stop.cancel();
    // Sessions write to the store, so they end before it does.
    if timeout(DRAIN, async { while syncing.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("some sessions did not end in time");
        syncing.shutdown().await;
    }
    close(&shared, store, bound.as_ref()).await;
    end(tasks, bound.as_ref()).await;
    tracing::info!("stopped");
    result
}

/// Begins to accept devices where that is asked for, and returns where.
async fn accept_devices(
    config: &Config,
    tls: Option<Tls>,
    store: &Store,
    stop: &CancellationToken,
    syncing: &mut JoinSet<io::Result<()>>,
) -> Result<String, DaemonError> {
    let Some(address) = config.bind else { return Ok(String::new()) };
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| DaemonError::Bind { address, source })?;
    let bound = listener.local_addr().map_err(|source| DaemonError::Bind { address, source })?;
    let connections = config.port.connections.unwrap_or_else(process::connections);
    tracing::info!(%bound, tls = tls.is_some(), connections, "accepting devices");
    let door = Door { tls, connections, proxies: config.port.proxies.clone() };
    syncing.spawn(server::serve(door, store.clone(), listener, stop.clone()));
    Ok(bound.to_string())
}

/// Returns when a part of syncing ends before the stop.
async fn early(syncing: &mut JoinSet<io::Result<()>>, stop: &CancellationToken) -> Result<(), DaemonError> {
    match syncing.join_next().await {
        _ if stop.is_cancelled() => Ok(()),
        Some(Ok(Err(error))) => Err(DaemonError::Socket(error)),
        Some(Err(error)) => Err(DaemonError::Panic(error)),
        Some(Ok(Ok(()))) | None => Err(DaemonError::Socket(io::ErrorKind::NotConnected.into())),
    }
}

fn failed(error: &DaemonError) -> kvass_proto::v1::Error {
    match error {
        DaemonError::Open(error) => failure::not_opened(error),
        other => failure::message(other, kvass_proto::v1::error::Code::Failed, other.hint()),
    }
}

/// Opens the store on a thread of its own; the clients that wait are told what it is doing.
async fn open(config: &Config, shared: &Arc<Shared>) -> Result<Store, DaemonError> {
    let (options, key_file, shared) = (config.options, config.key_file.clone(), shared.clone());
    let opening = move || {
        let doing = |doing: &str| shared.enter(State::Starting(doing.into()));
        let directory = &shared.identity().directory;
        let Some(file) = key_file else { return Ok(Store::open(directory, options, &doing)?) };
        let key = given::read(&file)?;
        Store::make(directory, &key)?;
        let store = Store::open(directory, options, &doing)?;
        if let Err(error) = given::compare(&file, &key, directory, &store.key()) {
            store.close();
            return Err(error.into());
        }
        Ok(store)
    };
    spawn_blocking(opening).await.map_err(DaemonError::Panic)?
}

/// Returns when the daemon is asked to stop, its directory is gone, or a task ends that should not.
async fn until_stop(
    config: &Config,
    lock: &Lock,
    tasks: &mut JoinSet<io::Result<()>>,
    stop: &CancellationToken,
) -> Result<(), DaemonError> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = lock_is_gone(lock), if config.on_demand => {
            tracing::warn!("the lock file is gone");
            Ok(())
        }
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => Err(DaemonError::Socket(io::ErrorKind::NotConnected.into())),
            Ok(Err(error)) => Err(DaemonError::Socket(error)),
            Err(error) => Err(DaemonError::Panic(error)),
        },
    }
}

/// Reports that the daemon lives, three times in each `watchdog`, for as long as its store does.
async fn pulse(watchdog: Option<Duration>, store: &Store, report: impl Fn(Phase)) -> Infallible {
    let Some(watchdog) = watchdog else { return pending().await };
    let mut beats = interval(watchdog / 3);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let store = store.clone();
        if spawn_blocking(move || store.is_alive()).await.unwrap_or(false) {
            report(Phase::Alive);
        }
    }
}

async fn lock_is_gone(lock: &Lock) {
    while lock.is_in_place() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets what has begun end, closes the store and removes the socket; then whoever asked for the stop is answered.
async fn close(shared: &Shared, store: Store, bound: Option<&Bound>) {
    shared.enter(State::Stopping);
    if timeout(DRAIN, shared.idle()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    if spawn_blocking(move || store.close()).await.is_err() {
        tracing::error!("the store did not close");
    }
    if let Some(bound) = bound {
        bound.remove();
    }
    shared.enter(State::Stopped);
}

/// Removes the socket and waits for the tasks, which end by themselves once the daemon has.
async fn end(mut tasks: JoinSet<io::Result<()>>, bound: Option<&Bound>) {
    if let Some(bound) = bound {
        bound.remove();
    }
    while tasks.join_next().await.is_some() {}
}
