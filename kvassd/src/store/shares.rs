//! Links: making, listing and revoking them, and what a server does that has a token.
//!
//! A server needs no key for the latter: the token opens the grant, and the grant the entry. How often a link with a
//! limit was read is the server's own count, and durable before anybody gets a byte.

use std::sync::Arc;

use super::commit::{Committer, Job};
use super::index::{Fault, Index};
use super::labels::Labelled;
use super::plan::Change as Write;
use super::read::Try;
use super::row::{self, RecordRow};
use super::space::Purpose;
use super::value_reader::ValueReader;
use super::{Outcome, ReadError, Store, StoreId, WriteError};
use crate::keys::Token;
use crate::record::{Clear, Kind, Record, RecordId};
use crate::seal;
use crate::share::{Grant, Label, Reach};

/// How often an opening begins again because the entry changed under it.
const TRIES: usize = 100;

/// What a new link shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShareOptions {
    /// When it ends, in microseconds since 1970; 0 is never.
    pub expiry_us: u64,
    /// How often the value may be read through it; 0 is any number of times.
    pub reads: u64,
    /// Whether it leads to the version that is stored now.
    pub pin: bool,
}

/// A link, as a device knows it.
#[derive(Clone)]
pub struct Share {
    /// The entry that it leads to.
    pub name: String,
    /// Its token.
    pub token: Token,
    /// When it was made, in microseconds since 1970.
    pub time_us: u64,
    /// When it ends, likewise; 0 is never.
    pub expiry_us: u64,
    /// How often the value may be read through it; 0 is any number of times.
    pub reads: u64,
    /// Whether it leads to one version of its entry.
    pub pin: bool,
    /// Why it leads nowhere any more; `None` where it does.
    pub gone: Option<Gone>,
}

/// Why a link leads nowhere any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Gone {
    #[error("the link was revoked")]
    Revoked,
    #[error("the link, or its entry, has expired")]
    Expired,
    #[error("the link was read as often as it may be")]
    UsedUp,
    #[error("the entry of the link was removed")]
    Removed,
    #[error("the version that the link leads to was replaced")]
    Replaced,
}

/// Why a token opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is no such link here, or its entry has not come yet.
    #[error("there is no such link")]
    Unknown,
    /// Likewise, but what is here cannot be read, or not all of it is here, so there may be one.
    #[error(transparent)]
    Unseen(ReadError),
    /// There was one.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// What is here of it cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// How often a link with a limit may be read, and was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// At most so often.
    pub allowed: u64,
    /// So often it was, through this server.
    pub used: u64,
}

/// What a link leads to, for whoever has its token.
pub struct Linked {
    /// The entry's name.
    pub name: String,
    /// Bytes of the value.
    pub size: u64,
    /// The authentication of the entry's record: another one with each version.
    pub tag: [u8; 32],
    /// `None` where it may be read any number of times.
    pub reads: Option<Reads>,
    /// The id of the link's record.
    pub locator: RecordId,
    /// The value.
    pub reader: ValueReader,
}

/// What a count came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// With this read it is so many.
    Counted(u64),
    /// It is as many as there may be; nothing was counted.
    UsedUp,
    /// The link was revoked.
    Revoked,
}

/// What a token opens, before its value is.
struct Opened {
    locator: RecordId,
    reads: Option<Reads>,
    clear: Clear,
    record: Record,
    name: String,
    content_key: zeroize::Zeroizing<Vec<u8>>,
}

impl Store {
    /// Makes a link to an entry, durably, or finds the plain one that it has; `None` where there is no such entry.
    ///
    /// # Errors
    /// A full disk, a damaged or a blind store.
    pub fn share(&self, name: &str, options: ShareOptions) -> Result<Option<Share>, WriteError> {
        self.readable()?;
        kvass_proto::key::check(name)?;
        self.shared.names.wait()?;
        let ShareOptions { expiry_us, reads, pin } = options;
        let token = Token::random(&self.shared.surroundings.random)?;
        let label = Label { name: name.to_owned(), token, reads, pin };
        loop {
            if label.is_plain(expiry_us)
                && let Some(link) = self.shared.labels.plain(name)
            {
                // Of a removed entry none is left, but of one that has expired.
                let is_there = self.read(name)?.is_some();
                return Ok(is_there.then(|| self.listed(link)));
            }
            let change = Write::Share { label: label.clone(), expiry_us };
            match self.submit(vec![change])?.first() {
                Some(Outcome::Stored) => {
                    let made = self.shared.labels.of(name).into_iter().find(|link| link.label.token == label.token);
                    return Ok(made.map(|link| self.listed(link)));
                }
                // Somebody else has made one just now.
                Some(Outcome::Unchanged) => {}
                _ => return Ok(None),
            }
        }
    }

    /// The links of an entry, or of all, in the order of names and then of times. It waits for the pass that follows a
    /// start.
    ///
    /// # Errors
    /// A blind store, or the pass found damage.
    pub fn shares(&self, name: Option<&str>) -> Result<Vec<Share>, ReadError> {
        self.readable()?;
        self.shared.names.wait()?;
        if let Some(name) = name {
            return Ok(self.shared.labels.of(name).into_iter().map(|link| self.listed(link)).collect());
        }
        let mut found = Vec::new();
        let mut links = self.shared.labels.after(None);
        while let Some(last) = links.last().map(|link| link.label.name.clone()) {
            found.extend(links.into_iter().map(|link| self.listed(link)));
            links = self.shared.labels.after(Some(&last));
        }
        Ok(found)
    }

    /// Revokes a link, durably; `false` where there is none with this token.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn revoke(&self, token: &Token) -> Result<bool, WriteError> {
        self.readable()?;
        let Some(label) = self.label(token)? else { return Ok(false) };
        Ok(self.submit(vec![Write::Revoke { label }])? == [Outcome::Stored])
    }

    /// Revokes all links of an entry in one commit, and returns how many there were.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn revoke_all(&self, name: &str) -> Result<u64, WriteError> {
        self.readable()?;
        self.shared.names.wait()?;
        let links = self.shared.labels.of(name);
        let outcomes = self.submit(links.into_iter().map(|link| Write::Revoke { label: link.label }).collect())?;
        Ok(outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count() as u64)
    }

    /// What a token opens. Changes nothing, and waits for nothing.
    ///
    /// # Errors
    /// No such link, one that leads nowhere any more, or what is here does not verify.
    pub fn open_share(&self, token: &Token) -> Result<Linked, ShareError> {
        let mut failure = None;
        for _ in 0..TRIES {
            let opened = self.shared.read_index(|index| Ok(open(index, token, self.shared.now_us())));
            let opened = opened.map_err(|fault| ShareError::Unseen(self.failed(fault)))?;
            let Some(opened) = opened.map_err(|error| self.explain(error))? else {
                let damage = self.shared.names.damage().map(ReadError::Damaged);
                return Err(damage.map_or(ShareError::Unknown, ShareError::Unseen));
            };
            // The same version failed twice: it did not change under the read.
            if let Some((auth, failed)) = failure.take()
                && auth == opened.record.auth
            {
                return Err(self.cannot_read(&opened.name, failed).into());
            }
            match self.try_value_of(&opened.name, &opened.clear, &opened.content_key) {
                Try::Read(reader) => {
                    let Opened { locator, reads, clear, record, name, .. } = opened;
                    let (size, tag) = (clear.size, record.auth.0);
                    return Ok(Linked { name, size, tag, reads, locator, reader: *reader });
                }
                failed => failure = Some((opened.record.auth, failed)),
            }
        }
        Err(ReadError::Value { key: "a link".into(), what: "it changes faster than it can be read".into() }.into())
    }

    /// What a token opens, with one read more counted, durably, where the link has a limit. What a crash leaves after
    /// that is a read that counts, though nobody got it.
    ///
    /// # Errors
    /// As [`Store::open_share`]; the link was read as often as it may be, or the count cannot be stored.
    pub fn count_read(&self, token: &Token) -> Result<Linked, ShareError> {
        let mut linked = self.open_share(token)?;
        let Some(Reads { allowed, .. }) = linked.reads else { return Ok(linked) };
        let locator = linked.locator;
        let counted = self.ask(|answer| Job::CountRead { locator, allowed, answer });
        match counted.map_err(|error| error.of_read("a link"))? {
            Count::Counted(used) => linked.reads = Some(Reads { allowed, used }),
            Count::UsedUp => return Err(Gone::UsedUp.into()),
            Count::Revoked => return Err(Gone::Revoked.into()),
        }
        Ok(linked)
    }

    /// Whether a peer has said that it holds a link as it is here.
    #[must_use]
    pub fn is_share_held(&self, share: &Share, peer: StoreId) -> bool {
        let id = share.token.locator();
        self.is_record_held(|_| id, peer)
    }

    /// Whether the value of an entry is a file, which takes its time on the way.
    #[must_use]
    pub fn is_large(&self, name: &str) -> bool {
        self.find(name).ok().flatten().is_some_and(|found| found.clear.has_blob())
    }

    /// Before an entry that was removed or has expired is set again, all links to it must be known: they do not come to
    /// life with it.
    pub(super) fn wait_where_gone(&self, name: &str) -> Result<(), ReadError> {
        if self.shared.names.is_whole() {
            return Ok(());
        }
        let now_us = self.shared.now_us();
        let is_gone = |index: &Index| {
            let Some(keys) = index.account.keys.full() else { return Ok(false) };
            let row = index.record(keys.record_id(name))?.and_then(|row| RecordRow::decode(&row));
            let clear = row.and_then(|row| row.clear().ok());
            Ok(clear.is_some_and(|clear| clear.kind == Kind::REMOVAL || clear.is_expired(now_us)))
        };
        match self.shared.read_index(is_gone) {
            Ok(true) => self.shared.names.wait(),
            _ => Ok(()),
        }
    }

    fn explain(&self, error: Closed) -> ShareError {
        match error {
            Closed::Gone(gone) => gone.into(),
            Closed::Wrong(what) => ReadError::Value { key: "a link".into(), what: what.into() }.into(),
            Closed::Fault(fault) => ShareError::Unseen(self.failed(fault)),
        }
    }

    /// What a device knows of a link from its record.
    fn label(&self, token: &Token) -> Result<Option<Label>, ReadError> {
        let read = self.shared.read_index(|index| {
            let Some(keys) = index.account.keys.full() else { return Ok(None) };
            let Some(row) = index.record(token.locator())? else { return Ok(None) };
            let Ok((row, clear)) = index.account.read(&row) else {
                return Err(Fault::Other("the record of a link does not verify".into()));
            };
            let header = seal::open(keys, &clear, &row.record).ok().filter(|_| clear.kind == Kind::LINK);
            Ok(header.and_then(|header| Label::of(&header)))
        });
        read.map_err(|fault| self.failed(fault))
    }

    fn listed(&self, link: Labelled) -> Share {
        let gone = self.shared.read_index(|index| Ok(gone(index, &link, self.shared.now_us())));
        let Labelled { label: Label { name, token, reads, pin }, time_us, expiry_us } = link;
        Share { name, token, time_us, expiry_us, reads, pin, gone: gone.ok().flatten() }
    }
}

/// Why a token opens nothing.
enum Closed {
    Gone(Gone),
    /// It is what is wrong with what is here of the link.
    Wrong(&'static str),
    Fault(Fault),
}

impl From<Gone> for Closed {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<Fault> for Closed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A verified record.
fn record(index: &Index, id: RecordId) -> Result<Option<(Record, Clear)>, Closed> {
    let Some(row) = index.record(id)? else { return Ok(None) };
    let (row, clear) = index.account.read(&row).map_err(|_| Closed::Wrong("its record does not verify"))?;
    match clear.id == id {
        true => Ok(Some((row.record, clear))),
        false => Err(Closed::Wrong("another record stands in its place")),
    }
}

/// Follows a token to the entry; `None` where it leads to nothing that is here.
fn open(index: &Index, token: &Token, now_us: u64) -> Result<Option<Opened>, Closed> {
    let locator = token.locator();
    let Some((_, link)) = record(index, locator)? else { return Ok(None) };
    match link.kind {
        Kind::LINK if link.is_expired(now_us) => return Err(Gone::Expired.into()),
        Kind::LINK => {}
        Kind::REMOVAL => return Err(Gone::Revoked.into()),
        _ => return Ok(None),
    }
    let grant = grant(index, token)?;
    let reads = match grant.reads {
        0 => None,
        allowed => Some(Reads { allowed, used: used(index, locator)? }),
    };
    if reads.is_some_and(|reads| reads.used >= reads.allowed) {
        return Err(Gone::UsedUp.into());
    }
    let Some((record, clear)) = record(index, grant.target)? else { return Ok(None) };
    if let Some(gone) = ended(&grant, &clear, now_us) {
        return Err(gone.into());
    }
    let (name, content_key) = match grant.reach {
        Reach::Entry(key) => {
            let header = seal::open_by(&key, &record).map_err(|_| Closed::Wrong("its entry does not open"))?;
            (header.name.clone(), header.content_key.clone())
        }
        Reach::Version { key, name, .. } => (name, key.as_bytes().to_vec()),
    };
    Ok(Some(Opened { locator, reads, clear, record, name, content_key: content_key.into() }))
}

fn grant(index: &Index, token: &Token) -> Result<Grant, Closed> {
    let row = index.account.trees.values.get(token.locator().0).map_err(Fault::from)?;
    let sealed = row.as_deref().and_then(row::decode_value).map(|(_, sealed)| sealed);
    let grant = sealed.and_then(|sealed| Grant::open(token, index.account.keys.account(), sealed).ok());
    grant.ok_or(Closed::Wrong("its grant does not open"))
}

/// Why a grant leads nowhere, whose target is this.
fn ended(grant: &Grant, target: &Clear, now_us: u64) -> Option<Gone> {
    match (&grant.reach, target.kind) {
        (_, Kind::REMOVAL) => Some(Gone::Removed),
        (Reach::Version { hash, .. }, _) if *hash != target.value_hash => Some(Gone::Replaced),
        _ if target.is_expired(now_us) => Some(Gone::Expired),
        _ => None,
    }
}

/// How often a link was read here.
fn used(index: &Index, locator: RecordId) -> Result<u64, Fault> {
    let Some(row) = index.account.trees.reads.get(locator.0)? else { return Ok(0) };
    let count = row::decode_reads(&row, index.account.keys.account()).filter(|(id, _)| *id == locator);
    count.map(|(_, count)| count).ok_or_else(|| Fault::Other("a count of reads makes no sense".into()))
}

/// Why a link that is in force leads nowhere, as far as it can be told here.
fn gone(index: &Index, link: &Labelled, now_us: u64) -> Option<Gone> {
    if link.expiry_us != 0 && link.expiry_us <= now_us {
        return Some(Gone::Expired);
    }
    match open(index, &link.label.token, now_us) {
        Err(Closed::Gone(gone)) => Some(gone),
        _ => None,
    }
}

impl Committer {
    /// Counts one read of a link more, durably, where there may be one.
    pub(super) fn count_read(&mut self, locator: RecordId, allowed: u64) -> Result<Count, WriteError> {
        let shared = Arc::clone(&self.shared);
        let known = shared.read_index(|index| {
            let row = index.record(locator)?.and_then(|row| RecordRow::decode(&row));
            let is_link = row.and_then(|row| row.clear().ok()).is_some_and(|clear| clear.kind == Kind::LINK);
            Ok(if is_link { Some(used(index, locator)?) } else { None })
        });
        let Some(used) = known.map_err(|fault| self.refused(fault))? else { return Ok(Count::Revoked) };
        if used >= allowed {
            return Ok(Count::UsedUp);
        }
        shared.space.check(0, Purpose::Remove)?;
        let used = used + 1;
        self.write_rows(|changes, account| {
            changes.reads.insert(&locator.0, row::encode_reads(locator, used, account));
        })?;
        Ok(Count::Counted(used))
    }
}
