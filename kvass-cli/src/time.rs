//! Times as people write them: RFC 3339 in UTC from microseconds since 1970, and durations.
//!
//! The calendar is Howard Hinnant's `days_from_civil` and `civil_from_days`
//! (<https://howardhinnant.github.io/date_algorithms.html>), so that no crate for time is needed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400;

/// Microseconds from 1970 to 10000-01-01.
const YEAR_10_000: u64 = 253_402_300_800 * SECOND;

/// Microseconds since 1970, by the wall clock.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A time that lies ahead, by the wall clock, in microseconds since 1970; `None` after the year 9999, for which there is
/// no RFC 3339.
pub(crate) fn after(duration: Duration) -> Option<u64> {
    let time = now_us().checked_add(u64::try_from(duration.as_micros()).ok()?)?;
    (time < YEAR_10_000).then_some(time)
}

/// Formats a time to the second, as `2024-02-29T12:00:00Z`.
pub(crate) fn seconds(time_us: u64) -> String {
    format!("{}Z", whole_seconds(time_us))
}

/// Formats a time to the microsecond, as `2024-02-29T12:00:00.000001Z`.
pub(crate) fn microseconds(time_us: u64) -> String {
    format!("{}.{:06}Z", whole_seconds(time_us), time_us % SECOND)
}

fn whole_seconds(time_us: u64) -> String {
    let seconds = time_us / SECOND;
    let (year, month, day) = civil_from_days(seconds / DAY);
    let rest = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Reads RFC 3339, of the years 1970 to 9999 in UTC, as microseconds since 1970; digits beyond the microsecond are dropped.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let date_separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !text.is_ascii() || bytes.len() < 20 || date_separators.iter().any(|(at, byte)| bytes[*at] != *byte) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(&text[19..])?;
    let days = days_from_civil(year as i64, month as i64, day as i64);
    let local = days * DAY as i64 + (hour * 3_600 + minute * 60 + second) as i64;
    let seconds = u64::try_from(local - offset(zone)?).ok()?;
    let time = seconds.checked_mul(SECOND)?.checked_add(fraction)?;
    (time < YEAR_10_000).then_some(time)
}

/// Splits `.123Z` into its microseconds and the zone.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    let digits: String = rest[..end].chars().chain("000000".chars()).take(6).collect();
    if end == 0 { None } else { Some((number(&digits)?, &rest[end..])) }
}

/// The seconds by which a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60) as i64)
}

fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// A duration in words: whole seconds, as `10 s`, or milliseconds.
pub(crate) fn words(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

/// Reads a duration: `500ms`, `10s`, `5m`, `1h`, `2d`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration: write it as 500ms, 10s, 5m, 1h or 2d");
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let count = number(&text[..digits]).ok_or_else(wrong)?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil_from_days(days), (year, month, day));
            assert_eq!(days_from_civil(year as i64, month as i64, day as i64), days as i64);
            let time = days * DAY * SECOND + 45_296_000_001;
            assert_eq!(parse(&microseconds(time)), Some(time));
            day += 1;
            if day > days_in(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn known_times() {
        assert_eq!(seconds(0), "1970-01-01T00:00:00Z");
        assert_eq!(microseconds(951_782_399_999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(951_782_400_000_000));
        assert_eq!(parse("1985-04-12T23:20:50.52Z"), Some(482_196_050_520_000));
        assert_eq!(parse("1996-12-19T16:39:57-08:00"), parse("1996-12-20T00:39:57z"));
        assert_eq!(parse("2024-01-01 00:00:00.1234567+00:00"), Some(1_704_067_200_123_456));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00Zx",
            "1969-12-31T23:59:59Z",
            "2024-01-0éT00:00:00Z",
            "+024-01-01T00:00:00Z",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_that_could_not_be_written_again_is_refused() {
        for text in ["9999-12-31T23:59:60Z", "9999-12-31T23:59:59-00:01", "9999-12-31T00:01:00-23:59"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("9999-12-31T23:59:59.9999999Z"), Some(YEAR_10_000 - 1));
    }

    #[test]
    fn what_lies_ahead_has_a_year_of_four_digits() {
        assert_eq!(microseconds(YEAR_10_000 - 1), "9999-12-31T23:59:59.999999Z");
        let now = now_us();
        assert!(after(Duration::from_secs(1)).is_some_and(|time| time >= now + SECOND));
        assert_eq!(after(Duration::from_micros(YEAR_10_000)), None);
        assert_eq!(after(Duration::MAX), None);
    }

    #[test]
    fn a_duration_in_words_is_exact() {
        let shown = |text| words(duration(text).unwrap());
        assert_eq!((shown("10s"), shown("5m"), shown("1500ms")), ("10 s".into(), "300 s".into(), "1500 ms".into()));
    }

    #[test]
    fn durations_have_units_and_seconds_without_one() {
        let known =
            [("500ms", 500), ("10s", 10_000), ("7", 7_000), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000)];
        for (text, milliseconds) in known {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in ["", "s", "1.5s", "-1s", "1 h", "1w", "99999999999999999999s", "999999999999999999d"] {
            assert!(duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }
}
