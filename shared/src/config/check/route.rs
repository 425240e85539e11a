//! What a route asks of requests and does to responses: methods, redirects, rewrites, fields, CORS, access, signatures.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};

use super::Check;
use crate::config::document::Step;
use crate::config::route_values::{CorsOrigin, Piece};
use crate::config::spec::*;
use crate::geo::{Country, CountryCode};
use crate::prefix::Prefix;

/// Fields of a connection and of framing, in either direction: nodes write them as the message needs.
const OF_THE_CONNECTION: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// Marks that nodes leave on requests, and fields by which a fetch into the store says what it wants.
const OF_REQUESTS: [&str; 13] = [
    "cdn-loop",
    "content-encoding",
    "content-type",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];
/// Marks that nodes leave on responses, and fields that say what the content is.
const OF_RESPONSES: [&str; 7] = [
    "accept-ranges",
    "age",
    "cache-status",
    "content-encoding",
    "content-range",
    "date",
    "proxy-status",
];
/// A browser keeps the answer to a preflight no longer.
const MAX_PREFLIGHT: u64 = 86_400;

#[derive(Clone, Copy)]
enum Direction {
    Request,
    Response,
}

impl Check<'_> {
    pub(super) fn signing(&mut self) {
        for (name, signing) in &self.spec.signing {
            if signing.keys.is_empty() {
                self.error(
                    path!["signing", name, "keys"],
                    "write a key, such as { k1 = \"secrets/members-k1\" }",
                );
            }
            for key in signing.keys.keys().filter(|key| !is_key_name(key)) {
                self.error_at_key(
                    path!["signing", name, "keys", key],
                    format!("`{key}` cannot be a key's name: write letters, digits, `-` or `_`, 63 at most"),
                );
            }
        }
    }

    pub(super) fn route_rules(&mut self, site: &str, index: usize, route: &RouteSpec) {
        let at = |keys: &[&str]| -> Vec<Step> {
            let route: [Step; 4] = ["site".into(), site.into(), "routes".into(), index.into()];
            route.into_iter().chain(keys.iter().map(|key| Step::from(*key))).collect()
        };
        let has_rest = route.path.ends_with('*');
        const NO_REST: &str = "`{rest}` is what the `*` of `path` stands for, and `path` has none";
        if let Some(rewrite) = &route.rewrite {
            if let Some(problem) = rewrite.rewrite_problem() {
                self.error(at(&["rewrite"]), problem);
            } else if !has_rest && rewrite.uses(&Piece::Rest) {
                self.error(at(&["rewrite"]), NO_REST);
            }
            if route.strip_prefix.is_some() {
                self.error(at(&["rewrite"]), "`rewrite` and `strip_prefix` do not go together");
            }
        }
        if let Some(redirect) = &route.redirect {
            if let Some(problem) = redirect.to.redirect_problem() {
                self.error(at(&["redirect", "to"]), problem);
            } else if !has_rest && redirect.to.uses(&Piece::Rest) {
                self.error(at(&["redirect", "to"]), NO_REST);
            }
            if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
                self.error(
                    at(&["redirect", "status"]),
                    format!("{} is no redirect: write 301, 302, 303, 307 or 308", redirect.status),
                );
            }
            let keeps_url = [Piece::Path, Piece::Query].iter().all(|piece| redirect.to.uses(piece));
            if route.origin.is_some() && !keeps_url {
                self.warn(
                    at(&["origin"]),
                    "this origin is asked only for what would be redirected to itself: is one of `origin` and `redirect` too much?",
                );
            }
        }
        if let Some(methods) = &route.methods {
            self.methods(&at(&["methods"]), methods);
        }
        let FieldsSpec { set, remove } = &route.request_headers;
        self.fields(&at(&["request_headers"]), set, remove, Direction::Request, route);
        let FieldsSpec { set, remove } = &route.response_headers;
        self.fields(&at(&["response_headers"]), set, remove, Direction::Response, route);
        if let Some(cors) = &route.cors {
            self.cors(&at(&["cors"]), cors);
            for (index, method) in cors.methods.iter().enumerate() {
                if is_method(method) && !serves(route, method) {
                    let place = [at(&["cors", "methods"]), vec![index.into()]].concat();
                    self.warn(
                        place,
                        format!(
                            "preflights allow {method}, which `methods` does not have: it gets 405"
                        ),
                    );
                }
            }
        }
        if !route.upgrade.is_empty() && !serves(route, "GET") {
            self.warn(
                at(&["upgrade"]),
                "a connection is switched by a GET, which `methods` does not have: it gets 405",
            );
        }
        self.access(&at(&["access"]), &route.access);
        if let Some(name) = &route.signed {
            self.refer(at(&["signed"]), "signing", &self.spec.signing, name);
            let reads = |method: &String| matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
            if !route.methods.as_ref().is_some_and(|methods| methods.iter().all(reads)) {
                self.warn(
                    at(&["signed"]),
                    "a signature is good for every method of the route: write methods = [\"GET\", \"HEAD\"] where it is for reading",
                );
            }
        }
    }

    fn methods(&mut self, at: &[Step], methods: &[String]) {
        if methods.is_empty() {
            self.error(at.to_vec(), "nothing would be served: write a method, such as \"GET\"");
        }
        for (index, method) in methods.iter().enumerate() {
            let at = [at, &[index.into()]].concat();
            let upper = method.to_ascii_uppercase();
            if !is_method(method) {
                self.error(at, format!("`{method}` is not a method"));
            } else if matches!(upper.as_str(), "CONNECT" | "TRACE") {
                self.error(at, format!("{upper} is not served on any route"));
            } else if http::Method::from_bytes(upper.as_bytes()).is_ok_and(|known| is_known(&known))
                && upper != *method
            {
                self.error(at, format!("methods are told apart by case: write \"{upper}\""));
            } else if methods[..index].contains(method) {
                self.error(at, format!("`{method}` is listed twice"));
            }
        }
    }

    fn fields(
        &mut self,
        at: &[Step],
        set: &std::collections::BTreeMap<String, String>,
        remove: &[String],
        direction: Direction,
        route: &RouteSpec,
    ) {
        let mut seen = BTreeSet::new();
        let setting =
            set.keys().map(|name| (name, [at, &["set".into(), name.into()]].concat(), true));
        let removing = remove.iter().enumerate();
        let removing = removing
            .map(|(index, name)| (name, [at, &["remove".into(), index.into()]].concat(), false));
        for (name, at, sets) in setting.chain(removing) {
            let Ok(field) = HeaderName::try_from(name.as_str()) else {
                self.error_of_field(at, sets, format!("`{name}` is not a field name"));
                continue;
            };
            let text = field.as_str();
            if !seen.insert(text.to_owned()) {
                self.error_of_field(at, sets, format!("`{name}` stands there twice"));
                continue;
            }
            let problem = match direction {
                _ if OF_THE_CONNECTION.contains(&text) => {
                    Some("belongs to the connection: every node writes its own")
                }
                Direction::Request if text == "host" => Some("is what `host` of the origin is for"),
                Direction::Request if OF_REQUESTS.contains(&text) => {
                    Some("is written by the node as the request needs it")
                }
                Direction::Request if text == "accept-encoding" && sets => {
                    Some("must be what the client takes; it can be removed")
                }
                Direction::Response if OF_RESPONSES.contains(&text) => {
                    Some("is written by the node as the response needs it")
                }
                Direction::Response if matches!(text, "etag" | "last-modified") && sets => Some(
                    "must be the origin's: clients' conditions are compared with that; it can be removed",
                ),
                Direction::Response
                    if route.cors.is_some() && text.starts_with("access-control-") =>
                {
                    Some("is what `cors` writes")
                }
                _ => None,
            };
            if let Some(problem) = problem {
                self.error_of_field(at, sets, format!("`{name}` {problem}"));
                continue;
            }
            if matches!(direction, Direction::Response) && text == "vary" {
                self.warn_at_key(
                    at.clone(),
                    "caches of clients then take one variant for another: let the origin write Vary",
                );
            }
            if let Some(value) = set.get(name).filter(|_| sets)
                && (HeaderValue::from_str(value).is_err()
                    || !value.is_ascii()
                    || value.trim() != value)
            {
                self.error(at, "a field's value is printable ASCII, without spaces at its ends");
            }
        }
    }

    fn error_of_field(&mut self, at: Vec<Step>, is_key: bool, message: String) {
        if is_key { self.error_at_key(at, message) } else { self.error(at, message) }
    }

    fn cors(&mut self, at: &[Step], cors: &CorsSpec) {
        let under = |key: &str| [at, &[Step::from(key)]].concat();
        let of = |key: &str, index: usize| [at, &[Step::from(key), index.into()]].concat();
        if cors.origins.is_empty() {
            self.error(under("origins"), "no origin is allowed: write one, or leave `cors` out");
        }
        let any = cors.origins.contains(&CorsOrigin::Any);
        if any && cors.origins.len() > 1 {
            self.error(under("origins"), "`*` is every origin: write it alone");
        }
        if any && cors.credentials {
            self.error(
                under("credentials"),
                "not with origins = [\"*\"]: every site could act as a visitor of this one",
            );
        }
        for (index, origin) in cors.origins.iter().enumerate() {
            match origin {
                CorsOrigin::Null if cors.credentials => self.error(
                    of("origins", index),
                    "not with credentials: every site can make a page whose origin is `null`",
                ),
                CorsOrigin::Null => self.warn(
                    of("origins", index),
                    "every site can make a page whose origin is `null`: this is as good as `*`",
                ),
                CorsOrigin::Named { scheme, .. } if scheme == "http" && cors.credentials => self
                    .warn(
                        of("origins", index),
                        "whoever is on the way of a page without TLS can act as its visitor",
                    ),
                _ => {}
            }
        }
        self.methods(&under("methods"), &cors.methods);
        for (key, names) in [("headers", &cors.headers), ("expose", &cors.expose)] {
            for (index, name) in names.iter().enumerate() {
                if name == "*" {
                    if key == "expose" && cors.credentials {
                        self.error(
                            of(key, index),
                            "`*` is not understood with credentials: name the fields",
                        );
                    }
                } else if HeaderName::try_from(name.as_str()).is_err() {
                    self.error(of(key, index), format!("`{name}` is not a field name"));
                }
            }
        }
        if cors.max_age.get().as_secs() > MAX_PREFLIGHT {
            self.warn(under("max_age"), "browsers keep it for a day at most");
        }
    }

    fn access(&mut self, at: &[Step], access: &AccessSpec) {
        let of = |key: &str, index: usize| [at, &[Step::from(key), index.into()]].concat();
        for (key, networks) in [("allow", &access.allow), ("deny", &access.deny)] {
            for (index, network) in networks.iter().enumerate() {
                if let Err(error) = network.parse::<Prefix>() {
                    self.error(of(key, index), error.to_string());
                }
            }
        }
        let countries = [
            ("allow_countries", &access.allow_countries),
            ("deny_countries", &access.deny_countries),
        ];
        for (key, codes) in countries {
            for (index, code) in codes.iter().enumerate() {
                match code.parse::<CountryCode>() {
                    Err(error) => self.error(of(key, index), error.to_string()),
                    Ok(known) if Country::find(known).is_none() => {
                        self.error(of(key, index), format!("no country has the code `{code}`"));
                    }
                    Ok(known) if known.as_str() != code => {
                        self.error(of(key, index), format!("write it in capitals: \"{known}\""));
                    }
                    Ok(_) => {}
                }
            }
            if !codes.is_empty() && self.spec.geo.databases.is_empty() {
                self.error(
                    [at, &[Step::from(key)]].concat(),
                    "countries are known from databases only: name one in `databases` of [geo]",
                );
            }
        }
        for (index, network) in access.allow.iter().enumerate() {
            if access.deny.contains(network) {
                self.warn(
                    of("allow", index),
                    format!("`{network}` is denied, too, and that counts"),
                );
            }
        }
    }
}

/// Names of keys stand in URLs and cookies.
fn is_key_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_method(name: &str) -> bool {
    http::Method::from_bytes(name.as_bytes()).is_ok()
}

/// Whether requests with this method get beyond the route's `methods`.
fn serves(route: &RouteSpec, method: &str) -> bool {
    match &route.methods {
        Some(methods) => {
            methods.iter().any(|served| served == method || (served == "GET" && method == "HEAD"))
        }
        None => http::Method::from_bytes(method.as_bytes()).is_ok_and(|known| is_known(&known)),
    }
}

fn is_known(method: &http::Method) -> bool {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.contains(&method.as_str())
}

#[cfg(test)]
mod tests;
