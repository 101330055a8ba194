//! The committer: the one thread that writes to the index.
//!
//! It takes what is waiting, applies it in one transaction, makes it durable, writes the witness, and only then answers
//! everybody. On any error there but a full disk it answers nobody and the process ends, so that the next opening
//! decides what was stored. What a crash leaves is the state before the commit or after it.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::index::{self, Changes, Fault, Index, mark};
use super::merge::{Arrival, Merged, Target};
use super::pass::Pass;
use super::peers::{Cursor, Opening, StoreId};
use super::plan::{self, Change, Plan, Planned, Step};
use super::rekey::{Rekey, Rekeyed};
use super::row::{State, Tally};
use super::settings::Settings;
use super::shares::Count;
use super::space::Purpose;
use super::witness::Witness;
use super::{Outcome, Position, Shared, WriteError, open};
use crate::failpoint::reached;
use crate::keys::{AccountId, Key};
use crate::record::{RecordId, ValueHash};

/// The most changes of one commit.
const CHANGES: usize = 256;

/// How often an index that waits for space is tried again: space on a disk is nothing that one could wait for.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// Where an answer goes.
pub(crate) type Answer<T> = SyncSender<Result<T, WriteError>>;

/// What the committer is asked to do.
pub(crate) enum Job {
    Write {
        changes: Vec<Change>,
        answer: Answer<Vec<Outcome>>,
    },
    /// Puts another key in force, and with it another remote where one is named.
    SetKey {
        key: Key,
        remote: Option<String>,
        confirmed: bool,
        answer: Answer<Rekeyed>,
    },
    SetPid {
        pid: u32,
        answer: Answer<()>,
    },
    /// Records that came from a peer, and how far its log is held with them.
    Merge {
        target: Target,
        arrivals: Vec<Arrival>,
        from: Opening,
        cursor: Option<Cursor>,
        answer: Answer<Merged>,
    },
    Fork {
        own: StoreId,
        answer: Answer<()>,
    },
    SetRemote {
        remote: String,
        answer: Answer<()>,
    },
    MeetRemote {
        peer: StoreId,
        answer: Answer<()>,
    },
    /// What is `None` stays.
    SetPublicUrl {
        own: Option<String>,
        remote: Option<String>,
        answer: Answer<()>,
    },
    /// A read of a link that may be read `allowed` times.
    CountRead {
        locator: RecordId,
        allowed: u64,
        answer: Answer<Count>,
    },
    /// Files that nothing referred to at the start; those to which nothing refers now are removed.
    Sweep(Vec<ValueHash>),
    /// Nothing but an answer.
    Ping(Answer<()>),
    Close,
}

/// What the committer owns.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) witness: Witness,
    pub(crate) run: [u8; 16],
    pub(crate) state: State,
    pub(crate) tally: Tally,
    pub(crate) rekey: Option<Rekey>,
    /// When the store, since it was opened, last took another id because its history had forked.
    pub(crate) forked_us: Option<u64>,
    /// Taken from `jobs`, and to be done next.
    pub(crate) next: Option<Job>,
}

type Waiting = Vec<(Answer<Vec<Outcome>>, Vec<Outcome>)>;

impl Committer {
    /// Works until it is told to close, or until nobody is left who could ask.
    pub(crate) fn run(mut self) {
        loop {
            let job = self.take();
            if !self.serve(job) {
                return;
            }
        }
    }

    /// Does all that waits and returns: the life of a committer without a thread. `false` where it was told to close.
    pub(crate) fn run_waiting(&mut self) -> bool {
        loop {
            let is_idle = self.rekey.is_none() && self.next.is_none();
            if is_idle {
                match self.jobs.try_recv() {
                    Ok(job) => self.next = Some(job),
                    Err(_) => return true,
                }
            }
            let job = self.take();
            if !self.serve(job) {
                return false;
            }
        }
    }

    /// Does one job, or goes on with a change of key; `false` where it was told to close, and has.
    fn serve(&mut self, job: Option<Job>) -> bool {
        match job {
            Some(Job::Write { changes, answer }) => {
                self.commit(changes, answer);
                // Else a change of key would wait for ever beside many writers.
                self.continue_rekey();
            }
            Some(Job::SetKey { key, remote, confirmed, answer }) => self.start_rekey(key, remote, confirmed, answer),
            Some(Job::SetPid { pid, answer }) => self.set_pid(pid, &answer),
            Some(Job::Merge { target, arrivals, from, cursor, answer }) => {
                let _ = answer.send(self.merge(target, arrivals, from, cursor));
            }
            Some(Job::Fork { own, answer }) => drop(answer.send(self.fork(own))),
            Some(Job::SetRemote { remote, answer }) => drop(answer.send(self.set_remote(remote))),
            Some(Job::MeetRemote { peer, answer }) => drop(answer.send(self.meet_remote(peer))),
            Some(Job::SetPublicUrl { own, remote, answer }) => {
                drop(answer.send(self.set_public_url(own, remote)));
            }
            Some(Job::CountRead { locator, allowed, answer }) => {
                drop(answer.send(self.count_read(locator, allowed)));
            }
            Some(Job::Sweep(files)) => self.sweep(files),
            Some(Job::Ping(answer)) => drop(answer.send(Ok(()))),
            Some(Job::Close) => {
                self.close();
                return false;
            }
            None => self.continue_rekey(),
        }
        true
    }

    /// The next job; `None` where nobody waits and a change of key can go on, or where it is about to end: what is
    /// written would be sealed anew faster than it is taken otherwise.
    fn take(&mut self) -> Option<Job> {
        if self.rekey.as_ref().is_some_and(Rekey::is_ending) {
            return None;
        }
        if let Some(job) = self.next.take() {
            return Some(job);
        }
        if self.rekey.is_none() {
            return Some(self.wait());
        }
        match self.jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Job::Close),
        }
    }

    /// Waits for a job. An index that waits for space is opened meanwhile as soon as there is some.
    fn wait(&mut self) -> Job {
        loop {
            if self.shared.is_open() {
                return self.jobs.recv().unwrap_or(Job::Close);
            }
            match self.jobs.recv_timeout(LOOK) {
                Ok(job) => return job,
                Err(RecvTimeoutError::Timeout) => drop(self.recover(None)),
                Err(RecvTimeoutError::Disconnected) => return Job::Close,
            }
        }
    }

    /// Commits a write, together with all other writes that are waiting.
    fn commit(&mut self, changes: Vec<Change>, answer: Answer<Vec<Outcome>>) {
        let shared = Arc::clone(&self.shared);
        let guard = shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = &*guard else {
            let _ = answer.send(Err(shared.space.full()));
            return;
        };
        let mut plan = Plan::new(index, &shared, self.state, self.tally);
        let waiting = self.gather(&mut plan, changes, answer);
        if plan.is_empty() {
            answer_all(waiting, Ok);
            return;
        }
        reached("commit.planned");
        let (mut changes, planned) = plan.finish();
        let saved = shared.peers().write(&mut changes.meta, index.account.keys.account());
        // The pass must see a record as it was or as it is, and know which.
        let pass = shared.pass.lock();
        let committed = index.apply(&index.account.trees, &changes).and_then(|()| index.make_durable());
        drop(guard);
        let landed = self.land(committed, planned, pass, &saved);
        answer_all(waiting, |outcomes| if landed { Ok(outcomes) } else { Err(shared.space.full()) });
        reached("commit.answered");
        shared.space.lay_ballast();
    }

    /// Makes a commit known once it is durable; `false` where the disk was too full for it.
    pub(crate) fn land(
        &mut self,
        committed: Result<(), Fault>,
        planned: Planned,
        mut pass: MutexGuard<'_, Pass>,
        saved: &[StoreId],
    ) -> bool {
        let Planned { state, tally, steps } = planned;
        if !self.has_landed(committed, state.commit) {
            return false;
        }
        (self.state, self.tally) = (state, tally);
        for (id, step) in &steps {
            pass.changed(*id, step.old.as_ref(), &step.new);
        }
        pass.expected = tally.digest;
        // The witness may wait for space, and whoever asks for the content would wait with it.
        drop(pass);
        self.write_witness();
        self.shared.peers().saved(saved);
        self.settle(steps);
        reached("commit.settled");
        true
    }

    /// Adds a write and all others that wait to the plan. Who cannot be served is answered at once.
    fn gather(&mut self, plan: &mut Plan<'_>, changes: Vec<Change>, answer: Answer<Vec<Outcome>>) -> Waiting {
        let mut waiting = Vec::new();
        let mut job = Some((changes, answer));
        let mut count = 0;
        while let Some((changes, answer)) = job.take() {
            count += changes.len();
            match self.allow(&changes).and_then(|()| plan.add(changes)) {
                Ok(outcomes) => waiting.push((answer, outcomes)),
                Err(error) => drop(answer.send(Err(error))),
            }
            if count < CHANGES {
                job = self.next_write();
            }
        }
        waiting
    }

    /// Whether a commit is on the disk, after all that a full disk needs. Ends the process where nobody can tell.
    pub(crate) fn has_landed(&mut self, committed: Result<(), Fault>, commit: u64) -> bool {
        match committed {
            Ok(()) => true,
            Err(Fault::Full) => self.recover(Some(commit)),
            Err(Fault::Other(what)) => fatal(&what),
        }
    }

    /// Another write that waits; anything else that waits is kept for later.
    fn next_write(&mut self) -> Option<(Vec<Change>, Answer<Vec<Outcome>>)> {
        match self.jobs.try_recv().ok()? {
            Job::Write { changes, answer } => Some((changes, answer)),
            other => {
                self.next = Some(other);
                None
            }
        }
    }

    fn allow(&self, changes: &[Change]) -> Result<(), WriteError> {
        if let Some(what) = self.shared.names.damage() {
            return Err(WriteError::Damaged(what));
        }
        let stores = changes.iter().any(|change| matches!(change, Change::Set { .. } | Change::Share { .. }));
        self.shared.space.check(0, if stores { Purpose::Store } else { Purpose::Remove })
    }

    /// Tells everybody else what is durable now, and frees what was replaced.
    fn settle(&mut self, steps: Vec<(RecordId, Step)>) {
        for (id, mut step) in steps {
            if let Some(file) = step.blob.take() {
                file.keep();
            }
            self.shared.note(&step.subject, &step.new.clear);
            self.sweep(self.shared.downloads.stored(id, step.new.clear.stamp));
            if let Some(hash) = step.old.and_then(|old| plan::replaced_blob(&old, &step.new)) {
                self.remove_blob(hash);
            }
            if let Some(rekey) = &mut self.rekey {
                rekey.changed(id);
            }
        }
        self.announce();
    }

    /// Wakes those who wait for changes.
    pub(crate) fn announce(&self) {
        let account = self.shared.read_index(|index| Ok(index.account.keys.account()));
        if let Ok(account) = account {
            self.shared.commits.send_replace(Position { account, seq: self.tally.last });
        }
    }

    pub(crate) fn write_witness(&self) {
        let Ok(account) = self.shared.read_index(|index| Ok(index.account.keys.account())) else { return };
        let mark = mark(self.run, self.state, account, &self.tally);
        while let Err(error) = self.witness.write(mark) {
            // Some file systems need space to write over what is there.
            if error.kind() != ErrorKind::StorageFull || self.shared.names.is_closed() {
                fatal(&format!("the witness cannot be written: {error}"));
            }
            let _ = self.shared.space.drop_ballast();
            std::thread::sleep(LOOK);
        }
        reached("witness.written");
    }

    pub(crate) fn remove_blob(&self, hash: ValueHash) {
        if let Err(error) = super::layout::remove_file(&self.shared.layout.blob(hash)) {
            tracing::warn!(%error, "a replaced value stays on the disk until the next start");
        }
        reached("blob.removed");
    }

    /// Opens the index anew after it met a full disk: sled takes no more writes in this life. Says whether the commit
    /// of that number is in it. A change of key under way is given up.
    pub(crate) fn recover(&mut self, commit: Option<u64>) -> bool {
        let shared = Arc::clone(&self.shared);
        if shared.is_open() {
            tracing::error!("the disk is full");
        }
        let _ = shared.space.drop_ballast();
        // Its trees would keep sled from being opened again.
        if let Some(rekey) = self.rekey.take() {
            rekey.refuse(shared.space.full());
        }
        loop {
            let mut slot = shared.index.write().unwrap_or_else(PoisonError::into_inner);
            *slot = None;
            let opened = open::reopen(&shared.layout);
            match opened.and_then(|(index, _)| Ok((self.take_up(&index, commit)?, index))) {
                Ok((landed, index)) => {
                    *slot = Some(index);
                    return landed;
                }
                Err(Fault::Full) if commit.is_none() => return false,
                Err(Fault::Full) => drop(slot),
                Err(Fault::Other(what)) => fatal(&what),
            }
            if shared.names.is_closed() {
                fatal("the daemon ends while the disk is full");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Takes the state of an index that was opened anew; what it holds is made durable before anybody hears of it.
    fn take_up(&mut self, index: &Index, commit: Option<u64>) -> Result<bool, Fault> {
        index.make_durable()?;
        let (state, tally) = (index.state()?, index.tally(index.account.keys.account())?);
        // It may be behind by batches of a change of key, which nobody was told of; the witness knows what somebody
        // was told.
        let landed = commit == Some(state.commit);
        if !landed {
            (self.state, self.tally) = (state, tally);
        }
        Ok(landed)
    }

    fn set_pid(&mut self, pid: u32, answer: &Answer<()>) {
        let settings = Settings { pid, ..self.shared.settings() };
        let written = self.write_settings(&settings, |meta, _| meta.insert(index::meta::PID, &pid.to_be_bytes()[..]));
        if written.is_ok() {
            self.shared.set_pid(pid);
        }
        let _ = answer.send(written);
    }

    /// Commits changes of `meta` alone.
    pub(crate) fn write_meta(&mut self, change: impl FnOnce(&mut sled::Batch, AccountId)) -> Result<(), WriteError> {
        self.write_rows(|changes, account| change(&mut changes.meta, account))
    }

    /// Commits changes of what is set, and beside them the row from which a repair takes it.
    pub(crate) fn write_settings(
        &mut self,
        settings: &Settings,
        change: impl FnOnce(&mut sled::Batch, AccountId),
    ) -> Result<(), WriteError> {
        let commit = self.state.commit + 1;
        self.write_meta(|meta, account| {
            settings.write(meta, commit, account);
            change(meta, account);
        })
    }

    /// Commits changes that leave all records as they are.
    pub(crate) fn write_rows(&mut self, change: impl FnOnce(&mut Changes, AccountId)) -> Result<(), WriteError> {
        let state = State { commit: self.state.commit + 1, ..self.state };
        let written = self.shared.read_index(|index| {
            let mut changes = Changes::default();
            let account = index.account.keys.account();
            change(&mut changes, account);
            index::write_progress(&mut changes.meta, state, account, self.tally);
            index.apply(&index.account.trees, &changes).and_then(|()| index.make_durable())
        });
        if !self.has_landed(written, state.commit) {
            return Err(self.shared.space.full());
        }
        self.state = state;
        self.write_witness();
        Ok(())
    }

    /// Removes those of these files to which nothing refers.
    pub(crate) fn sweep(&self, files: Vec<ValueHash>) {
        for hash in files {
            let known = self.shared.read_index(|index| Ok(index.account.trees.blobs.contains_key(hash.0)?));
            if matches!(known, Ok(false)) {
                self.remove_blob(hash);
            }
        }
    }

    fn close(&mut self) {
        self.save_peers();
        if let Err(fault) = self.shared.read_index(Index::make_durable) {
            tracing::error!(%fault, "the index could not be flushed at the end");
        }
        if let Err(error) = self.witness.sync() {
            tracing::warn!(%error, "the witness could not be synced at the end");
        }
        *self.shared.index.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn answer_all(waiting: Waiting, with: impl Fn(Vec<Outcome>) -> Result<Vec<Outcome>, WriteError>) {
    for (answer, outcomes) in waiting {
        // Whoever asked may be gone.
        let _ = answer.send(with(outcomes));
    }
}

/// Ends the process: what is in memory may not be what is on the disk any more.
pub(crate) fn fatal(what: &str) -> ! {
    tracing::error!(what, "the store cannot go on; the next start decides what was stored");
    std::process::exit(3)
}
