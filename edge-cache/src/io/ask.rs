//! A request on its way to an upstream, before it is known over which connection it goes.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::http2_content::Outflow;
use super::interim::Sink;
use super::request_body::{RequestBody, RequestBodyError};

/// A request's content on its way up.
pub enum Outgoing {
    /// None.
    Empty,
    /// A client's, passed on as it comes.
    Stream(Box<Stream>),
}

/// A client's content.
pub struct Stream {
    body: RequestBody,
    upload: Arc<Upload>,
    /// Until the next server says 100 (Continue), or has been silent for a while.
    held: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    /// A client's content. One that waits for 100 (Continue) waits for the next server's word, but not without end: the
    /// content is not asked for before (RFC 9110 §10.1.1).
    pub(super) fn stream(body: RequestBody, expects: Expects) -> Self {
        let held = match expects {
            Expects::Continue(first_byte) => {
                Some(Box::pin(tokio::time::sleep(CONTINUE_WAIT.min(first_byte / 2))))
            }
            Expects::Nothing => None,
        };
        Self::Stream(Box::new(Stream { body, upload: Arc::default(), held }))
    }

    /// How a client's content comes along.
    pub(super) fn upload(&self) -> Option<Arc<Upload>> {
        match self {
            Self::Stream(stream) => Some(Arc::clone(&stream.upload)),
            Self::Empty => None,
        }
    }
}

/// How long a client's content waits for the next server's 100 (Continue).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Whether a client waits with its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    /// For 100 (Continue), from a server that has so long for the first byte of a response.
    Continue(Duration),
    /// It does not wait.
    Nothing,
}

/// How a client's content comes along.
#[derive(Debug, Default)]
pub struct Upload {
    moved: AtomicBool,
    broken: AtomicBool,
    ended: AtomicBool,
    awaited: AtomicBool,
    continued: AtomicBool,
    waker: AtomicWaker,
}

/// Who waits for 100 (Continue).
type AtomicWaker = Mutex<Option<Waker>>;

impl Upload {
    /// Whether anything came since this was last asked: a long upload is not a slow response.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// The next server has said 100 (Continue).
    pub(super) fn go_on(&self) {
        self.continued.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// The client is waited for, not the server.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// All of it has been sent.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ready when the content may be asked for.
    fn poll_continued(&self, cx: &mut Context<'_>, held: &mut Pin<Box<Sleep>>) -> Poll<()> {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        match self.continued.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => held.as_mut().poll(cx),
        }
    }

    /// It broke off, or its framing is not valid: what comes of it is no fault of the server that it was for.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Outflow for Outgoing {}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(stream) => {
                let Stream { body, upload, held } = &mut **stream;
                if let Some(waiting) = held {
                    ready!(upload.poll_continued(cx, waiting));
                    *held = None;
                }
                let frame = Pin::new(&mut *body).poll_frame(cx);
                upload.awaited.store(frame.is_pending(), Ordering::Relaxed);
                let frame = ready!(frame);
                upload.moved.store(true, Ordering::Relaxed);
                match &frame {
                    Some(Err(_)) => upload.broken.store(true, Ordering::Relaxed),
                    None => upload.ended.store(true, Ordering::Relaxed),
                    Some(Ok(_)) if body.is_end_stream() => {
                        upload.ended.store(true, Ordering::Relaxed);
                    }
                    Some(Ok(_)) => {}
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.body.size_hint(),
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
    /// Where interim responses go.
    pub interim: Option<Arc<Sink>>,
    /// The protocol that the connection is to be switched to.
    pub upgrade: Option<HeaderValue>,
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
            interim: self.interim.clone(),
            upgrade: self.upgrade.clone(),
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
        let headers = request.headers_mut();
        headers.insert(HOST, ask.authority);
        if let Some(protocol) = ask.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
        } else if headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    Ok(request)
}

/// What [`to_request`] was given, from a request that was not sent.
pub(super) fn from_request(request: Request<Outgoing>, interim: Option<Arc<Sink>>) -> Ask {
    let (mut parts, body) = request.into_parts();
    let target =
        parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let named = parts.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let authority =
        parts.headers.remove(HOST).or(named).unwrap_or_else(|| HeaderValue::from_static(""));
    parts.headers.remove(CONNECTION);
    let upgrade = parts.headers.remove(UPGRADE);
    let (method, headers) = (parts.method, parts.headers);
    Ask { method, target, authority, headers, body, interim, upgrade }
}
