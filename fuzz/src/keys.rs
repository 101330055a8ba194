//! Keys as text: of either kind, tokens, pairing lines.

use kvass_proto::v1;
use kvassd::keys::{EncryptionKey, Key, SyncKey, Token};
use prost::Message;

/// Reads a text as each kind of key, and writes any bytes as each.
pub fn keys(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
    write(bytes);
}

fn read(text: &str) {
    kvass_cli::fuzz::pairing(text);
    if let Some(key) = Key::from_text(text) {
        let written = key.to_text();
        assert!(Key::from_text(&written).is_some_and(|again| again == key));
        assert_eq!(key.access().account(), key.sync_key().account());
        // Neither kind is taken for the other.
        assert!(EncryptionKey::from_hex(text).is_some() != SyncKey::from_text(text).is_some());
    }
    if let Some(token) = Token::from_text(text) {
        assert!(Token::from_text(&token.to_text()).is_some_and(|again| again == token));
        // The client reads the same letters.
        let link = format!("http://host/get?q={text}");
        kvass_cli::fuzz::words(&link);
    }
    let _ = kvass_proto::key::check(text);
    let line = kvass_proto::line::one_line(text);
    assert!(!line.chars().any(char::is_control));
}

fn write(bytes: &[u8]) {
    let Some((key, rest)) = bytes.split_first_chunk::<32>() else { return };
    let (full, server) = (EncryptionKey::new(*key), SyncKey::new(*key));
    assert!(Key::from_text(&full.to_hex()) == Some(Key::Encryption(full)));
    let line = server.to_text();
    assert!(Key::from_text(&line) == Some(Key::Server(server)));
    let mut wrong = line.to_string();
    let at = kvassd::keys::SERVER_KEY_PREFIX.len()
        + rest.first().map_or(0, |at| usize::from(*at)) % (wrong.len() - kvassd::keys::SERVER_KEY_PREFIX.len());
    let other = if wrong.as_bytes()[at] == b'x' { "y" } else { "x" };
    wrong.replace_range(at..=at, other);
    // Its sum has 32 bits, so that a wrong letter may be taken once in many years.
    assert!(SyncKey::from_text(&wrong) != Some(SyncKey::new(*key)), "a wrong letter makes no difference");
    if let Ok(address) = std::str::from_utf8(rest) {
        kvass_cli::fuzz::pair(key, address);
    }
    let mut token = v1::Header::default();
    token.token = key[..16].to_vec();
    assert!(!format!("{token:?}").contains("token: ["), "{}", token.encoded_len());
}
