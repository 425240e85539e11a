//! An HTTP/1 head as bytes: what a parser behind may repair or hide is refused here.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::{MAX_FIELDS, MAX_HEAD, MAX_TARGET, Reject, check_transfer_encoding, content_length};
use crate::semantics::Reason;
use crate::semantics::cache_control::is_token_byte;

/// Checks an HTTP/1 head on its bytes, up to and with its empty line, for what a parser behind may repair or hide: field
/// syntax (RFC 9112 §2.2, §5), framing (§6), the target (§3). A head that is no request at all passes: the parser answers
/// it.
pub fn raw_head(head: &[u8]) -> Result<(), Reject> {
    if head.len() > MAX_HEAD {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Reject { close: true, ..Reject::new(status, Reason::FieldsTooLarge) });
    }
    // RFC 9112 §2.2: empty lines before the request line are ignored, LF alone ends a line, CR alone does not.
    let mut lines = head
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .skip_while(|line| line.is_empty());
    let Some(request_line) = lines.next() else { return Ok(()) };
    let version = raw_request_line(request_line)?;

    let mut framing = HeaderMap::new();
    let (mut count, mut hosts) = (0, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = raw_field(line)?;
        count += 1;
        let known = if name.eq_ignore_ascii_case(b"content-length") {
            CONTENT_LENGTH
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            TRANSFER_ENCODING
        } else {
            hosts += usize::from(name.eq_ignore_ascii_case(b"host"));
            continue;
        };
        let value =
            HeaderValue::from_bytes(value).map_err(|_| Reject::bad(Reason::FieldInvalid))?;
        framing.append(known, value);
    }
    if count > MAX_FIELDS {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Reject { close: true, ..Reject::new(status, Reason::FieldsTooLarge) });
    }
    if hosts > 1 {
        return Err(Reject::bad(Reason::HostRepeated));
    }
    let length = content_length(&framing)?;
    if framing.contains_key(TRANSFER_ENCODING) {
        check_transfer_encoding(&framing, version, length.is_some())?;
    }
    Ok(())
}

fn raw_request_line(line: &[u8]) -> Result<Version, Reject> {
    let invalid = Err(Reject::bad(Reason::TargetInvalid));
    let mut parts = line.split(|b| *b == b' ');
    let (Some(_method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return invalid;
    };
    if target.len() > MAX_TARGET {
        let refused = Reject::new(StatusCode::URI_TOO_LONG, Reason::TargetTooLong);
        return Err(Reject { close: true, ..refused });
    }
    // A fragment never goes over the wire; a parser that cuts it off disagrees with one that does not.
    if target.iter().any(|b| b.is_ascii_control() || *b == b'#') {
        return invalid;
    }
    Ok(if version == b"HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 })
}

/// A field line taken apart; no folded line, no space before the colon, no empty name, no control character.
pub fn raw_field(line: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    let invalid = Reject::bad(Reason::FieldInvalid);
    let colon = line.iter().position(|b| *b == b':').ok_or(invalid)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let forbidden = |b: &u8| b.is_ascii_control() && *b != b'\t';
    if name.is_empty() || !name.iter().all(|b| is_token_byte(*b)) || value.iter().any(forbidden) {
        return Err(invalid);
    }
    Ok((name, value.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pitfalls 37 and 38: what a parser may repair is refused on the bytes.
    #[test]
    fn rfc9112_5_raw_heads() {
        let code = |head: &str| match raw_head(head.as_bytes()) {
            Ok(()) => (200, ""),
            Err(reject) => {
                assert!(reject.close);
                (reject.status.as_u16(), reject.reason.code())
            }
        };
        let field = (400, "field-invalid");
        let target = (400, "target-invalid");
        for (rest, expected) in [
            ("Host: a\r\n", (200, "")),
            ("Host: a\nX: y\n", (200, "")),
            ("Host:a\r\nX:\r\nY:\t\u{e9} \r\n", (200, "")),
            ("", (200, "")),
            ("Host : a\r\n", field),
            ("Host: a\r\n b\r\n", field),
            ("Host: a\r\n\tb\r\n", field),
            ("Host: a\r\n: b\r\n", field),
            ("Host: a\r\nX\r\n", field),
            ("Host: a\r\nX(: b\r\n", field),
            ("Host: a\r\nX: b\rY: c\r\n", field),
            ("Host: a\r\nX: b\0\r\n", field),
            ("Host: a\r\nX: b\u{7f}\r\n", field),
            ("Host: a\r\r\n", field),
            ("Host: a\r\nhOST: a\r\n", (400, "host-repeated")),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", (400, "framing-conflict")),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", (400, "framing-conflict")),
            ("Transfer-Encoding: chunked\r\n", (200, "")),
            ("Transfer-Encoding: x, chunked\r\n", (501, "transfer-encoding-invalid")),
            ("Transfer-Encoding: \u{b}chunked\r\n", field),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", (200, "")),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", (400, "content-length-invalid")),
            ("Content-Length: +5\r\n", (400, "content-length-invalid")),
            ("Content-Length: \u{e9}\r\n", (400, "content-length-invalid")),
        ] {
            assert_eq!(code(&format!("GET / HTTP/1.1\r\n{rest}\r\n")), expected, "{rest:?}");
        }
        for (line, expected) in [
            ("GET / HTTP/1.0", (200, "")),
            ("PRI * HTTP/2.0", (200, "")),
            ("\r\n\nGET / HTTP/1.1", (200, "")),
            ("GET  / HTTP/1.1", target),
            ("GET / HTTP/1.1 ", target),
            ("GET /", target),
            ("GET\t/ HTTP/1.1", target),
            ("GET /#a HTTP/1.1", target),
            ("GET /a\u{1}b HTTP/1.1", target),
            ("GET /a\rb HTTP/1.1", target),
        ] {
            assert_eq!(code(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line:?}");
        }
        let old = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(code(old), (400, "transfer-encoding-invalid"));
        let long = "a".repeat(MAX_TARGET);
        assert_eq!(code(&format!("GET /{long} HTTP/1.1\r\n\r\n")), (414, "target-too-long"));
        let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
        assert_eq!(code(&format!("GET / HTTP/1.1\r\n{many}\r\n")), (431, "fields-too-large"));
        let big = "a".repeat(MAX_HEAD);
        assert_eq!(code(&format!("GET / HTTP/1.1\r\na: {big}\r\n\r\n")), (431, "fields-too-large"));
        assert_eq!(raw_head(b""), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = raw_head(&bytes);
        }

        /// Whatever passes and parses is admitted or refused, and framed as the bytes said.
        #[test]
        fn near_heads(fields in "((Host|Content-Length|Transfer-Encoding|X): ?(a|5|chunked|gzip, chunked|,)?\r\n){0,4}") {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            if raw_head(head.as_bytes()).is_ok() {
                prop_assert!(!(fields.contains("Length") && fields.contains("Encoding")));
            }
        }
    }
}
