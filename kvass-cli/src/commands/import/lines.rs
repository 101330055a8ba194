//! The lines of an export, checked as they are read.

use std::io::{BufRead, Read};

use kvass_proto::key;
use serde_json::{Map, Value};

use crate::commands::export::FORMAT;
use crate::error::Error;
use crate::{json, time};

/// The longest line, in bytes.
const LINE_MAX: u64 = 16 << 20;

/// An entry, or the first part of one.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// When it was written; `None`: now.
    pub(crate) time_us: Option<u64>,
    /// When it expires; 0 is never.
    pub(crate) expiry_us: u64,
    /// The bytes of the whole value, where known.
    pub(crate) size: Option<u64>,
    /// The value, or its first part.
    pub(crate) value: Vec<u8>,
    /// How many lines hold the value.
    pub(crate) parts: u64,
}

/// Reads lines and remembers where it is.
pub(crate) struct Lines<R> {
    from: R,
    number: u64,
    entries: u64,
    /// Whether the file began with a header, so that it has to end with its number of entries.
    headed: bool,
    ended: bool,
}

type Object = Map<String, Value>;

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, number: 0, entries: 0, headed: false, ended: false }
    }

    /// The next entry; `None` at the end of a whole file.
    pub(crate) fn entry(&mut self) -> Result<Option<Entry>, Error> {
        while let Some(object) = self.object()? {
            if self.ended {
                return Err(self.wrong("something stands behind the last line of the export"));
            }
            if object.contains_key("key") {
                let entry = entry(&object).map_err(|what| self.wrong(&what))?;
                self.entries += 1;
                return Ok(Some(entry));
            }
            self.frame(&object)?;
        }
        if self.headed && !self.ended {
            return Err(Error::input(format!(
                "the export is cut short: it ends after line {} without its last line",
                self.number
            ))
            .hint("what stands before that was imported; export again for the rest"));
        }
        Ok(None)
    }

    /// Reads a line that begins or ends an export.
    fn frame(&mut self, object: &Object) -> Result<(), Error> {
        if let Some(format) = object.get("kvass_export") {
            if self.headed || self.entries > 0 {
                return Err(self.wrong("a second header"));
            }
            if format.as_u64() != Some(FORMAT) {
                return Err(self.wrong(&format!("format {format} is not known, only {FORMAT}")));
            }
            self.headed = true;
            return Ok(());
        }
        let Some(entries) = object.get("entries") else { return Err(self.wrong("no 'key'")) };
        if entries.as_u64() != Some(self.entries) {
            return Err(self.wrong(&format!("the export has {entries} entries, but {} were read", self.entries)));
        }
        self.ended = true;
        Ok(())
    }

    /// A further part of the value of `key`.
    pub(crate) fn part(&mut self, key: &str, part: u64, parts: u64) -> Result<Vec<u8>, Error> {
        let Some(object) = self.object()? else {
            return Err(Error::input(format!("the export is cut short: '{key}' has {} of {parts} parts", part - 1)));
        };
        let numbers = (object.get("part").and_then(Value::as_u64), object.get("parts").and_then(Value::as_u64));
        if object.get("key").and_then(Value::as_str) != Some(key) || numbers != (Some(part), Some(parts)) {
            return Err(self.wrong(&format!("part {part} of '{key}' was expected here")));
        }
        value(&object).map_err(|what| self.wrong(&what))
    }

    /// The next line that is not empty.
    fn object(&mut self) -> Result<Option<Object>, Error> {
        loop {
            let mut line = Vec::new();
            let read = self.from.by_ref().take(LINE_MAX + 1).read_until(b'\n', &mut line);
            self.number += 1;
            read.map_err(|cause| Error::input(format!("cannot read line {}", self.number)).because(cause))?;
            if line.is_empty() {
                self.number -= 1;
                return Ok(None);
            }
            if line.len() as u64 > LINE_MAX {
                return Err(self.wrong("longer than 16 MiB"));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line) {
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(_) => Err(self.wrong("not an object")),
                Err(cause) => Err(self.wrong(&format!("not JSON, at column {}", cause.column()))),
            };
        }
    }

    /// The parts of a value are not what its first line promised.
    pub(crate) fn wrong_size(&self, key: &str, sent: u64) -> Error {
        self.wrong(&format!("the parts of '{key}' have {sent} bytes so far, not the size that it gives"))
    }

    fn wrong(&self, what: &str) -> Error {
        Error::input(format!("line {}", self.number)).because(what).hint("docs/export.md describes the lines")
    }
}

fn entry(object: &Object) -> Result<Entry, String> {
    let name = object.get("key").and_then(Value::as_str).ok_or("'key' is no text")?;
    key::check(name).map_err(|error| error.to_string())?;
    let (part, parts) = (number(object, "part")?.unwrap_or(1), number(object, "parts")?.unwrap_or(1));
    if part != 1 || parts == 0 {
        return Err(format!("part {part} of {parts} of '{name}' does not begin it"));
    }
    let value = value(object)?;
    let size = number(object, "size")?;
    if parts == 1 && size.is_some_and(|size| size != value.len() as u64) {
        return Err(format!("'{name}' has {} bytes, not the size that it gives", value.len()));
    }
    let size = if parts == 1 { Some(value.len() as u64) } else { size };
    let time_us = moment(object, "time")?;
    Ok(Entry { key: name.into(), time_us, expiry_us: moment(object, "expires")?.unwrap_or(0), size, value, parts })
}

fn value(object: &Object) -> Result<Vec<u8>, String> {
    match (object.get("value"), object.get("value_base64")) {
        (Some(Value::String(text)), None) => Ok(text.clone().into_bytes()),
        (None, Some(Value::String(text))) => json::from_base64(text).ok_or("'value_base64' is no base64".into()),
        (None, None) => Err("neither 'value' nor 'value_base64'".into()),
        (Some(_), Some(_)) => Err("both 'value' and 'value_base64'".into()),
        _ => Err("the value is no text".into()),
    }
}

fn number(object: &Object, name: &str) -> Result<Option<u64>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("'{name}' is no number")),
    }
}

fn moment(object: &Object, name: &str) -> Result<Option<u64>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(time::parse)
            .map(Some)
            .ok_or_else(|| format!("'{name}' is no time as 2024-02-29T12:00:00Z")),
    }
}
