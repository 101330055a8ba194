//! What strangers may cost the server's port, in simulated time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pipes;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use kvassd::accept::{self, Admission, BYTES, Client, Door, Download, GUESTS, Guest, STALL, STAY, Serve, UNKNOWN};
use kvassd::network::Accept;
use pipes::{Pipes, network};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// Admits whoever asks for `/admit` or `/download`, until [`Host::forget`]; knows no `/unknown`.
#[derive(Clone, Default)]
struct Host {
    admitted: Arc<Mutex<Vec<Admission>>>,
    downloads: Arc<Mutex<Vec<Download>>>,
}

impl Host {
    fn forget(&self) {
        self.admitted.lock().unwrap().clear();
        self.downloads.lock().unwrap().clear();
    }

    fn move_downloads(&self) {
        self.downloads.lock().unwrap().iter().for_each(Download::moved);
    }
}

impl Serve for Host {
    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let guest = request.extensions().get::<Guest>().unwrap();
        let client = request.extensions().get::<Client>().unwrap();
        let text = match request.uri().path() {
            "/admit" => {
                self.admitted.lock().unwrap().push(guest.admit());
                "admitted".into()
            }
            "/download" => {
                self.downloads.lock().unwrap().push(guest.admit_download(STAY));
                return Response::new(Body::new(Endless(Some(Bytes::from_static(b"seen")))));
            }
            "/hold" => {
                self.downloads.lock().unwrap().push(guest.admit_download(STAY));
                "held".into()
            }
            "/short" => {
                drop(guest.admit_download(STAY));
                "short".into()
            }
            "/unknown" => client.note_unknown().map_or("unknown".into(), |wait| format!("wait {}", wait.as_secs())),
            _ => "seen".into(),
        };
        Response::new(Body::new(text))
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

fn serve(host: Host) -> Pipes {
    serve_behind(Door::default(), host)
}

fn serve_behind(door: Door, host: Host) -> Pipes {
    let (pipes, listener) = network();
    tokio::spawn(accept::run(listener, door, host, CancellationToken::new()));
    pipes
}

/// Asks over HTTP/1.1, and returns whether there was an answer.
async fn ask(wire: &mut DuplexStream, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\n\r\n");
    let mut answer = [0; 1_024];
    wire.write_all(request.as_bytes()).await.is_ok() && wire.read(&mut answer).await.is_ok_and(|read| read > 0)
}

/// The text of the answer to a request with this head.
async fn answer(wire: &mut DuplexStream, head: &str) -> String {
    wire.write_all(format!("GET {head}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 1_024];
    let read = wire.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

async fn ended(wire: &mut DuplexStream) {
    while wire.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(start_paused = true)]
async fn a_guest_goes_after_its_time_whatever_it_has_said() {
    let network = serve(Host::default());
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
    let host = Host::default();
    let network = serve(host.clone());
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
    host.forget();
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
    let network = serve(Host::default());
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
    let host = Host::default();
    let network = serve(host.clone());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/download").await);
    for _ in 0..5 {
        assert!(timeout(STALL - Duration::from_secs(1), ended(&mut wire)).await.is_err());
        host.move_downloads();
    }
    let began = Instant::now();
    ended(&mut wire).await;
    assert_eq!(began.elapsed().as_secs(), STALL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_download_that_stands_still_ends_though_others_begin_and_move() {
    let host = Host::default();
    let network = serve(host.clone());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/hold").await);
    let began = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(STALL / 6).await;
        assert!(ask(&mut wire, "/hold").await);
        host.downloads.lock().unwrap().last().unwrap().moved();
    }
    ended(&mut wire).await;
    assert_eq!(began.elapsed().as_secs(), STALL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn one_download_is_over_and_the_next_has_its_own_time() {
    let host = Host::default();
    let network = serve(host.clone());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/hold").await);
    for _ in 0..5 {
        tokio::time::sleep(STALL / 3).await;
        assert!(ask(&mut wire, "/hold").await);
        drop(host.downloads.lock().unwrap().remove(0));
    }
    assert!(ask(&mut wire, "/").await);
}

#[tokio::test(start_paused = true)]
async fn a_session_beside_a_download_is_not_ended_with_it() {
    let network = serve(Host::default());
    let mut wire = network.open().await.unwrap();
    assert!(ask(&mut wire, "/admit").await);
    assert!(ask(&mut wire, "/download").await);
    assert!(timeout(5 * STALL, ended(&mut wire)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_given_something_may_stay_from_then_on_however_soon_it_is_over() {
    let network = serve(Host::default());
    let mut wire = network.open().await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(STAY - Duration::from_secs(1)).await;
        assert!(ask(&mut wire, "/short").await);
    }
    let began = Instant::now();
    ended(&mut wire).await;
    assert_eq!(began.elapsed().as_secs(), STAY.as_secs());
}

#[tokio::test(start_paused = true)]
async fn who_comes_often_goes_before_who_comes_once() {
    let network = serve(Host::default());
    let (one, many) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let mut first = network.open_from(one).await.unwrap();
    assert!(ask(&mut first, "/").await);
    let mut others = Vec::new();
    for _ in 0..2 * GUESTS {
        others.push(network.open_from(many).await.unwrap());
        assert!(ask(others.last_mut().unwrap(), "/").await);
    }
    let mut second = network.open_from(one).await.unwrap();
    for wire in [&mut first, &mut second, others.last_mut().unwrap()] {
        assert!(ask(wire, "/").await);
    }
    let gone = GUESTS + 2;
    assert!(!ask(&mut others[gone - 1], "/").await);
    assert!(ask(&mut others[gone], "/").await);
}

#[tokio::test(start_paused = true)]
async fn those_behind_a_proxy_are_told_apart_and_nobody_else_is_believed() {
    let door = Door { proxies: "192.0.2.1".parse().unwrap(), ..Door::default() };
    let network = serve_behind(door, Host::default());
    let (proxy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let unknown = |last| format!("/unknown HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9, 198.51.100.{last}");
    for _ in 0..UNKNOWN {
        assert_eq!(answer(&mut network.open_from(proxy).await.unwrap(), &unknown(7)).await, "unknown");
    }
    assert_eq!(answer(&mut network.open_from(proxy).await.unwrap(), &unknown(7)).await, "wait 2");
    assert_eq!(answer(&mut network.open_from(proxy).await.unwrap(), &unknown(8)).await, "unknown");
    assert_eq!(answer(&mut network.open_from(other).await.unwrap(), &unknown(7)).await, "unknown");
    // One stranger behind the proxy takes all places; a device behind it comes in and stays.
    let asks = |last| format!("/ HTTP/1.1\r\nX-Forwarded-For: 198.51.100.{last}");
    let mut strangers = Vec::new();
    for _ in 0..GUESTS {
        strangers.push(network.open_from(proxy).await.unwrap());
        assert_eq!(answer(strangers.last_mut().unwrap(), &asks(7)).await, "seen");
    }
    let mut device = network.open_from(proxy).await.unwrap();
    assert_eq!(answer(&mut device, &asks(8)).await, "seen");
    for _ in 0..GUESTS {
        strangers.push(network.open_from(proxy).await.unwrap());
        assert_eq!(answer(strangers.last_mut().unwrap(), &asks(7)).await, "seen");
    }
    assert_eq!(answer(&mut device, &asks(8)).await, "seen");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_unknown_requests_of_one_address_are_mostly_told_to_wait_and_no_other_is() {
    let network = serve(Host::default());
    let mut heard = HashMap::<String, usize>::new();
    for number in 0..10_000 {
        // Each connection has its bytes.
        let mut wire = network.open_from([192, 0, 2, 2].into()).await.unwrap();
        let text = answer(&mut wire, "/unknown HTTP/1.1").await;
        *heard.entry(text.split(' ').next().unwrap().into()).or_default() += 1;
        assert!(number < UNKNOWN || text == "wait 2", "{number}: {text}");
    }
    assert_eq!(
        heard,
        HashMap::from([("unknown".into(), UNKNOWN as usize), ("wait".into(), 10_000 - UNKNOWN as usize)])
    );
    let mut other = network.open_from([192, 0, 2, 3].into()).await.unwrap();
    assert_eq!(answer(&mut other, "/unknown HTTP/1.1").await, "unknown");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_connections_than_there_may_be_and_a_guest_goes_for_a_new_one() {
    let host = Host::default();
    let network = serve_behind(Door { connections: 3, ..Door::default() }, host.clone());
    let mut admitted = Vec::new();
    for _ in 0..2 {
        admitted.push(network.open().await.unwrap());
        assert!(ask(admitted.last_mut().unwrap(), "/admit").await);
    }
    let mut guest = network.open().await.unwrap();
    assert!(ask(&mut guest, "/").await);
    let mut next = network.open().await.unwrap();
    assert!(ask(&mut next, "/admit").await);
    assert!(!ask(&mut guest, "/").await);
    let mut beyond = network.open().await.unwrap();
    assert!(!ask(&mut beyond, "/").await);
    for wire in admitted.iter_mut().chain([&mut next]) {
        assert!(ask(wire, "/").await);
    }
    drop(next);
    // Whoever leaves makes room.
    let again = async {
        loop {
            if ask(&mut network.open().await.unwrap(), "/").await {
                break;
            }
        }
    };
    tokio::time::timeout(STAY, again).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_downloads_go_for_a_new_connection_and_no_session_does() {
    let host = Host::default();
    let network = serve_behind(Door { connections: 4, ..Door::default() }, host.clone());
    let (one, many) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let mut alone = network.open_from(one).await.unwrap();
    assert!(ask(&mut alone, "/download").await);
    // A session that has a download beside it, which stands still for longest.
    let mut session = network.open_from(many).await.unwrap();
    assert!(ask(&mut session, "/admit").await && ask(&mut session, "/download").await);
    let mut downloads = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        downloads.push(network.open_from(many).await.unwrap());
        assert!(ask(downloads.last_mut().unwrap(), "/download").await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The first of the two moves, so the second goes; then the address that has more of them has none.
    host.downloads.lock().unwrap()[2].moved();
    let mut devices = Vec::new();
    for gone in [&mut downloads.remove(1), &mut alone, &mut downloads.remove(0)] {
        devices.push(network.open_from(one).await.unwrap());
        assert!(ask(devices.last_mut().unwrap(), "/admit").await);
        let began = Instant::now();
        ended(gone).await;
        assert_eq!(began.elapsed().as_secs(), 0);
    }
    let mut beyond = network.open_from(one).await.unwrap();
    assert!(!ask(&mut beyond, "/").await);
    for device in &mut devices {
        assert!(ask(device, "/").await);
    }
    assert!(timeout(STAY, ended(&mut session)).await.is_err());
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
    let running = tokio::spawn(accept::run(listener, Door::default(), Host::default(), stop.clone()));
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
