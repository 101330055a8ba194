//! Frames over an async socket, each way: what is read is bounded before it is allocated, what is written is queued
//! until a flush, so that an answer of several frames is one system call.

use std::io;
use std::time::Duration;

use kvass_proto::frame::{self, DATA_MAX, HEADER, Kind};
use kvass_proto::v1::{self, reply::Reply};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::failure::Failure;

/// How long a client may be silent before its request.
const FIRST: Duration = Duration::from_secs(10);

/// Bytes of a value that are handed to the store at once, at least.
const PART: usize = 768 << 10;

/// Queued bytes that are written without waiting for a flush.
const QUEUE: usize = 64 << 10;

/// The frames that a client sends.
pub(crate) struct Incoming<'a> {
    from: BufReader<ReadHalf<'a>>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(from: ReadHalf<'a>) -> Self {
        Self { from: BufReader::with_capacity(4 << 10, from) }
    }

    /// Reads the request; `None` where the client left without one, or sends none in time.
    pub(crate) async fn request(&mut self) -> Result<Option<v1::Request>, Failure> {
        let header = match timeout(FIRST, self.header()).await {
            Ok(header) => header?,
            Err(_) => return Ok(None),
        };
        let Some((kind, length)) = header else {
            return Ok(None);
        };
        if kind != Kind::Message {
            return Err(Failure::bad_input("a connection begins with a request"));
        }
        let mut payload = Vec::new();
        match timeout(FIRST, self.payload(length, &mut payload)).await {
            Ok(read) => read?,
            Err(_) => return Ok(None),
        }
        Ok(Some(frame::decode(&payload).map_err(io::Error::from)?))
    }

    /// Appends data frames to `part` until it is worth handing on; `true` once the end frame has come.
    pub(crate) async fn part(&mut self, part: &mut Vec<u8>) -> Result<bool, Failure> {
        part.clear();
        while part.len() < PART {
            match self.header().await? {
                Some((Kind::Data, length)) => self.payload(length, part).await?,
                Some((Kind::End, _)) => return Ok(true),
                Some((Kind::Message, _)) => {
                    return Err(Failure::bad_input("a message in the middle of a value"));
                }
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
        Ok(false)
    }

    /// Returns once the client has closed its side, or says what it must not.
    pub(crate) async fn closed(&mut self) {
        let _ = self.from.read(&mut [0]).await;
    }

    /// `None` where the stream ends before a frame.
    async fn header(&mut self) -> io::Result<Option<(Kind, usize)>> {
        let mut header = [0; HEADER];
        let first = self.from.read(&mut header).await?;
        if first == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut header[first..]).await?;
        Ok(Some(frame::parse_header(header)?))
    }

    /// Appends the payload of a frame.
    async fn payload(&mut self, length: usize, to: &mut Vec<u8>) -> io::Result<()> {
        to.reserve(length);
        let mut to = to.limit(length);
        while to.has_remaining_mut() {
            if self.from.read_buf(&mut to).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// The frames that the daemon sends.
pub(crate) struct Outgoing<'a> {
    to: WriteHalf<'a>,
    queue: Vec<u8>,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(to: WriteHalf<'a>) -> Self {
        Self { to, queue: Vec::new() }
    }

    /// Queues a reply.
    pub(crate) async fn reply(&mut self, reply: Reply) -> io::Result<()> {
        let reply = v1::Reply { reply: Some(reply) };
        let length = reply.encoded_len();
        self.queue.reserve(HEADER + length);
        self.queue.extend_from_slice(&frame::header(Kind::Message, length));
        reply.encode_raw(&mut self.queue);
        self.flush_over(QUEUE).await
    }

    /// Queues a reply and sends what is queued.
    pub(crate) async fn send(&mut self, reply: Reply) -> io::Result<()> {
        self.reply(reply).await?;
        self.flush().await
    }

    /// Sends what is queued, then `data` as data frames.
    pub(crate) async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        for part in data.chunks(DATA_MAX) {
            self.queue.extend_from_slice(&frame::header(Kind::Data, part.len()));
            let mut bytes = Buf::chain(self.queue.as_slice(), part);
            self.to.write_all_buf(&mut bytes).await?;
            self.queue.clear();
        }
        Ok(())
    }

    /// Queues the end frame.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        self.queue.extend_from_slice(&frame::header(Kind::End, 0));
        self.flush_over(QUEUE).await
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.flush_over(0).await
    }

    async fn flush_over(&mut self, most: usize) -> io::Result<()> {
        if self.queue.len() > most {
            self.to.write_all(&self.queue).await?;
            self.queue.clear();
        }
        Ok(())
    }
}
