//! The chunks of a sealed value, in the hands of somebody without its key.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use kvassd::value::{self, CHUNK, Chunks, ContentKey, TAG};

use crate::flip;

/// Bytes of the values: each number of chunks at its edges.
const SIZES: [usize; 6] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5];

struct Value {
    plain: Vec<u8>,
    sealed: Vec<Vec<u8>>,
    chunks: Chunks,
}

static VALUES: LazyLock<Vec<Value>> =
    LazyLock::new(|| SIZES.iter().enumerate().map(|(at, size)| sealed(at as u8, *size)).collect());

fn sealed(number: u8, size: usize) -> Value {
    let key = ContentKey::from_bytes(&[number; 32]).expect("32 bytes");
    let chunks = Chunks::new(&key);
    let plain: Vec<u8> = (0..size).map(|at| (at % 251) as u8 ^ number).collect();
    let count = value::chunks(size as u64) as usize;
    let seal = |at: usize| {
        let part = &plain[at * CHUNK..size.min((at + 1) * CHUNK)];
        let mut buffer = [part, &[0; TAG]].concat();
        chunks.seal(at as u64, at + 1 == count, &mut buffer, part.len());
        buffer
    };
    let sealed = (0..count).map(seal).collect();
    Value { sealed, plain, chunks }
}

/// What is shown to a reader as a chunk.
#[derive(Arbitrary, Debug)]
struct Shown {
    /// The reader's value, place, and whether it takes it to be the last.
    reader: u8,
    position: u32,
    is_high: bool,
    last: bool,
    /// Which value and chunk the bytes are of.
    value: u8,
    chunk: u8,
    /// What becomes of them on the way.
    edits: Vec<Edit>,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip(u32),
    Cut(u16),
    Keep(u16),
    Append(Vec<u8>),
    Replace(Vec<u8>),
}

/// Opens chunks that were cut, moved, mixed and changed: only what was sealed for that place opens, as it was sealed.
pub fn chunks(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    while let Ok(shown) = Shown::arbitrary(&mut input) {
        show(&shown);
        if input.is_empty() {
            return;
        }
    }
}

fn show(shown: &Shown) {
    let at = |number: u8| &VALUES[usize::from(number) % VALUES.len()];
    let (reader, from) = (at(shown.reader), at(shown.value));
    let mut chunk = from.sealed[usize::from(shown.chunk) % from.sealed.len()].clone();
    shown.edits.iter().for_each(|edit| change(&mut chunk, edit));
    let position = if shown.is_high { u64::from(shown.position) << 20 } else { u64::from(shown.position % 4) };
    let place = usize::try_from(position).expect("a machine of 64 bits");
    let is_true =
        reader.sealed.get(place).is_some_and(|own| *own == chunk && shown.last == (place + 1 == reader.sealed.len()));
    let shown_bytes = chunk.clone();
    match reader.chunks.open(position, shown.last, &mut chunk) {
        Ok(()) => {
            assert!(is_true, "bytes that were not sealed for this place");
            let length = chunk.len() - TAG;
            assert_eq!(chunk[..length], reader.plain[place * CHUNK..place * CHUNK + length]);
        }
        Err(_) => assert!(!is_true, "a chunk that was sealed does not open"),
    }
    if shown_bytes.len() <= CHUNK + TAG {
        short(&shown_bytes);
    }
}

/// A value of one chunk.
fn short(bytes: &[u8]) {
    let key = ContentKey::from_bytes(&[1; 32]).expect("32 bytes");
    let opened = value::open_short(&key, bytes);
    assert_eq!(opened.is_ok(), bytes == VALUES[1].sealed[0]);
}

fn change(chunk: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Flip(bit) => flip(chunk, *bit as usize),
        Edit::Cut(length) => chunk.truncate(chunk.len().saturating_sub(usize::from(*length))),
        Edit::Keep(length) => chunk.truncate((*length).into()),
        Edit::Append(bytes) => chunk.extend_from_slice(bytes),
        Edit::Replace(bytes) => chunk.clone_from(bytes),
    }
}
