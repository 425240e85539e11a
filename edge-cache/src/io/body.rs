//! What responses are made of. A body that cannot be sent whole ends with an error, which hyper turns into a cut
//! connection or a reset stream, never into a clean end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2_content::Outflow;
use super::pull::{NotReady, Pull, Ready};
use super::telemetry::Exchange;
use super::upstream_body::{BodyError, UpstreamBody};
use crate::fill::Cut;
use crate::semantics::range::{ByteRange, Multipart};
use crate::store::budget::Share;

/// Where the bytes come from.
enum Source {
    Empty,
    Once(Bytes),
    Pull(Box<Pull>),
    Parts(Box<Parts>),
    Upstream(Box<UpstreamBody>),
}

/// What is left of a multipart/byteranges response (RFC 9110 §14.6).
struct Parts {
    pull: Pull,
    frame: Multipart,
    parts: std::vec::IntoIter<ByteRange>,
    within: bool,
    ended: bool,
}

impl Parts {
    fn poll_next(
        &mut self,
        cx: &Context<'_>,
        share: Share,
    ) -> Poll<Option<Result<Bytes, SendError>>> {
        if self.within {
            match self.pull.poll_next(cx, share) {
                Poll::Ready(None) if self.pull.left() == Some(0) => self.within = false,
                Poll::Ready(None) => {
                    let missing = self.pull.left().unwrap_or(0);
                    return Poll::Ready(Some(Err(SendError::Missing(missing))));
                }
                polled => return polled,
            }
        }
        Poll::Ready(match self.parts.next() {
            Some(part) => {
                self.pull.seek(part);
                self.within = true;
                Some(Ok(self.frame.part_head(part).into()))
            }
            None if self.ended => None,
            None => {
                self.ended = true;
                Some(Ok(self.frame.end().into()))
            }
        })
    }
}

/// The content of a response to a client.
pub struct ResponseBody {
    source: Source,
    /// Bytes still to come, where that is known.
    remaining: Option<u64>,
    /// Bytes of the source that are left out before the first one.
    skip: u64,
    exchange: Option<Box<Exchange>>,
    ended: bool,
}

/// Why a response could not be sent whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The fetch that it came from.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// The upstream.
    #[error(transparent)]
    Upstream(#[from] BodyError),
    /// A part that is missing in the store could not be fetched.
    #[error("what is missing in the store could not be had: {0}")]
    Part(NotReady),
    /// Fewer bytes came than were announced.
    #[error("{0} bytes are missing")]
    Missing(u64),
}

impl ResponseBody {
    /// No content.
    pub fn empty() -> Self {
        Self::new(Source::Empty, Some(0))
    }

    /// Content of our own.
    pub fn once(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self::new(Source::Once(bytes), Some(length))
    }

    /// A representation, or the part of it that `pull` has been set to.
    pub fn pull(pull: Pull) -> Self {
        let length = pull.left();
        Self::new(Source::Pull(Box::new(pull)), length)
    }

    /// Several parts of a representation.
    pub fn parts(mut pull: Pull, frame: Multipart, parts: Vec<ByteRange>) -> Self {
        let length = frame.content_length(&parts);
        if let Some(first) = parts.first() {
            pull.seek(*first);
        }
        let parts = parts.into_iter();
        let parts = Parts { pull, frame, parts, within: false, ended: false };
        Self::new(Source::Parts(Box::new(parts)), Some(length))
    }

    /// `length` bytes of an upstream's body, from the one after `skip` on, for this client alone.
    pub fn upstream_part(body: UpstreamBody, skip: u64, length: u64) -> Self {
        Self { skip, ..Self::new(Source::Upstream(Box::new(body)), Some(length)) }
    }

    /// An upstream's body, for this client alone.
    pub fn upstream(body: UpstreamBody) -> Self {
        let length = body.size_hint().exact();
        Self::new(Source::Upstream(Box::new(body)), length)
    }

    const fn new(source: Source, remaining: Option<u64>) -> Self {
        Self { source, remaining, skip: 0, exchange: None, ended: false }
    }

    /// Ready when the first bytes are here or on their way, in the version that was promised.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<Ready, NotReady>> {
        match &mut self.source {
            _ if self.remaining == Some(0) => Poll::Ready(Ok(Ready::Here)),
            Source::Pull(pull) => pull.poll_ready(cx),
            Source::Parts(parts) => parts.pull.poll_ready(cx),
            Source::Empty | Source::Once(_) | Source::Upstream(_) => Poll::Ready(Ok(Ready::Here)),
        }
    }

    /// Tells `exchange` what is sent, and lets it go when all is.
    pub fn watched(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// The same without content, as the answer to HEAD or a 304.
    pub fn without_content(self) -> Self {
        Self { exchange: self.exchange, ..Self::empty() }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
        share: Share,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let data = match &mut self.source {
            Source::Empty => None,
            Source::Once(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Source::Pull(pull) => {
                return pull.poll_next(cx, share).map_ok(Frame::data);
            }
            Source::Parts(parts) => {
                return parts.poll_next(cx, share).map_ok(Frame::data);
            }
            Source::Upstream(body) => {
                return Pin::new(body.as_mut())
                    .poll_frame(cx)
                    .map(|frame| frame.map(|frame| frame.map_err(SendError::from)));
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    /// What may be held of it while it waits for the client.
    fn share(&self) -> Share {
        self.exchange.as_ref().map_or(Share::Stored, |exchange| exchange.share())
    }

    /// The client takes nothing for now, and no more than its share may be held for it.
    fn let_go(&mut self) {
        match &mut self.source {
            Source::Pull(pull) => pull.rest(),
            Source::Parts(parts) => parts.pull.rest(),
            Source::Empty | Source::Once(_) | Source::Upstream(_) => {}
        }
    }

    fn finish(&mut self, whole: bool) {
        self.ended = true;
        if let Some(exchange) = &mut self.exchange {
            exchange.whole = whole;
            if !whole {
                exchange.cut(self.remaining.is_some());
            }
        }
        self.source = Source::Empty;
        self.exchange = None;
    }
}

impl Outflow for ResponseBody {
    fn rest(self: Pin<&mut Self>) {
        if self.share() != Share::Stored {
            self.get_mut().let_go();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let this = self.get_mut();
        if this.ended || this.remaining == Some(0) {
            this.finish(true);
            return Poll::Ready(None);
        }
        let share = this.share();
        if let (Share::Copy(most), Some(exchange)) = (share, &this.exchange)
            && exchange.backlog().poll_room(cx, most).is_pending()
        {
            this.let_go();
            return Poll::Pending;
        }
        let frame = match this.poll_source(cx, share) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        Poll::Ready(match frame {
            None => match this.remaining {
                Some(missing) if missing > 0 => {
                    this.finish(false);
                    Some(Err(SendError::Missing(missing)))
                }
                _ => {
                    this.finish(true);
                    None
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "a response was cut");
                this.finish(false);
                Some(Err(error))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let skipped = usize::try_from(this.skip).unwrap_or(usize::MAX).min(data.len());
                    this.skip -= skipped as u64;
                    let _ = data.split_to(skipped);
                    if let Some(remaining) = &mut this.remaining {
                        let take =
                            usize::try_from(*remaining).unwrap_or(usize::MAX).min(data.len());
                        data.truncate(take);
                        *remaining -= take as u64;
                    }
                    if let Some(exchange) = &mut this.exchange {
                        exchange.add_sent(data.len() as u64);
                        exchange.is_handed(data.len());
                        exchange.is_passed |= matches!(this.source, Source::Upstream(_));
                    }
                    if this.remaining == Some(0) {
                        this.finish(true);
                    }
                    Some(Ok(Frame::data(data)))
                }
                Err(trailers) => Some(Ok(trailers)),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        match self.remaining {
            Some(remaining) => SizeHint::with_exact(remaining),
            None => SizeHint::default(),
        }
    }
}
