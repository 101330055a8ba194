//! What a session sends: small frames first, then the log, then parts of values, so that nothing small waits behind
//! something large.

use std::time::Duration;

use kvass_proto::v1::{self, end::Reason, sync_frame::Frame};
use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::super::channel::Sealer;
use super::{Ended, SessionError, call};
use crate::failpoint::reached;
use crate::keys::AccountId;
use crate::store::{Cursor, Opening, Outgoing, ReadError, Seq, Store, StoreId, Travelling};

/// Rows of the log that are read at once, and merged at once on the other side: many, because each commit is synced to
/// the disk; and so few that a local write hardly waits for one.
const ROWS: usize = 1_024;

/// About how many bytes of records one frame carries.
const FRAME: usize = 48 << 10;

/// How long nothing may be sent until the other side is told that this one is there.
const SILENCE: Duration = Duration::from_secs(25);

/// Parts of values that wait to be sent.
const PARTS: usize = 8;

/// Answers that wait to be sent. Who asks and takes no answers is not waited for.
const ANSWERS: usize = 256;

/// How often a log that cannot be read because the disk is full is tried again.
const FULL: Duration = Duration::from_secs(1);

/// Where frames are put to be sent.
#[derive(Clone)]
pub(super) struct Outbox {
    urgent: mpsc::UnboundedSender<Frame>,
    answers: mpsc::Sender<Frame>,
    log: mpsc::Sender<Frame>,
    parts: mpsc::Sender<Frame>,
    held: watch::Sender<v1::Acknowledge>,
}

impl Outbox {
    /// Makes an outbox, and what empties it.
    pub(super) fn new(sealer: Sealer, to: mpsc::Sender<Bytes>) -> (Self, Writer) {
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (answers, answer_queue) = mpsc::channel(ANSWERS);
        let (log, log_queue) = mpsc::channel(1);
        let (parts, part_queue) = mpsc::channel(PARTS);
        let (held, held_slot) = watch::channel(v1::Acknowledge::default());
        let writer = Writer {
            sealer,
            to,
            urgent: urgent_queue,
            answers: answer_queue,
            log: log_queue,
            parts: part_queue,
            held: held_slot,
        };
        (Self { urgent, answers, log, parts, held }, writer)
    }

    /// Puts a small frame before all others. This side decides how many of these there are.
    pub(super) fn urgent(&self, frame: Frame) {
        // The writer is gone only when the session is.
        let _ = self.urgent.send(frame);
    }

    /// Puts the small answer to a question of the other side.
    ///
    /// # Errors
    /// The other side asks and asks, and takes no answers.
    pub(super) fn answer(&self, frame: Frame) -> Result<(), SessionError> {
        match self.answers.try_send(frame) {
            Err(TrySendError::Full(_)) => Err(SessionError::Protocol("it asks for too much at once")),
            // The writer is gone only when the session is.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Says how far the other side's log is held; of several only the newest is sent.
    pub(super) fn hold(&self, held: v1::Acknowledge) {
        self.held.send_replace(held);
    }

    /// Puts a part of a value behind all others.
    pub(super) async fn part(&self, frame: Frame) {
        // The writer is gone only when the session is.
        let _ = self.parts.send(frame).await;
    }

    /// Puts the last frame.
    pub(super) fn say_goodbye(&self, reason: Reason) {
        self.urgent(Frame::End(v1::End { reason: reason.into() }));
    }
}

/// Seals and sends what is put into the outbox.
pub(super) struct Writer {
    sealer: Sealer,
    to: mpsc::Sender<Bytes>,
    urgent: mpsc::UnboundedReceiver<Frame>,
    answers: mpsc::Receiver<Frame>,
    log: mpsc::Receiver<Frame>,
    parts: mpsc::Receiver<Frame>,
    held: watch::Receiver<v1::Acknowledge>,
}

impl Writer {
    /// Writes until the last frame is out, or the connection is gone.
    pub(super) async fn run(mut self) -> Result<(), SessionError> {
        loop {
            let frame = self.next().await;
            let is_last = matches!(frame, Frame::End(_));
            let acknowledges = matches!(frame, Frame::Acknowledge(_));
            let bytes = v1::SyncFrame { frame: Some(frame) }.encode_to_vec();
            let sealed = self.sealer.seal(&bytes)?;
            if self.to.send(sealed.into()).await.is_err() || is_last {
                return Ok(());
            }
            if acknowledges {
                reached("sync.acknowledged");
            }
        }
    }

    async fn next(&mut self) -> Frame {
        tokio::select! {
            biased;
            Some(frame) = self.urgent.recv() => frame,
            Some(frame) = self.answers.recv() => frame,
            Ok(()) = self.held.changed() => Frame::Acknowledge(self.held.borrow_and_update().clone()),
            Some(frame) = self.log.recv() => frame,
            Some(frame) = self.parts.recv() => frame,
            () = tokio::time::sleep(SILENCE) => Frame::Silence(v1::Silence {}),
        }
    }
}

/// From where on the other side wants the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of its wishes this is, from 0.
    pub(super) number: u32,
    pub(super) after: Seq,
    /// Also what came through the other side.
    pub(super) all: bool,
}

/// Sends the log after a place, and then every change as it is committed, until this store is another one.
pub(super) async fn log(
    store: &Store,
    outbox: &Outbox,
    identity: (StoreId, AccountId),
    peer: Opening,
    mut wanted: watch::Receiver<Wanted>,
) -> Result<Ended, SessionError> {
    let mut commits = store.commits();
    let Wanted { mut number, mut after, mut all } = *wanted.borrow_and_update();
    loop {
        commits.borrow_and_update();
        if store.identity() != identity {
            return Ok(Ended::Again);
        }
        loop {
            if wanted.has_changed().is_ok_and(|changed| changed) {
                Wanted { number, after, all } = *wanted.borrow_and_update();
            }
            let part = read_part(store, after, (!all).then_some(peer)).await?;
            let Some(cursor) = part.cursor.filter(|cursor| cursor.seq > after) else { break };
            if store.identity() != identity {
                return Ok(Ended::Again);
            }
            if !send_part(outbox, part.records, cursor, number).await {
                return Ok(Ended::Gone);
            }
            after = cursor.seq;
        }
        // What the other side says from now on it need not hear.
        all = false;
        tokio::select! {
            biased;
            changed = commits.changed() => if changed.is_err() {
                return Ok(Ended::Stopped);
            },
            Ok(()) = wanted.changed() => wanted.mark_changed(),
        }
    }
}

/// Reads a part of the log; a store that waits for space is waited for.
async fn read_part(store: &Store, after: Seq, to: Option<Opening>) -> Result<Outgoing, SessionError> {
    loop {
        let from = store.clone();
        let read = move || match to {
            Some(peer) => from.outgoing(after, peer, ROWS),
            None => from.outgoing_all(after, ROWS),
        };
        match call(store, read).await? {
            Err(ReadError::DiskFull) => tokio::time::sleep(FULL).await,
            read => return Ok(read?),
        }
    }
}

/// Asks how far the other side's log goes, once for each new number.
pub(super) async fn questions(outbox: &Outbox, questions: &mut watch::Receiver<u64>) -> Result<Ended, SessionError> {
    questions.mark_changed();
    loop {
        if questions.changed().await.is_err() {
            // Nobody asks any more.
            std::future::pending::<()>().await;
        }
        let number = *questions.borrow_and_update();
        outbox.urgent(Frame::HeadWant(v1::HeadWant { number }));
    }
}

/// Sends a part of the log in frames; the last one has the cursor. `false` where the writer is gone.
async fn send_part(outbox: &Outbox, records: Vec<(Seq, Travelling)>, cursor: Cursor, number: u32) -> bool {
    let empty = || v1::Log { number, ..v1::Log::default() };
    let (mut frame, mut bytes) = (empty(), 0);
    for (seq, Travelling { record, value }) in records {
        let (clear, sealed, auth) = (record.clear, record.sealed, record.auth.0.to_vec());
        let length = clear.len() + sealed.len() + value.as_ref().map_or(0, Vec::len);
        if bytes + length > FRAME && outbox.log.send(Frame::Log(std::mem::replace(&mut frame, empty()))).await.is_err()
        {
            return false;
        }
        bytes = if frame.records.is_empty() { length } else { bytes + length };
        frame.records.push(v1::LogRecord { clear, sealed, auth, value, seq: seq.0 });
    }
    frame.run = Some(cursor.run.0.to_vec());
    frame.seq = cursor.seq.0;
    outbox.log.send(Frame::Log(frame)).await.is_ok()
}
