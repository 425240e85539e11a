//! A request on its way to an upstream, before it is known over which connection it goes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's content on its way up.
pub enum Outgoing {
    /// None.
    Empty,
    /// A client's, passed on as it comes.
    Stream(Incoming, Arc<Upload>),
}

/// How a client's content comes along.
#[derive(Debug, Default)]
pub struct Upload {
    moved: AtomicBool,
    broken: AtomicBool,
}

impl Upload {
    /// Whether anything came since this was last asked: a long upload is not a slow response.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// It broke off, or its framing is not valid: what comes of it is no fault of the server that it was for.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body, upload) => {
                let frame = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(frame) = &frame {
                    upload.moved.store(true, Ordering::Relaxed);
                    if matches!(frame, Some(Err(_))) {
                        upload.broken.store(true, Ordering::Relaxed);
                    }
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}

/// A request for an upstream.
pub struct Ask {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// `Host`, or `:authority`.
    pub authority: HeaderValue,
    /// All other fields.
    pub headers: HeaderMap,
    /// Content.
    pub body: Outgoing,
}

impl Ask {
    /// The same once more, if it has no content that could have been sent already.
    pub(super) fn again(&self) -> Option<Self> {
        matches!(self.body, Outgoing::Empty).then(|| Self {
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            headers: self.headers.clone(),
            body: Outgoing::Empty,
        })
    }

    /// Whether it may be sent twice (RFC 9110 §9.2.2), and has no content.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD) && matches!(self.body, Outgoing::Empty)
    }
}

pub(super) fn to_request(ask: Ask, http2: bool, tls: bool) -> Result<Request<Outgoing>, String> {
    let mut request = Request::new(ask.body);
    *request.method_mut() = ask.method;
    *request.headers_mut() = ask.headers;
    if http2 {
        let authority = Authority::try_from(ask.authority.as_bytes())
            .map_err(|error| format!("the host cannot be sent: {error}"))?;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(authority)
            .path_and_query(ask.target)
            .build()
            .map_err(|error| format!("the target cannot be sent: {error}"))?;
        request.headers_mut().remove(HOST);
    } else {
        *request.uri_mut() = Uri::from(ask.target);
        request.headers_mut().insert(HOST, ask.authority);
    }
    Ok(request)
}

/// What [`to_request`] was given, from a request that was not sent.
pub(super) fn from_request(request: Request<Outgoing>) -> Ask {
    let (mut parts, body) = request.into_parts();
    let target =
        parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let named = parts.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let authority =
        parts.headers.remove(HOST).or(named).unwrap_or_else(|| HeaderValue::from_static(""));
    Ask { method: parts.method, target, authority, headers: parts.headers, body }
}
