//! The frames of HTTP/2 in one direction of a connection (RFC 9113), by their lengths alone.
//!
//! A receiver sees a frame when all of it is there, so between frames are all the places where a cut makes a difference.

/// What a client sends before its first frame.
const PREFACE: usize = 24;

/// Bytes of a frame's head, of which the first three are the length of the rest.
const HEAD: usize = 9;

/// Follows the bytes of one direction.
#[derive(Clone)]
pub struct Frames {
    /// Bytes that are left of the preface, or of a frame whose length is known.
    left: usize,
    head: Vec<u8>,
    /// Whether what is left is of a frame.
    in_frame: bool,
}

impl Frames {
    /// The direction of the one who made the connection, or the other.
    pub fn new(has_preface: bool) -> Self {
        Self { left: if has_preface { PREFACE } else { 0 }, head: Vec::new(), in_frame: false }
    }

    /// How many of these bytes go to the end of the next frame; `None` where it does not end in them.
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let skipped = self.left.min(bytes.len() - at);
            (self.left, at) = (self.left - skipped, at + skipped);
            if self.left > 0 {
                return None;
            }
            if std::mem::take(&mut self.in_frame) {
                return Some(at);
            }
            while self.head.len() < HEAD {
                self.head.push(*bytes.get(at)?);
                at += 1;
            }
            self.left = usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
            self.head.clear();
            self.in_frame = true;
        }
    }
}

#[test]
fn frames_end_where_they_end_however_they_come() {
    let mut sent = vec![b'P'; PREFACE];
    let mut ends = Vec::new();
    for length in [0usize, 5, 300] {
        sent.extend([0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 0, 1]);
        sent.extend(vec![7; length]);
        ends.push(sent.len());
    }
    for piece in [1, 2, 9, 33, 1_000] {
        let (mut frames, mut found, mut begin) = (Frames::new(true), Vec::new(), 0);
        for part in sent.chunks(piece) {
            let mut at = 0;
            while let Some(end) = frames.next_end(&part[at..]) {
                at += end;
                found.push(begin + at);
            }
            begin += part.len();
        }
        assert_eq!(found, ends, "in pieces of {piece}");
    }
}
