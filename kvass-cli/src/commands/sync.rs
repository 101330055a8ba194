//! `kvass sync`: returns once this store and the remote hold the same. Also the waits of `set --wait` and `get --fresh`.

use std::thread;
use std::time::{Duration, Instant};

use kvass_proto::v1::{self, Link, link::State, reply::Reply, request::Command, sync::Goal};

use super::watch::{PAUSE, went_away};
use crate::cli::Sync;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::terminal::Progress;
use crate::time;

/// What is waited for.
pub(crate) struct Wait {
    goal: v1::Sync,
    limit: Option<Duration>,
    /// What is so when the time is over.
    late: String,
    /// What is so when it cannot be.
    blocked: String,
}

impl Wait {
    /// The remote holds an entry that was just stored here.
    pub(crate) fn held(key: &str, limit: Duration) -> Self {
        let goal = v1::Sync { goal: Goal::Held.into(), key: key.into() };
        let late = format!("'{key}' is stored here, but not at the remote");
        Self { goal, limit: Some(limit), blocked: late.clone(), late }
    }

    /// What the remote has is here.
    pub(crate) fn taken(limit: Duration) -> Self {
        let goal = v1::Sync { goal: Goal::Taken.into(), ..v1::Sync::default() };
        let (late, blocked) = ("what the remote has is not here", "cannot take what the remote has");
        Self { goal, limit: Some(limit), late: late.into(), blocked: blocked.into() }
    }

    fn late(&self, link: &Link) -> Error {
        let time = self.limit.map(time::words).unwrap_or_default();
        with_cause(Error::late(format!("{} within {time}", self.late)), link)
    }
}

pub(crate) fn run(client: &mut Client, arguments: &Sync) -> Result<(), Error> {
    let (goal, limit) = (v1::Sync::default(), arguments.timeout);
    wait(client, &Wait { goal, limit, late: "not synced".into(), blocked: "cannot sync".into() })
}

/// Waits, also across restarts of the daemon.
pub(crate) fn wait(client: &mut Client, wait: &Wait) -> Result<(), Error> {
    let end = wait.limit.map(|limit| Instant::now() + limit);
    let mut progress = Progress::new(client.quiet);
    let mut link = Link::default();
    loop {
        match ask(client, wait, end, &mut link, &mut progress) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(wait.late(&link)),
            Err(error) if !went_away(&error) => return Err(error),
            Err(_) if end.is_some_and(|end| Instant::now() >= end) => return Err(wait.late(&link)),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Asks once, and keeps the newest state of the link; false where the time was over first.
fn ask(
    client: &mut Client,
    wait: &Wait,
    end: Option<Instant>,
    link: &mut Link,
    progress: &mut Progress,
) -> Result<bool, Error> {
    // Not `open`, which waits for the first answer without a limit.
    let mut connection = client.connect(Command::Sync(wait.goal.clone()))?;
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
                    return Err(with_cause(Error::late(wait.blocked.as_str()), link));
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

/// The error with what the daemon knows of the link, and what would mend it.
fn with_cause(error: Error, link: &Link) -> Error {
    if link.error.is_empty() { error } else { error.because(&link.error).hint(&link.hint) }
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
