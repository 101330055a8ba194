//! What stands at the other end of a connection, by the first bytes that it says.

use std::sync::{Arc, Mutex, PoisonError};

use crate::network::Tap;

/// Bytes that are enough to tell.
const ENOUGH: usize = 512;

/// What something is that should be a kvassd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has said nothing.
    Nothing,
    /// HTTP/2, as it should be.
    Http2,
    /// HTTP/1.
    Web,
    /// TLS, or a web server that wants it.
    Tls,
    /// SSH.
    Ssh,
    /// Anything else.
    Other,
}

/// The first bytes that came on a connection.
#[derive(Clone, Default)]
pub(super) struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_done: bool,
}

impl Heard {
    pub(super) fn kind(&self) -> Kind {
        kind(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tap for Heard {
    fn hear(&mut self, bytes: &[u8]) {
        if self.is_done {
            return;
        }
        let mut heard = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = ENOUGH - heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_done = heard.len() == ENOUGH;
    }
}

fn kind(heard: &[u8]) -> Kind {
    let says = |words: &str| heard.windows(words.len()).any(|part| part == words.as_bytes());
    match heard {
        [] => Kind::Nothing,
        // A server's first frame in HTTP/2 is its settings: a short one of kind 4.
        [0, 0, _, 4, ..] => Kind::Http2,
        [0x15, 3, ..] => Kind::Tls,
        // Each server has its own words for plain HTTP where it wants TLS.
        _ if heard.starts_with(b"HTTP/") && (says("HTTPS") || says("SSL")) => Kind::Tls,
        _ if heard.starts_with(b"HTTP/") => Kind::Web,
        _ if heard.starts_with(b"SSH-") => Kind::Ssh,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bytes_tell_what_something_is() {
        for (heard, expected) in [
            (&b""[..], Kind::Nothing),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03", Kind::Http2),
            (b"HTTP/1.1 200 OK\r\n\r\nhi", Kind::Web),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", Kind::Tls),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nyou're speaking plain HTTP to an SSL-enabled server port", Kind::Tls),
            (b"\x15\x03\x01\0\x02\x02\x46", Kind::Tls),
            (b"SSH-2.0-OpenSSH_10\r\n", Kind::Ssh),
            (b"220 mail.example ESMTP\r\n", Kind::Other),
            (b"\0", Kind::Other),
        ] {
            assert_eq!(kind(heard), expected, "{heard:?}");
        }
    }
}
