//! The marks that this node leaves on messages: Via, Cache-Status, Proxy-Status, CDN-Loop, Forwarded and X-Forwarded-*.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{Entry, FORWARDED, HeaderName, HeaderValue, VIA};
use http::{HeaderMap, StatusCode, Version};

use super::Reason;
use super::cache_control::is_token_byte;
use super::reason::Fwd;
use super::structured::{write_name, write_string};

/// Cache-Status (RFC 9211).
pub static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Proxy-Status (RFC 9209).
pub static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// CDN-Loop (RFC 8586).
pub static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Appends us to Via (RFC 9110 §7.6.3). A pseudonym that is no token is written with `-` for what may not stand there.
pub fn append_via(headers: &mut HeaderMap, received: Version, pseudonym: &str) {
    let version = match received {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    let name = |c: char| if c.is_ascii() && is_token_byte(c as u8) { c } else { '-' };
    let mut member = String::with_capacity(pseudonym.len() + 4);
    let _ = write!(member, "{version} ");
    member.extend(pseudonym.chars().map(name));
    append_member(headers, &VIA, &member);
}

/// Appends a member to a list field, on the line that is there.
fn append_member(headers: &mut HeaderMap, name: &HeaderName, member: &str) {
    let Ok(value) = HeaderValue::from_str(member) else { return };
    match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value);
        }
        Entry::Occupied(mut entry) => {
            let lines = entry.iter().fold(Vec::new(), |mut lines, line| {
                lines.extend_from_slice(line.as_bytes());
                lines.extend_from_slice(b", ");
                lines
            });
            // Both parts are valid values, so the whole is.
            if let Ok(joined) = HeaderValue::from_bytes(&[&lines, member.as_bytes()].concat()) {
                entry.insert(joined);
            }
        }
    }
}

/// Our member of Cache-Status (RFC 9211).
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStatus<'a> {
    /// The member's name: the node's.
    pub node: &'a str,
    /// `hit`.
    pub hit: bool,
    /// `fwd=`; left out on a hit.
    pub fwd: Option<Fwd>,
    /// `fwd-status=`: what the next server answered, when it is not the status that the client gets.
    pub fwd_status: Option<StatusCode>,
    /// `ttl=` in seconds, negative when stale.
    pub ttl: Option<i64>,
    /// `stored`.
    pub stored: bool,
    /// `collapsed`.
    pub collapsed: bool,
    /// `key=`, when asked for.
    pub key: Option<&'a str>,
    /// `detail=`.
    pub detail: Option<Reason>,
}

impl CacheStatus<'_> {
    /// The member as text. `hit` and `fwd` exclude each other (RFC 9211 §2.2), and what belongs to forwarding goes with it.
    pub fn member(&self) -> String {
        let mut text = String::with_capacity(96);
        write_name(&mut text, self.node);
        if self.hit {
            text.push_str("; hit");
        } else if let Some(fwd) = self.fwd {
            let _ = write!(text, "; fwd={}", fwd.token());
            if let Some(status) = self.fwd_status {
                let _ = write!(text, "; fwd-status={}", status.as_u16());
            }
            if self.stored {
                text.push_str("; stored");
            }
            if self.collapsed {
                text.push_str("; collapsed");
            }
        }
        if let Some(ttl) = self.ttl {
            // An sf-integer has 15 digits.
            let _ = write!(text, "; ttl={}", ttl.clamp(-999_999_999_999_999, 999_999_999_999_999));
        }
        if let Some(key) = self.key {
            text.push_str("; key=");
            write_string(&mut text, key);
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        text
    }

    /// Appends the member: those already there (the parent's) come first.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        append_member(headers, &CACHE_STATUS, &self.member());
    }
}

/// Our member of Proxy-Status (RFC 9209).
#[derive(Clone, Copy, Debug)]
pub struct ProxyStatus<'a> {
    /// The member's name: the node's.
    pub node: &'a str,
    /// Gives `error=` (see [`proxy_error`]) and `details=`.
    pub reason: Reason,
    /// `received-status=`.
    pub received_status: Option<StatusCode>,
    /// `next-hop=`.
    pub next_hop: Option<&'a str>,
}

impl ProxyStatus<'_> {
    /// The member as text.
    pub fn member(&self) -> String {
        let mut text = String::with_capacity(96);
        write_name(&mut text, self.node);
        if let Some((error, _)) = proxy_error(self.reason) {
            let _ = write!(text, "; error={error}");
        }
        if let Some(next_hop) = self.next_hop {
            text.push_str("; next-hop=");
            write_name(&mut text, next_hop);
        }
        if let Some(status) = self.received_status {
            let _ = write!(text, "; received-status={}", status.as_u16());
        }
        let _ = write!(text, "; details=\"{}\"", self.reason);
        text
    }

    /// Appends the member.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        append_member(headers, &PROXY_STATUS, &self.member());
    }
}

/// The proxy error type of RFC 9209 §2.3 for a reason, and the status that we answer with; `None` for what is no error on
/// the way to the next server or in the request.
pub const fn proxy_error(reason: Reason) -> Option<(&'static str, StatusCode)> {
    Some(match reason {
        Reason::ConnectFailed => ("connection_refused", StatusCode::BAD_GATEWAY),
        Reason::ConnectTimeout => ("connection_timeout", StatusCode::GATEWAY_TIMEOUT),
        Reason::FirstByteTimeout => ("http_response_timeout", StatusCode::GATEWAY_TIMEOUT),
        Reason::BodyTimeout => ("http_response_timeout", StatusCode::GATEWAY_TIMEOUT),
        Reason::ConnectionClosed => ("connection_terminated", StatusCode::BAD_GATEWAY),
        Reason::Incomplete => ("http_response_incomplete", StatusCode::BAD_GATEWAY),
        Reason::BadResponse => ("http_protocol_error", StatusCode::BAD_GATEWAY),
        Reason::TlsFailed => ("tls_protocol_error", StatusCode::BAD_GATEWAY),
        Reason::TlsCertificate => ("tls_certificate_error", StatusCode::BAD_GATEWAY),
        Reason::OriginBusy => ("connection_limit_reached", StatusCode::SERVICE_UNAVAILABLE),
        Reason::RequestIncomplete => ("http_request_error", StatusCode::BAD_REQUEST),
        Reason::Loop => ("proxy_loop_detected", StatusCode::LOOP_DETECTED),
        Reason::Internal => ("proxy_internal_error", StatusCode::INTERNAL_SERVER_ERROR),
        Reason::OnlyIfCached => ("proxy_internal_response", StatusCode::GATEWAY_TIMEOUT),
        Reason::Overload => ("proxy_internal_response", StatusCode::SERVICE_UNAVAILABLE),
        _ => return None,
    })
}

/// Server-Timing (W3C): what this node did, and how long it took until the head of its answer, in milliseconds.
pub fn append_server_timing(headers: &mut HeaderMap, node: &str, reason: Reason, took: Duration) {
    let mut metric = String::with_capacity(64);
    // A metric's name is a token.
    let name = |c: char| if c.is_ascii() && is_token_byte(c as u8) { c } else { '-' };
    metric.extend(node.chars().map(name));
    let _ = write!(metric, ";desc=\"{reason}\";dur={:.3}", took.as_secs_f64() * 1000.0);
    append_member(headers, &SERVER_TIMING, &metric);
}

/// How often the request came through the CDN of this name already (RFC 8586 §2: compared without regard to case).
/// Parameters and unparsable members do not count.
pub fn cdn_loop_count(headers: &HeaderMap, cdn: &str) -> usize {
    let mut count = 0;
    for line in headers.get_all(&CDN_LOOP) {
        // A quoted parameter may hold a comma; a member made of its pieces is at worst one too many, which is the safe side.
        for member in line.as_bytes().split(|b| *b == b',') {
            let id = member.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            count += usize::from(id.eq_ignore_ascii_case(cdn.as_bytes()));
        }
    }
    count
}

/// Appends us to CDN-Loop.
pub fn append_cdn_loop(headers: &mut HeaderMap, cdn: &str) {
    append_member(headers, &CDN_LOOP, cdn);
}

/// Who asks, for Forwarded (RFC 7239) and X-Forwarded-*.
#[derive(Clone, Copy, Debug)]
pub struct ForwardedFor<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// `http` or `https`, as the client used.
    pub scheme: &'a str,
    /// The host that the client asked.
    pub host: &'a str,
}

/// Writes Forwarded, X-Forwarded-For, -Proto and -Host anew: what a client sent there is not believed.
pub fn set_forwarded(headers: &mut HeaderMap, forwarded: &ForwardedFor<'_>) {
    let client = forwarded.client.to_canonical();
    let mut element = match client {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    element.push_str(";host=");
    write_string(&mut element, forwarded.host);
    let _ = write!(element, ";proto={}", forwarded.scheme);
    for (name, text) in [
        (&FORWARDED, element.as_str()),
        (&X_FORWARDED_FOR, client.to_string().as_str()),
        (&X_FORWARDED_HOST, forwarded.host),
        (&X_FORWARDED_PROTO, forwarded.scheme),
    ] {
        headers.remove(name);
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers.remove(HeaderName::from_static("x-forwarded-port"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn server_timing_tells_what_was_done_and_how_long_it_took() {
        let mut message = headers(&[("server-timing", "app;dur=5")]);
        append_server_timing(&mut message, "e 1", Reason::Fresh, Duration::from_micros(1234));
        assert_eq!(message["server-timing"], "app;dur=5, e-1;desc=\"fresh\";dur=1.234");
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

    fn get<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} stands there twice");
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Pitfall 33.
    #[test]
    fn rfc9110_7_6_3_via() {
        let mut message = headers(&[("via", "1.0 fred"), ("via", "1.1 p.example.net")]);
        append_via(&mut message, Version::HTTP_2, "icn-1");
        append_via(&mut message, Version::HTTP_11, "a b\u{fc}");
        assert_eq!(get(&message, "via"), Some("1.0 fred, 1.1 p.example.net, 2 icn-1, 1.1 a-b-"));
    }

    #[test]
    fn rfc9211_cache_status() {
        let base = CacheStatus { node: "icn-1", ..CacheStatus::default() };
        for (status, expected) in [
            (
                CacheStatus {
                    hit: true,
                    ttl: Some(30),
                    detail: Some(Reason::Fresh),
                    fwd: Some(Fwd::Stale),
                    ..base
                },
                "icn-1; hit; ttl=30; detail=fresh",
            ),
            (
                CacheStatus {
                    fwd: Some(Fwd::UriMiss),
                    fwd_status: Some(StatusCode::NOT_MODIFIED),
                    stored: true,
                    collapsed: true,
                    ttl: Some(-4),
                    key: Some("https://a/b \"c\"\\\u{e9}"),
                    ..base
                },
                "icn-1; fwd=uri-miss; fwd-status=304; stored; collapsed; ttl=-4; key=\"https://a/b \\\"c\\\"\\\\?\"",
            ),
            (CacheStatus { node: "1 x", fwd: Some(Fwd::Bypass), ..base }, "\"1 x\"; fwd=bypass"),
        ] {
            assert_eq!(status.member(), expected);
        }
        let mut message = headers(&[("cache-status", "icn-p1; hit")]);
        base.append_to(&mut message);
        assert_eq!(get(&message, "cache-status"), Some("icn-p1; hit, icn-1"));
    }

    /// Pitfall 54.
    #[test]
    fn rfc9209_proxy_status() {
        let mut message = HeaderMap::new();
        let status = ProxyStatus {
            node: "icn-1",
            reason: Reason::ConnectTimeout,
            received_status: Some(StatusCode::BAD_GATEWAY),
            next_hop: Some("127.0.9.1:9001"),
        };
        status.append_to(&mut message);
        assert_eq!(
            get(&message, "proxy-status"),
            Some(
                "icn-1; error=connection_timeout; next-hop=\"127.0.9.1:9001\"; received-status=502; details=\"connect-timeout\""
            )
        );
        assert_eq!(proxy_error(Reason::Fresh), None);
        assert_eq!(proxy_error(Reason::ConnectTimeout).unwrap().1, StatusCode::GATEWAY_TIMEOUT);
    }

    /// Pitfall 33.
    #[test]
    fn rfc8586_cdn_loop() {
        let mut message = headers(&[
            ("cdn-loop", "foo123.foocdn.example, Meridian; edge=icn"),
            ("cdn-loop", "other;x=meridian,,"),
        ]);
        assert_eq!(cdn_loop_count(&message, "meridian"), 1);
        append_cdn_loop(&mut message, "meridian");
        assert_eq!(cdn_loop_count(&message, "meridian"), 2);
        assert_eq!(cdn_loop_count(&message, "foocdn"), 0);
        assert_eq!(cdn_loop_count(&HeaderMap::new(), "meridian"), 0);
    }

    #[test]
    fn rfc7239_forwarded() {
        for (client, element, plain) in [
            ("192.0.2.1", "for=192.0.2.1;host=\"a.test:8080\";proto=https", "192.0.2.1"),
            (
                "2001:db8::1",
                "for=\"[2001:db8::1]\";host=\"a.test:8080\";proto=https",
                "2001:db8::1",
            ),
            ("::ffff:192.0.2.1", "for=192.0.2.1;host=\"a.test:8080\";proto=https", "192.0.2.1"),
        ] {
            let mut message = headers(&[
                ("x-forwarded-for", "evil"),
                ("forwarded", "for=evil"),
                ("x-forwarded-port", "1"),
            ]);
            let from = ForwardedFor {
                client: client.parse().unwrap(),
                scheme: "https",
                host: "a.test:8080",
            };
            set_forwarded(&mut message, &from);
            assert_eq!(get(&message, "forwarded"), Some(element));
            assert_eq!(get(&message, "x-forwarded-for"), Some(plain));
            assert_eq!(get(&message, "x-forwarded-host"), Some("a.test:8080"));
            assert_eq!(get(&message, "x-forwarded-proto"), Some("https"));
            assert_eq!(get(&message, "x-forwarded-port"), None);
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut message = HeaderMap::new();
                message.insert(&CDN_LOOP, value.clone());
                message.insert(VIA, value);
                let before = cdn_loop_count(&message, "meridian");
                append_cdn_loop(&mut message, "meridian");
                append_via(&mut message, Version::HTTP_11, "x");
                prop_assert_eq!(cdn_loop_count(&message, "meridian"), before + 1);
            }
        }

        #[test]
        fn any_key_and_node_make_a_valid_member(node in "\\PC{0,20}", key in "\\PC{0,40}") {
            let status = CacheStatus { node: &node, key: Some(&key), ..CacheStatus::default() };
            let mut message = HeaderMap::new();
            status.append_to(&mut message);
            prop_assert!(message.contains_key("cache-status"));
        }
    }
}
