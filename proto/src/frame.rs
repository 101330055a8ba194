//! Frames of the local socket: a header of five bytes, then the payload.
//!
//! The header is the payload's length, four bytes, big endian, and one byte for the kind. Values travel as raw data
//! frames, so that they are not copied into messages and out again.

use std::io::{self, Read, Write};

use prost::Message;

/// Bytes of a frame's header.
pub const HEADER: usize = 5;

/// The greatest payload of a message frame, in bytes.
pub const MESSAGE_MAX: usize = 1 << 20;

/// The greatest payload of a data frame, in bytes.
pub const DATA_MAX: usize = 256 << 10;

/// The longest value that travels inside a message, in bytes.
pub const INLINE_MAX: usize = 64 << 10;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `Request` or a `Reply`.
    Message,
    /// Bytes of a value, or of a list of names.
    Data,
    /// Nothing: what was sent in data frames is whole.
    End,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum FrameError {
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a frame of {0} bytes, more than its kind allows")]
    TooLong(usize),
    #[error("a message that does not decode")]
    Message(#[source] prost::DecodeError),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Encodes the header of a frame whose payload has `length` bytes, at most [`DATA_MAX`] or [`MESSAGE_MAX`].
#[must_use]
pub fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    let kind = match kind {
        Kind::Message => 0,
        Kind::Data => 1,
        Kind::End => 2,
    };
    [a, b, c, d, kind]
}

/// Decodes a frame's header into its kind and the length of its payload in bytes.
///
/// # Errors
/// A kind that does not exist, or a length over the kind's greatest.
pub fn parse_header(header: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let [a, b, c, d, kind] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let (kind, most) = match kind {
        0 => (Kind::Message, MESSAGE_MAX),
        1 => (Kind::Data, DATA_MAX),
        2 => (Kind::End, 0),
        other => return Err(FrameError::UnknownKind(other)),
    };
    if length > most {
        return Err(FrameError::TooLong(length));
    }
    Ok((kind, length))
}

/// Encodes a message as one whole frame.
#[must_use]
pub fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(HEADER + length);
    frame.extend_from_slice(&header(Kind::Message, length));
    message.encode_raw(&mut frame);
    frame
}

/// Decodes the payload of a message frame.
///
/// # Errors
/// Bytes that are no such message.
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, FrameError> {
    M::decode(payload).map_err(FrameError::Message)
}

/// Writes one message frame.
///
/// # Errors
/// What `to` reports.
pub fn write_message(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    to.write_all(&encode(message))
}

/// Writes `data` as data frames.
///
/// # Errors
/// What `to` reports.
pub fn write_data(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    for part in data.chunks(DATA_MAX) {
        to.write_all(&header(Kind::Data, part.len()))?;
        to.write_all(part)?;
    }
    Ok(())
}

/// Writes the end frame.
///
/// # Errors
/// What `to` reports.
pub fn write_end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&header(Kind::End, 0))
}

/// Reads one frame; its payload replaces what `payload` held. `None` where the stream ends before a frame.
///
/// # Errors
/// What `from` reports, an end in the middle of a frame, or a bad header as `InvalidData`.
pub fn read(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    let mut bytes = [0; HEADER];
    let first = loop {
        match from.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut bytes[first..])?;
    let (kind, length) = parse_header(bytes)?;
    payload.resize(length, 0);
    from.read_exact(payload)?;
    Ok(Some(kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1;

    #[test]
    fn a_stream_of_frames_comes_back_as_it_was_written() {
        let message = v1::Get { key: "a".into() };
        let mut bytes = Vec::new();
        write_message(&mut bytes, &message).unwrap();
        write_data(&mut bytes, &vec![7; DATA_MAX + 1]).unwrap();
        write_end(&mut bytes).unwrap();

        let mut from = bytes.as_slice();
        let mut payload = Vec::new();
        assert_eq!(read(&mut from, &mut payload).unwrap(), Some(Kind::Message));
        assert_eq!(decode::<v1::Get>(&payload).unwrap(), message);
        assert_eq!(read(&mut from, &mut payload).unwrap(), Some(Kind::Data));
        assert_eq!(payload.len(), DATA_MAX);
        assert_eq!(read(&mut from, &mut payload).unwrap(), Some(Kind::Data));
        assert_eq!(payload, [7]);
        assert_eq!(read(&mut from, &mut payload).unwrap(), Some(Kind::End));
        assert_eq!(read(&mut from, &mut payload).unwrap(), None);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let frame = encode(&v1::Get { key: "a".into() });
        for length in 1..frame.len() {
            let error = read(&mut &frame[..length], &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_length_over_the_greatest_is_refused_before_it_is_allocated() {
        let bytes = header(Kind::Data, DATA_MAX + 1);
        assert!(matches!(parse_header(bytes), Err(FrameError::TooLong(_))));
        assert!(matches!(parse_header([0, 0, 0, 1, 2]), Err(FrameError::TooLong(1))));
        assert!(matches!(parse_header([0, 0, 0, 0, 3]), Err(FrameError::UnknownKind(3))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut payload = Vec::new();
            if let Ok(Some(Kind::Message)) = read(&mut bytes.as_slice(), &mut payload) {
                let _ = decode::<v1::Request>(&payload);
            }
        }
    }
}
