//! `kvass config`: the encryption key, the process id, the remote and what stands before links.

mod key;

use kvass_proto::line::one_line;
use kvass_proto::v1::{self, reply::Reply, request::Command};

use crate::cli;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::output::Output;

pub(crate) fn run(client: &mut Client, arguments: cli::Config) -> Result<(), Error> {
    match arguments {
        cli::Config::Show => {
            let config = ask(client, Command::Config(v1::ConfigQuery {}))?;
            print(&show(&config))
        }
        cli::Config::Pid { pid: None } => {
            let config = ask(client, Command::Config(v1::ConfigQuery {}))?;
            print(&format!("{}\n", config.pid))
        }
        cli::Config::Pid { pid: Some(pid) } => ask(client, Command::SetPid(v1::SetPid { pid })).map(drop),
        cli::Config::Remote { remote: None } => {
            let config = ask(client, Command::Config(v1::ConfigQuery {}))?;
            print(&format!("{}\n", or_none(&config.remote)))
        }
        cli::Config::Remote { remote: Some(remote) } => set_remote(client, remote),
        cli::Config::PublicUrl { url: None } => {
            let config = ask(client, Command::Config(v1::ConfigQuery {}))?;
            print(&format!("{}\n", or_none(&config.public_url)))
        }
        cli::Config::PublicUrl { url: Some(url) } => {
            ask(client, Command::SetPublicUrl(v1::SetPublicUrl { url })).map(drop)
        }
        cli::Config::Key { new: true, force, .. } => key::renew(client, force),
        cli::Config::Key { key, force, .. } => key::change(client, key, force),
        cli::Config::ServerKey => {
            let config = ask(client, Command::Config(v1::ConfigQuery {}))?;
            print(&format!("{}\n", config.server_key))
        }
    }
}

fn ask(client: &mut Client, command: Command) -> Result<v1::Config, Error> {
    match client.ask(command)? {
        Reply::Config(config) => Ok(config),
        _ => Err(unexpected()),
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut output = Output::stdout()?;
    output.write(text.as_bytes())?;
    output.finish()
}

/// The three lines of old, then what came since.
fn show(config: &v1::Config) -> String {
    let key: String = match config.key.is_empty() {
        true => "none (this store has the server key only)".into(),
        false => config.key.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    format!(
        "Encryption Key: {}\nProcessID: {}\nRemote: {}\nFingerprint: {}\nPublic URL: {}\n",
        key,
        config.pid,
        or_none(&config.remote),
        config.fingerprint,
        or_none(&config.public_url),
    )
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(None)" } else { text }
}

/// Sets the remote. One that does not answer is no failure: it is set, and tried again.
fn set_remote(client: &mut Client, remote: String) -> Result<(), Error> {
    let reply = client.ask(Command::SetRemote(v1::SetRemote { remote }))?;
    let Reply::RemoteSet(set) = reply else { return Err(unexpected()) };
    if !set.found.is_empty() {
        print(&format!("{}\n", one_line(&set.found)))?;
    }
    if !set.hint.is_empty() {
        client.note(&one_line(&set.hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_the_seed_reads_over_ssh_are_exact() {
        let config =
            v1::Config { key: vec![0xab; 32], pid: 752_176_921, fingerprint: "12ab".into(), ..v1::Config::default() };
        let expected = format!(
            "Encryption Key: {}\nProcessID: 752176921\nRemote: (None)\nFingerprint: 12ab\nPublic URL: (None)\n",
            "ab".repeat(32)
        );
        assert_eq!(show(&config), expected);
        let blind = show(&v1::Config { key: Vec::new(), ..config });
        assert!(blind.starts_with("Encryption Key: none (this store has the server key only)\nProcessID: "), "{blind}");
    }
}
