//! How both programs put what they have to say on one line of a terminal.

use std::error::Error;

/// An error with all that lies behind it.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

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

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl std::fmt::Display for Link {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn an_error_is_told_with_all_its_causes_in_their_order() {
        let last = Link("no space", None);
        assert_eq!(with_causes(&last), "no space");
        let middle = Link("cannot write", Some(Box::new(last)));
        assert_eq!(with_causes(&Link("not stored", Some(Box::new(middle)))), "not stored: cannot write: no space");
    }

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
