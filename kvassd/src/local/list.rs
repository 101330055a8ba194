//! Lists: entries are taken from the store some hundred at a time, so that a list of any length takes little memory.

use kvass_proto::v1::{self, reply::Reply};

use super::failure::Failure;
use super::state::Shared;
use super::value;
use super::wire::Outgoing;
use crate::store::{Entry, Store};
use crate::sync::remote::Remote;

/// Entries at once; as many as fit into one message with the longest names.
const ENTRIES: usize = 500;

pub(super) async fn names(
    shared: &Shared,
    store: &Store,
    out: &mut Outgoing<'_>,
    query: &v1::List,
) -> Result<(), Failure> {
    let terminator =
        u8::try_from(query.terminator).map_err(|_| Failure::bad_input("what follows each key is one byte"))?;
    let mut pages = Pages::of(shared, store, query);
    while let Some(page) = pages.next().await? {
        let mut names = Vec::new();
        for entry in page {
            names.extend_from_slice(entry.name.as_bytes());
            names.push(terminator);
        }
        out.data(&names).await?;
    }
    Ok(out.end().await?)
}

pub(super) async fn entries(
    shared: &Shared,
    (store, remote): (&Store, &Remote),
    out: &mut Outgoing<'_>,
    query: &v1::List,
) -> Result<(), Failure> {
    let mut pages = Pages::of(shared, store, query);
    while let Some(page) = pages.next().await? {
        let encode = |entry: Entry| {
            let sync = remote.sync_of(&entry.name);
            value::entry(entry, sync)
        };
        let entries = shared.call(|| page.into_iter().map(encode).collect()).await;
        out.reply(Reply::Listing(v1::Listing { entries })).await?;
    }
    Ok(out.end().await?)
}

pub(super) async fn values(
    shared: &Shared,
    (store, remote): (&Store, &Remote),
    out: &mut Outgoing<'_>,
    query: &v1::List,
) -> Result<(), Failure> {
    let mut pages = Pages::of(shared, store, query);
    while let Some(page) = pages.next().await? {
        for entry in page {
            // A key that has been removed meanwhile is left out.
            if let Some(found) = shared.call(|| store.read(&entry.name)).await? {
                let sync = shared.call(|| remote.sync_of(&entry.name)).await;
                value::send(shared, out, found, sync).await?;
            }
        }
    }
    Ok(out.end().await?)
}

/// The entries of a list, page by page.
struct Pages<'a> {
    shared: &'a Shared,
    store: &'a Store,
    query: &'a v1::List,
    after: Option<String>,
    whole: bool,
}

impl<'a> Pages<'a> {
    fn of(shared: &'a Shared, store: &'a Store, query: &'a v1::List) -> Self {
        Self { shared, store, query, after: None, whole: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, Failure> {
        if self.whole {
            return Ok(None);
        }
        let Self { shared, store, query, after, .. } = self;
        let page = shared.wait(|| store.entries(&query.prefix, after.as_deref(), query.reverse, ENTRIES)).await?;
        self.whole = page.len() < ENTRIES;
        self.after = page.last().map(|entry| entry.name.clone());
        Ok(Some(page))
    }
}
