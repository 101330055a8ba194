//! What can go wrong, as a sentence, a hint and an exit code. The only place that knows either of the three forms.

use std::fmt::Display;
use std::io::Write;

use kvass_proto::key::KeyError;
use kvass_proto::line::one_line;
use kvass_proto::v1::{self, error::Code};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nothing more is to be said: ends with this exit code.
    Silent(u8),
    /// The key does not exist here.
    NoSuchKey(String),
    /// What a command was to act on is not there.
    Absent(Complaint),
    /// The command line or what it names is wrong.
    Input(Complaint),
    /// The daemon could not be reached, or something failed.
    Failed(Complaint),
    /// It was not synced, or not seen, in the time allowed.
    Late(Complaint),
    /// The connection ended without an answer; the request may have been carried out where `stored`.
    Lost {
        /// Whether the request would have changed the store.
        stored: bool,
    },
    /// What the daemon said.
    Daemon(v1::Error),
}

/// A sentence, what lies behind it, and what to do.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    what: String,
    cause: Option<String>,
    hint: String,
}

impl Error {
    pub(crate) fn absent(what: impl Into<String>) -> Self {
        Self::Absent(Complaint { what: what.into(), ..Complaint::default() })
    }

    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self::Input(Complaint { what: what.into(), ..Complaint::default() })
    }

    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(Complaint { what: what.into(), ..Complaint::default() })
    }

    pub(crate) fn late(what: impl Into<String>) -> Self {
        Self::Late(Complaint { what: what.into(), ..Complaint::default() })
    }

    /// The error with what lies behind it.
    pub(crate) fn because(mut self, cause: impl Display) -> Self {
        if let Some(complaint) = self.complaint() {
            complaint.cause = Some(cause.to_string());
        }
        self
    }

    /// The error with what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(complaint) = self.complaint() {
            complaint.hint = hint.into();
        }
        self
    }

    fn complaint(&mut self) -> Option<&mut Complaint> {
        match self {
            Self::Absent(said) | Self::Input(said) | Self::Failed(said) | Self::Late(said) => Some(said),
            _ => None,
        }
    }

    /// Whether the daemon answered with this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Daemon(error) if error.code() == code)
    }

    /// The same error, but a missing key is named `key`.
    pub(crate) fn of_key(self, key: &str) -> Self {
        if self.is(Code::NoSuchKey) { Self::NoSuchKey(key.into()) } else { self }
    }

    /// The same error, but what the daemon said stands behind this.
    pub(crate) fn after(mut self, what: &str) -> Self {
        if let Self::Daemon(error) = &mut self {
            let message = std::mem::replace(&mut error.message, what.into());
            error.causes.insert(0, message);
        }
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Silent(code) => *code,
            Self::NoSuchKey(_) | Self::Absent(_) => 1,
            Self::Input(_) => 2,
            Self::Failed(_) | Self::Lost { .. } => 3,
            Self::Late(_) => 4,
            Self::Daemon(error) => match error.code() {
                Code::NoSuchKey | Code::NoSuchLink => 1,
                Code::BadInput | Code::TooLarge | Code::Blind | Code::Unconfirmed | Code::NoBase => 2,
                Code::NoRemote | Code::NotReached => 4,
                _ => 3,
            },
        }
    }

    /// What happened, with its causes, in one line.
    pub(crate) fn sentence(&self) -> String {
        let line = match self {
            Self::Silent(_) => String::new(),
            Self::NoSuchKey(key) => format!("no such key: {key}"),
            Self::Absent(said) | Self::Input(said) | Self::Failed(said) | Self::Late(said) => match &said.cause {
                Some(cause) => format!("{}: {cause}", said.what),
                None => said.what.clone(),
            },
            Self::Lost { stored: true } => "kvassd went away without an answer; the change may have been stored".into(),
            Self::Lost { stored: false } => "kvassd went away without an answer".into(),
            Self::Daemon(error) => {
                let parts = std::iter::once(&error.message).chain(&error.causes);
                parts.map(String::as_str).collect::<Vec<_>>().join(": ")
            }
        };
        one_line(&line)
    }

    /// What to do; empty where there is nothing.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Absent(said) | Self::Input(said) | Self::Failed(said) | Self::Late(said) => one_line(&said.hint),
            Self::Lost { .. } => "try again; `kvass doctor` looks into it".into(),
            Self::Daemon(error) if error.hint.is_empty() && error.code() == Code::UnknownRequest => {
                "kvassd is older than this kvass: `kvass daemon restart`".into()
            }
            Self::Daemon(error) if error.hint.is_empty() && error.code() == Code::NoRemote => {
                "name one: kvass config remote HOST".into()
            }
            Self::Daemon(error) => one_line(&error.hint),
            Self::Silent(_) | Self::NoSuchKey(_) => String::new(),
        }
    }

    /// Says it on standard error.
    pub(crate) fn print(&self) {
        if matches!(self, Self::Silent(_)) {
            return;
        }
        let mut text = format!("kvass: {}\n", self.sentence());
        let advice = self.advice();
        if !advice.is_empty() {
            text.push_str(&format!("hint: {advice}\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::input(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(code: Code) -> Error {
        Error::Daemon(v1::Error { code: code.into(), ..v1::Error::default() })
    }

    #[test]
    fn each_code_of_the_daemon_has_its_exit_code() {
        let codes = [
            (Code::NoSuchKey, 1),
            (Code::BadInput, 2),
            (Code::TooLarge, 2),
            (Code::Blind, 2),
            (Code::Unconfirmed, 2),
            (Code::Failed, 3),
            (Code::DiskFull, 3),
            (Code::Damaged, 3),
            (Code::OtherDirectory, 3),
            (Code::Stopping, 3),
            (Code::CannotOpen, 3),
            (Code::UnknownRequest, 3),
            (Code::NoRemote, 4),
            (Code::NotReached, 4),
            (Code::NoBase, 2),
            (Code::NoSuchLink, 1),
        ];
        for (code, exit) in codes {
            assert_eq!(daemon(code).exit(), exit, "{code:?}");
        }
        let unknown = Error::Daemon(v1::Error { code: 99, ..v1::Error::default() });
        assert_eq!(unknown.exit(), 3);
    }

    #[test]
    fn causes_stand_behind_the_sentence_and_nothing_steers_the_terminal() {
        let error = Error::Daemon(v1::Error {
            message: "cannot store \u{1b}[31mx".into(),
            causes: vec!["disk\nfull".into(), "no space".into()],
            hint: "free some".into(),
            ..v1::Error::default()
        });
        assert_eq!(error.sentence(), "cannot store  [31mx: disk full: no space");
        assert_eq!(error.advice(), "free some");
    }

    #[test]
    fn a_lost_change_says_that_it_may_have_been_stored() {
        assert!(Error::Lost { stored: true }.sentence().contains("may have been stored"));
        assert!(!Error::Lost { stored: false }.sentence().contains("stored"));
    }
}
