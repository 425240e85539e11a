//! The content of an upstream's response, timed, and watched for its end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Sleep;

use super::pool::{Lease, Timeouts};
use super::request_body::without_forbidden_trailers;

/// The content of an upstream's response. Ends with an error when it is cut short or stalls.
pub struct UpstreamBody {
    inner: Incoming,
    lease: Option<Lease>,
    between_bytes: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// After a 101: the connection itself.
    switched: Option<OnUpgrade>,
}

/// Why an upstream's content did not end well.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It was cut short.
    #[error("the upstream's content was cut short: {0}")]
    Cut(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the upstream's content stalled for {0:?}")]
    Stalled(Duration),
}

impl UpstreamBody {
    pub(super) fn new(inner: Incoming, lease: Lease, timeouts: Timeouts) -> Self {
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
    pub(super) fn switched(inner: Incoming, switched: OnUpgrade, lease: Lease) -> Self {
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
                    Err(error) => Err(error.into()),
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
