//! What a record is of: an entry, a link, or something that cannot be told here.

use kvass_proto::v1::Header;

use super::Shared;
use super::names::Named;
use crate::keys::{Keys, encode_hex};
use crate::record::{Clear, Kind, Record, RecordError, RecordId};
use crate::seal;
use crate::share::Label;

/// What a verified record is of.
#[derive(Clone)]
pub(crate) enum Subject {
    /// An entry, by its name.
    Entry(String),
    /// A link.
    Share(Label),
    /// On a blind store anything; elsewhere what a newer program wrote.
    Unknown,
}

impl Subject {
    /// Opens the header of a record that was verified.
    pub(crate) fn open(keys: &Keys, clear: &Clear, record: &Record) -> Result<Self, RecordError> {
        match clear.is_known() {
            true => Ok(Self::of(&seal::open(keys, clear, record)?)),
            false => Ok(Self::Unknown),
        }
    }

    /// The subject of a header that was opened.
    pub(crate) fn of(header: &Header) -> Self {
        Label::of(header).map_or_else(|| Self::Entry(header.name.clone()), Self::Share)
    }

    /// What to call it in a report.
    pub(crate) fn words(&self, id: RecordId) -> String {
        match self {
            Self::Entry(name) => format!("'{name}'"),
            Self::Share(label) => format!("a link to '{}'", label.name),
            Self::Unknown => format!("record {}", encode_hex(&id.0)),
        }
    }

    /// The header that is sealed for it with a value that has this content key.
    pub(super) fn header(&self, content_key: Vec<u8>) -> Header {
        let name = match self {
            Self::Share(label) => return label.header(),
            Self::Entry(name) => name.clone(),
            Self::Unknown => String::new(),
        };
        Header { name, content_key, token: Vec::new(), reads: 0, pin: false }
    }
}

impl Shared {
    /// Keeps what is in memory of names and links up with a record that is in force.
    pub(super) fn note(&self, subject: &Subject, clear: &Clear) {
        match subject {
            Subject::Entry(name) if clear.kind == Kind::REMOVAL => self.names.remove(name),
            Subject::Entry(name) => self.names.insert(name, Named::of(clear)),
            Subject::Share(label) if clear.kind == Kind::REMOVAL => self.labels.remove(&label.name, clear.id),
            Subject::Share(label) => self.labels.insert(label, clear),
            Subject::Unknown => {}
        }
    }
}
