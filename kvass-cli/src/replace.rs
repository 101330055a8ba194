//! Replacing a daemon on demand that is older than the client, after an upgrade.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::start::{self, Started};
use crate::{stop, version};

/// The kvassd that would be started, where it is newer than `running`; else replacing would change nothing.
pub(crate) fn newer_program(running: &str) -> Option<PathBuf> {
    let program = start::find().ok()?;
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    version::is_newer(text.split_whitespace().nth(1)?, running).then_some(program)
}

/// Stops the daemon of `place` and starts `program` with the arguments that the old one had.
pub(crate) fn replace(client: &crate::client::Client, program: &Path, arguments: &[String]) -> Result<Started, Error> {
    stop::stop(client)?;
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    Started::with(program, &arguments)
}
