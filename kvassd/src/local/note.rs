//! The line that a client shows, at most once an hour, where changes do not reach the remote.

use std::sync::Mutex;

use kvass_proto::v1::link::State;

use crate::store::Store;
use crate::sync::remote::Remote;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Rows of the log that are looked at: a command must not wait for more.
const ROWS: usize = 1_024;

/// When what was last done, in microseconds since 1970.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Last>);

#[derive(Default)]
struct Last {
    given_us: u64,
    looked_us: u64,
}

impl Notes {
    /// What the user should know now. It never waits, and looks into the store at most once a minute.
    pub(crate) fn due(&self, store: &Store, remote: &Remote) -> Option<String> {
        let (state, error) = remote.state()?;
        let now_us = store.surroundings().clock.now_us();
        // Whoever else holds it gives the note.
        let mut last = self.0.try_lock().ok()?;
        // Also where the clock was set back.
        if now_us.abs_diff(last.given_us) < HOUR {
            return None;
        }
        let text = match state {
            State::Blocked => format!("not in step with the remote: {error}"),
            _ if now_us.abs_diff(last.looked_us) < MINUTE => return None,
            _ => {
                last.looked_us = now_us;
                waiting(age_us(store, now_us)?, &error)?
            }
        };
        last.given_us = now_us;
        Some(format!("{text}; 'kvass status' tells more"))
    }
}

/// For how long the oldest change has waited.
fn age_us(store: &Store, now_us: u64) -> Option<u64> {
    let since_us = store.oldest_waiting_us(ROWS).ok().filter(|since_us| *since_us != 0)?;
    Some(now_us.saturating_sub(since_us))
}

fn waiting(age_us: u64, error: &str) -> Option<String> {
    let age = match age_us {
        ..HOUR => return None,
        HOUR..DAY => format!("{} h", age_us / HOUR),
        DAY.. if age_us / DAY == 1 => "1 day".into(),
        DAY.. => format!("{} days", age_us / DAY),
    };
    let why = if error.is_empty() { String::new() } else { format!(": {error}") };
    Some(format!("changes have not reached the remote for {age}{why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::{Clock, now_us};
    use crate::store::{Options, StoreId, Surroundings};
    use crate::sync::remote::Trust;

    const OPTIONS: Options = Options { value_max: 1 << 20, reserve: 4 << 20 };

    struct Place {
        directory: tempfile::TempDir,
        time_us: Arc<AtomicU64>,
    }

    impl Place {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), time_us: Arc::new(AtomicU64::new(now_us())) }
        }

        fn open(&self) -> Store {
            let time_us = Arc::clone(&self.time_us);
            let clock = Clock::new(move || time_us.load(Ordering::Relaxed));
            let surroundings = Surroundings { clock, ..Surroundings::system() };
            Store::open_in(self.directory.path(), OPTIONS, surroundings, &|_| ()).unwrap()
        }

        fn pass(&self, us: u64) {
            self.time_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    fn set(store: &Store, name: &str) {
        let mut writer = store.writer(None).unwrap();
        writer.push(b"x").unwrap();
        store.set(name, writer.finish().unwrap(), 0).unwrap();
    }

    #[test]
    fn changes_that_wait_are_told_once_an_hour_also_after_a_restart() {
        let place = Place::new();
        let store = place.open();
        let (remote, notes) = (Remote::new(store.clone(), Trust::default()), Notes::default());
        set(&store, "a");
        place.pass(2 * DAY);
        assert_eq!(notes.due(&store, &remote), None, "no remote");
        store.set_remote("http://127.0.0.1:1".into()).unwrap();
        assert_eq!(notes.due(&store, &remote), None, "it was set only now");
        place.pass(HOUR - 1);
        assert_eq!(notes.due(&store, &remote), None);
        place.pass(1);
        assert_eq!(notes.due(&store, &remote), None, "it was looked at within the last minute");
        place.pass(MINUTE);
        let told =
            |age: &str| Some(format!("changes have not reached the remote for {age}; 'kvass status' tells more"));
        assert_eq!(notes.due(&store, &remote), told("1 h"));
        place.pass(HOUR - 1);
        assert_eq!(notes.due(&store, &remote), None);
        place.pass(1);
        assert_eq!(notes.due(&store, &remote), told("2 h"));
        store.close();
        place.pass(DAY);

        let store = place.open();
        let (remote, notes) = (Remote::new(store.clone(), Trust::default()), Notes::default());
        assert_eq!(notes.due(&store, &remote), told("1 day"));
        store.close();
    }

    #[test]
    fn what_the_remote_holds_does_not_wait_and_a_new_change_is_young() {
        let place = Place::new();
        let store = place.open();
        let (remote, notes, peer) = (Remote::new(store.clone(), Trust::default()), Notes::default(), StoreId([7; 16]));
        store.set_remote("http://127.0.0.1:1".into()).unwrap();
        store.meet_remote(peer).unwrap();
        set(&store, "a");
        store.acknowledge(store.identity().1, peer, store.head(), &[]);
        place.pass(3 * DAY);
        assert_eq!(notes.due(&store, &remote), None);
        set(&store, "b");
        place.pass(HOUR - 1);
        assert_eq!(notes.due(&store, &remote), None);
        place.pass(2 * DAY);
        assert!(notes.due(&store, &remote).unwrap().contains("for 2 days"));
        store.close();
    }

    #[test]
    fn a_wait_is_told_in_hours_and_days_with_its_cause() {
        assert_eq!(waiting(HOUR - 1, ""), None);
        assert_eq!(waiting(DAY - 1, "").unwrap(), "changes have not reached the remote for 23 h");
        assert_eq!(waiting(2 * DAY - 1, "x").unwrap(), "changes have not reached the remote for 1 day: x");
        assert_eq!(waiting(9 * DAY, "").unwrap(), "changes have not reached the remote for 9 days");
    }
}
