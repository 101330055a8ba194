//! The one map from what fails in the store to what a client reads.

use std::io;

use kvass_proto::key::KeyError;
use kvass_proto::v1::{self, error::Code};

use crate::store::{OpenError, ReadError, WriteError};

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client cannot be reached any more.
    Gone(io::Error),
    /// The client is told this.
    Answer(Box<v1::Error>),
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::with_hint(code, message, "")
    }

    pub(crate) fn with_hint(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let error = v1::Error { code: code.into(), message: message.into(), causes: Vec::new(), hint: hint.into() };
        Self::Answer(Box::new(error))
    }

    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Code::BadInput, message)
    }

    pub(crate) fn no_such_key(key: &str) -> Self {
        Self::new(Code::NoSuchKey, format!("no such key: {key}"))
    }

    fn of(error: &dyn std::error::Error, code: Code, hint: &str) -> Self {
        Self::Answer(Box::new(message(error, code, hint)))
    }
}

/// An error with its causes as the client reads it.
pub(crate) fn message(error: &dyn std::error::Error, code: Code, hint: &str) -> v1::Error {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    v1::Error { code: code.into(), message: error.to_string(), causes, hint: hint.into() }
}

/// Why the store did not open, as the client reads it.
pub(crate) fn not_opened(error: &OpenError) -> v1::Error {
    let code = if error.is_damage() { Code::Damaged } else { Code::CannotOpen };
    message(error, code, error.hint())
}

/// A frame that is none is answered; anything else that breaks a connection is not.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => {
                Self::of(&error, Code::BadInput, "another version of kvass, or another program, may have sent it")
            }
            _ => Self::Gone(error),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::of(&error, Code::BadInput, "")
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::of(&error, code_of(&error), error.hint())
    }
}

fn code_of(error: &ReadError) -> Code {
    match error {
        ReadError::Damaged(_) | ReadError::Value { .. } => Code::Damaged,
        ReadError::Blind => Code::Blind,
        ReadError::DiskFull => Code::DiskFull,
        ReadError::Closed => Code::Stopping,
        ReadError::Io { .. } => Code::Failed,
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let code = match &error {
            WriteError::Key(_) | WriteError::Refused(_) => Code::BadInput,
            WriteError::Unconfirmed(_) => Code::Unconfirmed,
            WriteError::TooLarge { .. } => Code::TooLarge,
            WriteError::DiskFull { .. } => Code::DiskFull,
            WriteError::Damaged(_) => Code::Damaged,
            WriteError::Read(error) => code_of(error),
            WriteError::Closed => Code::Stopping,
            WriteError::Random(_) | WriteError::Io { .. } => Code::Failed,
        };
        Self::of(&error, code, error.hint())
    }
}

/// A call into the store that panicked.
impl From<tokio::task::JoinError> for Failure {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::with_hint(Code::Failed, "the daemon met a fault of its own", "its log says where")
    }
}
