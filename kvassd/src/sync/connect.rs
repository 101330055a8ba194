//! Connecting to a remote: a connection, HTTP/2 on it, a gRPC stream in that, and the handshake of the channel.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::Service;

use super::channel::{Channel, ChannelError, Initiator};
use super::grpc::{self, sync_client};
use super::session::{Link, SessionError};
use crate::keys::SyncKey;
use crate::network::{Connect, Wire};
use crate::random::Random;

/// How long a connection may take, and the first answer on it.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the last words of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a remote is not reached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RemoteError {
    #[error("{0} is no address")]
    Address(String),
    #[error("nothing answers at {0}")]
    Absent(String),
    #[error("{0} does not answer in time")]
    Silent(String),
    #[error("{0} is no kvassd server")]
    Other(String),
    #[error("https is not supported yet")]
    Tls,
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RemoteError {
    /// Whether another attempt must fail in the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Session(error) => error.is_permanent(),
            Self::Address(_) | Self::Tls => true,
            _ => false,
        }
    }

    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Session(SessionError::Channel(ChannelError::Refused)) => {
                "compare 'Fingerprint' in 'kvass config show' on both machines, then set one key with 'kvass config key'"
            }
            Self::Absent(_) => "is 'kvass serve' running there? Without a port 80 is meant; kvass serve has 8000",
            _ => "",
        }
    }
}

/// A remote that has shown that it holds the key.
pub struct Opened {
    /// Seals and opens the frames of the link.
    pub channel: Channel,
    /// Frames to the remote and from it.
    pub link: Link,
    /// What carries them.
    pub connection: Connection,
}

/// Connects and makes the handshake.
///
/// # Errors
/// Whatever is there in place of a remote with the same key.
pub async fn open(network: &dyn Connect, random: &Random, key: &SyncKey, url: &str) -> Result<Opened, RemoteError> {
    let address = Address::parse(url)?;
    let silent = |_| RemoteError::Silent(url.to_owned());
    let other = || RemoteError::Other(url.to_owned());
    let wire = timeout(CONNECT, network.connect(&address.host, address.port)).await;
    let wire = wire.map_err(|_| RemoteError::Absent(url.to_owned()))?;
    let connection = Connection::over(wire.map_err(|_| RemoteError::Absent(url.to_owned()))?).await;
    let connection = connection.map_err(|_| other())?;
    let mut client = sync_client::SyncClient::with_origin(connection.transport.clone(), address.origin)
        .max_decoding_message_size(grpc::FRAME_MAX)
        .max_encoding_message_size(grpc::FRAME_MAX);
    let (initiator, first) = Initiator::start(key, random).map_err(SessionError::from)?;
    let (to, frames) = grpc::outgoing();
    // The queue has room: nothing was put into it.
    let _ = to.send(first).await;
    let answer = timeout(CONNECT, client.session(grpc::encode(frames))).await.map_err(silent)?;
    let mut from = answer.map_err(|_| other())?.into_inner();
    let reply = timeout(grpc::HANDSHAKE, grpc::receive(&mut from)).await.map_err(silent)?;
    let reply = reply.map_err(|_| other())?.ok_or_else(other)?;
    let channel = initiator.finish(&reply).map_err(SessionError::from)?;
    let (inbound, frames) = grpc::incoming();
    connection.tasks.spawn(grpc::carry(from, inbound));
    Ok(Opened { channel, link: Link { to, from: frames }, connection })
}

/// A URL of the form `scheme://host:port`.
struct Address {
    host: String,
    port: u16,
    origin: Uri,
}

impl Address {
    fn parse(url: &str) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Address(url.to_owned());
        let origin: Uri = url.parse().map_err(|_| wrong())?;
        let default = match origin.scheme_str() {
            Some("http") => 80,
            Some("https") => return Err(RemoteError::Tls),
            _ => return Err(wrong()),
        };
        let host = origin.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: origin.port_u16().unwrap_or(default), origin })
    }
}

/// An HTTP/2 connection. All that serves it ends when it is dropped.
pub struct Connection {
    transport: Transport,
    tasks: Tasks,
}

impl Connection {
    async fn over(wire: Box<dyn Wire>) -> hyper::Result<Self> {
        let tasks = Tasks::default();
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(grpc::KEEPALIVE)
            .keep_alive_timeout(grpc::KEEPALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(wire))
            .await?;
        tasks.spawn(async { drop(connection.await) });
        Ok(Self { transport: Transport(sender), tasks })
    }

    /// Sends what is still on its way, for a short time.
    pub async fn close(self) {
        let Self { transport, tasks } = self;
        drop(transport);
        let mut tasks = std::mem::take(&mut *tasks.0.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = timeout(GOODBYE, async { while tasks.join_next().await.is_some() {} }).await;
    }
}

/// Runs what HTTP/2 does beside a connection, and ends it with the connection.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(async { drop(task.await) });
    }
}

/// Where gRPC puts its requests.
#[derive(Clone)]
struct Transport(SendRequest<Body>);

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
