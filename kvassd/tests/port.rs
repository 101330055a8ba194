//! The server's port and the link to it, inside this process and over connections that are no sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod device;
mod pipes;

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use device::{Device, PATIENCE};
use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvass_proto::line::with_causes;
use kvass_proto::v1::link::State;
use kvassd::accept::Door;
use kvassd::network::Accept;
use kvassd::random::Random;
use kvassd::sync::backoff;
use kvassd::sync::channel::Initiator;
use kvassd::sync::remote::Remote;
use kvassd::sync::server;
use pipes::{Pipes, network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The body of a session's request: one frame, and no end.
struct First(Option<Bytes>);

impl First {
    fn new(data: &[u8]) -> Self {
        let message = [&[0x0a, data.len() as u8][..], data].concat();
        let head = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
        Self(Some([head, message].concat().into()))
    }
}

impl hyper::body::Body for First {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(Frame::data(frame)))))
    }
}

/// All bytes of an answer, until it ends or is cut.
async fn until_end(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            bytes.extend(frame.into_data().unwrap_or_default());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an end");
    bytes
}

/// A server of a new store.
struct Server {
    device: Device,
    network: Pipes,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        let (device, (network, listener)) = (Device::new(), network());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(Door::default(), device.store.clone(), listener, stop.clone()));
        Self { device, network, stop, serving }
    }

    /// Begins a session with a first message and nothing behind it; returns what comes back.
    async fn greet(&self, first: &[u8]) -> Incoming {
        let request = Request::post("http://server/kvass.v1.Sync/Session").header("content-type", "application/grpc");
        let answer = self.ask(request.body(tonic::body::Body::new(First::new(first))).unwrap()).await;
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
    }

    /// What comes back on a connection that is sent these bytes.
    async fn exchange(&self, request: &str) -> String {
        let mut wire = self.network.open().await.unwrap();
        wire.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, wire.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// An answer to a request over HTTP/2.
    async fn ask(&self, request: Request<tonic::body::Body>) -> Response<Incoming> {
        let wire = TokioIo::new(self.network.open().await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), wire).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_sync_over_any_network() {
    let (server, device) = (Server::start(), Device::new());
    device.store.set_remote("http://server:8000".into()).unwrap();
    let stop = CancellationToken::new();
    let link = Remote::over(Arc::new(server.network.clone()), device.store.clone());
    let keeping = tokio::spawn(link.run(stop.clone()));
    device.set("from the device", b"1").await;
    server.device.set("from the server", b"2").await;
    device.sees("from the server").await;
    server.device.sees("from the device").await;
    server.stop().await;
    stop.cancel();
    keeping.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_link_that_is_mended_at_the_other_side_goes_on_with_nobody_asking() {
    let (server, device) = (Server::start(), Device::new());
    server.device.store.set_key(Some(&[6; 32])).unwrap();
    device.store.set_remote("http://server:8000".into()).unwrap();
    let stop = CancellationToken::new();
    let link = Remote::over(Arc::new(server.network.clone()), device.store.clone());
    let keeping = tokio::spawn(link.clone().run(stop.clone()));
    let becomes = async |wanted: State| {
        let mut seen = Vec::new();
        let waiting = async {
            while link.state().unwrap().0 != wanted {
                link.changed().await;
                seen.push(link.state().unwrap().0);
            }
        };
        let is_so = tokio::time::timeout(10 * backoff::LONGEST, waiting).await;
        is_so.unwrap_or_else(|_| panic!("{wanted:?} did not come"));
        seen
    };
    becomes(State::Blocked).await;
    // Several attempts later it is what it was, and nothing else was shown.
    assert!(tokio::time::timeout(3 * backoff::LONGEST, becomes(State::Connecting)).await.is_err());
    assert_eq!(link.state().unwrap().0, State::Blocked);
    server.device.store.set_key(Some(&[5; 32])).unwrap();
    assert!(!becomes(State::Connected).await.contains(&State::Connecting));
    stop.cancel();
    keeping.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_first_message_is_answered_and_gets_no_further() {
    let (server, device) = (Server::start(), Device::new());
    device.store.set_remote("http://server:8000".into()).unwrap();
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Remote::over(Arc::new(server.network.clone()), device.store.clone()).run(stop.clone()));
    device.set("before", b"1").await;
    server.device.sees("before").await;
    // What somebody on the way could have recorded: the secrets behind it are gone.
    let (_, first) = Initiator::start(&device.store.sync_key(), &Random::system()).unwrap();
    let mut replies = HashSet::new();
    for _ in 0..2 {
        let answer = until_end(server.greet(&first).await).await;
        // The reply and the server's greeting in the channel, which nobody can open, and then the end.
        let (reply, greeting) = answer.split_at(5 + 2 + 48);
        assert!(replies.insert(reply.to_vec()));
        assert!((1..200).contains(&greeting.len()), "{}", greeting.len());
    }
    device.set("after", b"2").await;
    server.device.sees("after").await;
    stop.cancel();
    keeping.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_finds_the_state_of_health_and_nothing_else() {
    let server = Server::start();
    let ask = async |line: &str| server.exchange(&format!("{line} HTTP/1.1\r\nConnection: close\r\n\r\n")).await;
    let healthy = ask("GET /healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n") && healthy.ends_with("\r\n\r\nok\n"), "{healthy}");
    let head = ask("HEAD /healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let posted = ask("POST /healthz").await;
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");
    for path in ["/", "/get", "/healthz/", "/kvass.v1.Sync/Session"] {
        let missing = ask(&format!("GET {path}")).await;
        assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {missing}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_http_1_is_told_that_it_needs_http_2() {
    let server = Server::start();
    let head = "POST /kvass.v1.Sync/Session HTTP/1.1\r\nConnection: close\r\nContent-Type: application/grpc\r\n";
    let refused = server.exchange(&format!("{head}Content-Length: 0\r\n\r\n")).await;
    assert!(refused.starts_with("HTTP/1.1 505 ") && refused.ends_with("\r\n\r\ngRPC needs HTTP/2\n"), "{refused}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_finds_the_same_and_grpc_is_told_what_is_not_there() {
    let server = Server::start();
    let plain = Request::get("http://server/healthz").body(tonic::body::Body::empty()).unwrap();
    let healthy = server.ask(plain).await;
    assert_eq!(healthy.status(), 200);
    assert_eq!(healthy.into_body().size_hint().exact(), Some(3));
    for path in ["/kvass.v1.Sync/Other", "/other.Service/Session"] {
        let request = Request::post(format!("http://server{path}")).header("content-type", "application/grpc");
        let answer = server.ask(request.body(tonic::body::Body::empty()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"12".parse().unwrap()));
    }
    server.stop().await;
}

/// What a device says of a web server that gives the same answer to everything.
async fn found_of(status: u16) -> String {
    let (network, mut listener) = network();
    let answering = tokio::spawn(async move {
        let (wire, _) = listener.accept().await.unwrap();
        let page = move |_: Request<Incoming>| async move {
            let page = tonic::body::Body::new(String::from("<html><h1>an error, in words</h1></html>"));
            Response::builder().status(status).header("content-type", "text/html").body(page)
        };
        let protocol = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // It ends when the device leaves.
        let _ = protocol.serve_connection(TokioIo::new(wire), service_fn(page)).await;
    });
    let remote = Remote::over(Arc::new(network), Device::new().store.clone());
    let found = with_causes(&remote.probe("http://server:8000").await.unwrap_err());
    answering.abort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_no_server_behind_it_is_told_from_a_web_server_by_its_status() {
    for status in [502, 503, 504] {
        let expected = "a proxy answers at http://server:8000, and no kvassd behind it";
        assert_eq!(found_of(status).await, expected, "{status}");
    }
    for status in [200, 400, 404, 415] {
        let expected = "http://server:8000 is no kvassd server, but a web server";
        assert_eq!(found_of(status).await, expected, "{status}");
    }
}
