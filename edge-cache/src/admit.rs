//! Which requests are taken in at all (RFC 9112 §3 and §6, RFC 9110 §7): the check that stands before routing.
//!
//! hyper (1.12) has parsed the head before [`admit`] sees it, and hides what a strict server refuses: of Content-Length
//! beside Transfer-Encoding it keeps the latter alone, and it drops a fragment from the target. So every HTTP/1 head passes
//! [`raw_head`] as bytes before hyper reads it ([`crate::framing`] finds where it ends). [`admit`] repeats every check that
//! the parsed head still allows: it is right behind any parser, and HTTP/2 has only this one.

mod raw;

use std::borrow::Cow;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, MAX_FORWARDS, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use crate::key::{normalise_authority, normalise_path};
use crate::lookup::names_option;
use crate::semantics::Reason;

pub use raw::{raw_field, raw_head};

/// Longest request target.
pub const MAX_TARGET: usize = 8 * 1024;
/// Largest head: request line and all fields. hyper's `max_buf_size` and `max_header_list_size` are set to it.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in one head: what hyper's parser takes at most.
pub const MAX_FIELDS: usize = 100;

/// A request's head as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a Method,
    /// Target. HTTP/2's pseudo-fields are in its authority and scheme.
    pub uri: &'a Uri,
    /// Version.
    pub version: Version,
    /// Fields.
    pub headers: &'a HeaderMap,
    /// `https` when it came over TLS, else `http`.
    pub scheme: &'static str,
}

/// A request that may be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<'a> {
    /// Normalised authority: what the key holds and the origin is sent as Host.
    pub authority: Cow<'a, str>,
    /// Normalised path.
    pub path: Cow<'a, str>,
    /// Query as received.
    pub query: Option<&'a str>,
    /// The client waits for 100 (Continue).
    pub expect_continue: bool,
    /// The client offers to switch protocols.
    pub upgrade: bool,
    /// The request has content.
    pub content: Content,
}

/// The content that a request announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// None.
    None,
    /// This many bytes.
    Length(u64),
    /// Until it ends (chunked, or HTTP/2 without Content-Length).
    Unknown,
}

/// An answer that we make ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status.
    pub status: StatusCode,
    /// Why.
    pub reason: Reason,
    /// Whether the connection must be closed: what follows on it cannot be trusted.
    pub close: bool,
}

impl Reject {
    const fn new(status: StatusCode, reason: Reason) -> Self {
        Self { status, reason, close: false }
    }

    /// 400, and nothing more is read from the connection.
    const fn bad(reason: Reason) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason, close: true }
    }
}

/// Admits or refuses. `OPTIONS *` and OPTIONS with Max-Forwards 0 come back as a "refusal" with 204
/// ([`Reason::OptionsHere`]); the caller adds Allow.
///
/// `ended`: the request is known to have no content (an HTTP/2 stream that ended with its head).
pub fn admit<'a>(head: &Head<'a>, ended: bool) -> Result<Admitted<'a>, Reject> {
    let http1 = match head.version {
        Version::HTTP_10 | Version::HTTP_11 => true,
        Version::HTTP_2 => false,
        _ => {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Err(Reject { close: true, ..Reject::new(status, Reason::VersionNotSupported) });
        }
    };
    check_size(head)?;
    let content = content(head, http1, ended)?;
    if *head.method == Method::CONNECT {
        let refused = Reject::new(StatusCode::METHOD_NOT_ALLOWED, Reason::ConnectRefused);
        return Err(Reject { close: true, ..refused });
    }
    let authority = authority(head, http1)?;
    if *head.method == Method::TRACE {
        // It would echo Cookie and Authorization to a script.
        return Err(Reject::new(StatusCode::METHOD_NOT_ALLOWED, Reason::TraceRefused));
    }
    let expect_continue = expect_continue(head)?;
    let options = *head.method == Method::OPTIONS;
    let here = Reject::new(StatusCode::NO_CONTENT, Reason::OptionsHere);
    if head.uri.path() == "*" {
        // RFC 9112 §3.2.4.
        return Err(if options { here } else { Reject::bad(Reason::TargetInvalid) });
    }
    let path = match head.uri.path() {
        // RFC 9110 §4.2.3: an absolute target without a path.
        "" if head.uri.authority().is_some() => Cow::Borrowed("/"),
        path => {
            normalise_path(path).map_err(|reason| Reject::new(StatusCode::BAD_REQUEST, reason))?
        }
    };
    if options && max_forwards(head.headers) == Some(0) {
        return Err(here);
    }
    let upgrade = head.version == Version::HTTP_11
        && head.headers.contains_key(UPGRADE)
        && names_option(head.headers, b"upgrade");
    Ok(Admitted { authority, path, query: head.uri.query(), expect_continue, upgrade, content })
}

fn check_size(head: &Head<'_>) -> Result<(), Reject> {
    let target = head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    if target > MAX_TARGET {
        let refused = Reject::new(StatusCode::URI_TOO_LONG, Reason::TargetTooLong);
        return Err(Reject { close: true, ..refused });
    }
    // As they stand on the wire: name, colon, space, value, line end.
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if head.headers.len() > MAX_FIELDS || target + fields.sum::<usize>() > MAX_HEAD {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Reject { close: true, ..Reject::new(status, Reason::FieldsTooLarge) });
    }
    Ok(())
}

/// RFC 9112 §6.1 to §6.3, RFC 9113 §8.2.2.
fn content(head: &Head<'_>, http1: bool, ended: bool) -> Result<Content, Reject> {
    let headers = head.headers;
    let length = content_length(headers)?;
    if http1 {
        if headers.contains_key(TRANSFER_ENCODING) {
            check_transfer_encoding(headers, head.version, length.is_some())?;
            return Ok(Content::Unknown);
        }
        return Ok(match length {
            None | Some(0) => Content::None,
            Some(length) => Content::Length(length),
        });
    }
    let te_is_trailers = || {
        headers.get_all(TE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    };
    let of_connections = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if of_connections.iter().any(|name| headers.contains_key(name)) || !te_is_trailers() {
        return Err(Reject::new(StatusCode::BAD_REQUEST, Reason::ConnectionField));
    }
    // RFC 9113 §8.2.1: over HTTP/1 it would be another value.
    let padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if headers.values().any(padded) {
        return Err(Reject::new(StatusCode::BAD_REQUEST, Reason::FieldInvalid));
    }
    Ok(match length {
        Some(0) => Content::None,
        Some(length) => Content::Length(length),
        None if ended => Content::None,
        None => Content::Unknown,
    })
}

/// RFC 9112 §6.3: one number, or the same number several times.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Reject> {
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let digits = !member.is_empty() && member.iter().all(u8::is_ascii_digit);
            let value = str::from_utf8(member).ok().and_then(|text| text.parse::<u64>().ok());
            let (true, Some(value)) = (digits, value) else {
                return Err(Reject::bad(Reason::ContentLengthInvalid));
            };
            if length.is_some_and(|known| known != value) {
                return Err(Reject::bad(Reason::ContentLengthInvalid));
            }
            length = Some(value);
        }
    }
    Ok(length)
}

/// RFC 9112 §6.1: `chunked`, once and alone; never beside Content-Length, never in HTTP/1.0.
fn check_transfer_encoding(
    headers: &HeaderMap,
    version: Version,
    has_length: bool,
) -> Result<(), Reject> {
    if has_length {
        return Err(Reject::bad(Reason::FramingConflict));
    }
    let mut codings = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let invalid = Reject::bad(Reason::TransferEncodingInvalid);
    match (codings.next(), codings.next_back()) {
        _ if version == Version::HTTP_10 => Err(invalid),
        (Some(only), None) if chunked(only) => Ok(()),
        // Well framed, by a coding that we do not decode.
        (Some(first), Some(last)) if chunked(last) && !chunked(first) && !codings.any(chunked) => {
            Err(Reject { status: StatusCode::NOT_IMPLEMENTED, ..invalid })
        }
        _ => Err(invalid),
    }
}

/// RFC 9112 §3.2, RFC 9113 §8.3.1.
fn authority<'a>(head: &Head<'a>, http1: bool) -> Result<Cow<'a, str>, Reject> {
    let normalise = |text| normalise_authority(head.scheme, text).map_err(Reject::bad);
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Reject::bad(Reason::HostRepeated)),
        (None, None) => None,
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Reject::bad(Reason::HostInvalid))?;
            Some(normalise(text)?)
        }
    };
    if host.is_none() && head.version == Version::HTTP_11 {
        return Err(Reject::bad(Reason::HostMissing));
    }
    let Some(target) = head.uri.authority() else {
        return host.ok_or(Reject::bad(Reason::HostMissing));
    };
    match head.uri.scheme_str() {
        // The target of CONNECT, with another method.
        None if http1 => return Err(Reject::bad(Reason::TargetInvalid)),
        None => {}
        Some(scheme) if scheme.eq_ignore_ascii_case(head.scheme) => {}
        // RFC 9110 §7.4: a request for an https URL that came in the clear, or the other way round.
        Some("http" | "https") => {
            return Err(Reject::new(StatusCode::MISDIRECTED_REQUEST, Reason::TargetInvalid));
        }
        Some(_) => return Err(Reject::bad(Reason::TargetInvalid)),
    }
    let target = normalise(target.as_str())?;
    match host {
        // RFC 9112 §3.2.2: an absolute target takes the place of Host.
        Some(host) if !http1 && host != target => Err(Reject::bad(Reason::HostMismatch)),
        _ => Ok(target),
    }
}

/// RFC 9110 §10.1.1: HTTP/1.0 has no expectations.
fn expect_continue(head: &Head<'_>) -> Result<bool, Reject> {
    let mut found = false;
    for line in head.headers.get_all(EXPECT) {
        for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if member.eq_ignore_ascii_case(b"100-continue") {
                found = head.version != Version::HTTP_10;
            } else if !member.is_empty() {
                let status = StatusCode::EXPECTATION_FAILED;
                // Whether the content follows is anybody's guess.
                return Err(Reject {
                    close: true,
                    ..Reject::new(status, Reason::ExpectationFailed)
                });
            }
        }
    }
    Ok(found)
}

/// RFC 9110 §7.6.2; what is no number is ignored.
fn max_forwards(headers: &HeaderMap) -> Option<u32> {
    let text = headers.get(MAX_FORWARDS)?.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

/// Max-Forwards of OPTIONS and TRACE, less one (RFC 9110 §7.6.2), on the request that is sent on.
pub fn decrement_max_forwards(method: &Method, headers: &mut HeaderMap) {
    if (*method == Method::OPTIONS || *method == Method::TRACE)
        && let Some(hops) = max_forwards(headers)
    {
        headers.insert(MAX_FORWARDS, HeaderValue::from(hops.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Request {
        method: Method,
        uri: Uri,
        version: Version,
        headers: HeaderMap,
        scheme: &'static str,
    }

    fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        Request {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            uri: target.parse().unwrap(),
            version: Version::HTTP_11,
            headers,
            scheme: "http",
        }
    }

    impl Request {
        fn version(mut self, version: Version) -> Self {
            self.version = version;
            self
        }

        fn admit(&self) -> Result<Admitted<'_>, Reject> {
            let head = Head {
                method: &self.method,
                uri: &self.uri,
                version: self.version,
                headers: &self.headers,
                scheme: self.scheme,
            };
            admit(&head, true)
        }

        fn code(&self) -> (u16, &'static str, bool) {
            match self.admit() {
                Ok(_) => (200, "", false),
                Err(reject) => (reject.status.as_u16(), reject.reason.code(), reject.close),
            }
        }
    }

    const HOST_A: (&str, &str) = ("host", "a.test");
    const OK: (u16, &str, bool) = (200, "", false);

    /// Pitfalls 35 and 36.
    #[test]
    fn rfc9112_3_2_targets_and_host() {
        let cases = [
            ("GET", "/", &[HOST_A][..], OK),
            ("GET", "/", &[], (400, "host-missing", true)),
            ("GET", "/", &[HOST_A, HOST_A], (400, "host-repeated", true)),
            ("GET", "/", &[("host", "")], (400, "host-invalid", true)),
            ("GET", "/", &[("host", "u@a.test")], (400, "host-invalid", true)),
            ("GET", "/", &[("host", "a.test, b.test")], (400, "host-invalid", true)),
            ("GET", "/", &[("host", "a.test/x")], (400, "host-invalid", true)),
            ("GET", "/", &[("host", "\u{e9}")], (400, "host-invalid", true)),
            ("GET", "http://b.test/x", &[HOST_A], OK),
            ("GET", "http://b.test/x", &[], (400, "host-missing", true)),
            ("GET", "http://u@b.test/x", &[HOST_A], (400, "host-invalid", true)),
            ("GET", "https://b.test/x", &[HOST_A], (421, "target-invalid", false)),
            ("GET", "ftp://b.test/x", &[HOST_A], (400, "target-invalid", true)),
            ("GET", "b.test:80", &[HOST_A], (400, "target-invalid", true)),
            ("GET", "*", &[HOST_A], (400, "target-invalid", true)),
            ("OPTIONS", "*", &[HOST_A], (204, "options-here", false)),
            ("OPTIONS", "/", &[HOST_A], OK),
            ("OPTIONS", "/", &[HOST_A, ("max-forwards", "0")], (204, "options-here", false)),
            ("OPTIONS", "/", &[HOST_A, ("max-forwards", "-0")], OK),
            ("GET", "/", &[HOST_A, ("max-forwards", "0")], OK),
            ("CONNECT", "b.test:443", &[HOST_A], (405, "connect-refused", true)),
            ("TRACE", "/", &[HOST_A], (405, "trace-refused", false)),
            ("GET", "/%zz", &[HOST_A], (400, "target-invalid", false)),
            ("GET", "/%00", &[HOST_A], (400, "target-invalid", false)),
            ("GET", "/", &[HOST_A, ("expect", "100-Continue")], OK),
            ("GET", "/", &[HOST_A, ("expect", "money")], (417, "expectation-failed", true)),
            ("FOO", "/", &[HOST_A], OK),
        ];
        for (method, target, fields, expected) in cases {
            assert_eq!(
                request(method, target, fields).code(),
                expected,
                "{method} {target} {fields:?}"
            );
        }

        let absolute = request("GET", "http://B.test:80?q=1", &[HOST_A]);
        let admitted = absolute.admit().unwrap();
        assert_eq!(
            (&*admitted.authority, &*admitted.path, admitted.query),
            ("b.test", "/", Some("q=1"))
        );
        let plain = request("GET", "/%61/../b?", &[("host", "A.test:8080")]);
        let admitted = plain.admit().unwrap();
        assert_eq!(
            (&*admitted.authority, &*admitted.path, admitted.query),
            ("a.test:8080", "/b", Some(""))
        );
    }

    /// Pitfall 36: `:authority` and Host agree, or the request is refused.
    #[test]
    fn rfc9113_8_3_1_authority() {
        let h2 = |target: &str, fields: &[(&str, &str)]| {
            request("GET", target, fields).version(Version::HTTP_2).code()
        };
        assert_eq!(h2("http://a.test/", &[]), OK);
        assert_eq!(h2("http://a.test/", &[("host", "A.TEST:80")]), OK);
        assert_eq!(h2("http://a.test/", &[("host", "b.test")]), (400, "host-mismatch", true));
        assert_eq!(h2("/", &[HOST_A]), OK);
        assert_eq!(h2("/", &[]), (400, "host-missing", true));
        let old =
            |fields: &[(&str, &str)]| request("GET", "/", fields).version(Version::HTTP_10).code();
        assert_eq!(old(&[]), (400, "host-missing", true));
        assert_eq!(old(&[HOST_A]), OK);
        assert_eq!(request("GET", "/", &[HOST_A]).version(Version::HTTP_09).code().0, 505);
    }

    /// Pitfall 37.
    #[test]
    fn rfc9112_6_framing() {
        let conflict = (400, "framing-conflict", true);
        let length = (400, "content-length-invalid", true);
        let coding = (400, "transfer-encoding-invalid", true);
        for (fields, expected) in [
            (&[("content-length", "5")][..], OK),
            (&[("content-length", "5, 5")], OK),
            (&[("content-length", "5"), ("content-length", "5")], OK),
            (&[("content-length", "5"), ("content-length", "6")], length),
            (&[("content-length", "5, 6")], length),
            (&[("content-length", "+5")], length),
            (&[("content-length", "-5")], length),
            (&[("content-length", "0x5")], length),
            (&[("content-length", "")], length),
            (&[("content-length", "5,")], length),
            (&[("content-length", "99999999999999999999999")], length),
            (&[("transfer-encoding", "chunked")], OK),
            (&[("transfer-encoding", "Chunked")], OK),
            (&[("transfer-encoding", "chunked, chunked")], coding),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], coding),
            (&[("transfer-encoding", "chunked, identity")], coding),
            (&[("transfer-encoding", "identity")], coding),
            (&[("transfer-encoding", "xchunked")], coding),
            (&[("transfer-encoding", "chunked;q=1")], coding),
            (&[("transfer-encoding", "")], coding),
            (&[("transfer-encoding", "gzip, chunked")], (501, "transfer-encoding-invalid", true)),
            (&[("transfer-encoding", "chunked, gzip, chunked")], coding),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], conflict),
            (&[("transfer-encoding", "chunked"), ("content-length", "0")], conflict),
        ] {
            let fields = [&[HOST_A], fields].concat();
            assert_eq!(request("POST", "/", &fields).code(), expected, "{fields:?}");
        }
        let chunked = [HOST_A, ("transfer-encoding", "chunked")];
        assert_eq!(request("POST", "/", &chunked).version(Version::HTTP_10).code(), coding);
        let content =
            |fields: &[(&str, &str)]| request("POST", "/", fields).admit().unwrap().content;
        assert_eq!(content(&chunked), Content::Unknown);
        assert_eq!(content(&[HOST_A, ("content-length", "5")]), Content::Length(5));
        assert_eq!(content(&[HOST_A, ("content-length", "0")]), Content::None);
        assert_eq!(content(&[HOST_A]), Content::None);
    }

    /// Pitfall 40: HTTP/2 has no connection fields.
    #[test]
    fn rfc9113_8_2_2_connection_fields() {
        for (field, expected) in [
            (("connection", "close"), 400),
            (("upgrade", "websocket"), 400),
            (("transfer-encoding", "chunked"), 400),
            (("keep-alive", "x"), 400),
            (("proxy-connection", "x"), 400),
            (("te", "gzip"), 400),
            (("te", "trailers"), 200),
        ] {
            let request = request("GET", "http://a.test/", &[field]).version(Version::HTTP_2);
            assert_eq!(request.code().0, expected, "{field:?}");
        }
        for (value, expected) in [("a", 200), ("", 200), ("a b", 200), (" a", 400), ("a\t", 400)] {
            let request = request("GET", "http://a.test/", &[("x", value)]);
            assert_eq!(request.version(Version::HTTP_2).code().0, expected, "{value:?}");
        }
        let upgrade = [HOST_A, ("connection", "upgrade"), ("upgrade", "websocket")];
        assert!(request("GET", "/", &upgrade).admit().unwrap().upgrade);
        assert!(!request("GET", "/", &upgrade[..2]).admit().unwrap().upgrade);
        assert!(!request("GET", "/", &upgrade).version(Version::HTTP_10).admit().unwrap().upgrade);
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("/{}", "a".repeat(MAX_TARGET));
        assert_eq!(request("GET", &long, &[HOST_A]).code(), (414, "target-too-long", true));
        let big = "a".repeat(MAX_HEAD);
        let refused = (431, "fields-too-large", true);
        assert_eq!(request("GET", "/", &[HOST_A, ("x", &big)]).code(), refused);
        let many = vec![("x", "y"); MAX_FIELDS];
        assert_eq!(request("GET", "/", &[&[HOST_A], &many[..]].concat()).code(), refused);
        assert_eq!(request("GET", "/", &[&[HOST_A], &many[1..]].concat()).code(), OK);
    }

    /// Pitfall 34.
    #[test]
    fn rfc9110_7_6_2_max_forwards() {
        for (method, before, after) in [
            (Method::OPTIONS, "5", "4"),
            (Method::TRACE, "1", "0"),
            (Method::OPTIONS, "99999999999", "4294967294"),
            (Method::OPTIONS, "x", "x"),
            (Method::GET, "5", "5"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(MAX_FORWARDS, HeaderValue::from_static(before));
            decrement_max_forwards(&method, &mut headers);
            assert_eq!(headers[MAX_FORWARDS], after);
        }
    }

    proptest! {
        #[test]
        fn no_field_panics(name in 0..7usize, value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let names = ["host", "content-length", "transfer-encoding", "expect", "max-forwards", "te", "connection"];
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut request = request("OPTIONS", "/", &[]);
                request.headers.insert(names[name], value);
                for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                    request.version = version;
                    let _ = request.admit();
                }
            }
        }
    }
}
