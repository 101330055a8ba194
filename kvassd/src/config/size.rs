//! Sizes as people write them: `4096`, `64KiB`, `10 MiB`, `1GB`.

/// Why text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SizeError {
    #[error("'{0}' does not begin with a whole number")]
    Number(String),
    #[error("no unit '{0}': it is K, M, G or T, with iB for powers of 1024 and B for powers of 1000")]
    Unit(String),
    #[error("'{0}' is too large")]
    TooLarge(String),
}

/// Reads a number with a unit, in bytes. A letter alone, as in `64M`, means a power of 1024.
pub(super) fn parse(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Number(text.into()));
    }
    let too_large = || SizeError::TooLarge(text.into());
    let number: u64 = number.parse().map_err(|_| too_large())?;
    number.checked_mul(factor(unit.trim_start())?).ok_or_else(too_large)
}

fn factor(unit: &str) -> Result<u64, SizeError> {
    let lower = unit.to_ascii_lowercase();
    let (letter, base) = match lower.strip_suffix("ib") {
        Some(letter) => (letter, 1_024_u64),
        None => match lower.strip_suffix('b') {
            Some(letter) => (letter, 1_000),
            None => (lower.as_str(), 1_024),
        },
    };
    let power = match letter {
        "" if !lower.ends_with("ib") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(SizeError::Unit(unit.into())),
    };
    Ok(base.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("4096B", 4_096),
            ("64K", 65_536),
            ("10MiB", 10 << 20),
            ("10 mib", 10 << 20),
            ("1GB", 1_000_000_000),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        assert!(matches!(parse(""), Err(SizeError::Number(_))));
        assert!(matches!(parse("-1"), Err(SizeError::Number(_))));
        assert!(matches!(parse("1.5G"), Err(SizeError::Unit(_))));
        assert!(matches!(parse("1ib"), Err(SizeError::Unit(_))));
        assert!(matches!(parse("99999999999T"), Err(SizeError::TooLarge(_))));
    }
}
