//! What an import did, in a few lines.

use kvass_proto::v1::stored::Outcome;

/// So many keys that were kept are named.
const NAMED: usize = 20;

/// What became of the entries so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    stored: u64,
    unchanged: u64,
    kept: u64,
    named: Vec<String>,
}

impl Report {
    pub(crate) fn count(&mut self, key: String, outcome: Outcome) {
        match outcome {
            Outcome::Stored => self.stored += 1,
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::KeptNewer => {
                self.kept += 1;
                if self.named.len() < NAMED {
                    self.named.push(key);
                }
            }
        }
    }

    /// The report as a note: its first line is a sentence, the others are keys.
    pub(crate) fn text(&self, dry_run: bool) -> String {
        let would = if dry_run { "nothing was done; it would be: " } else { "" };
        let mut text = format!(
            "{would}stored {}, unchanged {}, kept because newer here {}",
            self.stored, self.unchanged, self.kept
        );
        for key in &self.named {
            text.push_str(&format!("\n  kept: {key}"));
        }
        if self.kept > self.named.len() as u64 {
            text.push_str(&format!("\n  and {} more", self.kept - self.named.len() as u64));
        }
        if self.kept > 0 {
            text.push_str("\n  (-f replaces them)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_that_were_kept_are_named() {
        let mut report = Report::default();
        report.count("a".into(), Outcome::Stored);
        report.count("b".into(), Outcome::Unchanged);
        assert_eq!(report.text(false), "stored 1, unchanged 1, kept because newer here 0");
        for number in 0..22 {
            report.count(format!("k{number}"), Outcome::KeptNewer);
        }
        let text = report.text(true);
        assert!(text.starts_with("nothing was done; it would be: stored 1"));
        assert!(text.contains("kept: k19\n  and 2 more\n"), "{text}");
    }
}
