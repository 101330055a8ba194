//! Reading: entries, values, changes. Each record is verified before anything of it is handed out.

use std::fs::File;
use std::io;
use std::ops::Bound;

use kvass_proto::v1::Header;

use super::index::{Fault, Index};
use super::names::Totals;
use super::row::{self, RecordRow};
use super::value_reader::ValueReader;
use super::value_writer::{NewValue, Place};
use super::{Change, Entry, Position, ReadError, Seq, Store, Summary};
use crate::keys::{Key, Keys};
use crate::record::{Clear, Kind, RecordId};
use crate::seal;
use crate::value::{self, ContentKey};

/// How often a read begins again because the entry changed under it.
const TRIES: usize = 100;

/// A verified record.
pub(super) struct Found {
    seq: Seq,
    pub(super) clear: Clear,
    header: Header,
}

impl Found {
    fn entry(&self) -> Entry {
        let Clear { size, stamp, expiry_us, .. } = self.clear;
        Entry { name: self.header.name.clone(), size, time_us: stamp.time_us, expiry_us }
    }
}

/// What came of one try to read a value.
pub(super) enum Try {
    Read(Box<ValueReader>),
    /// The value is not there, or not what the record says.
    Failed(String),
    Io(io::Error),
}

impl Store {
    /// Finds an entry and opens its value. It never waits but where the entry is not found: then for the pass that
    /// follows a start, which alone can say that it is not there.
    ///
    /// # Errors
    /// The entry, or the whole store, does not verify.
    pub fn read(&self, name: &str) -> Result<Option<(Entry, ValueReader)>, ReadError> {
        let mut failure = None;
        for _ in 0..TRIES {
            let Some(found) = self.find(name)? else {
                self.shared.names.wait()?;
                return Ok(None);
            };
            if found.clear.kind != Kind::VALUE || found.clear.is_expired(self.shared.now_us()) {
                return Ok(None);
            }
            // The same version failed twice: it did not change under the read.
            if let Some((seq, failed)) = failure.take()
                && seq == found.seq
            {
                return Err(self.cannot_read(name, failed));
            }
            match self.try_value(name, &found) {
                Try::Read(reader) => return Ok(Some((found.entry(), *reader))),
                failed => failure = Some((found.seq, failed)),
            }
        }
        Err(ReadError::Value { key: name.to_owned(), what: "it changes faster than it can be read".into() })
    }

    pub(super) fn cannot_read(&self, name: &str, failed: Try) -> ReadError {
        let key = name.to_owned();
        match failed {
            Try::Io(source) if source.kind() != io::ErrorKind::NotFound => ReadError::Io { key, source },
            Try::Io(_) => ReadError::Value { key, what: "its file is missing".into() },
            Try::Failed(what) => ReadError::Value { key, what },
            Try::Read(_) => ReadError::Closed,
        }
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<Found>, ReadError> {
        let wrong = |what: String| ReadError::Value { key: name.to_owned(), what };
        let row = self.shared.read_index(|index| {
            let Some(keys) = index.account.keys.full() else { return Ok(Err(ReadError::Blind)) };
            Ok(Ok(index.record(keys.record_id(name))?.map(|row| (keys.clone(), row))))
        });
        let Some((keys, row)) = row.map_err(|fault| self.failed(fault))?? else { return Ok(None) };
        let row = RecordRow::decode(&row).ok_or_else(|| wrong("its record makes no sense".into()))?;
        let clear = seal::verify(&keys, &row.record).map_err(|error| wrong(error.to_string()))?;
        let header = seal::open(&keys, &clear, &row.record).map_err(|error| wrong(error.to_string()))?;
        if header.name != name {
            return Err(wrong("its record has another name".into()));
        }
        Ok(Some(Found { seq: row.seq, clear, header }))
    }

    pub(super) fn try_value(&self, name: &str, found: &Found) -> Try {
        self.try_value_of(name, &found.clear, &found.header.content_key)
    }

    /// Opens a value whose content key is known.
    pub(super) fn try_value_of(&self, name: &str, clear: &Clear, content_key: &[u8]) -> Try {
        let Some(key) = ContentKey::from_bytes(content_key) else {
            return Try::Failed("it has no key".into());
        };
        if clear.has_blob() {
            let file = match File::open(self.shared.layout.blob(clear.value_hash)) {
                Ok(file) => file,
                Err(error) => return Try::Io(error),
            };
            let reader = ValueReader::new_blob(name, file, clear.size, &key);
            let wrong = || Try::Failed("its file has the wrong length".into());
            return reader.map_or_else(wrong, |reader| Try::Read(Box::new(reader)));
        }
        let row = self.shared.read_index(|index| Ok(index.account.trees.values.get(clear.id.0)?));
        let opened = match row {
            Ok(Some(row)) => row::decode_value(&row)
                .filter(|(_, sealed)| sealed.len() as u64 == value::sealed_length(clear.size))
                .and_then(|(_, sealed)| value::open_short(&key, sealed).ok()),
            Ok(None) => return Try::Failed("it is not there".into()),
            Err(_) => return Try::Failed("it cannot be read".into()),
        };
        opened.map_or_else(
            || Try::Failed("it does not verify".into()),
            |plain| Try::Read(Box::new(ValueReader::new_inline(name, plain))),
        )
    }

    /// Whether a new value and expiry are those that are stored, and the entry that is.
    pub(super) fn compare(
        &self,
        name: &str,
        value: &NewValue,
        expiry_us: u64,
    ) -> Result<Option<(Entry, bool)>, ReadError> {
        let Some((entry, mut stored)) = self.read(name)? else { return Ok(None) };
        if entry.size != value.size || entry.expiry_us != expiry_us {
            return Ok(Some((entry, false)));
        }
        let mut given = self.reader_of(name, value)?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        loop {
            let more = stored.next(&mut a)? | given.next(&mut b)?;
            if a != b || !more {
                return Ok(Some((entry, a == b)));
            }
            a.clear();
            b.clear();
        }
    }

    fn reader_of(&self, name: &str, value: &NewValue) -> Result<ValueReader, ReadError> {
        let wrong = || ReadError::Value { key: name.to_owned(), what: "what was sent cannot be read again".into() };
        match &value.place {
            Place::Inline(sealed) => {
                let plain = value::open_short(&value.key, sealed).map_err(|_| wrong())?;
                Ok(ValueReader::new_inline(name, plain))
            }
            Place::Blob(_) => {
                let file = File::open(self.shared.layout.blob(value.hash))
                    .map_err(|source| ReadError::Io { key: name.to_owned(), source })?;
                ValueReader::new_blob(name, file, value.size, &value.key).ok_or_else(wrong)
            }
        }
    }

    /// At most `limit` entries whose name begins with `prefix`, in byte order or against it, beyond `after`. It waits
    /// for the pass that follows a start.
    ///
    /// # Errors
    /// The pass found damage.
    pub fn entries(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.readable()?;
        self.shared.names.wait()?;
        Ok(self.shared.names.page(prefix, after, reverse, limit, self.shared.now_us()))
    }

    /// Whether entries can be read and written here.
    ///
    /// # Errors
    /// The store is blind.
    pub fn readable(&self) -> Result<(), ReadError> {
        if self.is_blind() { Err(ReadError::Blind) } else { Ok(()) }
    }

    /// Whether the store was given a server key alone.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        matches!(self.shared.key(), Key::Server(_))
    }

    /// The place after the last durable change.
    #[must_use]
    pub fn position(&self) -> Position {
        *self.shared.commits.borrow()
    }

    /// At most `limit` changes after a position, oldest first, each entry once with its newest state; and the place
    /// after them. A position of another account, or of a future that was lost, counts as now.
    ///
    /// # Errors
    /// A record that does not verify, or a blind store.
    pub fn changes(&self, after: Position, limit: usize) -> Result<(Vec<Change>, Position), ReadError> {
        self.readable()?;
        let now = self.position();
        if after.account != now.account || after.seq > now.seq {
            return Ok((Vec::new(), now));
        }
        let read = self.shared.read_index(|index| match index.account.keys.full() {
            Some(keys) => changes(index, keys, after, now, limit).map(Ok),
            None => Ok(Err(ReadError::Blind)),
        });
        read.map_err(|fault| self.failed(fault))?
    }

    /// What `status` shows.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn summary(&self) -> Result<Summary, ReadError> {
        let content = self.shared.pass.lock().content;
        let blind = self.is_blind();
        let totals = match blind {
            true => Totals { keys: content.entries, value_bytes: content.value_bytes, blob_bytes: content.blob_bytes },
            false => self.shared.names.totals(self.shared.now_us()),
        };
        let (fingerprint, index_bytes) = self
            .shared
            .read_index(|index| Ok((index.account.keys.account().fingerprint(), index.db.size_on_disk()?)))
            .map_err(|fault| self.failed(fault))?;
        Ok(Summary {
            blind,
            keys: totals.keys,
            records: content.records,
            value_bytes: totals.value_bytes,
            disk_bytes: index_bytes + totals.blob_bytes,
            fingerprint,
            pid: self.shared.pid(),
            verified: self.shared.names.is_whole(),
        })
    }

    pub(super) fn failed(&self, fault: Fault) -> ReadError {
        match fault {
            Fault::Full if self.shared.names.is_closed() => ReadError::Closed,
            Fault::Full => ReadError::DiskFull,
            Fault::Other(what) => ReadError::Damaged(what),
        }
    }
}

fn changes(
    index: &Index,
    keys: &Keys,
    after: Position,
    now: Position,
    limit: usize,
) -> Result<(Vec<Change>, Position), Fault> {
    if index.account.keys.account() != now.account {
        // The key changed between the two looks; the next call begins with the new account.
        return Ok((Vec::new(), after));
    }
    let mut position = after;
    let mut found = Vec::new();
    let mut rows = 0;
    let from = Bound::Excluded(after.seq.0.to_be_bytes());
    let to = Bound::Included(now.seq.0.to_be_bytes());
    for row in index.account.trees.log.range::<[u8; 8], _>((from, to)).take(limit) {
        let (seq, row) = row?;
        let seq = <[u8; 8]>::try_from(&seq[..]).map(u64::from_be_bytes);
        position.seq = Seq(seq.map_err(|_| Fault::Other("a place in the log has the wrong length".into()))?);
        let (id, _) = row::decode_log(&row).ok_or_else(|| Fault::Other("a row of the log makes no sense".into()))?;
        found.extend(change(index, keys, id, position)?);
        rows += 1;
    }
    // Fewer rows than asked for: what is left of them up to now has moved on, and comes later.
    Ok((found, if rows < limit { now } else { position }))
}

/// The change that a row of the log stands for; `None` where the record has changed since, and comes later.
fn change(index: &Index, keys: &Keys, id: RecordId, position: Position) -> Result<Option<Change>, Fault> {
    let wrong = |what: &str| Fault::Other(what.into());
    let row = index.record(id)?.ok_or_else(|| wrong("a row of the log names no record"))?;
    let row = RecordRow::decode(&row).ok_or_else(|| wrong("a row makes no sense"))?;
    if row.seq != position.seq {
        return Ok(None);
    }
    let clear = seal::verify(keys, &row.record).map_err(|_| wrong("a record does not verify"))?;
    if !clear.is_known() {
        return Ok(None);
    }
    let header = seal::open(keys, &clear, &row.record).map_err(|_| wrong("a record does not open"))?;
    if !header.token.is_empty() {
        return Ok(None);
    }
    let found = Found { seq: row.seq, clear, header };
    Ok(Some(Change { removed: clear.kind == Kind::REMOVAL, entry: found.entry(), position }))
}
