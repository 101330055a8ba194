//! What fuzzing reaches of the client: that which reads what people, files and other machines give.
//!
//! Exists only where the compiler is told `--cfg fuzzing`. Each of these ends by a panic where a law does not hold.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::Cli;
use crate::commands::import::Lines;
use crate::error::Error;
use crate::json::Object;
use crate::pairing::Pairing;
use crate::{link, public_url, remote, time, usage};

/// Reads a command line, and says what is wrong with it.
pub fn arguments(arguments: &[OsString]) {
    let Err(error) = Cli::try_parse_from(arguments) else { return };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        assert!(!error.render().to_string().is_empty());
        return;
    }
    let said = usage::report(&error, arguments);
    assert_eq!(said.exit(), 2, "{error}");
    one_line(&said);
}

/// Reads a file of entries to its end or its first error, and writes each entry as a line that reads back.
pub fn import(bytes: &[u8]) {
    let mut lines = Lines::new(bytes);
    loop {
        match lines.entry() {
            Ok(None) => return,
            Ok(Some(entry)) => {
                for part in 2..=entry.parts {
                    if let Err(error) = lines.part(&entry.key, part, entry.parts) {
                        return one_line(&error);
                    }
                }
                reads_back(&entry.key, &entry.value, entry.time_us, entry.expiry_us);
            }
            Err(error) => return one_line(&error),
        }
    }
}

fn reads_back(key: &str, value: &[u8], time_us: Option<u64>, expiry_us: u64) {
    let moment = time_us.unwrap_or_default();
    let line = Object::new().text("key", key).number("size", value.len() as u64);
    let line = line.text("time", &time::microseconds(moment)).expiry(expiry_us).value(value).end();
    let again = Lines::new(line.as_bytes()).entry().ok().flatten().unwrap_or_else(|| panic!("{line}"));
    assert_eq!((again.key.as_str(), again.value.as_slice()), (key, value));
    assert_eq!((again.time_us, again.expiry_us), (Some(moment), expiry_us));
}

/// Reads a pairing line; one that is taken is written in one way only.
pub fn pairing(text: &str) {
    match Pairing::parse(text) {
        Ok(pairing) => {
            let line = pairing.to_line();
            assert!(Pairing::parse(&line).is_ok_and(|again| again == pairing));
            assert_eq!(remote::parse(&pairing.remote).as_ref(), Ok(&pairing.remote));
        }
        // What is said of a line has nothing of its key.
        Err(error) => assert!(error.to_string().len() < 100, "{error}"),
    }
}

/// Writes a pairing line of any key and remote; it reads back exactly where the remote is an address.
pub fn pair(key: &[u8; 32], address: &str) {
    let pairing = Pairing { key: key.to_vec(), remote: address.to_owned() };
    let is_address = !address.is_empty() && remote::parse(address).is_ok_and(|url| url == address);
    let read = Pairing::parse(&pairing.to_line());
    assert_eq!(read.is_ok_and(|read| read == pairing), is_address);
}

/// Reads an address, a public URL, a token, a time and a duration; what is written of each reads back as the same.
pub fn words(text: &str) {
    if let Ok(url) = remote::parse(text) {
        assert_eq!(remote::parse(&url).as_ref(), Ok(&url));
        assert!(url.is_empty() || public_url::parse(&url).is_ok());
    }
    if let Ok(url) = public_url::parse(text) {
        assert_eq!(public_url::parse(&url).as_ref(), Ok(&url));
        assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url}");
    }
    if let Some(token) = link::token(text) {
        assert_eq!(link::token(&link::text(&token)), Some(token));
    }
    if let Some(moment) = time::parse(text) {
        assert_eq!(time::parse(&time::microseconds(moment)), Some(moment));
    }
    if let Ok(duration) = time::duration(text) {
        let _: Option<u64> = time::after(duration.max(Duration::from_nanos(1)));
    }
}

/// An error is one sentence and one hint, whatever it speaks of.
fn one_line(error: &Error) {
    let (sentence, advice) = (error.sentence(), error.advice());
    assert!(!sentence.is_empty());
    assert!(!sentence.chars().chain(advice.chars()).any(char::is_control), "{sentence:?} {advice:?}");
}
