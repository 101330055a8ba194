//! Where logs go: standard error, or, for a daemon that a client started, `kvassd.log` in the data directory, of
//! which at most 1 MiB is kept. Names, values and tokens never go there.

mod seldom;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvass_proto::paths::LOG;
use nix::fcntl::OFlag;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

pub use seldom::Seldom;

/// The name that the log takes when it is half of what is kept.
pub const OLD: &str = "kvassd.log.old";

/// Bytes after which the log takes its old name.
const HALF: u64 = 512 << 10;

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
#[error("the log {path} cannot be opened")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// Sends logs to standard error. Lines that cannot be written, as to a terminal that was closed, are lost, and nothing
/// else is: without a word, for a word about it would go to standard error, and fail, too.
pub fn to_stderr(level: Level) {
    let lines = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).log_internal_errors(false);
    let lines = lines.with_writer(io::stderr).finish();
    // A second call, as in tests, changes nothing.
    let _ = tracing::subscriber::set_global_default(lines.with(own(level)));
}

/// Sends logs to the file in `directory`.
///
/// # Errors
/// A file that cannot be opened.
pub fn to_file(level: Level, directory: &Path) -> Result<Log, LogError> {
    let path = directory.join(LOG);
    let file = LogFile::open(path.clone()).map_err(|source| LogError { path, source })?;
    let log = Log(Arc::new(Mutex::new(file)));
    let lines = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).log_internal_errors(false);
    let lines = lines.with_writer(log.clone()).finish();
    let _ = tracing::subscriber::set_global_default(lines.with(own(level)));
    Ok(log)
}

/// What is logged: this program's own lines from `level` on, and of other crates at most warnings. They would show what
/// passes through them, as the tokens of links in what HTTP/2 cannot make sense of.
fn own(level: Level) -> Targets {
    let others = LevelFilter::from_level(level).min(LevelFilter::WARN);
    Targets::new().with_default(others).with_target("kvassd", level)
}

/// The log file; a cheap clone.
#[derive(Clone, Debug)]
pub struct Log(Arc<Mutex<LogFile>>);

impl Log {
    /// Makes the file this process's standard error, which a client holds until then.
    ///
    /// # Errors
    /// What the system reports.
    pub fn take_stderr(&self) -> io::Result<()> {
        let mut file = self.lock();
        file.is_stderr = true;
        file.redirect()
    }

    fn lock(&self) -> MutexGuard<'_, LogFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Log;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    is_stderr: bool,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let (file, length) = append(&path)?;
        let mut log = Self { path, file, length, is_stderr: false };
        if log.length > HALF {
            log.turn()?;
        }
        Ok(log)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.length + line.len() as u64 > HALF {
            self.turn()?;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(line.len())
    }

    /// Gives the file its old name, in place of an older one, and begins a new one.
    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_file_name(OLD))?;
        (self.file, self.length) = append(&self.path)?;
        if self.is_stderr { self.redirect() } else { Ok(()) }
    }

    fn redirect(&self) -> io::Result<()> {
        Ok(nix::unistd::dup2_stderr(&self.file)?)
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    let length = file.metadata()?.size();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn other_crates_log_warnings_at_most() {
        for level in [Level::TRACE, Level::DEBUG, Level::WARN] {
            let own = own(level);
            for other in ["h2::server", "hyper::proto", "tonic", "rustls"] {
                assert!(own.would_enable(other, &Level::WARN) && !own.would_enable(other, &Level::INFO), "{other}");
            }
            assert!(own.would_enable("kvassd::accept", &level));
        }
        assert!(!own(Level::ERROR).would_enable("h2", &Level::WARN));
        assert!(!own(Level::INFO).would_enable("kvassd::accept", &Level::DEBUG));
    }

    #[test]
    fn a_log_of_any_length_keeps_its_newest_half_mebibyte_to_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(directory.path().join(LOG)).unwrap();
        let mut line = [b'x'; 1_024];
        line[1_023] = b'\n';
        for _ in 0..3_000 {
            log.write(&line).unwrap();
        }
        log.write(b"newest\n").unwrap();
        let size = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().len();
        assert!(size(LOG) <= HALF && size(OLD) <= HALF);
        assert!(size(LOG) + size(OLD) > HALF);
        assert!(std::fs::read(directory.path().join(LOG)).unwrap().ends_with(b"newest\n"));
        let mode = std::fs::metadata(directory.path().join(LOG)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
