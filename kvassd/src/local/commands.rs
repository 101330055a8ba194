//! The requests: decode, one call into the store, encode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvass_proto::key;
use kvass_proto::line::with_causes;
use kvass_proto::v1::list::Detail;
use kvass_proto::v1::request::Command;
use kvass_proto::v1::{self, error::Code, reply::Reply, stored};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::failure::Failure;
use super::state::Shared;
use super::wire::{Incoming, Outgoing};
use super::{list, value, watch};
use crate::keys::{EncryptionKey, Key, SyncKey};
use crate::store::{Condition, Finding, Outcome, Rekeyed, Store, WriteError};
use crate::sync::remote::{Goal, Remote, RemoteError};

/// How often a client that waits for a sync is shown how far it is.
const SHOW: Duration = Duration::from_millis(200);

/// How long that rests after counting, in times of what the counting took: it must not hold up what it counts.
const REST: u32 = 20;

/// The longest remote, in bytes.
const REMOTE_LONGEST: usize = 512;

/// How long it may take to see whether another port was meant.
const GUESS: Duration = Duration::from_secs(2);

/// A connection and what its request needs.
pub(super) struct Exchange<'a, 'from, 'out> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) store: Store,
    pub(super) remote: Remote,
    pub(super) bind: String,
    pub(super) from: &'a mut Incoming<'from>,
    pub(super) out: &'a mut Outgoing<'out>,
}

impl Exchange<'_, '_, '_> {
    /// Answers one request. What is queued still has to be flushed.
    pub(super) async fn answer(&mut self, command: Command) -> Result<(), Failure> {
        // A watch and a wait would else learn it only from the next change, a value only when it is all here.
        if needs_keys(&command) {
            self.store.readable()?;
        }
        let reply = match command {
            Command::Get(get) => return self.read(get).await,
            Command::Set(set) => self.set(set).await?,
            Command::List(query) => return self.list(query).await,
            Command::Remove(remove) => self.remove(remove).await?,
            Command::Watch(query) => {
                return watch::watch(self.shared, &self.store, (&mut *self.from, &mut *self.out), query).await;
            }
            Command::Wait(query) => {
                return watch::wait(self.shared, &self.store, (&mut *self.from, &mut *self.out), query).await;
            }
            Command::Status(v1::StatusQuery {}) => self.status().await?,
            Command::Config(v1::ConfigQuery {}) => self.config().await?,
            Command::SetKey(set) => self.set_key(set).await?,
            Command::SetPid(set) => self.set_pid(set).await?,
            Command::SetRemote(set) => self.set_remote(set).await?,
            Command::Sync(sync) => self.sync(sync).await?,
            Command::Preview(preview) => self.preview(preview).await?,
            Command::Join(join) => self.join(join).await?,
            Command::Check(v1::Check {}) => self.check().await?,
            Command::MakeShare(make) => self.make_share(make).await?,
            Command::ListShares(list) => self.list_shares(list).await?,
            Command::RevokeShares(revoke) => self.revoke_shares(revoke).await?,
            Command::SetPublicUrl(set) => self.set_public_url(set).await?,
            Command::Stop(v1::Stop {}) => {
                return Err(Failure::new(Code::Failed, "a stop is no request to the store"));
            }
        };
        Ok(self.out.reply(reply).await?)
    }

    async fn read(&mut self, get: v1::Get) -> Result<(), Failure> {
        key::check(&get.key)?;
        match self.shared.call(|| self.store.read(&get.key)).await? {
            Some(found) => value::send(self.shared, self.out, found, v1::entry::Sync::Local).await,
            None => Err(Failure::no_such_key(&get.key)),
        }
    }

    async fn set(&mut self, set: v1::Set) -> Result<Reply, Failure> {
        key::check(&set.key)?;
        let outcome = match set.value.as_deref() {
            Some(bytes) => self.shared.wait(|| store_inline(&self.store, &set, bytes)).await?,
            None => {
                let value = value::receive(self.shared, &self.store, self.from, set.size).await?;
                self.shared.wait(|| store_value(&self.store, &set, value)).await?
            }
        };
        let outcome = match outcome {
            Outcome::Stored | Outcome::Missing => stored::Outcome::Stored,
            Outcome::Unchanged => stored::Outcome::Unchanged,
            Outcome::KeptNewer => stored::Outcome::KeptNewer,
        };
        Ok(Reply::Stored(v1::Stored { outcome: outcome.into() }))
    }

    async fn list(&mut self, query: v1::List) -> Result<(), Failure> {
        let Ok(detail) = Detail::try_from(query.detail) else {
            return Err(Failure::new(Code::UnknownRequest, "the daemon does not know this kind of list"));
        };
        match detail {
            Detail::Names => list::names(self.shared, &self.store, self.out, &query).await,
            Detail::Entries => list::entries(self.shared, (&self.store, &self.remote), self.out, &query).await,
            Detail::Values => list::values(self.shared, (&self.store, &self.remote), self.out, &query).await,
        }
    }

    async fn remove(&mut self, remove: v1::Remove) -> Result<Reply, Failure> {
        if let Some(prefix) = remove.prefix {
            if !remove.keys.is_empty() {
                return Err(Failure::bad_input("keys and a prefix in one removal"));
            }
            let count = self.shared.wait(|| self.store.remove_prefix(&prefix)).await?;
            return Ok(Reply::Removed(v1::Removed { missing: Vec::new(), count }));
        }
        let mut keys = remove.keys;
        keys.iter().try_for_each(|key| key::check(key))?;
        keys.sort_unstable();
        keys.dedup();
        let asked = keys.len() as u64;
        let missing = self.shared.wait(|| self.store.remove(keys)).await?;
        let count = asked.saturating_sub(missing.len() as u64);
        Ok(Reply::Removed(v1::Removed { missing, count }))
    }

    async fn status(&mut self) -> Result<Reply, Failure> {
        let summary = self.shared.call(|| self.store.summary()).await?;
        let link = self.shared.call(|| self.remote.link()).await;
        Ok(Reply::Status(v1::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            directory: self.shared.identity().directory.to_string_lossy().into_owned(),
            keys: summary.keys,
            value_bytes: summary.value_bytes,
            disk_bytes: summary.disk_bytes,
            fingerprint: summary.fingerprint,
            remote: self.remote.url(),
            process: std::process::id(),
            started_us: self.shared.started_us(),
            verified: summary.verified,
            link,
            bind: self.bind.clone(),
            blind: summary.blind,
            records: summary.records,
            refused: self.store.refused(),
        }))
    }

    pub(super) async fn config(&mut self) -> Result<Reply, Failure> {
        self.config_after(Rekeyed::default()).await
    }

    async fn config_after(&mut self, Rekeyed { dropped }: Rekeyed) -> Result<Reply, Failure> {
        let (summary, key) = self.shared.call(|| (self.store.summary(), self.store.key())).await;
        let summary = summary?;
        let server_key = key.sync_key().to_text().to_string();
        let key = match &key {
            Key::Encryption(key) => key.as_bytes().to_vec(),
            Key::Server(_) => Vec::new(),
        };
        Ok(Reply::Config(v1::Config {
            key,
            server_key,
            dropped,
            pid: summary.pid,
            remote: self.remote.url(),
            fingerprint: summary.fingerprint,
            public_url: self.store.public_url().borrow().in_force().to_owned(),
        }))
    }

    async fn set_key(&mut self, set: v1::SetKey) -> Result<Reply, Failure> {
        let key = key_of(&self.store, &set)?;
        let store = self.store.clone();
        let rekeyed = spawn_blocking(move || store.change_key(key, set.confirmed)).await??;
        self.config_after(rekeyed).await
    }

    async fn set_pid(&mut self, set: v1::SetPid) -> Result<Reply, Failure> {
        if set.pid == 0 {
            return Err(Failure::bad_input("a process id is 1 to 4294967295"));
        }
        self.shared.wait(|| self.store.set_pid(set.pid)).await?;
        self.config().await
    }

    /// Sets the remote in any case, then looks what answers there.
    async fn set_remote(&mut self, set: v1::SetRemote) -> Result<Reply, Failure> {
        let url = set.remote;
        if url.len() > REMOTE_LONGEST {
            return Err(Failure::bad_input(format!("a remote has at most {REMOTE_LONGEST} bytes")));
        }
        self.shared.wait(|| self.store.set_remote(url.clone())).await?;
        if url.is_empty() {
            return Ok(Reply::RemoteSet(v1::RemoteSet::default()));
        }
        let found = match self.remote.probe(&url).await {
            Ok(()) => v1::RemoteSet {
                reached: true,
                found: format!("a kvassd with the same key answers at {url}"),
                hint: String::new(),
            },
            Err(error) => {
                v1::RemoteSet { reached: false, found: with_causes(&error), hint: self.hint(&url, &error).await }
            }
        };
        Ok(Reply::RemoteSet(found))
    }

    /// Whoever named no port may have meant that of `kvass serve`.
    async fn hint(&self, url: &str, error: &RemoteError) -> String {
        if let Some(host) = without_port(url)
            && !error.is_permanent()
            && let Ok(Ok(())) = timeout(GUESS, self.remote.probe(&format!("http://{host}:8000"))).await
        {
            return format!("a kvassd with the same key answers at port 8000: kvass config remote {host}:8000");
        }
        error.hint().into()
    }

    /// Ends early where the client leaves or the daemon stops.
    async fn sync(&mut self, sync: v1::Sync) -> Result<Reply, Failure> {
        let goal = goal(sync)?;
        if self.remote.url().is_empty() {
            return Err(Failure::with_hint(Code::NoRemote, "there is no remote", "kvass config remote HOST"));
        }
        let (remote, shown) = (self.remote.clone(), self.remote.clone());
        // Before the link is shown, so that what is shown is not how an attempt before this one ended.
        let question = remote.ask();
        let show = async {
            loop {
                let began = Instant::now();
                let link = self.shared.call(|| shown.link()).await;
                let counting = began.elapsed();
                let pending = link.as_ref().map_or(0, |link| link.pending);
                self.out.send(Reply::Syncing(v1::Syncing { pending, link })).await?;
                let _ = tokio::time::timeout(SHOW.max(counting * REST), shown.changed()).await;
            }
        };
        tokio::select! {
            biased;
            () = remote.reached(question, &goal) => Ok(Reply::Synced(v1::Synced {})),
            failed = show => failed,
            () = self.shared.stopping() => Err(stopping()),
            () = self.from.closed() => Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()),
        }
    }

    /// Ends early where the client leaves or the daemon stops.
    async fn check(&mut self) -> Result<Reply, Failure> {
        let (findings, mut found) = mpsc::channel::<Finding>(16);
        let store = self.store.clone();
        let checking = spawn_blocking(move || store.check(&mut |finding| findings.blocking_send(finding).is_ok()));
        let report = async {
            while let Some(Finding { problem, hint, .. }) = found.recv().await {
                self.out.send(Reply::Finding(v1::Finding { problem, hint })).await?;
            }
            Ok::<_, Failure>(checking.await??)
        };
        let checked = tokio::select! {
            checked = report => checked?,
            () = self.shared.stopping() => return Err(stopping()),
            () = self.from.closed() => return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()),
        };
        Ok(Reply::Checked(v1::Checked { records: checked.records, bytes: checked.bytes }))
    }
}

/// The key that a request names, or a new random one.
fn key_of(store: &Store, set: &v1::SetKey) -> Result<Key, Failure> {
    if !set.server_key.is_empty() {
        let key = SyncKey::from_text(&set.server_key).map(Key::Server);
        return key.ok_or_else(|| {
            Failure::with_hint(
                Code::BadInput,
                "this server key has a typing error",
                "copy it anew: 'kvass config server-key' on a device shows it",
            )
        });
    }
    match <[u8; 32]>::try_from(set.key.as_slice()).map(zeroize::Zeroizing::new) {
        Ok(key) => Ok(Key::Encryption(EncryptionKey::new(*key))),
        Err(_) if set.key.is_empty() => {
            let key = EncryptionKey::random(&store.surroundings().random).map_err(WriteError::from)?;
            Ok(Key::Encryption(key))
        }
        Err(_) => Err(Failure::bad_input(format!("an encryption key has 32 bytes and not {}", set.key.len()))),
    }
}

/// Whether a request is about entries, which a blind store does not know.
fn needs_keys(command: &Command) -> bool {
    matches!(
        command,
        Command::Get(_)
            | Command::Set(_)
            | Command::List(_)
            | Command::Remove(_)
            | Command::Watch(_)
            | Command::Wait(_)
            | Command::Preview(_)
            | Command::Join(_)
            | Command::MakeShare(_)
            | Command::ListShares(_)
            | Command::RevokeShares(_)
    )
}

/// What a client waits for.
fn goal(sync: v1::Sync) -> Result<Goal, Failure> {
    match v1::sync::Goal::try_from(sync.goal) {
        Ok(v1::sync::Goal::Both) => Ok(Goal::Both),
        Ok(v1::sync::Goal::Taken) => Ok(Goal::Taken),
        Ok(v1::sync::Goal::Held) => {
            key::check(&sync.key)?;
            Ok(Goal::Held(sync.key))
        }
        Err(_) => Err(Failure::new(Code::UnknownRequest, "the daemon does not know this kind of sync")),
    }
}

/// What a client is told whose request comes too late.
pub(super) fn stopping() -> Failure {
    Failure::new(Code::Stopping, "the daemon is stopping")
}

/// The host of a URL whose port is the one that stands for none.
fn without_port(url: &str) -> Option<&str> {
    let port = |scheme, port| url.strip_prefix(scheme)?.strip_suffix(port);
    port("http://", ":80").or_else(|| port("https://", ":443"))
}

fn store_inline(store: &Store, set: &v1::Set, bytes: &[u8]) -> Result<Outcome, WriteError> {
    let mut writer = store.writer(Some(bytes.len() as u64))?;
    writer.push(bytes)?;
    store_value(store, set, writer.finish()?)
}

fn store_value(store: &Store, set: &v1::Set, value: crate::store::NewValue) -> Result<Outcome, WriteError> {
    match set.import {
        None => store.set(&set.key, value, set.expiry_us).map(|()| Outcome::Stored),
        Some(v1::Import { time_us, force, dry_run }) => {
            store.import(&set.key, value, set.expiry_us, Condition { time_us, force, dry_run })
        }
    }
}
