//! One request and its response on an HTTP/2 connection to an upstream's server (RFC 9113 §8.1), on the h2 crate itself:
//! hyper's client over it keeps interim responses to itself.
//!
//! A task of its own sends the request's content, so that neither direction waits for the other (RFC 9113 §8.1: a server
//! may answer before it has read everything). h2 holds servers to their Content-Length and refuses malformed responses.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::ask::{Outgoing, Upload};
use super::http2_content::send;
use super::interim::Sink;
use super::upstream_body::{Broken, Unanswered};

/// Sends a request and waits for the head of its response; interim responses go to `sink`. `keep`: the request is given
/// back when the server has not acted on it. `turn`: held until the stream is open, so that those that wait for one are
/// not sent.
pub(super) async fn exchange(
    mut sender: SendRequest<Bytes>,
    turn: &tokio::sync::Mutex<()>,
    request: Request<Outgoing>,
    keep: bool,
    sink: &Sink,
) -> Result<Response<Http2Content>, Unanswered> {
    let held = turn.lock().await;
    if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
        return Err(Unanswered { error: Broken::Http2(error), request: Some(request) });
    }
    let (head, body) = request.into_parts();
    let mut head = Request::from_parts(head, ());
    let kept = keep.then(|| head.clone());
    // RFC 9110 §8.6: also for no content, where the method gives it a meaning.
    let means_content = !matches!(*head.method(), Method::GET | Method::HEAD | Method::DELETE);
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || means_content)
    {
        head.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let is_head = *head.method() == Method::HEAD;
    let upload = body.upload();
    let (mut response, stream) = match sender.send_request(head, body.is_end_stream()) {
        Ok(sent) => sent,
        Err(error) => {
            let request = kept.map(|head| head.map(|()| body));
            return Err(Unanswered { error: Broken::Http2(error), request });
        }
    };
    // When the connection ends now the stream itself knows better what has become of it.
    let _ = poll_fn(|cx| sender.poll_ready(cx)).await;
    drop((held, sender));
    let (sending, unsent) = match body {
        Outgoing::Stream(_) if !body.is_end_stream() => {
            // How long a server may take no content, its time-outs for the response say.
            let sending = tokio::spawn(send(stream, body, None, Reason::CANCEL, None));
            (Sending(Some(sending.abort_handle())), None)
        }
        empty => (Sending(None), Some(empty)),
    };
    match poll_fn(|cx| poll_response(&mut response, sink, upload.as_ref(), cx)).await {
        Ok(response) => {
            let length = response.headers().get(CONTENT_LENGTH).filter(|_| !is_head);
            let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(response.map(|stream| Http2Content::new(stream, length, sending)))
        }
        Err(error) => {
            let request = kept.zip(unsent).filter(|_| is_refused(&error));
            let request = request.map(|(head, body)| head.map(|()| body));
            Err(Unanswered { error: Broken::Http2(error), request })
        }
    }
}

/// Takes interim responses until the response itself is there.
fn poll_response(
    response: &mut ResponseFuture,
    sink: &Sink,
    upload: Option<&Arc<Upload>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<RecvStream>, h2::Error>> {
    // The response itself is asked for only when nothing can come before it: that would throw away what does.
    while let Some(Ok(interim)) = ready!(response.poll_informational(cx)) {
        if interim.status() == StatusCode::CONTINUE
            && let Some(upload) = upload
        {
            upload.go_on();
        }
        sink.push(interim.status(), interim.headers());
    }
    Pin::new(response).poll(cx)
}

/// Whether a server says that it has not acted on a request, which may then be sent again whatever its method
/// (RFC 9113 §8.7): it refused the stream, or went away before it came to it.
fn is_refused(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// The task that sends a request's content; it ends with this.
struct Sending(Option<AbortHandle>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.take().inspect(AbortHandle::abort);
    }
}

/// The content of a response over HTTP/2.
pub(super) struct Http2Content {
    stream: RecvStream,
    /// What Content-Length says is still to come.
    left: Option<u64>,
    data_ended: bool,
    sending: Sending,
}

impl Http2Content {
    fn new(stream: RecvStream, length: Option<u64>, sending: Sending) -> Self {
        let left = if stream.is_end_stream() { Some(0) } else { length };
        let mut content = Self { stream, left, data_ended: false, sending };
        content.let_go_at_end();
        content
    }

    /// A server that has answered to the end may go on to read: it says by a reset that it does not (RFC 9113 §8.1).
    fn let_go_at_end(&mut self) {
        if self.stream.is_end_stream() {
            self.sending.0 = None;
        }
    }

    /// A reset with NO_ERROR asks for no more of the request, after a complete response: it is no failure of that.
    fn end(&mut self, error: h2::Error) -> Option<Result<Frame<Bytes>, h2::Error>> {
        let whole =
            error.reason() == Some(Reason::NO_ERROR) && self.left.is_none_or(|left| left == 0);
        (!whole).then_some(Err(error))
    }
}

impl Body for Http2Content {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window is opened as fast as the content is taken on.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    this.let_go_at_end();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(this.end(error)),
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        this.let_go_at_end();
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => this.end(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
