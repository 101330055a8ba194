//! The local socket: frames as they come, cut anywhere.

use std::io::Read;

use kvass_proto::frame::{self, DATA_MAX, Kind, MESSAGE_MAX};
use kvass_proto::v1;

/// Gives bytes in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let most = to.len().min(self.most);
        self.bytes.read(&mut to[..most])
    }
}

/// Reads frames to the end or the first error, and writes them again.
pub fn frames(bytes: &[u8]) {
    let Some((&most, bytes)) = bytes.split_first() else { return };
    let mut from = Pieces { bytes, most: usize::from(most).max(1) };
    let (mut payload, mut written) = (Vec::new(), Vec::new());
    while let Ok(Some(kind)) = frame::read(&mut from, &mut payload) {
        match kind {
            Kind::Message => {
                assert!(payload.len() <= MESSAGE_MAX);
                messages(&payload);
            }
            Kind::Data => assert!(payload.len() <= DATA_MAX),
            Kind::End => assert!(payload.is_empty()),
        }
        written.extend_from_slice(&frame::header(kind, payload.len()));
        written.extend_from_slice(&payload);
    }
    assert!(bytes.starts_with(&written));
}

fn messages(payload: &[u8]) {
    if let Ok(request) = frame::decode::<v1::Request>(payload) {
        let again = frame::encode(&request);
        assert_eq!(frame::decode::<v1::Request>(&again[frame::HEADER..]).ok(), Some(request));
    }
    let _ = frame::decode::<v1::Reply>(payload);
}
