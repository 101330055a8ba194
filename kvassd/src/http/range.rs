//! Which part of a value a request wants, and whether it wants it at all: RFC 9110, sections 13 and 14.

use std::ops::Range;

use hyper::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What a request for a value is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// Some bytes, at least one.
    Part(Range<u64>),
    /// A part that the value does not have.
    Beyond,
    /// Nothing: the one who asks has it.
    Unchanged,
    /// Nothing: it is not the one that was asked for.
    Changed,
}

impl Wanted {
    /// Reads the headers of a request for a value of `size` bytes that has this tag, quotes and all. Ranges count with
    /// GET alone.
    pub(super) fn of(headers: &HeaderMap, is_get: bool, tag: &str, size: u64) -> Self {
        if text(headers, IF_MATCH).is_some_and(|tags| !names(tags, tag, false)) {
            return Self::Changed;
        }
        if text(headers, IF_NONE_MATCH).is_some_and(|tags| names(tags, tag, true)) {
            return Self::Unchanged;
        }
        let is_same = text(headers, IF_RANGE).is_none_or(|other| other == tag);
        match text(headers, RANGE) {
            Some(range) if is_get && is_same && headers.get_all(RANGE).iter().count() == 1 => part(range, size),
            _ => Self::Whole,
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    // What is no text is no tag and no range either.
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

/// Whether a list of tags has this one, or is `*`. `weak`: also where it stands there as a weak one.
fn names(list: &str, tag: &str, weak: bool) -> bool {
    // Tags of ours have no comma, so one of others that has is no reason to read on more carefully.
    list == "*" || list.split(',').map(str::trim).any(|it| it == tag || weak && it.strip_prefix("W/") == Some(tag))
}

/// Reads a `Range`. Several ranges, and what makes no sense, count as none, as the RFC allows.
fn part(range: &str, size: u64) -> Wanted {
    let parsed = range.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
    let Some((first, last)) = parsed.and_then(|(_, range)| range.trim().split_once('-')) else { return Wanted::Whole };
    match (number(first), number(last), first.is_empty(), last.is_empty()) {
        (None, Some(0), true, false) => Wanted::Beyond,
        (None, Some(length), true, false) if size > 0 => Wanted::Part(size.saturating_sub(length)..size),
        (Some(first), None, false, true) if first < size => Wanted::Part(first..size),
        (Some(first), Some(last), ..) if first <= last && first < size => {
            Wanted::Part(first..last.saturating_add(1).min(size))
        }
        (Some(first), None, false, true) if first >= size => Wanted::Beyond,
        (Some(first), Some(last), ..) if first <= last => Wanted::Beyond,
        _ => Wanted::Whole,
    }
}

/// A number of digits alone; one that is too large to be is the greatest there is.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TAG: &str = "\"0123\"";

    fn wanted(lines: &[(HeaderName, &str)], size: u64) -> Wanted {
        let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        Wanted::of(&lines.collect(), true, TAG, size)
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("Bytes = 2-5", Wanted::Part(2..6)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=5-99999999999999999999999", Wanted::Part(5..10)),
            ("bytes=9-18446744073709551615", Wanted::Part(9..10)),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=10-12", Wanted::Beyond),
            ("bytes=99999999999999999999999-", Wanted::Beyond),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(&[(RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(wanted(&[(RANGE, "bytes=0-")], 0), Wanted::Beyond);
        assert_eq!(wanted(&[(RANGE, "bytes=-1")], 0), Wanted::Whole);
    }

    #[test]
    fn a_head_has_no_range_and_two_ranges_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(Wanted::of(&headers, false, TAG, 10), Wanted::Whole);
        headers.append(RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(Wanted::of(&headers, true, TAG, 10), Wanted::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_of_this_one() {
        let ranged = |tag: &str| wanted(&[(RANGE, "bytes=1-2"), (IF_RANGE, tag)], 10);
        assert_eq!(ranged(TAG), Wanted::Part(1..3));
        for other in ["\"0124\"", "W/\"0123\"", "0123", "", "Tue, 24 Nov 2026 12:00:00 GMT"] {
            assert_eq!(ranged(other), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn who_has_it_gets_nothing_and_who_wants_another_neither() {
        for tags in [TAG, "*", "W/\"0123\"", "\"a\", \"0123\"", "\"a\",W/\"0123\" , \"b\""] {
            assert_eq!(wanted(&[(IF_NONE_MATCH, tags)], 10), Wanted::Unchanged, "{tags}");
            // It comes before a range, whatever that is.
            assert_eq!(wanted(&[(IF_NONE_MATCH, tags), (RANGE, "bytes=99-")], 10), Wanted::Unchanged, "{tags}");
        }
        for tags in ["\"0124\"", "0123", "\"0123", ""] {
            assert_eq!(wanted(&[(IF_NONE_MATCH, tags)], 10), Wanted::Whole, "{tags}");
            assert_eq!(wanted(&[(IF_MATCH, tags)], 10), Wanted::Changed, "{tags}");
        }
        assert_eq!(wanted(&[(IF_MATCH, "W/\"0123\"")], 10), Wanted::Changed);
        assert_eq!(wanted(&[(IF_MATCH, "*")], 10), Wanted::Whole);
        assert_eq!(wanted(&[(IF_MATCH, TAG), (RANGE, "bytes=1-1")], 10), Wanted::Part(1..2));
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_value(range in "bytes=[0-9]{0,4}-[0-9]{0,4}|.{0,20}", size in 0_u64..3_000) {
            if let Ok(value) = HeaderValue::from_str(&range) {
                let headers = [(RANGE, value)].into_iter().collect();
                if let Wanted::Part(part) = Wanted::of(&headers, true, TAG, size) {
                    prop_assert!(part.start < part.end && part.end <= size, "{:?}", part);
                }
            }
        }
    }
}
