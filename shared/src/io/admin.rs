//! The admin listener that both programs extend, and its client for their commands.
//!
//! It is for operators and scrapers: loopback, or a bearer token. It is still an attack surface: bodies and heads are
//! bounded, slow clients are cut off, web pages in a browser on the same machine cannot call it.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Request bodies at most.
const MAX_BODY: usize = 64 << 10;
/// Connections at once.
const MAX_CONNECTIONS: usize = 128;
/// For a head, for a body, and for a command's whole call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The path of the console, where there is one.
const PAGE: &str = "/";
/// What is no page runs nothing, loads nothing, and stands in no frame.
const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";
const FOREIGN: &str = "calls from other web pages are refused";

/// A call of the admin API.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET or POST; HEAD is answered as GET.
    pub method: Method,
    /// Percent-decoded segments of the path.
    pub segments: Vec<String>,
    /// Percent-decoded parameters.
    pub query: Vec<(String, String)>,
    /// 64 KiB at most.
    pub body: Bytes,
}

impl Call {
    /// The segments as a slice of strings, to match on.
    pub fn path(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The first parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first parameter that is none of `known`: with a slip in its name an order would mean another thing.
    pub fn unknown_parameter(&self, known: &[&str]) -> Option<&str> {
        self.query.iter().map(|(key, _)| key.as_str()).find(|key| !known.contains(key))
    }

    /// Whether a parameter is there as a switch: `?force` or `?force=true`.
    pub fn switch(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| matches!(value, "" | "1" | "true"))
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// `Content-Security-Policy` of a page; none: a browser may do nothing with it.
    pub policy: Option<HeaderValue>,
}

impl Answer {
    /// A body of this type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into(), policy: None }
    }

    /// 200 with JSON.
    pub fn json(value: &impl Serialize) -> Self {
        Self::json_with(StatusCode::OK, value)
    }

    /// JSON with another status.
    pub fn json_with(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, "application/json", body),
            Err(error) => Self::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text)
    }

    /// The text of the metrics.
    pub fn metrics(text: String) -> Self {
        Self::new(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    /// RFC 9457: what is wrong and what would be right.
    pub fn problem(status: StatusCode, detail: &str) -> Self {
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
        });
        Self::new(status, "application/problem+json", problem.to_string())
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::problem(StatusCode::NOT_FOUND, "there is nothing at this path")
    }
}

/// A future that a handler returns.
pub type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a program does with calls.
pub type Handler = Arc<dyn Fn(Call) -> AnswerFuture + Send + Sync>;

/// Serves the admin API until the future is dropped.
pub async fn serve(listener: TcpListener, token: Option<String>, handler: Handler) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let token: Option<Arc<str>> = token.map(Into::into);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most often: accepting again at once would spin.
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (token, handler) = (token.clone(), handler.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let (token, handler) = (token.clone(), handler.clone());
                async move { Ok::<_, Infallible>(respond(request, token.as_deref(), &handler).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIMEOUT)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let _ = connection.await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    token: Option<&str>,
    handler: &Handler,
) -> Response<Full<Bytes>> {
    let is_page =
        matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() == PAGE;
    let answer = match admit(request.headers(), token, is_page) {
        Some(refusal) => refusal,
        None => match read_call(request).await {
            Ok(call) => handler(call).await,
            Err(refusal) => refusal,
        },
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    let policy = answer.policy.unwrap_or_else(|| HeaderValue::from_static(NO_CONTENT));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    if answer.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Who may call: whoever has the token; without one, whoever does not come by way of another web page. The console's
/// page itself tells nothing and changes nothing, and asks for the token: anybody may have it, and links to it work.
fn admit(headers: &HeaderMap, token: Option<&str>, is_page: bool) -> Option<Answer> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // Browsers say whose page a call comes from; whoever says nothing is none.
    let is_foreign =
        headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if is_foreign && !is_page {
        return Some(Answer::problem(StatusCode::FORBIDDEN, FOREIGN));
    }
    if let Some(token) = token.filter(|_| !is_page) {
        let given = text(AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
        });
        return match given {
            Some(given) if same(given.as_bytes(), token.as_bytes()) => None,
            _ => Some(Answer::problem(
                StatusCode::UNAUTHORIZED,
                "send the admin token as `Authorization: Bearer TOKEN`",
            )),
        };
    }
    if token.is_some() {
        return None;
    }
    let host = text(HOST).unwrap_or_default();
    // A page whose name was bound anew to 127.0.0.1 would send that name here.
    if !is_local_name(host) {
        return Some(Answer::problem(
            StatusCode::FORBIDDEN,
            "without a token the admin API is asked by address, such as http://127.0.0.1:9090",
        ));
    }
    let foreign = text(ORIGIN).is_some_and(|origin| {
        origin.split_once("://").is_none_or(|(_, authority)| authority != host)
    });
    foreign.then(|| Answer::problem(StatusCode::FORBIDDEN, FOREIGN))
}

fn is_local_name(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

/// Comparison in a time that does not tell where the first difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

async fn read_call(request: Request<Incoming>) -> Result<Call, Answer> {
    let (parts, body) = request.into_parts();
    let method = match parts.method {
        Method::HEAD => Method::GET,
        Method::GET | Method::POST => parts.method,
        _ => {
            return Err(Answer::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "the admin API knows GET and POST",
            ));
        }
    };
    let body = match tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return Err(Answer::problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a body of the admin API is 64 KiB at most",
            ));
        }
        Err(_) => {
            return Err(Answer::problem(StatusCode::REQUEST_TIMEOUT, "the body did not come"));
        }
    };
    let path = parts.uri.path().trim_start_matches('/');
    let segments = match path.is_empty() {
        true => Vec::new(),
        false => path.split('/').map(|segment| percent_decode(segment, false)).collect(),
    };
    let query = parts.uri.query().unwrap_or_default();
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name, true), percent_decode(value, true))
    });
    Ok(Call { method, segments, query: query.collect(), body })
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(decoded) => {
                        bytes.push(decoded);
                        rest = &after[2..];
                    }
                    None => bytes.push(b'%'),
                }
            }
            b'+' if plus_is_space => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A value made safe for a path segment or a parameter.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// One call, for the commands of the programs. Starts a runtime of its own.
///
/// # Errors
/// The admin listener cannot be reached or does not speak HTTP: in words for the operator.
pub fn call(
    admin: SocketAddr,
    token: Option<&str>,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match tokio::time::timeout(TIMEOUT, call_async(admin, token, method, target, body)).await {
            Ok(result) => result,
            Err(_) => Err(format!("the admin listener at {admin} did not answer within 10 s")),
        }
    })
}

async fn call_async(
    admin: SocketAddr,
    token: Option<&str>,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("the admin listener at {admin} cannot be asked: {error} (is the node running?)")
    };
    let stream = TcpStream::connect(admin).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header(HOST, admin.to_string());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(body)).map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| failed(&error))?;
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn start(token: Option<&str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Handler = Arc::new(|call: Call| {
            Box::pin(async move {
                match call.path().as_slice() {
                    ["v1", "echo", name] => Answer::json(&serde_json::json!({
                        "name": name,
                        "url": call.parameter("url"),
                        "force": call.switch("force"),
                        "body": String::from_utf8_lossy(&call.body),
                    })),
                    _ => Answer::not_found(),
                }
            })
        });
        tokio::spawn(serve(listener, token.map(str::to_owned), handler));
        address
    }

    async fn post(
        address: SocketAddr,
        token: Option<&str>,
        target: &str,
        body: &[u8],
    ) -> (u16, String) {
        let body = Bytes::copy_from_slice(body);
        let (status, body) = call_async(address, token, Method::POST, target, body).await.unwrap();
        (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn calls_have_segments_parameters_and_a_body() {
        let address = start(None).await;
        let target = format!(
            "/v1/echo/{}?url={}&force",
            percent_encode("ä/b"),
            percent_encode("http://x/?a=1&b")
        );
        let (status, body) = post(address, None, &target, b"hello").await;
        assert_eq!(status, 200);
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            answer,
            serde_json::json!({"name": "ä/b", "url": "http://x/?a=1&b", "force": true, "body": "hello"})
        );
        assert_eq!(post(address, None, "/nowhere", b"").await.0, 404);
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let address = start(None).await;
        assert_eq!(post(address, None, "/v1/echo/a", &vec![b'x'; MAX_BODY]).await.0, 200);
        assert_eq!(post(address, None, "/v1/echo/a", &vec![b'x'; MAX_BODY + 1]).await.0, 413);
    }

    #[tokio::test]
    async fn the_token_is_asked_for() {
        let address = start(Some("s3cret")).await;
        assert_eq!(post(address, None, "/v1/echo/a", b"").await.0, 401);
        assert_eq!(post(address, Some("s3creT"), "/v1/echo/a", b"").await.0, 401);
        assert_eq!(post(address, Some("s3cret"), "/v1/echo/a", b"").await.0, 200);
    }

    #[test]
    fn web_pages_cannot_call() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| {
                    (http::HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect::<HeaderMap>()
        };
        for (pairs, admitted) in [
            (&[("host", "127.0.0.1:9090")][..], true),
            (&[("host", "localhost:9090")], true),
            (&[("host", "[::1]:9090")], true),
            (&[("host", "evil.test:9090")], false),
            (&[], false),
            (&[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:9090")], true),
            (&[("host", "127.0.0.1:9090"), ("origin", "http://evil.test")], false),
            (&[("host", "127.0.0.1:9090"), ("origin", "null")], false),
        ] {
            assert_eq!(admit(&headers(pairs), None, false).is_none(), admitted, "{pairs:?}");
        }
        // What browsers say of themselves counts with a token, too; a link to the console is none of it.
        for (site, call, page) in [
            ("none", true, true),
            ("same-origin", true, true),
            ("same-site", false, true),
            ("cross-site", false, true),
            ("", false, true),
        ] {
            let local = headers(&[("host", "127.0.0.1:9090"), ("sec-fetch-site", site)]);
            assert_eq!(admit(&local, None, false).is_none(), call, "{site}");
            assert_eq!(admit(&local, None, true).is_none(), page, "{site}");
            let with_token =
                headers(&[("authorization", "Bearer s3cret"), ("sec-fetch-site", site)]);
            assert_eq!(admit(&with_token, Some("s3cret"), false).is_none(), call, "{site}");
            assert_eq!(admit(&local, Some("s3cret"), true).is_none(), page, "{site}");
        }
        // A name that was bound anew gets no page either.
        assert!(admit(&headers(&[("host", "evil.test:9090")]), None, true).is_some());
    }

    #[test]
    fn percent_codes_survive_and_junk_is_kept() {
        for text in ["", "a b", "100%", "ü&=/?"] {
            assert_eq!(percent_decode(&percent_encode(text), true), text);
        }
        assert_eq!(percent_decode("%zz%4", false), "%zz%4");
    }
}
