//! `kvass sync`: returns once this store and the remote hold the same.

use std::thread;
use std::time::Instant;

use kvass_proto::v1::{self, Link, link::State, reply::Reply, request::Command};

use super::watch::{PAUSE, went_away};
use crate::cli::Sync;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::terminal::Progress;
use crate::time;

pub(crate) fn run(client: &mut Client, arguments: &Sync) -> Result<(), Error> {
    let end = arguments.timeout.map(|timeout| Instant::now() + timeout);
    let mut progress = Progress::new(client.quiet);
    let mut link = Link::default();
    loop {
        match sync(client, end, &mut link, &mut progress) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(late(arguments, &link)),
            Err(error) if !went_away(&error) => return Err(error),
            Err(_) if end.is_some_and(|end| Instant::now() >= end) => return Err(late(arguments, &link)),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Asks once, and keeps the newest state of the link; false where the time was over first.
fn sync(client: &mut Client, end: Option<Instant>, link: &mut Link, progress: &mut Progress) -> Result<bool, Error> {
    // Not `open`, which waits for the first answer without a limit.
    let mut connection = client.connect(Command::Sync(v1::Sync {}))?;
    loop {
        let reply = match end {
            None => Some(connection.reply()?),
            Some(end) => connection.reply_within(end.saturating_duration_since(Instant::now()))?,
        };
        match reply {
            None => return Ok(false),
            Some(Reply::Synced(_)) => return Ok(true),
            Some(Reply::Syncing(syncing)) => {
                let pending = syncing.pending;
                *link = syncing.link.unwrap_or_default();
                if link.state() == State::Blocked {
                    return Err(with_cause(Error::late("cannot sync"), link));
                }
                progress.show(words(pending, link.state()));
            }
            Some(_) => return Err(unexpected()),
        }
    }
}

/// How far it is, in a few words.
fn words(pending: u64, state: State) -> String {
    let state = match state {
        State::Connected if pending == 0 => return "taking what the remote has".into(),
        State::Connected => "",
        State::Connecting => " (connecting)",
        State::Waiting => " (the remote does not answer)",
        State::Blocked => " (blocked)",
    };
    let changes = if pending == 1 { "change" } else { "changes" };
    format!("{pending} {changes} to go{state}")
}

fn late(arguments: &Sync, link: &Link) -> Error {
    let time = arguments.timeout.map(time::words).unwrap_or_default();
    with_cause(Error::late(format!("not synced within {time}")), link)
}

fn with_cause(error: Error, link: &Link) -> Error {
    if link.error.is_empty() { error } else { error.because(&link.error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_changes_and_says_why_it_stands_still() {
        assert_eq!(words(2, State::Connected), "2 changes to go");
        assert_eq!(words(1, State::Connecting), "1 change to go (connecting)");
        assert_eq!(words(0, State::Waiting), "0 changes to go (the remote does not answer)");
        assert_eq!(words(0, State::Connected), "taking what the remote has");
    }
}
