//! Many devices in one process, without their stores: each makes a real handshake and keeps a session.
//!
//! `devices URL COUNT` reads the account's key, 64 hex digits, from standard input. It prints a line once all are in
//! step with the server, and one each time that all have been sent a newer change; it ends with standard input.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use kvass_proto::v1::{self, sync_frame::Frame};
use kvassd::keys::{EncryptionKey, SyncKey};
use kvassd::network::Tcp;
use kvassd::random::Random;
use kvassd::sync::channel::{Opener, Sealer};
use kvassd::sync::connect::{self, Opened, Trust, Way};
use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::{Semaphore, watch};

/// Handshakes at once: fewer than the guests that a server takes.
const AT_ONCE: usize = 16;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, count] = arguments.as_slice() else { return Err("usage: devices URL COUNT".into()) };
    let count: usize = count.parse()?;
    let key = Arc::new(read_key()?);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let seen = Arc::new(watch::Sender::new(vec![None; count]));
    for number in 0..count {
        let (url, key, places, seen) = (url.clone(), key.clone(), places.clone(), seen.clone());
        tokio::spawn(async move {
            let Err(error) = device(number, &url, &key, &places, &seen).await;
            eprintln!("device {number}: {error}");
            std::process::exit(1);
        });
    }
    let telling = tokio::spawn(tell(seen.subscribe()));
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    telling.abort();
    Ok(())
}

/// Reads the first line of standard input and leaves the rest.
fn read_key() -> Result<SyncKey, Failure> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text)?;
    let digits = text
        .trim()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).map_err(Failure::from));
    let key: Vec<u8> = digits.collect::<Result<_, Failure>>()?;
    Ok(SyncKey::derive(&EncryptionKey::new(key.try_into().map_err(|_| "a key has 64 hex digits")?)))
}

/// Prints how far all have come, whenever the slowest of them gets further.
async fn tell(mut seen: watch::Receiver<Vec<Option<u64>>>) {
    let mut told = None;
    while seen.changed().await.is_ok() {
        let slowest = seen.borrow_and_update().iter().copied().min().flatten();
        if slowest > told {
            told = slowest;
            println!("all have seen {}", slowest.unwrap_or_default());
            // Whoever reads this may be gone; then standard input is as well.
            let _ = std::io::stdout().flush();
        }
    }
}

/// One device: greets, asks for the whole log, and notes how much of it has come.
async fn device(
    number: usize,
    url: &str,
    key: &SyncKey,
    places: &Semaphore,
    seen: &watch::Sender<Vec<Option<u64>>>,
) -> Result<std::convert::Infallible, Failure> {
    let permit = places.acquire().await?;
    let way = Way { network: Arc::new(Tcp), trust: Trust::default() };
    let Opened { channel, mut link, connection: _connection } =
        connect::open(&way, &Random::system(), key, url).await?;
    let (mut sealer, mut opener) = channel.split();
    let id = || Random::system().bytes::<16>().map(|id| id.to_vec());
    let clock_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros() as u64;
    let hello = v1::Hello { version: 1, store: id()?, run: id()?, clock_us, public_url: String::new() };
    send(&mut sealer, &link.to, Frame::Hello(hello)).await?;
    send(&mut sealer, &link.to, Frame::Resume(v1::Resume::default())).await?;
    send(&mut sealer, &link.to, Frame::HeadWant(v1::HeadWant { number: 1 })).await?;
    let mut permit = Some(permit);
    loop {
        match receive(&mut opener, &mut link.from).await? {
            Frame::Head(head) => {
                permit = None;
                note(seen, number, head.seq);
            }
            Frame::Log(log) if permit.is_none() => note(seen, number, log.seq),
            Frame::End(end) => return Err(format!("the server ended the session: {:?}", end.reason()).into()),
            _ => {}
        }
    }
}

fn note(seen: &watch::Sender<Vec<Option<u64>>>, number: usize, seq: u64) {
    seen.send_modify(|seen| seen[number] = seen[number].max(Some(seq)));
}

async fn send(sealer: &mut Sealer, to: &tokio::sync::mpsc::Sender<Bytes>, frame: Frame) -> Result<(), Failure> {
    Ok(to.send(sealer.seal(&v1::SyncFrame { frame: Some(frame) }.encode_to_vec())?.into()).await?)
}

/// The next frame. A server that is silent for two minutes is not there.
async fn receive(opener: &mut Opener, from: &mut tokio::sync::mpsc::Receiver<Bytes>) -> Result<Frame, Failure> {
    let sealed = tokio::time::timeout(Duration::from_secs(120), from.recv()).await?.ok_or("the server is gone")?;
    v1::SyncFrame::decode(opener.open(&sealed)?.as_slice())?.frame.ok_or_else(|| "an unknown frame".into())
}
