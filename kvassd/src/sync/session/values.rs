//! The values that a session takes: which ones, how much of them is asked for, and whether what comes was asked for.
//!
//! Several are in the making at once, the smallest first, with one place for a large one, so that neither waits for the
//! other. Answers come in the order of the requests; what comes otherwise ends the session. What is asked for and not
//! written yet is bounded by the window, so the writing needs no other limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::SessionError;
use super::send::Outbox;
use super::window::Window;
use super::write::{Report, Work};
use crate::record::{Clear, ValueHash};
use crate::store::Missing;
use crate::value::{CHUNK, TAG};

/// A value of more bytes is a large one.
const SMALL: u64 = 1 << 20;

/// How many small values are in the making at once.
const PLACES: usize = 48;

/// The most bytes of one request: whole chunks.
const RANGE: u64 = 31 * (CHUNK + TAG) as u64;

/// The most requests that wait for answers; the other side allows some more.
const REQUESTS: usize = 192;

/// A range that was asked for, as far as it has not come.
struct Expected {
    hash: ValueHash,
    offset: u64,
    left: u64,
    since: Instant,
}

/// A value in the making.
struct Making {
    size: u64,
    /// What was not asked for yet; `None` until the file is open.
    missing: Option<Missing>,
    /// Bytes that were asked for and are not written.
    on_way: u64,
}

pub(super) struct Values {
    outbox: Outbox,
    work: mpsc::UnboundedSender<Work>,
    wanted: BTreeMap<(u64, ValueHash), Clear>,
    making: BTreeMap<ValueHash, Making>,
    expected: VecDeque<Expected>,
    on_way: u64,
    window: Window,
    began: Instant,
    /// Values that the other side does not have, or has something else for.
    gone: BTreeSet<ValueHash>,
    /// Values that another session takes, and those for which there is no space.
    waiting: BTreeMap<ValueHash, Clear>,
    no_space: BTreeMap<ValueHash, Clear>,
}

impl Values {
    pub(super) fn new(outbox: Outbox, work: mpsc::UnboundedSender<Work>) -> Self {
        Self {
            outbox,
            work,
            wanted: BTreeMap::new(),
            making: BTreeMap::new(),
            expected: VecDeque::new(),
            on_way: 0,
            window: Window::new(),
            began: Instant::now(),
            gone: BTreeSet::new(),
            waiting: BTreeMap::new(),
            no_space: BTreeMap::new(),
        }
    }

    /// A value is lacking.
    pub(super) fn want(&mut self, clear: Clear) {
        let hash = clear.value_hash;
        let is_known = self.making.contains_key(&hash)
            || self.gone.contains(&hash)
            || self.waiting.contains_key(&hash)
            || self.no_space.contains_key(&hash);
        if !is_known {
            self.wanted.insert((clear.size, hash), clear);
        }
    }

    /// Forgets the values that nobody needs any more.
    pub(super) fn keep(&mut self, needs: impl Fn(ValueHash) -> bool) {
        self.wanted.retain(|(_, hash), _| needs(*hash));
        self.gone.retain(|hash| needs(*hash));
        self.waiting.retain(|hash, _| needs(*hash));
        self.no_space.retain(|hash, _| needs(*hash));
        let idle: Vec<_> = self.making.keys().copied().filter(|hash| !needs(*hash)).collect();
        for hash in idle {
            self.making.remove(&hash);
            self.work(Work::Abandon(hash));
        }
    }

    pub(super) fn gone(&self) -> &BTreeSet<ValueHash> {
        &self.gone
    }

    /// Whether values wait until another session has ended with them.
    pub(super) fn waits_for_others(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waits_for_space(&self) -> bool {
        !self.no_space.is_empty()
    }

    /// Another session has ended with some value.
    pub(super) fn look_again(&mut self) {
        std::mem::take(&mut self.waiting).into_values().for_each(|clear| self.want(clear));
    }

    /// There may be space again.
    pub(super) fn space_again(&mut self) {
        std::mem::take(&mut self.no_space).into_values().for_each(|clear| self.want(clear));
    }

    /// Begins values and asks for parts, as far as there is room.
    pub(super) fn fill(&mut self) {
        self.begin(|size| size <= SMALL, PLACES);
        self.begin(|size| size > SMALL, 1);
        while self.expected.len() < REQUESTS {
            let room = self.window.bytes().saturating_sub(self.on_way);
            let Some((hash, is_large)) = self.next() else { return };
            // Requests for a large value are not made for one chunk after the other.
            if room == 0 || (is_large && self.on_way > 0 && room < self.window.bytes() / 4) {
                self.window.hold_back();
                return;
            }
            self.ask(hash, room);
        }
    }

    fn begin(&mut self, fits: impl Fn(u64) -> bool, places: usize) {
        let taken = self.making.values().filter(|making| fits(making.size)).count();
        let next = self.wanted.iter().filter(|((size, _), _)| fits(*size)).take(places.saturating_sub(taken));
        let next: Vec<_> = next.map(|(key, clear)| (*key, *clear)).collect();
        for (key, clear) in next {
            self.wanted.remove(&key);
            self.making.insert(key.1, Making { size: key.0, missing: None, on_way: 0 });
            self.work(Work::Begin(clear));
        }
    }

    /// The value of which a part is asked for next, and whether it is a large one. Small ones come first, but a quarter
    /// of the window is the large one's.
    fn next(&self) -> Option<(ValueHash, bool)> {
        let lacks = |making: &Making| making.missing.is_some_and(|missing| !missing.is_empty());
        let mut open = self.making.iter().filter(|(_, making)| lacks(making));
        let large = open.clone().find(|(_, making)| making.size > SMALL);
        let starves = large.filter(|(_, making)| making.on_way < self.window.bytes() / 4);
        let small = open.find(|(_, making)| making.size <= SMALL);
        starves.or(small).or(large).map(|(hash, making)| (*hash, making.size > SMALL))
    }

    fn ask(&mut self, hash: ValueHash, room: u64) {
        let Some(making) = self.making.get_mut(&hash) else { return };
        let most = room.min(RANGE);
        let Some((offset, length)) = making.missing.as_mut().and_then(|missing| missing.take(most)) else { return };
        let since = Instant::now();
        if self.on_way == 0 {
            self.window.begin(since - self.began);
        }
        making.on_way += u64::from(length);
        self.on_way += u64::from(length);
        self.expected.push_back(Expected { hash, offset, left: length.into(), since });
        self.outbox.urgent(Frame::BlobWant(v1::BlobWant { hash: hash.0.to_vec(), offset, length }));
    }

    /// Takes a part, which must be the next that was asked for.
    pub(super) fn part(&mut self, part: v1::BlobPart) -> Result<(), SessionError> {
        const WRONG: SessionError = SessionError::Protocol("a part of a value that was not asked for");
        let front = self.expected.front_mut().ok_or(WRONG)?;
        let length = front.left.min((CHUNK + TAG) as u64);
        if front.hash.0 != part.hash[..] || front.offset != part.offset || length != part.data.len() as u64 {
            return Err(WRONG);
        }
        let (hash, since) = (front.hash, front.since);
        front.offset += length;
        front.left -= length;
        if front.left == 0 {
            self.expected.pop_front();
        }
        let now = Instant::now();
        self.window.arrive(now - self.began, length, now - since);
        self.work(Work::Part { hash, offset: part.offset, data: part.data });
        Ok(())
    }

    /// The other side does not have what was asked for next.
    pub(super) fn is_gone(&mut self, gone: &v1::BlobGone) -> Result<(), SessionError> {
        let front = self.expected.pop_front().filter(|front| front.hash.0 == gone.hash[..]);
        let front = front.ok_or(SessionError::Protocol("a value that was not asked for is gone"))?;
        self.written(front.hash, front.left);
        if self.making.contains_key(&front.hash) {
            self.give_up(front.hash);
            self.gone.insert(front.hash);
        }
        Ok(())
    }

    fn give_up(&mut self, hash: ValueHash) {
        if self.making.remove(&hash).is_some() {
            self.work(Work::Drop(hash));
        }
    }

    /// Takes note of what the writing has come to; `Some`: the value is whole.
    pub(super) fn report(&mut self, report: Report) -> Option<ValueHash> {
        match report {
            Report::Begun(hash, missing) => {
                if let Some(making) = self.making.get_mut(&hash) {
                    making.missing = Some(missing);
                }
            }
            Report::Taken(clear) => {
                self.making.remove(&clear.value_hash);
                self.waiting.insert(clear.value_hash, clear);
            }
            Report::NoSpace(clear) => {
                self.making.remove(&clear.value_hash);
                self.no_space.insert(clear.value_hash, clear);
            }
            Report::Wrong(hash) => {
                self.making.remove(&hash);
                self.gone.insert(hash);
            }
            Report::Written(hash, bytes) => self.written(hash, bytes),
            Report::Whole(hash) => {
                self.making.remove(&hash);
                return Some(hash);
            }
        }
        None
    }

    fn written(&mut self, hash: ValueHash, bytes: u64) {
        self.on_way = self.on_way.saturating_sub(bytes);
        if let Some(making) = self.making.get_mut(&hash) {
            making.on_way = making.on_way.saturating_sub(bytes);
        }
    }

    fn work(&self, work: Work) {
        // The writing ends only when the session does.
        let _ = self.work.send(work);
    }
}
