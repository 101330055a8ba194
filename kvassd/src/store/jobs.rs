//! How the committer hears of its jobs, and the threads of a store.

use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::commit::{self, Committer, Job};
use super::{OpenError, WriteError};

/// The way to the committer; a cheap clone.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) queue: SyncSender<Job>,
    /// The committer itself where it has no thread; `None` in it once it has closed.
    pub(crate) here: Option<Arc<Mutex<Option<Committer>>>>,
}

impl Jobs {
    /// Gives the committer a job; where it has no thread, the job is done when this returns.
    pub(crate) fn send(&self, job: Job) -> Result<(), WriteError> {
        let mut committer = self.here.as_ref().map(|here| here.lock().unwrap_or_else(PoisonError::into_inner));
        self.queue.send(job).map_err(|_| WriteError::Closed)?;
        if let Some(slot) = &mut committer
            && !slot.as_mut().is_some_and(Committer::run_waiting)
        {
            **slot = None;
        }
        Ok(())
    }
}

/// A thread whose panic ends the process: its state is not to be trusted.
pub(crate) fn spawn(
    name: &str,
    directory: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            commit::fatal("a thread of the store panicked");
        }
    };
    let spawned = thread::Builder::new().name(name.into()).spawn(guarded);
    spawned.map_err(OpenError::io("start a thread for", directory))
}
