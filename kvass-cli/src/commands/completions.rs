//! `kvass completions`: the script for a shell, and the answers that the shell asks for as one types.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use kvass_proto::v1::{self, request::Command};

use crate::cli::{Cli, Completions};
use crate::client::Client;
use crate::connection::{Connection, Part};
use crate::error::Error;
use crate::output::Output;
use crate::place::Place;

/// The variable by which the script tells the program to complete.
pub(crate) const VARIABLE: &str = "KVASS_COMPLETE";

/// Bash gets a script of our own: clap's neither quotes keys nor knows words that are cut at a colon.
const BASH: &[u8] = include_bytes!("completions.bash");

/// How long a daemon may take: somebody has pressed a key and waits.
const LIMIT: Duration = Duration::from_millis(200);

/// So many keys are offered at most.
const MOST: usize = 1_000;

pub(crate) fn run(arguments: &Completions) -> Result<(), Error> {
    let script = if arguments.shell == "bash" { BASH.into() } else { script(&arguments.shell)? };
    let mut output = Output::stdout()?;
    output.write(&script)?;
    output.finish()
}

fn script(shell: &str) -> Result<Vec<u8>, Error> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell) else { return Err(Error::input("no such shell")) };
    let written = shell.write_registration(VARIABLE, "kvass", "kvass", "kvass", &mut script);
    written.map_err(|cause| Error::failed("cannot write the script").because(cause))?;
    Ok(script)
}

/// Answers a shell that asks what may stand where the cursor is, and ends the program.
pub(crate) fn complete() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).completer("kvass").complete();
}

/// The keys that begin with what was typed, from a daemon that runs already.
pub(crate) fn keys(typed: &OsStr) -> Vec<CompletionCandidate> {
    typed.to_str().and_then(names).unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
}

fn names(prefix: &str) -> Option<Vec<String>> {
    let (db, socket) = global_flags();
    let client = Client::new(Place::find(db, socket).ok()?, true);
    let list = v1::List { prefix: prefix.into(), terminator: b'\n'.into(), ..v1::List::default() };
    let connection = client.connect_running(Command::List(list), LIMIT).ok()?;
    read(connection)
}

fn read(mut connection: Connection) -> Option<Vec<String>> {
    let end = Instant::now() + LIMIT;
    let mut text = Vec::new();
    loop {
        match connection.next_within(end.saturating_duration_since(Instant::now())).ok()?? {
            Part::Data(names) => text.extend_from_slice(names),
            Part::End => break,
            Part::Reply(_) => return None,
        }
        if text.iter().filter(|byte| **byte == b'\n').count() > MOST {
            break;
        }
    }
    Some(String::from_utf8_lossy(&text).lines().take(MOST).map(str::to_owned).collect())
}

/// `--db` and `--socket` on the line that is being completed, which stands behind `--` among the arguments.
fn global_flags() -> (Option<PathBuf>, Option<PathBuf>) {
    flags(std::env::args_os().skip_while(|word| word != "--").skip(1))
}

fn flags(words: impl Iterator<Item = OsString>) -> (Option<PathBuf>, Option<PathBuf>) {
    let (mut db, mut socket) = (None, None);
    let mut words = words.take_while(|word| word != "--");
    while let Some(word) = words.next() {
        match word.to_str().map(|word| word.split_once('=').unwrap_or((word, ""))) {
            Some(("--db", "")) => db = words.next().map(PathBuf::from),
            Some(("--db", path)) => db = Some(path.into()),
            Some(("--socket", "")) => socket = words.next().map(PathBuf::from),
            Some(("--socket", path)) => socket = Some(path.into()),
            _ => {}
        }
    }
    (db, socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_the_line_are_found_in_either_form() {
        let line = ["kvass", "--db", "/a", "get", "--socket=/b", "--", "--db", "/c"];
        let found = flags(line.iter().map(OsString::from));
        assert_eq!(found, (Some("/a".into()), Some("/b".into())));
    }
}
