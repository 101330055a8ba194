//! The line that carries a remote and the encryption key to another device. docs/local.md has its bytes.
//!
//! Pure. The checksum is CRC-32, which finds every wrong letter.

use thiserror::Error;

use crate::base32::{self, Base32Error};
use crate::crc32::crc32;
use crate::remote;

const PREFIX: &str = "kvass-pair-";

/// The first byte; another one means other bytes behind it.
const VERSION: u8 = 1;

const KEY: usize = 32;
const CHECKSUM: usize = 4;

/// What a line carries. By design not `Debug`.
#[derive(PartialEq, Eq)]
pub(crate) struct Pairing {
    /// 32 bytes.
    pub(crate) key: Vec<u8>,
    /// An address as a URL.
    pub(crate) remote: String,
}

/// What is wrong with a line; none of it is shown but one character.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum PairingError {
    #[error("no pairing line was given")]
    Empty,
    #[error("this is no pairing line: that begins with '{PREFIX}'")]
    Prefix,
    #[error("character {shown} at place {place} cannot be in a pairing line")]
    Character { shown: String, place: usize },
    #[error("the pairing line has a typing error, or was cut short")]
    Checksum,
    #[error("the pairing line is of a newer kvass")]
    Version,
    #[error("the pairing line names no remote that can be used")]
    Remote,
}

impl Pairing {
    /// Writes the line.
    pub(crate) fn to_line(&self) -> String {
        let mut bytes = [&[VERSION], self.key.as_slice(), self.remote.as_bytes()].concat();
        bytes.extend(crc32(&bytes).to_be_bytes());
        format!("{PREFIX}{}", base32::encode(&bytes))
    }

    /// Reads a line, in either case, whatever space is around and in it.
    pub(crate) fn parse(line: &str) -> Result<Self, PairingError> {
        let line: String = line.split_whitespace().collect::<String>().to_lowercase();
        if line.is_empty() {
            return Err(PairingError::Empty);
        }
        let letters = line.strip_prefix(PREFIX).ok_or(PairingError::Prefix)?;
        let bytes = base32::decode(letters).map_err(|error| match error {
            Base32Error::Letter { letter, place } => unknown(letter, PREFIX.len() + place),
            Base32Error::Rest => PairingError::Checksum,
        })?;
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(PairingError::Checksum)?;
        if u32::from_be_bytes(*checksum) != crc32(bytes) {
            return Err(PairingError::Checksum);
        }
        let (version, rest) = bytes.split_first().ok_or(PairingError::Checksum)?;
        if *version != VERSION {
            return Err(PairingError::Version);
        }
        let (key, url) = rest.split_at_checked(KEY).ok_or(PairingError::Checksum)?;
        let url = std::str::from_utf8(url).map_err(|_| PairingError::Remote)?;
        match remote::parse(url) {
            Ok(parsed) if parsed == url && !url.is_empty() => Ok(Self { key: key.to_vec(), remote: parsed }),
            _ => Err(PairingError::Remote),
        }
    }
}

fn unknown(letter: char, place: usize) -> PairingError {
    let shown = match letter {
        '\u{21}'..='\u{7e}' => format!("'{letter}'"),
        _ => format!("U+{:04X}", letter as u32),
    };
    PairingError::Character { shown, place }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairing() -> Pairing {
        Pairing { key: (0..32).collect(), remote: "http://host.example:8000".into() }
    }

    fn parse(line: &str) -> Result<(), PairingError> {
        Pairing::parse(line).map(drop)
    }

    #[test]
    fn a_line_is_as_the_document_says() {
        let line = pairing().to_line();
        assert_eq!(
            line,
            "kvass-pair-040020g30g2gc1r81450p30d1r7h048j2ca1a5gq30chm6rw3mf1yt3mehr3mbsfd1qq6x1ecnw62vbgdhjkme1g60rafjcx98"
        );
    }

    #[test]
    fn a_line_is_read_back_in_either_case_and_with_space_in_it() {
        for remote in ["http://h:80", "https://[2001:db8::1]:443", &format!("http://{}:1", "a.".repeat(126))] {
            let pairing = Pairing { remote: remote.into(), ..pairing() };
            let line = pairing.to_line();
            let (start, end) = line.split_at(50);
            for line in [&line, &line.to_uppercase(), &format!(" {start}\r\n  {end}\n")] {
                assert!(Pairing::parse(line).is_ok_and(|read| read == pairing), "{line}");
            }
        }
        let confused = pairing().to_line().replace('0', "o").replace('1', "l");
        assert!(Pairing::parse(&confused.to_uppercase()).is_ok());
    }

    #[test]
    fn each_wrong_letter_and_each_pair_that_changed_places_is_found() {
        let line = pairing().to_line();
        let letters: Vec<char> = line.chars().collect();
        for place in PREFIX.len()..letters.len() {
            for other in
                base32::ALPHABET.iter().map(|other| char::from(*other)).filter(|other| *other != letters[place])
            {
                let mut wrong = letters.clone();
                wrong[place] = other;
                assert_eq!(parse(&wrong.iter().collect::<String>()), Err(PairingError::Checksum), "{place} {other}");
            }
            let mut swapped = letters.clone();
            swapped.swap(place, (place + 1).min(letters.len() - 1));
            if swapped != letters {
                assert_eq!(parse(&swapped.iter().collect::<String>()), Err(PairingError::Checksum), "{place}");
            }
            assert_eq!(parse(&line[..place]), Err(PairingError::Checksum), "cut at {place}");
        }
        assert_eq!(parse(&format!("{line}0")), Err(PairingError::Checksum));
    }

    #[test]
    fn what_is_no_line_is_told_without_showing_it() {
        let line = |mut bytes: Vec<u8>| {
            bytes.extend(crc32(&bytes).to_be_bytes());
            format!("{PREFIX}{}", base32::encode(&bytes))
        };
        let of = |url: &[u8]| line([&[VERSION][..], &[7; 32], url].concat());
        for (text, error) in [
            (String::new(), PairingError::Empty),
            (" \n".into(), PairingError::Empty),
            ("0f".repeat(32), PairingError::Prefix),
            ("kvass-server-0123".into(), PairingError::Prefix),
            (format!("{PREFIX}0a!"), PairingError::Character { shown: "'!'".into(), place: 14 }),
            (format!("{PREFIX}u"), PairingError::Character { shown: "'u'".into(), place: 12 }),
            (format!("{PREFIX}\u{e9}"), PairingError::Character { shown: "U+00E9".into(), place: 12 }),
            (PREFIX.into(), PairingError::Checksum),
            (line(vec![2; 60]), PairingError::Version),
            (line(vec![VERSION; 20]), PairingError::Checksum),
            (of(b""), PairingError::Remote),
            (of(b"\xff"), PairingError::Remote),
            (of(b"host:80"), PairingError::Remote),
            (of(b"ftp://host:80"), PairingError::Remote),
        ] {
            assert_eq!(parse(&text), Err(error), "{text}");
        }
    }
}
