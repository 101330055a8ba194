//! What happened in a world, and when: the same for the same seed.

use sha2::{Digest, Sha256};

/// Takes events; prints them where that is wanted.
#[derive(Default)]
pub struct Trace {
    pub events: Vec<String>,
    pub print: bool,
}

impl Trace {
    pub fn add(&mut self, seconds: f64, host: &str, what: &str) {
        let event = format!("{seconds:>8.2} {host:<8} {what}");
        if self.print {
            println!("{event}");
        }
        self.events.push(event);
    }

    /// The hash of all events, as hex.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        self.events.iter().for_each(|event| hash.update(event));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
