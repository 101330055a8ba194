//! `kvass config key`: reads an encryption key or a server key, and puts it in force.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use kvass_proto::v1::{self, error::Code, request::Command};

use super::{ask, print};
use crate::client::Client;
use crate::error::Error;
use crate::terminal;

/// Hex digits of an encryption key.
const DIGITS: usize = 64;

/// What a server key begins with; the daemon reads the rest of it.
const SERVER: &str = "kvass-server-";

/// Puts a new random encryption key in force.
pub(super) fn renew(client: &mut Client, force: bool) -> Result<(), Error> {
    set(client, v1::SetKey::default(), force)
}

/// Puts the key of the argument, standard input or a prompt in force.
pub(super) fn change(client: &mut Client, argument: Option<OsString>, force: bool) -> Result<(), Error> {
    let key = parse(&read(client, argument)?)?;
    set(client, key, force)
}

fn set(client: &mut Client, key: v1::SetKey, force: bool) -> Result<(), Error> {
    let is_server_key = !key.server_key.is_empty();
    let config = match ask(client, Command::SetKey(v1::SetKey { confirmed: force, ..key.clone() })) {
        Err(error) if error.is(Code::Unconfirmed) && terminal::can_ask() => {
            if !terminal::confirm(&format!("kvass: {}. Is that meant?", error.sentence()))? {
                client.note("the key was not changed");
                return Ok(());
            }
            ask(client, Command::SetKey(v1::SetKey { confirmed: true, ..key }))?
        }
        answer => answer?,
    };
    let kind =
        if is_server_key { "a server key: this store keeps records and cannot read them" } else { "an encryption key" };
    print(&format!("Set {kind}.\nFingerprint: {}\n", config.fingerprint))?;
    match config.dropped {
        0 => {}
        1 => client.note("1 record did not verify with this key, and was removed"),
        count => client.note(&format!("{count} records did not verify with this key, and were removed")),
    }
    Ok(())
}

/// The text of a key from the argument, standard input, or a prompt.
fn read(client: &Client, argument: Option<OsString>) -> Result<Vec<u8>, Error> {
    match argument {
        Some(key) if key != "-" => {
            client.note("a key given as an argument is in the shell's history; `kvass config key` alone asks for it");
            Ok(key.as_bytes().to_vec())
        }
        _ if io::stdin().is_terminal() => terminal::hidden_line("Encryption key or server key"),
        _ => {
            let mut text = Vec::new();
            let read = io::stdin().lock().take(4_096).read_to_end(&mut text);
            read.map_err(|cause| Error::input("cannot read the key from standard input").because(cause))?;
            Ok(text)
        }
    }
}

/// Reads a key; what is wrong is told without showing more of it than one character.
fn parse(text: &[u8]) -> Result<v1::SetKey, Error> {
    let hint = "a key is what `kvass config show` calls Encryption Key, or what `kvass config server-key` shows";
    let wrong = |what: String| Err(Error::input(what).hint(hint));
    let Ok(text) = std::str::from_utf8(text) else { return wrong("the key is not text".into()) };
    let text = text.trim();
    if text.is_empty() {
        return wrong("no key was given".into());
    }
    if text.get(..SERVER.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(SERVER)) {
        return Ok(v1::SetKey { server_key: text.into(), ..v1::SetKey::default() });
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
    let key = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Ok(v1::SetKey { key, ..v1::SetKey::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "5abf59f5f1a2f3c998a4f592ce081a23e14a68fd8a792259c6ec0fc1e8fb1246";

    #[test]
    fn a_key_is_read_with_space_around_it_and_in_either_case() {
        let key = parse(KEY.as_bytes()).unwrap().key;
        assert_eq!((key.len(), key[0], key[31]), (32, 0x5a, 0x46));
        assert_eq!(parse(format!(" {}\r\n", KEY.to_uppercase()).as_bytes()).unwrap().key, key);
    }

    #[test]
    fn a_server_key_goes_to_the_daemon_as_it_is() {
        for text in ["kvass-server-0123", "KVASS-SERVER-0123"] {
            let key = parse(format!("\n {text} ").as_bytes()).unwrap();
            assert_eq!((key.server_key.as_str(), key.key.len()), (text, 0));
        }
        assert!(parse(b"kvass-serve").unwrap_err().sentence().contains("no hex digit"));
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
        assert_eq!(parse(b"\xff").unwrap_err().sentence(), "the key is not text");
        assert!(!say(&KEY[..63]).contains(&KEY[..8]));
    }
}
