//! The local socket, in the hands of a client of the same user that says what it likes.

use std::io;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use kvass_proto::frame::{self, Kind};
use kvass_proto::v1::{self, request::Command};
use kvassd::fuzz;
use kvassd::network::{Connect, Wire};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::place::{BLIND, OWN, PATIENCE, Place, THREADS};

/// Where nobody is.
struct Nowhere;

#[tonic::async_trait]
impl Connect for Nowhere {
    async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Wire>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

#[derive(Arbitrary, Debug)]
struct Client {
    is_blind: bool,
    visits: Vec<Visit>,
}

#[derive(Arbitrary, Debug)]
struct Visit {
    directory: Directory,
    notes: bool,
    ask: Ask,
    /// What follows the request, as a value does.
    more: Vec<(u8, Vec<u8>)>,
}

#[derive(Arbitrary, Debug)]
enum Directory {
    Own,
    Own2,
    Own3,
    Other(String),
}

/// The name of an entry.
#[derive(Arbitrary, Debug)]
enum Name {
    Own,
    Large,
    Other(String),
}

#[derive(Arbitrary, Debug)]
enum Ask {
    Set {
        name: Name,
        value: Option<Vec<u8>>,
        size: Option<u32>,
        expiry_us: u64,
        import: Option<(u64, bool, bool)>,
    },
    Get(Name),
    List {
        prefix: String,
        detail: i8,
        reverse: bool,
        terminator: u32,
    },
    Remove {
        names: Vec<Name>,
        prefix: Option<String>,
    },
    Watch {
        prefix: String,
        after: Vec<u8>,
    },
    Wait {
        name: Name,
        change: bool,
        after: Vec<u8>,
    },
    Status,
    Config,
    SetKey {
        key: Vec<u8>,
        server_key: Option<u8>,
        confirmed: bool,
    },
    SetPid(u32),
    Check,
    Stop,
    SetRemote(String),
    Sync {
        goal: i8,
        name: Name,
    },
    Share {
        name: Name,
        expiry_us: u64,
        reads: u64,
        pin: bool,
    },
    Shares(Name),
    Revoke(Option<Name>, Vec<u8>),
    SetPublicUrl(String),
    Preview(Vec<u8>, String),
    Join(Vec<u8>, String),
    /// Any bytes of a request.
    Bytes(Vec<u8>),
    /// Any bytes of a connection.
    Raw(Vec<u8>),
}

/// Says these things, each on a connection of its own, and leaves each time: nothing panics, every connection ends, what
/// is answered reads, and afterwards every entry that is listed can be read, also by a daemon that is started again.
pub fn local(bytes: &[u8]) {
    let Ok(client) = Client::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let place = if client.is_blind { BLIND.copy() } else { OWN.copy() };
    for visit in client.visits.iter().take(8) {
        let answer = THREADS.block_on(self::visit(&place, visit.bytes(&place)));
        reads(&answer);
    }
    let checked = |place: &Place| if place.store.is_blind() { None } else { Some(place.content()) };
    let content = checked(&place);
    let place = place.restarted();
    assert_eq!(checked(&place), content, "a start changes entries");
    place.store.close();
}

async fn visit(place: &Place, said: Vec<u8>) -> Vec<u8> {
    let (near, far) = UnixStream::pair().expect("sockets");
    let answering = fuzz::local(far, place.store.clone(), place.path().to_owned(), Arc::new(Nowhere));
    let answering = tokio::spawn(answering);
    let (mut from, mut to) = near.into_split();
    let mut answer = Vec::new();
    let write = async {
        // The daemon may close before it has read all.
        let _ = to.write_all(&said).await;
        let _ = to.shutdown().await;
    };
    let (_, read) = tokio::join!(write, timeout(PATIENCE, from.read_to_end(&mut answer)));
    let _ = read.expect("a connection that ends with its client");
    timeout(PATIENCE, answering).await.expect("an end").expect("a connection without a panic");
    answer
}

/// All that is answered are frames, and the messages among them replies.
fn reads(mut answer: &[u8]) {
    let mut payload = Vec::new();
    loop {
        match frame::read(&mut answer, &mut payload) {
            Ok(Some(Kind::Message)) => {
                let reply = frame::decode::<v1::Reply>(&payload).expect("a reply");
                assert!(reply.reply.is_some());
            }
            Ok(Some(Kind::Data | Kind::End)) => {}
            Ok(None) => return,
            Err(error) => panic!("an answer that is cut short: {error}"),
        }
    }
}

impl Visit {
    fn bytes(&self, place: &Place) -> Vec<u8> {
        let payload = match &self.ask {
            Ask::Raw(bytes) => return bytes.clone(),
            Ask::Bytes(bytes) => bytes.clone(),
            ask => {
                let own = || place.path().to_str().expect("a path of ASCII").to_owned();
                let directory = match &self.directory {
                    Directory::Own | Directory::Own2 | Directory::Own3 => own(),
                    Directory::Other(other) => other.clone(),
                };
                let command = Some(ask.command());
                v1::Request { directory, version: "0".into(), notes: self.notes, command }.encode_to_vec()
            }
        };
        let mut bytes = frame::header(Kind::Message, payload.len()).to_vec();
        bytes.extend_from_slice(&payload);
        for (kind, data) in &self.more {
            let kind = [Kind::Data, Kind::Data, Kind::End, Kind::Message][usize::from(*kind) % 4];
            let data = if kind == Kind::End { &[][..] } else { data };
            bytes.extend_from_slice(&frame::header(kind, data.len()));
            bytes.extend_from_slice(data);
        }
        bytes
    }
}

impl Ask {
    fn command(&self) -> Command {
        match self {
            Self::Set { name, value, size, expiry_us, import } => Command::Set(v1::Set {
                key: name.text(),
                value: value.clone(),
                size: size.map(u64::from),
                expiry_us: *expiry_us,
                import: import.map(|(time_us, force, dry_run)| v1::Import { time_us, force, dry_run }),
            }),
            Self::Get(name) => Command::Get(v1::Get { key: name.text() }),
            Self::List { prefix, detail, reverse, terminator } => Command::List(v1::List {
                prefix: prefix.clone(),
                detail: (*detail % 4).into(),
                reverse: *reverse,
                terminator: *terminator,
            }),
            Self::Remove { names, prefix } => {
                Command::Remove(v1::Remove { keys: names.iter().map(Name::text).collect(), prefix: prefix.clone() })
            }
            Self::Watch { prefix, after } => Command::Watch(v1::Watch { prefix: prefix.clone(), after: after.clone() }),
            Self::Wait { name, change, after } => {
                Command::Wait(v1::Wait { key: name.text(), change: *change, after: after.clone() })
            }
            Self::Status => Command::Status(v1::StatusQuery {}),
            Self::Config | Self::Bytes(_) | Self::Raw(_) => Command::Config(v1::ConfigQuery {}),
            Self::SetKey { key, server_key, confirmed } => Command::SetKey(v1::SetKey {
                key: key.clone(),
                server_key: server_key.map(server_key_of).unwrap_or_default(),
                confirmed: *confirmed,
            }),
            Self::SetPid(pid) => Command::SetPid(v1::SetPid { pid: *pid }),
            Self::Check => Command::Check(v1::Check {}),
            Self::Stop => Command::Stop(v1::Stop {}),
            Self::SetRemote(remote) => Command::SetRemote(v1::SetRemote { remote: remote.clone() }),
            Self::Sync { goal, name } => Command::Sync(v1::Sync { goal: (*goal % 4).into(), key: name.text() }),
            Self::Share { name, expiry_us, reads, pin } => {
                Command::MakeShare(v1::MakeShare { key: name.text(), expiry_us: *expiry_us, reads: *reads, pin: *pin })
            }
            Self::Shares(name) => Command::ListShares(v1::ListShares { key: name.text() }),
            Self::Revoke(name, token) => Command::RevokeShares(v1::RevokeShares {
                which: Some(match name {
                    Some(name) => v1::revoke_shares::Which::Key(name.text()),
                    None => v1::revoke_shares::Which::Token(token.clone()),
                }),
            }),
            Self::SetPublicUrl(url) => Command::SetPublicUrl(v1::SetPublicUrl { url: url.clone() }),
            Self::Preview(key, remote) => Command::Preview(v1::Preview { key: key.clone(), remote: remote.clone() }),
            Self::Join(key, remote) => Command::Join(v1::Join { key: key.clone(), remote: remote.clone() }),
        }
    }
}

/// The text of a server key, of this account or of another one.
fn server_key_of(number: u8) -> String {
    use kvassd::keys::{EncryptionKey, SyncKey};
    match number % 3 {
        0 => SyncKey::derive(&crate::key()).to_text().to_string(),
        1 => SyncKey::derive(&EncryptionKey::new([number; 32])).to_text().to_string(),
        _ => "kvass-server-0".into(),
    }
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Own => "own".into(),
            Self::Large => "large own".into(),
            Self::Other(name) => name.clone(),
        }
    }
}
