//! What a session does with what it is sent: merges records, takes values, and says how far it holds the log.
//!
//! A record whose value is not here waits for it; later ones are merged at once, but the cursor stays before it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::backlog::{Backlog, Lacking, RANGES};
use super::digest::differs;
use super::probe::is_probe;
use super::send::{Outbox, Wanted};
use super::serve::Request;
use super::values::Values;
use super::write::Report;
use super::{Ended, Frames, Progress, SessionError, call, ended};
use crate::failpoint::reached;
use crate::keys::AccountId;
use crate::record::{Auth, Clear, Kind, Record, RecordId};
use crate::store::{Cursor, Merged, Opening, RunId, Seq, Store, Travelling, WriteError};

/// The most records, and about the most of their bytes, that the other side may want to have merged at once.
const PART_RECORDS: usize = 1_024;
const PART_BYTES: usize = 4 << 20;

/// The most reports of the writing that are looked at together.
const REPORTS: usize = 256;

/// How often the disk is looked at while it is full: space on a disk is nothing that one could wait for.
const SPACE: Duration = Duration::from_secs(2);

/// How many records that were given up are looked at again after a commit.
const AGAIN: usize = 64;

pub(super) struct Receiver {
    pub(super) store: Store,
    pub(super) frames: Frames,
    pub(super) account: AccountId,
    pub(super) peer: Opening,
    pub(super) outbox: Outbox,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) values: Values,
    pub(super) backlog: Backlog,
    pub(super) part: Part,
    /// Which wish for the log is being answered.
    pub(super) number: u32,
    /// The last probe that was answered.
    pub(super) answered: watch::Sender<u64>,
    /// When the disk, which was full, is looked at again.
    pub(super) full: Option<Instant>,
}

/// Records of a part of the log whose end has not come.
#[derive(Default)]
pub(super) struct Part {
    records: Vec<(Seq, Travelling)>,
    bytes: usize,
}

impl Receiver {
    /// Takes frames until the session ends.
    pub(super) async fn receive(&mut self) -> Result<Ended, SessionError> {
        let (mut commits, mut others) = (self.store.commits(), self.store.downloads_ended());
        let mut reports = Vec::new();
        loop {
            self.values.fill();
            let full = self.full;
            tokio::select! {
                biased;
                // None come any more once the writing has failed, which ends the session when its turn comes.
                1.. = self.reports.recv_many(&mut reports, REPORTS) => self.reported(reports.drain(..)).await?,
                Ok(()) = commits.changed(), if !self.values.gone().is_empty() => self.look_again().await?,
                Ok(()) = others.changed(), if self.values.waits_for_others() => self.values.look_again(),
                () = async { sleep_until(full.unwrap_or_else(Instant::now)).await }, if full.is_some() => self.look_for_space(),
                frame = self.frames.next() => match frame? {
                    None => return Ok(Ended::Gone),
                    Some(Frame::End(end)) => return ended(&end),
                    Some(frame) => self.take(frame).await?,
                },
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Log(log) => self.log(log).await?,
            Frame::Acknowledge(held) => self.acknowledged(&held),
            Frame::Resume(resume) => self.resume(&resume),
            Frame::BlobWant(want) => {
                let asked = self.requests.try_send(Request::parse(&want)?);
                asked.map_err(|_| SessionError::Protocol("it asks for too much at once"))?;
            }
            Frame::BlobPart(part) => self.values.part(part)?,
            Frame::BlobGone(gone) => self.values.is_gone(&gone)?,
            Frame::HeadWant(want) => {
                let seq = self.store.head().0;
                self.outbox.answer(Frame::Head(v1::Head { number: want.number, seq }))?;
            }
            Frame::Digest(digest) => self.compare(&digest).await?,
            Frame::Head(head) if is_probe(head.number) => drop(self.answered.send_replace(head.number)),
            Frame::Head(head) => {
                self.progress.send_modify(|progress| progress.head = (head.number, Seq(head.seq)));
            }
            Frame::Silence(_) | Frame::End(_) => {}
            Frame::Hello(_) => return Err(SessionError::Protocol("a second greeting")),
        }
        Ok(())
    }

    /// What the other side says to hold of this store's log; never more than there is.
    fn acknowledged(&self, held: &v1::Acknowledge) {
        let head = self.store.head();
        let place = |seq| Seq(seq).min(head);
        let beyond = held.beyond.iter().take(RANGES).filter(|places| places.first <= head.0);
        let beyond: Vec<_> = beyond.map(|places| (Seq(places.first), place(places.last))).collect();
        self.store.acknowledge(self.account, self.peer.store, place(held.seq), &beyond);
        reached("sync.acknowledgement-taken");
        let full = held.full;
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.full_there, full) != full);
    }

    /// The other side wants the log again, from an earlier place.
    fn resume(&self, resume: &v1::Resume) {
        let after = Seq(resume.seq).min(self.store.head());
        self.wanted.send_replace(Wanted { number: resume.number, after, all: resume.all });
    }

    /// Gathers records until the frame that has the cursor, then merges them.
    async fn log(&mut self, log: v1::Log) -> Result<(), SessionError> {
        // It was on its way when the log was asked for anew; all of it comes again.
        if log.number != self.number {
            return Ok(());
        }
        let mut last = self.part.records.last().map_or(self.backlog.through(), |(seq, _)| *seq);
        for v1::LogRecord { clear, sealed, auth, value, seq } in log.records {
            let auth = auth.try_into().map_err(|_| SessionError::Protocol("no authentication"))?;
            self.part.bytes += clear.len() + sealed.len() + value.as_ref().map_or(0, Vec::len);
            if Seq(seq) <= last {
                return Err(SessionError::Protocol("its log goes back"));
            }
            last = Seq(seq);
            self.part.records.push((last, Travelling { record: Record { clear, sealed, auth: Auth(auth) }, value }));
        }
        if self.part.records.len() > PART_RECORDS || self.part.bytes > PART_BYTES {
            return Err(SessionError::Protocol("too much of its log at once"));
        }
        let Some(run) = log.run else { return Ok(()) };
        let run = run.try_into().map_err(|_| SessionError::Protocol("an id of the wrong length"))?;
        if Seq(log.seq) < last {
            return Err(SessionError::Protocol("its log goes back"));
        }
        let part = std::mem::take(&mut self.part);
        self.merge(part.records, Cursor { run: RunId(run), seq: Seq(log.seq) }).await
    }

    async fn merge(&mut self, records: Vec<(Seq, Travelling)>, cursor: Cursor) -> Result<(), SessionError> {
        if self.full.is_some() && self.backlog.is_overrun() {
            return self.merge_removals(records).await;
        }
        let is_next = self.backlog.is_empty();
        let (mut places, mut may_lack) = sort(&records);
        let (seqs, records): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let Some(merged) = self.store_records(records, is_next.then_some(cursor)).await? else { return Ok(()) };
        // What does not verify says nothing, neither that a version is newer nor what a value is.
        let refused: BTreeSet<_> = merged.refused.iter().map(|at| seqs[*at]).collect();
        places.retain(|(seq, _)| !refused.contains(seq));
        may_lack.retain(|record| !refused.contains(&record.seq));
        let without = merged.lacking;
        if is_next && without.is_empty() {
            self.backlog.hold(cursor.seq);
        } else {
            let lacks = |record: &Lacking| without.contains(&record.clear.value_hash);
            let lacking: Vec<_> = may_lack.into_iter().filter(lacks).collect();
            let clears: Vec<_> = lacking.iter().map(|record| record.clear).collect();
            if self.backlog.add(cursor, &places, lacking) {
                self.values.keep(|hash| self.backlog.needs(hash));
            }
            let kept = clears.into_iter().filter(|clear| self.backlog.needs(clear.value_hash));
            kept.for_each(|clear| self.values.want(clear));
        }
        self.pass().await
    }

    /// Merges what frees space, while there is too little for all else.
    async fn merge_removals(&mut self, records: Vec<(Seq, Travelling)>) -> Result<(), SessionError> {
        let is_removal =
            |record: &Travelling| Clear::parse(&record.record.clear).is_ok_and(|clear| clear.kind == Kind::REMOVAL);
        let removals: Vec<_> = records.into_iter().map(|(_, record)| record).filter(is_removal).collect();
        if !removals.is_empty() {
            self.store_records(removals, None).await?;
        }
        Ok(())
    }

    /// Merges records, and returns what became of them; `None`: the disk is full, and the log has to be sent again.
    async fn store_records(
        &mut self,
        records: Vec<Travelling>,
        cursor: Option<Cursor>,
    ) -> Result<Option<Merged>, SessionError> {
        let (store, account, peer) = (self.store.clone(), self.account, self.peer);
        let merged = match self.beside_parts(move || store.merge(account, records, peer, cursor)).await? {
            Err(WriteError::DiskFull { .. }) => {
                self.backlog.overrun();
                self.wait_for_space();
                return Ok(None);
            }
            merged => merged?,
        };
        Ok(Some(merged))
    }

    /// Calls into the store, and takes parts of values meanwhile: a large value does not stand still at each commit. Any
    /// other frame waits for the call.
    async fn beside_parts<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        let store = self.store.clone();
        let mut called = pin!(call(&store, work));
        loop {
            tokio::select! {
                biased;
                done = &mut called => return done,
                part = self.frames.next_part() => {
                    self.values.part(part?)?;
                    self.values.fill();
                }
            }
        }
    }

    /// Takes note of what was written, and merges the records whose values are whole.
    async fn reported(&mut self, reports: impl Iterator<Item = Report>) -> Result<(), SessionError> {
        let whole: Vec<_> = reports.filter_map(|report| self.values.report(report)).collect();
        if self.values.waits_for_space() {
            self.wait_for_space();
        }
        let waiting = whole.into_iter().flat_map(|hash| self.backlog.waiting_for(hash)).collect();
        self.settle(waiting).await
    }

    /// Merges records that waited for their values; those that still lack them go on waiting.
    async fn settle(&mut self, waiting: Vec<(Seq, Travelling)>) -> Result<(), SessionError> {
        if waiting.is_empty() {
            return Ok(());
        }
        let records = waiting.iter().map(|(_, record)| record.clone()).collect();
        let Some(merged) = self.store_records(records, None).await? else { return Ok(()) };
        for (seq, record) in waiting {
            match Clear::parse(&record.record.clear) {
                // It may have been swept away as a file that nothing refers to, just before; then it is taken once more.
                Ok(clear) if merged.lacking.contains(&clear.value_hash) => self.values.want(clear),
                _ => self.backlog.settle(seq),
            }
        }
        self.pass().await
    }

    /// Looks whether records whose values the other side does not have came from somewhere else.
    async fn look_again(&mut self) -> Result<(), SessionError> {
        let gone = self.values.gone().iter().take(AGAIN);
        let waiting = gone.flat_map(|hash| self.backlog.waiting_for(*hash)).collect();
        self.settle(waiting).await?;
        self.values.keep(|hash| self.backlog.needs(hash));
        Ok(())
    }

    /// Moves the cursor over all parts of the log that wait for nothing any more, and says what is held.
    async fn pass(&mut self) -> Result<(), SessionError> {
        if let Some(cursor) = self.backlog.pass() {
            self.store_records(Vec::new(), Some(cursor)).await?;
        }
        self.tell();
        if self.full.is_none() && self.backlog.has_room_again() {
            self.ask_again();
        }
        Ok(())
    }

    /// Says what is held of the log, and whether the disk is full.
    fn tell(&self) {
        self.outbox.hold(v1::Acknowledge { full: self.full.is_some(), ..self.backlog.acknowledgement() });
    }

    /// Asks for the log anew, after what is held of it.
    fn ask_again(&mut self) {
        self.number += 1;
        self.part = Part::default();
        self.backlog.restart();
        let held = self.store.peer(self.peer.store).held;
        let run = held.map(|held| held.run.0.to_vec());
        let seq = held.map_or(0, |held| held.seq.0);
        let all = self.store.is_in_full_pass(self.peer.store);
        self.outbox.urgent(Frame::Resume(v1::Resume { run, seq, number: self.number, all }));
    }

    /// Compares what both sides hold. Where it differs, all of the other side's log is taken once more.
    async fn compare(&mut self, told: &v1::Digest) -> Result<(), SessionError> {
        let Some(differs) = differs(&self.store, self.peer.store, told).await? else { return Ok(()) };
        self.store.end_full_pass(self.peer.store);
        if differs && self.store.begin_full_pass(self.peer.store) {
            tracing::warn!("the other side holds other records; all of its log is taken once more");
            self.backlog = Backlog::new(Seq(0));
            self.values.keep(|_| false);
            self.ask_again();
            return Ok(());
        }
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.differs, differs) != differs);
        Ok(())
    }

    fn wait_for_space(&mut self) {
        self.full.get_or_insert_with(|| Instant::now() + SPACE);
        self.show_full(true);
    }

    fn look_for_space(&mut self) {
        self.full = None;
        if !self.store.has_space() {
            return self.wait_for_space();
        }
        self.show_full(false);
        self.values.space_again();
        // The record of a value that is whole may not have been merged for want of space.
        self.backlog.lacking().for_each(|clear| self.values.want(*clear));
        if self.backlog.has_room_again() {
            self.ask_again();
        }
    }

    fn show_full(&self, full: bool) {
        if self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.full, full) != full) {
            self.tell();
        }
    }
}

/// The places of all records, and copies of those that may have to wait for a value.
fn sort(records: &[(Seq, Travelling)]) -> (Vec<(Seq, RecordId)>, Vec<Lacking>) {
    let (mut places, mut may_lack) = (Vec::with_capacity(records.len()), Vec::new());
    for (seq, record) in records {
        let Ok(clear) = Clear::parse(&record.record.clear) else { continue };
        places.push((*seq, clear.id));
        if clear.has_blob() {
            may_lack.push(Lacking { seq: *seq, clear, record: record.clone() });
        }
    }
    (places, may_lack)
}
