//! How both programs put what they have to say on one line of a terminal.

/// The text without the numbers that Rust puts behind the system's words, and with spaces for characters that would
/// break the line or steer the terminal.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut parts = text.trim().split(" (os error ");
    let mut words: String = parts.next().unwrap_or_default().into();
    for part in parts {
        let number = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
        match part[number..].strip_prefix(')') {
            Some(rest) if number > 0 => words.push_str(rest),
            _ => words.extend([" (os error ", part]),
        }
    }
    words.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_come_without_numbers() {
        let cause = std::io::Error::from_raw_os_error(28);
        let said = one_line(&format!("cannot write x: {cause}: {cause}"));
        assert_eq!(said, "cannot write x: No space left on device: No space left on device");
        assert_eq!(one_line("a (os error b) (os error 1"), "a (os error b) (os error 1");
    }

    #[test]
    fn nothing_breaks_the_line_or_steers_the_terminal() {
        assert_eq!(one_line(" a\nb\u{1b}[31m\u{9b}c\n"), "a b [31m c");
    }
}
