//! The bytes of one body for one client: from memory where they are there, from a fetch that goes on otherwise, from a disk,
//! and from a fetch that is begun for them where they are nowhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::body::SendError;
use super::disk::Part;
use super::fill_head::FillHead;
use super::fills::{FillReader, FillTicket};
use super::node::Node;
use super::part::Refetch;
use super::pool::FetchError;
use super::spill::{Use, from_version};
use crate::fill::{Answer, Cut};
use crate::semantics::range::ByteRange;
use crate::store::budget::Share;
use crate::store::{Object, Version};

/// A place in a body, and where its bytes are found.
pub struct Pull {
    place: Place,
    /// The next byte.
    at: u64,
    /// The offset after the last one; none: as far as the fetch goes.
    end: Option<u64>,
}

enum Place {
    /// Here, whole.
    Pieces { pieces: Pieces, piece: usize, skip: usize },
    /// In segments.
    Segments(Segments),
    /// In a fetch alone.
    Fill(FillReader),
}

enum Pieces {
    /// All of an object's body.
    Whole([Bytes; 2]),
    /// Held for this client: what goes from the store while it reads could not be had again.
    Held(Vec<Bytes>),
}

/// A body in segments.
struct Segments {
    used: Use,
    /// A fetch that brings some of them, and whether it was asked for a part alone.
    reader: Option<(FillReader, Brings)>,
    /// Fetches that have promised parts of this version. Others may not join them any more when it is their turn: a purge
    /// of what has been begun is for those who come later.
    promises: Vec<(FillTicket, Brings)>,
    /// A fetch that has been asked for one, and its answer is still to come; whether it was begun for others.
    asked: Option<(FillReader, bool)>,
    refetch: Option<Box<Refetch>>,
    /// A segment that is being read from a disk.
    below: Option<(u64, Part, Below)>,
    /// The last one that was asked of a disk before it was needed.
    ahead: u64,
    /// One that no disk could give.
    lost: Option<u64>,
    /// They are asked for again: what is read was not fetched for this client.
    again: bool,
    /// Fetches that were asked for the byte that is next.
    tries: usize,
    /// What is missing before this segment has been promised.
    promised: u64,
    /// From where the first bytes come.
    ready: Ready,
}

type Below = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

/// What a fetch brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brings {
    /// All of the body.
    All,
    /// This part of it, begun for whoever needs it.
    Part(ByteRange),
}

impl Brings {
    const fn end(self) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::Part(part) => part.end,
        }
    }

    const fn has(self, at: u64) -> bool {
        match self {
            Self::All => true,
            Self::Part(part) => part.start <= at && at <= part.end,
        }
    }
}

/// Fetches for one byte at most: another one is asked when what the first has brought has gone already, or it failed.
const MAX_TRIES: usize = 3;
/// Bytes after the first one that must be here, or promised in the same version, before anything is sent. A client whose
/// response has begun can only be cut when the origin turns out to have another version.
const PROMISED: u64 = 1 << 20;

/// The first bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// They are here.
    Here,
    /// They are on a disk.
    Below,
    /// They are being fetched.
    Fetched {
        /// By a fetch that was begun for others.
        collapsed: bool,
    },
}

/// Why there are no first bytes.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The next server has another version, or gives no parts.
    #[error("it is another version now")]
    Changed,
    /// The fetch failed.
    #[error(transparent)]
    Failed(FetchError),
}

type Polled = Poll<Option<Result<Bytes, SendError>>>;

impl Pull {
    /// All of a stored object. `None`: a part of it has gone, and cannot be had again.
    pub fn object(node: &Arc<Node>, object: &Object) -> Option<Self> {
        let end = Some(object.length());
        let Some(version) = object.version() else {
            let pieces = Pieces::Whole(object.whole()?);
            return Some(Self { place: Place::Pieces { pieces, piece: 0, skip: 0 }, at: 0, end });
        };
        let place = match version {
            version if object.is_combinable() && !node.store.is_unsegmented(&object.key()) => {
                Place::Segments(Segments::new(node, version, None))
            }
            version => {
                let memory = node.store.memory();
                let indices = 0..node.store.layout().count(object.length());
                let held = indices.map(|index| memory.segment(version, index));
                let pieces = Pieces::Held(held.collect::<Option<_>>()?);
                Place::Pieces { pieces, piece: 0, skip: 0 }
            }
        };
        Some(Self { place, at: 0, end })
    }

    /// All of a body that is on its way, of this length where that is known. With a version it is stored as it arrives.
    pub fn fill(
        node: &Arc<Node>,
        version: Option<&Arc<Version>>,
        reader: FillReader,
        length: Option<u64>,
    ) -> Self {
        let place = match version {
            Some(version) => {
                Place::Segments(Segments::new(node, version, Some((reader, Brings::All))))
            }
            None => Place::Fill(reader),
        };
        Self { place, at: 0, end: length }
    }

    /// All of an object of which `part` is on its way. Unless it `is_stored`, that part is all that there is.
    pub fn part(
        node: &Arc<Node>,
        object: &Arc<Object>,
        reader: FillReader,
        part: ByteRange,
        is_stored: bool,
    ) -> Self {
        let place = match object.version().filter(|_| is_stored) {
            Some(version) => {
                Place::Segments(Segments::new(node, version, Some((reader, Brings::Part(part)))))
            }
            None => Place::Fill(reader),
        };
        Self { place, at: 0, end: Some(object.length()) }
    }

    /// What is missing is fetched so.
    #[must_use]
    pub fn or_from(mut self, refetch: Option<Box<Refetch>>) -> Self {
        if let Place::Segments(segments) = &mut self.place {
            segments.refetch = refetch;
        }
        self
    }

    /// Goes on with this part.
    pub fn seek(&mut self, range: ByteRange) {
        self.at = range.start;
        self.end = Some(range.end.saturating_add(1));
        match &mut self.place {
            Place::Pieces { pieces, piece, skip } => (*piece, *skip) = pieces.find(range.start),
            Place::Segments(segments) => {
                if let Some((reader, _)) = &segments.reader {
                    reader.seek(range.start);
                }
            }
            Place::Fill(reader) => reader.seek(range.start),
        }
    }

    /// Bytes that are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// Ready when the next bytes are here, or fetches have promised them.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<Ready, NotReady>> {
        match &mut self.place {
            Place::Segments(segments) => segments.poll_ready(self.at, self.end, cx),
            Place::Pieces { .. } | Place::Fill(_) => Poll::Ready(Ok(Ready::Here)),
        }
    }

    /// The client takes nothing now: what can be had again is let go.
    pub fn rest(&mut self) {
        if let Place::Segments(segments) = &mut self.place {
            segments.rest();
        }
    }

    /// The next bytes. `None`: all have come, or the fetch has ended well. With a share that is a copy, they hold nothing
    /// of what is stored.
    pub fn poll_next(&mut self, cx: &Context<'_>, share: Share) -> Polled {
        if self.left() == Some(0) {
            return Poll::Ready(None);
        }
        let most = at_once(share, self.left());
        let polled = match &mut self.place {
            Place::Pieces { pieces, piece, skip } => {
                Poll::Ready(pieces.next(piece, skip, most).map(Ok))
            }
            Place::Fill(reader) => reader.poll_data(cx, most).map_err(SendError::from),
            Place::Segments(segments) => segments.poll_next(self.at, self.end, cx, share),
        };
        polled.map_ok(|data| {
            self.at += data.len() as u64;
            match share {
                Share::Stored => data,
                Share::Copy(_) => Bytes::copy_from_slice(&data),
            }
        })
    }
}

/// Bytes that a client with this share is given at once, of so many that are left for it.
fn at_once(share: Share, left: Option<u64>) -> usize {
    let most = match share {
        Share::Stored => usize::MAX,
        Share::Copy(most) => most.max(1),
    };
    left.map_or(most, |left| usize::try_from(left).unwrap_or(usize::MAX).min(most))
}

impl Pieces {
    /// The piece that holds a byte, and how many are before it there.
    fn find(&self, offset: u64) -> (usize, usize) {
        let (mut piece, mut rest) = (0, offset);
        while let Some(bytes) = self.get(piece)
            && rest >= bytes.len() as u64
        {
            rest -= bytes.len() as u64;
            piece += 1;
        }
        // Less than a piece, which is in memory.
        (piece, usize::try_from(rest).unwrap_or(0))
    }

    /// At most so many bytes from there on, after which the place is that of the next one.
    fn next(&self, piece: &mut usize, skip: &mut usize, most: usize) -> Option<Bytes> {
        let bytes = self.get(*piece)?;
        let from = (*skip).min(bytes.len());
        let end = from.saturating_add(most).min(bytes.len());
        match end == bytes.len() {
            true => (*piece, *skip) = (*piece + 1, 0),
            false => *skip = end,
        }
        Some(bytes.slice(from..end))
    }

    fn get(&self, at: usize) -> Option<&Bytes> {
        match self {
            Self::Whole(body) => body.get(at).filter(|piece| !piece.is_empty()),
            Self::Held(pieces) => pieces.get(at),
        }
    }
}

impl Segments {
    fn new(node: &Arc<Node>, version: &Arc<Version>, reader: Option<(FillReader, Brings)>) -> Self {
        Self {
            used: Use::begin(node, version),
            again: reader.is_none(),
            reader,
            promises: Vec::new(),
            asked: None,
            below: None,
            ahead: 0,
            lost: None,
            refetch: None,
            tries: 0,
            promised: 0,
            ready: Ready::Here,
        }
    }

    /// Lets go of a fetch that holds bytes which the store has, too, and which could be fetched again.
    fn rest(&mut self) {
        let Some(refetch) = &self.refetch else { return };
        let store = &self.used.node().store;
        let let_go = self.reader.take_if(|(reader, brings)| {
            (matches!(brings, Brings::Part(_)) || reader.is_kept_whole())
                && !store.is_unsegmented(&refetch.job.key)
        });
        if let Some((reader, brings)) = let_go {
            self.promises.push((reader.ticket(), brings));
        }
    }

    /// A reader of the fetch that has promised the byte there, if that goes on and still has it.
    fn promised(&mut self, at: u64) -> Option<(FillReader, Brings)> {
        // What comes before it has been read.
        self.promises.retain(|(_, brings)| brings.end() >= at);
        let of_it = self.promises.iter().position(|(_, brings)| brings.has(at))?;
        let (ticket, brings) = self.promises.swap_remove(of_it);
        Some((ticket.reader(at)?, brings))
    }

    /// The bytes from `at` on, as many as the share allows.
    fn poll_next(&mut self, at: u64, end: Option<u64>, cx: &Context<'_>, share: Share) -> Polled {
        let most = at_once(share, end.map(|end| end.saturating_sub(at)));
        loop {
            if let Some((reader, brings)) = &self.reader {
                match (reader.poll_data(cx, most), brings) {
                    // What it brought has been read. The rest is elsewhere, where there is one.
                    (Poll::Ready(None), _) if end.is_some() => self.reader = None,
                    (Poll::Ready(Some(Err(Cut::Behind))), _) => {}
                    // A part that was cut short can be had again.
                    (Poll::Ready(Some(Err(Cut::Short))), Brings::Part(_))
                        if self.refetch.is_some() && self.tries < MAX_TRIES =>
                    {
                        self.reader = None;
                    }
                    (polled, _) => {
                        if polled.is_ready() {
                            self.tries = 0;
                        }
                        return polled.map_err(SendError::from);
                    }
                }
            }
            let here = from_version(self.used.node(), self.used.version(), at, self.again);
            let data = match here {
                None => ready!(self.poll_below(at, end, cx)),
                here => here,
            };
            if let Some(mut data) = data {
                data.truncate(most);
                self.tries = 0;
                self.refetch.iter().for_each(|refetch| refetch.touch(self.used.node()));
                if let Some((reader, _)) = &self.reader {
                    reader.seek(at + data.len() as u64);
                }
                self.look_ahead(at, end);
                return Poll::Ready(Some(Ok(data)));
            }
            self.reader = self.promised(at);
            if self.reader.is_some() {
                continue;
            }
            // Who holds little asks for no more than what is next.
            let end = if share == Share::Stored { end } else { end.map(|end| end.min(at + 1)) };
            match ready!(self.poll_asked(at, end, cx)) {
                Ok(Asked::Stored) => {}
                Ok(Asked::Coming(reader, part, _)) => {
                    reader.seek(at);
                    self.reader = Some((reader, Brings::Part(part)));
                }
                // Another server may answer, or the same one by now.
                Err(NotReady::Failed(_)) if self.tries < MAX_TRIES => {}
                Err(error) => return Poll::Ready(Some(Err(SendError::Part(error)))),
            }
        }
    }

    /// Has the segment after this one read before it is needed, where it will be: one at a time.
    fn look_ahead(&mut self, at: u64, end: Option<u64>) {
        let (node, version) = (self.used.node(), self.used.version());
        let (Some(under), Some(end)) = (&node.under, end) else { return };
        let layout = node.store.layout();
        let next = layout.index(at) + 1;
        // Of the last one perhaps a part will do.
        if next > self.ahead && layout.start(next + 1) <= end {
            self.ahead = next;
            under.read_ahead(node, version, next);
        }
    }

    /// The bytes from there to the end of their segment, or to the end of what is wanted, read from a disk; none if no disk
    /// can give them.
    fn poll_below(&mut self, at: u64, end: Option<u64>, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let (node, version) = (self.used.node(), self.used.version());
        let Some(under) = &node.under else { return Poll::Ready(None) };
        let layout = node.store.layout();
        let index = layout.index(at);
        let within = |at: u64| usize::try_from(at - layout.start(index)).unwrap_or(usize::MAX);
        if self.below.as_ref().is_none_or(|(reading, ..)| *reading != index) {
            if self.lost == Some(index) || !under.has_segment(version, index) {
                return Poll::Ready(None);
            }
            let last = end.unwrap_or(u64::MAX).min(layout.start(index + 1));
            let part = under
                .is_read_in_part(version, index, last.saturating_sub(at))
                .then(|| (within(at), within(last.max(at))));
            let reading = Arc::clone(under).segment(Arc::clone(version), index, part);
            self.below = Some((index, part, Box::pin(reading)));
        }
        let Some((_, part, reading)) = &mut self.below else { return Poll::Ready(None) };
        let part = *part;
        let data = ready!(reading.as_mut().poll(&mut Context::from_waker(cx.waker())));
        self.below = None;
        let data = match part {
            // What one client needs, others may, too.
            None => data.inspect(|data| {
                node.store.memory().insert_segment(version, index, data.clone());
            }),
            Some(_) => data,
        };
        let skip = within(at).saturating_sub(part.map_or(0, |(start, _)| start));
        let data = data.filter(|data| skip < data.len()).map(|data| data.slice(skip..));
        if data.is_none() {
            self.lost = Some(index);
        }
        Poll::Ready(data)
    }

    /// Ready when all of the first bytes are here or promised.
    fn poll_ready(
        &mut self,
        at: u64,
        end: Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<Ready, NotReady>> {
        let layout = self.used.node().store.layout();
        let ahead = if self.used.node().reads_ahead() { PROMISED } else { 1 };
        let promised = at.saturating_add(ahead).min(end.unwrap_or(u64::MAX));
        let last = layout.index(promised.saturating_sub(1).max(at));
        loop {
            let first = self.promised.max(layout.index(at));
            if first > last {
                return Poll::Ready(Ok(self.ready));
            }
            match self.reader {
                Some((_, Brings::All)) => return Poll::Ready(Ok(self.ready)),
                Some((_, brings)) if brings.has(layout.start(first).max(at)) => {
                    self.promised = layout.index(brings.end()) + 1;
                    continue;
                }
                _ => {}
            }
            if let Some(under) = &self.used.node().under {
                under.look_for(self.used.version(), first, last + 1);
            }
            let Some(missing) = self.used.version().first_missing(first, last) else {
                let first = layout.index(at);
                let is_read = self.ready == Ready::Here
                    && self.used.version().is_below(first)
                    && !self.used.version().is_in_memory(first);
                return Poll::Ready(Ok(if is_read { Ready::Below } else { self.ready }));
            };
            self.promised = missing;
            let missing_at = layout.start(missing).max(at);
            let end = if ahead == PROMISED { end } else { end.map(|end| end.min(missing_at + 1)) };
            match ready!(self.poll_asked(missing_at, end, cx))? {
                // Unless it has gone again.
                Asked::Stored => {}
                Asked::Coming(reader, part, collapsed) => {
                    self.tries = 0;
                    self.ready = Ready::Fetched { collapsed };
                    self.promised = layout.index(part.end.max(missing_at)) + 1;
                    match missing_at == at {
                        true => {
                            reader.seek(at);
                            self.reader = Some((reader, Brings::Part(part)));
                        }
                        false => self.promises.push((reader.ticket(), Brings::Part(part))),
                    }
                }
            }
        }
    }

    /// Has the segment of a byte fetched. Ready when the fetch has its answer, or when it is there.
    fn poll_asked(
        &mut self,
        at: u64,
        end: Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<Asked, NotReady>> {
        if self.asked.is_none() {
            let Some(refetch) = &self.refetch else {
                return Poll::Ready(Err(NotReady::Changed));
            };
            self.tries += 1;
            if self.tries > MAX_TRIES {
                return Poll::Ready(Err(NotReady::Changed));
            }
            let layout = self.used.node().store.layout();
            let last = end.map_or(at, |end| end.saturating_sub(1));
            self.asked = refetch.ask(self.used.node(), layout.index(at), layout.index(last));
        }
        let Some((asked, _)) = &self.asked else {
            // It has just been stored.
            return Poll::Ready(Ok(Asked::Stored));
        };
        let answer = ready!(asked.poll_answer(cx));
        let Some((asked, collapsed)) = self.asked.take() else {
            return Poll::Ready(Ok(Asked::Stored));
        };
        Poll::Ready(match answer {
            Some(Answer::Shared(head)) => match &*head {
                FillHead::Part(part)
                    if part.object.version().map(|version| version.id())
                        == Some(self.used.version().id()) =>
                {
                    Ok(Asked::Coming(asked, part.taken, collapsed))
                }
                _ => Err(NotReady::Changed),
            },
            Some(Answer::Failed(error)) => Err(NotReady::Failed(error)),
            // Given up before an answer: asked again, by whoever comes first.
            None => Ok(Asked::Stored),
            Some(Answer::Private(_) | Answer::Released | Answer::TooLate) => Err(NotReady::Changed),
        })
    }
}

/// What has become of a segment that was asked for.
enum Asked {
    /// It has just been stored, or must be looked for again.
    Stored,
    /// A fetch brings it with this part, begun for others or not.
    Coming(FillReader, ByteRange, bool),
}
