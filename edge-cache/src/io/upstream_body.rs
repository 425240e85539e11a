//! The content of an upstream's response, timed, and watched for its end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Sleep;

use super::ask::Outgoing;
use super::pool::{Lease, Timeouts};
use super::request_body::without_forbidden_trailers;
use super::streams_exchange::Http2Content;

/// The content of an upstream's response. Ends with an error when it is cut short or stalls.
pub struct UpstreamBody {
    inner: Inner,
    lease: Option<Lease>,
    between_bytes: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// After a 101: the connection itself.
    switched: Option<OnUpgrade>,
}

/// The content as it comes over either version of HTTP.
pub(super) enum Inner {
    Http1(Incoming),
    Http2(Http2Content),
}

/// How an exchange with an upstream's server failed, over either version of HTTP.
#[derive(Debug)]
pub enum Broken {
    /// hyper's word.
    Http1(hyper::Error),
    /// The h2 crate's.
    Http2(h2::Error),
}

/// Why a request has no response.
pub(super) struct Unanswered {
    pub(super) error: Broken,
    /// The request, when the server has not acted on it: it may be sent again, whatever its method.
    pub(super) request: Option<Request<Outgoing>>,
}

impl Broken {
    /// Whether what the server sent is not HTTP, or breaks its rules.
    pub(super) fn is_protocol_error(&self) -> bool {
        let error = match self {
            Self::Http1(error) => return error.is_parse(),
            Self::Http2(error) => error,
        };
        let reason = Some(error).filter(|error| !error.is_remote()).and_then(h2::Error::reason);
        matches!(
            reason,
            Some(
                Reason::PROTOCOL_ERROR
                    | Reason::FRAME_SIZE_ERROR
                    | Reason::COMPRESSION_ERROR
                    | Reason::FLOW_CONTROL_ERROR
                    | Reason::STREAM_CLOSED
            )
        )
    }
}

/// With what lies behind it.
impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http1(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => error.fmt(f),
            },
            Self::Http2(error) => write!(f, "HTTP/2: {error}"),
        }
    }
}

impl From<hyper::client::conn::TrySendError<Request<Outgoing>>> for Unanswered {
    fn from(mut failed: hyper::client::conn::TrySendError<Request<Outgoing>>) -> Self {
        let request = failed.take_message();
        Self { error: Broken::Http1(failed.into_error()), request }
    }
}

/// Why an upstream's content did not end well.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It was cut short.
    #[error("the upstream's content was cut short: {0}")]
    Cut(Broken),
    /// Nothing came for too long.
    #[error("the upstream's content stalled for {0:?}")]
    Stalled(Duration),
}

impl UpstreamBody {
    pub(super) fn new(inner: Inner, lease: Lease, timeouts: Timeouts) -> Self {
        let mut body = Self {
            inner,
            lease: Some(lease),
            between_bytes: timeouts.between_bytes,
            timer: None,
            switched: None,
        };
        if body.inner.is_end_stream() {
            body.end();
        }
        body
    }

    /// After a 101, which has no content.
    pub(super) fn switched(inner: Inner, switched: OnUpgrade, lease: Lease) -> Self {
        let between_bytes = Duration::ZERO;
        Self { inner, lease: Some(lease), between_bytes, timer: None, switched: Some(switched) }
    }

    /// After a 101: the connection, and the claim on it that is to be kept while it is used.
    pub(super) fn into_connection(self) -> Option<(OnUpgrade, Lease)> {
        self.switched.zip(self.lease)
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Inner {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(content) => Pin::new(content).poll_frame(cx).map_err(Broken::Http1),
            Self::Http2(content) => Pin::new(content).poll_frame(cx).map_err(Broken::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(content) => content.is_end_stream(),
            Self::Http2(content) => content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(content) => content.size_hint(),
            Self::Http2(content) => content.size_hint(),
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.timer = None;
                match &frame {
                    None => this.end(),
                    Some(Ok(_)) if this.inner.is_end_stream() => this.end(),
                    Some(Ok(_)) => {}
                    // The connection is of no more use: dropping the lease closes it.
                    Some(Err(_)) => this.lease = None,
                }
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(without_forbidden_trailers(frame)),
                    Err(error) => Err(BodyError::Cut(error)),
                }))
            }
            Poll::Pending => {
                // Only while we wait for the upstream: a client that reads slowly does not come here.
                let wait = this.between_bytes;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
                if timer.as_mut().poll(cx).is_ready() {
                    this.timer = None;
                    this.lease = None;
                    return Poll::Ready(Some(Err(BodyError::Stalled(wait))));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamBody")
    }
}
