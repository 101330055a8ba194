//! Words in commands that a hint offers to copy.

/// A word as a POSIX shell reads it back: as it is where the shell sees nothing special in it, else in single quotes.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:@%+=,".contains(character);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::word;

    #[test]
    fn what_is_plain_stays_as_it_is() {
        for plain in ["hello", "a/b.c", "-x", "--key=1", "ключ", "user@host:80", "100%"] {
            assert_eq!(word(plain), plain);
        }
    }

    #[test]
    fn a_shell_reads_each_word_back() {
        for text in ["", "two words", "it's", "$HOME", "`id`", "a;b", "*", "~", "\"", "\\", "a\nb", "''", "#x", "a!b"] {
            let said = Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output().unwrap();
            assert_eq!(said.stdout, text.as_bytes(), "{}", word(text));
        }
    }
}
