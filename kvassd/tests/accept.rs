//! What strangers may cost the server's port, in simulated time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pipes;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use kvassd::accept::{self, Admission, BYTES, Download, GUESTS, Guest, STALL, STAY, Serve};
use kvassd::network::Accept;
use pipes::{Pipes, network};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// Admits whoever asks for `/admit` or `/download`, until [`Door::forget`].
#[derive(Clone, Default)]
struct Door {
    admitted: Arc<Mutex<Vec<Admission>>>,
    downloads: Arc<Mutex<Vec<Download>>>,
}

impl Door {
    fn forget(&self) {
        self.admitted.lock().unwrap().clear();
        self.downloads.lock().unwrap().clear();
    }

    fn move_downloads(&self) {
        self.downloads.lock().unwrap().iter().for_each(Download::moved);
    }
}

impl Serve for Door {
    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let guest = request.extensions().get::<Guest>().unwrap();
        match request.uri().path() {
            "/admit" => self.admitted.lock().unwrap().push(guest.admit()),
            "/download" => {
                self.downloads.lock().unwrap().push(guest.admit_download(STAY));
                return Response::new(Body::new(Endless(Some(Bytes::from_static(b"seen")))));
            }
            "/short" => drop(guest.admit_download(STAY)),
            _ => {}
        }
        Response::new(Body::new(String::from("seen")))
    }
}

/// A body that says something and never ends.
struct Endless(Option<Bytes>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |said| Poll::Ready(Some(Ok(Frame::data(said)))))
    }
}

fn serve(door: Door) -> Pipes {
    let (pipes, listener) = network();
    tokio::spawn(accept::run(listener, door, CancellationToken::new()));
    pipes
}

/// Asks over HTTP/1.1, and returns whether there was an answer.
async fn ask(wire: &mut DuplexStream, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\n\r\n");
    let mut answer = [0; 1_024];
    wire.write_all(request.as_bytes()).await.is_ok() && wire.read(&mut answer).await.is_ok_and(|read| read > 0)
}

async fn ended(wire: &mut DuplexStream) {
    while wire.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(start_paused = true)]
async fn a_guest_goes_after_its_time_whatever_it_has_said() {
    let network = serve(Door::default());
    for beginning in
        [&b""[..], b"GET / HT", b"PRI * HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut wire = network.open().await.unwrap();
        let began = Instant::now();
        wire.write_all(beginning).await.unwrap();
        ended(&mut wire).await;
        // The clock of tokio counts in milliseconds.
        assert_eq!(began.elapsed().as_secs(), STAY.as_secs(), "{beginning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_guest_goes_for_a_new_one_and_nobody_who_was_admitted() {
    let door = Door::default();
    let network = serve(door.clone());
    let mut admitted = network.open().await.unwrap();
    assert!(ask(&mut admitted, "/admit").await);
    let mut guests = Vec::new();
    for _ in 0..GUESTS {
        guests.push(network.open().await.unwrap());
        assert!(ask(guests.last_mut().unwrap(), "/").await);
    }
    assert!(ask(&mut guests[0], "/").await);
    let mut newest = network.open().await.unwrap();
    assert!(ask(&mut newest, "/").await);
    assert!(!ask(&mut guests[0], "/").await);
    for guest in &mut guests[1..] {
        assert!(ask(guest, "/").await);
    }
    // All of them go in time; who was admitted stays, and is a guest again once it no longer is.
    tokio::time::sleep(2 * STAY).await;
    assert!(!ask(&mut newest, "/").await);
    assert!(ask(&mut admitted, "/").await);
    door.forget();
    let began = Instant::now();
    ended(&mut admitted).await;
    assert_eq!(began.elapsed().as_secs(), STAY.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_guest_can_say_only_so_much_and_somebody_who_was_admitted_more() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let headers = [&preface[..], b"\0\0\0\x01\0\0\0\0\x01"].concat();
    let endless = [
        ("a header", &b"GET / HTTP/1.1\r\nX: "[..], &b"aaaaaaaa"[..]),
        ("headers", b"GET / HTTP/1.1\r\n", b"X: a\r\n"),
        ("requests", b"", b"GET / HTTP/1.1\r\n\r\n"),
        ("a body", b"GET / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"aaaaaaaa"),
        ("pings", preface, b"\0\0\x08\x06\0\0\0\0\0aaaaaaaa"),
        ("settings", preface, b"\0\0\0\x04\0\0\0\0\0"),
        ("a head in parts", &headers, b"\0\0\x08\x09\0\0\0\0\x01aaaaaaaa"),
        ("a head of nothing", &headers, b"\0\0\0\x09\0\0\0\0\x01"),
    ];
    let network = serve(Door::default());
    for (what, beginning, rest) in endless {
        let (mut from, mut to) = tokio::io::split(network.open().await.unwrap());
        let heard = tokio::spawn(async move { while from.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {} });
        to.write_all(beginning).await.unwrap();
        let mut said = beginning.len();
        while to.write_all(rest).await.is_ok() {
            said += rest.len();
            // What the pipe and one read hold comes on top.
            assert!(said < 4 * BYTES, "{what}");
        }
        heard.await.unwrap();
    }
    let mut admitted = network.open().await.unwrap();
    assert!(ask(&mut admitted, "/admit").await);
    for _ in 0..BYTES {
        assert!(ask(&mut admitted, "/").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_that_stands_still_ends_and_one_that_moves_does_not() {
    let door = Door::default();
    let network = serve(door.clone());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/download").await);
    for _ in 0..5 {
        assert!(timeout(STALL - Duration::from_secs(1), ended(&mut wire)).await.is_err());
        door.move_downloads();
    }
    let began = Instant::now();
    ended(&mut wire).await;
    assert_eq!(began.elapsed().as_secs(), STALL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_session_beside_a_download_is_not_ended_with_it() {
    let network = serve(Door::default());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/admit").await);
    assert!(ask(&mut wire, "/download").await);
    assert!(timeout(5 * STALL, ended(&mut wire)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_given_something_may_stay_from_then_on_however_soon_it_is_over() {
    let network = serve(Door::default());
    let mut wire = network.open().await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(STAY - Duration::from_secs(1)).await;
        assert!(ask(&mut wire, "/short").await);
    }
    let began = Instant::now();
    ended(&mut wire).await;
    assert_eq!(began.elapsed().as_secs(), STAY.as_secs());
}

/// A listener that has nothing to give but errors, but for the first connection.
struct Short {
    first: Option<DuplexStream>,
    tries: Arc<AtomicUsize>,
}

impl Accept for Short {
    type Wire = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        match self.first.take() {
            Some(wire) => Ok((wire, ([192, 0, 2, 1], 1).into())),
            None => Err(io::Error::from_raw_os_error(24)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lack_of_descriptors_costs_a_guest_and_neither_ends_nor_spins() {
    let (mut guest, far) = tokio::io::duplex(1_024);
    let (tries, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let listener = Short { first: Some(far), tries: tries.clone() };
    let running = tokio::spawn(accept::run(listener, Door::default(), stop.clone()));
    let began = Instant::now();
    ended(&mut guest).await;
    assert!(began.elapsed() < STAY);
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
        () = async { running.await.unwrap(); pending().await } => panic!("it ended"),
    }
    let tries = tries.load(Ordering::Relaxed);
    assert!((60..=6_000).contains(&tries), "{tries} tries in a minute");
    stop.cancel();
}
