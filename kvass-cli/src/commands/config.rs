//! `kvass config`: the encryption key, the process id and the remote.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use kvass_proto::line::one_line;
use kvass_proto::v1::{self, reply::Reply, request::Command};

use crate::cli;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::output::Output;
use crate::terminal;

/// Hex digits of an encryption key.
const DIGITS: usize = 64;

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
        cli::Config::Key { new: true, .. } => set_key(client, Vec::new()),
        cli::Config::Key { key, .. } => {
            let key = parse(&read_key(client, key)?)?;
            set_key(client, key)
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
    let key: String = config.key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "Encryption Key: {}\nProcessID: {}\nRemote: {}\nFingerprint: {}\nPublic URL: {}\n",
        or_none(&key),
        config.pid,
        or_none(&config.remote),
        config.fingerprint,
        or_none(&config.public_url),
    )
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(None)" } else { text }
}

fn set_key(client: &mut Client, key: Vec<u8>) -> Result<(), Error> {
    let config = ask(client, Command::SetKey(v1::SetKey { key }))?;
    print(&format!("Set an encryption key.\nFingerprint: {}\n", config.fingerprint))
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

/// The text of a key from the argument, standard input, or a prompt.
fn read_key(client: &Client, argument: Option<OsString>) -> Result<Vec<u8>, Error> {
    match argument {
        Some(key) if key != "-" => {
            client.note("a key given as an argument is in the shell's history; `kvass config key` alone asks for it");
            Ok(key.as_bytes().to_vec())
        }
        _ if io::stdin().is_terminal() => terminal::hidden_line("Encryption key"),
        _ => {
            let mut text = Vec::new();
            let read = io::stdin().lock().take(4_096).read_to_end(&mut text);
            read.map_err(|cause| Error::input("cannot read the key from standard input").because(cause))?;
            Ok(text)
        }
    }
}

/// Reads a key; what is wrong is told without showing more of it than one character.
fn parse(text: &[u8]) -> Result<Vec<u8>, Error> {
    let hint = "a key is what `kvass config show` calls Encryption Key";
    let wrong = |what: String| Err(Error::input(what).hint(hint));
    let Ok(text) = std::str::from_utf8(text) else { return wrong("the key is not text".into()) };
    let text = text.trim();
    if text.is_empty() {
        return wrong("no key was given".into());
    }
    if text.starts_with("kvass-server-") {
        return Err(Error::input("this is a server key, and this version cannot use server keys yet").hint(hint));
    }
    if let Some((at, character)) = text.chars().enumerate().find(|(_, character)| !character.is_ascii_hexdigit()) {
        let shown = match character {
            '\u{21}'..='\u{7e}' => format!("'{character}'"),
            _ => format!("U+{:04X}", character as u32),
        };
        return wrong(format!("character {shown} at place {} is no hex digit", at + 1));
    }
    if text.len() != DIGITS {
        return wrong(format!("a key has {DIGITS} hex digits, this has {}", text.len()));
    }
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "5abf59f5f1a2f3c998a4f592ce081a23e14a68fd8a792259c6ec0fc1e8fb1246";

    #[test]
    fn a_key_is_read_with_space_around_it_and_in_either_case() {
        let key = parse(KEY.as_bytes()).unwrap();
        assert_eq!((key.len(), key[0], key[31]), (32, 0x5a, 0x46));
        assert_eq!(parse(format!(" {}\r\n", KEY.to_uppercase()).as_bytes()).unwrap(), key);
    }

    #[test]
    fn what_is_wrong_with_a_key_is_named_by_its_place() {
        let say = |text: &str| parse(text.as_bytes()).unwrap_err().sentence();
        assert_eq!(say(&KEY[..63]), "a key has 64 hex digits, this has 63");
        assert_eq!(say(&format!("{KEY}0")), "a key has 64 hex digits, this has 65");
        let wrong = format!("{}g{}", &KEY[..16], &KEY[17..]);
        assert_eq!(say(&wrong), "character 'g' at place 17 is no hex digit");
        assert_eq!(say("a\u{200d}"), "character U+200D at place 2 is no hex digit");
        assert_eq!(say(" \n"), "no key was given");
        assert!(say("kvass-server-0123").contains("cannot use server keys yet"));
        assert_eq!(parse(b"\xff").unwrap_err().sentence(), "the key is not text");
        assert!(!say(&KEY[..63]).contains(&KEY[..8]));
    }

    #[test]
    fn the_lines_that_the_seed_reads_over_ssh_are_exact() {
        let config =
            v1::Config { key: vec![0xab; 32], pid: 752_176_921, fingerprint: "12ab".into(), ..v1::Config::default() };
        let expected = format!(
            "Encryption Key: {}\nProcessID: 752176921\nRemote: (None)\nFingerprint: 12ab\nPublic URL: (None)\n",
            "ab".repeat(32)
        );
        assert_eq!(show(&config), expected);
    }
}
