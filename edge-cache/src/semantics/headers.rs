//! What is taken off and put on at each hop: connection fields, Age, Date, and which fields of a client reach the origin.
//! The marks that this node leaves are in [`super::marks`], and can be named from here too.

use std::time::Duration;

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HeaderName,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
    TE, TRAILER,
};
use shared::time::UnixMillis;

use super::cache_control::{DELTA_MAX, for_each_listed_field};
pub use super::marks::{
    CACHE_STATUS, CDN_LOOP, CacheStatus, ForwardedFor, PROXY_STATUS, ProxyStatus, append_cdn_loop,
    append_server_timing, append_via, cdn_loop_count, proxy_error, set_forwarded,
};
use super::{Policy, Profile, date, surrogate, vary};

/// Fields of one connection, whether Connection names them or not (RFC 9110 §7.6.1, RFC 9111 §3.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields that must not be connection options: whoever names one wants it to vanish on the way.
const NEVER_CONNECTION_OPTIONS: [&str; 27] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "range",
    "set-cookie",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// Takes off the fields of one connection (RFC 9110 §7.6.1), those that Connection names too. Names that must not be
/// connection options (Host, Cache-Control, Authorization, …) stay, whatever Connection says: naming them is an attack.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for line in headers.get_all(CONNECTION) {
        for option in line.as_bytes().split(|b| *b == b',') {
            // `close` and `keep-alive` are no fields, and not worth a look in the map.
            if let Ok(name) = HeaderName::from_bytes(option.trim_ascii())
                && name != "close"
                && !NEVER_CONNECTION_OPTIONS.contains(&name.as_str())
            {
                named.push(name);
            }
        }
    }
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The fields of an interim response that may go on to the client (RFC 9110 §15.2): none of the connection, and none that
/// would frame a content which it cannot have.
pub fn interim_fields(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    strip_hop_by_hop(&mut headers);
    for name in [CONTENT_LENGTH, TRAILER] {
        headers.remove(name);
    }
    remove_ours(&mut headers);
    headers
}

/// Takes off what nodes tell each other: nobody else is told, and nobody else tells.
fn remove_ours(headers: &mut HeaderMap) {
    let ours = headers.keys().filter(|name| name.as_str().starts_with(OURS));
    for name in ours.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Not for trailers (RFC 9110 §6.5.1): framing, routing, control of requests and caches, authentication, what is needed to
/// read the content, and the marks of those on the way.
const NOT_IN_TRAILERS: [&str; 37] = [
    "age",
    "authorization",
    "cache-control",
    "cache-status",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "proxy-status",
    "range",
    "retry-after",
    "set-cookie",
    "trailer",
    "vary",
    "via",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method-override",
    "x-original-url",
];

/// Takes off the trailers that must not be passed on. What is left stays apart from the fields of the head.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    remove_ours(trailers);
    for name in NOT_IN_TRAILERS {
        trailers.remove(name);
    }
}

/// Whether the sender takes trailers (RFC 9110 §10.1.4): `trailers` among the members of TE.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|line| {
        let mut members = line.as_bytes().split(|b| *b == b',');
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Takes off what must not be stored with a response (RFC 9111 §3.1): connection fields, Trailer (what is stored has none:
/// RFC 9112 §7.1.3), Age (it went into the initial age), Cache-Status and Proxy-Status (they tell of another request), and
/// the fields that `no-cache="…"` or `private="…"` name.
pub fn strip_for_storage(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    let mut listed: Vec<HeaderName> = Vec::new();
    for_each_listed_field(headers, |name| listed.extend(HeaderName::from_bytes(name)));
    for name in listed {
        headers.remove(name);
    }
    headers.remove(TRAILER);
    headers.remove(AGE);
    headers.remove(&CACHE_STATUS);
    headers.remove(&PROXY_STATUS);
}

/// The fields of a response for the client whose request fetched it: the stored ones, and those that `no-cache="…"` or
/// `private="…"` keep out of the store, which are for this client (RFC 9111 §5.2.2.4, §5.2.2.7). `None`: there are none.
pub fn with_listed(stored: &HeaderMap, received: &HeaderMap) -> Option<HeaderMap> {
    let mut whole = None;
    for_each_listed_field(received, |name| {
        let Ok(name) = HeaderName::from_bytes(name) else { return };
        // Fields of the connection are gone from both, and what is stored is not there twice.
        if received.contains_key(&name) && !stored.contains_key(&name) && !is_ours(&name) {
            let whole = whole.get_or_insert_with(|| stored.clone());
            whole.remove(&name);
            for value in received.get_all(&name) {
                whole.append(name.clone(), value.clone());
            }
        }
    });
    whole
}

fn is_ours(name: &HeaderName) -> bool {
    *name == AGE || *name == CACHE_STATUS || *name == PROXY_STATUS
}

/// Never sent on, on any route: we write the first ones ourselves, and the others let a client choose a URL behind our
/// back.
const NEVER_TO_ORIGIN: [&str; 6] =
    ["host", "forwarded", "x-original-url", "x-rewrite-url", "x-original-host", "x-host"];
/// The same for all fields that begin so.
const NEVER_BEGINNING: [&str; 2] = ["x-forwarded-", OURS];
/// Fields between nodes of this CDN begin so (`crate::purge`).
const OURS: &str = "meridian-";
/// Framing, which a field with `_` in place of `-` is to some programs.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// Whether a client's field is sent on to nobody. `X_Forwarded_For` is X-Forwarded-For to programs that are given fields as
/// variables (RFC 3875 §4.1.18): it goes the same way.
fn is_never_sent(name: &HeaderName) -> bool {
    let never = |name: &str| {
        NEVER_TO_ORIGIN.contains(&name)
            || NEVER_BEGINNING.iter().any(|beginning| name.starts_with(beginning))
    };
    let name = name.as_str();
    if !name.contains('_') {
        return never(name);
    }
    let name = name.replace('_', "-");
    never(&name) || FRAMING.contains(&name.as_str()) || name == CDN_LOOP.as_str()
}

/// Not sent on a fill: it is for everybody, not for the client whose request began it.
const NOT_ON_FILL: [&str; 16] = [
    "content-length",
    "content-type",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "proxy-authorization",
    "range",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "te",
    "trailer",
];

/// What a fill may carry in the safe profile besides the fields of the key. Accept-Encoding is sent normalised; all but
/// Authorization (whose responses need the origin's word to be stored) and tracing are for the origin to name in Vary.
const SAFE_ON_FILL: [&str; 12] = [
    "accept",
    "accept-language",
    "authorization",
    "cdn-loop",
    "dnt",
    "origin",
    "save-data",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-request-id",
];

/// The fields to send on for a client's request, without connection fields, Forwarded, X-Forwarded-* and the overrides of
/// the URL that some frameworks read. Host is left to the caller.
///
/// With a policy (a cacheable route's fill), also without conditions, Range and, in the safe profile, without every field
/// that is neither on the allow-list nor in the key nor among the `varying` ones, which responses of this key have named
/// in Vary: what is not in the key must not shape the response.
pub fn for_origin(
    client: &HeaderMap,
    policy: Option<&Policy>,
    varying: &[HeaderName],
) -> HeaderMap {
    let mut headers = client.clone();
    strip_hop_by_hop(&mut headers);
    join_cookies(&mut headers);
    let Some(policy) = policy else {
        let unwanted: Vec<_> = headers.keys().filter(|name| is_never_sent(name)).cloned().collect();
        for name in unwanted {
            headers.remove(name);
        }
        return headers;
    };
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| **name != COOKIE && !is_sent_on_fill(name, policy, varying))
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
    if policy.profile == Profile::Safe {
        restrict_cookies(&mut headers, policy);
    }
    // Variants are told apart by these codings only, so the origin must not see others.
    match vary::normalised_accept_encoding(client) {
        _ if !policy.compress.is_empty() => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Some(codings) => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
        }
        None => {
            headers.remove(ACCEPT_ENCODING);
        }
    }
    if policy.surrogate_control {
        surrogate::announce(&mut headers);
    }
    headers
}

/// Whether a fill can carry a client's field of this name, so that it may select the response: not what we write
/// ourselves, what the client wants of its own answer and, in the safe profile, Cookie, of which only what the key holds
/// is sent.
pub fn can_be_sent_on_fill(name: &HeaderName, policy: &Policy) -> bool {
    let text = name.as_str();
    if is_never_sent(name) {
        return false;
    }
    if *name == ACCEPT_ENCODING {
        // Where encodings are made here, the next server is asked for the identity, for all clients.
        return policy.compress.is_empty();
    }
    let never = NOT_ON_FILL.contains(&text) || (*name == COOKIE && policy.profile == Profile::Safe);
    policy.key.headers.contains(name) || !never
}

/// Whether a fill carries the client's field of this name.
fn is_sent_on_fill(name: &HeaderName, policy: &Policy, varying: &[HeaderName]) -> bool {
    let unasked = || {
        policy.profile == Profile::Rfc
            || SAFE_ON_FILL.contains(&name.as_str())
            || policy.key.headers.contains(name)
            || name == ACCEPT_ENCODING
    };
    can_be_sent_on_fill(name, policy) && (unasked() || varying.contains(name))
}

/// The client's fields that a fill could carry and does not: to the origin they are absent, so that a response which
/// varies by them tells the client nothing of itself.
pub fn unsent(client: &HeaderMap, policy: &Policy, varying: &[HeaderName]) -> Vec<HeaderName> {
    let held_back = |name: &&HeaderName| {
        can_be_sent_on_fill(name, policy) && !is_sent_on_fill(name, policy, varying)
    };
    client.keys().filter(held_back).cloned().collect()
}

/// HTTP/2 lets a client send its cookies in several lines; other versions know one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let lines: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Only the cookies of the key, in the key's order: the origin sees what the key holds.
fn restrict_cookies(headers: &mut HeaderMap, policy: &Policy) {
    match crate::key::keyed_cookies(headers, &policy.key) {
        Some(cookies) => {
            headers.insert(COOKIE, cookies);
        }
        None => {
            headers.remove(COOKIE);
        }
    }
}

/// Takes off what speaks for one client from the fields of [`for_origin`]: for a revalidation in the background, which is
/// nobody's. What selects the stored variant (`vary`) stays: without it another one would be asked for.
pub fn without_credentials(headers: &mut HeaderMap, policy: &Policy, vary: &vary::Vary) {
    if !vary.names().contains(&AUTHORIZATION) {
        headers.remove(AUTHORIZATION);
    }
    if !vary.names().contains(&COOKIE) {
        restrict_cookies(headers, policy);
    }
}

/// Adds the client's range and conditions to the fields of [`for_origin`]: for a response that will be its alone. They say
/// what it wants of the response, not who asks.
pub fn add_range_and_conditions(headers: &mut HeaderMap, client: &HeaderMap) {
    const THEM: [HeaderName; 6] =
        [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    for name in THEM {
        for value in client.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Sets Age, exactly once (RFC 9111 §5.1).
pub fn set_age(headers: &mut HeaderMap, age: Duration) {
    headers.insert(AGE, HeaderValue::from(age.as_secs().min(DELTA_MAX.into())));
}

/// Adds Date where it is missing or invalid (RFC 9110 §6.6.1).
pub fn ensure_date(headers: &mut HeaderMap, now: UnixMillis) {
    if date::field(headers, &DATE).is_none() {
        headers.insert(DATE, date::format(now));
    }
}

#[cfg(test)]
mod tests;
