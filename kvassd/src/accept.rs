//! Accepts connections on one port and serves HTTP on them: HTTP/2 for devices, which is what gRPC needs, and HTTP/1.1
//! for everything else.
//!
//! A stranger's connection costs a bounded amount of memory and time, and there is a bounded number of them: each is a
//! guest, see [`Guest`], until what answers its requests admits it.

mod guests;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

pub use self::guests::{Admission, BYTES, Download, GUESTS, Guest, STALL, STAY};
use self::guests::{Guests, Metered, Place};
use crate::network::{Accept, Wire};

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

/// What answers requests.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Answers one request. The body may be read while the answer is sent. Its extensions have the [`Guest`] that the
    /// connection is.
    fn serve(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Accepts connections until the stop; returns once all of them have ended, or had a second to do so.
pub async fn run<A: Accept, S: Serve>(mut listener: A, service: S, stop: CancellationToken) {
    let (connections, abandon) = (TaskTracker::new(), CancellationToken::new());
    let guests = Guests::new();
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
                let place = guests.enter().await;
                let serving = connection(wire, service.clone(), place, connections.clone(), stop.clone());
                connections.spawn(abandon.clone().run_until_cancelled_owned(serving));
            }
            Err(error) => {
                if !std::mem::replace(&mut was_refused, true) {
                    tracing::warn!(%error, "a connection cannot be accepted");
                }
                // Most often descriptors are short: a guest can give one back, else the same would fail again at once.
                let pause = if guests.show_out_oldest() { MOMENT } else { PAUSE };
                let _ = timeout(pause, stop.cancelled()).await;
            }
        }
    }
    connections.close();
    if timeout(GOODBYE, connections.wait()).await.is_err() {
        abandon.cancel();
        connections.wait().await;
    }
}

/// Serves one connection to its end; after the stop only what was begun.
async fn connection<S: Serve>(
    wire: impl Wire + 'static,
    service: S,
    place: Place,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let guest = Guest::new();
    // Before the connection, so that the place is free only after it.
    let mut overstays = pin!(guest.overstays(place));
    let wire = TokioIo::new(Metered::new(wire, guest.clone()));
    let service = service_fn(|mut request: Request<Incoming>| {
        let service = service.clone();
        request.extensions_mut().insert(guest.clone());
        async move { Ok::<_, Infallible>(service.serve(request).await) }
    });
    let protocols = protocols(Tasks(tasks));
    let mut served = pin!(protocols.serve_connection(wire, service));
    let ended = tokio::select! {
        biased;
        ended = &mut served => ended,
        () = &mut overstays => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended");
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
