//! Interim responses (1xx, RFC 9110 §15.2) on their way from an upstream to the client: those that a request's fetch
//! brings before its response. They are never stored, bounded in number and size, and nothing of them gets into the
//! response itself.
//!
//! 100 (Continue) is not among them: it answers an expectation on one hop, and each hop answers it itself. Over HTTP/1.1
//! the [`super::gate`] writes them between hyper's responses, because hyper's server cannot; HTTP/2 has
//! [`super::http2`]. HTTP/1.0 clients get none (RFC 9110 §15.2). Those of HTTP/1.1 upstreams hyper tells; over HTTP/2
//! `streams_exchange` takes them from the stream.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::Notify;

use super::ask::Upload;
use super::gate;
use crate::semantics::headers::interim_fields;

/// Interim responses passed on for one request.
const MAX_COUNT: usize = 16;
/// Bytes of their fields, all together.
const MAX_BYTES: usize = 16 << 10;
/// An upstream that sends more is not waited for.
const FLOOD: usize = 64;

/// An interim response.
#[derive(Clone, Debug)]
pub struct Interim {
    /// 102, 103, or another from 104 to 199.
    pub status: StatusCode,
    /// Its fields, without those of the connection.
    pub headers: HeaderMap,
}

impl Interim {
    /// As it goes over HTTP/1.1.
    fn encode(&self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16()).into_bytes();
        for (name, value) in &self.headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Interim>,
    seen: usize,
    passed: usize,
    bytes: usize,
    closed: bool,
}

/// Where an upstream's interim responses wait for the client's side to take them.
#[derive(Debug, Default)]
pub struct Sink {
    state: Mutex<State>,
    arrived: Notify,
    flooded: Notify,
}

impl Sink {
    /// One that takes nothing, and only sees a flood.
    pub fn closed() -> Self {
        let sink = Self::default();
        sink.state().closed = true;
        sink
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an interim response, or drops it when it is one too many.
    pub fn push(&self, status: StatusCode, headers: &HeaderMap) {
        let mut state = self.state();
        state.seen += 1;
        if state.seen > FLOOD {
            drop(state);
            self.flooded.notify_one();
            return;
        }
        let full = state.closed || state.passed >= MAX_COUNT;
        if full || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let headers = interim_fields(headers);
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let size = fields.sum::<usize>();
        if state.bytes + size > MAX_BYTES {
            return;
        }
        state.bytes += size;
        state.passed += 1;
        state.queue.push_back(Interim { status, headers });
        drop(state);
        self.arrived.notify_one();
    }

    /// Takes those that come to this request, over HTTP/1.1; `upload` is told of 100 (Continue).
    pub(super) fn listen<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        upload: Option<Arc<Upload>>,
    ) {
        let sink = Arc::clone(self);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE
                && let Some(upload) = &upload
            {
                upload.go_on();
            }
            sink.push(response.status(), response.headers());
        });
    }

    /// Ready when the upstream has sent more of them than anybody needs.
    pub async fn flooded(&self) {
        self.flooded.notified().await;
    }

    async fn next(&self) -> Interim {
        loop {
            if let Some(interim) = self.state().queue.pop_front() {
                return interim;
            }
            self.arrived.notified().await;
        }
    }

    /// Takes no more; returns those that came before.
    fn close(&self) -> VecDeque<Interim> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.queue)
    }
}

/// The way to the client for what comes before its response.
#[derive(Clone, Copy)]
pub enum Early<'a> {
    /// There is none: HTTP/1.0.
    None,
    /// Through the connection's gate.
    Http1(&'a gate::Shared),
    /// On the request's stream.
    Http2(&'a Mutex<SendResponse<Bytes>>),
}

impl Early<'_> {
    /// A sink for a fetch on behalf of this client.
    pub fn sink(&self) -> Option<Arc<Sink>> {
        match self {
            Self::None => None,
            Self::Http1(_) | Self::Http2(_) => Some(Arc::default()),
        }
    }

    /// Waits for the answer and passes on what comes into the sink before it.
    pub async fn relay<T>(&self, sink: Option<&Sink>, answer: impl Future<Output = T>) -> T {
        let Some(sink) = sink else { return answer.await };
        let mut answer = pin!(answer);
        let answer = loop {
            tokio::select! {
                biased;
                interim = sink.next() => self.send(interim).await,
                answer = &mut answer => break answer,
            }
        };
        for interim in sink.close() {
            self.send(interim).await;
        }
        answer
    }

    /// Returns when the response itself may follow.
    async fn send(&self, interim: Interim) {
        match self {
            Self::None => {}
            Self::Http1(gate) => gate.send_early(&interim.encode()).await,
            Self::Http2(stream) => {
                let mut response = Response::new(());
                *response.status_mut() = interim.status;
                *response.headers_mut() = interim.headers;
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                // A stream that is gone is noticed by whoever answers it.
                let _ = stream.send_informational(response);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn links(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("link", HeaderValue::from_str(text).unwrap());
        headers.insert("connection", HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("content-length", HeaderValue::from_static("5"));
        headers
    }

    #[test]
    fn rfc9110_15_2_interim_responses_are_bounded() {
        let sink = Sink::default();
        sink.push(StatusCode::CONTINUE, &HeaderMap::new());
        sink.push(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new());
        for _ in 0..MAX_COUNT + 5 {
            sink.push(StatusCode::EARLY_HINTS, &links("</a>"));
        }
        let passed = sink.close();
        assert_eq!(passed.len(), MAX_COUNT);
        assert!(passed.iter().all(|interim| interim.headers.len() == 1), "{passed:?}");
        assert_eq!(passed[0].encode(), b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        sink.push(StatusCode::EARLY_HINTS, &links("</a>"));
        assert!(sink.close().is_empty(), "the response has begun");

        let sink = Sink::default();
        sink.push(StatusCode::EARLY_HINTS, &links(&"a".repeat(MAX_BYTES)));
        sink.push(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(sink.close().len(), 1, "what is too large is left out");
    }

    #[tokio::test]
    async fn a_flood_is_noticed_even_when_nothing_is_passed_on() {
        let sink = Sink::closed();
        for _ in 0..=FLOOD {
            sink.push(StatusCode::PROCESSING, &HeaderMap::new());
        }
        sink.flooded().await;
        assert!(sink.close().is_empty());
    }
}
