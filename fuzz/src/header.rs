//! What is behind the seal of a record, as a device with the key could have put it there, and seals that were meddled
//! with.

use arbitrary::{Arbitrary, Unstructured};
use kvass_proto::v1::Header;
use kvassd::fuzz;
use kvassd::keys::Token;
use kvassd::record::{Clear, FORMAT, Kind, RecordId, ValueHash};
use kvassd::seal;
use kvassd::share::{Grant, Label};
use kvassd::stamp::Stamp;
use prost::Message;

use crate::{KEYS, OTHERS, flip};

/// A record, and what of it is changed once it is sealed.
#[derive(Arbitrary, Debug)]
struct Sealed {
    kind: u8,
    /// Whether the id is that of the name or the token in the header.
    is_own: bool,
    generation: u8,
    time_us: u64,
    counter: u64,
    expiry_us: u64,
    size: u16,
    flip: Option<(u8, u16)>,
    token: [u8; 16],
    /// Which part of the rest is the header; the other one is a grant.
    header: u16,
}

/// Seals any bytes in the place of a header and of a grant, and opens them.
pub fn header(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(sealed) = Sealed::arbitrary(&mut input) else { return };
    let rest = input.take_rest();
    let (header, plain) = rest.split_at(rest.len().min(sealed.header.into()));
    open(&sealed, header);
    grant(&sealed, header, plain);
}

fn clear(sealed: &Sealed, id: RecordId) -> Clear {
    let kind = Kind(sealed.kind % 5);
    let has_value = kind != Kind::REMOVAL;
    Clear {
        format: FORMAT,
        kind,
        id,
        generation: sealed.generation.into(),
        stamp: Stamp { time_us: sealed.time_us, counter: sealed.counter, pid: 7 },
        expiry_us: sealed.expiry_us,
        size: if has_value { (sealed.size % 4_097).into() } else { 0 },
        value_hash: if has_value { ValueHash([9; 32]) } else { ValueHash::NONE },
    }
}

fn open(sealed: &Sealed, bytes: &[u8]) {
    let decoded = Header::decode(bytes);
    let own = decoded.as_ref().ok().and_then(|header| seal::id_of(&KEYS, header));
    let id = own.filter(|_| sealed.is_own).unwrap_or(RecordId([1; 16]));
    let clear = clear(sealed, id);
    let mut record = seal::seal(&KEYS, &clear, bytes);
    if let Some((part, bit)) = sealed.flip {
        let part = match part % 3 {
            0 => &mut record.clear[..],
            1 => &mut record.sealed[..],
            _ => &mut record.auth.0[..],
        };
        flip(part, bit.into());
        assert!(seal::verify(&KEYS, &record).is_err(), "a flipped bit verifies");
        return;
    }
    assert!(seal::verify(&OTHERS, &record).is_err(), "another key verifies");
    // Its stamp, or the length of its header, may be none that a store takes.
    let Ok(read) = seal::verify(&KEYS, &record) else {
        assert!(record.parse().is_err());
        return;
    };
    assert_eq!(read, clear);
    assert_eq!(seal::open_bytes(&KEYS, &read, &record).expect("what was sealed").as_slice(), bytes);
    assert!(seal::open_bytes(&OTHERS, &read, &record).is_err());
    if let Ok(header) = seal::open(&KEYS, &read, &record) {
        assert_eq!(Some(read.id), seal::id_of(&KEYS, &header), "a header of another record");
        assert_eq!(Label::of(&header).is_some(), !header.token.is_empty());
        assert_eq!(seal::seal(&KEYS, &read, bytes), record, "sealing again gives other bytes");
    }
}

fn grant(sealed: &Sealed, header: &[u8], plain: &[u8]) {
    let Some(token) = Token::from_bytes(&sealed.token) else { return };
    let bytes = fuzz::grant(&token, KEYS.account(), plain);
    assert!(Grant::open(&token, OTHERS.account(), &bytes).is_err());
    let opened = Grant::open(&token, KEYS.account(), &bytes);
    if let Ok(grant) = &opened {
        let again = grant.seal(&token, KEYS.account());
        assert!(Grant::open(&token, KEYS.account(), &again.bytes).is_ok());
    }
    if let Some(label) = Header::decode(header).ok().and_then(|header| Label::of(&header)) {
        let fits = label.fits(&KEYS, &clear(sealed, token.locator()), &bytes);
        assert!(!fits || (opened.is_ok() && label.token.as_bytes() == &sealed.token));
        if let Some(moved) = Grant::reseal(&token, &label.name, &bytes, &KEYS, &OTHERS) {
            let back = Grant::reseal(&token, &label.name, &moved.bytes, &OTHERS, &KEYS);
            assert_eq!(back.map(|back| back.bytes.len()), Some(bytes.len()));
        }
    }
}
