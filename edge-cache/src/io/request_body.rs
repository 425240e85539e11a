//! The content of a client's request, over either version of HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// The content of a request.
pub enum RequestBody {
    /// hyper's. A client that waits for 100 (Continue) gets it when this is first read.
    Http1(Incoming),
    /// Of a stream of our own.
    Http2(Http2Body),
}

/// Why a request's content did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// Over HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// The content of an HTTP/2 request.
pub struct Http2Body {
    stream: RecvStream,
    /// What Content-Length says is still to come; the h2 crate keeps clients to it.
    left: Option<u64>,
    /// Told when the content is first asked for, by a client that waits for 100 (Continue).
    wanted: Option<oneshot::Sender<()>>,
    data_ended: bool,
}

impl Http2Body {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        wanted: Option<oneshot::Sender<()>>,
    ) -> Self {
        Self { stream, left: length, wanted, data_ended: false }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(wanted) = self.wanted.take() {
            // A client that is gone waits for nothing.
            let _ = wanted.send(());
        }
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window is opened as fast as the content is taken on.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let frame = match self.get_mut() {
            Self::Http1(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Self::Http2(body) => ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into)),
        };
        Poll::Ready(frame.map(|frame| frame.map(without_forbidden_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// Trailers without the fields that must not be among them, whoever sent them (RFC 9110 §6.5.1).
pub(super) fn without_forbidden_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            crate::semantics::headers::strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Whether trailers have anything left to say.
pub(super) fn is_worth_sending(trailers: &HeaderMap) -> bool {
    !trailers.is_empty()
}
