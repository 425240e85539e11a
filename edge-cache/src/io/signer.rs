//! Puts the signature of [`crate::sigv4`] on requests to a bucket, with credentials from their file.

use http::header::{AUTHORIZATION, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use shared::config::SigV4Spec;
use shared::io::files;
use shared::time::UnixMillis;

use super::ask::{Ask, Outgoing};
use crate::sigv4::{Credentials, Payload, Request, Scope, sign, target};

const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs for one origin.
#[derive(Debug, PartialEq, Eq)]
pub struct Signer {
    credentials: Credentials,
    scope: Scope,
}

impl Signer {
    /// With the credentials that are in the file now.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(spec: &SigV4Spec) -> Result<Self, String> {
        let file = &spec.credentials_file;
        let text = files::read_secret(file)?;
        let credentials = Credentials::parse(&text)
            .map_err(|why| format!("{} has no credentials: {why}", file.display()))?;
        let scope = Scope { region: spec.region.clone(), service: spec.service.clone() };
        Ok(Self { credentials, scope })
    }

    /// Signs a request that is about to be sent; what it was signed with before goes. A client's own `x-amz-*` fields and
    /// Authorization go, too: they would have the bucket do under our name what the client may not.
    ///
    /// # Errors
    /// What cannot be sent.
    pub(super) fn sign(&self, ask: &mut Ask, now: UnixMillis) -> Result<(), String> {
        let ours =
            |name: &HeaderName| *name == AUTHORIZATION || name.as_str().starts_with("x-amz-");
        let gone: Vec<HeaderName> = ask.headers.keys().filter(|name| ours(name)).cloned().collect();
        for name in gone {
            ask.headers.remove(name);
        }
        let (path, query) = target(ask.target.path(), ask.target.query());
        let request = Request {
            method: ask.method.as_str(),
            host: ask.authority.to_str().map_err(|_| "the host is no name".to_owned())?,
            path: &path,
            query: query.as_deref(),
            payload: match ask.body {
                Outgoing::Empty => Payload::Empty,
                Outgoing::Stream(..) => Payload::Streamed,
            },
            more: &[],
        };
        let signed = sign(&request, &self.credentials, &self.scope, now);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        let secret = |headers: &mut HeaderMap, name: HeaderName, text: &str| {
            let mut value = value(text)?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<(), String>(())
        };
        ask.headers.insert(X_AMZ_DATE, value(&signed.date)?);
        ask.headers.insert(X_AMZ_CONTENT_SHA256, HeaderValue::from_static(signed.content_sha256));
        if let Some(token) = &self.credentials.session_token {
            secret(&mut ask.headers, X_AMZ_SECURITY_TOKEN, token)?;
        }
        secret(&mut ask.headers, AUTHORIZATION, &signed.authorization)?;
        let spelled = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        ask.target = PathAndQuery::try_from(spelled).map_err(|error| error.to_string())?;
        Ok(())
    }
}
