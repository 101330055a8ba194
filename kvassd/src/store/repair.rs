//! Repair: makes a new store of all that verifies in a damaged one, and moves the old one aside.
//!
//! It does not trust sled to find anything: it looks for record and value rows in the bytes of the log, takes what
//! verifies, and keeps the newest version of each entry whose value is whole. Nothing is removed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kvass_proto::paths;
use kvass_proto::v1::Header;
use prost::Message;

use super::create::{self, Seed, failed};
use super::index::{self, Changes, Fault, Index, meta};
use super::layout::{self, Layout};
use super::plan::{self, Step, Version};
use super::row::{self, READS_MARK, RECORD_MARK, RecordRow, State, Tally, VALUE_EXTRA, VALUE_MARK};
use super::settings::{SETTINGS_MARK, Settings};
use super::subject::Subject;
use super::witness::Witness;
use super::{OpenError, Seq, check, key_file, open};
use crate::clock::now_us;
use crate::failpoint::reached;
use crate::keys::{Access, AccountId, Key, decode_hex};
use crate::random::Random;
use crate::record::{Clear, Kind, Record, RecordId, ValueHash};
use crate::{seal, value};

/// Bytes of the log that are looked through in one go.
const WINDOW: usize = 4 << 20;

/// No row is longer, in bytes; windows overlap by as much.
const ROW_MAX: usize = 160 << 10;

/// How many versions of an entry are remembered, in case the value of the newest is not whole.
const VERSIONS: usize = 4;

/// Records that are written to the new store in one commit.
const BATCH: usize = 256;

/// What a repair did.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// Entries in the new store.
    pub kept: u64,
    /// Names of entries whose newest version is lost; an older one is kept where there is one.
    pub lost: Vec<String>,
    /// The remote, as far as it was found; empty: none.
    pub remote: String,
    /// Where the old store is now.
    pub aside: PathBuf,
}

/// Makes a new store of all that verifies and moves the old one aside. The caller holds the directory's lock.
///
/// A crash leaves the old store or the new one in its place.
///
/// # Errors
/// No key, a full disk, or what the system refuses; the old store stays as it is then.
pub fn repair(directory: &Path, report: &mut dyn FnMut(&str)) -> Result<Repaired, OpenError> {
    let layout = Layout::new(directory);
    open::settle_directories(&layout).map_err(OpenError::io("put in order", directory))?;
    let keys = read_keys(&layout, report)?;
    report("looking for what can be read");
    let mut salvage = Salvage::read(&layout, &keys).map_err(OpenError::io("read", &layout.store().db()))?;
    if salvage.is_of_another_key(&layout, &keys) {
        return Err(no_key(&layout, "holds the key of another store"));
    }
    if salvage.settings.is_none() {
        // A store that no newer program has opened has no row of its own for them.
        salvage.settings = old_settings(&layout).map(|settings| (0, settings));
    }
    layout::make_directory(&layout.blobs()).map_err(OpenError::io("make", &layout.blobs()))?;
    let kept = salvage.choose(&layout);
    report(&format!("{} entries can be kept", kept.entries));
    build(&layout, &salvage, &kept, keys[0].1.clone())?;
    reached("repair.built");
    let aside = move_aside(&layout, &kept).map_err(OpenError::io("move the damaged store aside in", directory))?;
    key_file::write(&layout.key(), &[&keys[0].0]).map_err(OpenError::io("write", &layout.key()))?;
    let remote = salvage.settings.map_or(String::new(), |(_, settings)| settings.remote);
    Ok(Repaired { kept: kept.entries, lost: kept.lost, remote, aside })
}

/// A key of the key file, the one in force first.
type Owner = (Key, Access);

/// Reads the keys. One wrong bit is mended: whose key it must be says the witness.
fn read_keys(layout: &Layout, report: &mut dyn FnMut(&str)) -> Result<Vec<Owner>, OpenError> {
    let keys = match key_file::read(&layout.key()) {
        Ok(keys) => keys.unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_key(layout, "is missing")),
        Err(error) => return Err(OpenError::io("read", &layout.key())(error)),
    };
    let mut keys: Vec<Owner> = keys.into_iter().map(|key| (key.clone(), key.access())).collect();
    let in_force = in_force(layout);
    if let Some(account) = in_force.filter(|account| keys.iter().all(|(_, keys)| keys.account() != *account))
        && let Some(key) = key_file::mend(&layout.key(), account).map_err(OpenError::io("read", &layout.key()))?
    {
        report("one bit of the key file was wrong, and is mended");
        keys = vec![(key.clone(), key.access())];
    }
    if keys.is_empty() {
        return Err(no_key(layout, "holds no key"));
    }
    keys.sort_by_key(|(_, keys)| Some(keys.account()) != in_force);
    Ok(keys)
}

/// Which account was in force when the witness was last written; `None` where it does not verify.
fn in_force(layout: &Layout) -> Option<AccountId> {
    Witness::open(&layout.store().witness()).ok()?.1.map(|mark| mark.account)
}

fn no_key(layout: &Layout, what: &str) -> OpenError {
    let way = "put that of a backup back, or write there what 'kvass config show' says on another device";
    let text = format!("its key file {what}, and without it nothing can be read: {way}");
    OpenError::damaged(layout.root(), text)
}

/// What was set in the damaged store, where a copy of its index still opens: sled may wipe what it opens.
fn old_settings(layout: &Layout) -> Option<Settings> {
    let copy = layout.store_new();
    open::copy_without_snapshots(&layout.store(), &copy).ok()?;
    let db = index::open_sled(&copy.sled()).ok()?;
    index::guarded(|| index::settings(&db.open_tree(meta::TREE)?)).ok()?
}

/// A version that was found, under the key in force.
#[derive(Clone)]
struct Candidate {
    clear: Clear,
    record: Record,
    subject: Subject,
}

impl Candidate {
    /// What to call it in a report.
    fn words(&self) -> String {
        match &self.subject {
            Subject::Entry(name) => name.clone(),
            other => other.words(self.clear.id),
        }
    }
}

/// Where a value row's sealed bytes are: in which log, where in it, and how many.
type Place = (usize, u64, usize);

/// All that was found in the bytes of the log, and of the copy that a failed opening left of it.
#[derive(Default)]
struct Salvage {
    logs: Vec<File>,
    versions: HashMap<RecordId, Vec<Candidate>>,
    values: HashMap<ValueHash, Place>,
    /// How often links were read.
    reads: HashMap<RecordId, u64>,
    counter: u64,
    /// What was set last, and by which commit.
    settings: Option<(u64, Settings)>,
    /// Whether a row of any record was seen, whosever it is.
    has_rows: bool,
}

/// What the new store will hold.
struct Kept {
    versions: Vec<Candidate>,
    entries: u64,
    lost: Vec<String>,
}

impl Salvage {
    fn read(layout: &Layout, keys: &[Owner]) -> io::Result<Self> {
        let mut salvage = Self::default();
        let store = layout.store();
        for path in [store.db(), store.db_before()] {
            match File::open(path) {
                Ok(log) => salvage.read_log(log, keys)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(salvage)
    }

    fn read_log(&mut self, log: File, keys: &[Owner]) -> io::Result<()> {
        let length = log.metadata()?.len();
        let mut window = vec![0; WINDOW + ROW_MAX];
        for start in (0..length).step_by(WINDOW) {
            let count = window.len().min((length - start) as usize);
            log.read_exact_at(&mut window[..count], start)?;
            self.scan(&window[..count], start, keys);
        }
        self.logs.push(log);
        Ok(())
    }

    fn scan(&mut self, window: &[u8], start: u64, keys: &[Owner]) {
        for at in 0..window.len().saturating_sub(RECORD_MARK.len()) {
            let bytes = &window[at..];
            if bytes.starts_with(RECORD_MARK) {
                if let Some((row, rest)) = RecordRow::decode_prefix(bytes) {
                    self.has_rows = true;
                    self.take_record(&row, &bytes[..bytes.len() - rest.len()], keys);
                }
            } else if bytes.starts_with(VALUE_MARK)
                && let Some((hash, sealed)) = row::decode_value(bytes)
                && value::value_hash(&value::chunk_hash(sealed)) == hash
            {
                let offset = start + (at + VALUE_EXTRA) as u64;
                self.values.insert(hash, (self.logs.len(), offset, sealed.len()));
            } else if bytes.starts_with(READS_MARK)
                && let Some((id, count)) = row::decode_reads(bytes, keys[0].1.account())
            {
                let most = self.reads.entry(id).or_default();
                *most = count.max(*most);
            } else if bytes.starts_with(SETTINGS_MARK) {
                let found = keys.iter().find_map(|(_, keys)| Settings::decode(bytes, keys.account()));
                let newest = self.settings.take().into_iter().chain(found).max_by_key(|(commit, _)| *commit);
                self.settings = newest;
            }
        }
    }

    /// Whether the keys are not those of the store: an empty one, or one from before a change of key, would then be made
    /// of it. Where nothing says which account is in force, what the keys verify speaks for them.
    fn is_of_another_key(&self, layout: &Layout, keys: &[Owner]) -> bool {
        let is_in_force = |account: AccountId| keys.iter().any(|(_, keys)| keys.account() == account);
        in_force(layout).map_or(self.versions.is_empty() && self.has_rows, |account| !is_in_force(account))
    }

    fn take_record(&mut self, row: &RecordRow, bytes: &[u8], keys: &[Owner]) {
        let candidate = keys.iter().find_map(|(_, owner)| candidate(row, bytes, owner, &keys[0].1));
        let Some(candidate) = candidate else { return };
        self.counter = self.counter.max(candidate.clear.stamp.counter);
        let versions = self.versions.entry(candidate.clear.id).or_default();
        if versions.iter().any(|known| known.record == candidate.record) {
            return;
        }
        versions.push(candidate);
        versions.sort_by(|a, b| Record::order((&b.clear, &b.record.auth), (&a.clear, &a.record.auth)));
        versions.truncate(VERSIONS);
    }

    /// Takes the newest version of each entry whose value is whole.
    fn choose(&self, layout: &Layout) -> Kept {
        let mut kept = Kept { versions: Vec::new(), entries: 0, lost: Vec::new() };
        for versions in self.versions.values() {
            let whole = versions.iter().position(|version| self.is_whole(layout, &version.clear));
            if whole != Some(0) {
                kept.lost.push(versions[0].words());
            }
            if let Some(at) = whole {
                kept.entries += u64::from(versions[at].clear.kind == Kind::VALUE);
                kept.versions.push(versions[at].clone());
            }
        }
        kept.lost.sort();
        kept.versions.sort_by_key(|version| version.clear.stamp);
        kept
    }

    fn is_whole(&self, layout: &Layout, clear: &Clear) -> bool {
        if clear.has_blob() {
            check::verify_blob(layout, clear).unwrap_or(false)
        } else {
            !clear.has_inline() || self.values.contains_key(&clear.value_hash)
        }
    }

    fn sealed_value(&self, clear: &Clear) -> io::Result<Option<Vec<u8>>> {
        let Some((log, offset, length)) = self.values.get(&clear.value_hash).filter(|_| clear.has_inline()) else {
            return Ok(None);
        };
        let mut sealed = vec![0; *length];
        self.logs[*log].read_exact_at(&mut sealed, *offset)?;
        Ok(Some(sealed))
    }
}

/// Verifies a record as its owner can, and seals it anew where another key is in force.
fn candidate(row: &RecordRow, bytes: &[u8], owner: &Access, in_force: &Access) -> Option<Candidate> {
    let clear = row.verify(bytes, owner).ok()?;
    let record = &row.record;
    let is_same = owner.account() == in_force.account();
    let Some(keys) = owner.full().filter(|_| clear.is_known()) else {
        return is_same.then(|| Candidate { clear, record: record.clone(), subject: Subject::Unknown });
    };
    let bytes = seal::open_bytes(keys, &clear, record).ok()?;
    let header = Header::decode(bytes.as_slice()).ok()?;
    let subject = Subject::of(&header);
    if is_same {
        return Some(Candidate { clear, record: record.clone(), subject });
    }
    // The grant of a link would have to be sealed anew too, and may not have been found yet. Where the change of key
    // was over, the links of the key in force are there beside it; where it was not, this key is not in force.
    let keys = in_force.full().filter(|_| clear.kind != Kind::LINK)?;
    let clear = Clear { id: seal::id_of(keys, &header)?, ..clear };
    Some(Candidate { clear, record: seal::seal(keys, &clear, &bytes), subject })
}

/// Builds the new store under another name.
fn build(layout: &Layout, salvage: &Salvage, kept: &Kept, keys: Access) -> Result<(), OpenError> {
    let at = layout.store_new();
    layout::remove_directory(&at.0).map_err(OpenError::io("remove", &at.0))?;
    let mut seed = Seed::random(keys.account(), &Random::system())?;
    seed.settings = salvage.settings.as_ref().map_or(seed.settings, |(_, settings)| settings.clone());
    seed.counter = salvage.counter;
    let account = keys.account();
    let filled = create::begin(&at, &seed).and_then(|db| {
        let index = Index::new(db, &at, keys)?;
        let (mut state, mut tally) = (index.state()?, index.tally(account)?);
        for batch in kept.versions.chunks(BATCH) {
            state.commit += 1;
            write(&index, salvage, batch, state, &mut tally)?;
        }
        index.make_durable()?;
        let (witness, _) = Witness::open(&at.witness())?;
        witness.write(index::mark([0; 16], state, account, &tally))?;
        Ok(())
    });
    filled.map_err(|fault| failed(layout, fault))?;
    create::seal_off(&at).map_err(OpenError::io("make", &at.0))
}

fn write(index: &Index, salvage: &Salvage, batch: &[Candidate], state: State, tally: &mut Tally) -> Result<(), Fault> {
    let mut changes = Changes::default();
    for Candidate { clear, record, subject } in batch {
        tally.last = Seq(tally.last.0 + 1);
        let row = RecordRow { seq: tally.last, record: record.clone() };
        let new = Version::new(&row, *clear);
        row::toggle(&mut tally.digest, &new.auth);
        tally.content += new.bytes;
        let sealed_value = salvage.sealed_value(clear)?;
        let step = Step { subject: subject.clone(), old: None, new, row, sealed_value, blob: None, via: row::HERE };
        let account = index.account.keys.account();
        plan::write_step(&mut changes, account, clear.id, &step);
        if let Some(count) = salvage.reads.get(&clear.id).filter(|_| clear.kind == Kind::LINK) {
            changes.reads.insert(&clear.id.0, row::encode_reads(clear.id, *count, account));
        }
    }
    index::write_progress(&mut changes.meta, state, index.account.keys.account(), *tally);
    index.apply(&index.account.trees, &changes)
}

/// Moves the old store aside, after all files that the new one does not need, and puts the new one in its place.
fn move_aside(layout: &Layout, kept: &Kept) -> io::Result<PathBuf> {
    let mut seconds = now_us() / 1_000_000;
    let aside = loop {
        let aside = layout.root().join(format!("damaged-{seconds}"));
        if !aside.exists() {
            break aside;
        }
        seconds += 1;
    };
    layout::make_directory(&aside)?;
    layout::make_directory(&aside.join("blobs"))?;
    fs::copy(layout.key(), aside.join(paths::KEY))?;
    fs::File::open(aside.join(paths::KEY))?.sync_all()?;
    layout::sync_directory(&aside)?;
    reached("repair.aside");
    // While the old store is in force: a start of the new one removes files to which nothing refers.
    move_files(layout, kept, &aside.join("blobs"))?;
    fs::rename(layout.store_new().0, layout.store_next().0)?;
    reached("repair.next");
    layout::sync_directory(layout.root())?;
    if layout.store().0.exists() {
        fs::rename(layout.store().0, aside.join(paths::STORE))?;
        reached("repair.moved");
        layout::sync_directory(&aside)?;
        layout::sync_directory(layout.root())?;
    }
    fs::rename(layout.store_next().0, layout.store().0)?;
    reached("repair.placed");
    layout::sync_directory(layout.root())?;
    Ok(aside)
}

/// Moves the files that the new store does not need.
fn move_files(layout: &Layout, kept: &Kept, to: &Path) -> io::Result<()> {
    let versions = kept.versions.iter().filter(|version| version.clear.has_blob());
    let needed: HashSet<_> = versions.map(|version| version.clear.value_hash).collect();
    for file in fs::read_dir(layout.blobs())? {
        let file = file?;
        let mut hash = [0; 32];
        let is_needed = decode_hex(&file.file_name().to_string_lossy(), &mut hash) && needed.contains(&ValueHash(hash));
        if !is_needed {
            fs::rename(file.path(), to.join(file.file_name()))?;
            reached("repair.blob");
        }
    }
    layout::sync_directory(to)?;
    layout::sync_directory(&layout.blobs())
}
