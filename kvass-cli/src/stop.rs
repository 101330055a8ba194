//! Stopping a daemon: by request, and by signal where it does not answer; never by SIGKILL.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use kvass_proto::v1::{self, error::Code, request::Command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;
use crate::connection::{Connection, GREETING_LIMIT, Refusal};
use crate::error::Error;
use crate::place::Place;

/// How long a daemon may take to end.
const LIMIT: Duration = Duration::from_secs(10);

/// How often the lock is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Stops the daemon and waits until it is gone; false where none ran.
pub(crate) fn stop(client: &Client) -> Result<bool, Error> {
    let begun = Instant::now();
    let asked = client.place.lock_pid();
    loop {
        match client.connect_running(Command::Stop(v1::Stop {}), GREETING_LIMIT) {
            Ok(connection) => match ask(connection) {
                Err(Error::Daemon(error)) if is_ending(&error, client) => break,
                answered => break answered?,
            },
            Err(Refusal::Ended) => break,
            Err(Refusal::Absent) if !is_locked(&client.place) => return Ok(false),
            // It is about to serve, or about to end.
            Err(Refusal::Absent) if begun.elapsed() < GREETING_LIMIT => thread::sleep(PAUSE),
            Err(Refusal::Absent) => {
                signal(client)?;
                break;
            }
            Err(Refusal::Silent) if !is_locked(&client.place) => return Err(client.silent()),
            Err(Refusal::Silent) => {
                signal(client)?;
                break;
            }
            Err(Refusal::Said(error)) if is_ending(&error, client) => break,
            Err(Refusal::Said(error)) => return Err(Error::Daemon(error)),
            Err(Refusal::Failed(cause)) => {
                let socket = client.place.socket.display();
                return Err(Error::failed(format!("cannot reach kvassd at {socket}")).because(cause));
            }
        }
    }
    wait_gone(&client.place, asked)?;
    Ok(true)
}

/// Reads the answer; a daemon may close without a word once it is asked to end.
fn ask(mut connection: Connection) -> Result<(), Error> {
    match connection.reply_within(LIMIT) {
        Ok(_) | Err(Error::Lost { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether what a daemon says means that it cannot open its store, and so ends by itself. Another user's daemon says
/// likewise that it cannot be used, so then the process has to be one's own.
fn is_ending(error: &v1::Error, client: &Client) -> bool {
    match error.code() {
        Code::Damaged => true,
        Code::CannotOpen => client.place.lock_pid().is_some_and(|pid| is_our_kvassd(pid, client)),
        _ => false,
    }
}

/// Asks the holder of the lock to end, once it is clear who that is.
fn signal(client: &Client) -> Result<(), Error> {
    let place = &client.place;
    if !is_locked(place) {
        return Ok(());
    }
    let Some(pid) = place.lock_pid() else {
        return Err(Error::failed(format!("{} is held, but names no process", place.lock().display())));
    };
    if !is_our_kvassd(pid, client) {
        return Err(Error::failed(format!(
            "process {pid} holds {}, and is no kvassd of yours",
            place.lock().display()
        ))
        .hint(format!("look at it: ps -p {pid}")));
    }
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(cause) => Err(Error::failed(format!("cannot stop process {pid}")).because(cause)),
    }
}

#[cfg(target_os = "linux")]
fn is_our_kvassd(pid: i32, _client: &Client) -> bool {
    use std::os::unix::fs::MetadataExt;

    let process = format!("/proc/{pid}");
    let owned = fs::metadata(&process).is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw());
    owned && fs::read_to_string(format!("{process}/comm")).is_ok_and(|name| name.trim() == "kvassd")
}

#[cfg(not(target_os = "linux"))]
fn is_our_kvassd(pid: i32, client: &Client) -> bool {
    client.note(&format!("stopping process {pid}, which holds the lock; its name is not checked on this system"));
    true
}

/// Whether a daemon holds the directory.
pub(crate) fn is_locked(place: &Place) -> bool {
    let Ok(lock) = File::open(place.lock()) else { return false };
    matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// Waits until the daemon that was asked has let go of the directory and its socket. A client that waits for something
/// starts the next one at once, so another process in the lock means that this one is gone.
fn wait_gone(place: &Place, asked: Option<i32>) -> Result<(), Error> {
    let begun = Instant::now();
    while holds(place) && (asked.is_none() || place.lock_pid() == asked) {
        if begun.elapsed() > LIMIT {
            let pid = place.lock_pid().map_or_else(|| "its process".into(), |pid| format!("process {pid}"));
            return Err(Error::failed(format!("kvassd, {pid}, did not end within {} s", LIMIT.as_secs()))
                .hint("it may be writing: wait; where it hangs, end it with kill -9: what was acknowledged is safe"));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether a daemon is there. The lock tells, because a supervisor may keep the socket and start one for who connects.
fn holds(place: &Place) -> bool {
    if place.lock().exists() { is_locked(place) } else { UnixStream::connect(&place.socket).is_ok() }
}
