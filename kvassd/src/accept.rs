//! Accepts connections on one port and serves HTTP on them: HTTP/2 for devices, which is what gRPC needs, and HTTP/1.1
//! for everything else.

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

use crate::network::{Accept, Wire};

/// How often HTTP/2 asks whether the other side is there, and how long it waits for the answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long the last words may take once the daemon stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long no connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// Requests that one HTTP/2 connection may have open.
const STREAMS: u32 = 8;

/// What answers requests.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Answers one request. The body may be read while the answer is sent.
    fn serve(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Accepts connections until the stop; returns once all of them have ended, or had [`GOODBYE`] to do so.
pub async fn run<A: Accept, S: Serve>(mut listener: A, service: S, stop: CancellationToken) {
    let (connections, abandon) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((wire, peer)) => {
                tracing::debug!(%peer, "a connection");
                let serving = connection(wire, service.clone(), connections.clone(), stop.clone());
                connections.spawn(abandon.clone().run_until_cancelled_owned(serving));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                // Most often descriptors are short: the same would fail again at once.
                tokio::time::sleep(PAUSE).await;
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
async fn connection<S: Serve>(wire: impl Wire + 'static, service: S, tasks: TaskTracker, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.serve(request).await) }
    });
    let protocols = protocols(Tasks(tasks));
    let mut served = pin!(protocols.serve_connection(TokioIo::new(wire), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
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
    protocols.http1().timer(TokioTimer::new());
    protocols
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS);
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
