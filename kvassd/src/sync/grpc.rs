//! Frames over a gRPC stream: what the link to a remote and the server have in common.

use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the comments are in the .proto file")]
mod generated {
    tonic::include_proto!("kvass.v1");
}

pub(super) use generated::{Frame, sync_client, sync_server};

/// How long one message of the handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How often HTTP/2 asks whether the other side is there, and how long it waits for the answer.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(20);

/// Frames that wait on their way through gRPC.
const QUEUE: usize = 4;

/// The greatest frame, in bytes: that of the channel, and what gRPC adds.
pub(super) const FRAME_MAX: usize = (64 << 10) + 64;

/// A queue of frames to be sent, and the stream that gRPC takes them from.
pub(super) fn outgoing() -> (mpsc::Sender<Bytes>, ReceiverStream<Bytes>) {
    let (to, frames) = mpsc::channel(QUEUE);
    (to, ReceiverStream::new(frames))
}

/// Frames as gRPC sends them.
pub(super) fn encode(frames: ReceiverStream<Bytes>) -> impl Stream<Item = Frame> {
    frames.map(|data| Frame { data })
}

/// Reads one frame; `None` where the stream ended.
pub(super) async fn receive(stream: &mut Streaming<Frame>) -> Result<Option<Bytes>, Status> {
    Ok(stream.message().await?.map(|frame| frame.data))
}

/// Hands frames on as they come, until either side ends.
pub(super) async fn carry(mut stream: Streaming<Frame>, to: mpsc::Sender<Bytes>) {
    while let Ok(Some(frame)) = receive(&mut stream).await {
        if to.send(frame).await.is_err() {
            return;
        }
    }
}

/// A queue of frames that came.
pub(super) fn incoming() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(QUEUE)
}
