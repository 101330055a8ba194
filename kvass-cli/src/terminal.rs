//! Asking on the terminal, with and without echo, showing there how far something is, and what it looks like.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use terminal_size::{Height, Width, terminal_size_of};

use crate::error::Error;
use crate::qr::{Code, Paint};

const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE_LINE: u8 = 21;
const ERASE_WORD: u8 = 23;
const SUSPEND: u8 = 26;
const QUIT: u8 = 28;

/// The terminal without echo; as it was once this is dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn new(terminal: File) -> nix::Result<Self> {
        let before = termios::tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        // Without signals, Ctrl-C arrives as a byte, and the echo comes back before the program ends.
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        hidden.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        hidden.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        termios::tcsetattr(&terminal, SetArg::TCSADRAIN, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Asks for one line on the terminal that standard input is, without echo.
pub(crate) fn hidden_line(question: &str) -> Result<Vec<u8>, Error> {
    let failed = |cause: io::Error| Error::failed("cannot ask on the terminal").because(cause);
    let terminal = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut hidden = Hidden::new(terminal).map_err(|errno| failed(errno.into()))?;
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question}: ").and_then(|()| stderr.flush());
    let line = read_line(&mut hidden.terminal)
        .map_err(|cause| Error::input("nothing was read from the terminal").because(cause));
    drop(hidden);
    let _ = stderr.write_all(b"\n");
    line?.ok_or(Error::Silent(130))
}

/// Reads up to the end of the line, obeying the keys that a terminal would; `None` where it was interrupted.
///
/// # Errors
/// The terminal failed, went away, or was told that there is no line: what came so far is none.
fn read_line(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(0) => return Err(io::Error::other("it ended before the line did")),
            Ok(_) => {}
        }
        match byte[0] {
            INTERRUPT | QUIT => return Ok(None),
            END if line.is_empty() => return Err(io::Error::other("it ended before a line began")),
            b'\n' | b'\r' | END => return Ok(Some(line)),
            ERASE_LINE => line.clear(),
            ERASE_WORD => erase_word(&mut line),
            SUSPEND => {}
            8 | 127 => erase_character(&mut line),
            other => line.push(other),
        }
    }
}

fn erase_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

fn erase_word(line: &mut Vec<u8>) {
    while line.pop_if(|byte| *byte == b' ').is_some() {}
    while line.pop_if(|byte| *byte != b' ').is_some() {}
}

/// Asks a question that is answered by yes or no; anything but yes is no.
pub(crate) fn confirm(question: &str) -> Result<bool, Error> {
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|cause| Error::failed("cannot read the answer").because(cause))?;
    if !answer.ends_with('\n') {
        let _ = stderr.write_all(b"\n");
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// One line on standard error, where that is a terminal, that is written anew as things go on; gone once dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: String,
    shows: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { shown: String::new(), shows: !quiet && io::stderr().is_terminal() }
    }

    /// Shows `text`, which has to be short: a line that wraps could not be written anew.
    pub(crate) fn show(&mut self, text: String) {
        if self.shows && self.shown != text {
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            self.shown = text;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Columns and rows of the terminal that standard output is; what all have where it does not say.
pub(crate) fn size() -> (usize, usize) {
    let size = terminal_size_of(io::stdout());
    size.map_or((80, 24), |(Width(columns), Height(rows))| (columns.into(), rows.into()))
}

/// Columns and rows that a QR code needs: the line of the prompt behind it would push the first one away.
pub(crate) fn room(code: &Code) -> (usize, usize) {
    (code.columns(), code.rows() + 1)
}

/// Whether the terminal shows the whole of a QR code at once.
pub(crate) fn has_room(code: &Code) -> bool {
    let (needed, present) = (room(code), size());
    present.0 >= needed.0 && present.1 >= needed.1
}

/// What the terminal does with a QR code, by what the environment says.
pub(crate) fn paint() -> Paint {
    let variable = |name| std::env::var(name).unwrap_or_default();
    match variable("NO_COLOR").as_str() {
        "" => Paint::Colored,
        _ if is_light(&variable("COLORFGBG")) => Paint::Light,
        _ => Paint::Dark,
    }
}

/// Whether the last number of `COLORFGBG`, which some terminals set, is that of a light ground.
fn is_light(numbers: &str) -> bool {
    matches!(numbers.rsplit(';').next(), Some("7" | "15"))
}

/// Whether a person can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mut bytes: &[u8]) -> Option<Vec<u8>> {
        read_line(&mut bytes).unwrap()
    }

    #[test]
    fn a_line_ends_at_its_end_and_the_keys_of_a_terminal_work() {
        assert_eq!(line(b"abc\ndef"), Some(b"abc".to_vec()));
        assert_eq!(line(b"abc\r"), Some(b"abc".to_vec()));
        assert_eq!(line(b"ab\x04"), Some(b"ab".to_vec()));
        assert_eq!(line(b"abx\x7fc\n"), Some(b"abc".to_vec()));
        assert_eq!(line("aé\u{8}b\n".as_bytes()), Some(b"ab".to_vec()));
        assert_eq!(line(b"wrong\x15right\n"), Some(b"right".to_vec()));
        assert_eq!(line(b"\x7fa\n"), Some(b"a".to_vec()));
        assert_eq!(line(b"one tow \x17two\x1a\n"), Some(b"one two".to_vec()));
        assert_eq!(line(b"ab\x03c\n"), None);
        assert_eq!(line(b"ab\x1cc\n"), None);
    }

    #[test]
    fn a_light_ground_is_known_by_its_number() {
        assert!(is_light("0;15") && is_light("0;default;7"));
        assert!(!is_light("15;0") && !is_light("7;default") && !is_light(""));
    }

    #[test]
    fn a_line_that_is_cut_short_is_none() {
        for mut bytes in [&b"\x04"[..], b"", b"ab"] {
            assert!(read_line(&mut bytes).is_err(), "{bytes:?}");
        }
    }
}
