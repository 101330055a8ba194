//! `kvass join`: takes the key and the remote of a pairing line, after a look at what the remote holds.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;

use kvass_proto::line::one_line;
use kvass_proto::v1::{self, Previewed, reply::Reply, request::Command};

use crate::cli::Join;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::output::Output;
use crate::pairing::Pairing;
use crate::terminal::{self, Progress};

/// The longest text that is read for a line, in bytes.
const LINE_MAX: u64 = 4_096;

pub(crate) fn run(client: &mut Client, arguments: Join) -> Result<(), Error> {
    let pairing = parse(&read(client, arguments.link)?)?;
    let found = preview(client, &pairing)?;
    if !arguments.force && !confirm(client, &pairing.remote, &found)? {
        client.note("nothing was changed");
        return Ok(());
    }
    let Pairing { key, remote } = pairing;
    let joined = client.ask(Command::Join(v1::Join { key, remote }))?;
    let Reply::Config(config) = joined else { return Err(unexpected()) };
    let mut output = Output::stdout()?;
    output.line(&format!("Joined {}.\nFingerprint: {}", one_line(&config.remote), one_line(&config.fingerprint)))?;
    output.finish()
}

fn read(client: &Client, argument: Option<OsString>) -> Result<Vec<u8>, Error> {
    match argument {
        Some(line) if line != "-" => {
            client.note("a line given as an argument is in the shell's history; `kvass join` alone asks for it");
            Ok(line.into_vec())
        }
        _ if io::stdin().is_terminal() => terminal::hidden_line("Pairing line"),
        _ => {
            let mut text = Vec::new();
            let read = io::stdin().lock().take(LINE_MAX).read_to_end(&mut text);
            read.map_err(|cause| Error::input("cannot read the pairing line from standard input").because(cause))?;
            Ok(text)
        }
    }
}

fn parse(line: &[u8]) -> Result<Pairing, Error> {
    let pairing = Pairing::parse(&String::from_utf8_lossy(line));
    pairing.map_err(|error| Error::input(error.to_string()).hint("kvass pair on another device shows one"))
}

/// Looks at what the remote holds. Nothing is changed by it.
fn preview(client: &mut Client, pairing: &Pairing) -> Result<Previewed, Error> {
    let Pairing { key, remote } = pairing;
    let mut progress = Progress::new(client.quiet);
    let mut connection = client.open(Command::Preview(v1::Preview { key: key.clone(), remote: remote.clone() }))?;
    loop {
        match connection.reply().map_err(|error| error.after("nothing was changed"))? {
            Reply::Previewing(previewing) => {
                progress.show(format!("comparing with what the remote holds: {}", previewing.seen));
            }
            Reply::Previewed(previewed) => return Ok(previewed),
            _ => return Err(unexpected()),
        }
    }
}

/// Asks whether entries may be replaced, and, where somebody is there to be asked, whether those of this device may be
/// given away: the line may be anybody's.
fn confirm(client: &Client, remote: &str, found: &Previewed) -> Result<bool, Error> {
    match found.own {
        0 => {}
        1 => client.note(&format!("the key of this device goes to {remote}, and all who have this line can read it")),
        own => {
            client.note(&format!(
                "the {own} keys of this device go to {remote}, and all who have this line can read them"
            ));
        }
    }
    if found.differing > 0 {
        show_differences(client, remote, found);
        if !terminal::can_ask() {
            return Err(Error::input("joining would replace entries, so that it needs -f here; nothing was changed")
                .hint("on a terminal it asks first"));
        }
    }
    if found.differing == 0 && (found.own == 0 || !terminal::can_ask()) {
        return Ok(true);
    }
    terminal::confirm("Join?")
}

/// Shows which entries would be replaced.
fn show_differences(client: &Client, remote: &str, found: &Previewed) {
    let differ = match found.differing {
        1 => "1 key differs".into(),
        count => format!("{count} keys differ"),
    };
    client.note(&format!("{differ} between here and {remote}; of each the newer wins, on all devices:"));
    let show = |line: &str| {
        if !client.quiet {
            eprintln!("{line}");
        }
    };
    for difference in &found.first {
        let winner = if difference.remote_wins { "the remote's" } else { "this device's" };
        show(&format!("  {winner:<13}  {}", one_line(&difference.key)));
    }
    match found.differing - found.first.len() as u64 {
        0 => {}
        more => show(&format!("  and {more} more")),
    }
}
