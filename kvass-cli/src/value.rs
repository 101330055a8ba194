//! A value as it arrives: inline, or in frames that are handed on one by one.

use kvass_proto::v1::{Entry, Value};

use crate::connection::{Connection, Part, unexpected};
use crate::error::Error;

/// A value whose bytes are read as they are asked for.
pub(crate) struct Incoming<'a> {
    /// What is known of the entry.
    pub(crate) entry: Entry,
    inline: Option<Vec<u8>>,
    state: State,
    connection: &'a mut Connection,
}

#[derive(PartialEq)]
enum State {
    Inline,
    Frames,
    Done,
}

impl<'a> Incoming<'a> {
    /// The value that a message begins.
    pub(crate) fn new(value: Value, connection: &'a mut Connection) -> Self {
        let state = if value.inline.is_some() { State::Inline } else { State::Frames };
        Self { entry: value.entry.unwrap_or_default(), inline: value.inline, state, connection }
    }

    /// Whether the first piece is all of it.
    pub(crate) fn is_inline(&self) -> bool {
        self.inline.is_some()
    }

    /// The next bytes; `None` once they are all read.
    pub(crate) fn piece(&mut self) -> Result<Option<&[u8]>, Error> {
        match self.state {
            State::Done => return Ok(None),
            State::Inline => {
                self.state = State::Done;
                return Ok(self.inline.as_deref());
            }
            State::Frames => {}
        }
        match self.connection.next()? {
            Part::Data(bytes) => Ok(Some(bytes)),
            Part::End => {
                self.state = State::Done;
                Ok(None)
            }
            Part::Reply(_) => Err(unexpected()),
        }
    }

    /// Reads what is left, and drops it.
    pub(crate) fn skip(&mut self) -> Result<(), Error> {
        while self.piece()?.is_some() {}
        Ok(())
    }

    /// All of it, for a value that is known to be short.
    pub(crate) fn whole(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(bytes) = self.piece()? {
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }

    /// Hands it on in pieces of `size` bytes, of which the last may be shorter.
    pub(crate) fn chunks(
        &mut self,
        size: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut held = Vec::with_capacity(size);
        while let Some(mut bytes) = self.piece()? {
            while held.len() + bytes.len() >= size {
                let (now, later) = bytes.split_at(size - held.len());
                held.extend_from_slice(now);
                each(&held)?;
                held.clear();
                bytes = later;
            }
            held.extend_from_slice(bytes);
        }
        if held.is_empty() { Ok(()) } else { each(&held) }
    }
}
