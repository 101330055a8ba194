//! `kvass pair`: a line that lets another device join.

use kvass_proto::line::one_line;
use kvass_proto::v1::{self, link::State, reply::Reply, request::Command};

use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::output::Output;
use crate::pairing::Pairing;
use crate::qr::Code;
use crate::terminal;

pub(crate) fn run(client: &mut Client) -> Result<(), Error> {
    let Reply::Config(config) = client.ask(Command::Config(v1::ConfigQuery {}))? else { return Err(unexpected()) };
    let v1::Config { key, remote, .. } = config;
    if key.is_empty() {
        return Err(Error::input("this store cannot be read here, so it has no key to give away")
            .hint("run kvass pair on a device"));
    }
    if remote.is_empty() {
        return Err(Error::input("there is no remote through which another device could be reached")
            .hint("name one: kvass config remote HOST"));
    }
    client.note("whoever has this line can read and change everything: kvass join on the new device takes it");
    note_blocked(client)?;
    if is_own_name(&remote) {
        client.note(&format!("{remote} means the machine itself on every machine: name the remote by another address"));
    }
    let line = Pairing { key, remote }.to_line();
    let mut output = Output::stdout()?;
    output.line(&line)?;
    if output.terminal {
        output.flush()?;
        show_code(client, &line, &mut output)?;
    }
    output.finish()
}

/// Says why a device that joins would not be in step: this one is not, and gives away what it has.
fn note_blocked(client: &mut Client) -> Result<(), Error> {
    let Reply::Status(status) = client.ask(Command::Status(v1::StatusQuery {}))? else { return Err(unexpected()) };
    if let Some(link) = status.link.filter(|link| link.state() == State::Blocked) {
        client.note(&format!("this device is not in step with the remote: {}", one_line(&link.error)));
        if !link.hint.is_empty() {
            client.note(&format!("mend that first: {}", one_line(&link.hint)));
        }
    }
    Ok(())
}

/// Whether another device would look for the remote on itself.
fn is_own_name(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    ["localhost:", "127.", "[::1]:"].iter().any(|own| host.starts_with(own))
}

/// Capitals make a smaller code, and a line is read in either case.
fn show_code(client: &Client, line: &str, output: &mut Output) -> Result<(), Error> {
    let Some(code) = Code::small(&line.to_uppercase()) else { return Ok(()) };
    if !terminal::has_room(&code) {
        let (columns, rows) = terminal::room(&code);
        client.note(&format!("the terminal is too small for the QR code: it needs {columns} columns and {rows} rows"));
        return Ok(());
    }
    output.write(code.blocks(terminal::paint()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_each_machines_own_is_known() {
        for own in ["http://localhost:80", "http://127.0.0.1:8000", "https://[::1]:443"] {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["http://localhost.example:80", "http://10.127.0.1:80", "https://[::2]:443"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
