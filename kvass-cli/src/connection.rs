//! One connection to the daemon: one request, its frames in order, and the limits on waiting for them.
//!
//! Must not start daemons or try again: that is the client's.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use kvass_proto::frame::{self, HEADER, Kind};
use kvass_proto::line::one_line;
use kvass_proto::v1::greeting::State;
use kvass_proto::v1::{self, Greeting, Reply, reply};

use crate::error::Error;
use crate::foreign;

/// How long a daemon may take until it says who it is.
pub(crate) const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// How long an answer may take until a note says what is waited for.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// A connection on which the request was sent and a daemon that takes requests has greeted.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    payload: Vec<u8>,
    /// Who the daemon is, from its newest greeting.
    pub(crate) greeting: Greeting,
    /// Whether the request changes the store, so that a lost answer leaves open whether it did.
    changes: bool,
    quiet: bool,
    waiting: Waiting,
    /// The first frame of the answer, read and not yet handed out.
    first: Option<First>,
}

#[allow(clippy::large_enum_variant, reason = "one exists at a time, and it is moved twice at most")]
enum First {
    Reply(reply::Reply),
    Data,
    End,
}

/// Which limit the stream has for the next read.
#[derive(PartialEq)]
enum Waiting {
    /// Nothing but greetings came yet; a note is due.
    Note,
    /// Somebody waits for a set time only.
    Limited,
    /// The note was said, or an answer has begun: no limit.
    Unlimited,
}

/// One frame of an answer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time, and it is moved twice at most")]
pub(crate) enum Part<'a> {
    /// A message.
    Reply(reply::Reply),
    /// Bytes of a value, or of names.
    Data(&'a [u8]),
    /// What was sent in data frames is whole.
    End,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody listens.
    Absent,
    /// The daemon takes no more requests, or closed before it greeted: the request was not begun.
    Ended,
    /// The daemon did not greet in time.
    Silent,
    /// The daemon said why it serves nothing to this user.
    Said(v1::Error),
    /// Anything else.
    Failed(io::Error),
}

impl Connection {
    /// Connects, sends `request` and reads the first greeting.
    pub(crate) fn open(
        socket: &Path,
        request: &[u8],
        changes: bool,
        quiet: bool,
        limit: Duration,
    ) -> Result<Self, Refusal> {
        let stream = connect(socket, limit).map_err(refusal)?;
        foreign::refuse_socket(&stream).map_err(Refusal::Failed)?;
        stream.set_read_timeout(Some(limit)).map_err(Refusal::Failed)?;
        stream.set_write_timeout(Some(limit)).map_err(Refusal::Failed)?;
        let mut connection = Self {
            stream: BufReader::new(stream),
            payload: Vec::new(),
            greeting: Greeting::default(),
            changes,
            quiet,
            waiting: Waiting::Note,
            first: None,
        };
        // A daemon that refuses early closes its end, but its words can still be read.
        let sent = connection.stream.get_mut().write_all(request);
        match connection.greet() {
            Err(Refusal::Ended) if sent.as_ref().is_err_and(timed_out) => Err(Refusal::Silent),
            other => other,
        }?;
        let stream = connection.stream.get_mut();
        stream.set_write_timeout(None).map_err(Refusal::Failed)?;
        stream.set_read_timeout(Some(NOTE_AFTER)).map_err(Refusal::Failed)?;
        Ok(connection)
    }

    fn greet(&mut self) -> Result<(), Refusal> {
        match frame::read(&mut self.stream, &mut self.payload).map_err(refusal)? {
            Some(Kind::Message) => {}
            Some(_) => return Err(Refusal::Failed(io::Error::other("it does not speak kvass's protocol"))),
            None => return Err(Refusal::Ended),
        }
        let reply: Reply = frame::decode(&self.payload).map_err(|error| Refusal::Failed(error.into()))?;
        match reply.reply {
            Some(reply::Reply::Greeting(greeting)) if greeting.state() == State::Stopping => Err(Refusal::Ended),
            Some(reply::Reply::Greeting(greeting)) => {
                self.greeting = greeting;
                Ok(())
            }
            Some(reply::Reply::Error(error)) => Err(Refusal::Said(error)),
            _ => Err(Refusal::Failed(io::Error::other("it did not greet"))),
        }
    }

    /// Waits until the daemon serves, so that the frames of a value can be sent.
    pub(crate) fn wait_serving(&mut self) -> Result<(), Error> {
        while self.greeting.state() != State::Serving {
            if let Part::Reply(reply::Reply::Greeting(_)) = self.frame()? {
                continue;
            }
            return Err(unexpected());
        }
        Ok(())
    }

    /// Waits until the answer begins; what the daemon reports as an error is one here.
    pub(crate) fn wait_answer(&mut self) -> Result<(), Error> {
        self.first = Some(match self.next()? {
            Part::Reply(reply) => First::Reply(reply),
            Part::Data(_) => First::Data,
            Part::End => First::End,
        });
        Ok(())
    }

    /// Reads the next frame of the answer; what the daemon reports as an error is one here.
    pub(crate) fn next(&mut self) -> Result<Part<'_>, Error> {
        match self.first.take() {
            None => {}
            Some(First::Reply(reply)) => return Ok(Part::Reply(reply)),
            Some(First::Data) => return Ok(Part::Data(&self.payload)),
            Some(First::End) => return Ok(Part::End),
        }
        loop {
            match self.kind()? {
                Kind::End => return Ok(Part::End),
                Kind::Data => return Ok(Part::Data(&self.payload)),
                Kind::Message => {}
            }
            let reply = self.message()?;
            if !is_aside(&reply) {
                return Ok(Part::Reply(reply));
            }
        }
    }

    /// Reads the next frame where it has to be a message.
    pub(crate) fn reply(&mut self) -> Result<reply::Reply, Error> {
        match self.next()? {
            Part::Reply(reply) => Ok(reply),
            Part::Data(_) | Part::End => Err(unexpected()),
        }
    }

    /// Reads the next frame where it has to be a message; `None` where none begins within `limit`.
    pub(crate) fn reply_within(&mut self, limit: Duration) -> Result<Option<reply::Reply>, Error> {
        match self.next_within(limit)? {
            None => Ok(None),
            Some(Part::Reply(reply)) => Ok(Some(reply)),
            Some(Part::Data(_) | Part::End) => Err(unexpected()),
        }
    }

    /// Reads the next frame of the answer; `None` where none begins within `limit`.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Result<Option<Part<'_>>, Error> {
        if self.first.is_some() {
            return self.next().map(Some);
        }
        let end = Instant::now() + limit;
        loop {
            if !self.begins_by(end)? {
                return Ok(None);
            }
            match self.kind()? {
                Kind::End => return Ok(Some(Part::End)),
                Kind::Data => return Ok(Some(Part::Data(&self.payload))),
                Kind::Message => {}
            }
            let reply = self.message()?;
            if !is_aside(&reply) {
                return Ok(Some(Part::Reply(reply)));
            }
        }
    }

    /// Waits for the first byte of a frame, or for the end of the stream.
    fn begins_by(&mut self, end: Instant) -> Result<bool, Error> {
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.get_mut().set_read_timeout(Some(left)).map_err(|error| broken(&error))?;
            self.waiting = Waiting::Limited;
            match self.stream.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if timed_out(&error) => return Ok(false),
                _ => return Ok(true),
            }
        }
    }

    /// Reads the next frame, greetings included.
    fn frame(&mut self) -> Result<Part<'_>, Error> {
        match self.kind()? {
            Kind::End => Ok(Part::End),
            Kind::Data => Ok(Part::Data(&self.payload)),
            Kind::Message => self.message().map(Part::Reply),
        }
    }

    fn kind(&mut self) -> Result<Kind, Error> {
        self.wait_for_bytes()?;
        match frame::read(&mut self.stream, &mut self.payload) {
            Ok(Some(kind)) => Ok(kind),
            Ok(None) => Err(self.lost()),
            Err(error) if gone(&error) => Err(self.lost()),
            Err(error) => Err(broken(&error)),
        }
    }

    fn message(&mut self) -> Result<reply::Reply, Error> {
        let reply: Reply = frame::decode(&self.payload).map_err(|error| broken(&error.into()))?;
        match reply.reply {
            Some(reply::Reply::Greeting(greeting)) => {
                self.greeting = greeting.clone();
                Ok(reply::Reply::Greeting(greeting))
            }
            Some(reply::Reply::Note(note)) => {
                self.say(&note.text);
                Ok(reply::Reply::Note(note))
            }
            Some(reply) => {
                self.unlimited()?;
                match reply {
                    reply::Reply::Error(error) => Err(Error::Daemon(error)),
                    reply => Ok(reply),
                }
            }
            None => Err(unexpected()),
        }
    }

    /// Waits until a frame begins, and says what is waited for once that takes long.
    fn wait_for_bytes(&mut self) -> Result<(), Error> {
        while self.waiting == Waiting::Note {
            match self.stream.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if timed_out(&error) => {
                    self.say_waiting();
                    self.unlimited()?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn say_waiting(&self) {
        let doing = match self.greeting.state() {
            State::Starting if !self.greeting.doing.is_empty() => format!(" ({})", self.greeting.doing),
            _ => String::new(),
        };
        self.say(&format!("waiting for kvassd{doing}…"));
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "kvass: {}", one_line(text));
        }
    }

    /// Lets whatever follows take its time.
    pub(crate) fn unlimited(&mut self) -> Result<(), Error> {
        if self.waiting != Waiting::Unlimited {
            self.stream.get_mut().set_read_timeout(None).map_err(|error| broken(&error))?;
            self.waiting = Waiting::Unlimited;
        }
        Ok(())
    }

    /// Sends bytes of the value: `buffer` holds room for the header, then the bytes.
    ///
    /// A daemon that refuses the value says why before it closes, so its words are the error.
    pub(crate) fn send_data(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let length = buffer.len() - HEADER;
        buffer[..HEADER].copy_from_slice(&frame::header(Kind::Data, length));
        match self.stream.get_mut().write_all(buffer) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.refused_early()),
        }
    }

    /// Sends the end of the value.
    pub(crate) fn send_end(&mut self) -> Result<(), Error> {
        match frame::write_end(self.stream.get_mut()) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.refused_early()),
        }
    }

    fn refused_early(&mut self) -> Error {
        match self.reply() {
            Err(Error::Lost { .. }) => Error::failed("kvassd went away while it took the value; nothing was stored"),
            Err(error) => error,
            Ok(_) => unexpected(),
        }
    }

    fn lost(&self) -> Error {
        Error::Lost { stored: self.changes }
    }
}

/// Whether a message is no part of the answer.
fn is_aside(reply: &reply::Reply) -> bool {
    matches!(reply, reply::Reply::Greeting(_) | reply::Reply::Note(_))
}

/// An answer that the protocol does not allow here.
pub(crate) fn unexpected() -> Error {
    Error::failed("kvassd gave an answer that this kvass does not understand")
        .hint("restart it, so that both are of one version: kvass daemon restart")
}

fn broken(error: &io::Error) -> Error {
    Error::failed("the connection to kvassd broke").because(error)
}

fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Refusal::Absent,
        _ if gone(&error) => Refusal::Ended,
        _ if timed_out(&error) => Refusal::Silent,
        _ => Refusal::Failed(error),
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Connects within `limit`: on Linux a stopped daemon whose queue is full would block for ever.
#[cfg(target_os = "linux")]
fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike};

    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let milliseconds = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    socket::setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(milliseconds))?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

#[cfg(not(target_os = "linux"))]
fn connect(path: &Path, _limit: Duration) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}
