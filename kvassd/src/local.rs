//! The client's side of the daemon: accepts connections, greets, reads the request, and hands it on.
//!
//! Rules about values and keys are the store's; `docs/local.md` has the order of the frames.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kvass_proto::v1::{self, error::Code, reply::Reply, request::Command};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

mod commands;
pub(crate) mod failure;
mod join;
mod list;
mod note;
mod shares;
pub(crate) mod state;
mod value;
mod watch;
mod wire;

use commands::Exchange;
use failure::Failure;
use state::{Serving, Shared, State};
use wire::{Incoming, Outgoing};

use crate::store::Store;
use crate::sync::remote::Remote;

/// How long the last answers may take once the store is closed.
const LAST: Duration = Duration::from_secs(1);

/// How long accepting rests where the process has no descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Accepts until the daemon has ended, and returns once every connection is done.
///
/// # Errors
/// A socket that accepts no more.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let ended = shared.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased;
            Some(connection) = connections.join_next() => log_panic(connection),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(stream, shared.clone())); }
                Err(error) => recover(error).await?,
            },
            () = &mut ended => break,
        }
    }
    // Those who connected but were not accepted yet are told as well why they get no answer.
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        connections.spawn(connection(UnixStream::from_std(stream)?, shared.clone()));
    }
    // A client that does not read its answer must not keep the daemon alive.
    let _ = tokio::time::timeout(LAST, async {
        while let Some(connection) = connections.join_next().await {
            log_panic(connection);
        }
    })
    .await;
    Ok(())
}

fn log_panic(connection: Result<(), tokio::task::JoinError>) {
    if connection.is_err() {
        tracing::error!("a connection ended by a panic");
    }
}

/// Waits where the machine is short of something, and gives up where the socket is useless.
async fn recover(error: io::Error) -> io::Result<()> {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM) => {
            tracing::warn!(%error, "no connection can be accepted for now");
            tokio::time::sleep(REST).await;
            Ok(())
        }
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        _ => Err(error),
    }
}

pub(crate) async fn connection(mut stream: UnixStream, shared: Arc<Shared>) {
    let refused = refuse_others(&stream);
    let (from, to) = stream.split();
    let (mut from, mut out) = (Incoming::new(from), Outgoing::new(to));
    let answered = match refused {
        Ok(()) => exchange(&shared, &mut from, &mut out).await,
        Err(refusal) => Err(refusal),
    };
    let result = match answered {
        Ok(()) => out.flush().await,
        Err(Failure::Gone(error)) => Err(error),
        Err(Failure::Answer(error)) => {
            tracing::debug!(code = error.code, "a request failed");
            out.send(Reply::Error(*error)).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a client left before its answer");
    }
}

/// Greets, and answers the one request of a connection.
async fn exchange(shared: &Arc<Shared>, from: &mut Incoming<'_>, out: &mut Outgoing<'_>) -> Result<(), Failure> {
    let mut state = shared.state();
    if !greet(shared, &mut state, out).await? {
        return Ok(());
    }
    let request = tokio::select! {
        request = from.request() => request?,
        () = shared.stopping() => return Ok(out.send(Reply::Greeting(shared.greeting(&State::Stopping))).await?),
    };
    let Some(request) = request else {
        return Ok(());
    };
    check_directory(&shared.identity().directory, &request.directory)?;
    let Some(command) = request.command else {
        return Err(Failure::with_hint(
            Code::UnknownRequest,
            "the daemon does not know this request",
            "it may be older than the client: kvass daemon restart",
        ));
    };
    if let Command::Stop(v1::Stop {}) = command {
        return stop(shared, out).await;
    }
    // The guard lives until the answer is written.
    let Some((serving, _begun)) = shared.begin() else {
        return Err(commands::stopping());
    };
    {
        let Serving { store, remote, bind } = serving;
        if request.notes && takes_notes(&command) {
            note(shared, (&store, &remote), out).await?;
        }
        Exchange { shared, store, remote, bind, from, out: &mut *out }
    }
    .answer(command)
    .await?;
    Ok(out.flush().await?)
}

/// Whether an answer does not show by itself how it stands with the remote.
fn takes_notes(command: &Command) -> bool {
    use Command::{Get, List, Remove, Set, Wait, Watch};
    matches!(command, Get(_) | List(_) | Remove(_) | Set(_) | Wait(_) | Watch(_))
}

async fn note(shared: &Shared, (store, remote): (&Store, &Remote), out: &mut Outgoing<'_>) -> Result<(), Failure> {
    match shared.call(|| shared.notes().due(store, remote)).await {
        Some(text) => Ok(out.reply(Reply::Note(v1::Note { text })).await?),
        None => Ok(()),
    }
}

/// Sends a greeting now and whenever the state changes, until the daemon serves; `false` where it never will.
async fn greet(shared: &Shared, state: &mut Receiver<State>, out: &mut Outgoing<'_>) -> Result<bool, Failure> {
    loop {
        let now = state.borrow_and_update().clone();
        if let State::Failed(error) = now {
            return Err(Failure::Answer(Box::new((*error).clone())));
        }
        out.send(Reply::Greeting(shared.greeting(&now))).await?;
        match now {
            State::Serving(_) => return Ok(true),
            State::Stopping | State::Stopped | State::Failed(_) => return Ok(false),
            State::Starting(_) => {}
        }
        if state.changed().await.is_err() {
            return Ok(false);
        }
    }
}

/// A stop is no request to the store: it waits for those that are.
async fn stop(shared: &Shared, out: &mut Outgoing<'_>) -> Result<(), Failure> {
    shared.ask_to_stop();
    shared.ended().await;
    Ok(out.send(Reply::Stopping(v1::Stopping {})).await?)
}

/// The client's path may have symbolic links in it, the daemon's has none.
fn check_directory(own: &Path, asked: &str) -> Result<(), Failure> {
    let asked = Path::new(asked);
    if asked == own || asked.canonicalize().is_ok_and(|asked| asked == own) {
        return Ok(());
    }
    let message = format!("the daemon serves {} and not {}", own.display(), asked.display());
    Err(Failure::with_hint(Code::OtherDirectory, message, "name its socket with --socket, or no socket at all"))
}

/// Only the user whose store it is may speak to it, whatever the modes of socket and directory have become.
fn refuse_others(stream: &UnixStream) -> Result<(), Failure> {
    let peer = stream.peer_cred()?.uid();
    if peer == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    log_refusal(peer);
    Err(Failure::with_hint(Code::CannotOpen, "this store belongs to another user", "run kvass as the user who owns it"))
}

/// At most once a minute, so that a stranger cannot fill the log.
fn log_refusal(uid: u32) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() > Duration::from_secs(60)) {
        *last = Some(Instant::now());
        tracing::warn!(uid, "refused a connection of another user");
    }
}
