//! Keeps a log short where the same things go wrong again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long what was logged is not logged again.
const AGAIN: Duration = Duration::from_secs(600);

/// The most different texts in that time: a stranger may think of new ones.
const MOST: usize = 100;

/// What was logged lately; a cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Seldom(Arc<Mutex<HashMap<String, Instant>>>);

impl Seldom {
    /// Whether a text is to be logged. Its digits do not count: how much space is free, say, differs each time.
    #[must_use]
    pub fn is_new(&self, text: &str, now: Instant) -> bool {
        let text: String = text.chars().filter(|it| !it.is_ascii_digit()).collect();
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, since| now.duration_since(*since) < AGAIN);
        if logged.len() >= MOST || logged.contains_key(&text) {
            return false;
        }
        logged.insert(text, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_but_for_numbers_is_logged_once_in_ten_minutes() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert!(seldom.is_new("1024 bytes are free", start));
        assert!(!seldom.is_new("96 bytes are free", start + AGAIN - Duration::from_secs(1)));
        assert!(seldom.is_new("nothing answers", start));
        assert!(seldom.is_new("0 bytes are free", start + AGAIN));
    }

    #[test]
    fn strangers_who_think_of_new_texts_fill_no_log() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let logged = (0..1_000).filter(|length| seldom.is_new(&"x".repeat(*length), start)).count();
        assert_eq!(logged, MOST);
        assert!(seldom.is_new("x", start + AGAIN));
    }
}
