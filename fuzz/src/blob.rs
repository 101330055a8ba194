//! The file of a large value, damaged or meddled with by somebody who can write to the disk.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use kvassd::keys::encode_hex;

use crate::flip;
use crate::place::{OWN, Place};

const NAME: &str = "large own";

/// A store, the file of its large value, and what is in that.
struct Victim {
    place: Place,
    path: PathBuf,
    file: Vec<u8>,
    value: Vec<u8>,
}

static VICTIM: LazyLock<Victim> = LazyLock::new(|| {
    let place = OWN.copy();
    let (hash, file) = OWN.blobs.first_key_value().expect("a large value");
    let path = place.path().join("blobs").join(encode_hex(&hash.0));
    Victim { path, file: file.clone(), value: OWN.content[NAME].clone(), place }
});

#[derive(Arbitrary, Debug)]
enum Damage {
    Flip(u32),
    Truncate(u32),
    Append(Vec<u8>),
    /// Bytes from one place stand in another one.
    Move {
        from: u32,
        to: u32,
        length: u32,
    },
    Write {
        at: u32,
        bytes: Vec<u8>,
    },
}

#[derive(Arbitrary, Debug)]
struct Reading {
    seek: Option<u32>,
    parts: Option<u32>,
    damages: Vec<Damage>,
}

/// Reads a value whose file was damaged: only bytes of the value come out, in their places, and all or an error.
pub fn blob(bytes: &[u8]) {
    let Ok(reading) = Reading::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let victim = &*VICTIM;
    let mut file = victim.file.clone();
    reading.damages.iter().for_each(|damage| hurt(&mut file, damage));
    fs::write(&victim.path, &file).expect("a file in memory");
    let Ok(Some((entry, mut reader))) = victim.place.store.read(NAME) else {
        assert_ne!(file.len(), victim.file.len(), "a file of the right length is opened");
        return;
    };
    assert_eq!(entry.size, victim.value.len() as u64);
    let from = reading.seek.map_or(0, |seek| seek as usize % (victim.value.len() + 2));
    if reading.seek.is_some() {
        reader.seek(from as u64);
    }
    if let Some(bytes) = reading.parts {
        reader.limit_parts(bytes as usize);
    }
    let expected = victim.value.get(from..).unwrap_or_default();
    let mut read = Vec::new();
    let ended = loop {
        match reader.next(&mut read) {
            Ok(true) => assert!(expected.starts_with(&read), "bytes that are not of the value"),
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(expected.starts_with(&read), "bytes that are not of the value");
    match ended {
        Ok(()) => assert_eq!(read.len(), expected.len(), "a value that ends early"),
        Err(error) => assert!(file != victim.file, "{error}"),
    }
}

fn hurt(file: &mut Vec<u8>, damage: &Damage) {
    let length = file.len().max(1);
    let at = |place: &u32| *place as usize % length;
    match damage {
        Damage::Flip(bit) => flip(file, *bit as usize),
        Damage::Truncate(to) => file.truncate(at(to)),
        Damage::Append(bytes) => file.extend_from_slice(bytes),
        Damage::Move { from, to, length } => {
            let (from, to) = (at(from), at(to));
            let length = (*length as usize).min(file.len().saturating_sub(from)).min(file.len().saturating_sub(to));
            file.copy_within(from..from + length, to);
        }
        Damage::Write { at: place, bytes } => {
            let place = at(place).min(file.len());
            let length = bytes.len().min(file.len() - place);
            file[place..place + length].copy_from_slice(&bytes[..length]);
        }
    }
}
