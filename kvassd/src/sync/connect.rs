//! Connecting to a remote: a connection, TLS on it where that is asked for, HTTP/2 in it, a gRPC stream in that, and the handshake of the channel.

mod heard;
mod tls;

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::response;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status, Streaming};

use self::heard::{Heard, Kind};
pub use self::tls::{TlsError, Trust};
use super::channel::{Channel, ChannelError, Initiator};
use super::grpc::{self, sync_client};
use super::session::{Link, SessionError};
use crate::keys::SyncKey;
use crate::network::{Connect, Tapped, Wire};
use crate::random::Random;

/// How long a connection may take, and the first answer on it.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of an HTTP/2 frame, and of what may wait in HTTP/2 to be sent: see the same in [`crate::accept`].
const PIECE: u32 = 128 << 10;
const UNSENT: usize = 256 << 10;

/// How long the last words of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a server of HTTP that is no kvassd is called.
const WEB: &str = "a web server";

/// Why a remote is not reached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RemoteError {
    #[error("{0} is no address")]
    Address(String),
    #[error("the name {0} does not resolve")]
    Name(String),
    #[error("nothing answers at {0}")]
    Absent(String),
    #[error("{0} does not answer in time")]
    Silent(String),
    #[error("{0} ends the connection before it has answered")]
    Closed(String),
    #[error("{url} is no kvassd server, but {what}")]
    Other { url: String, what: &'static str },
    #[error("{0} expects https")]
    WantsTls(String),
    #[error("a proxy answers at {0}, and no kvassd behind it")]
    Proxy(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RemoteError {
    /// Whether another attempt must fail in the same way. A certificate may be renewed, and a server moved.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Session(error) => error.is_permanent(),
            Self::Address(_) => true,
            _ => false,
        }
    }

    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Session(SessionError::Version) => "update kvass on the machine where it is older",
            Self::Session(SessionError::Channel(ChannelError::Refused)) => {
                "compare 'Fingerprint' in 'kvass config show' on both machines, then set one key with 'kvass config key'"
            }
            Self::Absent(_) => "is 'kvass serve' running there? Without a port 80 is meant; kvass serve has 8000",
            Self::WantsTls(_) => "kvass config remote https://…",
            Self::Other { url, what: WEB } if url.starts_with("http://") => {
                "if it passes on to 'kvass serve', it may want https: kvass config remote https://…"
            }
            Self::Proxy(_) => "is 'kvass serve' running there, and does the proxy pass gRPC on to its port?",
            Self::Tls(error) => error.hint(),
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
pub async fn open(way: &Way, random: &Random, key: &SyncKey, url: &str) -> Result<Opened, RemoteError> {
    let address = Address::parse(url)?;
    let silent = |_| RemoteError::Silent(url.to_owned());
    let wire = timeout(CONNECT, address.connect(way, url)).await.map_err(silent)??;
    let heard = Heard::default();
    let connection = Connection::over(Tapped::new(wire, heard.clone())).await;
    let connection = connection.map_err(|_| RemoteError::Closed(url.to_owned()))?;
    let (initiator, first) = Initiator::start(key, random).map_err(SessionError::from)?;
    let (to, frames) = grpc::outgoing();
    // The queue has room: nothing was put into it.
    let _ = to.send(first.into()).await;
    let answered = timeout(CONNECT, greet(&connection, address.origin, frames)).await.map_err(silent)?;
    let (reply, from) = answered.map_err(|status| other(url, heard.kind(), &status))?;
    let channel = initiator.finish(&reply).map_err(SessionError::from)?;
    let (inbound, frames) = grpc::incoming();
    connection.tasks.spawn(grpc::carry(from, inbound));
    Ok(Opened { channel, link: Link { to, from: frames }, connection })
}

/// Begins the stream of a session, and returns the remote's reply and what comes after it.
async fn greet(
    connection: &Connection,
    origin: Uri,
    frames: ReceiverStream<Bytes>,
) -> Result<(Bytes, Streaming<grpc::Frame>), Status> {
    let mut client = sync_client::SyncClient::with_origin(connection.transport.clone(), origin)
        .max_decoding_message_size(grpc::FRAME_MAX)
        .max_encoding_message_size(grpc::FRAME_MAX);
    let mut from = client.session(grpc::encode(frames)).await?.into_inner();
    let reply = grpc::receive(&mut from).await?;
    Ok((reply.ok_or_else(|| Status::unimplemented("no reply"))?, from))
}

/// What it is that gave no reply.
fn other(url: &str, kind: Kind, status: &Status) -> RemoteError {
    let url = url.to_owned();
    let what = |what| RemoteError::Other { url: url.clone(), what };
    match kind {
        Kind::Tls => RemoteError::WantsTls(url),
        Kind::Web => what(WEB),
        Kind::Ssh => what("an SSH server"),
        Kind::Other => what("something else"),
        Kind::Nothing => RemoteError::Closed(url),
        // A status that has a cause is no answer.
        Kind::Http2 if status.source().is_some() => RemoteError::Closed(url),
        Kind::Http2 if status.code() == Code::Unavailable => RemoteError::Proxy(url),
        Kind::Http2 => what(WEB),
    }
}

/// The way to a remote.
#[derive(Clone)]
pub struct Way {
    /// Where connections are made.
    pub network: Arc<dyn Connect>,
    /// Whom to trust with `https`.
    pub trust: Trust,
}

/// A URL of the form `scheme://host:port`.
struct Address {
    is_secure: bool,
    host: String,
    port: u16,
    origin: Uri,
}

impl Address {
    fn parse(url: &str) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Address(url.to_owned());
        let origin: Uri = url.parse().map_err(|_| wrong())?;
        let (is_secure, default) = match origin.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = origin.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { is_secure, host, port: origin.port_u16().unwrap_or(default), origin })
    }

    async fn connect(&self, way: &Way, url: &str) -> Result<Box<dyn Wire>, RemoteError> {
        let wire = way.network.connect(&self.host, self.port).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => RemoteError::Name(self.host.clone()),
            _ => RemoteError::Absent(url.to_owned()),
        })?;
        if !self.is_secure {
            return Ok(wire);
        }
        Ok(tls::secure(wire, &self.host, &way.trust).await?)
    }
}

/// An HTTP/2 connection. All that serves it ends when it is dropped.
pub struct Connection {
    transport: Transport,
    tasks: Tasks,
}

impl Connection {
    async fn over(wire: impl Wire + 'static) -> hyper::Result<Self> {
        let tasks = Tasks::default();
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(grpc::KEEPALIVE)
            .keep_alive_timeout(grpc::KEEPALIVE)
            .keep_alive_while_idle(true)
            .max_frame_size(PIECE)
            .max_send_buf_size(UNSENT)
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
    type Response = Response<Body>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.send_request(request);
        Box::pin(async { answer.await.map(|answer| without_page(answer.into_parts())) })
    }
}

/// An answer as gRPC reads it: of the page that a web server sends with an error it would make garbage, and not see the error.
fn without_page((head, body): (response::Parts, Incoming)) -> Response<Body> {
    let body = if head.status.is_success() { Body::new(body) } else { Body::empty() };
    Response::from_parts(head, body)
}
