//! What a session does with what it is sent: merges records, takes values, and says how far it holds the log.
//!
//! A record whose value is not here waits for it; later ones are merged at once, but the cursor stays before it.

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::sync::{mpsc, watch};

use super::backlog::{Backlog, Lacking, RANGES};
use super::send::Outbox;
use super::{Ended, Frames, Progress, SessionError, call, ended};
use crate::record::{Auth, Clear, Record, ValueHash};
use crate::store::{Cursor, Download, RunId, Seq, Store, StoreId, Travelling};

/// The most records, and about the most of their bytes, that the other side may want to have merged at once.
const PART_RECORDS: usize = 1_024;
const PART_BYTES: usize = 4 << 20;

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
    gathered: Vec<(Seq, Travelling)>,
    bytes: usize,
    backlog: Backlog,
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
        let backlog = Backlog::new(store.peer(peer).held.map_or(Seq(0), |held| held.seq));
        Self { store, peer, outbox, requests, progress, gathered: Vec::new(), bytes: 0, backlog, taking: None }
    }

    /// Takes frames until the session ends.
    pub(super) async fn receive(&mut self, frames: &mut Frames) -> Result<Ended, SessionError> {
        while let Some(frame) = frames.next().await? {
            match frame {
                Frame::Log(log) => self.log(log).await?,
                Frame::Acknowledge(held) => self.acknowledged(&held),
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

    /// What the other side says to hold of this store's log; never more than there is.
    fn acknowledged(&self, held: &v1::Acknowledge) {
        let head = self.store.head();
        let place = |seq| Seq(seq).min(head);
        let beyond = held.beyond.iter().take(RANGES).filter(|places| places.first <= head.0);
        let beyond: Vec<_> = beyond.map(|places| (Seq(places.first), place(places.last))).collect();
        self.store.acknowledge(self.peer, place(held.seq), &beyond);
    }

    /// Gathers records until the frame that has the cursor, then merges them.
    async fn log(&mut self, log: v1::Log) -> Result<(), SessionError> {
        let mut last = self.gathered.last().map_or(self.backlog.through(), |(seq, _)| *seq);
        for v1::LogRecord { clear, sealed, auth, value, seq } in log.records {
            let auth = auth.try_into().map_err(|_| SessionError::Protocol("no authentication"))?;
            self.bytes += clear.len() + sealed.len() + value.as_ref().map_or(0, Vec::len);
            if Seq(seq) <= last {
                return Err(SessionError::Protocol("its log goes back"));
            }
            last = Seq(seq);
            self.gathered.push((last, Travelling { record: Record { clear, sealed, auth: Auth(auth) }, value }));
        }
        if self.gathered.len() > PART_RECORDS || self.bytes > PART_BYTES {
            return Err(SessionError::Protocol("too much of its log at once"));
        }
        let Some(run) = log.run else { return Ok(()) };
        let run = run.try_into().map_err(|_| SessionError::Protocol("an id of the wrong length"))?;
        if Seq(log.seq) < last {
            return Err(SessionError::Protocol("its log goes back"));
        }
        self.bytes = 0;
        let records = std::mem::take(&mut self.gathered);
        self.merge(records, Cursor { run: RunId(run), seq: Seq(log.seq) }).await
    }

    async fn merge(&mut self, records: Vec<(Seq, Travelling)>, cursor: Cursor) -> Result<(), SessionError> {
        let is_next = self.backlog.is_empty();
        let copies = records.iter().map(|(_, record)| record.clone()).collect();
        let without = self.store_records(copies, is_next.then_some(cursor)).await?;
        let parsed = records.into_iter().filter_map(|(seq, record)| {
            let clear = Clear::parse(&record.record.clear).ok()?;
            Some(Lacking { seq, clear, record })
        });
        let parsed: Vec<_> = parsed.collect();
        if is_next && without.is_empty() {
            self.backlog.hold(cursor.seq);
        } else {
            let places: Vec<_> = parsed.iter().map(|record| (record.seq, record.clear.id)).collect();
            let lacks = |record: &Lacking| without.contains(&record.clear.value_hash);
            self.backlog.add(cursor, &places, parsed.into_iter().filter(lacks).collect());
        }
        self.pass().await
    }

    /// Merges records, and returns the hashes of the values that are not here.
    async fn store_records(
        &mut self,
        records: Vec<Travelling>,
        cursor: Option<Cursor>,
    ) -> Result<Vec<ValueHash>, SessionError> {
        let (store, peer) = (self.store.clone(), self.peer);
        let merged = call(move || store.merge(records, peer, cursor)).await??;
        self.progress.send_if_modified(|progress| {
            progress.refused += merged.refused as u64;
            merged.refused > 0
        });
        Ok(merged.lacking)
    }

    /// Begins to take the next value that is lacking, where none is being taken.
    async fn take_next(&mut self) -> Result<(), SessionError> {
        if self.taking.is_some() {
            return Ok(());
        }
        let Some(clear) = self.backlog.lacking().next().copied() else { return Ok(()) };
        let store = self.store.clone();
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
        let (places, records): (Vec<_>, Vec<_>) = self.backlog.waiting_for(hash).into_iter().unzip();
        // It may have been swept away as a file that nothing refers to, just before; then it is taken once more.
        if self.store_records(records, None).await?.is_empty() {
            places.into_iter().for_each(|seq| self.backlog.settle(seq));
        }
        self.pass().await
    }

    /// The other side has a value no more: its record was replaced, and the one that did it stands later in the log.
    async fn gone(&mut self, hash: &[u8]) -> Result<(), SessionError> {
        let hash = ValueHash(hash.try_into().map_err(|_| SessionError::Protocol("no hash"))?);
        if self.taking.take_if(|taking| taking.clear.value_hash == hash).is_none() {
            return Ok(());
        }
        for (seq, _) in self.backlog.waiting_for(hash) {
            self.backlog.settle(seq);
        }
        self.pass().await
    }

    /// Moves the cursor over all parts of the log that wait for nothing any more, and says what is held.
    async fn pass(&mut self) -> Result<(), SessionError> {
        if let Some(cursor) = self.backlog.pass() {
            self.store_records(Vec::new(), Some(cursor)).await?;
        }
        self.outbox.hold(self.backlog.acknowledgement());
        self.take_next().await
    }
}
