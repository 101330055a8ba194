//! `kvass doctor`: a line for each check, with what would mend it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use kvass_proto::line::one_line;
use kvass_proto::v1::link::State;
use kvass_proto::v1::list::Detail;
use kvass_proto::v1::sync::Goal;
use kvass_proto::v1::{self, Greeting, Link, reply::Reply, request::Command};
use kvass_proto::{paths, shell};
use nix::unistd::geteuid;

use super::status;
use crate::cli::Doctor;
use crate::client::Client;
use crate::connection::{Part, unexpected};
use crate::error::Error;
use crate::output::Output;
use crate::{start, stop, time, version};

/// 2024-01-01: a clock before this was never set.
const EARLIEST_US: u64 = 1_704_067_200_000_000;

/// How far an entry may lie ahead of the clock, in microseconds.
const AHEAD_US: u64 = 60_000_000;

/// How long the remote may take.
const REACH: Duration = Duration::from_secs(2);

pub(crate) fn run(client: &mut Client, arguments: &Doctor) -> Result<(), Error> {
    if arguments.repair {
        return repair(client);
    }
    let mut checks = Checks { output: Output::stdout()?, findings: 0 };
    directory(client, &mut checks)?;
    if paths::holds_store(&client.place.directory) {
        key_file(client, &mut checks)?;
        daemon(client, &mut checks)?;
        log_file(client, &mut checks)?;
    }
    let findings = checks.findings;
    checks.output.finish()?;
    if findings == 0 { Ok(()) } else { Err(Error::Silent(1)) }
}

struct Checks {
    output: Output,
    findings: u32,
}

impl Checks {
    fn ok(&mut self, name: &str, text: &str) -> Result<(), Error> {
        self.output.line(&format!("ok {name}: {text}"))?;
        self.output.flush()
    }

    fn finding(&mut self, name: &str, problem: &str, mend: &str) -> Result<(), Error> {
        self.findings += 1;
        // A hint that leads here leads no further.
        let mend =
            if mend.is_empty() || mend.ends_with("kvass doctor") { String::new() } else { format!("; mend: {mend}") };
        self.output.line(&format!("!! {name}: {}{mend}", one_line(problem)))?;
        self.output.flush()
    }

    fn error(&mut self, name: &str, error: &Error) -> Result<(), Error> {
        self.finding(name, &error.sentence(), &error.advice())
    }
}

fn directory(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    let path = &client.place.directory;
    let shown = path.display();
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match client.place.refuse_second_store() {
                Ok(()) => checks.ok("directory", &format!("{shown} is not there yet; the first command makes it")),
                Err(error) => checks.error("directory", &error),
            };
        }
        Err(error) => return checks.finding("directory", &format!("{shown}: {error}"), ""),
    };
    let mode = meta.permissions().mode() & 0o777;
    if !meta.is_dir() {
        checks.finding("directory", &format!("{shown} is no directory"), "move it away, or name another with --db")
    } else if meta.uid() != geteuid().as_raw() {
        checks.finding("directory", &format!("{shown} belongs to user {}", meta.uid()), &owner_mend(path))
    } else if mode != 0o700 {
        checks.finding("directory", &format!("{shown} has mode {mode:o}"), &with_path("chmod 700", path))
    } else if !paths::holds_store(path) {
        checks.ok("directory", &format!("{shown} holds no store yet"))
    } else {
        checks.ok("directory", &format!("{shown} is yours alone"))
    }
}

fn owner_mend(path: &Path) -> String {
    format!("run kvass as that user, or: {}", with_path(&format!("chown -R {}", geteuid()), path))
}

fn with_path(command: &str, path: &Path) -> String {
    format!("{command} {}", shell::word(&path.to_string_lossy()))
}

fn key_file(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    private_file("key", &client.place.directory.join(paths::KEY), checks)
}

fn log_file(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    let path = client.place.directory.join(paths::LOG);
    if path.exists() { private_file("log", &path, checks) } else { checks.ok("log", "none yet") }
}

fn private_file(name: &str, path: &Path, checks: &mut Checks) -> Result<(), Error> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) => checks.finding(name, &format!("{shown}: {error}"), "kvass doctor --repair"),
        Ok(meta) if !meta.is_file() => checks.finding(name, &format!("{shown} is no regular file"), ""),
        Ok(meta) if meta.uid() != geteuid().as_raw() => {
            checks.finding(name, &format!("{shown} belongs to user {}", meta.uid()), &owner_mend(path))
        }
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let mode = meta.permissions().mode() & 0o777;
            checks.finding(name, &format!("{shown} has mode {mode:o}"), &with_path("chmod 600", path))
        }
        Ok(_) => checks.ok(name, &format!("{shown} is readable by you alone")),
    }
}

/// Everything that only a daemon can tell; one is started where none runs.
fn daemon(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let connection = match client.open(Command::Status(v1::StatusQuery {})) {
        Ok(connection) => connection,
        Err(error) => return refusal(checks, &error),
    };
    let socket = client.place.socket.display().to_string();
    checks.ok("socket", &format!("{socket} answers"))?;
    daemon_version(&connection.greeting, checks)?;
    let mut connection = connection;
    let Reply::Status(status) = connection.reply()? else { return Err(unexpected()) };
    store(client, checks)?;
    clock(client, checks)?;
    if status.refused != 0 {
        let problem = format!("{} records of other stores did not verify, and were not taken", status.refused);
        checks.finding("refused", &problem, "kvass doctor on the other devices")?;
    }
    match status.remote.as_str() {
        "" => checks.ok("remote", "none"),
        url => remote(client, url, checks),
    }
}

fn remote(client: &mut Client, url: &str, checks: &mut Checks) -> Result<(), Error> {
    let link = match reach(client) {
        Ok(link) => link,
        Err(error) => return checks.error("remote", &error),
    };
    if link.state() != State::Connected {
        let error = one_line(&link.error);
        let problem = if error.is_empty() { format!("it does not answer within {} s", REACH.as_secs()) } else { error };
        // Setting it probes it, and says more.
        let mend = if link.hint.is_empty() { format!("kvass config remote {url}") } else { one_line(&link.hint) };
        let problem = if problem.contains(url) { problem } else { format!("{url}: {problem}") };
        return checks.finding("remote", &problem, &mend);
    }
    if let Some(problem) = status::skew_problem(&link) {
        checks.finding("clocks", &problem, status::SKEW_MEND)?;
    }
    checks.ok("remote", &format!("{url} answers, with the same key"))
}

/// Has the remote tried at once, and returns how the link is then.
fn reach(client: &mut Client) -> Result<Link, Error> {
    let end = Instant::now() + REACH;
    let taken = v1::Sync { goal: Goal::Taken.into(), ..v1::Sync::default() };
    let mut connection = client.connect(Command::Sync(taken))?;
    let mut link = Link::default();
    while !matches!(link.state(), State::Connected | State::Blocked) {
        match connection.reply_within(end.saturating_duration_since(Instant::now()))? {
            Some(Reply::Syncing(syncing)) => link = syncing.link.unwrap_or_default(),
            Some(Reply::Synced(_)) => link.set_state(State::Connected),
            Some(_) => return Err(unexpected()),
            None => break,
        }
    }
    Ok(link)
}

/// A daemon that does not start is a finding; only the store's damage is mended by a repair.
fn refusal(checks: &mut Checks, error: &Error) -> Result<(), Error> {
    let advice = error.advice();
    let damaged = error.is(v1::error::Code::Damaged) || error.sentence().contains("damage");
    let mend = if damaged && !advice.contains("--repair") { "kvass doctor --repair" } else { &advice };
    checks.finding(if damaged { "store" } else { "socket" }, &error.sentence(), mend)
}

fn daemon_version(greeting: &Greeting, checks: &mut Checks) -> Result<(), Error> {
    let (theirs, ours) = (&greeting.version, version::OURS);
    if version::is_newer(ours, theirs) {
        let problem = format!("kvassd {theirs} is older than this kvass {ours}");
        return checks.finding("daemon", &problem, "kvass daemon restart, or restart its service");
    }
    checks.ok("daemon", &format!("kvassd {theirs}, process {}", greeting.process))
}

fn store(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let mut connection = match client.open(Command::Check(v1::Check {})) {
        Ok(connection) => connection,
        Err(error) => return checks.error("store", &error),
    };
    let before = checks.findings;
    loop {
        match connection.reply() {
            Ok(Reply::Finding(finding)) => checks.finding("store", &finding.problem, &finding.hint)?,
            Ok(Reply::Checked(checked)) if checks.findings == before => {
                let (records, bytes) = (checked.records, checked.bytes);
                return checks.ok("store", &format!("{records} records and {bytes} bytes of values verify"));
            }
            Ok(Reply::Checked(_)) => return Ok(()),
            Ok(_) => return Err(unexpected()),
            Err(error) => return checks.error("store", &error),
        }
    }
}

fn clock(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let now = time::now_us();
    let newest = match newest(client) {
        Ok(newest) => newest,
        // What cannot be read was written by clocks of others.
        Err(error) if error.is(v1::error::Code::Blind) => 0,
        Err(error) => return checks.error("clock", &error),
    };
    let (now_text, newest_text) = (time::seconds(now), time::seconds(newest));
    if now < EARLIEST_US {
        return checks.finding("clock", &format!("it says {now_text}"), "set the clock of this machine");
    }
    if newest > now.saturating_add(AHEAD_US) {
        let problem = format!("it says {now_text}, but the newest entry was written at {newest_text}");
        return checks.finding("clock", &problem, "set the clock of this machine, or of the one that wrote it");
    }
    checks.ok("clock", &now_text)
}

/// When the newest entry was written, in microseconds since 1970.
fn newest(client: &mut Client) -> Result<u64, Error> {
    let list = v1::List { detail: Detail::Entries.into(), ..v1::List::default() };
    let mut connection = client.open(Command::List(list))?;
    let mut newest = 0;
    loop {
        match connection.next()? {
            Part::Reply(Reply::Listing(listing)) => {
                newest = listing.entries.iter().map(|entry| entry.time_us).max().unwrap_or(0).max(newest);
            }
            Part::End => return Ok(newest),
            Part::Reply(_) | Part::Data(_) => return Err(unexpected()),
        }
    }
}

/// Stops the daemon and lets kvassd repair the store in the foreground.
fn repair(client: &Client) -> Result<(), Error> {
    client.place.refuse_second_store()?;
    stop::stop(client)?;
    let program = start::find()?;
    let status = Program::new(&program)
        .arg("--db")
        .arg(&client.place.directory)
        .arg("--repair")
        .stdin(Stdio::null())
        .status()
        .map_err(|cause| Error::failed(format!("cannot start {}", program.display())).because(cause))?;
    // It has said why.
    if status.success() { Ok(()) } else { Err(Error::Silent(3)) }
}
