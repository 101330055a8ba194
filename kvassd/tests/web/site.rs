//! A server of a store, and a client of HTTP/1.1 that shows every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use kvassd::accept::Door;
use kvassd::store::{Options, ShareOptions, Store};
use kvassd::sync::server;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a thread of its own.
pub(crate) struct Site {
    directory: TempDir,
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl Site {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Options { value_max: 1 << 30, reserve: 0 }, &|_| {}).unwrap();
        Self::serve(directory, store)
    }

    pub(crate) fn serve(directory: TempDir, store: Store) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (served, ending) = (store.clone(), stop.clone());
        let serving = std::thread::spawn(move || {
            let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            threads.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                server::serve(Door::default(), served, listener, ending).await.unwrap();
            });
        });
        Self { directory, store, address, stop, serving: Some(serving) }
    }

    pub(crate) fn set(&self, name: &str, value: &[u8]) {
        let mut writer = self.store.writer(None).unwrap();
        writer.push(value).unwrap();
        self.store.set(name, writer.finish().unwrap(), 0).unwrap();
    }

    /// The path of a link to an entry.
    pub(crate) fn link(&self, name: &str) -> String {
        self.link_with(name, ShareOptions::default())
    }

    pub(crate) fn link_with(&self, name: &str, options: ShareOptions) -> String {
        path(&self.store.share(name, options).unwrap().expect("an entry").token)
    }

    /// Sets a value, and gives the path of a link to it.
    pub(crate) fn share(&self, name: &str, value: &[u8]) -> String {
        self.set(name, value);
        self.link(name)
    }

    /// The answer to one request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.address, method, path, headers)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Where the store's files lie.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory, once the store is closed.
    pub(crate) fn into_directory(mut self) -> TempDir {
        self.stop();
        self.store.clone().close();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        if let Some(Err(panic)) = self.serving.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let wire = TcpStream::connect(address).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    wire
}

pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut wire = connect(address);
    send(&mut wire, method, path, &[headers, &[("Connection", "close")]].concat());
    Answer::read(&mut wire, method == "HEAD")
}

/// The path of a link.
pub(crate) fn path(token: &kvassd::keys::Token) -> String {
    format!("/get?q={}", *token.to_text())
}

pub(crate) fn send(wire: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    wire.write_all(format!("{method} {path} HTTP/1.1\r\nHost: server\r\n{lines}\r\n").as_bytes()).unwrap();
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads one answer, whose length is known.
    pub(crate) fn read(wire: &mut TcpStream, is_head: bool) -> Self {
        let mut answer = Self::head(wire);
        let length = if is_head || answer.status == 304 { 0 } else { answer.length() };
        answer.body = vec![0; length];
        wire.read_exact(&mut answer.body).unwrap();
        answer
    }

    /// Reads the head of an answer alone.
    pub(crate) fn head(wire: &mut TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            wire.read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head of ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self { status, headers: headers.collect(), body: Vec::new() }
    }

    /// The value of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found: Vec<_> = self.headers.iter().filter(|(other, _)| other == name).collect();
        assert!(found.len() < 2, "{name}: {:?}", self.headers);
        found.first().map_or("", |(_, value)| value)
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length").parse().unwrap_or_else(|_| panic!("no length: {:?}", self.headers))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Bytes of which no two stretches are the same.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
