//! HTTP dates (RFC 9110 §5.6.7): all three forms are read, IMF-fixdate is written. Letters count in any case
//! (RFC 9111 §4.2), and the name of the day for nothing: a wrong one leaves the date what it is. Anything else (other zones,
//! other forms, `0`) is no date, and what that means is for the field's own rule to say.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use http::header::HeaderName;
use shared::time::UnixMillis;

use super::fields::Lines;

/// 9999-12-31T23:59:59Z: later ones have no IMF-fixdate.
const LAST: u64 = 253_402_300_799;

/// A date, or `None` for anything that is not one of the three forms.
pub fn parse(value: &[u8]) -> Option<UnixMillis> {
    imf_fixdate(value).or_else(|| rfc850(value)).or_else(|| asctime(value))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<UnixMillis> {
    let (name, rest) = value.split_at_checked(3)?;
    let [b',', b' ', d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ ..] = rest else {
        return None;
    };
    day_name(name, 3)?;
    let year = number(&[*y1, *y2, *y3, *y4])?;
    instant(year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, in_gmt(time)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(value: &[u8]) -> Option<UnixMillis> {
    let (name, rest) = value.split_at_checked(value.iter().position(|b| *b == b',')?)?;
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] = rest else {
        return None;
    };
    day_name(name, usize::MAX)?;
    let year = number(&[*y1, *y2])?;
    let year = year + if year < 70 { 2000 } else { 1900 };
    instant(year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, in_gmt(time)?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<UnixMillis> {
    let (name, rest) = value.split_at_checked(3)?;
    let [b' ', m1, m2, m3, b' ', d1, d2, b' ', rest @ ..] = rest else { return None };
    let (time, [b' ', y1, y2, y3, y4]) = rest.split_at_checked(8)? else { return None };
    day_name(name, 3)?;
    let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    instant(year, month(&[*m1, *m2, *m3])?, day, time_of_day(time)?)
}

/// One of the seven, of its first `letters` letters.
fn day_name(name: &[u8], letters: usize) -> Option<()> {
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
        .iter()
        .map(|day| &day.as_bytes()[..letters.min(day.len())])
        .any(|day| day.eq_ignore_ascii_case(name))
        .then_some(())
}

/// 1 to 12.
fn month(name: &[u8; 3]) -> Option<u64> {
    let names = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    (1..).zip(names).find(|(_, month)| month.eq_ignore_ascii_case(name)).map(|(number, _)| number)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

/// `08:49:37 GMT`, in seconds.
fn in_gmt(text: &[u8]) -> Option<u64> {
    let (time, zone) = text.split_at_checked(8)?;
    if zone.eq_ignore_ascii_case(b" GMT") { time_of_day(time) } else { None }
}

/// `08:49:37`, in seconds; 60 is a leap second.
fn time_of_day(text: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = text else { return None };
    let (hours, minutes, seconds) =
        (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    (hours < 24 && minutes < 60 && seconds <= 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// `None` for days that no calendar has, and before 1970.
fn instant(year: u64, month: u64, day: u64, seconds: u64) -> Option<UnixMillis> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one; days since 0000-03-01.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(UnixMillis::from_secs((days - 719_468) * 86_400 + seconds))
}

/// As IMF-fixdate, whole seconds.
pub fn format(time: UnixMillis) -> HeaderValue {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.secs().min(LAST)));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The date in a field that stands there exactly once.
pub fn field(headers: &impl Lines, name: &HeaderName) -> Option<UnixMillis> {
    let mut values = headers.lines(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { parse(value) }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::EXPIRES;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc9110_5_6_7_three_forms_and_nothing_else() {
        let sample = Some(UnixMillis::from_secs(784_111_777));
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", sample),
            ("Sunday, 06-Nov-94 08:49:37 GMT", sample),
            ("Sun Nov  6 08:49:37 1994", sample),
            ("Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(UnixMillis::from_secs(951_782_400))),
            ("Thu, 29 Feb 2001 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49:61 GMT", None),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(UnixMillis::from_secs(1_483_228_800))),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(UnixMillis(0))),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(UnixMillis::from_secs(LAST))),
            ("Sun Nov 06 08:49:37 1994", sample),
            ("Sun Nov 6 08:49:37 1994", None),
            ("Sun, 06-Nov-94 08:49:37 GMT", None),
            ("Sunday, 06 Nov 1994 08:49:37 GMT", None),
            ("Xyz, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT ", None),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 +0100", None),
            ("1994-11-06T08:49:37Z", None),
            ("0", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    /// RFC 9111 §4.2: a cache matches dates without regard to case; and a wrong day of the week is no reason to doubt the
    /// rest.
    #[test]
    fn rfc9111_4_2_case_and_day_name() {
        let sample = Some(UnixMillis::from_secs(784_111_777));
        for text in [
            "SUN, 06 NOV 1994 08:49:37 gmt",
            "sun, 06 nov 1994 08:49:37 gMT",
            "Thu, 06 Nov 1994 08:49:37 GMT",
            "sUNDAY, 06-nOV-94 08:49:37 Gmt",
            "Friday, 06-Nov-94 08:49:37 GMT",
            "SUN NOV  6 08:49:37 1994",
            "Mon Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), sample, "{text}");
        }
    }

    /// Pitfall 8: two lines of Expires are no date.
    #[test]
    fn a_repeated_field_has_no_date() {
        let mut headers = HeaderMap::new();
        headers.append(EXPIRES, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(field(&headers, &EXPIRES).is_some());
        headers.append(EXPIRES, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(field(&headers, &EXPIRES).is_none());
    }

    proptest! {
        #[test]
        fn dates_survive_a_round_trip(secs in 0..=LAST) {
            let time = UnixMillis::from_secs(secs);
            prop_assert_eq!(parse(format(time).as_bytes()), Some(time));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }

        /// What another implementation takes for a date is the same date here.
        #[test]
        fn dates_are_those_of_the_calendar(secs in 0..=LAST) {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs));
            prop_assert_eq!(parse(text.to_ascii_uppercase().as_bytes()), Some(UnixMillis::from_secs(secs)));
        }

        #[test]
        fn nearly_dates_do_not_panic(text in "(Sun|Sunday|Xyz),? [0-9]{1,3}[ -](Nov|Feb|Zzz)[ -][0-9]{2,5} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn far_times_are_written(millis in any::<u64>()) {
            prop_assert_eq!(format(UnixMillis(millis)).len(), 29);
        }
    }
}
