//! How old a response is when it arrives (RFC 9111 §4.2.3, §5.1).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, DATE};
use shared::time::UnixMillis;

use super::cache_control::delta_seconds;
use super::date;

/// RFC 9111 §4.2.3: corrected_initial_age.
///
/// Date has whole seconds, so the apparent age is computed in whole seconds too: a response does not lose up to a second
/// of its life to rounding. The time that the request took is counted whole.
pub fn initial_age(
    response: &HeaderMap,
    request_time: UnixMillis,
    response_time: UnixMillis,
) -> Duration {
    // Of several dates the oldest: nothing becomes younger by saying it twice.
    let sent = response.get_all(DATE).iter().filter_map(|line| date::parse(line.as_bytes())).min();
    let apparent =
        sent.map_or(Duration::ZERO, |sent| UnixMillis::from_secs(response_time.secs()).since(sent));
    let corrected = Duration::from_secs(age_value(response).unwrap_or(0).into())
        .saturating_add(response_time.since(request_time));
    apparent.max(corrected)
}

/// RFC 9111 §5.1: the first member of the first line; what is no number is ignored.
fn age_value(response: &HeaderMap) -> Option<u32> {
    let line = response.get(AGE)?.as_bytes();
    let member = line.split(|b| *b == b',').next()?;
    delta_seconds(member.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

    /// A date so many seconds from [`NOW`].
    fn at(seconds: i64) -> String {
        let time = NOW.secs().checked_add_signed(seconds).unwrap();
        date::format(UnixMillis::from_secs(time)).to_str().unwrap().to_owned()
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    /// Pitfalls 2, 3 and 49.
    #[test]
    fn rfc9111_4_2_3_initial_age() {
        let plus = |seconds| UnixMillis(NOW.0 + seconds * 1000);
        let past = at(-100);
        let future = at(1000);
        let cases: &[(Fields<'_>, u64, u64)] = &[
            (&[], 0, 0),
            (&[], 3, 3),
            (&[("age", "30")], 0, 30),
            (&[("age", "30")], 3, 33),
            (&[("date", &past)], 0, 100),
            (&[("date", &past), ("age", "30")], 0, 100),
            (&[("date", &past), ("age", "300")], 0, 300),
            (&[("date", &future)], 0, 0),
            (&[("date", &past), ("date", &past)], 0, 100),
            (&[("date", &future), ("date", &past)], 0, 100),
            (&[("date", &past), ("date", "junk")], 0, 100),
            (&[("date", "junk"), ("age", "5")], 0, 5),
            (&[("age", "7200, 0")], 0, 7200),
            (&[("age", "0, 7200")], 0, 0),
            (&[("age", "7200"), ("age", "0")], 0, 7200),
            (&[("age", "-7200")], 0, 0),
            (&[("age", "7200.0")], 0, 0),
            (&[("age", "abc")], 0, 0),
            (&[("age", "")], 0, 0),
            (&[("age", "99999999999999")], 0, 1 << 31),
        ];
        for (response, delay, expected) in cases {
            let age = initial_age(&headers(response), NOW, plus(*delay));
            let apparent_too =
                if response.iter().any(|(name, _)| *name == "date") { *delay } else { 0 };
            assert_eq!(age.as_secs(), *expected + apparent_too, "{response:?}");
        }
        // The clock was set back between request and response.
        assert_eq!(initial_age(&HeaderMap::new(), plus(9), NOW), Duration::ZERO);
        // Milliseconds of our clock do not make a response older than its Date.
        let now = at(0);
        let late = UnixMillis(NOW.0 + 999);
        assert_eq!(initial_age(&headers(&[("date", &now)]), late, late), Duration::ZERO);
    }
}
