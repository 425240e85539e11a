//! One fetch and those who read from it: who may join, what they learn, which bytes they get, and how it ends.
//!
//! A [`Fill`] belongs to the task that fetches (through its [`Writer`]); clients, the first one too, are [`Reader`]s at
//! any offset and pace, woken when something happens. No reader can end, slow or spoil a fetch that is being kept.
//! Memory is bounded: a body that is stored as it arrives passes in a window, and a reader that is not within it reads
//! from the store; one that is stored at its end is kept whole up to a limit. Beyond what is stored only a window stays,
//! nobody joins any more, and a reader that falls out of it is cut, so that a slow one does not hold up a fast one.
//! What is fetched from where, and what is stored, others decide.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

/// Pieces smaller than this are joined, so that an origin that sends single bytes costs little.
const SMALL_PIECE: usize = 16 << 10;

/// Limits of one fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body that are kept whole. A body that grows past it is not stored.
    pub keep: u64,
    /// Bytes that stay here of a body that is stored as it arrives; and of any other where memory is short.
    pub window: u64,
    /// Readers at once.
    pub readers: usize,
}

/// What a reader learns when the fetch has its answer.
#[derive(Debug)]
pub enum Answer<H, P, E> {
    /// This response is for all who wait; its body is read with [`Reader::poll_data`].
    Shared(Arc<H>),
    /// The response is for the client alone that began the fetch: it is that reader.
    Private(Box<P>),
    /// The response was for another client alone: fetch for yourself.
    Released,
    /// The response is for those alone who came before the fetch began: the next fetch is for all who wait now.
    TooLate,
    /// The fetch failed before it had a response.
    Failed(E),
}

/// How a body ended other than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The body ended short, or the fetch was given up.
    #[error("the body was cut short by the server it came from")]
    Short,
    /// This reader is behind what is kept here. What has been stored as it arrived can be read from the store.
    #[error("the client read too slowly for a body that is not stored")]
    Behind,
}

enum Stage<H, P, E> {
    Asking,
    Shared(Arc<H>),
    Private(Option<Box<P>>),
    Failed(E),
}

/// A piece of the body and the offset of the byte after it.
struct Piece {
    end: u64,
    data: Bytes,
}

/// For whom a response is that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All who wait, and those to come.
    All,
    /// Those who came before the fetch began: what must be validated each time it is used (RFC 9111 §5.2.2.4) has been,
    /// for each of them.
    Early,
    /// The reader that began the fetch.
    Leader,
}

struct ReaderState {
    position: u64,
    waker: Option<Waker>,
}

struct State<H, P, E> {
    stage: Stage<H, P, E>,
    pieces: std::collections::VecDeque<Piece>,
    /// Offset of the first byte that is fetched.
    base: u64,
    /// Offset of the first byte still here.
    start: u64,
    received: u64,
    end: Option<Result<(), Cut>>,
    /// Whether all bytes from the first one are and will be kept, here or in the store.
    kept: bool,
    /// How far a reader may be behind in a body that is not kept.
    behind: u64,
    /// What lies before this offset can be read from the store, too.
    stored: u64,
    audience: Audience,
    readers: HashMap<u64, ReaderState>,
    next_reader: u64,
    writer: Option<Waker>,
}

/// One fetch, shared by its writer and its readers.
pub struct Fill<H, P, E> {
    state: Mutex<State<H, P, E>>,
    limits: Limits,
}

/// The side of the task that fetches. Dropped before the end, it cuts all readers: they never wait for nobody.
pub struct Writer<H, P, E> {
    fill: Arc<Fill<H, P, E>>,
    ended: bool,
}

/// One client's side.
pub struct Reader<H, P, E> {
    fill: Arc<Fill<H, P, E>>,
    id: u64,
    leader: bool,
    /// It came before the fetch began.
    early: bool,
}

/// The right to read on from a fetch for as long as it goes on, whatever others may join. It holds nothing of it.
pub struct Ticket<H, P, E> {
    fill: Weak<Fill<H, P, E>>,
    leader: bool,
    early: bool,
}

impl<H, P, E> std::fmt::Debug for Fill<H, P, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Fill")
            .field("received", &state.received)
            .field("kept", &state.kept)
            .field("readers", &state.readers.len())
            .finish_non_exhaustive()
    }
}

impl<H, P, E: Clone> Fill<H, P, E> {
    /// A fetch that begins: its writer, and the reader that began it.
    pub fn begin(limits: Limits) -> (Writer<H, P, E>, Reader<H, P, E>) {
        let state = State {
            stage: Stage::Asking,
            pieces: std::collections::VecDeque::new(),
            base: 0,
            start: 0,
            received: 0,
            end: None,
            kept: true,
            behind: limits.keep,
            stored: 0,
            audience: Audience::All,
            readers: HashMap::from([(0, ReaderState { position: 0, waker: None })]),
            next_reader: 1,
            writer: None,
        };
        let fill = Arc::new(Self { state: Mutex::new(state), limits });
        (
            Writer { fill: Arc::clone(&fill), ended: false },
            Reader { fill, id: 0, leader: true, early: true },
        )
    }

    /// A further reader, from the first byte; `None` when the response is not for sharing, the first bytes are gone,
    /// or too many read already. `early`: it came before the fetch began.
    pub fn join(self: &Arc<Self>, early: bool) -> Option<Reader<H, P, E>> {
        self.join_as(false, early)
    }
}

impl<H, P, E> Fill<H, P, E> {
    fn join_as(self: &Arc<Self>, leader: bool, early: bool) -> Option<Reader<H, P, E>> {
        let mut state = self.lock();
        let open = match &state.stage {
            Stage::Asking | Stage::Shared(_) => {
                state.kept
                    && state.audience.has(leader, early)
                    && !matches!(state.end, Some(Err(_)))
            }
            Stage::Private(_) | Stage::Failed(_) => false,
        };
        if !open || state.readers.len() >= self.limits.readers {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, ReaderState { position: 0, waker: None });
        Some(Reader { fill: Arc::clone(self), id, leader, early })
    }

    /// What all who wait have been told, once there is a response.
    pub fn head(&self) -> Option<Arc<H>> {
        match &self.lock().stage {
            Stage::Shared(head) => Some(Arc::clone(head)),
            _ => None,
        }
    }

    /// Readers now, the first client's included.
    pub fn readers(&self) -> usize {
        self.lock().readers.len()
    }

    /// Bytes of the body that this fill holds.
    pub fn held(&self) -> u64 {
        let state = self.lock();
        state.received - state.start
    }

    /// The offset of the first byte that this fill holds.
    pub fn start(&self) -> u64 {
        self.lock().start
    }

    /// A panic elsewhere leaves the state whole: every change below is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State<H, P, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes the readers outside the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State<H, P, E>) -> T) -> T {
        let (value, wakers) = {
            let mut state = self.lock();
            let value = change(&mut state);
            let wakers: Vec<Waker> =
                state.readers.values_mut().filter_map(|reader| reader.waker.take()).collect();
            (value, wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        value
    }
}

impl<H, P, E> Writer<H, P, E> {
    /// The fill, for those who may join.
    pub const fn fill(&self) -> &Arc<Fill<H, P, E>> {
        &self.fill
    }

    /// The body is a part of a whole that begins there. To be called before anything of it is pushed.
    pub fn begin_at(&self, offset: u64) {
        let mut state = self.fill.lock();
        (state.base, state.start, state.received) = (offset, offset, offset);
    }

    /// The response is for all who wait. With `keep`, its body is kept for those to come and for the store; a body
    /// that is not kept goes by in a window.
    pub fn share(&self, head: Arc<H>, keep: bool) {
        self.fill.change(|state| {
            state.stage = Stage::Shared(head);
            state.kept &= keep;
        });
    }

    /// The response is for some of those who wait, but its body is kept for the store. All others are released.
    pub fn share_with(&self, audience: Audience, head: Arc<H>) {
        self.fill.change(|state| {
            state.stage = Stage::Shared(head);
            state.audience = audience;
        });
    }

    /// The response is for the client that began the fetch alone. All others are released.
    pub fn keep_private(mut self, response: P) {
        self.ended = true;
        let unwanted = self.fill.change(|state| {
            state.kept = false;
            state.end = Some(Ok(()));
            let (wanted, unwanted) = if state.readers.contains_key(&0) {
                (Some(response), None)
            } else {
                (None, Some(response))
            };
            state.stage = Stage::Private(wanted.map(Box::new));
            unwanted
        });
        // Its client has gone: the connection is given up with it, outside the lock.
        drop(unwanted);
    }

    /// There is no response. All who wait learn the same.
    pub fn fail(mut self, error: E) {
        self.ended = true;
        self.fill.change(|state| {
            state.stage = Stage::Failed(error);
            state.kept = false;
            state.end = Some(Err(Cut::Short));
        });
    }

    /// More of the body. `false` once the body is no longer kept whole.
    pub fn push(&self, data: &[u8]) -> bool {
        let limits = self.fill.limits;
        self.fill.change(|state| {
            if data.is_empty() {
                return state.kept;
            }
            state.received += data.len() as u64;
            // Copied: a slice of a read buffer would hold all of that buffer in memory for as long as it is stored.
            let mut piece = Bytes::copy_from_slice(data);
            while let Some(last) = state.pieces.back()
                && last.data.len() <= piece.len()
                && last.data.len() + piece.len() <= SMALL_PIECE
            {
                let mut joined = BytesMut::with_capacity(last.data.len() + piece.len());
                joined.extend_from_slice(&last.data);
                joined.extend_from_slice(&piece);
                piece = joined.freeze();
                state.pieces.pop_back();
            }
            state.pieces.push_back(Piece { end: state.received, data: piece });
            state.kept &= state.received - state.base <= limits.keep;
            state.trim(&limits);
            state.kept
        })
    }

    /// What lies before this offset has been stored: readers find it there.
    pub fn stored_through(&self, offset: u64) {
        let mut state = self.fill.lock();
        state.stored = state.stored.max(offset);
        state.trim(&self.fill.limits);
    }

    /// The body has grown past what may be kept, by a rule of others (memory of all fills together).
    pub fn stop_keeping(&self) {
        self.fill.change(|state| state.kept = false);
    }

    /// Memory is short: who is further behind than the window in a body that is not kept is cut, from now on.
    pub fn shorten(&self) {
        let limits = &self.fill.limits;
        self.fill.change(|state| {
            state.behind = state.behind.min(limits.window);
            state.trim(limits);
        });
    }

    /// Ready when more of the body may be fetched: at once for a kept body, else when it is no more than `ahead` bytes
    /// before the fastest reader. `Ready(false)`: nobody is left to read a body that is not kept.
    pub fn poll_room(&self, cx: &Context<'_>, ahead: u64) -> Poll<bool> {
        let mut state = self.fill.lock();
        if state.kept {
            return Poll::Ready(true);
        }
        let Some(fastest) = state.readers.values().map(|reader| reader.position).max() else {
            return Poll::Ready(false);
        };
        if state.received.saturating_sub(fastest) < ahead.max(1) {
            return Poll::Ready(true);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The body ends well with `last`. `store` is given all its pieces, when all of them were kept here, before any
    /// reader can see the end: a client that asks again at once finds it stored.
    pub fn finish(mut self, last: &[u8], store: impl FnOnce(Option<Vec<Bytes>>)) {
        let pieces = {
            let state = self.fill.lock();
            let kept = state.kept
                && state.start == 0
                && state.received + last.len() as u64 <= self.fill.limits.keep;
            kept.then(|| {
                let pieces = state.pieces.iter().map(|piece| piece.data.clone());
                let last = (!last.is_empty()).then(|| Bytes::copy_from_slice(last));
                pieces.chain(last).collect()
            })
        };
        store(pieces);
        self.push(last);
        self.ended = true;
        self.fill.change(|state| state.end = Some(Ok(())));
    }
}

impl<H, P, E> Drop for Writer<H, P, E> {
    fn drop(&mut self) {
        if !self.ended {
            self.fill.change(|state| state.end = Some(Err(Cut::Short)));
        }
    }
}

impl Audience {
    const fn has(self, leader: bool, early: bool) -> bool {
        match self {
            Self::All => true,
            Self::Early => early,
            Self::Leader => leader,
        }
    }
}

impl<H, P, E> State<H, P, E> {
    /// Forgets what need not be here any more: of a body that is kept, what is stored and further back than the window;
    /// of another, what every reader has, and what is further back than any may be.
    fn trim(&mut self, limits: &Limits) {
        let from = if self.kept {
            self.stored.min(self.received.saturating_sub(limits.window))
        } else {
            let slowest =
                self.readers.values().map(|reader| reader.position).min().unwrap_or(self.received);
            slowest.max(self.received.saturating_sub(self.behind))
        };
        while self.pieces.front().is_some_and(|piece| piece.end <= from) {
            if let Some(piece) = self.pieces.pop_front() {
                self.start = piece.end;
            }
        }
    }
}

impl<H, P, E: Clone> Reader<H, P, E> {
    /// Whether this reader began the fetch.
    pub const fn is_leader(&self) -> bool {
        self.leader
    }

    /// The answer, when the fetch has one. A fetch that was given up without one has [`Poll::Ready`] `None`.
    pub fn poll_answer(&self, cx: &Context<'_>) -> Poll<Option<Answer<H, P, E>>> {
        let mut guard = self.fill.lock();
        let state = &mut *guard;
        Poll::Ready(match &mut state.stage {
            Stage::Shared(_) if !state.audience.has(self.leader, self.early) => {
                Some(match state.audience {
                    Audience::Early => Answer::TooLate,
                    Audience::All | Audience::Leader => Answer::Released,
                })
            }
            Stage::Shared(head) => Some(Answer::Shared(Arc::clone(head))),
            Stage::Private(response) => match response.take_if(|_| self.leader) {
                Some(response) => Some(Answer::Private(response)),
                None => Some(Answer::Released),
            },
            Stage::Failed(error) => Some(Answer::Failed(error.clone())),
            Stage::Asking if state.end.is_some() => None,
            Stage::Asking => {
                state.wait(self.id, cx);
                return Poll::Pending;
            }
        })
    }
}

impl<H, P, E> Reader<H, P, E> {
    /// With this, its client can leave and come back.
    pub fn ticket(&self) -> Ticket<H, P, E> {
        Ticket { fill: Arc::downgrade(&self.fill), leader: self.leader, early: self.early }
    }

    /// Whether all of the body has come and was kept: what is stored as it arrives is in the store then.
    pub fn is_kept_whole(&self) -> bool {
        let state = self.fill.lock();
        state.kept && state.end == Some(Ok(()))
    }

    /// Reading goes on at this offset. Bytes before it are not waited for, nor held.
    pub fn seek(&self, offset: u64) {
        let mut state = self.fill.lock();
        if let Some(reader) = state.readers.get_mut(&self.id) {
            reader.position = offset;
        }
    }

    /// The next bytes: all that are here in one piece, but at most so many (and one at least); the rest stays for the next
    /// call. `None`: the end of a body that ended well.
    pub fn poll_data(&self, cx: &Context<'_>, most: usize) -> Poll<Option<Result<Bytes, Cut>>> {
        let (result, writer) = {
            let mut guard = self.fill.lock();
            let state = &mut *guard;
            let Some(reader) = state.readers.get_mut(&self.id) else {
                return Poll::Ready(Some(Err(Cut::Short)));
            };
            let position = reader.position;
            if position < state.start {
                return Poll::Ready(Some(Err(Cut::Behind)));
            }
            let index = state.pieces.partition_point(|piece| piece.end <= position);
            let Some(piece) = state.pieces.get(index) else {
                return match state.end {
                    Some(Ok(())) => Poll::Ready(None),
                    Some(Err(cut)) => Poll::Ready(Some(Err(cut))),
                    None => {
                        state.wait(self.id, cx);
                        Poll::Pending
                    }
                };
            };
            let piece_start = piece.end - piece.data.len() as u64;
            // A piece is at most a read buffer long, so that the offset within it fits.
            let mut data = piece.data.slice(usize::try_from(position - piece_start).unwrap_or(0)..);
            data.truncate(most.max(1));
            // No further than what is handed out: what lies before the position of every reader may be forgotten.
            reader.position = position + data.len() as u64;
            let mut writer = None;
            if !state.kept {
                state.trim(&self.fill.limits);
                writer = state.writer.take();
            }
            (data, writer)
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Some(Ok(result)))
    }
}

impl<H, P, E> Ticket<H, P, E> {
    /// A reader at this offset. `None`: the fetch is over, or the bytes there have passed on.
    pub fn reader(&self, at: u64) -> Option<Reader<H, P, E>> {
        let fill = self.fill.upgrade().filter(|fill| fill.start() <= at)?;
        let reader = fill.join_as(self.leader, self.early)?;
        reader.seek(at);
        Some(reader)
    }
}

impl<H, P, E> State<H, P, E> {
    fn wait(&mut self, id: u64, cx: &Context<'_>) {
        if let Some(reader) = self.readers.get_mut(&id) {
            match &mut reader.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => reader.waker = Some(cx.waker().clone()),
            }
        }
    }
}

impl<H, P, E> Drop for Reader<H, P, E> {
    fn drop(&mut self) {
        let (writer, private) = {
            let mut state = self.fill.lock();
            state.readers.remove(&self.id);
            // A private response that its client did not take: its connection is given up with it.
            let private = match &mut state.stage {
                Stage::Private(response) if self.leader => response.take(),
                _ => None,
            };
            (state.writer.take(), private)
        };
        drop(private);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests;
