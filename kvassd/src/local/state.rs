//! What all connections share: who the daemon is, what it is doing, and how many requests it has begun.

use std::path::PathBuf;
use std::sync::Arc;

use kvass_proto::v1::{self, greeting};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::note::Notes;
use crate::clock::now_us;
use crate::store::Store;
use crate::sync::remote::Remote;

/// Calls into the store at once, of either kind: enough for commits to be shared, few enough to bound threads and
/// memory.
const CALLS: usize = 32;

/// What the daemon is doing.
#[derive(Clone)]
pub(crate) enum State {
    /// Opening the store; what is being done, in words.
    Starting(String),
    Serving(Serving),
    /// Finishing what has begun.
    Stopping,
    /// The store is closed and the socket gone.
    Stopped,
    /// The store could not be opened.
    Failed(Arc<v1::Error>),
}

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) store: Store,
    pub(crate) remote: Remote,
    /// Where devices are accepted; empty: nowhere.
    pub(crate) bind: String,
}

impl State {
    fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed(_))
    }
}

/// Who the daemon is, as its greeting says.
pub(crate) struct Identity {
    pub(crate) directory: PathBuf,
    pub(crate) on_demand: bool,
    pub(crate) arguments: Vec<String>,
}

/// What all connections share.
pub(crate) struct Shared {
    identity: Identity,
    started_us: u64,
    state: watch::Sender<State>,
    begun: watch::Sender<usize>,
    calls: Semaphore,
    waits: Semaphore,
    notes: Notes,
    stop: CancellationToken,
}

impl Shared {
    pub(crate) fn new(identity: Identity, stop: CancellationToken) -> Self {
        Self {
            identity,
            started_us: now_us(),
            state: watch::Sender::new(State::Starting("starting".into())),
            begun: watch::Sender::new(0),
            calls: Semaphore::new(CALLS),
            waits: Semaphore::new(CALLS),
            notes: Notes::default(),
            stop,
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the daemon started, in microseconds since 1970.
    pub(crate) fn started_us(&self) -> u64 {
        self.started_us
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(crate) fn enter(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Asks the daemon to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Returns once the daemon takes no more requests.
    pub(crate) async fn stopping(&self) {
        let served = |state: &State| matches!(state, State::Starting(_) | State::Serving(_));
        // An error means that `self` is gone, which it is not.
        let _ = self.state().wait_for(|state| !served(state)).await;
    }

    /// Returns once the store is closed, or could not be opened.
    pub(crate) async fn ended(&self) {
        let _ = self.state().wait_for(State::is_final).await;
    }

    /// Begins a request: what it is answered from, and a guard that the daemon waits for before it closes the store.
    ///
    /// `None` once it is stopping.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<(Serving, Begun)> {
        // Counted before the look, so that a stop that the look misses sees the count.
        let begun = Begun::new(self.clone());
        match &*self.state.borrow() {
            State::Serving(serving) => Some((serving.clone(), begun)),
            _ => None,
        }
    }

    /// Returns once no request that was begun is left.
    pub(crate) async fn idle(&self) {
        let _ = self.begun.subscribe().wait_for(|begun| *begun == 0).await;
    }

    /// Runs a short blocking call into the store; few at once, on this thread, which is faster than handing it over.
    pub(crate) async fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        let _permit = self.calls.acquire().await;
        tokio::task::block_in_place(call)
    }

    /// Runs a call that may have to wait: for a commit, for the pass after a start, or for space on a full disk. Short
    /// ones do not wait behind it.
    pub(crate) async fn wait<T>(&self, call: impl FnOnce() -> T) -> T {
        let _permit = self.waits.acquire().await;
        tokio::task::block_in_place(call)
    }

    pub(crate) fn greeting(&self, state: &State) -> v1::Greeting {
        let (state, doing) = match state {
            State::Starting(doing) => (greeting::State::Starting, doing.clone()),
            State::Serving(_) => (greeting::State::Serving, String::new()),
            State::Stopping | State::Stopped | State::Failed(_) => (greeting::State::Stopping, String::new()),
        };
        v1::Greeting {
            version: env!("CARGO_PKG_VERSION").into(),
            directory: self.identity.directory.to_string_lossy().into_owned(),
            state: state.into(),
            doing,
            process: std::process::id(),
            on_demand: self.identity.on_demand,
            arguments: self.identity.arguments.clone(),
        }
    }
}

/// A request that was begun; it ends when this is dropped.
pub(crate) struct Begun(Arc<Shared>);

impl Begun {
    fn new(shared: Arc<Shared>) -> Self {
        shared.begun.send_modify(|begun| *begun += 1);
        Self(shared)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.begun.send_modify(|begun| *begun -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_does_not_wait_behind_writes_that_wait() {
        let identity = Identity { directory: PathBuf::new(), on_demand: false, arguments: Vec::new() };
        let shared = Arc::new(Shared::new(identity, CancellationToken::new()));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let writes: Vec<_> = (0..2 * CALLS)
            .map(|_| {
                let (shared, ended) = (shared.clone(), ended.clone());
                tokio::spawn(
                    async move { shared.wait(|| ended.lock().map(|ended| ended.recv().is_err())).await.is_ok() },
                )
            })
            .collect();
        while shared.waits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        shared.call(|| ()).await;
        drop(end);
        for write in writes {
            assert!(write.await.unwrap());
        }
    }
}
