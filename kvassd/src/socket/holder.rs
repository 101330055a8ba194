//! What to do where another process holds the lock: leave, ask it to end, or complain.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvass_proto::frame::{self, Kind};
use kvass_proto::v1::{self, greeting, reply};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lock::{Lock, LockError, written_pid};
use crate::config::Config;

/// How long a daemon that was asked to end may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one that was started on demand waits for a holder that neither serves nor ends.
const PATIENCE_ON_DEMAND: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(10);

/// Why another daemon keeps the directory.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum HolderError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("another kvassd (pid {pid}) serves {directory}", directory = directory.display())]
    Busy { pid: i32, directory: PathBuf },
    #[error("process {pid} holds the lock of {directory} and does not end", directory = directory.display())]
    Stays { pid: i32, directory: PathBuf },
}

impl HolderError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "kvass daemon stop",
            Self::Lock(_) | Self::Stays { .. } => "",
        }
    }
}

/// What the next step is where the lock is held.
enum Step {
    Wait,
    AskToEnd,
    Leave,
    Complain(i32),
}

/// Takes the lock, from another daemon where this one goes before it. `None`: another serves, and this one leaves.
///
/// Sockets from a service manager go before everything, a service before a daemon that was started on demand.
pub(super) fn take_over(config: &Config, directory: &Path, inherited: bool) -> Result<Option<Lock>, HolderError> {
    let patience = if config.on_demand && !inherited { PATIENCE_ON_DEMAND } else { PATIENCE };
    let deadline = Instant::now() + patience;
    let mut asked = None;
    loop {
        if let Some(lock) = Lock::try_take(directory)? {
            return Ok(Some(lock));
        }
        // Where the one that was asked has ended, a command may have started another one in between.
        let step = if asked.is_some() && asked == written_pid(directory) {
            Step::Wait
        } else if inherited {
            Step::AskToEnd
        } else {
            step(config, greeting_of(&config.socket).ok())
        };
        match step {
            Step::Wait => {}
            Step::AskToEnd => asked = ask_to_end(directory),
            Step::Leave => return Ok(None),
            Step::Complain(pid) => {
                return Err(HolderError::Busy { pid, directory: directory.into() });
            }
        }
        if Instant::now() > deadline {
            let pid = written_pid(directory).unwrap_or(0);
            return if config.on_demand {
                Ok(None)
            } else {
                Err(HolderError::Stays { pid, directory: directory.into() })
            };
        }
        std::thread::sleep(POLL);
    }
}

/// A holder that does not answer is about to serve or about to end: both show soon.
fn step(config: &Config, holder: Option<v1::Greeting>) -> Step {
    match holder {
        None => Step::Wait,
        Some(holder) if holder.state() == greeting::State::Stopping => Step::Wait,
        Some(_) if config.on_demand => Step::Leave,
        Some(holder) if holder.on_demand => Step::AskToEnd,
        Some(holder) => Step::Complain(holder.process as i32),
    }
}

/// What the daemon behind `socket` says first.
fn greeting_of(socket: &Path) -> io::Result<v1::Greeting> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut payload = Vec::new();
    let reply = match frame::read(&mut stream, &mut payload)? {
        Some(Kind::Message) => frame::decode::<v1::Reply>(&payload)?.reply,
        _ => None,
    };
    match reply {
        Some(reply::Reply::Greeting(greeting)) => Ok(greeting),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends SIGTERM to the holder where it is a kvassd of this user, and returns its process id.
fn ask_to_end(directory: &Path) -> Option<i32> {
    let pid = written_pid(directory).filter(|pid| is_own_kvassd(*pid))?;
    tracing::info!(pid, "asking the daemon that holds the lock to end");
    kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok().then_some(pid)
}

#[cfg(target_os = "linux")]
fn is_own_kvassd(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;

    let process = PathBuf::from(format!("/proc/{pid}"));
    let same_user = process.metadata().is_ok_and(|it| it.uid() == nix::unistd::geteuid().as_raw());
    same_user && std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "kvassd")
}

/// Without `/proc` the lock, which the holder has just been found to hold, and the system, which lets nobody signal
/// another user's process, must do.
#[cfg(not(target_os = "linux"))]
fn is_own_kvassd(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}
