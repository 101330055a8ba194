//! What a key may be: 1 to 1,024 bytes of UTF-8 with no control characters.
//!
//! The client checks, for a good message before anything is sent; the daemon checks again, because it trusts nobody.

/// The greatest length of a key, in bytes.
pub const MAX: usize = 1_024;

/// Why text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum KeyError {
    #[error("a key cannot be empty")]
    Empty,
    #[error("a key of {0} bytes is too long: the most is 1024")]
    TooLong(usize),
    #[error("a key cannot hold control characters: U+{:04X} at byte {at}", *.character as u32)]
    Control {
        character: char,
        /// The offset of the character in the key, in bytes, from 0.
        at: usize,
    },
}

/// Checks that `text` may be a key.
///
/// # Errors
/// Empty text, more than [`MAX`] bytes, or a control character (Unicode's category Cc).
pub fn check(text: &str) -> Result<(), KeyError> {
    match text.len() {
        0 => return Err(KeyError::Empty),
        length if length > MAX => return Err(KeyError::TooLong(length)),
        _ => {}
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(KeyError::Control { character, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_what_is_allowed() {
        assert_eq!(check(""), Err(KeyError::Empty));
        assert_eq!(check("a"), Ok(()));
        assert_eq!(check(&"a".repeat(1_024)), Ok(()));
        assert_eq!(check(&"a".repeat(1_025)), Err(KeyError::TooLong(1_025)));
        assert_eq!(check("hello from the other side 👋"), Ok(()));
        assert_eq!(check("a\tb").unwrap_err().to_string(), "a key cannot hold control characters: U+0009 at byte 1");
        assert!(check("\u{85}").is_err() && check("\u{7f}").is_err() && check("\0").is_err());
    }
}
