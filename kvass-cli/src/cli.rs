//! The command line. The comments on the types are the help that people read.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use kvass_proto::key::{self, KeyError};

use crate::commands::completions::keys;
use crate::{public_url, remote, time};

/// A personal key-value store
///
/// Without a command, shows a cheat sheet.
#[derive(Debug, Parser)]
#[command(name = "kvass", version, styles = Styles::plain(), max_term_width = 100)]
pub(crate) struct Cli {
    /// The data directory (KVASS_DB; default: kvass in the user's directory for data)
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) db: Option<PathBuf>,
    /// The daemon's socket, where it is not in the data directory (KVASS_SOCKET)
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
    /// No notes on standard error; errors still show
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Set(Set),
    Get(Get),
    Ls(Ls),
    Rm(Rm),
    Url(Url),
    Qr(Qr),
    Watch(Watch),
    Wait(Wait),
    Sync(Sync),
    Status(Status),
    /// Show or change the key, the process id, the remote and the public URL
    #[command(subcommand)]
    Config(Config),
    /// Show a line that lets another device join, as text and as a QR code
    ///
    /// It carries the remote and the encryption key: whoever has it can read and change everything.
    /// A code is shown on a terminal that is large enough.
    Pair,
    Join(Join),
    Serve(Serve),
    /// Start, stop or restart the daemon by hand
    ///
    /// Any command starts the daemon where none runs.
    #[command(subcommand)]
    Daemon(Daemon),
    Run(Run),
    Export(Export),
    Import(Import),
    Completions(Completions),
    Man(Man),
    Doctor(Doctor),
}

/// Store a value
///
/// Stores VALUE, or standard input where VALUE is absent or '-'. Bytes are stored exactly; an empty value is a value.
/// Returns once the value would survive a power cut.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass set greeting 'hello world'
  kvass set photo < photo.jpg
  kvass set answer -42
  kvass set flag -- -x        a value that begins with '-' stands after '--'
  kvass set token --prompt    keeps it out of the shell's history
  kvass set job done --wait   returns once the remote holds it")]
pub(crate) struct Set {
    /// The name: 1 to 1,024 bytes of UTF-8 without control characters
    #[arg(value_parser = key, add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) key: String,
    /// The bytes; '-' or absent: standard input
    #[arg(allow_negative_numbers = true, value_hint = ValueHint::Other)]
    pub(crate) value: Option<OsString>,
    /// Store what a file holds; '-': standard input
    #[arg(long, value_name = "FILE", conflicts_with = "value", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Ask for one line on the terminal, without echo
    #[arg(long, conflicts_with_all = ["value", "file"])]
    pub(crate) prompt: bool,
    /// Return once the remote holds it durably too; after TIME (10s) give up with exit code 4: it stays stored here
    #[arg(long, value_name = "TIME", value_parser = time::duration, num_args = 0..=1, require_equals = true,
          default_missing_value = "10s")]
    pub(crate) wait: Option<Duration>,
}

/// Write a value to standard output
///
/// Bytes come out exactly; only on a terminal a newline is added where the value lacks one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass get greeting
  kvass get photo -o photo.jpg
  kvass get theme --default dark
  kvass get job --fresh       first takes what the remote has")]
pub(crate) struct Get {
    /// The name that was set
    #[arg(value_parser = key, add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) key: String,
    /// Write a file, which appears when it is whole; '-': standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Write this value where the key does not exist
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) default: Option<OsString>,
    /// First take what the remote has; after TIME (10s) give up with exit code 4
    #[arg(long, value_name = "TIME", value_parser = time::duration, num_args = 0..=1, require_equals = true,
          default_missing_value = "10s")]
    pub(crate) fresh: Option<Duration>,
    /// Write binary data to a terminal too
    #[arg(long)]
    pub(crate) raw: bool,
}

/// List keys in byte order
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct Ls {
    /// Only keys that begin with this
    #[arg(add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) prefix: Option<String>,
    /// Size in bytes, time, sync state (local, pending, synced), then the key
    #[arg(short)]
    pub(crate) long: bool,
    /// The key, a tab, the value
    #[arg(short)]
    pub(crate) values: bool,
    /// Stands between columns in place of the tab
    #[arg(short, value_name = "DELIM", allow_hyphen_values = true)]
    pub(crate) delimiter: Option<OsString>,
    /// Last key first
    #[arg(short)]
    pub(crate) reverse: bool,
    /// End each record with a NUL byte, not a newline
    #[arg(short = '0')]
    pub(crate) null: bool,
    /// An object a line: key, size, time, sync; with -v also value, or value_base64
    #[arg(long, conflicts_with_all = ["long", "delimiter", "null"])]
    pub(crate) json: bool,
}

/// Remove keys
#[derive(Debug, Args)]
#[command(visible_aliases = ["del", "delete"], after_help = "\
Examples:
  kvass rm greeting photo
  kvass rm --prefix work/    removes every key that begins with work/")]
pub(crate) struct Rm {
    /// The names
    #[arg(value_name = "KEY", required_unless_present = "prefix", value_parser = key,
          add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) keys: Vec<String>,
    /// Remove every key that begins with this, after a question
    #[arg(long, value_name = "PREFIX", conflicts_with = "keys", add = ArgValueCompleter::new(keys))]
    pub(crate) prefix: Option<String>,
    /// Ask nothing, and let keys be missing
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Make a link, with which anybody can read a value in a browser
///
/// Prints the link that the key has, or makes one where it has none; with --expires, --reads or --pin always a new one.
/// It leads to the value as it is when it is opened, and ends when the key is removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass url photo
  kvass url photo --expires 1d --reads 3
  kvass url photo --pin         stays with what the key holds now
  kvass url --list              all links; with a key, those to it
  kvass url --revoke photo      all links to it; or name one link")]
pub(crate) struct Url {
    /// The name that was set; with --revoke the name, or a link
    #[arg(required_unless_present = "list", value_parser = key, add = ArgValueCompleter::new(keys),
          value_hint = ValueHint::Other)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) options: LinkOptions,
    /// Show the links that there are: link, key, end, how often it may be read, whether it is pinned
    #[arg(long, conflicts_with_all = ["expires", "reads", "pin", "revoke"])]
    pub(crate) list: bool,
    /// End a link, or all links to a key
    #[arg(long, conflicts_with_all = ["expires", "reads", "pin"])]
    pub(crate) revoke: bool,
    /// With --list, an object a line: url, key, time, expires, reads, pinned, state
    #[arg(long, requires = "list")]
    pub(crate) json: bool,
}

/// What a new link may be limited to.
#[derive(Debug, Args)]
pub(crate) struct LinkOptions {
    /// The link ends after TIME, as 1h or 30d
    #[arg(long, value_name = "TIME", value_parser = lifetime, allow_hyphen_values = true)]
    pub(crate) expires: Option<Duration>,
    /// The value can be read through the link N times
    #[arg(long, value_name = "N", value_parser = reads, allow_hyphen_values = true)]
    pub(crate) reads: Option<u32>,
    /// The link leads to what the key holds now, and ends when that is replaced
    #[arg(long)]
    pub(crate) pin: bool,
}

/// Show a link to a value as a QR code
///
/// It is the link that `kvass url` prints, made where there is none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass qr wifi
  kvass qr wifi -o wifi.svg
  kvass qr ticket --expires 1d")]
pub(crate) struct Qr {
    /// The name that was set
    #[arg(value_parser = key, add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) key: String,
    /// Write a picture, which appears when it is whole: FILE.svg or FILE.png
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: LinkOptions,
}

/// Show changes as they arrive
///
/// A line for each: 'set' or 'rm', a tab, the key. A key that changes faster than it is read shows once.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only keys that begin with this
    #[arg(add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) prefix: Option<String>,
    /// An object a line: event, key, size, time
    #[arg(long)]
    pub(crate) json: bool,
}

/// Wait for a key, then write its value
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass wait build/result --timeout 10m
  kvass wait clipboard --change")]
pub(crate) struct Wait {
    /// The name that is waited for
    #[arg(value_parser = key, add = ArgValueCompleter::new(keys), value_hint = ValueHint::Other)]
    pub(crate) key: String,
    /// Wait until the key next changes, though it exists
    #[arg(long)]
    pub(crate) change: bool,
    /// Give up after this time, with exit code 4
    #[arg(long, value_name = "TIME", value_parser = time::duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,
}

/// Wait until this store and the remote hold the same
///
/// Returns once every change here is durable at the remote, and every change there is here.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvass sync --timeout 10s && poweroff")]
pub(crate) struct Sync {
    /// Give up after this time, with exit code 4
    #[arg(long, value_name = "TIME", value_parser = time::duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,
}

/// Show what the daemon knows about itself, and how it stands with the remote
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings that live in the store.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show the encryption key, the process id, the remote, the fingerprint and the public URL
    Show,
    /// Set the key: an encryption key of 64 hex digits, or a server key
    ///
    /// Where KEY is absent or '-', reads standard input; a terminal shows no echo.
    /// Under another encryption key, entries already stored are kept, sealed anew. With a server key this store keeps
    /// records and cannot read them; to or from the server key of other entries, those stored here are removed.
    Key {
        /// The new one; '-' or absent: standard input
        #[arg(value_hint = ValueHint::Other)]
        key: Option<OsString>,
        /// Make a new random key
        #[arg(long, conflicts_with = "key")]
        new: bool,
        /// Do not ask where entries are removed, or cannot be read here any more
        #[arg(short, long)]
        force: bool,
    },
    /// Show the key for a server that shall keep records and not read them
    ServerKey,
    /// Show or set the process id, which breaks ties between devices
    Pid {
        /// The new one, from 1 to 4294967295; absent: shows the one in use
        #[arg(value_name = "N", value_parser = pid, allow_negative_numbers = true)]
        pid: Option<u32>,
    },
    /// Show or set the remote, with which this store keeps in step
    ///
    /// Looks whether it answers, and sets it even where it does not.
    #[command(after_help = "\
Examples:
  kvass config remote yourserver:8000
  kvass config remote 'http://[2001:db8::1]:8000'
  kvass config remote ''    none: this store is on its own")]
    Remote {
        /// host, host:port, http://… or https://…; no port means 80, or 443 with https; '' means none
        #[arg(value_name = "HOST", value_parser = remote::parse, value_hint = ValueHint::Hostname)]
        remote: Option<String>,
    },
    /// Show or set what stands before links, where that is not the remote
    ///
    /// On a server that others reach by another name than devices do, or that is behind a proxy.
    #[command(after_help = "\
Examples:
  kvass config public-url https://kvass.example.org
  kvass config public-url ''    links begin with the remote's address")]
    PublicUrl {
        /// http://… or https://…, perhaps with a path; '' means that of the remote
        #[arg(value_name = "URL", value_parser = public_url::parse, value_hint = ValueHint::Url)]
        url: Option<String>,
    },
}

/// Join the devices of a pairing line
///
/// Takes the line that `kvass pair` shows on another device, and sets its remote and its encryption key. Entries that
/// are stored here are kept; where both sides have one, the newer wins, and it asks first where they differ.
/// Where LINK is absent or '-', reads standard input; a terminal shows no echo.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvass join                          asks for the line
  ssh old kvass pair | kvass join")]
pub(crate) struct Join {
    /// The line; '-' or absent: standard input
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) link: Option<OsString>,
    /// Join without a question, though entries differ
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Run the daemon in the foreground, and accept other devices
///
/// Becomes kvassd --server. Devices that hold the same encryption key name this machine with 'kvass config remote'.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvass serve --bind 0.0.0.0:8000")]
pub(crate) struct Serve {
    /// Where to accept devices: an address and a port
    #[arg(long, value_name = "ADDR")]
    pub(crate) bind: Option<OsString>,
    /// The certificate for https, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Option<OsString>,
    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<OsString>,
}

/// The daemon by hand.
#[derive(Debug, Subcommand)]
pub(crate) enum Daemon {
    /// Start the daemon and wait until it serves
    Start,
    /// Stop the daemon and wait until it is gone
    Stop,
    /// Stop the daemon where it runs, then start it
    Restart,
}

/// Run a program with values in its environment
///
/// Its exit code is that of the program. Values are passed exactly, a newline at their end included.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvass run -e GITHUB_TOKEN=tokens/github -- gh pr list")]
pub(crate) struct Run {
    /// Put the value of KEY into the variable VAR
    #[arg(short, value_name = "VAR=KEY", value_parser = binding)]
    pub(crate) env: Vec<(String, String)>,
    /// The program and its arguments, after '--'
    #[arg(last = true, required = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// Write all entries as text, for backups and other programs
///
/// The format is lines of JSON. Values are written in the clear: the file is readable by you alone.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to; '-' or absent: standard output
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}

/// Store entries that were exported
///
/// Sets each key that differs. One that is newer here is kept and reported.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Where from; '-' or absent: standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Replace what is newer here too
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Write a script that completes commands and keys in a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Put one of these where your shell starts:
  source <(kvass completions bash)         ~/.bashrc
  source <(kvass completions zsh)          ~/.zshrc, after compinit
  kvass completions fish | source          ~/.config/fish/config.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
    pub(crate) shell: String,
}

/// Write the manual
///
/// With DIR, a page for each command in that directory; else kvass(1) to standard output.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to; absent: kvass(1) to standard output
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

/// Check the daemon, the directory and every value
///
/// A line for each check. Exit code 1 where something is wrong.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Move a damaged store aside and save what is whole into a new one
    #[arg(long)]
    pub(crate) repair: bool,
}

fn key(text: &str) -> Result<String, KeyError> {
    key::check(text).map(|()| text.to_owned())
}

fn pid(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{text}' is no process id: that is a number from 1 to {}", u32::MAX))
}

/// Reads how long a link lasts.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = time::duration(text)?;
    if lifetime.is_zero() {
        return Err(format!("'{text}' is no time for a link: it would end at once"));
    }
    match time::after(lifetime) {
        Some(_) => Ok(lifetime),
        None => Err(format!("'{text}' is too long: a link ends in the year 9999 at the latest")),
    }
}

fn reads(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{text}' is no number of reads: that is from 1 to {}", u32::MAX))
}

/// Reads `VAR=KEY`.
fn binding(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((variable, name)) if !variable.is_empty() => match key::check(name) {
            Ok(()) => Ok((variable.into(), name.into())),
            Err(error) => Err(format!("'{text}': {error}")),
        },
        _ => Err(format!("'{text}' is not of the form VAR=KEY")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_link_lasts_and_can_be_read_at_least_once() {
        assert_eq!(lifetime("2d"), Ok(Duration::from_secs(172_800)));
        assert!(lifetime("0s").unwrap_err().contains("at once"));
        assert!(lifetime("9000000d").unwrap_err().contains("too long"));
        assert!(lifetime("-1h").unwrap_err().contains("no duration"));
        assert_eq!((reads("1"), reads("4294967295")), (Ok(1), Ok(u32::MAX)));
        for wrong in ["0", "-1", "+0", "x", "", "4294967296"] {
            assert!(reads(wrong).unwrap_err().contains("no number of reads"), "{wrong}");
        }
    }

    #[test]
    fn a_binding_needs_a_variable_and_a_key() {
        assert_eq!(binding("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(binding("A").unwrap_err().contains("VAR=KEY"));
        assert!(binding("=b").unwrap_err().contains("VAR=KEY"));
        assert!(binding("A=").unwrap_err().contains("empty"));
    }
}
