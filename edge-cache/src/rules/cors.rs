//! Cross-origin requests of browsers, by the CORS protocol of the Fetch standard (§3.3), where a route has `cors`.
//!
//! * A preflight (OPTIONS with Origin and Access-Control-Request-Method) is answered here, the origin is not asked: 204 with
//!   what is allowed, or 403 with the reason, on which browsers give up as well.
//! * Any other response gets Access-Control-Allow-Origin and its companions in place of all Access-Control fields that the
//!   origin sent, errors and redirects too, if Origin is one of the list and the method may be used.
//! * `Vary: Origin` is on every response that could have been another one for another Origin: on all of a route with a list,
//!   with or without Origin in the request; on none of a route for `*`.
//! * A route that caches does not tell the origin who asks (GET and HEAD go on without Origin): what is stored is nobody's,
//!   and one variant serves all.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use shared::config::{CorsOrigin, CorsSpec};

use crate::semantics::Reason;

/// Fields that one preflight may ask for; browsers list a few.
const MAX_FIELDS: usize = 64;

/// `cors` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Every origin.
    any: bool,
    origins: Vec<CorsOrigin>,
    methods: Vec<Method>,
    allow_methods: HeaderValue,
    any_field: bool,
    fields: Vec<HeaderName>,
    allow_fields: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: u64,
}

/// What a request's Origin came to; held until there is a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted(Option<HeaderValue>);

impl Cors {
    /// Of a route's `cors`.
    ///
    /// # Errors
    /// What is no method or field name.
    pub fn new(spec: &CorsSpec) -> Result<Self, String> {
        let value = |names: &[String]| -> Result<Option<HeaderValue>, String> {
            if names.is_empty() {
                return Ok(None);
            }
            let text = names.join(", ");
            HeaderValue::from_str(&text)
                .map(Some)
                .map_err(|_| format!("`{text}` is no list of names"))
        };
        let method = |name: &String| {
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a method"))
        };
        let field = |name: &String| {
            HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is not a field name"))
        };
        let named: Vec<String> = spec.headers.iter().filter(|name| *name != "*").cloned().collect();
        Ok(Self {
            any: spec.origins.contains(&CorsOrigin::Any),
            origins: spec.origins.clone(),
            methods: spec.methods.iter().map(method).collect::<Result<_, _>>()?,
            allow_methods: value(&spec.methods)?.ok_or("`methods` of `cors` is empty")?,
            any_field: spec.headers.iter().any(|name| name == "*"),
            fields: named.iter().map(field).collect::<Result<_, _>>()?,
            allow_fields: value(&named)?,
            expose: value(&spec.expose)?,
            // Never with `*`: every site could act as a visitor of this one.
            credentials: spec.credentials && !spec.origins.contains(&CorsOrigin::Any),
            max_age: spec.max_age.get().as_secs(),
        })
    }

    /// Whether a request is a preflight.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Whether the request's origin and method are allowed.
    pub fn grant(&self, method: &Method, headers: &HeaderMap) -> Granted {
        let used = self.methods.contains(method)
            || *method == Method::HEAD && self.methods.contains(&Method::GET);
        Granted(self.allowed(headers).filter(|_| used))
    }

    /// The value of Access-Control-Allow-Origin, or none.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let mut lines = headers.get_all(ORIGIN).iter();
        let (origin, None) = (lines.next()?, lines.next()) else { return None };
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|known| is_of(text, known)).then(|| origin.clone())
    }

    /// The answer to a preflight: the fields of a 204, or why it is refused. Both answers get the fields of
    /// [`Cors::vary_preflight`].
    ///
    /// # Errors
    /// Origin, method or field that are not allowed.
    pub fn preflight(&self, headers: &HeaderMap) -> Result<HeaderMap, Reason> {
        let origin = self.allowed(headers).ok_or(Reason::CorsOrigin)?;
        let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let method = method.and_then(|value| Method::from_bytes(value.as_bytes()).ok());
        if !method.is_some_and(|method| self.methods.contains(&method)) {
            return Err(Reason::CorsMethod);
        }
        let mut asked: Vec<HeaderName> = Vec::new();
        for line in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
            for name in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() {
                    continue;
                }
                let name = HeaderName::from_bytes(name).map_err(|_| Reason::CorsField)?;
                if asked.len() == MAX_FIELDS || !(self.any_field || self.fields.contains(&name)) {
                    return Err(Reason::CorsField);
                }
                asked.push(name);
            }
        }
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        // By name even where all are allowed: browsers take `*` neither for Authorization nor with credentials.
        let fields = if self.any_field {
            let names: Vec<&str> = asked.iter().map(HeaderName::as_str).collect();
            HeaderValue::from_str(&names.join(", ")).ok().filter(|_| !names.is_empty())
        } else {
            self.allow_fields.clone()
        };
        if let Some(fields) = fields {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age));
        self.allow(&mut answer, origin);
        Ok(answer)
    }

    fn allow(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// What the answer to a preflight depends on.
    pub fn vary_preflight(headers: &mut HeaderMap) {
        headers.insert(
            VARY,
            HeaderValue::from_static(
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            ),
        );
    }

    /// Puts our word in place of the origin's on a response that is no answer to a preflight.
    pub fn answer(&self, granted: &Granted, headers: &mut HeaderMap) {
        let theirs: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .cloned()
            .collect();
        for name in theirs {
            headers.remove(name);
        }
        if let Some(origin) = &granted.0 {
            self.allow(headers, origin.clone());
            if let Some(expose) = &self.expose {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
        }
        if !self.any && !varies_by_origin(headers) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let names = headers.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    names.map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

/// Whether an Origin as browsers write it (scheme and host in lower case, the scheme's own port left out) is this one. What
/// is written otherwise is no browser's.
fn is_of(origin: &str, known: &CorsOrigin) -> bool {
    match known {
        CorsOrigin::Any => true,
        CorsOrigin::Null => origin == "null",
        CorsOrigin::Named { scheme, host, below, port } => {
            let Some(rest) = origin.strip_prefix(scheme.as_str()) else { return false };
            let Some(rest) = rest.strip_prefix("://") else { return false };
            let rest = match port {
                None => Some(rest),
                Some(port) => {
                    rest.strip_suffix(&port.to_string()).and_then(|rest| rest.strip_suffix(':'))
                }
            };
            let Some(rest) = rest else { return false };
            if !below {
                return rest == host;
            }
            let labels = rest.strip_suffix(host.as_str()).and_then(|rest| rest.strip_suffix('.'));
            labels.is_some_and(|labels| {
                labels.split('.').all(|label| {
                    !label.is_empty()
                        && label.bytes().all(|b| {
                            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_'
                        })
                })
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::config::Dur;

    use super::*;

    fn spec(origins: &[&str]) -> CorsSpec {
        CorsSpec {
            origins: origins
                .iter()
                .map(|o| CorsOrigin::try_from((*o).to_owned()).unwrap())
                .collect(),
            methods: vec!["GET".to_owned(), "PUT".to_owned()],
            headers: vec!["X-One".to_owned(), "content-type".to_owned()],
            expose: vec!["X-Seen".to_owned()],
            credentials: false,
            max_age: Dur::secs(600),
        }
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&spec(origins)).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        all.sort();
        all
    }

    fn answered(
        cors: &Cors,
        method: Method,
        request: &[(&'static str, &str)],
        response: &[(&'static str, &str)],
    ) -> Vec<String> {
        let granted = cors.grant(&method, &headers(request));
        let mut response = headers(response);
        cors.answer(&granted, &mut response);
        shown(&response)
    }

    /// Fetch §3.3.3: an origin is compared whole, scheme, host and port.
    #[test]
    fn fetch_3_3_3_which_origins_are_allowed() {
        let list = cors(&[
            "https://app.test",
            "https://*.wild.test",
            "http://*.wild.test:8080",
            "https://p.test:8443",
        ]);
        for (origin, allowed) in [
            ("https://app.test", true),
            ("http://app.test", false),
            ("https://app.test:443", false),
            ("https://app.test:8443", false),
            ("https://APP.test", false),
            ("https://app.test.evil.test", false),
            ("https://evilapp.test", false),
            ("https://app.test/", false),
            ("https://app.test ", false),
            ("https://p.test:8443", true),
            ("https://p.test", false),
            ("https://a.wild.test", true),
            ("https://a.b.wild.test", true),
            ("https://wild.test", false),
            ("https://.wild.test", false),
            ("https://a..wild.test", false),
            ("https://evilwild.test", false),
            ("https://a.wild.test:8080", false),
            ("http://a.wild.test:8080", true),
            ("http://a.wild.test", false),
            ("https://evil.test/.wild.test", false),
            ("https://evil.test#.wild.test", false),
            ("https://u@a.wild.test", false),
            ("https://evil.test:80.wild.test", false),
            ("null", false),
            ("", false),
            ("*", false),
            ("\u{e9}", false),
        ] {
            let granted = list.grant(&Method::GET, &headers(&[("origin", origin)]));
            assert_eq!(granted.0.is_some(), allowed, "{origin}");
            // A list never opens to all, and never says `*`.
            assert!(granted.0.is_none_or(|value| value == origin));
        }
        let null = cors(&["null"]);
        assert!(null.grant(&Method::GET, &headers(&[("origin", "null")])).0.is_some());
        assert!(null.grant(&Method::GET, &headers(&[("origin", "https://a.test")])).0.is_none());
        let twice = headers(&[("origin", "https://app.test"), ("origin", "https://evil.test")]);
        assert!(list.grant(&Method::GET, &twice).0.is_none());
        assert!(list.grant(&Method::GET, &HeaderMap::new()).0.is_none());
    }

    #[test]
    fn our_word_replaces_the_origins_and_varies() {
        let list = cors(&["https://app.test"]);
        let theirs = [
            ("access-control-allow-origin", "https://other.test"),
            ("access-control-allow-credentials", "true"),
            ("vary", "Accept"),
            ("etag", "\"a\""),
        ];
        let refused = ["etag: \"a\"", "vary: Accept", "vary: Origin"];
        let allowed = [
            "access-control-allow-origin: https://app.test",
            "access-control-expose-headers: X-Seen",
            "etag: \"a\"",
            "vary: Accept",
            "vary: Origin",
        ];
        let app = [("origin", "https://app.test")];
        for (method, request, expected) in [
            (Method::GET, &app[..], &allowed[..]),
            (Method::HEAD, &app, &allowed),
            (Method::PUT, &app, &allowed),
            (Method::DELETE, &app, &refused),
            (Method::GET, &[], &refused),
            (Method::GET, &[("origin", "https://other.test")], &refused),
        ] {
            assert_eq!(
                answered(&list, method.clone(), request, &theirs),
                expected,
                "{method} {request:?}"
            );
        }
        for vary in ["Origin", "accept,ORIGIN", "*"] {
            let answer = answered(&list, Method::GET, &[], &[("vary", vary)]);
            assert_eq!(answer, [format!("vary: {vary}")]);
        }
        let any = cors(&["*"]);
        for request in [&[][..], &app] {
            let answer = answered(&any, Method::GET, request, &[]);
            assert_eq!(
                answer,
                ["access-control-allow-origin: *", "access-control-expose-headers: X-Seen"]
            );
        }
        let with =
            Cors::new(&CorsSpec { credentials: true, ..spec(&["https://app.test"]) }).unwrap();
        let answer = answered(&with, Method::GET, &app, &[]);
        assert!(
            answer.contains(&"access-control-allow-credentials: true".to_owned()),
            "{answer:?}"
        );
        // The check refuses this; it must not open anything even so.
        let both = Cors::new(&CorsSpec { credentials: true, ..spec(&["*"]) }).unwrap();
        let answer = answered(&both, Method::GET, &app, &[]);
        assert!(
            !answer.contains(&"access-control-allow-credentials: true".to_owned()),
            "{answer:?}"
        );
    }

    /// Fetch §4.8, CORS-preflight fetch.
    #[test]
    fn fetch_4_8_preflights() {
        let ask = |cors: &Cors, fields: &[(&'static str, &str)]| {
            let request = headers(fields);
            assert!(Cors::is_preflight(&Method::OPTIONS, &request));
            cors.preflight(&request).map(|answer| shown(&answer))
        };
        let list = cors(&["https://app.test"]);
        let (origin, method) =
            (("origin", "https://app.test"), ("access-control-request-method", "PUT"));
        let yes = [
            "access-control-allow-headers: X-One, content-type",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://app.test",
            "access-control-max-age: 600",
        ];
        assert_eq!(ask(&list, &[origin, method]).unwrap(), yes);
        let asked = ("access-control-request-headers", "content-type,X-ONE");
        assert_eq!(ask(&list, &[origin, method, asked]).unwrap(), yes);
        for (fields, reason) in [
            ([("origin", "https://evil.test"), method, asked], Reason::CorsOrigin),
            ([("origin", "null"), method, asked], Reason::CorsOrigin),
            ([origin, ("access-control-request-method", "DELETE"), asked], Reason::CorsMethod),
            ([origin, ("access-control-request-method", "put"), asked], Reason::CorsMethod),
            ([origin, ("access-control-request-method", ""), asked], Reason::CorsMethod),
            (
                [origin, method, ("access-control-request-headers", "x-one, x-two")],
                Reason::CorsField,
            ),
            ([origin, method, ("access-control-request-headers", "x one")], Reason::CorsField),
        ] {
            assert_eq!(ask(&list, &fields).unwrap_err(), reason, "{fields:?}");
        }
        let all = Cors::new(&CorsSpec { headers: vec!["*".to_owned()], ..spec(&["*"]) }).unwrap();
        let asked = ("access-control-request-headers", "authorization, x-two");
        assert_eq!(
            ask(&all, &[origin, method, asked]).unwrap(),
            [
                "access-control-allow-headers: authorization, x-two",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-origin: *",
                "access-control-max-age: 600",
            ]
        );
        let many = vec!["x"; 65].join(",");
        assert_eq!(
            ask(&all, &[origin, method, ("access-control-request-headers", &many)]),
            Err(Reason::CorsField)
        );
        assert!(!Cors::is_preflight(&Method::OPTIONS, &headers(&[origin])));
        assert!(!Cors::is_preflight(&Method::GET, &headers(&[origin, method])));
    }

    proptest! {
        /// Nothing that is not below the host matches a wildcard.
        #[test]
        fn wildcards_match_by_label(origin in "https?://[a-z.:/@#?-]{0,10}(wild\\.test)?(:[0-9]{1,4})?") {
            let known = CorsOrigin::try_from("https://*.wild.test".to_owned()).unwrap();
            if is_of(&origin, &known) {
                let parsed: http::Uri = origin.parse().unwrap();
                prop_assert_eq!(parsed.scheme_str(), Some("https"));
                prop_assert!(parsed.host().unwrap().ends_with(".wild.test") && parsed.port().is_none());
            }
        }
    }
}
