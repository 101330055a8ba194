//! Watch and wait: both read the log after a place whenever a commit ticks, so that a slow reader costs no memory and
//! sees each key once, in its newest state. Both end, without an answer, when the daemon stops or the client leaves.

use kvass_proto::v1::{self, reply::Reply};

use super::failure::Failure;
use super::state::Shared;
use super::value;
use super::wire::{Incoming, Outgoing};
use crate::store::{Change, Position, Store};

/// Changes that are read from the log at once.
const CHANGES: usize = 256;

/// Runs `answers` until it ends, the client leaves, or the daemon stops.
async fn until_closed(
    shared: &Shared,
    from: &mut Incoming<'_>,
    answers: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        ended = answers => ended,
        () = from.closed() => Ok(()),
        () = shared.stopping() => Ok(()),
    }
}

pub(super) async fn watch(
    shared: &Shared,
    store: &Store,
    (from, out): (&mut Incoming<'_>, &mut Outgoing<'_>),
    watch: v1::Watch,
) -> Result<(), Failure> {
    let start = place(store, &watch.after)?;
    let answers = async {
        let mut changes = Changes::after(shared, store, out, start).await?;
        loop {
            for change in changes.next().await? {
                if change.entry.name.starts_with(&watch.prefix) {
                    out.reply(Reply::Change(encode(change))).await?;
                }
            }
            out.flush().await?;
        }
    };
    until_closed(shared, from, answers).await
}

pub(super) async fn wait(
    shared: &Shared,
    store: &Store,
    (from, out): (&mut Incoming<'_>, &mut Outgoing<'_>),
    wait: v1::Wait,
) -> Result<(), Failure> {
    kvass_proto::key::check(&wait.key)?;
    let start = if wait.change { place(store, &wait.after)? } else { store.position() };
    let answers = async {
        let mut changes = Changes::after(shared, store, out, start).await?;
        if !wait.change && answer(shared, store, out, &wait.key).await? {
            return Ok(());
        }
        loop {
            let batch = changes.next().await?;
            let Some(change) = batch.into_iter().rev().find(|change| change.entry.name == wait.key) else {
                continue;
            };
            if !change.removed && answer(shared, store, out, &wait.key).await? {
                return Ok(());
            }
            if wait.change {
                return Err(Failure::no_such_key(&wait.key));
            }
        }
    };
    until_closed(shared, from, answers).await
}

/// Sends the value of `key` where it exists.
async fn answer(shared: &Shared, store: &Store, out: &mut Outgoing<'_>, key: &str) -> Result<bool, Failure> {
    let Some(found) = shared.call(|| store.read(key)).await? else {
        return Ok(false);
    };
    value::send(shared, out, found, v1::entry::Sync::Local).await?;
    out.flush().await?;
    Ok(true)
}

fn place(store: &Store, after: &[u8]) -> Result<Position, Failure> {
    if after.is_empty() {
        return Ok(store.position());
    }
    Position::from_bytes(after).ok_or_else(|| Failure::bad_input("the place to go on from is none"))
}

fn encode(change: Change) -> v1::Change {
    v1::Change {
        removed: change.removed,
        entry: Some(value::entry(change.entry, v1::entry::Sync::Local)),
        position: change.position.to_bytes(),
    }
}

/// The changes after a place, as they come.
struct Changes<'a> {
    shared: &'a Shared,
    store: &'a Store,
    commits: tokio::sync::watch::Receiver<Position>,
    place: Position,
}

impl<'a> Changes<'a> {
    /// Tells the client the place, then begins there.
    async fn after(
        shared: &'a Shared,
        store: &'a Store,
        out: &mut Outgoing<'_>,
        place: Position,
    ) -> Result<Self, Failure> {
        let mut commits = store.commits();
        // Changes between the place and now are looked for before the first tick.
        commits.mark_changed();
        out.send(Reply::Position(v1::Position { position: place.to_bytes() })).await?;
        Ok(Self { shared, store, commits, place })
    }

    /// Waits for a commit where nothing is left, and returns the next changes, perhaps none.
    async fn next(&mut self) -> Result<Vec<Change>, Failure> {
        // The store keeps the sender while it is open; once it is closed the daemon is stopping.
        if self.commits.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let (changes, place) = self.shared.call(|| self.store.changes(self.place, CHANGES)).await?;
        self.place = place;
        // Rows that have moved on are left out, so a short answer does not mean the end.
        if self.place != self.store.position() {
            self.commits.mark_changed();
        }
        Ok(changes)
    }
}
