//! Standard output, and files that appear only when they are whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};

use crate::error::Error;
use crate::foreign;

/// Where data goes.
#[derive(Debug)]
pub(crate) struct Output {
    to: BufWriter<File>,
    name: String,
    /// Whether people read it as it comes.
    pub(crate) terminal: bool,
    file: Option<Replacement>,
}

/// The file that takes the place of `target` once it is whole.
#[derive(Debug)]
struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Output {
    /// Standard output, unbuffered by the line: data may be large.
    pub(crate) fn stdout() -> Result<Self, Error> {
        let name = "standard output";
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let file = stdout
            .as_fd()
            .try_clone_to_owned()
            .map_err(|cause| Error::failed(format!("cannot write {name}")).because(cause))?;
        Ok(Self { to: buffered(file.into()), name: name.into(), terminal, file: None })
    }

    /// Standard output where `path` is absent or `-`, else a [file](Self::file).
    pub(crate) fn named(path: Option<&Path>, mode: u32, strict: bool) -> Result<Self, Error> {
        match path {
            Some(path) if path != Path::new("-") => Self::file(path, mode, strict),
            _ => Self::stdout(),
        }
    }

    /// A file that replaces `path` when it is whole. `mode` is that of a new file, less the umask; an existing file
    /// keeps its own unless `strict`. What is no regular file, as a pipe or `/dev/null`, is written as it is.
    fn file(path: &Path, mode: u32, strict: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        let cannot = |cause: io::Error| Error::input(format!("cannot write {name}")).because(cause);
        foreign::refuse_link(path).map_err(cannot)?;
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let old = fs::metadata(&target).ok();
        if old.as_ref().is_some_and(|meta| !meta.is_file()) {
            let file = OpenOptions::new().write(true).open(&target).map_err(cannot)?;
            return Ok(Self { to: buffered(file), name, terminal: false, file: None });
        }
        let temporary = temporary(&target).map_err(cannot)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(&temporary).map_err(cannot)?;
        let replacement = Replacement { temporary, target };
        if let Some(old) = old.filter(|_| !strict) {
            let permissions = Permissions::from_mode(old.permissions().mode() & 0o7777);
            file.set_permissions(permissions).map_err(cannot)?;
        }
        remove_when_interrupted(replacement.temporary.clone());
        Ok(Self { to: buffered(file), name, terminal: false, file: Some(replacement) })
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).map_err(|cause| failure(&self.name, &cause))
    }

    /// Writes a text and a newline.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Error> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.to.flush().map_err(|cause| failure(&self.name, &cause))
    }

    /// Hands on what is buffered, and puts a file durably in its place.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        let Some(replacement) = self.file.take() else { return Ok(()) };
        let done = self.to.get_ref().sync_all().and_then(|()| fs::rename(&replacement.temporary, &replacement.target));
        done.and_then(|()| sync_directory(&replacement.target)).map_err(|cause| failure(&self.name, &cause))
    }
}

fn buffered(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(64 << 10, file)
}

/// A reader that has gone is no failure: it has read enough.
fn failure(name: &str, cause: &io::Error) -> Error {
    match cause.kind() {
        ErrorKind::BrokenPipe => Error::Silent(0),
        _ => Error::failed(format!("cannot write {name}")).because(cause),
    }
}

/// A hidden name beside the target, so that a rename puts it in place.
fn temporary(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(ErrorKind::IsADirectory)?;
    let mut hidden = std::ffi::OsString::from(".");
    // The whole of a long name would make one that is too long.
    hidden.push(name.to_string_lossy().chars().take(50).collect::<String>());
    hidden.push(format!(".kvass-{}", std::process::id()));
    Ok(target.with_file_name(hidden))
}

fn sync_directory(target: &Path) -> io::Result<()> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|directory| directory.sync_all()) {
        // Some file systems cannot; the file is there all the same.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

/// Removes the temporary file where a signal ends the program: a thread waits for it, since handlers need `unsafe`.
fn remove_when_interrupted(temporary: PathBuf) {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            let _ = fs::remove_file(&temporary);
            std::process::exit(128 + signal as i32);
        }
    });
}

/// Whether a terminal would not show these bytes as they are. With `cut`, a character may be incomplete at the end.
pub(crate) fn is_binary(bytes: &[u8], cut: bool) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return true,
    };
    text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t' | '\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_binary() {
        assert!(!is_binary("grüße 👋\n\tx\r\n".as_bytes(), false));
        assert!(!is_binary(b"", false));
        for bytes in [&b"\0"[..], b"\x1b[31m", b"a\x07", b"\xff", "\u{9b}31m".as_bytes(), b"\x7f"] {
            assert!(is_binary(bytes, false), "{bytes:?}");
        }
        let half = &"é".as_bytes()[..1];
        assert!(is_binary(half, false) && !is_binary(half, true));
    }

    #[test]
    fn a_file_appears_only_when_it_is_whole_and_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();

        let mut output = Output::file(&path, 0o666, false).unwrap();
        output.write(b"new").unwrap();
        output.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(output);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        let mut output = Output::file(&path, 0o666, false).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_strict_file_takes_the_mode_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "old").unwrap();
        Output::file(&path, 0o600, true).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_followed_and_a_device_is_written_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("real"), &link).unwrap();
        fs::write(directory.path().join("real"), "old").unwrap();
        let mut output = Output::file(&link, 0o666, false).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(directory.path().join("real")).unwrap(), b"new");
        Output::file(Path::new("/dev/null"), 0o666, false).unwrap().finish().unwrap();
        assert!(Output::file(&directory.path().join("no/such"), 0o666, false).is_err());
    }
}
