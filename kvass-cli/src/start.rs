//! Starting kvassd on demand, and what became of a kvassd that was started.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::Error;
use crate::place::{Place, variable};

/// How long after a quiet exit another one is started: the one that held the lock may have been about to end.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A kvassd that this client started.
#[derive(Debug)]
pub(crate) struct Started {
    child: Child,
    /// When it ended quietly, because another holds the directory.
    yielded: Option<Instant>,
    /// Whether a daemon has greeted since, so that how this one ends says nothing of why none serves.
    pub(crate) served: bool,
}

impl Started {
    /// Starts kvassd for `place` on demand.
    pub(crate) fn new(place: &Place) -> Result<Self, Error> {
        let mut arguments = naming(place);
        arguments.push("--on-demand".into());
        Self::with(&find()?, &arguments)
    }

    /// Starts `program` with `arguments`, apart from this process as far as may be.
    pub(crate) fn with(program: &Path, arguments: &[OsString]) -> Result<Self, Error> {
        let child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| Error::failed(format!("cannot start {}", program.display())).because(cause))?;
        Ok(Self { child, yielded: None, served: false })
    }

    /// Whether another one should be started; an error where this one failed.
    pub(crate) fn is_over(&mut self) -> Result<bool, Error> {
        if self.yielded.is_none() {
            match self.child.try_wait() {
                Ok(Some(_)) if self.served => return Ok(true),
                Ok(Some(status)) if status.success() => self.yielded = Some(Instant::now()),
                Ok(Some(status)) => return Err(self.failure(status)),
                Ok(None) | Err(_) => {}
            }
        }
        Ok(self.yielded.is_some_and(|at| at.elapsed() >= AGAIN_AFTER))
    }

    /// What it wrote on its standard error before it ended: the last line is its reason.
    fn failure(&mut self, status: ExitStatus) -> Error {
        let text = self.written();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let Some(last) = lines.next_back() else {
            return Error::failed(format!("kvassd ended before it served: {status}"));
        };
        if let Some(hint) = last.strip_prefix("hint: ") {
            let sentence = lines.next_back().unwrap_or("kvassd ended before it served");
            return Error::failed(without_name(sentence)).hint(hint);
        }
        Error::failed(without_name(last))
    }

    fn written(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            // It has ended; but whoever inherited the pipe must not hold this client up.
            if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
                let _ = pipe.read_to_end(&mut bytes);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The arguments that tell kvassd which store is meant.
pub(crate) fn naming(place: &Place) -> Vec<OsString> {
    let mut arguments = vec!["--db".into(), place.directory.clone().into_os_string()];
    if place.socket_named {
        arguments.extend(["--socket".into(), place.socket.clone().into_os_string()]);
    }
    arguments
}

fn without_name(line: &str) -> &str {
    line.strip_prefix("kvassd: ").unwrap_or(line)
}

/// Finds kvassd beside this program, else in `PATH`, never in the current directory.
pub(crate) fn find() -> Result<PathBuf, Error> {
    beside().or_else(in_path).ok_or_else(|| {
        Error::failed("kvassd was found neither beside kvass nor in PATH").hint("install both programs together")
    })
}

fn beside() -> Option<PathBuf> {
    let program = fs::canonicalize(std::env::current_exe().ok()?).ok()?;
    Some(program.parent()?.join("kvassd")).filter(|path| executable(path))
}

fn in_path() -> Option<PathBuf> {
    let path = variable("PATH")?;
    let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    places.map(|place| place.join("kvassd")).find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
