//! Objects of JSON, one a line, with their fields in the order that people read them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kvass_proto::v1::{Entry, entry::Sync};

use crate::time;

/// One object as it is built.
#[derive(Debug)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".into())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.0.push_str(&serde_json::Value::from(value).to_string());
        self
    }

    pub(crate) fn number(mut self, name: &str, value: u64) -> Self {
        self.name(name);
        self.0.push_str(&value.to_string());
        self
    }

    /// A number with a sign, or null where there is none.
    pub(crate) fn number_or_null(mut self, name: &str, value: Option<i64>) -> Self {
        self.name(name);
        self.0.push_str(&value.map_or_else(|| "null".into(), |value| value.to_string()));
        self
    }

    pub(crate) fn truth(mut self, name: &str, value: bool) -> Self {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    /// A text, or null where it is empty.
    pub(crate) fn text_or_null(mut self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            self.name(name);
            self.0.push_str("null");
            self
        } else {
            self.text(name, value)
        }
    }

    /// `value` where the bytes are UTF-8, else `value_base64`.
    pub(crate) fn value(self, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text("value", text),
            Err(_) => self.base64(bytes),
        }
    }

    /// `value_base64`, whatever the bytes are.
    pub(crate) fn base64(mut self, bytes: &[u8]) -> Self {
        self.name("value_base64");
        self.0.push('"');
        STANDARD.encode_string(bytes, &mut self.0);
        self.0.push('"');
        self
    }

    /// `key`, `size`, `time`, `expires` where the entry does, and `sync`.
    pub(crate) fn entry(self, entry: &Entry) -> Self {
        let object = self.text("key", &entry.key).number("size", entry.size);
        let object = object.text("time", &time::microseconds(entry.time_us));
        object.expiry(entry.expiry_us).text("sync", sync_word(entry.sync()))
    }

    /// `expires` where it is not never.
    pub(crate) fn expiry(self, expiry_us: u64) -> Self {
        if expiry_us == 0 { self } else { self.text("expires", &time::microseconds(expiry_us)) }
    }

    /// The object without its closing brace, for a value that follows in pieces.
    pub(crate) fn open_value(mut self) -> String {
        self.name("value_base64");
        self.0.push('"');
        self.0
    }

    /// The whole object.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Bytes as base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes of base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// How far an entry is known to a remote, in one word.
pub(crate) fn sync_word(sync: Sync) -> &'static str {
    match sync {
        Sync::Local => "local",
        Sync::Pending => "pending",
        Sync::Synced => "synced",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_text_is_escaped() {
        let entry = Entry { key: "a\"b\u{2028}".into(), size: 2, time_us: 1, expiry_us: 0, sync: 1 };
        let line = Object::new().entry(&entry).value(b"x\0").end();
        assert_eq!(
            line,
            "{\"key\":\"a\\\"b\u{2028}\",\"size\":2,\"time\":\"1970-01-01T00:00:00.000001Z\",\
             \"sync\":\"pending\",\"value\":\"x\\u0000\"}"
        );
        let line = Object::new().value(b"\xff").text_or_null("remote", "").truth("ok", true).end();
        assert_eq!(line, r#"{"value_base64":"/w==","remote":null,"ok":true}"#);
    }
}
