//! The times that logs have: `[10/Oct/2000:13:55:36 -0700]`, RFC 3339 and its relatives, seconds, milliseconds,
//! microseconds or nanoseconds since 1970 (by their size).

use shared::time::UnixMillis;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `10/Oct/2000:13:55:36 -0700`, as between the brackets of the common log format.
pub fn common(text: &str) -> Option<UnixMillis> {
    let (day, rest) = text.split_once('/')?;
    let (month, rest) = rest.split_once('/')?;
    let (year, time) = rest.split_once(':')?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as u64 + 1;
    let (time, zone) = time.split_once(' ').unwrap_or((time, "+0000"));
    instant((number(year)?, month, number(day)?), time, zone.trim())
}

/// `2026-11-21T13:00:40.123Z`, with a space for the `T`, with or without zone; without one it is UTC.
pub fn rfc3339(text: &str) -> Option<UnixMillis> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let end = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    instant((number(year)?, number(month)?, number(day)?), time, zone.trim())
}

/// A bare number since 1970, or since anything. Which unit it has, its size says: a second of this century has ten
/// digits.
pub fn since_epoch(text: &str) -> Option<UnixMillis> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = number(whole)?;
    Some(UnixMillis(match whole {
        0..100_000_000_000 => whole * 1000 + thousandths(fraction),
        100_000_000_000..100_000_000_000_000 => whole,
        100_000_000_000_000..100_000_000_000_000_000 => whole / 1000,
        _ => whole / 1_000_000,
    }))
}

/// Any of them.
pub fn parse(text: &str) -> Option<UnixMillis> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    since_epoch(text).or_else(|| rfc3339(text)).or_else(|| common(text))
}

fn number(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn thousandths(fraction: &str) -> u64 {
    let digits = fraction.bytes().chain([b'0'; 3]).take(3);
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit.saturating_sub(b'0').min(9)))
}

/// A date, `13:55:36.123` and `-0700`, `-07:00`, `Z` or nothing.
fn instant((year, month, day): (u64, u64, u64), time: &str, zone: &str) -> Option<UnixMillis> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut parts = time.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) = {
        let second = parts.next().unwrap_or("0");
        second.split_once(['.', ',']).unwrap_or((second, ""))
    };
    let second = number(second)?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let millis =
        ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + thousandths(fraction);
    let (east, minutes) = offset(zone)?;
    let shift = minutes * 60_000;
    // A zone before 1970-01-01T00:00Z is no log of ours.
    Some(UnixMillis(if east { millis.checked_sub(shift)? } else { millis + shift }))
}

/// Whether it is east, and by how many minutes.
fn offset(zone: &str) -> Option<(bool, u64)> {
    if matches!(zone, "" | "Z" | "z" | "UTC" | "GMT") {
        return Some((true, 0));
    }
    let (east, digits) = match zone.strip_prefix('+') {
        Some(digits) => (true, digits),
        None => (false, zone.strip_prefix('-')?),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None => digits.split_at_checked(2)?,
    };
    let (hours, minutes) = (number(hours)?, if minutes.is_empty() { 0 } else { number(minutes)? });
    (hours <= 23 && minutes <= 59).then_some((east, hours * 60 + minutes))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, years from 1970 on.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March here, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_forms_name_the_same_moment() {
        let moment = UnixMillis(1_795_266_040_000);
        for text in [
            "21/Nov/2026:13:00:40 +0000",
            "[21/Nov/2026:06:00:40 -0700]",
            "21/nov/2026:13:00:40",
            "2026-11-21T13:00:40Z",
            "2026-11-21T13:00:40.000Z",
            "2026-11-21 13:00:40",
            "2026-11-21T22:00:40+09:00",
            "2026-11-21T22:00:40 +0900",
            "1795266040",
            "1795266040.000",
            "1795266040000",
            "1795266040000000",
            "1795266040000000000",
        ] {
            assert_eq!(parse(text), Some(moment), "{text}");
        }
        assert_eq!(parse("1795266040.1239"), Some(UnixMillis(1_795_266_040_123)));
        assert_eq!(parse("2026-11-21T13:00:40.5Z"), Some(UnixMillis(1_795_266_040_500)));
        assert_eq!(parse("17"), Some(UnixMillis(17_000)), "a count is taken for seconds");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "-",
            "-5",
            "soon",
            "21/Nov/2026",
            "32/Nov/2026:13:00:40 +0000",
            "21/Nov/2026:25:00:40",
            "21/Nov/1969:13:00:40",
            "1.2.3",
            "2026-11-21",
            "2026-13-21T13:00:40Z",
            "2026-11-21T13:00:40Y",
            "01/Jan/1970:00:00:00 +0900",
            "99999999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_survive_a_round_trip(millis in 0..250_000_000_000_000u64) {
            let time = UnixMillis(millis);
            prop_assert_eq!(rfc3339(&time.to_string()), Some(time));
        }

        #[test]
        fn nothing_panics(text in any_text()) {
            let _ = parse(&text);
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".*",
            "[0-9:/. +Z-]{0,40}",
            "[0-9]{1,2}/Feb/[0-9]{4}:[0-9:]{0,9} [+-][0-9]{0,5}"
        ]
    }
}
