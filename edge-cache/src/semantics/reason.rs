//! The one list of reasons: log, metric label, `Cache-Status`, `Proxy-Status` and `explain` all print the same codes.

use std::fmt;

/// What became of a request, in the few words that a metric label may have (`cache="…"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered from the cache without asking anybody.
    Hit,
    /// Answered from the cache past its lifetime.
    Stale,
    /// A stored response was checked with the next server and found good.
    Revalidated,
    /// Fetched, on a route that caches.
    Miss,
    /// Passed through; the cache had no part in it.
    Pass,
    /// Refused, or answered with an error that we made.
    Error,
}

impl Outcome {
    /// Every outcome, for the registration of metrics.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Stale, Self::Revalidated, Self::Miss, Self::Pass, Self::Error];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Error => "error",
        }
    }
}

/// Why a request was forwarded: the `fwd` parameter of RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method is not one that is answered from the cache.
    Method,
    /// No response for this URL is stored.
    UriMiss,
    /// Responses for this URL are stored, none for these request fields.
    VaryMiss,
    /// A stored response was there, and the request's Cache-Control or similar refused it.
    Request,
    /// A stored response was there, past its lifetime or to be checked.
    Stale,
    /// A stored response was there, without the bytes asked for.
    Partial,
}

impl Fwd {
    /// The sf-token of RFC 9211.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident => $code:literal, $outcome:ident, $fwd:expr; )+) => {
        /// Why the cache did what it did. Codes are stable: scripts and dashboards read them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $name, )+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The stable code, in kebab-case: `detail=` of Cache-Status, `reason` of the log.
            pub const fn code(self) -> &'static str {
                match self { $( Self::$name => $code, )+ }
            }

            /// The coarse outcome that this reason leads to, which is the metric label `cache=`.
            pub const fn outcome(self) -> Outcome {
                match self { $( Self::$name => Outcome::$outcome, )+ }
            }

            /// Why the request was forwarded, if this reason forwards it.
            pub const fn fwd(self) -> Option<Fwd> {
                match self { $( Self::$name => $fwd, )+ }
            }
        }
    };
}

reasons! {
    /// A stored response was fresh.
    Fresh => "fresh", Hit, None;
    /// A fresh response filled only part of the store, and the part that was asked for is there.
    FreshPart => "fresh-part", Hit, None;
    /// Past its lifetime, within stale-while-revalidate; a background request checks it.
    StaleWhileRevalidate => "stale-while-revalidate", Stale, None;
    /// Past its lifetime; the next server failed, and stale-if-error allows it.
    StaleIfError => "stale-if-error", Stale, Some(Fwd::Stale);
    /// Past its lifetime; the next server was slow, and stale-if-error allows it.
    StaleAfterWait => "stale-after-wait", Stale, Some(Fwd::Stale);
    /// Past its lifetime, and the client's max-stale allows it.
    StaleByRequest => "stale-by-request", Stale, None;
    /// The next server said 304 to our revalidation.
    Revalidated => "revalidated", Revalidated, Some(Fwd::Stale);
    /// Nothing is stored for this URL.
    UriMiss => "uri-miss", Miss, Some(Fwd::UriMiss);
    /// Variants are stored, none for these request fields.
    VaryMiss => "vary-miss", Miss, Some(Fwd::VaryMiss);
    /// The stored response is past its lifetime.
    Expired => "expired", Miss, Some(Fwd::Stale);
    /// The stored response says no-cache: it is checked each time.
    NoCache => "no-cache", Miss, Some(Fwd::Stale);
    /// The stored response was purged softly: it is checked before it is used.
    SoftPurged => "soft-purged", Miss, Some(Fwd::Stale);
    /// The stored response was purged.
    Purged => "purged", Miss, Some(Fwd::UriMiss);
    /// The bytes asked for are not among those stored.
    PartialMiss => "partial-miss", Miss, Some(Fwd::Partial);
    /// The request's Cache-Control or Pragma says no-cache.
    RequestNoCache => "request-no-cache", Miss, Some(Fwd::Request);
    /// The request's Cache-Control says no-store.
    RequestNoStore => "request-no-store", Miss, Some(Fwd::Request);
    /// The request's max-age is below the stored response's age.
    RequestMaxAge => "request-max-age", Miss, Some(Fwd::Request);
    /// The request's min-fresh is above the stored response's remaining lifetime.
    RequestMinFresh => "request-min-fresh", Miss, Some(Fwd::Request);
    /// The request says only-if-cached, and nothing that may be used is stored (504).
    OnlyIfCached => "only-if-cached", Error, None;
    /// A recent response for this URL could not be stored: nobody waits for another.
    KnownUncacheable => "known-uncacheable", Pass, Some(Fwd::Bypass);
    /// The route does not cache.
    RouteNotCached => "route-not-cached", Pass, Some(Fwd::Bypass);
    /// The method is not GET or HEAD.
    MethodNotCached => "method-not-cached", Pass, Some(Fwd::Method);
    /// GET or HEAD with content, which is not part of the key.
    RequestContent => "request-content", Pass, Some(Fwd::Bypass);
    /// The request asks to switch protocols.
    UpgradeRequested => "upgrade-requested", Pass, Some(Fwd::Bypass);
    /// If-Match or If-Unmodified-Since, which only the origin evaluates (RFC 9111 §4.3.2).
    OriginPrecondition => "origin-precondition", Pass, Some(Fwd::Request);

    /// Not stored: no-store.
    NoStore => "no-store", Miss, None;
    /// Not stored: private.
    Private => "private", Miss, None;
    /// Not stored: the request had Authorization and the response does not allow sharing (RFC 9111 §3.5).
    Authorization => "authorization", Miss, None;
    /// Not stored: the response sets a cookie.
    SetCookie => "set-cookie", Miss, None;
    /// Not stored: Vary has `*`.
    VaryStar => "vary-star", Miss, None;
    /// Not stored: it varies by a field that the safe profile did not send. Now that this is known, the next one does.
    VaryUnsent => "vary-unsent", Miss, None;
    /// Not stored: nothing says how long, and the status is not one that is cached unasked.
    NoLifetime => "no-lifetime", Miss, None;
    /// Not stored: no lifetime, no validator, no stale use: it could never be used again.
    NoReuse => "no-reuse", Miss, None;
    /// Not stored: the status is not understood by this cache.
    StatusNotUnderstood => "status-not-understood", Miss, None;
    /// Not stored: the content type contradicts the path's extension (web cache deception).
    TypeMismatch => "type-mismatch", Miss, None;
    /// Not stored: a part of the representation was answered to a request for the whole.
    UnaskedPart => "unasked-part", Miss, None;
    /// Not stored: larger than the store takes.
    TooLarge => "too-large", Miss, None;
    /// Not stored: the content ended early.
    Incomplete => "incomplete", Miss, None;
    /// Not stored: the policy does not store such responses.
    NotStoredByPolicy => "not-stored-by-policy", Miss, None;

    /// Refused: no Host field (400).
    HostMissing => "host-missing", Error, None;
    /// Refused: several Host fields (400).
    HostRepeated => "host-repeated", Error, None;
    /// Refused: the Host field or the target's authority is not valid (400).
    HostInvalid => "host-invalid", Error, None;
    /// Refused: the Host field and `:authority` differ (400).
    HostMismatch => "host-mismatch", Error, None;
    /// Refused: no site of this node has that host (421).
    HostUnknown => "host-unknown", Error, None;
    /// Refused: the TLS name and the host belong to different sites (421).
    SniMismatch => "sni-mismatch", Error, None;
    /// Refused: both Content-Length and Transfer-Encoding (400).
    FramingConflict => "framing-conflict", Error, None;
    /// Refused: Content-Length is not one number (400).
    ContentLengthInvalid => "content-length-invalid", Error, None;
    /// Refused: Transfer-Encoding is not `chunked` alone, or came in HTTP/1.0 (400 or 501).
    TransferEncodingInvalid => "transfer-encoding-invalid", Error, None;
    /// Refused: a field is not syntactically valid (400).
    FieldInvalid => "field-invalid", Error, None;
    /// Refused: HTTP/2 request with a field of HTTP/1 connections (400).
    ConnectionField => "connection-field", Error, None;
    /// Refused: the request target is not valid (400).
    TargetInvalid => "target-invalid", Error, None;
    /// Refused: the request target is too long (414).
    TargetTooLong => "target-too-long", Error, None;
    /// Refused: the fields are too large or too many (431).
    FieldsTooLarge => "fields-too-large", Error, None;
    /// Refused: the request's content is larger than the route takes (413).
    ContentTooLarge => "content-too-large", Error, None;
    /// Refused: the request's content broke off, or its framing is not valid (400).
    RequestIncomplete => "request-incomplete", Error, None;
    /// Refused: CONNECT (405).
    ConnectRefused => "connect-refused", Error, None;
    /// Refused: TRACE (405).
    TraceRefused => "trace-refused", Error, None;
    /// Refused: the method is not allowed on this route (405).
    MethodNotAllowed => "method-not-allowed", Error, None;
    /// Refused: PURGE from a network that is not in `purge_from` (403).
    PurgeRefused => "purge-refused", Error, None;
    /// Answered here: PURGE.
    PurgeDone => "purge-done", Pass, None;
    /// Answered here: OPTIONS whose Max-Forwards reached 0, or `OPTIONS *` (204).
    OptionsHere => "options-here", Pass, None;
    /// Refused: an expectation other than 100-continue (417).
    ExpectationFailed => "expectation-failed", Error, None;
    /// Refused: the version of HTTP (505).
    VersionNotSupported => "version-not-supported", Error, None;
    /// Refused: no route of the site matches the path (404).
    NoRoute => "no-route", Error, None;
    /// Refused: the client's network is not served on this route (403).
    NetworkDenied => "network-denied", Error, None;
    /// Refused: the client's country is not served on this route, or is not known (403).
    CountryDenied => "country-denied", Error, None;
    /// Answered here: a preflight of CORS (204).
    Preflight => "preflight", Pass, None;
    /// Refused: a preflight from an origin that the route does not allow (403).
    CorsOrigin => "cors-origin", Error, None;
    /// Refused: a preflight for a method that the route does not allow to other origins (403).
    CorsMethod => "cors-method", Error, None;
    /// Refused: a preflight for a field that the route does not allow to other origins (403).
    CorsField => "cors-field", Error, None;
    /// Refused: the route is for signed requests, and this one has no signature (403).
    SignatureMissing => "signature-missing", Error, None;
    /// Refused: the signature is not one of this URL by a known key (403).
    SignatureInvalid => "signature-invalid", Error, None;
    /// Refused: the signature's path is another one (403).
    SignatureScope => "signature-scope", Error, None;
    /// Refused: the signature's time is over (403).
    SignatureExpired => "signature-expired", Error, None;
    /// Refused: the signature's time has not begun (403).
    SignatureEarly => "signature-early", Error, None;
    /// Refused: the signature is for clients of another network (403).
    SignatureNetwork => "signature-network", Error, None;
    /// Answered here: the route redirects.
    Redirect => "redirect", Pass, None;
    /// Refused: the route has nothing but a redirect, and it leads to the URL that was asked for (404).
    RedirectToItself => "redirect-to-itself", Error, None;
    /// Refused: the request came through this CDN too often already (508).
    Loop => "loop", Error, None;
    /// Refused: the node is at a limit (503).
    Overload => "overload", Error, None;

    /// The next server could not be reached (502).
    ConnectFailed => "connect-failed", Error, None;
    /// The next server did not accept a connection in time (504).
    ConnectTimeout => "connect-timeout", Error, None;
    /// The next server did not begin its response in time (504).
    FirstByteTimeout => "first-byte-timeout", Error, None;
    /// The next server stopped in the middle of its response.
    BodyTimeout => "body-timeout", Error, None;
    /// The next server closed the connection before a response (502).
    ConnectionClosed => "connection-closed", Error, None;
    /// The next server's response was not HTTP (502).
    BadResponse => "bad-response", Error, None;
    /// TLS to the next server failed (502).
    TlsFailed => "tls-failed", Error, None;
    /// Error: the next server's certificate is not good (502).
    TlsCertificate => "tls-certificate", Error, None;
    /// The origin's connection cap is reached (503).
    OriginBusy => "origin-busy", Error, None;
    /// The client went away.
    ClientGone => "client-gone", Error, None;
    /// A failure of ours (500).
    Internal => "internal", Error, None;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_tokens() {
        let mut seen = BTreeSet::new();
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(seen.insert(code), "{code} is there twice");
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(code.starts_with(|c: char| c.is_ascii_lowercase()), "{code}");
        }
    }

    /// RFC 9211 §2.2: a response that was forwarded is not a hit.
    #[test]
    fn rfc9211_2_2_a_hit_is_not_forwarded() {
        for reason in Reason::ALL {
            assert!(reason.outcome() != Outcome::Hit || reason.fwd().is_none(), "{reason}");
        }
    }
}
