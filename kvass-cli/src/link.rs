//! The token of a link, as people give it: with the whole link, or alone. Pure.

use crate::base32;

/// Bytes of a token.
const TOKEN: usize = 16;

/// What stands between a public URL and the token.
const PATH: &str = "/get?";

/// The token in a link, or in a text that is nothing else; `None` where there is none.
pub(crate) fn token(text: &str) -> Option<Vec<u8>> {
    let letters = match text.split_once(PATH) {
        // Others may have put something of their own behind it.
        Some((_, query)) => query.split(['&', '#']).find_map(|part| part.strip_prefix("q="))?,
        None => text,
    };
    base32::decode(letters).ok().filter(|token| token.len() == TOKEN)
}

/// A token as it stands in a link.
pub(crate) fn text(token: &[u8]) -> String {
    base32::encode(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "000g40r40m30e209185gr38e1w";

    #[test]
    fn a_token_is_found_in_a_link_and_alone() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(text(&bytes), TEXT);
        for link in [
            TEXT.into(),
            TEXT.to_uppercase().replace('0', "O"),
            format!("http://host:8000/get?q={TEXT}"),
            format!("https://host/a/b/get?q={TEXT}#top"),
            format!("https://host/get?from=chat&q={TEXT}&more=1"),
            format!("host/get?q={TEXT}"),
        ] {
            assert_eq!(token(&link).as_ref(), Some(&bytes), "{link}");
        }
    }

    #[test]
    fn what_holds_no_token_is_a_key() {
        for key in ["photo", "", "http://host/", "http://host/get?q=", "http://host/get?x=1", &TEXT[1..]] {
            assert_eq!(token(key), None, "{key}");
        }
        assert_eq!(token(&format!("{TEXT}0")), None);
        assert_eq!(token(&TEXT.replace('w', "z")), None, "bits behind the last byte");
        assert_eq!(token(&format!("http://host/{TEXT}")), None);
    }
}
