//! Accept-Language where the operator has said which languages there are (`vary.languages`): of the many lists that
//! browsers send, as many are left as there are languages (RFC 9110 §12.5.4, RFC 4647).
//!
//! The list is replaced by the one language that it prefers among those, in the key and towards the origin alike: what
//! is told apart is what the origin sees.

use http::header::ACCEPT_LANGUAGE;
use http::{HeaderMap, HeaderValue};

/// More ranges than this in one request are not looked at.
const MAX_RANGES: usize = 64;

/// The language that the request prefers: the one with the highest weight, of equal ones the operator's first. The first
/// of all where the request accepts none of them. `None` when there is nothing to choose: no languages, or no such field.
pub fn preferred<'l>(request: &HeaderMap, languages: &'l [String]) -> Option<&'l str> {
    let first = languages.first()?;
    if !request.contains_key(ACCEPT_LANGUAGE) {
        return None;
    }
    let ranges: Vec<(&[u8], u16)> = request
        .get_all(ACCEPT_LANGUAGE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(range)
        .take(MAX_RANGES)
        .collect();
    let mut best: (&str, u16) = (first, 0);
    for language in languages {
        let weight = weight(language.as_bytes(), &ranges);
        if weight > best.1 {
            best = (language, weight);
        }
    }
    Some(best.0)
}

/// The request's fields with the preferred language in the place of its list; `None` when nothing is replaced.
pub fn replaced(request: &HeaderMap, languages: &[String]) -> Option<HeaderMap> {
    let value = HeaderValue::from_str(preferred(request, languages)?).ok()?;
    let mut headers = request.clone();
    headers.insert(ACCEPT_LANGUAGE, value);
    Some(headers)
}

/// A range and its weight in thousandths (RFC 9110 §12.4.2). What is no weight counts as 0, what is no range not at all.
fn range(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let mut weight = 1000;
    for parameter in parts {
        if let Some((b"q=" | b"Q=", value)) = parameter.split_at_checked(2) {
            weight = thousandths(value).unwrap_or(0);
        }
    }
    Some((range, weight))
}

fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |b| u16::from(b - b'0'));
    match whole {
        b'0' => Some(digit(0) * 100 + digit(1) * 10 + digit(2)),
        b'1' if fraction.iter().all(|b| *b == b'0') => Some(1000),
        _ => None,
    }
}

/// What the ranges give a language: that of the longest range which matches it (RFC 4647 §3.3.1); else, a little less, of
/// one that is a special form of it, so that `de-CH` finds `de` (§3.4); else that of `*`.
fn weight(language: &[u8], ranges: &[(&[u8], u16)]) -> u16 {
    let begins = |long: &[u8], short: &[u8]| {
        long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
            && matches!(long.get(short.len()), None | Some(b'-'))
    };
    let rank = |(range, weight): &(&[u8], u16)| {
        if *range == b"*" {
            Some((0, *weight))
        } else if begins(language, range) {
            Some((1 + range.len(), *weight))
        } else if *weight > 0 && begins(range, language) {
            // A range that refuses a special form does not refuse the general one.
            Some((1, (*weight - 1).max(1)))
        } else {
            None
        }
    };
    ranges.iter().filter_map(rank).max().map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asks(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn rfc9110_12_5_4_the_preferred_language() {
        let languages = ["en", "de", "pt-BR"].map(str::to_owned);
        for (value, expected) in [
            ("de", "de"),
            ("DE, en;q=0.5", "de"),
            ("en, de", "en"),
            ("de, en", "en"),
            ("fr;q=0.5, de;q=1.0", "de"),
            ("fr;q=0.5, de;q=0.1", "de"),
            ("de-CH, en;q=0.8", "de"),
            ("pt, de;q=0.2", "pt-BR"),
            ("pt-PT, de;q=0.2", "de"),
            ("pt-br", "pt-BR"),
            ("fr", "en"),
            ("*", "en"),
            ("*, en;q=0", "de"),
            ("en;q=0", "en"),
            ("de;q=junk, en;q=0.001", "en"),
            ("de;q=1.5, pt-BR;q=0.9", "pt-BR"),
            ("", "en"),
            (",,;q=1", "en"),
            ("dex, de-;q=0.1", "de"),
        ] {
            assert_eq!(preferred(&asks(value), &languages), Some(expected), "{value}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &languages), None);
        assert_eq!(preferred(&asks("de"), &[]), None);
        let two = ["de", "de-CH"].map(str::to_owned);
        assert_eq!(preferred(&asks("de-CH"), &two), Some("de-CH"));
        assert_eq!(preferred(&asks("de-CH, de;q=0.5"), &two), Some("de-CH"));
        let headers = replaced(&asks("fr, de;q=0.3"), &languages).unwrap();
        assert_eq!(headers[ACCEPT_LANGUAGE], "de");
    }

    proptest! {
        #[test]
        fn it_is_one_of_those_there_are(value in "[ -~]{0,40}", lines in 1..4usize) {
            let languages = ["en", "de", "x-1"].map(str::to_owned);
            let mut headers = HeaderMap::new();
            for _ in 0..lines {
                headers.append(ACCEPT_LANGUAGE, HeaderValue::from_str(&value).unwrap());
            }
            let found = preferred(&headers, &languages).unwrap();
            prop_assert!(languages.iter().any(|language| language == found));
        }
    }
}
