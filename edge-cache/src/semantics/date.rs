//! HTTP dates (RFC 9110 §5.6.7): all three forms are read, IMF-fixdate is written. Anything else (other zones, other case,
//! `0`) is no date, and what that means is for the field's own rule to say.

use std::time::{Duration, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use shared::time::UnixMillis;

/// 9999-12-31T23:59:59Z: later ones have no IMF-fixdate.
const LAST: u64 = 253_402_300_799;

/// A date, or `None` for anything that is not one of the three forms.
pub fn parse(value: &[u8]) -> Option<UnixMillis> {
    // The library trims more than HTTP's optional whitespace, and the value of a field has none around it.
    let text = str::from_utf8(value).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| UnixMillis::from_secs(since.as_secs()))
}

/// As IMF-fixdate, whole seconds.
pub fn format(time: UnixMillis) -> HeaderValue {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.secs().min(LAST)));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The date in a field that stands there exactly once.
pub fn field(headers: &HeaderMap, name: &HeaderName) -> Option<UnixMillis> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { parse(value.as_bytes()) }
}

#[cfg(test)]
mod tests {
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
            ("Thu, 18 Aug 2050 02:01:18 gMT", None),
            ("Thu, 18 AUG 2050 02:01:18 GMT", None),
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
