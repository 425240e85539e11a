//! Responses: from stored objects and from fills, conditions and ranges applied, with the marks that we leave on them;
//! and the errors that we make.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HeaderName,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use shared::io::clock;

use super::body::ResponseBody;
use super::pull::Pull;
use super::telemetry::Exchange;
use crate::admit::Reject;
use crate::semantics::conditional::{Verdict, evaluate, if_range_holds, not_modified_headers};
use crate::semantics::headers::{
    CacheStatus, ProxyStatus, append_server_timing, append_via, ensure_date, proxy_error, set_age,
};
use crate::semantics::range::{self, Multipart, Resolved};
use crate::semantics::reason::Fwd;
use crate::semantics::{Lines, Reason};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Methods that are passed on, for Allow.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What the client asked, as far as a response depends on it.
pub struct Asked<'a> {
    /// Method.
    pub method: &'a Method,
    /// Fields.
    pub headers: &'a HeaderMap,
}

/// A response that can be answered from.
pub struct Representation<'a, L> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a L,
    /// Its length, where it is known.
    pub length: Option<u64>,
    /// Its content.
    pub content: Pull,
}

/// Answers a GET or HEAD from a representation: in full, in part, 304, 412 or 416.
pub fn answer<L: Lines>(asked: &Asked<'_>, from: Representation<'_, L>) -> Response<ResponseBody> {
    let Representation { status, headers, length, content } = from;
    match evaluate(asked.method, asked.headers, status, headers) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            return response(
                StatusCode::NOT_MODIFIED,
                not_modified_headers(headers),
                ResponseBody::empty(),
            );
        }
        Verdict::PreconditionFailed => return text(StatusCode::PRECONDITION_FAILED, ""),
    }
    let mut headers = headers.to_header_map();
    let ranges = match length {
        Some(length) if status == StatusCode::OK => {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            // RFC 9110 §14.2: for GET only; HEAD has the fields that GET would have without it.
            range::parse(asked.headers)
                .filter(|_| *asked.method == Method::GET)
                .filter(|_| if_range_holds(asked.headers, &headers))
                .map(|ranges| (range::resolve(&ranges, length), length))
        }
        _ => None,
    };
    match ranges {
        Some((Resolved::Single(part), complete)) => {
            headers.insert(CONTENT_RANGE, range::content_range(part, complete));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start + 1));
            let mut content = content;
            content.seek(part);
            response(StatusCode::PARTIAL_CONTENT, headers, ResponseBody::pull(content))
        }
        Some((Resolved::Unsatisfiable, complete)) => unsatisfiable(Some(complete)),
        Some((Resolved::Multiple(parts), complete)) => {
            let content_type = headers.get(CONTENT_TYPE);
            let frame = Multipart::new(boundary(), content_type, complete);
            headers.insert(CONTENT_TYPE, frame.content_type());
            headers.insert(CONTENT_LENGTH, HeaderValue::from(frame.content_length(&parts)));
            let body = ResponseBody::parts(content, frame, parts);
            response(StatusCode::PARTIAL_CONTENT, headers, body)
        }
        Some((Resolved::Full, _)) | None => whole(asked.method, status, headers, length, content),
    }
}

/// A 416, with the length of what there is where that is known (RFC 9110 §15.5.17).
pub fn unsatisfiable(complete: Option<u64>) -> Response<ResponseBody> {
    let mut refused = text(StatusCode::RANGE_NOT_SATISFIABLE, "");
    if let Some(complete) = complete {
        let content_range = range::content_range_unsatisfied(complete);
        refused.headers_mut().insert(CONTENT_RANGE, content_range);
    }
    refused
}

fn whole(
    method: &Method,
    status: StatusCode,
    mut headers: HeaderMap,
    length: Option<u64>,
    content: Pull,
) -> Response<ResponseBody> {
    if let Some(length) = length
        && has_length(status)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = match *method == Method::HEAD {
        true => ResponseBody::empty(),
        false => ResponseBody::pull(content),
    };
    response(status, headers, body)
}

/// Random bits between the parts of a response, so that no content can be made to hold them.
fn boundary() -> u128 {
    let bits = || u128::from(RandomState::new().hash_one(0));
    bits() << 64 | bits()
}

fn has_length(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A response with these parts.
pub fn response(
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What our own member of Cache-Status says.
#[derive(Default)]
pub struct Marks<'a> {
    /// `hit`.
    pub hit: bool,
    /// `fwd=`.
    pub fwd: Option<Fwd>,
    /// `fwd-status=`.
    pub fwd_status: Option<StatusCode>,
    /// `ttl=`.
    pub ttl: Option<i64>,
    /// `stored`.
    pub stored: bool,
    /// `collapsed`.
    pub collapsed: bool,
    /// Age; none for a response that comes straight from the origin.
    pub age: Option<Duration>,
    /// The members of caches before us.
    pub before: &'a [HeaderValue],
}

/// Puts our marks on a response, and hands it to the exchange that watches it.
pub fn finish(
    mut exchange: Box<Exchange>,
    node: &str,
    mut response: Response<ResponseBody>,
    marks: &Marks<'_>,
) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    for member in marks.before {
        headers.append(CACHE_STATUS, member.clone());
    }
    let status = CacheStatus {
        node,
        hit: marks.hit,
        fwd: marks.fwd,
        fwd_status: marks.fwd_status,
        ttl: marks.ttl,
        stored: marks.stored,
        collapsed: marks.collapsed,
        key: None,
        detail: Some(exchange.reason),
    };
    status.append_to(headers);
    if let Some(age) = marks.age {
        set_age(headers, age);
    }
    append_via(headers, Version::HTTP_11, node);
    if exchange.tells_timing {
        append_server_timing(headers, node, exchange.reason, exchange.took());
    }
    ensure_date(headers, clock::now());
    exchange.status = response.status();
    exchange.collapsed = marks.collapsed;
    response.map(|body| body.watched(exchange))
}

/// Our marks on a 101. The connection is nobody's cache's from here on.
pub fn mark_switched(headers: &mut HeaderMap, node: &str) {
    append_via(headers, Version::HTTP_11, node);
    ensure_date(headers, clock::now());
}

/// A response of our own with a line of text.
pub fn text(status: StatusCode, line: &str) -> Response<ResponseBody> {
    let line = match line {
        "" => format!("{status}\n"),
        line => format!("{status}: {line}\n"),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response(status, headers, ResponseBody::once(Bytes::from(line)))
}

/// The answer to a request that is not taken in. `http1`: it came over a connection that can be closed.
pub fn refuse(
    mut exchange: Box<Exchange>,
    node: &str,
    reject: Reject,
    http1: bool,
) -> Response<ResponseBody> {
    exchange.reason = reject.reason;
    let mut response = match reject.status {
        StatusCode::NO_CONTENT => response(reject.status, HeaderMap::new(), ResponseBody::empty()),
        status => text(status, reject.reason.code()),
    };
    let headers = response.headers_mut();
    if matches!(reject.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NO_CONTENT) {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    if reject.close && http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    ensure_date(headers, clock::now());
    if proxy_error(reject.reason).is_some() {
        let status =
            ProxyStatus { node, reason: reject.reason, received_status: None, next_hop: None };
        status.append_to(headers);
    }
    exchange.status = response.status();
    response.map(|body| body.watched(exchange))
}

/// The answer when the next server gave none.
pub fn error(
    mut exchange: Box<Exchange>,
    node: &str,
    reason: Reason,
    next_hop: Option<&str>,
    fwd: Option<Fwd>,
) -> Response<ResponseBody> {
    exchange.reason = reason;
    let status = proxy_error(reason).map_or(StatusCode::BAD_GATEWAY, |(_, status)| status);
    let mut response = text(status, reason.code());
    // Nothing stores it unasked; without no-store an edge may give its parent's error to all who wait for it.
    response.headers_mut().remove(CACHE_CONTROL);
    let proxy_status = ProxyStatus { node, reason, received_status: None, next_hop };
    proxy_status.append_to(response.headers_mut());
    finish(exchange, node, response, &Marks { fwd, ..Marks::default() })
}
