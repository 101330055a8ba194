//! What a session does with what it is sent: merges records, takes values, and says how far it holds the log.
//!
//! A record whose value is not here waits for it; later ones are merged at once, but the cursor stays before it.

use std::collections::VecDeque;

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::sync::{mpsc, watch};

use super::send::Outbox;
use super::{Ended, Frames, Progress, SessionError, call, ended};
use crate::record::{Auth, Clear, Record, ValueHash};
use crate::store::{Cursor, Download, RunId, Seq, Store, StoreId, Travelling};

/// The most records, and about the most of their bytes, that the other side may want to have merged at once.
const PART_RECORDS: usize = 1_024;
const PART_BYTES: usize = 4 << 20;

/// A part of the log that was merged but for records whose values are not here.
struct Waiting {
    cursor: Cursor,
    lacking: Vec<(Clear, Travelling)>,
}

/// The value that is being taken.
struct Taking {
    clear: Clear,
    download: Download,
    /// Up to where it was asked for.
    asked: u64,
}

pub(super) struct Receiver {
    store: Store,
    peer: StoreId,
    outbox: Outbox,
    requests: mpsc::Sender<v1::BlobWant>,
    progress: watch::Sender<Progress>,
    gathered: Vec<Travelling>,
    bytes: usize,
    waiting: VecDeque<Waiting>,
    taking: Option<Taking>,
}

impl Receiver {
    pub(super) fn new(
        store: Store,
        peer: StoreId,
        outbox: Outbox,
        requests: mpsc::Sender<v1::BlobWant>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let (gathered, waiting) = (Vec::new(), VecDeque::new());
        Self { store, peer, outbox, requests, progress, gathered, bytes: 0, waiting, taking: None }
    }

    /// Takes frames until the session ends.
    pub(super) async fn receive(&mut self, frames: &mut Frames) -> Result<Ended, SessionError> {
        while let Some(frame) = frames.next().await? {
            match frame {
                Frame::Log(log) => self.log(log).await?,
                Frame::Acknowledge(held) => {
                    self.store.acknowledge(self.peer, Seq(held.seq).min(self.store.head()));
                }
                Frame::BlobWant(want) => {
                    let asked = self.requests.try_send(want);
                    asked.map_err(|_| SessionError::Protocol("it asks for too much at once"))?;
                }
                Frame::BlobPart(part) => self.part(part).await?,
                Frame::BlobGone(gone) => self.gone(&gone.hash).await?,
                Frame::HeadWant(want) => {
                    let seq = self.store.head().0;
                    self.outbox.urgent(Frame::Head(v1::Head { number: want.number, seq }));
                }
                Frame::Head(head) => {
                    self.progress.send_modify(|progress| progress.head = (head.number, Seq(head.seq)));
                }
                Frame::Silence(_) => {}
                Frame::End(end) => return ended(&end),
                Frame::Hello(_) | Frame::Resume(_) => return Err(SessionError::Protocol("a second greeting")),
            }
        }
        Ok(Ended::Gone)
    }

    /// Gathers records until the frame that has the cursor, then merges them.
    async fn log(&mut self, log: v1::Log) -> Result<(), SessionError> {
        for v1::LogRecord { clear, sealed, auth, value } in log.records {
            let auth = auth.try_into().map_err(|_| SessionError::Protocol("no authentication"))?;
            self.bytes += clear.len() + sealed.len() + value.as_ref().map_or(0, Vec::len);
            self.gathered.push(Travelling { record: Record { clear, sealed, auth: Auth(auth) }, value });
        }
        if self.gathered.len() > PART_RECORDS || self.bytes > PART_BYTES {
            return Err(SessionError::Protocol("too much of its log at once"));
        }
        let Some(run) = log.run else { return Ok(()) };
        let run = run.try_into().map_err(|_| SessionError::Protocol("an id of the wrong length"))?;
        self.bytes = 0;
        let records = std::mem::take(&mut self.gathered);
        self.merge(records, Cursor { run: RunId(run), seq: Seq(log.seq) }).await
    }

    async fn merge(&mut self, records: Vec<Travelling>, cursor: Cursor) -> Result<(), SessionError> {
        let is_next = self.waiting.is_empty();
        let lacking = self.store_records(records, is_next.then_some(cursor)).await?;
        if is_next && lacking.is_empty() {
            self.outbox.hold(cursor.seq);
            return Ok(());
        }
        self.waiting.push_back(Waiting { cursor, lacking });
        self.take_next().await
    }

    /// Merges records, and returns those whose values are not here.
    async fn store_records(
        &mut self,
        records: Vec<Travelling>,
        cursor: Option<Cursor>,
    ) -> Result<Vec<(Clear, Travelling)>, SessionError> {
        let (store, peer, copies) = (self.store.clone(), self.peer, records.clone());
        let merged = call(move || store.merge(copies, peer, cursor)).await??;
        self.progress.send_if_modified(|progress| {
            progress.refused += merged.refused as u64;
            merged.refused > 0
        });
        let is_lacking = |clear: &Clear| merged.lacking.contains(&clear.value_hash);
        let parsed = records.into_iter().filter_map(|record| Some((Clear::parse(&record.record.clear).ok()?, record)));
        Ok(parsed.filter(|(clear, _)| is_lacking(clear)).collect())
    }

    /// Begins to take the next value that is lacking, where none is being taken.
    async fn take_next(&mut self) -> Result<(), SessionError> {
        if self.taking.is_some() {
            return Ok(());
        }
        let Some((clear, _)) = self.waiting.iter().find_map(|part| part.lacking.first()) else { return Ok(()) };
        let (store, clear) = (self.store.clone(), *clear);
        let download = call(move || store.download(&clear)).await??;
        self.taking = Some(Taking { clear, download, asked: 0 });
        self.ask();
        Ok(())
    }

    /// Asks for the next range of the value that is being taken.
    fn ask(&mut self) {
        let Some(taking) = &mut self.taking else { return };
        let Some((offset, length)) = taking.download.wants() else { return };
        taking.asked = offset + u64::from(length);
        let hash = taking.clear.value_hash.0.to_vec();
        self.outbox.urgent(Frame::BlobWant(v1::BlobWant { hash, offset, length }));
    }

    async fn part(&mut self, part: v1::BlobPart) -> Result<(), SessionError> {
        // Parts of a value that was given up may still come.
        let wanted = |taking: &mut Taking| taking.clear.value_hash.0 == part.hash[..];
        let Some(taking) = self.taking.take_if(wanted) else { return Ok(()) };
        let Taking { clear, mut download, asked } = taking;
        let end = part.offset + part.data.len() as u64;
        let download = call(move || download.push(part.offset, &part.data).map(|()| download)).await??;
        if download.wants().is_none() {
            call(move || download.finish()).await??;
            return self.have(clear.value_hash).await;
        }
        self.taking = Some(Taking { clear, download, asked });
        if end == asked {
            self.ask();
        }
        Ok(())
    }

    /// Merges the records that waited for a value.
    async fn have(&mut self, hash: ValueHash) -> Result<(), SessionError> {
        let records = self.forget(hash);
        // It may have been swept away as a file that nothing refers to, just before; then it is taken once more.
        let lacking = self.store_records(records, None).await?;
        if let Some(part) = self.waiting.front_mut() {
            part.lacking.extend(lacking);
        }
        self.pass().await
    }

    /// The other side has a value no more: its record was replaced, and the one that did it stands later in the log.
    async fn gone(&mut self, hash: &[u8]) -> Result<(), SessionError> {
        let hash = ValueHash(hash.try_into().map_err(|_| SessionError::Protocol("no hash"))?);
        if self.taking.take_if(|taking| taking.clear.value_hash == hash).is_none() {
            return Ok(());
        }
        self.forget(hash);
        self.pass().await
    }

    /// Takes the records that wait for a value out of what waits.
    fn forget(&mut self, hash: ValueHash) -> Vec<Travelling> {
        let mut records = Vec::new();
        for part in &mut self.waiting {
            let gone = part.lacking.extract_if(.., |(clear, _)| clear.value_hash == hash);
            records.extend(gone.map(|(_, record)| record));
        }
        records
    }

    /// Moves the cursor over all parts of the log that wait for nothing any more.
    async fn pass(&mut self) -> Result<(), SessionError> {
        while let Some(part) = self.waiting.front().filter(|part| part.lacking.is_empty()) {
            let cursor = part.cursor;
            self.waiting.pop_front();
            self.store_records(Vec::new(), Some(cursor)).await?;
            self.outbox.hold(cursor.seq);
        }
        self.take_next().await
    }
}
