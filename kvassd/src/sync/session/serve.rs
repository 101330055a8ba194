//! What a session does with requests for values: it answers them in their order, a chunk a frame.

use kvass_proto::v1::{self, sync_frame::Frame};
use prost::bytes::Bytes;
use tokio::sync::mpsc;

use super::send::Outbox;
use super::{Ended, SessionError, call};
use crate::record::ValueHash;
use crate::store::{BlobFile, Store};
use crate::value::{CHUNK, TAG};

/// Requests of the other side that may wait.
pub(super) const REQUESTS: usize = 256;

/// The most bytes that one request may ask for.
const RANGE_MAX: u32 = 1 << 20;

/// Bytes of a chunk, and of the pieces in which a list of hashes is sent.
const PART: usize = CHUNK + TAG;

/// Parts that are read at once.
const READ: usize = 8;

/// A range of a value that the other side asks for.
pub(super) struct Request {
    hash: ValueHash,
    offset: u64,
    length: usize,
}

impl Request {
    /// # Errors
    /// It makes no sense, or asks for too much.
    pub(super) fn parse(want: &v1::BlobWant) -> Result<Self, SessionError> {
        let hash = want.hash.as_slice().try_into().map_err(|_| SessionError::Protocol("no hash"))?;
        if !(1..=RANGE_MAX).contains(&want.length) || want.offset > u64::MAX / 2 {
            return Err(SessionError::Protocol("it asks for no range of a value"));
        }
        Ok(Self { hash: ValueHash(hash), offset: want.offset, length: want.length as usize })
    }
}

/// A queue of requests. One that is full ends the session: nobody needs to ask for so much at once.
pub(super) fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(REQUESTS)
}

/// Answers requests until nobody can ask any more.
pub(super) async fn serve(
    store: Store,
    outbox: Outbox,
    mut requests: mpsc::Receiver<Request>,
) -> Result<Ended, SessionError> {
    // Several requests in a row are mostly of one value.
    let mut open: Option<(ValueHash, BlobFile)> = None;
    while let Some(request) = requests.recv().await {
        let hash = request.hash;
        let file = match open.take().filter(|(open, _)| *open == hash) {
            Some((_, file)) => Some(file),
            None => {
                let from = store.clone();
                call(&store, move || from.blob(hash)).await?
            }
        };
        open = match file {
            Some(file) => answer(&store, &outbox, request, file).await?.map(|file| (hash, file)),
            None => None,
        };
        if open.is_none() {
            outbox.part(Frame::BlobGone(v1::BlobGone { hash: hash.0.to_vec() })).await;
        }
    }
    Ok(Ended::Gone)
}

/// Sends a range of a value's file; `None` where it is not readable.
async fn answer(
    store: &Store,
    outbox: &Outbox,
    Request { hash, mut offset, length }: Request,
    mut file: BlobFile,
) -> Result<Option<BlobFile>, SessionError> {
    let name = Bytes::copy_from_slice(&hash.0);
    let mut left = length;
    while left > 0 {
        let mut data = vec![0; left.min(READ * PART)];
        let read = call(store, move || file.read(offset, &mut data).ok().map(|()| (file, data))).await?;
        let Some((back, data)) = read else { return Ok(None) };
        file = back;
        left -= data.len();
        let mut data = Bytes::from(data);
        while !data.is_empty() {
            let part = data.split_to(data.len().min(PART));
            let length = part.len() as u64;
            outbox.part(Frame::BlobPart(v1::BlobPart { hash: name.clone(), offset, data: part })).await;
            offset += length;
        }
    }
    Ok(Some(file))
}
