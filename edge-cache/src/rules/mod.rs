//! What a route asks of a request before the cache has its turn, and what it does to the response after that: the one
//! place that has the order.
//!
//! A request that has found its site and route goes through these [`Step`]s; the first one that has an answer gives it:
//!
//! 1. **access**: the client's network and country ([`access`]). Not served: 403, whatever was asked for.
//! 2. **methods**: the route's list ([`methods`]). Others: 405 with Allow; OPTIONS that is not on the list: 204 with Allow.
//!    A preflight passes here where the route has `cors`: browsers send it by their own rules.
//! 3. **preflight**: answered without the origin ([`cors`]): 204, or 403. Before the signature, because browsers send it
//!    without cookies.
//! 4. **signature**: of URL or cookie ([`signed`]). None that is good: 403.
//! 5. **redirect**: answered without the origin ([`redirect`]).
//!
//! Then the cache and, where it does not know, parent or origin: without the signature's parameters and cookie, on a route
//! with `cors` that caches without Origin; the origin alone with the rewritten path ([`rewrite`]) and with
//! `request_headers` ([`fields`]), a parent with the client's URL. Last, on every response of the route, errors too:
//!
//! 6. Access-Control fields and `Vary: Origin` by `cors`, `Cache-Control: private` by `signed`, an origin's Allow cut to
//!    `methods`, and `response_headers` as the operator's last word.
//!
//! Before all that, a path is refused (400) that has this route only as it stands, while a server that takes `%2F` for `/`,
//! merges slashes or cuts `;…` off would read it as one of another route with `access` or `signed`.
//!
//! A parent does none of this for requests that a node of this CDN sends it on: that node has done it, for the true client.
//! Nothing here is stored, so that a changed configuration holds at once for what is stored, too.

pub mod access;
pub mod cors;
pub mod fields;
pub mod methods;
pub mod redirect;
pub mod rewrite;
pub mod signed;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, LOCATION, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::config::RouteSpec;

use self::access::{Access, Countries};
use self::cors::{Cors, Granted};
use self::fields::Fields;
use self::methods::Methods;
use self::redirect::{Redirect, Url};
use self::rewrite::Target;
use self::signed::{Keys, Signed};
use crate::key::host_of;
use crate::semantics::{Profile, Reason};

/// The rules of a route.
#[derive(Clone, Debug, Default)]
pub struct RouteRules {
    /// Who is served.
    pub access: Option<Access>,
    /// The databases for it, where it needs them.
    pub countries: Option<Arc<Countries>>,
    /// Which methods are.
    pub methods: Methods,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// The `[signing.NAME]` by which requests must be signed.
    pub signed: Option<String>,
    /// Its keys; without them nobody is served.
    pub keys: Option<Arc<Keys>>,
    /// Where requests are sent.
    pub redirect: Option<Redirect>,
    /// Fields of requests to the origin.
    pub request_fields: Fields,
    /// Fields of responses to clients.
    pub response_fields: Fields,
    /// The route caches: what goes on is for everybody.
    pub caches: bool,
    /// There is an origin to ask.
    pub has_origin: bool,
}

/// A request as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Method.
    pub method: &'a Method,
    /// The client's fields.
    pub headers: &'a HeaderMap,
    /// The scheme that the client used.
    pub scheme: &'static str,
    /// Normalised.
    pub authority: &'a str,
    /// Normalised.
    pub path: &'a str,
    /// What the `*` of the route's path stands for.
    pub rest: &'a str,
    /// As it came.
    pub query: Option<&'a str>,
    /// The true client; none where nobody asks, in explanations.
    pub client: Option<IpAddr>,
}

/// A step before the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Who is served.
    Access,
    /// With which methods.
    Methods,
    /// Whether it is a preflight.
    Preflight,
    /// Whether it is signed.
    Signature,
    /// Whether it is sent elsewhere.
    Redirect,
}

impl Step {
    /// In the order in which they are taken.
    pub const ORDER: [Self; 5] =
        [Self::Access, Self::Methods, Self::Preflight, Self::Signature, Self::Redirect];

    /// For explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Methods => "methods",
            Self::Preflight => "preflight",
            Self::Signature => "signature",
            Self::Redirect => "redirect",
        }
    }
}

/// An answer that needs neither cache nor origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Why.
    pub reason: Reason,
    /// Its fields.
    pub headers: HeaderMap,
}

impl Answer {
    /// Without fields.
    pub fn new(status: StatusCode, reason: Reason) -> Self {
        Self { status, reason, headers: HeaderMap::new() }
    }

    fn forbidden(reason: Reason) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }
}

/// How a request goes on to the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Onward<'a> {
    /// The query, where it is not the one that came.
    pub query: Option<Option<Cow<'a, str>>>,
    /// The fields, where they are not those that came.
    pub headers: Option<HeaderMap>,
}

/// What is to be done to the response, whatever it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Afterwards {
    granted: Option<Granted>,
}

impl RouteRules {
    /// Those of a route, with the profile of its cache if it has one; databases and keys are the caller's to add.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn new(spec: &RouteSpec, cache: Option<Profile>) -> Result<Self, (&'static str, String)> {
        let at = |key: &'static str| move |message: String| (key, message);
        Ok(Self {
            access: Access::new(&spec.access).map_err(at("access"))?,
            countries: None,
            methods: match &spec.methods {
                Some(listed) => Methods::new(listed).map_err(at("methods"))?,
                None if cache == Some(Profile::Rfc) => Methods::any(),
                None => Methods::default(),
            },
            cors: spec.cors.as_ref().map(Cors::new).transpose().map_err(at("cors"))?,
            signed: spec.signed.clone(),
            keys: None,
            redirect: spec
                .redirect
                .as_ref()
                .map(Redirect::new)
                .transpose()
                .map_err(at("redirect"))?,
            request_fields: Fields::new(&spec.request_headers).map_err(at("request_headers"))?,
            response_fields: Fields::new(&spec.response_headers).map_err(at("response_headers"))?,
            caches: cache.is_some(),
            has_origin: spec.origin.is_some(),
        })
    }

    /// How a route makes the origin's path.
    pub fn target(spec: &RouteSpec) -> Target {
        match (&spec.rewrite, &spec.strip_prefix) {
            (Some(template), _) => Target::Rewrite(template.clone()),
            (None, Some(prefix)) => Target::Strip(prefix.clone()),
            (None, None) => Target::Same,
        }
    }

    /// Whether not everybody is served: then no other route may lead to the same.
    pub const fn is_guarded(&self) -> bool {
        self.access.is_some() || self.signed.is_some()
    }

    /// Whether the databases must be there.
    pub fn needs_countries(&self) -> bool {
        self.access.as_ref().is_some_and(Access::needs_countries)
    }

    /// Takes the steps: how the request goes on, or the answer. `now` in Unix seconds.
    pub fn before<'a>(
        &self,
        asked: &Asked<'a>,
        now: u64,
    ) -> (Result<Onward<'a>, Answer>, Afterwards) {
        let granted = match &self.cors {
            // The answer to a preflight has its own fields.
            Some(_) if Cors::is_preflight(asked.method, asked.headers) => None,
            cors => cors.as_ref().map(|cors| cors.grant(asked.method, asked.headers)),
        };
        let answer = Step::ORDER.into_iter().find_map(|step| self.take(step, asked, now)?.err());
        (answer.map_or_else(|| Ok(self.onward(asked)), Err), Afterwards { granted })
    }

    /// Takes one step: none where the route has no such rule, or it is not about this request.
    pub fn take(&self, step: Step, asked: &Asked<'_>, now: u64) -> Option<Result<(), Answer>> {
        let preflight =
            || self.cors.as_ref().filter(|_| Cors::is_preflight(asked.method, asked.headers));
        match step {
            Step::Access => {
                let access = self.access.as_ref()?;
                let client = asked.client?;
                Some(access.check(client, self.countries.as_deref()).map_err(Answer::forbidden))
            }
            Step::Methods if self.methods.serves(asked.method) || preflight().is_some() => {
                Some(Ok(()))
            }
            Step::Methods => {
                let (status, reason) = match *asked.method == Method::OPTIONS {
                    true => (StatusCode::NO_CONTENT, Reason::OptionsHere),
                    false => (StatusCode::METHOD_NOT_ALLOWED, Reason::MethodNotAllowed),
                };
                let mut answer = Answer::new(status, reason);
                answer.headers.insert(ALLOW, self.methods.allow());
                Some(Err(answer))
            }
            Step::Preflight => {
                let mut answer = match preflight()?.preflight(asked.headers) {
                    Ok(headers) => {
                        Answer { headers, ..Answer::new(StatusCode::NO_CONTENT, Reason::Preflight) }
                    }
                    Err(reason) => Answer::forbidden(reason),
                };
                Cors::vary_preflight(&mut answer.headers);
                Some(Err(answer))
            }
            Step::Signature => {
                self.signed.as_ref()?;
                let request = Signed {
                    host: host_of(asked.authority),
                    path: asked.path,
                    query: asked.query,
                    headers: asked.headers,
                    client: asked.client,
                };
                let checked = match &self.keys {
                    Some(keys) => keys.check(&request, now),
                    None => Err(Reason::SignatureInvalid),
                };
                Some(checked.map_err(Answer::forbidden))
            }
            Step::Redirect => {
                let redirect = self.redirect.as_ref()?;
                let Asked { scheme, authority, path, rest, query, .. } = *asked;
                let Some(location) =
                    redirect.location(&Url { scheme, authority, path, rest, query })
                else {
                    let here = Answer::new(StatusCode::NOT_FOUND, Reason::RedirectToItself);
                    return Some(if self.has_origin { Ok(()) } else { Err(here) });
                };
                let Ok(location) = HeaderValue::from_str(&location) else {
                    let bad = Answer::new(StatusCode::BAD_REQUEST, Reason::TargetInvalid);
                    return Some(Err(bad));
                };
                let mut answer = Answer::new(redirect.status, Reason::Redirect);
                answer.headers.insert(LOCATION, location);
                let kept = matches!(redirect.status.as_u16(), 301 | 308);
                let kept = if kept { redirect::KEPT } else { HeaderValue::from_static("no-store") };
                answer.headers.insert(CACHE_CONTROL, kept);
                Some(Err(answer))
            }
        }
    }

    /// How a request goes on that no step has answered.
    pub fn onward<'a>(&self, asked: &Asked<'a>) -> Onward<'a> {
        let mut onward = Onward::default();
        if self.signed.is_some() {
            let query = signed::without_signature(asked.query);
            if query.as_deref() != asked.query {
                onward.query = Some(query);
            }
            if let Some(cookie) = signed::without_cookie(asked.headers) {
                let headers = onward.headers.get_or_insert_with(|| asked.headers.clone());
                match cookie {
                    Some(cookie) => headers.insert(http::header::COOKIE, cookie),
                    None => headers.remove(http::header::COOKIE),
                };
            }
        }
        let reads = matches!(*asked.method, Method::GET | Method::HEAD);
        if self.caches && reads && self.cors.is_some() && asked.headers.contains_key(ORIGIN) {
            onward.headers.get_or_insert_with(|| asked.headers.clone()).remove(ORIGIN);
        }
        onward
    }

    /// Puts the route's last word on a response.
    pub fn after(&self, afterwards: &Afterwards, headers: &mut HeaderMap) {
        if let (Some(cors), Some(granted)) = (&self.cors, &afterwards.granted) {
            cors.answer(granted, headers);
        }
        if self.signed.is_some() {
            signed::keep_private(headers);
        }
        self.methods.correct(headers);
        if !self.response_fields.is_empty() {
            self.response_fields.apply(headers);
        }
    }
}

/// What one step comes to, for explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The step.
    pub step: &'static str,
    /// What it says: `-` where the route has no such rule.
    pub result: String,
}

impl RouteRules {
    /// All steps before the cache up to the one that answers, by the functions that serve, and its answer.
    pub fn explain(&self, asked: &Asked<'_>, now: u64) -> (Vec<Explanation>, Option<Answer>) {
        let mut steps = Vec::new();
        for step in Step::ORDER {
            let taken = self.take(step, asked, now);
            let result = match &taken {
                None if step == Step::Access && self.access.is_some() => {
                    "depends on the client: name an address".to_owned()
                }
                None => "-".to_owned(),
                Some(Ok(())) => "passed".to_owned(),
                Some(Err(answer)) => {
                    let location =
                        answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                    let location = location.map(|to| format!(" to {to}")).unwrap_or_default();
                    format!("answers {} {}{location}", answer.status.as_u16(), answer.reason)
                }
            };
            steps.push(Explanation { step: step.name(), result });
            if let Some(Err(answer)) = taken {
                return (steps, Some(answer));
            }
        }
        (steps, None)
    }

    /// What happens to responses of the route.
    pub fn explain_response(&self) -> Explanation {
        let mut parts = Vec::new();
        if self.cors.is_some() {
            parts.push("cors".to_owned());
        }
        if self.signed.is_some() {
            parts.push("private".to_owned());
        }
        if !self.response_fields.is_empty() {
            parts.push(self.response_fields.to_string());
        }
        let result = if parts.is_empty() { "-".to_owned() } else { parts.join(", ") };
        Explanation { step: "response", result }
    }
}

#[cfg(test)]
mod tests;
