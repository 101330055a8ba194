//! What a session sends: small frames first, then the log, then parts of values, so that nothing small waits behind
//! something large.

use std::time::Duration;

use kvass_proto::v1::{self, end::Reason, sync_frame::Frame};
use prost::Message;
use tokio::sync::{mpsc, watch};

use super::super::channel::Sealer;
use super::{Ended, SessionError, call};
use crate::keys::AccountId;
use crate::record::ValueHash;
use crate::store::{Cursor, Seq, Store, StoreId, Travelling};
use crate::value::{CHUNK, TAG};

/// Rows of the log that are read at once.
const ROWS: usize = 256;

/// About how many bytes of records one frame carries.
const FRAME: usize = 48 << 10;

/// How long nothing may be sent until the other side is told that this one is there.
const SILENCE: Duration = Duration::from_secs(25);

/// Requests of the other side that may wait.
const REQUESTS: usize = 16;

/// The most bytes that one request may ask for.
const RANGE_MAX: u32 = 1 << 20;

/// Where frames are put to be sent.
#[derive(Clone)]
pub(super) struct Outbox {
    urgent: mpsc::UnboundedSender<Frame>,
    log: mpsc::Sender<Frame>,
    parts: mpsc::Sender<Frame>,
    held: watch::Sender<v1::Acknowledge>,
}

impl Outbox {
    /// Makes an outbox, and what empties it.
    pub(super) fn new(sealer: Sealer, to: mpsc::Sender<Vec<u8>>) -> (Self, Writer) {
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (log, log_queue) = mpsc::channel(1);
        let (parts, part_queue) = mpsc::channel(1);
        let (held, held_slot) = watch::channel(v1::Acknowledge::default());
        let writer = Writer { sealer, to, urgent: urgent_queue, log: log_queue, parts: part_queue, held: held_slot };
        (Self { urgent, log, parts, held }, writer)
    }

    /// Puts a small frame before all others. Of these come only as many as the other side asks for, or this one begins.
    pub(super) fn urgent(&self, frame: Frame) {
        // The writer is gone only when the session is.
        let _ = self.urgent.send(frame);
    }

    /// Says how far the other side's log is held; of several only the newest is sent.
    pub(super) fn hold(&self, held: v1::Acknowledge) {
        self.held.send_replace(held);
    }

    /// Puts the last frame.
    pub(super) fn say_goodbye(&self, reason: Reason) {
        self.urgent(Frame::End(v1::End { reason: reason.into() }));
    }
}

/// Seals and sends what is put into the outbox.
pub(super) struct Writer {
    sealer: Sealer,
    to: mpsc::Sender<Vec<u8>>,
    urgent: mpsc::UnboundedReceiver<Frame>,
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
            let bytes = v1::SyncFrame { frame: Some(frame) }.encode_to_vec();
            let sealed = self.sealer.seal(&bytes)?;
            if self.to.send(sealed).await.is_err() || is_last {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Frame {
        tokio::select! {
            biased;
            Some(frame) = self.urgent.recv() => frame,
            Ok(()) = self.held.changed() => Frame::Acknowledge(self.held.borrow_and_update().clone()),
            Some(frame) = self.log.recv() => frame,
            Some(frame) = self.parts.recv() => frame,
            () = tokio::time::sleep(SILENCE) => Frame::Silence(v1::Silence {}),
        }
    }
}

/// Sends the log after a place, and then every change as it is committed, until this store is another one.
pub(super) async fn log(
    store: &Store,
    outbox: &Outbox,
    identity: (StoreId, AccountId),
    peer: StoreId,
    mut after: Seq,
) -> Result<Ended, SessionError> {
    let mut commits = store.commits();
    loop {
        commits.borrow_and_update();
        if store.identity() != identity {
            return Ok(Ended::Again);
        }
        loop {
            let from = store.clone();
            let part = call(move || from.outgoing(after, peer, ROWS)).await??;
            let Some(cursor) = part.cursor.filter(|cursor| cursor.seq > after) else { break };
            if !send_part(outbox, part.records, cursor).await {
                return Ok(Ended::Gone);
            }
            after = cursor.seq;
        }
        if commits.changed().await.is_err() {
            return Ok(Ended::Stopped);
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
async fn send_part(outbox: &Outbox, records: Vec<(Seq, Travelling)>, cursor: Cursor) -> bool {
    let (mut frame, mut bytes) = (v1::Log::default(), 0);
    for (seq, Travelling { record, value }) in records {
        let (clear, sealed, auth) = (record.clear, record.sealed, record.auth.0.to_vec());
        let length = clear.len() + sealed.len() + value.as_ref().map_or(0, Vec::len);
        if bytes + length > FRAME && outbox.log.send(Frame::Log(std::mem::take(&mut frame))).await.is_err() {
            return false;
        }
        bytes = if frame.records.is_empty() { length } else { bytes + length };
        frame.records.push(v1::LogRecord { clear, sealed, auth, value, seq: seq.0 });
    }
    frame.run = Some(cursor.run.0.to_vec());
    frame.seq = cursor.seq.0;
    outbox.log.send(Frame::Log(frame)).await.is_ok()
}

/// A queue of what the other side asks for. One that is full ends the session: nobody needs to ask for so much at once.
pub(super) fn requests() -> (mpsc::Sender<v1::BlobWant>, mpsc::Receiver<v1::BlobWant>) {
    mpsc::channel(REQUESTS)
}

/// Sends the parts of values that the other side asks for.
pub(super) async fn serve_values(
    store: Store,
    outbox: Outbox,
    mut requests: mpsc::Receiver<v1::BlobWant>,
) -> Result<Ended, SessionError> {
    while let Some(want) = requests.recv().await {
        let hash = <[u8; 32]>::try_from(want.hash.as_slice()).map_err(|_| SessionError::Protocol("no hash"))?;
        if want.length > RANGE_MAX {
            return Err(SessionError::Protocol("it asks for too much at once"));
        }
        if !serve_value(&store, &outbox, hash, want.offset, want.length as usize).await? {
            outbox.urgent(Frame::BlobGone(v1::BlobGone { hash: hash.to_vec() }));
        }
    }
    Ok(Ended::Gone)
}

/// Sends a range of a value's file; `false` where it is not here, or not readable.
async fn serve_value(
    store: &Store,
    outbox: &Outbox,
    hash: [u8; 32],
    mut offset: u64,
    mut left: usize,
) -> Result<bool, SessionError> {
    let from = store.clone();
    let Some(mut file) = call(move || from.blob(ValueHash(hash))).await? else { return Ok(false) };
    while left > 0 {
        let mut data = vec![0; left.min(CHUNK + TAG)];
        let (back, read, part) = call(move || {
            let read = file.read(offset, &mut data);
            (file, read, data)
        })
        .await?;
        file = back;
        if read.is_err() {
            return Ok(false);
        }
        left -= part.len();
        let length = part.len() as u64;
        let frame = v1::BlobPart { hash: hash.to_vec(), offset, data: part };
        if outbox.parts.send(Frame::BlobPart(frame)).await.is_err() {
            return Ok(true);
        }
        offset += length;
    }
    Ok(true)
}
