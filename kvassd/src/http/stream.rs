//! A value, or a part of one, as the body of an answer: read and opened piece by piece as the client takes it.
//!
//! Nothing is read ahead and nothing runs beside it, so a client that is slow costs one piece of memory, and one that
//! leaves costs nothing from then on.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::task::block_in_place;
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

use super::links::Place;
use crate::accept::Download;
use crate::logs::Seldom;
use crate::store::{ReadError, ValueReader};

/// The most bytes that are handed over at once. A client that does not take as much within [`accept::STALL`] is let go.
///
/// [`accept::STALL`]: crate::accept::STALL
pub(super) const PIECE: usize = 128 << 10;

/// A value on its way.
pub(super) struct Stream {
    reader: ValueReader,
    /// What was read and not handed over yet.
    ready: Bytes,
    /// Bytes to come, these included.
    left: u64,
    /// How many may read at once.
    reads: PollSemaphore,
    download: Download,
    _place: Option<Place>,
    seldom: Seldom,
}

impl Stream {
    /// The bytes of `range` of a value. `beginning` is what was read of it already.
    pub(super) fn new(
        mut reader: ValueReader,
        beginning: Vec<u8>,
        range: Range<u64>,
        reads: PollSemaphore,
        download: Download,
        place: Option<Place>,
        seldom: Seldom,
    ) -> Self {
        let mut ready = Bytes::from(beginning);
        match usize::try_from(range.start) {
            Ok(start) if start < ready.len() || start == 0 => drop(ready.split_to(start)),
            _ => {
                ready.clear();
                reader.seek(range.start);
            }
        }
        Self { reader, ready, left: range.end - range.start, reads, download, _place: place, seldom }
    }

    fn read(&mut self) -> Result<(), Broken> {
        let mut piece = Vec::new();
        if let Err(error) = block_in_place(|| self.reader.next(&mut piece)) {
            let what = without_name(&error);
            if self.seldom.is_new(&format!("read on: {what}"), Instant::now()) {
                tracing::warn!(what, "a value that a link leads to cannot be read on");
            }
        }
        self.ready = piece.into();
        if self.ready.is_empty() { Err(Broken) } else { Ok(()) }
    }
}

/// The value ended too early. It says no more, since what ends a connection is logged, and names are not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a value cannot be read on")]
pub(super) struct Broken;

/// What is wrong, without the name of the value.
pub(super) fn without_name(error: &ReadError) -> String {
    match error {
        ReadError::Value { what, .. } => what.clone(),
        ReadError::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.ready.is_empty() {
            // It is never closed; without a permit there would only be more threads.
            let _permit = ready!(this.reads.poll_acquire(context));
            if let Err(error) = this.read() {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let length = this.left.min(PIECE as u64).min(this.ready.len() as u64);
        this.left -= length;
        this.download.moved();
        Poll::Ready(Some(Ok(Frame::data(this.ready.split_to(length as usize)))))
    }

    // Not at its end before it has been asked for more than there is: HTTP/1 asks once it has sent nearly all of it, and
    // until then the connection is no guest.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
