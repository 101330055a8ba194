//! Connections that have not shown yet that they belong here: how many there may be, how long each may stay, and how
//! much it may say.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::addresses::Subnet;
use crate::network::Tap;

/// Guests at once.
pub const GUESTS: usize = 64;

/// How long a connection may be a guest.
pub const STAY: Duration = Duration::from_secs(5);

/// How long a download may stand still: its client takes another piece of it in that time, or its connection ends.
pub const STALL: Duration = Duration::from_secs(60);

/// About how many bytes a guest may send: a handshake, or a request of a browser, and some more.
pub const BYTES: usize = 16 << 10;

/// All guests, oldest first.
#[derive(Clone)]
pub(super) struct Guests {
    places: Arc<Semaphore>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, (Guest, CancellationToken)>,
    /// Those that somebody has admitted.
    admitted: BTreeMap<u64, (Guest, CancellationToken)>,
}

impl Guests {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(GUESTS)), queue: Arc::default() }
    }

    /// A place for one more. Where there is none left, another guest goes first.
    pub(super) async fn enter(&self, guest: &Guest) -> Place {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.show_out();
                #[allow(clippy::expect_used, reason = "nobody closes it")]
                Arc::clone(&self.places).acquire_owned().await.expect("a semaphore that is open")
            }
        };
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        let shown_out = CancellationToken::new();
        queue.waiting.insert(number, (guest.clone(), shown_out.clone()));
        Place { guests: self.clone(), number, shown_out, _permit: permit }
    }

    /// Ends the connection that has been a guest for longest, of those that come from where most come from; whether
    /// there was one.
    pub(super) fn show_out(&self) -> bool {
        let mut queue = self.queue();
        let Some(number) = queue.least_welcome() else { return false };
        queue.waiting.remove(&number).map(|(_, shown_out)| shown_out.cancel()).is_some()
    }

    /// Ends the connection whose download has stood still for longest, of those that come from where most come from
    /// that are given downloads and nothing else; whether there was one.
    pub(super) fn show_out_download(&self) -> bool {
        let mut queue = self.queue();
        let Some(number) = queue.least_welcome_download() else { return false };
        queue.admitted.remove(&number).map(|(_, shown_out)| shown_out.cancel()).is_some()
    }

    /// Notes a connection that is no guest any more, until what is returned is dropped.
    fn note_admitted(&self, guest: &Guest) -> Admitted {
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        let shown_out = CancellationToken::new();
        queue.admitted.insert(number, (guest.clone(), shown_out.clone()));
        Admitted { guests: self.clone(), number, shown_out }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn least_welcome(&self) -> Option<u64> {
        let from: Vec<_> = self.waiting.iter().map(|(number, (guest, _))| (*number, guest.subnet())).collect();
        first_of_most(&from)
    }

    fn least_welcome_download(&self) -> Option<u64> {
        let moved =
            |(number, (guest, _)): (&u64, &(Guest, _))| Some((guest.only_downloads()?, *number, guest.subnet()));
        let mut from: Vec<_> = self.admitted.iter().filter_map(moved).collect();
        from.sort_unstable_by_key(|(moved, number, _)| (*moved, *number));
        first_of_most(&from.into_iter().map(|(_, number, subnet)| (number, subnet)).collect::<Vec<_>>())
    }
}

/// The first one from where most come from.
fn first_of_most(from: &[(u64, Option<Subnet>)]) -> Option<u64> {
    let mut counts = HashMap::new();
    for (_, subnet) in from {
        *counts.entry(subnet).or_insert(0) += 1;
    }
    // What a proxy has not said yet is nobody's, and not the same nobody's.
    let count = |subnet: &Option<Subnet>| subnet.map_or(1, |_| counts[subnet]);
    // Of several that are greatest the last is taken.
    from.iter().rev().max_by_key(|(_, subnet)| count(subnet)).map(|(number, _)| *number)
}

/// The place of one guest, which is free again once this is dropped.
pub(super) struct Place {
    guests: Guests,
    number: u64,
    shown_out: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.queue().waiting.remove(&self.number);
    }
}

/// The note of a connection that was admitted, which goes once this is dropped.
struct Admitted {
    guests: Guests,
    number: u64,
    shown_out: CancellationToken,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.guests.queue().admitted.remove(&self.number);
    }
}

/// A connection as those see it who serve it: a guest, unless somebody has admitted it. A cheap clone.
#[derive(Clone)]
pub struct Guest(Arc<Standing>);

struct Standing {
    /// Where it comes from, as far as that is known.
    subnet: Mutex<Option<Subnet>>,
    admissions: watch::Sender<usize>,
    /// Bytes that may still come as long as nobody has admitted it.
    left: AtomicUsize,
    downloads: Mutex<Downloads>,
}

/// What a connection is given that everybody may have.
struct Downloads {
    /// Those that are not over, and when something of each was last taken; each is an admission as well.
    open: BTreeMap<u64, Instant>,
    next: u64,
    /// How long the connection may stay after the last one, as a guest.
    until: Instant,
}

impl Guest {
    pub(super) fn new(subnet: Option<Subnet>) -> Self {
        let (admissions, left) = (watch::Sender::new(0), AtomicUsize::new(BYTES));
        let downloads = Mutex::new(Downloads { open: BTreeMap::new(), next: 0, until: Instant::now() });
        Self(Arc::new(Standing { subnet: Mutex::new(subnet), admissions, left, downloads }))
    }

    /// Says where it comes from, or asks from now on.
    pub(super) fn comes_from(&self, subnet: Subnet) {
        *self.0.subnet.lock().unwrap_or_else(PoisonError::into_inner) = Some(subnet);
    }

    fn subnet(&self) -> Option<Subnet> {
        *self.0.subnet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the connection more than a guest, until what is returned is dropped: it has shown that it belongs here.
    #[must_use]
    pub fn admit(&self) -> Admission {
        self.0.admissions.send_modify(|count| *count += 1);
        Admission(self.clone())
    }

    /// Likewise, because it is given what everybody may have. The connection ends once it has taken nothing of this for
    /// [`STALL`], whatever else it takes. `stay`: how long it may be a guest afterwards.
    #[must_use]
    pub fn admit_download(&self, stay: Duration) -> Download {
        let admission = self.admit();
        let mut downloads = self.0.downloads();
        let number = downloads.next;
        downloads.next += 1;
        downloads.open.insert(number, Instant::now());
        drop(downloads);
        Download { admission, number, stay }
    }

    /// When the download moved that has stood still for longest; `None` where there is none, or the connection was
    /// admitted for something else too.
    fn only_downloads(&self) -> Option<Instant> {
        let downloads = self.0.downloads();
        let others = *self.0.admissions.borrow() > downloads.open.len();
        downloads.open.values().min().copied().filter(|_| !others)
    }

    /// Returns once the connection has to go: a guest for too long, or one of too many.
    pub(super) async fn overstays(&self, mut place: Place) {
        let mut admissions = self.0.admissions.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = admissions.wait_for(|count| *count > 0) => {}
                () = place.shown_out.cancelled() => return,
                () = self.stay() => return,
            }
            let guests = place.guests.clone();
            drop(place);
            let admitted = guests.note_admitted(self);
            tokio::select! {
                biased;
                // Neither fails: the sender is here.
                _ = admissions.wait_for(|count| *count == 0) => {}
                () = admitted.shown_out.cancelled() => return,
                () = self.stalls() => return,
            }
            drop(admitted);
            place = guests.enter(self).await;
        }
    }

    /// The time of a guest. A download may come and go within one look at the connection, and lengthens it.
    async fn stay(&self) {
        let mut until = Instant::now() + STAY;
        while Instant::now() < until {
            sleep_until(until).await;
            until = until.max(self.0.downloads().until);
        }
    }

    /// Returns once nothing but downloads goes on, and one of them has not moved for too long.
    async fn stalls(&self) {
        loop {
            let until = self.only_downloads().unwrap_or_else(Instant::now) + STALL;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A connection fails once a guest has sent more than it may. Nothing above it can hold more of what a stranger sends
/// than that.
impl Tap for Guest {
    fn allows(&self) -> io::Result<()> {
        if self.0.left.load(Ordering::Relaxed) > 0 || *self.0.admissions.borrow() > 0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a guest said too much"))
    }

    fn hear(&mut self, bytes: &[u8]) {
        // Only the connection's own task reads, so nothing is lost between the two.
        let left = self.0.left.load(Ordering::Relaxed);
        self.0.left.store(left.saturating_sub(bytes.len()), Ordering::Relaxed);
    }
}

impl Standing {
    fn downloads(&self) -> MutexGuard<'_, Downloads> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes a connection more than a guest.
pub struct Admission(Guest);

impl Drop for Admission {
    fn drop(&mut self) {
        let Standing { admissions, left, .. } = &*self.0.0;
        // What is on its way already must not cut the last words off.
        left.store(super::WINDOW as usize, Ordering::Relaxed);
        admissions.send_modify(|count| *count -= 1);
    }
}

/// An admission for a download.
pub struct Download {
    admission: Admission,
    number: u64,
    stay: Duration,
}

impl Download {
    /// Another piece of it was taken.
    pub fn moved(&self) {
        self.admission.0.0.downloads().open.insert(self.number, Instant::now());
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let mut downloads = self.admission.0.0.downloads();
        downloads.open.remove(&self.number);
        downloads.until = downloads.until.max(Instant::now() + self.stay);
    }
}
