//! The client: brings a request to a daemon that serves, whatever it takes, and returns the answer.
//!
//! Starts a daemon where none answers, asks again where one went away before it answered a question, and replaces one
//! that an older client had started.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use kvass_proto::frame;
use kvass_proto::v1::error::Code;
use kvass_proto::v1::reply::Reply;
use kvass_proto::v1::request::Command;
use kvass_proto::v1::{Greeting, Request};

use crate::connection::{Connection, GREETING_LIMIT, Refusal};
use crate::error::Error;
use crate::place::Place;
use crate::start::Started;
use crate::{replace, version};

/// How long a daemon may take to answer once it was started, or to end once it stops.
const START_LIMIT: Duration = Duration::from_secs(5);

/// How long a daemon that is stopping is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The way to one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where the daemon is.
    pub(crate) place: Place,
    /// Whether notes are left out.
    pub(crate) quiet: bool,
    started: Option<Started>,
    /// Whether the question of an older daemon was settled for this invocation.
    settled: bool,
}

impl Client {
    pub(crate) fn new(place: Place, quiet: bool) -> Self {
        Self { place, quiet, started: None, settled: false }
    }

    /// Says something on standard error that is no error.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "kvass: {text}");
        }
    }

    /// Asks, and returns the connection once the answer begins.
    pub(crate) fn open(&mut self, command: Command) -> Result<Connection, Error> {
        let repeatable = is_question(&command);
        let mut again = true;
        loop {
            let mut connection = self.connect(command.clone())?;
            let begun = connection.wait_answer();
            let once_more = match &begun {
                Err(Error::Lost { .. }) => repeatable,
                Err(error) if error.is(Code::Stopping) => true,
                Err(error) if error.is(Code::UnknownRequest) => self.replace_older(&connection.greeting)?,
                _ => false,
            };
            if once_more && again {
                again = false;
                continue;
            }
            begun?;
            if !repeatable {
                self.replace_older(&connection.greeting)?;
            }
            return Ok(connection);
        }
    }

    /// Asks where the answer is one message.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Reply, Error> {
        self.open(command)?.reply()
    }

    /// Connects and sends the request, to a daemon of this version where that can be had.
    ///
    /// A change is not sent twice, so an older daemon carries it out before it is replaced.
    pub(crate) fn connect(&mut self, command: Command) -> Result<Connection, Error> {
        let changes = !is_question(&command);
        let may_repeat = !changes || awaits_value(&command);
        let request = self.request(command);
        loop {
            let connection = self.reach(&request, changes)?;
            if !may_repeat || !self.replace_older(&connection.greeting)? {
                return Ok(connection);
            }
        }
    }

    /// Connects, and waits until the daemon takes the frames of a value.
    pub(crate) fn connect_serving(&mut self, command: &Command) -> Result<Connection, Error> {
        let mut again = true;
        loop {
            let mut connection = self.connect(command.clone())?;
            match connection.wait_serving() {
                Ok(()) => return Ok(connection),
                // Nothing was sent yet.
                Err(error) if again && (matches!(error, Error::Lost { .. }) || error.is(Code::Stopping)) => {}
                Err(error) => return Err(error),
            }
            again = false;
        }
    }

    /// Connects to a daemon that runs already, without starting one.
    pub(crate) fn connect_running(&self, command: Command, limit: Duration) -> Result<Connection, Refusal> {
        let request = self.request(command);
        Connection::open(&self.place.socket, &request, false, self.quiet, limit)
    }

    fn request(&self, command: Command) -> Vec<u8> {
        frame::encode(&Request {
            directory: self.place.directory.to_string_lossy().into_owned(),
            version: version::OURS.into(),
            notes: !self.quiet,
            command: Some(command),
        })
    }

    /// Connects until a daemon greets, starting one where none answers.
    fn reach(&mut self, request: &[u8], changes: bool) -> Result<Connection, Error> {
        let begun = Instant::now();
        let (mut limit, mut pause, mut noted) = (START_LIMIT, FIRST_PAUSE, false);
        loop {
            match Connection::open(&self.place.socket, request, changes, self.quiet, GREETING_LIMIT) {
                Ok(connection) => {
                    if let Some(started) = &mut self.started {
                        started.served = true;
                    }
                    return Ok(connection);
                }
                Err(Refusal::Said(error)) => return Err(Error::Daemon(error)),
                Err(Refusal::Absent) => self.start()?,
                Err(Refusal::Ended) => limit = STOP_LIMIT.min(begun.elapsed() + START_LIMIT),
                Err(Refusal::Silent) => return Err(self.silent()),
                Err(Refusal::Failed(cause)) => return Err(self.unreachable().because(cause)),
            }
            if begun.elapsed() > limit {
                return Err(self.unreachable().because(format!("no kvassd served it within {} s", limit.as_secs())));
            }
            if begun.elapsed() > Duration::from_secs(1) && !noted {
                self.note("waiting for kvassd to start…");
                noted = true;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        let due = match &mut self.started {
            None => true,
            Some(started) => started.is_over()?,
        };
        if due {
            self.place.refuse_second_store()?;
            self.started = Some(Started::new(&self.place)?);
        }
        Ok(())
    }

    /// Replaces a daemon that is older than this client and was started on demand; true where it was replaced.
    fn replace_older(&mut self, greeting: &Greeting) -> Result<bool, Error> {
        if self.settled {
            return Ok(false);
        }
        self.settled = true;
        if !version::is_newer(version::OURS, &greeting.version) {
            return Ok(false);
        }
        if greeting.on_demand
            && let Some(program) = replace::newer_program(&greeting.version)
        {
            self.started = Some(replace::replace(self, &program, &greeting.arguments)?);
            return Ok(true);
        }
        self.note(&format!(
            "kvassd is of version {}, older than this kvass {}: a restart of kvassd is due",
            greeting.version,
            version::OURS
        ));
        Ok(false)
    }

    pub(crate) fn silent(&self) -> Error {
        let seconds = GREETING_LIMIT.as_secs();
        let holder = match self.place.lock_pid() {
            Some(pid) => format!("held by process {pid}"),
            None => "what holds it is not known".into(),
        };
        Error::failed(format!("no answer within {seconds} s from {}, {holder}", self.place.socket.display()))
            .hint("stop what holds it: kvass daemon stop")
    }

    fn unreachable(&self) -> Error {
        Error::failed(format!("cannot reach kvassd at {}", self.place.socket.display()))
            .hint("look into it: kvass doctor")
    }
}

/// Whether a request changes nothing, so that it may be asked again.
fn is_question(command: &Command) -> bool {
    !matches!(
        command,
        Command::Set(_)
            | Command::Remove(_)
            | Command::SetKey(_)
            | Command::SetPid(_)
            | Command::SetRemote(_)
            | Command::SetPublicUrl(_)
            | Command::MakeShare(_)
            | Command::RevokeShares(_)
            | Command::Join(_)
            | Command::Stop(_)
    )
}

/// Whether the request changes nothing until its value has followed.
fn awaits_value(command: &Command) -> bool {
    matches!(command, Command::Set(set) if set.value.is_none())
}
