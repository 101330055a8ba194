//! Writes the values that a session takes, beside the session: what is small does not wait for the disk behind a large
//! value.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use tokio::sync::mpsc;

use super::{Ended, SessionError, call};
use crate::record::{Clear, ValueHash};
use crate::store::{Download, DownloadError, Missing, Store, WriteError};

/// The most work that is done in one call.
const BATCH: usize = 32;

/// What is to be done with a value.
pub(super) enum Work {
    Begin(Clear),
    Part {
        hash: ValueHash,
        offset: u64,
        data: Bytes,
    },
    /// What is here of it stays for another session.
    Drop(ValueHash),
    /// Nobody needs it any more.
    Abandon(ValueHash),
}

/// What became of it.
pub(super) enum Report {
    /// It is begun, and this is missing.
    Begun(ValueHash, Missing),
    /// Another session takes it.
    Taken(Clear),
    /// The disk is too full for it.
    NoSpace(Clear),
    /// So many bytes of it are written, or not needed any more.
    Written(ValueHash, u64),
    /// What came does not verify.
    Wrong(ValueHash),
    /// It is durable under its name.
    Whole(ValueHash),
}

/// Works until nobody asks for it any more.
pub(super) async fn write(
    store: Store,
    mut work: mpsc::UnboundedReceiver<Work>,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<Ended, SessionError> {
    let mut desk = Desk { store: store.clone(), open: BTreeMap::new(), reports };
    let mut batch = Vec::new();
    while work.recv_many(&mut batch, BATCH).await > 0 {
        let todo = std::mem::take(&mut batch);
        desk = call(&store, move || desk.work(todo)).await??;
    }
    Ok(Ended::Gone)
}

/// The values that are being written.
struct Desk {
    store: Store,
    open: BTreeMap<ValueHash, (Clear, Download)>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Desk {
    fn work(mut self, todo: Vec<Work>) -> Result<Self, SessionError> {
        let mut whole = Vec::new();
        for work in todo {
            match work {
                Work::Begin(clear) => whole.extend(self.begin(clear)?),
                Work::Part { hash, offset, data } => {
                    whole.extend(self.part(hash, offset, &data)?);
                    self.report(Report::Written(hash, data.len() as u64));
                }
                Work::Drop(hash) => drop(self.open.remove(&hash)),
                Work::Abandon(hash) => {
                    if let Some((_, download)) = self.open.remove(&hash) {
                        download.abandon();
                    }
                }
            }
        }
        self.finish(whole)?;
        Ok(self)
    }

    /// Begins a value; `Some` where all of it is here already.
    fn begin(&mut self, clear: Clear) -> Result<Option<ValueHash>, SessionError> {
        let hash = clear.value_hash;
        if self.store.has_blob(&clear) {
            self.report(Report::Whole(hash));
            return Ok(None);
        }
        match self.store.download(&clear) {
            Ok(Some(download)) => {
                let missing = download.missing();
                self.open.insert(hash, (clear, download));
                if missing.is_empty() {
                    return Ok(Some(hash));
                }
                self.report(Report::Begun(hash, missing));
            }
            Ok(None) => self.report(Report::Taken(clear)),
            Err(WriteError::DiskFull { .. }) => self.report(Report::NoSpace(clear)),
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// Writes a part; `Some` where it was the last. Parts of a value that was given up may still come.
    fn part(&mut self, hash: ValueHash, offset: u64, data: &[u8]) -> Result<Option<ValueHash>, SessionError> {
        let Some((_, download)) = self.open.get_mut(&hash) else { return Ok(None) };
        match download.push(offset, data) {
            Ok(()) => return Ok(download.missing().is_empty().then_some(hash)),
            Err(DownloadError::Wrong) => {
                // Counted, and shown by status: the other side decides how often this is.
                tracing::debug!("a value of the other side does not verify");
                self.store.refuse(1);
                self.open.remove(&hash);
                self.report(Report::Wrong(hash));
            }
            Err(DownloadError::Write(WriteError::DiskFull { .. })) => self.no_space(hash),
            Err(DownloadError::Write(error)) => return Err(error.into()),
        }
        Ok(None)
    }

    fn no_space(&mut self, hash: ValueHash) {
        if let Some((clear, _)) = self.open.remove(&hash) {
            self.report(Report::NoSpace(clear));
        }
    }

    fn finish(&mut self, whole: Vec<ValueHash>) -> Result<(), SessionError> {
        let (clears, downloads): (Vec<_>, Vec<_>) = whole.iter().filter_map(|hash| self.open.remove(hash)).unzip();
        match Download::finish_all(downloads) {
            Ok(()) => clears.iter().for_each(|clear| self.report(Report::Whole(clear.value_hash))),
            Err(WriteError::DiskFull { .. }) => {
                clears.into_iter().for_each(|clear| self.report(Report::NoSpace(clear)))
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn report(&self, report: Report) {
        // The session takes them as long as it lives.
        let _ = self.reports.send(report);
    }
}
