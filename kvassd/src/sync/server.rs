//! Accepts devices: one gRPC service, whose sessions are those of [`super::session`].
//!
//! A peer that has not shown that it holds the account's key costs one message of a bounded size and a few seconds, and
//! learns nothing.

mod newest;

use std::io;
use std::pin::Pin;

use hyper::Version;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

use self::newest::Newest;
use super::channel::{self, Channel, REFUSAL};
use super::grpc::{self, Frame, sync_server};
use super::session::{self, Link, Progress, Side};
use crate::accept::{self, Door, Guest};
use crate::http::{self, Links};
use crate::logs::Seldom;
use crate::network::Accept;
use crate::store::Store;

/// Serves devices that come through a door to a listener, until the stop; then ends their sessions.
///
/// # Errors
/// None: what fails is one connection.
pub async fn serve(door: Door, store: Store, listener: impl Accept, stop: CancellationToken) -> io::Result<()> {
    let sessions = TaskTracker::new();
    let links = Links::new(store.clone());
    let service = Service {
        store,
        stop: stop.clone(),
        sessions: sessions.clone(),
        newest: Newest::default(),
        seldom: Seldom::default(),
    };
    let devices = sync_server::SyncServer::new(service)
        .max_decoding_message_size(grpc::FRAME_MAX)
        .max_encoding_message_size(grpc::FRAME_MAX);
    accept::run(listener, door, Port { devices, links }, stop).await;
    sessions.close();
    sessions.wait().await;
    Ok(())
}

/// One port for devices and for everybody else.
#[derive(Clone)]
struct Port {
    devices: sync_server::SyncServer<Service>,
    links: Links,
}

impl accept::Serve for Port {
    async fn serve(&self, request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        if !kind.starts_with(b"application/grpc") {
            // What is sent with it is nobody's here, and must not wait in memory for as long as the answer lasts.
            return self.answer(request.map(drop)).await;
        }
        if request.version() != Version::HTTP_2 {
            return http::too_old();
        }
        // It says of any other path that it is not implemented, in the words of gRPC.
        match self.devices.clone().call(request).await {
            Ok(answer) => answer,
            Err(impossible) => match impossible {},
        }
    }
}

impl Port {
    /// Answers somebody who is no device.
    async fn answer(&self, request: hyper::Request<()>) -> hyper::Response<Body> {
        if request.uri().path() != http::LINK {
            return http::answer(&request);
        }
        let (request, ()) = request.into_parts();
        #[allow(clippy::expect_used, reason = "every request that is accepted has one")]
        let guest = request.extensions.get::<Guest>().expect("a guest");
        self.links.answer(&request, guest).await
    }
}

struct Service {
    store: Store,
    stop: CancellationToken,
    sessions: TaskTracker,
    newest: Newest,
    seldom: Seldom,
}

#[tonic::async_trait]
impl sync_server::Sync for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::SessionStream>, Status> {
        #[allow(clippy::expect_used, reason = "every request that is accepted has one")]
        let guest = request.extensions().get::<Guest>().expect("a guest").clone();
        let mut stream = request.into_inner();
        let (to, frames) = grpc::outgoing();
        let first = timeout(grpc::HANDSHAKE, grpc::receive(&mut stream)).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no greeting"))??.unwrap_or_default();
        let answer = self.answer(&first);
        // The queue has room: nothing was put into it.
        match answer {
            Ok((reply, channel)) => {
                let _ = to.send(reply.into()).await;
                self.begin(channel, stream, to, guest);
            }
            Err(error) => {
                if self.seldom.is_new(&error.to_string(), Instant::now()) {
                    tracing::info!(%error, "a device was refused");
                }
                let _ = to.send(Bytes::from_static(REFUSAL)).await;
            }
        }
        Ok(Response::new(Box::pin(grpc::encode(frames).map(Ok))))
    }
}

impl Service {
    fn answer(&self, first: &[u8]) -> Result<(Vec<u8>, Channel), channel::ChannelError> {
        let key = self.store.sync_key();
        channel::respond(first, &self.store.surroundings().random, |account| (account == key.account()).then_some(key))
    }

    fn begin(&self, channel: Channel, stream: Streaming<Frame>, to: mpsc::Sender<Bytes>, guest: Guest) {
        let (inbound, from) = grpc::incoming();
        let (progress, mut shown) = watch::channel(Progress::default());
        let (_, questions) = watch::channel(0);
        let stop = self.stop.child_token();
        let link = Link { to, from };
        let running =
            session::run(self.store.clone(), Side::Responder, channel, link, stop.clone(), progress, questions);
        let (newest, seldom) = (self.newest.clone(), self.seldom.clone());
        self.sessions.spawn(async move {
            // The first message of a handshake can be a recording; a peer that is known has sent a frame that opened.
            let known = async {
                let peer = timeout(grpc::HANDSHAKE, shown.wait_for(|progress| progress.peer.is_some())).await;
                if let Some(peer) = peer.ok().and_then(|shown| shown.ok()?.peer) {
                    let _admission = guest.admit();
                    let _place = newest.enter(peer, stop);
                    std::future::pending::<()>().await;
                }
            };
            // The session sees by itself that nothing comes any more, and why.
            let carried = async {
                grpc::carry(stream, inbound).await;
                std::future::pending::<()>().await;
            };
            let result = tokio::select! {
                biased;
                result = running => result,
                () = known => return tracing::debug!("a device did not go on after its first message"),
                () = carried => return,
            };
            match result {
                Ok(ended) => tracing::debug!(?ended, "a session ended"),
                Err(error) if seldom.is_new(&error.to_string(), Instant::now()) => {
                    tracing::info!(%error, "a session ended");
                }
                Err(error) => tracing::debug!(%error, "a session ended"),
            }
        });
    }
}
