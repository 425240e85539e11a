//! Signed URLs and signed cookies: who has one may ask a route with `signed` until it expires.
//!
//! A signature is the parameters below, in the query of the URL in any place and order, or as the value of the cookie
//! `md-signed`, joined by `&`. Values are percent-encoded as in any query. What a URL brings counts; only a URL without any of
//! these parameters is judged by its cookies, of which one good one is enough.
//!
//! | Parameter    | Meaning |
//! |--------------|---------|
//! | `md-key`     | name of the key; needed |
//! | `md-expires` | good before this time, Unix seconds; needed |
//! | `md-from`    | good from this time on, Unix seconds |
//! | `md-prefix`  | good for this path and what is below it (whole segments), with any query; without it for the one URL |
//! | `md-net`     | good for clients of this network |
//! | `md-sig`     | HMAC-SHA256 of the canonical text, 64 hexadecimal digits in lower case; needed |
//!
//! The canonical text is these lines, each ended by a line feed, those of absent parameters left out:
//!
//! ```text
//! meridian-signature-1
//! key=NAME
//! host=HOST            lower case, without port
//! prefix=PATH          with md-prefix; else:
//! path=PATH            normalised as for the cache key (RFC 3986 §6.2.2)
//! query=QUERY          the other parameters, sorted by name; not where there are none
//! expires=SECONDS
//! from=SECONDS
//! net=NETWORK
//! ```
//!
//! Normalised paths and queries have no control characters, so no value can look like another line. The scheme is not signed:
//! a redirect from http to https keeps a URL good. Nor is the method: the route's `methods` say what may be done.
//!
//! Parameters and cookie are taken off before the cache key is made and the origin asked: all clients share what is stored.
//! Responses go to clients as `private` ([`keep_private`]): no cache between us and them may hand out what it was given for
//! a signature that expires.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::hmac;
use http::header::{CACHE_CONTROL, COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue};
use shared::prefix::Prefix;

use crate::key::{KeyRules, normalise_query};
use crate::semantics::Reason;
use crate::url::{normalise_escapes, normalise_path, push_escape, readings};

/// The cookie with a signature.
pub const COOKIE_NAME: &str = "md-signed";
const VERSION: &str = "meridian-signature-1";
const KEY: &str = "md-key";
const EXPIRES: &str = "md-expires";
const FROM: &str = "md-from";
const PREFIX: &str = "md-prefix";
const NETWORK: &str = "md-net";
const SIGNATURE: &str = "md-sig";
const PARAMETERS: [&str; 6] = [KEY, EXPIRES, FROM, PREFIX, NETWORK, SIGNATURE];
/// A secret at least, in characters: as many bits as the hash, if they are hexadecimal digits.
pub const MIN_SECRET: usize = 32;
/// Cookies of our name that are looked at: browsers send one for each Path.
const MAX_COOKIES: usize = 8;

/// The keys of a `[signing.NAME]`, by name.
pub struct Keys(BTreeMap<String, hmac::Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a signature is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The key's name.
    pub key: String,
    /// The host, normalised, without port.
    pub host: String,
    /// One URL, or all below a path.
    pub scope: Scope,
    /// Good before this, Unix seconds.
    pub expires: u64,
    /// Good from this on, Unix seconds.
    pub from: Option<u64>,
    /// Good for clients in it.
    pub network: Option<Prefix>,
}

/// Where a signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One URL.
    Url {
        /// Normalised.
        path: String,
        /// Its parameters without ours, by [`other_parameters`].
        query: Option<String>,
    },
    /// This path and what is below it: `/a` covers `/a` and `/a/b`, `/a/` only what begins with it.
    Prefix(String),
}

/// A request for a signed route.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Normalised, without port.
    pub host: &'a str,
    /// Normalised.
    pub path: &'a str,
    /// As it came.
    pub query: Option<&'a str>,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Whose it is.
    pub client: Option<IpAddr>,
}

impl Grant {
    /// What is signed.
    pub fn canonical(&self) -> String {
        let Self { key, host, scope, expires, from, network } = self;
        let mut text = format!("{VERSION}\nkey={key}\nhost={host}\n");
        match scope {
            Scope::Prefix(prefix) => text += &format!("prefix={prefix}\n"),
            Scope::Url { path, query } => {
                text += &format!("path={path}\n");
                if let Some(query) = query {
                    text += &format!("query={query}\n");
                }
            }
        }
        text += &format!("expires={expires}\n");
        if let Some(from) = from {
            text += &format!("from={from}\n");
        }
        if let Some(network) = network {
            text += &format!("net={network}\n");
        }
        text
    }

    /// The parameters, for a query or a cookie.
    fn parameters(&self, signature: &str) -> String {
        let mut text = format!("{KEY}={}&{EXPIRES}={}", encoded(&self.key), self.expires);
        if let Some(from) = self.from {
            text += &format!("&{FROM}={from}");
        }
        if let Scope::Prefix(prefix) = &self.scope {
            text += &format!("&{PREFIX}={}", encoded(prefix));
        }
        if let Some(network) = self.network {
            text += &format!("&{NETWORK}={}", encoded(&network.to_string()));
        }
        text + &format!("&{SIGNATURE}={signature}")
    }

    /// Whether this request is among what it is good for.
    fn covers(&self, request: &Signed<'_>, now: u64) -> Result<(), Reason> {
        if let Scope::Prefix(prefix) = &self.scope
            && !is_below(request.path, prefix)
        {
            return Err(Reason::SignatureScope);
        }
        if now >= self.expires {
            return Err(Reason::SignatureExpired);
        }
        if self.from.is_some_and(|from| now < from) {
            return Err(Reason::SignatureEarly);
        }
        let inside = |network: Prefix| {
            request.client.is_some_and(|client| network.contains(client.to_canonical()))
        };
        if self.network.is_some_and(|network| !inside(network)) {
            return Err(Reason::SignatureNetwork);
        }
        Ok(())
    }
}

/// Whole segments: `/a` covers `/a` and `/a/b`, never `/ab`; nor `/a/..%2Fb`, which some servers read as `/b`.
fn is_below(path: &str, prefix: &str) -> bool {
    let below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
    };
    let prefixes = readings(prefix);
    let may_be =
        |path: &String| below(path, prefix) || prefixes.iter().any(|prefix| below(path, prefix));
    below(path, prefix) && readings(path).iter().all(may_be)
}

impl Keys {
    /// From names and secrets.
    ///
    /// # Errors
    /// A secret that is too short, by the name of its key.
    pub fn new(secrets: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for (name, secret) in secrets {
            check_secret(&secret).map_err(|why| format!("key `{name}`: {why}"))?;
            keys.insert(name, hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        }
        Ok(Self(keys))
    }

    /// The parameters that make a URL or a cookie of what `grant` says; none for a key that is not there.
    pub fn sign(&self, grant: &Grant) -> Option<String> {
        let tag = hmac::sign(self.0.get(&grant.key)?, grant.canonical().as_bytes());
        let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(grant.parameters(&signature))
    }

    /// Whether a request may be served. `now` in Unix seconds.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, request: &Signed<'_>, now: u64) -> Result<(), Reason> {
        let query = request.query.unwrap_or_default();
        if query.split('&').any(is_ours) {
            return self.check_text(query, request, now);
        }
        let mut result = Err(Reason::SignatureMissing);
        for value in cookies(request.headers).take(MAX_COOKIES) {
            result = self.check_text(value, request, now);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn check_text(&self, text: &str, request: &Signed<'_>, now: u64) -> Result<(), Reason> {
        let (grant, signature) = parse(text, request).ok_or(Reason::SignatureInvalid)?;
        let key = self.0.get(&grant.key).ok_or(Reason::SignatureInvalid)?;
        // In constant time, whatever the signature is.
        hmac::verify(key, grant.canonical().as_bytes(), &signature)
            .map_err(|_| Reason::SignatureInvalid)?;
        grant.covers(request, now)
    }
}

/// Whether a secret is one.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(secret: &str) -> Result<(), String> {
    match secret.chars().count() {
        count if count < MIN_SECRET => Err(format!(
            "a secret of {count} characters can be guessed: make one of {MIN_SECRET} at least, such as by `openssl rand -hex 32`"
        )),
        _ => Ok(()),
    }
}

/// Reads the parameters; none if one is missing, stands there twice, or is not written as it was signed.
fn parse(text: &str, request: &Signed<'_>) -> Option<(Grant, [u8; 32])> {
    let mut found: [Option<String>; PARAMETERS.len()] = Default::default();
    for parameter in text.split('&') {
        let normal = normalise_escapes(parameter);
        let (name, value) = normal.split_once('=').unwrap_or((&normal, ""));
        let Some(at) = PARAMETERS.iter().position(|known| *known == name) else { continue };
        let place = found.get_mut(at)?;
        if place.is_some() {
            return None;
        }
        *place = Some(decoded(value)?);
    }
    let [key, expires, from, prefix, network, signature] = found;
    // One spelling only: what differs from what was signed is refused.
    let number =
        |text: String| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let from = match from {
        Some(text) => Some(number(text)?),
        None => None,
    };
    let network = match network {
        Some(text) => {
            Some(text.parse::<Prefix>().ok().filter(|network| network.to_string() == text)?)
        }
        None => None,
    };
    let scope = match prefix {
        Some(prefix) if normalise_path(&prefix).is_ok_and(|normal| normal == prefix) => {
            Scope::Prefix(prefix)
        }
        Some(_) => return None,
        None => {
            Scope::Url { path: request.path.to_owned(), query: other_parameters(request.query) }
        }
    };
    let key = key?;
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let host = request.host.to_owned();
    let grant = Grant { key, host, scope, expires: number(expires?)?, from, network };
    Some((grant, digits(&signature?)?))
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether a parameter is one of a signature.
fn is_ours(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    let name = normalise_escapes(name);
    PARAMETERS.contains(&&*name)
}

/// A query without the parameters of a signature; the others as they came.
pub fn without_signature(query: Option<&str>) -> Option<Cow<'_, str>> {
    let query = query?;
    if !query.split('&').any(is_ours) {
        return Some(Cow::Borrowed(query));
    }
    let others: Vec<&str> = query.split('&').filter(|parameter| !is_ours(parameter)).collect();
    (!others.is_empty()).then(|| Cow::Owned(others.join("&")))
}

/// A query for the log: whoever reads that gets no signature which is still good.
pub fn redacted(query: &str) -> Cow<'_, str> {
    let is_signature = |parameter: &str| {
        normalise_escapes(parameter.split('=').next().unwrap_or_default()) == SIGNATURE
    };
    if !query.split('&').any(is_signature) {
        return Cow::Borrowed(query);
    }
    let shown = |parameter| if is_signature(parameter) { "md-sig=-" } else { parameter };
    Cow::Owned(query.split('&').map(shown).collect::<Vec<_>>().join("&"))
}

/// The other parameters of a query as they are signed: escapes normalised, sorted by name; none where there are none.
pub fn other_parameters(query: Option<&str>) -> Option<String> {
    let others = without_signature(query)?;
    let normal = normalise_query(Some(&others), &KeyRules::default())?;
    (!normal.is_empty()).then(|| normal.into_owned())
}

/// The values of our cookies.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    pairs(headers)
        .filter_map(|pair| str::from_utf8(pair).ok()?.strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b';')).map(<[u8]>::trim_ascii)
}

fn is_our_cookie(pair: &[u8]) -> bool {
    pair.strip_prefix(COOKIE_NAME.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

/// The Cookie field without our cookie: `None` if it has none, `Some(None)` if nothing else is in it.
pub fn without_cookie(headers: &HeaderMap) -> Option<Option<HeaderValue>> {
    if !pairs(headers).any(is_our_cookie) {
        return None;
    }
    let others: Vec<&[u8]> =
        pairs(headers).filter(|pair| !pair.is_empty() && !is_our_cookie(pair)).collect();
    Some(
        (!others.is_empty())
            .then(|| HeaderValue::from_bytes(&others.join(&b"; "[..])).ok())
            .flatten(),
    )
}

/// Makes of a response's Cache-Control one that no shared cache stores by: `private`, without `public` and `s-maxage`;
/// browsers may keep it as long as it says. Fields for caches of CDNs are taken off.
pub fn keep_private(headers: &mut HeaderMap) {
    let for_cdns: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().ends_with("cdn-cache-control") || *name == "surrogate-control")
        .cloned()
        .collect();
    for name in for_cdns {
        headers.remove(name);
    }
    let mut kept = vec!["private".to_owned()];
    for line in headers.get_all(CACHE_CONTROL) {
        for directive in directives(line.as_bytes()) {
            let name = directive.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            match name.as_str() {
                "no-store" => return,
                "" | "public" | "private" | "s-maxage" => {}
                _ => kept.push(directive),
            }
        }
    }
    let value = HeaderValue::from_str(&kept.join(", "));
    headers.insert(CACHE_CONTROL, value.unwrap_or(HeaderValue::from_static("private")));
}

/// The directives of a line: commas in quotes separate nothing.
fn directives(line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(line);
    let (mut quoted, mut escaped) = (false, false);
    let separates = |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    };
    text.split(separates).map(|directive| directive.trim().to_owned()).collect()
}

fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for &b in value.as_bytes() {
        if b.is_ascii_alphanumeric() || b"-._~/:".contains(&b) {
            text.push(char::from(b));
        } else {
            push_escape(&mut text, b);
        }
    }
    text
}

/// Percent-decoded; none for an escape that is none, or what is no text.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        if b == b'%' {
            let (hex, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
