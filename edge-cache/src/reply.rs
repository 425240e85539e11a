//! Which heads of upstreams' responses are believed (RFC 9112 §6, RFC 9110 §7.8 and §15): the counterpart of
//! [`crate::admit`] on the other side. What is not is a 502, and its connection is not used again.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::lookup::names_option;

/// Why a response's head is not believed; `upgrade` is the protocol that the request asked for.
///
/// # Errors
/// In words, for the log.
pub fn check(
    status: StatusCode,
    headers: &HeaderMap,
    upgrade: Option<&HeaderValue>,
) -> Result<(), &'static str> {
    if status == StatusCode::SWITCHING_PROTOCOLS && !switches_to(headers, upgrade) {
        return Err("101 to a request without Upgrade, or to another protocol");
    }
    // RFC 9110 §15.
    if status.as_u16() >= 600 {
        return Err("a status that does not exist");
    }
    if !is_framed_well(headers) {
        return Err("Transfer-Encoding beside Content-Length, or other than `chunked`");
    }
    Ok(())
}

/// Has one Content-Length stand where the same one stood several times (RFC 9112 §6.3): the next one on the way may
/// understand only that.
pub fn single_length(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), second) = (lines.next(), lines.next()) else { return };
    if second.is_none() && !first.as_bytes().contains(&b',') {
        return;
    }
    let member = first.as_bytes().split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    // Their being the same was checked by the parser, or there would be no response.
    if let Ok(length) = HeaderValue::from_bytes(member) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// RFC 9112 §6.1, §6.3: a response with both framings ends where somebody may have meant it not to; other transfer codings
/// than chunked were not asked for, and are not undone here.
fn is_framed_well(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
        && codings.next().is_none()
        && !headers.contains_key(CONTENT_LENGTH)
}

/// Whether it switches to the protocol that was asked for, and to nothing else (RFC 9110 §7.8).
fn switches_to(headers: &HeaderMap, wanted: Option<&HeaderValue>) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let (Some(wanted), Some(named), None) = (wanted, named.next(), named.next()) else {
        return false;
    };
    named.as_bytes().trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
        && names_option(headers, b"upgrade")
}

/// Whether content may follow where none can be (RFC 9112 §6.3): what comes next on such a connection is nobody's.
pub fn claims_impossible_content(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::NO_CONTENT
        && (headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0"))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn rfc9112_6_3_framing_of_responses() {
        for (fields, good) in [
            (&[][..], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked, gzip")], false),
            (&[("transfer-encoding", "gzip")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "")], false),
        ] {
            assert_eq!(check(StatusCode::OK, &headers(fields), None).is_ok(), good, "{fields:?}");
        }
    }

    #[test]
    fn rfc9110_7_8_a_101_switches_to_what_was_asked_for() {
        let websocket = HeaderValue::from_static("websocket");
        let switched = [("connection", "Upgrade"), ("upgrade", "WebSocket")];
        for (fields, wanted, good) in [
            (&switched[..], Some(&websocket), true),
            (&switched[..], None, false),
            (&switched[1..], Some(&websocket), false),
            (&switched[..1], Some(&websocket), false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], Some(&websocket), false),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], Some(&websocket), false),
        ] {
            let checked = check(StatusCode::SWITCHING_PROTOCOLS, &headers(fields), wanted);
            assert_eq!(checked.is_ok(), good, "{fields:?}");
        }
    }

    #[test]
    fn rfc9110_15_statuses_have_five_classes() {
        for (status, good) in [(200, true), (418, true), (599, true), (600, false), (999, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(check(status, &HeaderMap::new(), None).is_ok(), good, "{status}");
        }
    }

    #[test]
    fn rfc9112_6_3_one_length_for_several() {
        for (fields, expected) in [
            (&[][..], &[][..]),
            (&[("content-length", "2")], &["2"]),
            (&[("content-length", "2, 2")], &["2"]),
            (&[("content-length", "2"), ("content-length", "2")], &["2"]),
        ] {
            let mut fields = headers(fields);
            single_length(&mut fields);
            let left: Vec<_> = fields.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn rfc9112_6_3_a_204_has_no_content() {
        for (status, fields, impossible) in [
            (204, &[][..], false),
            (204, &[("content-length", "0")], false),
            (204, &[("content-length", "5")], true),
            (204, &[("transfer-encoding", "chunked")], true),
            (200, &[("content-length", "5")], false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(claims_impossible_content(status, &headers(fields)), impossible);
        }
    }
}
