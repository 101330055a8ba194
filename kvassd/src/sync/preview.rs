//! A look at what a remote holds before this store joins its account.
//!
//! A session of its own with the other key, under an id that nobody else has: it takes the log and merges nothing, so
//! neither side is changed by it. Of all that comes it keeps a count and a few names.

use std::collections::BTreeMap;
use std::time::Duration;

use kvass_proto::v1::{self, end::Reason, sync_frame::Frame};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;

use super::channel::{ChannelError, Opener, Sealer};
use super::connect::{self, Opened, RemoteError, Way};
use super::session::{self, Link, SessionError};
use crate::keys::{EncryptionKey, Keys, SyncKey};
use crate::random::Random;
use crate::record::{Auth, Record};
use crate::store::{Difference, Store, Travelling};

/// How many names are kept, the first in byte order.
const NAMES: usize = 20;

/// How long the remote may say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// How long all may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Entries that are others there than here.
    pub differing: u64,
    /// The first of them by name.
    pub first: Vec<Difference>,
}

/// Looks at what the remote holds of the account of `key`. `seen` counts its records as they come. Of a store that was
/// never written to, it makes sure only that the remote answers.
///
/// # Errors
/// A remote that does not answer, holds another key, or is this very store; or this store cannot be read.
pub async fn preview(
    store: &Store,
    way: &Way,
    url: &str,
    key: &EncryptionKey,
    seen: &watch::Sender<u64>,
) -> Result<Preview, RemoteError> {
    let random = store.surroundings().random.clone();
    let opened = connect::open(way, &random, &SyncKey::derive(key), url).await?;
    let silent = |_| RemoteError::Silent(url.to_owned());
    let mut look = Look::new(store, key, opened, url);
    let looked = timeout(LIMIT, look.run(&random, seen)).await.map_err(silent).flatten();
    look.end().await;
    looked
}

struct Look<'a> {
    store: &'a Store,
    keys: Keys,
    url: &'a str,
    sealer: Sealer,
    opener: Opener,
    link: Link,
    connection: connect::Connection,
    differing: u64,
    first: BTreeMap<String, Difference>,
}

impl<'a> Look<'a> {
    fn new(store: &'a Store, key: &EncryptionKey, opened: Opened, url: &'a str) -> Self {
        let Opened { channel, link, connection } = opened;
        let (sealer, opener) = channel.split();
        let (keys, first) = (Keys::derive(key), BTreeMap::new());
        Self { store, keys, url, sealer, opener, link, connection, differing: 0, first }
    }

    async fn run(&mut self, random: &Random, seen: &watch::Sender<u64>) -> Result<Preview, RemoteError> {
        let store = random.bytes::<16>().map_err(|_| SessionError::from(ChannelError::Random))?.to_vec();
        let run = store.clone();
        let clock_us = self.store.surroundings().clock.now_us();
        self.say(Frame::Hello(v1::Hello {
            version: session::VERSION,
            store,
            run,
            clock_us,
            public_url: String::new(),
        }))
        .await?;
        let Frame::Hello(hello) = self.next().await? else { return Err(broken("no greeting")) };
        if hello.store == self.store.identity().0.0 && hello.run == self.store.run().0 {
            return Err(SessionError::Itself.into());
        }
        if self.store.head().0 > 0 {
            self.say(Frame::Resume(v1::Resume::default())).await?;
            self.say(Frame::HeadWant(v1::HeadWant { number: 1 })).await?;
            self.take(seen).await?;
        }
        Ok(Preview { differing: self.differing, first: std::mem::take(&mut self.first).into_values().collect() })
    }

    /// Takes the log up to where it goes now. What changes meanwhile would come twice.
    async fn take(&mut self, seen: &watch::Sender<u64>) -> Result<(), RemoteError> {
        let (mut head, mut place) = (None, 0);
        while head.is_none_or(|head| place < head) {
            match self.next().await? {
                Frame::Head(answer) => head = Some(answer.seq),
                Frame::Log(log) => {
                    place = log.run.map_or(place, |_| log.seq);
                    seen.send_modify(|seen| *seen += log.records.len() as u64);
                    let is_due = |record: &v1::LogRecord| head.is_none_or(|head| record.seq <= head);
                    self.compare(log.records.into_iter().filter(is_due)).await?;
                }
                Frame::End(_) => return Err(RemoteError::Silent(self.url.to_owned())),
                _ => {}
            }
        }
        Ok(())
    }

    async fn compare(&mut self, records: impl Iterator<Item = v1::LogRecord>) -> Result<(), RemoteError> {
        let (store, keys) = (self.store.clone(), self.keys.clone());
        let records = records.map(travelling).collect::<Result<Vec<_>, _>>()?;
        let differ = move || {
            let differ = records.iter().map(|theirs| store.differs(&keys, theirs));
            differ.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
        };
        for difference in session::call(self.store, differ).await?.map_err(SessionError::from)? {
            self.differing += 1;
            self.first.insert(difference.name.clone(), difference);
            if self.first.len() > NAMES {
                self.first.pop_last();
            }
        }
        Ok(())
    }

    async fn say(&mut self, frame: Frame) -> Result<(), RemoteError> {
        let bytes = v1::SyncFrame { frame: Some(frame) }.encode_to_vec();
        let sealed = self.sealer.seal(&bytes).map_err(SessionError::from)?;
        self.link.to.send(sealed.into()).await.map_err(|_| self.gone())
    }

    async fn next(&mut self) -> Result<Frame, RemoteError> {
        let received = timeout(SILENCE, self.link.from.recv()).await.map_err(|_| self.gone())?;
        let sealed = received.ok_or_else(|| self.gone())?;
        let bytes = self.opener.open(&sealed).map_err(SessionError::from)?;
        let frame = v1::SyncFrame::decode(bytes.as_slice()).ok().and_then(|frame| frame.frame);
        frame.ok_or_else(|| broken("no frame"))
    }

    fn gone(&self) -> RemoteError {
        RemoteError::Silent(self.url.to_owned())
    }

    async fn end(mut self) {
        let _ = self.say(Frame::End(v1::End { reason: Reason::Again.into() })).await;
        let Self { connection, link, .. } = self;
        drop(link);
        connection.close().await;
    }
}

fn broken(what: &'static str) -> RemoteError {
    SessionError::Protocol(what).into()
}

fn travelling(record: v1::LogRecord) -> Result<Travelling, RemoteError> {
    let v1::LogRecord { clear, sealed, auth, value, .. } = record;
    let auth = auth.try_into().map_err(|_| broken("no authentication"))?;
    Ok(Travelling { record: Record { clear, sealed, auth: Auth(auth) }, value })
}
