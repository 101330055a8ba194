//! A network inside the process, and bytes of HTTP for it.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use kvassd::network::{Accept, Connect, Wire};
use tokio::io::DuplexStream;
use tokio::sync::Mutex;

/// Where one connection comes from that is there already.
pub(crate) struct One(pub(crate) Option<(DuplexStream, IpAddr)>);

impl Accept for One {
    type Wire = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.take() {
            Some((wire, address)) => Ok((wire, (address, 1).into())),
            None => std::future::pending().await,
        }
    }
}

/// A network of one host, which takes one connection.
pub(crate) struct Towards(pub(crate) Mutex<Option<DuplexStream>>);

#[tonic::async_trait]
impl Connect for Towards {
    async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Wire>> {
        match self.0.lock().await.take() {
            Some(wire) => Ok(Box::new(wire)),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A frame of HTTP/2.
#[derive(Arbitrary, Debug)]
pub(crate) struct Frame {
    kind: u8,
    flags: u8,
    stream: u8,
    payload: Payload,
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Bytes(Vec<u8>),
    /// Heads, each with a name and a value, without compression.
    Heads(Vec<(u8, Vec<u8>)>),
    /// A message of gRPC.
    Message(bool, Vec<u8>),
}

/// Names of heads that mean something.
const HEADS: [&str; 12] = [
    ":status",
    "content-type",
    "grpc-status",
    "grpc-message",
    ":method",
    ":path",
    ":scheme",
    ":authority",
    "te",
    "grpc-encoding",
    "content-length",
    "range",
];

impl Frame {
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        let payload = match &self.payload {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Heads(heads) => heads.iter().flat_map(|(name, value)| head(*name, value)).collect(),
            Payload::Message(compressed, bytes) => {
                let length = (bytes.len() as u32).to_be_bytes();
                [&[u8::from(*compressed)][..], &length, bytes].concat()
            }
        };
        to.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        to.extend_from_slice(&[self.kind % 11, self.flags, 0, 0, 0, self.stream % 8]);
        to.extend_from_slice(&payload);
    }
}

/// A head as a literal that is not indexed (RFC 7541, section 6.2.2).
pub(crate) fn head(name: u8, value: &[u8]) -> Vec<u8> {
    let name = HEADS[usize::from(name) % HEADS.len()].as_bytes();
    let value = &value[..value.len().min(126)];
    [&[0, name.len() as u8][..], name, &[value.len() as u8], value].concat()
}

/// A request of HTTP/1.1.
#[derive(Arbitrary, Debug)]
pub(crate) struct Ask {
    pub(crate) method: u8,
    pub(crate) path: Path,
    pub(crate) heads: Vec<(u8, Said)>,
    pub(crate) body: Option<Vec<u8>>,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Path {
    Link(u8),
    Link2(u8),
    Behind(u8, String),
    Other(String),
}

/// The value of a head.
#[derive(Arbitrary, Debug)]
pub(crate) enum Said {
    Range(Option<u32>, Option<u32>),
    Ranges(Vec<(u16, u16)>),
    Tag,
    WeakTag,
    Any,
    Text(String),
    Bytes(Vec<u8>),
}

pub(crate) const METHODS: [&str; 7] = ["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "get"];

/// Heads of requests that mean something.
const NAMES: [&str; 13] = [
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "X-Forwarded-For",
    "Accept",
    "Content-Type",
    "Host",
    "Expect",
    "Upgrade",
    "Transfer-Encoding",
    "Accept-Encoding",
    "Cookie",
];

impl Ask {
    /// Writes the request. `links` are paths of links, `tag` is that of the first one's value.
    pub(crate) fn write(&self, links: &[String], tag: &str) -> Vec<u8> {
        let link = |number: &u8| links[usize::from(*number) % links.len()].clone();
        let path = match &self.path {
            Path::Link(number) | Path::Link2(number) => link(number),
            Path::Behind(number, more) => link(number) + more,
            Path::Other(path) => path.clone(),
        };
        let mut text =
            format!("{} {} HTTP/1.1\r\n", METHODS[usize::from(self.method) % METHODS.len()], clean(&path, ""));
        text.push_str("Connection: close\r\n");
        let mut bytes = text.into_bytes();
        for (name, said) in &self.heads {
            bytes.extend_from_slice(NAMES[usize::from(*name) % NAMES.len()].as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(&said.bytes(tag));
            bytes.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        } else {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }
}

impl Said {
    fn bytes(&self, tag: &str) -> Vec<u8> {
        let number = |number: &Option<u32>| number.map_or_else(String::new, |number| (number % 100_000).to_string());
        let text = match self {
            Self::Range(first, last) => format!("bytes={}-{}", number(first), number(last)),
            Self::Ranges(ranges) => ranges.iter().fold(String::from("bytes="), |mut text, (first, last)| {
                // Writing into a string does not fail.
                let _ = write!(text, "{first}-{last}, ");
                text
            }),
            Self::Tag => tag.into(),
            Self::WeakTag => format!("W/{tag}"),
            Self::Any => "*".into(),
            Self::Text(text) => clean(text, " "),
            Self::Bytes(bytes) => {
                return bytes.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }).collect();
            }
        };
        text.into_bytes()
    }
}

/// The text on one line.
fn clean(text: &str, space: &str) -> String {
    text.split(|it: char| it.is_whitespace() || it.is_control()).collect::<Vec<_>>().join(space)
}
