//! Large values on their way.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use hyper::Request;
use hyper::body::Body as _;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::program::Program;
use crate::site::{Answer, PATIENCE, Site, ask, bytes, connect, send};

/// How many files with this in their name the process has open.
fn open_files(part: &str) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    names.filter(|name: &std::path::PathBuf| name.to_string_lossy().contains(part)).count()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_download_that_is_cut_leaves_no_descriptor() {
    if !Path::new("/proc/self/fd").exists() {
        return;
    }
    let site = Site::start();
    // More than fits into the buffers of a connection.
    let value = bytes(16 << 20);
    let link = site.share("film", &value);
    let blobs = site.directory().join("blobs").to_string_lossy().into_owned();
    let mut wires: Vec<_> = (0..8).map(|_| site.connect()).collect();
    for wire in &mut wires {
        send(wire, "GET", &link, &[]);
        assert_eq!(Answer::head(wire).length(), value.len());
        wire.read_exact(&mut [0; 100_000]).unwrap();
    }
    assert_eq!(open_files(&blobs), 8);
    drop(wires);
    eventually("the descriptors are given back", || open_files(&blobs) == 0);
    assert!(site.get(&link).body == value);
}

#[test]
fn a_stop_does_not_wait_for_those_who_take_nothing() {
    let mut site = Site::start();
    let link = site.share("film", &bytes(16 << 20));
    let mut wire = site.connect();
    send(&mut wire, "GET", &link, &[]);
    Answer::head(&mut wire);
    // It returns: a download that nobody takes would last a minute.
    let began = Instant::now();
    site.stop();
    assert!(began.elapsed() < PATIENCE);
    let mut rest = Vec::new();
    let _ = wire.read_to_end(&mut rest);
    assert!(rest.len() < 16 << 20);
}

#[test]
fn over_http_2_it_is_the_same() {
    let site = Site::start();
    let value = bytes(3 << 20);
    let link = format!("http://server{}", site.share("film.mp4", &value));
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let wire = TokioIo::new(tokio::net::TcpStream::connect(site.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), wire).await.unwrap();
        let connection = tokio::spawn(connection);
        for (method, range, status, expected) in [
            ("GET", "", 200, &value[..]),
            ("GET", "bytes=100000-2000000", 206, &value[100_000..=2_000_000]),
            ("GET", "bytes=9999999-", 416, b"The value has no such part\n"),
            ("HEAD", "", 200, b""),
            ("PUT", "", 405, b"A link is only read\n"),
        ] {
            let request = Request::builder().method(method).uri(&link).header("range", range);
            let answer = sender.send_request(request.body(tonic::body::Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {range}");
            if method == "HEAD" {
                assert_eq!(answer.headers()["content-length"], value.len().to_string());
            }
            let mut body = answer.into_body();
            let mut taken = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
            {
                taken.extend(frame.unwrap().into_data().unwrap_or_default());
            }
            assert!(taken == expected, "{method} {range}");
        }
        drop(sender);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn memory_does_not_grow_with_what_is_on_its_way() {
    let program = Program::serving(&[("film", &bytes(64 << 20))], &[]);
    let Some(before) = program.peak() else { return };
    let [link] = &program.links[..] else { panic!("one link") };
    let mut slow: Vec<_> = (0..16).map(|_| connect(program.address)).collect();
    for wire in &mut slow {
        send(wire, "GET", link, &[]);
        assert_eq!(Answer::head(wire).length(), 64 << 20);
    }
    assert_eq!(ask(program.address, "GET", link, &[]).body.len(), 64 << 20);
    let grown = program.peak().unwrap() - before;
    assert!(grown < 16 << 10, "{grown} KiB");
}
