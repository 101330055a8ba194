//! The formats stand still: golden.json has the vectors of docs/format.md, which proof/format.py made independently.
#![allow(clippy::unwrap_used, reason = "a test")]

use kvass_proto::v1::Header;
use kvassd::keys::{EncryptionKey, Keys, SyncKey, Token, decode_hex, encode_hex};
use kvassd::record::{Auth, Clear, FORMAT, Kind, Record, RecordId, ValueHash};
use kvassd::seal;
use kvassd::share::{Grant, Label, Reach};
use kvassd::stamp::Stamp;
use kvassd::value::{self, CHUNK, ContentKey, INLINE_MAX, TAG};
use prost::Message;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn keys(vectors: &Value) -> Keys {
    Keys::derive(&EncryptionKey::from_hex(text(vectors, "key")).unwrap())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap()
}

fn bytes(object: &Value, field: &str) -> Vec<u8> {
    let digits = text(object, field);
    let mut bytes = vec![0; digits.len() / 2];
    assert!(decode_hex(digits, &mut bytes), "{field}");
    bytes
}

/// The value of a vector: byte number i is i mod 251.
fn plaintext(given: &Value) -> Vec<u8> {
    (0..number(given, "size")).map(|at| (at % 251) as u8).collect()
}

fn header(given: &Value) -> Header {
    Header {
        name: text(given, "name").into(),
        content_key: bytes(given, "content_key"),
        token: Vec::new(),
        reads: 0,
        pin: false,
    }
}

fn clear(keys: &Keys, given: &Value, value_hash: ValueHash) -> Clear {
    let (id, size) = (keys.record_id(text(given, "name")), number(given, "size"));
    Clear { id, size, ..clear_of(given, value_hash) }
}

/// All of a clear part but id and size.
fn clear_of(given: &Value, value_hash: ValueHash) -> Clear {
    Clear {
        format: FORMAT,
        kind: Kind(number(given, "kind") as u8),
        id: RecordId([0; 16]),
        generation: number(given, "generation") as u32,
        stamp: Stamp {
            time_us: number(given, "time_us"),
            counter: number(given, "counter"),
            pid: number(given, "pid") as u32,
        },
        expiry_us: number(given, "expiry_us"),
        size: 0,
        value_hash,
    }
}

fn seal_chunks(given: &Value) -> Vec<Vec<u8>> {
    let sealer = value::Chunks::new(&ContentKey::from_bytes(&bytes(given, "content_key")).unwrap());
    let (plaintext, count) = (plaintext(given), value::chunks(number(given, "size")));
    let seal = |position| {
        let plain = plaintext.chunks(CHUNK).nth(position as usize).unwrap_or_default();
        let mut buffer = [plain, &[0; TAG]].concat();
        sealer.seal(position, position + 1 == count, &mut buffer, plain.len());
        buffer
    };
    (0..count).map(seal).collect()
}

#[test]
fn an_account_has_its_sync_key_id_fingerprint_and_server_key() {
    let vectors = vectors();
    let account = keys(&vectors).account();
    let sync = keys(&vectors).sync_key().clone();
    assert_eq!(encode_hex(sync.as_bytes()), text(&vectors["derived"], "sync"));
    assert_eq!(sync.account(), account);
    assert_eq!(account.to_hex(), text(&vectors["derived"], "account"));
    assert_eq!(account.fingerprint(), text(&vectors["derived"], "fingerprint"));
    assert_eq!(*sync.to_text(), text(&vectors["derived"], "server_key"));
    assert!(SyncKey::from_text(text(&vectors["derived"], "server_key")) == Some(sync));
}

#[test]
fn records_are_sealed_to_these_bytes() {
    let vectors = vectors();
    let keys = keys(&vectors);
    for vector in vectors["records"].as_array().unwrap() {
        let (given, gives) = (&vector["given"], &vector["gives"]);
        let clear = clear(&keys, given, ValueHash(bytes(gives, "value_hash").try_into().unwrap()));
        let header = header(given).encode_to_vec();
        let record = seal::seal(&keys, &clear, &header);
        assert_eq!(encode_hex(&clear.id.0), text(gives, "id"));
        assert_eq!(encode_hex(&header), text(gives, "header"));
        assert_eq!(encode_hex(&record.clear), text(gives, "clear"));
        assert_eq!(encode_hex(&record.sealed), text(gives, "sealed"));
        assert_eq!(encode_hex(&record.auth.0), text(gives, "auth"));
    }
}

#[test]
fn these_bytes_open_as_records() {
    let vectors = vectors();
    let keys = keys(&vectors);
    for vector in vectors["records"].as_array().unwrap() {
        let (given, gives) = (&vector["given"], &vector["gives"]);
        let auth = Auth(bytes(gives, "auth").try_into().unwrap());
        let record = Record { clear: bytes(gives, "clear"), sealed: bytes(gives, "sealed"), auth };
        let read = seal::verify(&keys, &record).unwrap();
        assert_eq!(read, clear(&keys, given, read.value_hash));
        assert_eq!(seal::open(&keys, &read, &record), Ok(header(given)));
    }
}

#[test]
fn values_are_sealed_to_these_bytes() {
    for vector in vectors()["records"].as_array().unwrap() {
        let (given, gives) = (&vector["given"], &vector["gives"]);
        if Kind(number(given, "kind") as u8) != Kind::VALUE {
            continue;
        }
        let chunks = seal_chunks(given);
        let hashes: Vec<u8> = chunks.iter().flat_map(|chunk| value::chunk_hash(chunk)).collect();
        let sealed = chunks.concat();
        assert_eq!(sealed.len() as u64, value::sealed_length(number(given, "size")));
        assert_eq!(encode_hex(&value::value_hash(&hashes).0), text(gives, "value_hash"));
        assert_eq!(encode_hex(&value::chunk_hash(&sealed)), text(gives, "sealed_value_sha256"));
        if let Some(wanted) = gives["sealed_value"].as_str() {
            assert_eq!(encode_hex(&sealed), wanted);
        }
        let blob = gives["blob_sha256"].as_str();
        assert_eq!(blob.is_some(), number(given, "size") > INLINE_MAX);
        assert!(blob.is_none_or(|wanted| wanted == encode_hex(&value::chunk_hash(&[sealed, hashes].concat()))));
    }
}

/// The label and the grant of a link: to the entry, or to the version that is the record of that number.
fn link(keys: &Keys, vectors: &Value, given: &Value) -> (Label, Grant) {
    let (name, reads) = (text(given, "name"), number(given, "reads"));
    let token = Token::from_bytes(&bytes(given, "token")).unwrap();
    let at = given["pin"].as_u64();
    // Both are records of the same entry.
    let record = &vectors["records"][at.unwrap_or_default() as usize];
    let reach = match at {
        None => Reach::Entry(<[u8; 32]>::try_from(bytes(&record["gives"], "record_key")).unwrap().into()),
        Some(_) => Reach::Version {
            key: ContentKey::from_bytes(&bytes(&record["given"], "content_key")).unwrap(),
            hash: ValueHash(bytes(&record["gives"], "value_hash").try_into().unwrap()),
            size: number(&record["given"], "size"),
            name: name.into(),
        },
    };
    let label = Label { name: name.into(), token, reads, pin: at.is_some() };
    (label, Grant { target: keys.record_id(name), generation: 0, reads, reach })
}

#[test]
fn links_are_sealed_to_these_bytes_and_these_bytes_open() {
    let vectors = vectors();
    let keys = keys(&vectors);
    for vector in vectors["links"].as_array().unwrap() {
        let (given, gives) = (&vector["given"], &vector["gives"]);
        let (label, grant) = link(&keys, &vectors, given);
        assert_eq!(*label.token.to_text(), text(gives, "text"));
        assert!(Token::from_text(text(gives, "text")).as_ref() == Some(&label.token));
        assert_eq!(encode_hex(&label.token.locator().0), text(gives, "id"));
        let sealed = grant.seal(&label.token, keys.account());
        assert_eq!(encode_hex(&sealed.bytes), text(gives, "sealed_value"));
        assert_eq!(encode_hex(&sealed.hash.0), text(gives, "value_hash"));
        let size = sealed.size;
        assert_eq!(size, bytes(gives, "grant").len() as u64);
        let clear = Clear { id: label.token.locator(), size, ..clear_of(given, sealed.hash) };
        let header = label.header().encode_to_vec();
        assert_eq!(encode_hex(&header), text(gives, "header"));
        let record = seal::seal(&keys, &clear, &header);
        assert_eq!(encode_hex(&record.clear), text(gives, "clear"));
        assert_eq!(encode_hex(&record.sealed), text(gives, "sealed"));
        assert_eq!(encode_hex(&record.auth.0), text(gives, "auth"));
        assert_eq!(seal::verify(&keys, &record), Ok(clear));
        let opened = seal::open(&keys, &clear, &record).unwrap();
        assert!(Label::of(&opened) == Some(label.clone()) && label.fits(&keys, &clear, &sealed.bytes));
    }
}
