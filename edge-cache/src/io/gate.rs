//! A client connection's bytes on their way to hyper.
//!
//! hyper repairs what we must refuse (it takes Transfer-Encoding where Content-Length came too, for one), and knows no
//! time-out for idle connections or for clients that do not read. So every HTTP/1 head is looked at here first, as a
//! whole, with [`crate::admit::raw_head`]; the verdict waits in a queue for the service that hyper calls with it.
//! Where messages begin and end [`crate::framing`] says.
//!
//! hyper's server has no way to send an interim response other than 100, either. Those of [`super::interim`] are written
//! here, while the service keeps its response back: when hyper flushes, all that it has written before is out, and what
//! comes next is the response that they belong before.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::backlog::Backlog;
use crate::admit::Reject;
use crate::framing::{Event, Framing};

/// What is read at once.
const READ: usize = 16 << 10;

/// What the connection and the services called for it share.
#[derive(Debug)]
pub struct Shared {
    verdicts: Mutex<VecDeque<Result<(), Reject>>>,
    in_flight: AtomicUsize,
    opened: Instant,
    /// When the last request ended, in milliseconds after `opened`.
    last_end: AtomicU64,
    /// Whether something is in `early`.
    has_early: AtomicBool,
    early: Mutex<Early>,
    /// The connection is HTTP no more.
    switched: AtomicBool,
    /// It ends by a reset.
    aborted: AtomicBool,
    backlog: Backlog,
}

/// Bytes that go out before the response that the service has not given yet.
#[derive(Debug, Default)]
struct Early {
    bytes: BytesMut,
    waker: Option<Waker>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            verdicts: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            opened: Instant::now(),
            last_end: AtomicU64::new(0),
            has_early: AtomicBool::new(false),
            early: Mutex::default(),
            switched: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            backlog: Backlog::default(),
        }
    }
}

impl Shared {
    /// The verdict on the head that hyper has just parsed.
    pub fn verdict(&self) -> Result<(), Reject> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(()))
    }

    /// What waits for the socket.
    pub const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// A request has begun: the connection is not idle until the guard is gone.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Sends an interim response and returns when it is out: only then may the service give its response to hyper.
    pub(super) async fn send_early(&self, head: &[u8]) {
        self.early().bytes.extend_from_slice(head);
        self.has_early.store(true, Ordering::Release);
        std::future::poll_fn(|cx| {
            let mut early = self.early();
            if !self.has_early.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            early.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn early(&self) -> std::sync::MutexGuard<'_, Early> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on all bytes pass unseen: the connection is switched to another protocol.
    pub(super) fn switch(&self) {
        self.switched.store(true, Ordering::Release);
    }

    /// The connection is to end by a reset: its end is that of a response without a length, which was cut.
    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    fn is_switched(&self) -> bool {
        self.switched.load(Ordering::Acquire)
    }

    /// Since when no request is being answered; `None` while one is.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.in_flight.load(Ordering::Relaxed) == 0;
        idle.then(|| self.opened + Duration::from_millis(self.last_end.load(Ordering::Relaxed)))
    }
}

/// A request that is being answered.
pub struct Busy(Arc<Shared>);

impl Busy {
    /// What waits for the connection's socket.
    pub(super) fn backlog(&self) -> &Backlog {
        self.0.backlog()
    }

    /// The response was cut, and the client could not see it from anything but a reset.
    pub(super) fn abort(&self) {
        self.0.abort();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let end = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_end.store(end, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time-outs and sizes of client connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a request, or without progress of a response.
    pub idle: Duration,
    /// For a head.
    pub head: Duration,
    /// A head's size.
    pub max_head: usize,
}

/// The stream under hyper.
pub struct Gate<S: Linger> {
    /// Taken out only when the gate goes.
    inner: Option<S>,
    /// What the connection counts as, for as long as it is open.
    held_open: Arc<dyn Send + Sync>,
    limits: Limits,
    shared: Arc<Shared>,
    /// `None`: HTTP/2, whose frames hyper checks.
    framing: Option<Framing>,
    /// Read, and not yet hyper's.
    held: BytesMut,
    /// How much of it hyper may have.
    released: usize,
    head_began: Option<Instant>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// When something could last be written that had to wait.
    last_write: Option<Instant>,
    /// An interim response of which a part may be out.
    early: BytesMut,
    /// The framing of a request's content is not valid.
    broken: bool,
}

/// A stream that can be read after its end was written, and that can end without one.
pub trait Linger: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Closed from now on by a reset: the other side must not take this end for a good one.
    fn abort(&self);
}

impl Linger for TcpStream {
    fn abort(&self) {
        // A connection that has ended already needs none.
        let _ = self.set_zero_linger();
    }
}

impl Linger for TlsStream<TcpStream> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

impl<S: Linger> Gate<S> {
    /// A gate before `inner`. `held_open` is kept until the stream is closed.
    pub fn new(
        inner: S,
        http1: bool,
        limits: Limits,
        shared: Arc<Shared>,
        held_open: Arc<dyn Send + Sync>,
    ) -> Self {
        Self {
            inner: Some(inner),
            held_open,
            limits,
            shared,
            framing: http1.then(|| Framing::new(limits.max_head)),
            held: BytesMut::new(),
            released: 0,
            head_began: None,
            read_timer: None,
            write_timer: None,
            last_write: None,
            early: BytesMut::new(),
            broken: false,
        }
    }

    /// Looks at what has been read and not been released.
    fn examine(&mut self) {
        let framing = self.framing.as_mut().filter(|_| !self.shared.is_switched());
        let Some(framing) = framing else {
            self.released = self.held.len();
            self.head_began = None;
            return;
        };
        while let Some(rest) = self.held.get(self.released..)
            && !rest.is_empty()
        {
            match framing.next(rest) {
                Event::Release(length) => self.released += length,
                Event::Head { length, verdict } => {
                    self.released += length;
                    self.head_began = None;
                    let mut verdicts =
                        self.shared.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                    verdicts.push_back(verdict);
                }
                Event::More => {
                    self.head_began.get_or_insert_with(Instant::now);
                    break;
                }
                Event::Broken => {
                    self.broken = true;
                    break;
                }
            }
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.released.min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.released -= length;
        if self.held.is_empty() {
            // An idle connection has no buffer.
            self.held = BytesMut::new();
        }
    }

    /// Whether the client has taken too long with what it should send.
    ///
    /// hyper does not read again when a response has ended, if the last read had nothing: so the timer runs during
    /// requests, too, and is set anew when it goes off too early.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // What a response left behind in buffers is still being written: `watch_write` has its own patience.
            let idle = self.shared.idle_since().filter(|_| self.write_timer.is_none());
            let deadline = match (self.head_began, idle) {
                (Some(began), _) => began + self.limits.head,
                (None, Some(since)) => {
                    self.last_write.map_or(since, |last| since.max(last)) + self.limits.idle
                }
                (None, None) => Instant::now() + self.limits.idle,
            };
            let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl<S: Linger> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.released < this.held.len() && this.shared.is_switched() {
            this.examine();
        }
        loop {
            if this.released > 0 {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            if this.broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let Some(inner) = &mut this.inner else { return Poll::Ready(Ok(())) };
            match read_more(inner, cx, &mut this.held) {
                Poll::Pending => {
                    ready!(this.poll_patience(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(Ok(0)) => {
                    // The end; hyper says what a head without an end means.
                    this.released = this.held.len();
                    if this.released == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Ok(_)) => this.examine(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn read_more<S: AsyncRead + Unpin>(
    inner: &mut S,
    cx: &mut Context<'_>,
    held: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut chunk = [const { std::mem::MaybeUninit::uninit() }; READ];
    let mut buf = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(inner).poll_read(cx, &mut buf))?;
    held.extend_from_slice(buf.filled());
    Poll::Ready(Ok(buf.filled().len()))
}

impl<S: Linger> Gate<S> {
    /// A client that reads nothing for too long is cut off: it holds memory.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            if self.write_timer.take().is_some() {
                self.last_write = Some(Instant::now());
            }
            return result;
        }
        let idle = self.limits.idle;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(idle)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Linger> Gate<S> {
    fn watch_content(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(taken)) = &result {
            self.shared.backlog.taken(*taken);
        }
        self.watch_write(cx, result)
    }

    /// Writes the rest of the interim response that is under way.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.early.is_empty() {
            let Some(inner) = &mut self.inner else { return Poll::Ready(Err(closed())) };
            let result = Pin::new(inner).poll_write(cx, &self.early);
            match ready!(self.watch_write(cx, result))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.early.advance(length),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the interim responses that wait; all that hyper wrote has been taken before.
    fn poll_all_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.shared.has_early.load(Ordering::Acquire) {
            if self.early.is_empty() {
                self.early = self.shared.early().bytes.split();
            }
            ready!(self.poll_early(cx))?;
            let mut early = self.shared.early();
            if early.bytes.is_empty() {
                self.shared.has_early.store(false, Ordering::Release);
                if let Some(waker) = early.waker.take() {
                    waker.wake();
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Linger> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let result = Pin::new(inner).poll_write(cx, buf);
        this.watch_content(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let result = Pin::new(inner).poll_write_vectored(cx, bufs);
        this.watch_content(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.has_early.load(Ordering::Relaxed) {
            ready!(this.poll_all_early(cx))?;
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let result = Pin::new(inner).poll_flush(cx);
        if result.is_ready() {
            this.shared.backlog.clear();
        }
        this.watch_write(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        if this.shared.is_aborted() {
            inner.abort();
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(inner).poll_shutdown(cx);
        this.watch_write(cx, result)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// What a client still sends, when its request was answered before its end, is read and thrown away for a moment:
/// closed with bytes unread, the kernel would reset the connection, and the client might lose the answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away at most.
const LINGER_BYTES: usize = 4 << 20;

impl<S: Linger> Drop for Gate<S> {
    fn drop(&mut self) {
        if self.shared.is_switched() {
            return;
        }
        if self.shared.is_aborted() {
            if let Some(inner) = &self.inner {
                inner.abort();
            }
            return;
        }
        let unread = self.framing.as_ref().is_some_and(|framing| !framing.is_between_requests())
            || !self.held.is_empty();
        let Some(mut inner) = self.inner.take().filter(|_| unread) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let held_open = Arc::clone(&self.held_open);
        runtime.spawn(async move {
            let _held_open = held_open;
            let drained = async {
                inner.shutdown().await?;
                let mut left = LINGER_BYTES;
                let mut buffer = vec![0; READ];
                while left > 0 {
                    match inner.read(&mut buffer).await? {
                        0 => break,
                        length => left = left.saturating_sub(length),
                    }
                }
                Ok::<_, io::Error>(())
            };
            // Whatever comes of it, the connection is closed.
            let _ = tokio::time::timeout(LINGER, drained).await;
        });
    }
}
