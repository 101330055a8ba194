//! The server's own TLS, over real sockets and, where time counts, over pipes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authority;
mod common;
mod device;
mod pipes;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use authority::Authority;
use common::{Daemon, KEY, Process, directory, eventually};
use device::{Device, PATIENCE};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvass_proto::line::with_causes;
use kvassd::accept::{self, Admission, BYTES, CertificateError, Door, Files, Guest, STAY, Serve, Tls};
use kvassd::sync::remote::{Remote, Trust};
use kvassd::sync::server;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pipes::{Pipes, network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// A port with TLS of a store; returns its address and what it reads again.
async fn serve(device: &Device, files: Files) -> (SocketAddr, Tls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tls) = (listener.local_addr().unwrap(), Tls::open(files).unwrap());
    let door = Door { tls: Some(tls.clone()), ..Door::default() };
    tokio::spawn(server::serve(door, device.store.clone(), listener, CancellationToken::new()));
    (address, tls)
}

/// A connection that blocks.
fn connect(address: SocketAddr, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let wire = TcpStream::connect(address).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap(), wire)
}

fn is_healthy(wire: &mut StreamOwned<ClientConnection, TcpStream>) -> bool {
    wire.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let mut part = [0; 512];
        match wire.read(&mut part) {
            Ok(read) if read > 0 => answer.extend(&part[..read]),
            _ => return false,
        }
    }
    answer.starts_with(b"HTTP/1.1 200 OK\r\n")
}

/// The certificate that a new connection is shown.
fn shown(address: SocketAddr, authority: &Authority) -> Vec<u8> {
    let mut wire = connect(address, authority.client(&[&TLS13], "http/1.1"));
    assert!(is_healthy(&mut wire));
    wire.conn.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_certificate_has_both_versions_of_http_in_both_of_tls_and_devices_sync_through_it() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let (files, _) = authority.writes("localhost", server.directory.path());
    let (address, _) = serve(&server, files).await;
    for version in [&TLS12, &TLS13] {
        let mut wire = connect(address, authority.client(&[version], "http/1.1"));
        assert!(is_healthy(&mut wire));
        assert_eq!(wire.conn.protocol_version(), Some(version.version));
        assert_eq!(wire.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let connector = TlsConnector::from(Arc::new(authority.client(&[version], "h2")));
        let wire = tokio::net::TcpStream::connect(address).await.unwrap();
        let wire = connector.connect(ServerName::try_from("localhost").unwrap(), wire).await.unwrap();
        assert_eq!(wire.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let wire = TokioIo::new(wire);
        let (mut sender, http) = hyper::client::conn::http2::handshake(TokioExecutor::new(), wire).await.unwrap();
        tokio::spawn(http);
        let request = Request::get("https://localhost/healthz").body(Body::empty()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    }
    let file = device.directory.path().join("ca.pem");
    std::fs::write(&file, authority.0.pem()).unwrap();
    device.store.set_remote(format!("https://localhost:{}", address.port())).unwrap();
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Remote::new(device.store.clone(), Trust { file: Some(file) }).run(stop.clone()));
    device.set("from the device", b"1").await;
    server.sees("from the device").await;
    server.set("from the server", b"2").await;
    device.sees("from the server").await;
    stop.cancel();
    keeping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_at_a_port_with_tls_that_it_speaks_https() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let (files, _) = authority.writes("localhost", server.directory.path());
    let (address, _) = serve(&server, files).await;
    let mut wire = tokio::net::TcpStream::connect(address).await.unwrap();
    wire.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, wire.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\nthis port speaks HTTPS\n"), "{answer}");
    let remote = Remote::new(device.store.clone(), Trust::default());
    let found = remote.probe(&format!("http://{address}")).await.unwrap_err();
    assert_eq!(with_causes(&found), format!("http://{address} expects https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_nobody() {
    let (server, authority) = (Device::new(), Authority::new());
    let path = server.directory.path().to_owned();
    let (files, first) = authority.writes("localhost", &path);
    let (address, tls) = serve(&server, files.clone()).await;
    tokio::task::spawn_blocking(move || {
        assert_eq!(shown(address, &authority), first);
        let mut old = connect(address, authority.client(&[&TLS13], "http/1.1"));
        assert!(is_healthy(&mut old));
        let (_, second) = authority.writes("localhost", &path);
        assert_eq!(shown(address, &authority), first);
        tls.reload().unwrap();
        assert!(is_healthy(&mut old));
        assert_eq!(shown(address, &authority), second);
        std::fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(tls.reload(), Err(CertificateError::Mismatch { .. })));
        std::fs::remove_file(&files.certificate).unwrap();
        assert!(matches!(tls.reload(), Err(CertificateError::Unreadable { .. })));
        assert_eq!(shown(address, &authority), second);
        assert!(is_healthy(&mut old));
    })
    .await
    .unwrap();
}

#[test]
fn what_is_wrong_with_a_certificate_or_its_key_is_said_with_the_file() {
    let (directory, authority) = (directory(), Authority::new());
    let (files, _) = authority.writes("localhost", directory.path());
    let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
    let (good, own) = (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap());
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem().into_bytes();
    let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_vec();
    let empty = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    for (chain, secret, expected) in [
        (None, Some(&own), format!("the file {certificate} cannot be read: No such file or directory")),
        (Some(&good), None, format!("the file {key} cannot be read: No such file or directory")),
        (Some(&vec![]), Some(&own), format!("there is no certificate in {certificate}")),
        (Some(&own), Some(&own), format!("there is no certificate in {certificate}")),
        (Some(&good), Some(&good), format!("there is no private key in {key}")),
        (Some(&good), Some(&other), format!("the key in {key} does not fit the certificate in {certificate}")),
        (Some(&good), Some(&locked), format!("the private key in {key} is encrypted")),
        (Some(&empty), Some(&own), format!("the certificate in {certificate} or the key in {key} is of no use: ")),
    ] {
        for (path, text) in [(&files.certificate, chain), (&files.key, secret)] {
            let _ = std::fs::remove_file(path);
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
        let error = with_causes(&Tls::open(files.clone()).err().expect(&expected));
        assert!(error.starts_with(&expected), "{error}");
    }
}

/// Sends without end to whoever asks, and admits it as a download would.
#[derive(Clone, Default)]
struct Endless(Arc<Mutex<Vec<Admission>>>);

impl Serve for Endless {
    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/endless" {
            return Response::new(Body::new(String::from("short")));
        }
        self.0.lock().unwrap().push(request.extensions().get::<Guest>().unwrap().admit());
        Response::new(Body::new(Zeros))
    }
}

struct Zeros;

impl hyper::body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 4_096])))))
    }
}

/// A port with TLS in this process, in simulated time; the directory has its files.
fn port(authority: &Authority, directory: &Path) -> (Pipes, CancellationToken, JoinHandle<()>) {
    let (pipes, listener) = network();
    let (files, _) = authority.writes("localhost", directory);
    let door = Door { tls: Some(Tls::open(files).unwrap()), ..Door::default() };
    let stop = CancellationToken::new();
    (pipes, stop.clone(), tokio::spawn(accept::run(listener, door, Endless::default(), stop)))
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_a_handshake_goes_in_time_and_can_say_only_so_much() {
    let (directory, authority) = (directory(), Authority::new());
    let (network, ..) = port(&authority, directory.path());
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01", hello, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut wire = network.open().await.unwrap();
        let began = Instant::now();
        wire.write_all(beginning).await.unwrap();
        while wire.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {}
        // Plain HTTP has its answer at once, and then the end; what it would still say is waited for.
        let taken = if beginning.starts_with(b"G") { 0 } else { STAY.as_secs() };
        assert_eq!(began.elapsed().as_secs(), taken, "{beginning:?}");
        while wire.write_all(b"more").await.is_ok() {
            tokio::time::sleep(STAY / 10).await;
        }
        assert!(began.elapsed() < 2 * STAY, "{beginning:?}");
    }
    let nothing = b"\x16\x03\x01\0\x04\x01\xff\xff\xff";
    for (what, beginning, rest) in [
        ("garbage", &b"\0"[..], &b"garbage!"[..]),
        ("a long hello", b"\x16\x03\x01\x40\0\x01\0\x3f\xfc\x03\x03", b"aaaaaaaa"),
        ("hellos of nothing", nothing, b"\x16\x03\x01\0\x01\0"),
        ("requests", b"POST / HTTP/1.1\r\n\r\n", b"aaaaaaaa"),
    ] {
        let (mut from, mut to) = tokio::io::split(network.open().await.unwrap());
        let heard = tokio::spawn(async move { while from.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {} });
        let mut said = beginning.len();
        to.write_all(beginning).await.unwrap();
        while to.write_all(rest).await.is_ok() {
            said += rest.len();
            assert!(said < 4 * BYTES, "{what}");
        }
        heard.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_idle_and_cuts_what_nobody_takes() {
    let (directory, authority) = (directory(), Authority::new());
    let (network, stop, serving) = port(&authority, directory.path());
    let connector = TlsConnector::from(Arc::new(authority.client(&[&TLS13], "http/1.1")));
    let mut wires = Vec::new();
    for path in ["/", "/endless"] {
        let wire = network.open().await.unwrap();
        let mut wire = connector.connect("localhost".try_into().unwrap(), wire).await.unwrap();
        wire.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        wire.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        wires.push(wire);
    }
    // Between the first byte and the handshake.
    let mut silent = network.open().await.unwrap();
    silent.write_all(b"\x16").await.unwrap();
    tokio::time::sleep(STAY / 10).await;
    let began = Instant::now();
    stop.cancel();
    serving.await.unwrap();
    assert!(began.elapsed() < STAY / 2, "{:?}", began.elapsed());
    let mut rest = Vec::new();
    // The idle one ends as TLS should, which the other had no time for.
    wires[0].read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"short"), "{rest:?}");
    assert!(wires[1].read_to_end(&mut rest).await.is_err());
}

/// A server as a program, with TLS.
fn secured(authority: &Authority, files: &Path) -> Daemon {
    let (files, _) = authority.writes("localhost", files);
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let arguments = ["--server", "--bind", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key];
    Daemon::started(directory(), &arguments, KEY)
}

#[test]
fn a_hangup_reads_the_certificate_again_and_a_broken_one_is_a_line_in_the_log() {
    let (files, authority) = (directory(), Authority::new());
    let mut server = secured(&authority, files.path());
    let address = server.status().bind.parse().unwrap();
    let mut old = connect(address, authority.client(&[&TLS13], "http/1.1"));
    assert!(is_healthy(&mut old));
    let (pair, second) = authority.writes("localhost", files.path());
    server.process.signal("HUP");
    eventually("the new certificate", || (shown(address, &authority) == second).then_some(()));
    assert!(is_healthy(&mut old));
    std::fs::write(&pair.certificate, "").unwrap();
    server.process.signal("HUP");
    let line = server.process.stderr_line();
    let expected = format!(
        "the certificate stays what it was error=\"there is no certificate in {}\"",
        pair.certificate.display()
    );
    assert!(line.contains(&expected), "{line}");
    assert_eq!(shown(address, &authority), second);
    // Somebody who is connected and says nothing does not hold up the end.
    server.process.signal("TERM");
    assert!(server.process.ended().success());
    assert!(!is_healthy(&mut old));
}

#[test]
fn a_hangup_does_not_end_a_daemon_without_tls_and_the_end_of_its_terminal_does() {
    let device = directory();
    let mut process = Process::start(device.path(), &[]);
    common::Client::connect(device.path());
    process.signal("HUP");
    while !process.stderr_line().contains("SIGHUP: there is nothing to read again") {}
    common::Client::connect(device.path());
    process.signal("TERM");
    assert!(process.ended().success());
    let terminal = nix::pty::openpty(None, None).unwrap();
    // Else the daemon itself would keep it open.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let mut process = Process::spawn(Process::command(device.path()).stderr(Stdio::from(terminal.slave)));
    common::Client::connect(device.path());
    drop(terminal.master);
    process.signal("HUP");
    assert!(process.ended().success());
    assert!(!device.path().join("kvassd.sock").exists());
}

#[test]
fn a_daemon_does_not_start_with_a_wrong_certificate_and_warns_of_a_key_that_anybody_reads() {
    let (files, authority, store) = (directory(), Authority::new(), directory());
    let (pair, _) = authority.writes("localhost", files.path());
    let names = [pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap()];
    let arguments = ["--server", "--bind", "127.0.0.1:0", "--tls-cert", names[0], "--tls-key", names[1]];
    std::fs::set_permissions(&pair.key, PermissionsExt::from_mode(0o644)).unwrap();
    let mut process = Process::start(store.path(), &arguments);
    let line = process.stderr_line();
    assert!(
        line.contains("WARN") && line.contains(&format!("everybody on this machine can read {}: chmod 600", names[1])),
        "{line}"
    );
    common::Client::connect(store.path());
    process.signal("TERM");
    assert!(process.ended().success());
    std::fs::write(&pair.certificate, "").unwrap();
    let mut process = Process::start(store.path(), &arguments);
    assert_eq!(process.ended().code(), Some(3));
    let words = process.stderr();
    assert!(words.contains(&format!("kvassd: there is no certificate in {}\nhint: --tls-cert", names[0])), "{words}");
}
