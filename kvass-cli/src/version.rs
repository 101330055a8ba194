//! Which of two versions is newer.

/// The version of this client.
pub(crate) const OURS: &str = env!("CARGO_PKG_VERSION");

/// Whether `version` is newer than `than`; what is no version is older than any.
pub(crate) fn is_newer(version: &str, than: &str) -> bool {
    parse(version) > parse(than)
}

/// Major, minor, patch, and whether it is a release: a pre-release comes before it.
fn parse(version: &str) -> Option<(u64, u64, u64, bool)> {
    let version = version.split('+').next()?;
    let (numbers, release) = match version.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (version, true),
    };
    let mut numbers = numbers.splitn(3, '.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??, release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        assert!(is_newer("0.10.0", "0.9.9"));
        assert!(is_newer("1.0.0", "1.0.0-rc.1"));
        assert!(is_newer("0.1.0", "nonsense"));
        assert!(!is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("0.1.0+build", "0.1.0"));
        assert!(!is_newer("0.1.0", "0.1.1"));
        assert!(!is_newer("1.0.0-rc.1", "1.0.0"));
    }
}
