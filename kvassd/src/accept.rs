//! Accepts connections on one port and serves HTTP on them: HTTP/2 for devices, which is what gRPC needs, and HTTP/1.1
//! for everything else.
//!
//! A stranger's connection costs a bounded amount of memory and time, and there is a bounded number of them: each is a
//! guest, see [`Guest`], until what answers its requests admits it.

mod addresses;
mod guests;
mod proxies;
mod tls;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

pub(crate) use self::addresses::Subnet;
use self::addresses::Unknown;
pub use self::addresses::{Client, UNKNOWN, UNKNOWN_EACH};
pub use self::guests::{Admission, BYTES, Download, GUESTS, Guest, STALL, STAY};
use self::guests::{Guests, Place};
pub use self::proxies::{Proxies, ProxyError};
pub use self::tls::{CertificateError, Files, Tls};
use crate::logs::Seldom;
use crate::network::{Accept, Tapped, Wire};

/// How often HTTP/2 asks whether the other side is there, and how long it waits for the answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long the last words may take once the daemon stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long no connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// The same, where a guest goes for the next one.
const MOMENT: Duration = Duration::from_millis(2);

/// Requests that one HTTP/2 connection may have open: a proxy may send several devices over one.
const STREAMS: u32 = 8;

/// Requests of one HTTP/2 connection that were cancelled, or are wrong, and not dealt with yet.
const RESETS: usize = 16;

/// Bytes that an HTTP/2 connection, and a request on it, may have sent without being read. It costs nothing as long as
/// nothing lies there, and a guest cannot fill it; a small one would make large values slow over long ways.
const WINDOW: u32 = 2 << 20;

/// Bytes of an HTTP/2 frame: what is written in one piece comes in one, and a session's longest frame is half as long.
const PIECE: u32 = 128 << 10;

/// Bytes of answers that an HTTP/2 request may have waiting to be sent.
const UNSENT: usize = 256 << 10;

/// Bytes of a request's head.
const HEAD: usize = 8 << 10;

/// How a port is kept.
#[derive(Clone)]
pub struct Door {
    /// Its TLS; without it plain HTTP is spoken.
    pub tls: Option<Tls>,
    /// Connections at once, guests and others.
    pub connections: usize,
    /// Who is believed for whom it asks.
    pub proxies: Proxies,
}

impl Default for Door {
    fn default() -> Self {
        Self { tls: None, connections: usize::MAX, proxies: Proxies::default() }
    }
}

/// What a connection ends by.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What answers requests.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Answers one request. The body may be read while the answer is sent. Its extensions have the [`Guest`] that the
    /// connection is, and the [`Client`] that asks.
    fn serve(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Accepts connections until the stop; returns once all of them have ended, or had a second to do so.
pub async fn run<A: Accept, S: Serve>(mut listener: A, door: Door, service: S, stop: CancellationToken) {
    let abandon = CancellationToken::new();
    let port = Arc::new(Port::new(door, service, stop.clone()));
    let mut was_refused = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((wire, peer)) => {
                tracing::debug!(%peer, "a connection");
                was_refused = false;
                let Some(room) = port.room().await else {
                    port.note_full();
                    continue;
                };
                let guest = port.guest(peer.ip());
                let place = port.guests.enter(&guest).await;
                let serving = port.clone().connection(wire, peer.ip(), guest, place, room);
                port.tasks.spawn(abandon.clone().run_until_cancelled_owned(serving));
            }
            Err(error) => {
                if !std::mem::replace(&mut was_refused, true) {
                    tracing::warn!(%error, "a connection cannot be accepted");
                }
                // Most often descriptors are short: a guest can give one back, else the same would fail again at once.
                let pause = if port.guests.show_out() { MOMENT } else { PAUSE };
                let _ = timeout(pause, stop.cancelled()).await;
            }
        }
    }
    port.tasks.close();
    if timeout(GOODBYE, port.tasks.wait()).await.is_err() {
        abandon.cancel();
        port.tasks.wait().await;
    }
}

/// What all connections of a port share.
struct Port<S> {
    door: Door,
    service: S,
    rooms: Arc<Semaphore>,
    guests: Guests,
    unknown: Unknown,
    seldom: Seldom,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<S: Serve> Port<S> {
    fn new(door: Door, service: S, stop: CancellationToken) -> Self {
        let rooms = Arc::new(Semaphore::new(door.connections.min(Semaphore::MAX_PERMITS)));
        Self {
            door,
            service,
            rooms,
            guests: Guests::new(),
            unknown: Unknown::default(),
            seldom: Seldom::default(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Room for one more connection, for which a guest goes if need be, or else one that only takes what everybody may
    /// have; `None` where there is none of them either.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let room = self.rooms.clone().try_acquire_owned().ok();
        if room.is_some() || !(self.guests.show_out() || self.guests.show_out_download()) {
            return room;
        }
        timeout(PAUSE, self.rooms.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Says in the log, seldom, that somebody was sent away.
    fn note_full(&self) {
        if self.seldom.is_new("full", Instant::now()) {
            tracing::warn!(connections = self.door.connections, "there are as many connections as there may be");
        }
    }

    /// Somebody new. A proxy has not said yet for whom it comes.
    fn guest(&self, peer: IpAddr) -> Guest {
        Guest::new((!self.door.proxies.trust(peer.to_canonical())).then(|| Subnet::of(peer)))
    }

    /// Serves one connection to its end; after the stop only what was begun.
    async fn connection(
        self: Arc<Self>,
        wire: impl Wire + 'static,
        peer: IpAddr,
        guest: Guest,
        place: Place,
        _room: OwnedSemaphorePermit,
    ) {
        // Before the connection, so that the place is free only after it.
        let overstays = pin!(guest.overstays(place));
        let carried = pin!(self.carry(Tapped::new(wire, guest.clone()), peer, &guest));
        tokio::select! {
            biased;
            ended = carried => if let Err(error) = ended {
                tracing::debug!(error, "a connection ended");
            },
            () = overstays => {}
        }
    }

    /// Makes the connection a secure one where that is so here, and answers what comes on it.
    async fn carry(&self, wire: Tapped<impl Wire + 'static, Guest>, peer: IpAddr, guest: &Guest) -> Result<(), Fault> {
        let wire: Box<dyn Wire> = match &self.door.tls {
            None => Box::new(wire),
            Some(tls) => match self.stop.run_until_cancelled(tls.secure(wire)).await.transpose()?.flatten() {
                Some(secured) => secured,
                None => return Ok(()),
            },
        };
        let service = service_fn(|request| self.answer(peer, guest, request));
        let protocols = protocols(Tasks(self.tasks.clone()));
        let mut served = pin!(protocols.serve_connection(TokioIo::new(wire), service));
        tokio::select! {
            biased;
            ended = &mut served => ended,
            () = self.stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    }

    fn answer(
        &self,
        peer: IpAddr,
        guest: &Guest,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S> {
        let origin = self.door.proxies.origin(peer, request.headers());
        guest.comes_from(Subnet::of(origin));
        request.extensions_mut().insert(guest.clone());
        request.extensions_mut().insert(Client::new(origin, self.unknown.clone()));
        let service = self.service.clone();
        async move { Ok(service.serve(request).await) }
    }
}

fn protocols(tasks: Tasks) -> auto::Builder<Tasks> {
    let mut protocols = auto::Builder::new(tasks);
    protocols.http1().timer(TokioTimer::new()).max_buf_size(HEAD);
    protocols
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .max_header_list_size(HEAD as u32)
        .max_frame_size(PIECE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(UNSENT);
    protocols
}

/// Runs what HTTP/2 does beside a connection, so that the stop waits for it.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
