//! The name under which a browser saves a value: RFC 6266 and RFC 8187.
//!
//! Keys are any text, and the one who opens a link is not the one who chose it. So nothing of a key can end the header,
//! lead out of a directory, hide a file, or make an ending look like another one.

use std::fmt::Write;

/// The most bytes of a file's name; file systems take 255.
const LONGEST: usize = 200;

/// The name of a file that nothing is left of.
const NAMELESS: &str = "value";

/// The value of a `Content-Disposition`, of ASCII without control characters.
pub(super) fn disposition(is_shown: bool, key: &str) -> String {
    let name = file_name(key);
    let plain: String = name.chars().map(|it| if is_plain(it) { it } else { '_' }).collect();
    let how = if is_shown { "inline" } else { "attachment" };
    if plain == name {
        return format!("{how}; filename=\"{plain}\"");
    }
    format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{}", encoded(&name))
}

/// The last part of a key as a name for a file anywhere.
fn file_name(key: &str) -> String {
    let name: String = super::last_part(key).chars().map(|it| if is_harmless(it) { it } else { '_' }).collect();
    // A dot in front hides a file, dots and spaces behind are not kept by every system.
    let name = name.trim().trim_end_matches(['.', ' ']);
    let hidden = name.len() - name.trim_start_matches('.').len();
    let name = format!("{}{}", "_".repeat(hidden), &name[hidden..]);
    if name.is_empty() { NAMELESS.into() } else { shortened(&name) }
}

/// A name without its middle where it is too long, so that its ending stays.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.into();
    }
    let ending = name.rfind('.').filter(|at| name.len() - at <= 16).unwrap_or(name.len());
    let most = LONGEST - (name.len() - ending);
    let stem = (0..=most).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    format!("{}{}", &name[..stem], &name[ending..])
}

/// Whether a character has no meaning in a path, and is seen where it stands.
fn is_harmless(it: char) -> bool {
    let has_meaning = matches!(it, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let turns = matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_unseen =
        matches!(it, '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !it.is_control() && !has_meaning && !turns && !is_unseen
}

/// Whether a character means itself in a quoted string, in every browser.
fn is_plain(it: char) -> bool {
    matches!(it, ' '..='~') && !matches!(it, '"' | '\\' | '%')
}

/// The extended notation of RFC 8187: all but its `attr-char` as percent and two digits.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_part_of_the_key_is_the_name() {
        assert_eq!(disposition(true, "photos/2024/cat.png"), r#"inline; filename="cat.png""#);
        assert_eq!(disposition(false, "backup of all.tar"), r#"attachment; filename="backup of all.tar""#);
        assert_eq!(
            disposition(true, "Ärger €.txt"),
            "inline; filename=\"_rger _.txt\"; filename*=UTF-8''%C3%84rger%20%E2%82%AC.txt"
        );
        assert_eq!(disposition(true, "50%.txt"), "inline; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt");
    }

    #[test]
    fn what_a_name_could_do_to_somebody_is_taken_out() {
        for (key, name) in [
            ("a/..", NAMELESS),
            ("..", NAMELESS),
            (".bashrc", "_bashrc"),
            ("...x", "___x"),
            ("a/", NAMELESS),
            ("   ", NAMELESS),
            ("c:\\windows\\win.ini", "c__windows_win.ini"),
            ("a\"; filename=\"b.exe", "a_; filename=_b.exe"),
            ("photo\u{202e}gpj.exe", "photo_gpj.exe"),
            ("a\r\nSet-Cookie: b", "a__Set-Cookie_ b"),
            ("name.exe. ", "name.exe"),
            ("a\u{0}b\u{7f}\u{85}\u{2028}", "a_b___"),
        ] {
            assert_eq!(file_name(key), name, "{key:?}");
        }
        assert_eq!(file_name("👨‍👩‍👧.png"), "👨‍👩‍👧.png");
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let name = file_name(&format!("{}.tar.gz", "é".repeat(500)));
        assert!(name.len() <= LONGEST && name.len() > LONGEST - 4 && name.ends_with("é.gz"), "{name}");
        assert_eq!(file_name(&"a.".repeat(400)).len(), LONGEST);
    }

    proptest! {
        #[test]
        fn no_key_ends_the_header_or_its_parts(key in "\\PC{0,40}|[ -~\\r\\n\"\\\\;=/.]{0,40}", is_shown: bool) {
            let header = disposition(is_shown, &key);
            prop_assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", header);
            prop_assert!(hyper::header::HeaderValue::from_str(&header).is_ok());
            prop_assert_eq!(header.matches('"').count(), 2);
            let (_, name) = header.split_once("filename=\"").unwrap();
            let name = &name[..name.find('"').unwrap()];
            prop_assert!(!name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']));
        }

        #[test]
        fn the_encoded_name_reads_back(key in "[^/]{1,60}") {
            let name = file_name(&key);
            let text = encoded(&name);
            let mut bytes = Vec::new();
            let mut rest = text.as_bytes();
            while let [first, behind @ ..] = rest {
                rest = behind;
                if *first == b'%' {
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                    rest = &rest[2..];
                } else {
                    bytes.push(*first);
                }
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), name);
        }
    }
}
