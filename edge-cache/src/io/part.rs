//! Parts of objects on their way into the store: the segments that somebody needs, asked for by range, and what their
//! answers make of what is stored.
//!
//! Parts are put together under one strong validator only (RFC 9111 §3.4). A part without one answers those who wait for
//! it and is not stored. An answer that is no part, or that says of itself what cannot be, is never used as one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body;

use super::fetch::Fetched;
use super::fill_head::{FillHead, Origin, Since};
use super::fill_task::{Job, Judged, audience, judged, keep, origin_of, receive};
use super::fills::{Entry, FillReader, FillWriter, Held, Joined, LARGEST_PART, WINDOW};
use super::node::Node;
use super::pool::FetchError;
use super::spill::Spill;
use crate::fill::Audience;
use crate::segment::plan::{Ask, Part, if_range, judge, next_ask};
use crate::semantics::conditional::same_strong_validator;
use crate::semantics::headers::strip_hop_by_hop;
use crate::semantics::range::{ByteRange, ContentRange};
use crate::semantics::{Reason, StoredHead};
use crate::store::{Object, Version};

/// What of a key and variant a fetch brings, as far as others can wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// All of it.
    Whole,
    /// A segment, of a stored version or of whatever there is.
    Segment {
        /// The stored version.
        version: Option<u64>,
        /// Which segment.
        index: u64,
    },
    /// The last segment of whatever there is.
    End,
}

impl Slot {
    /// Where those wait who need this first.
    pub const fn of(ask: Ask) -> Self {
        match ask {
            Ask::Run { first, .. } => Self::Segment { version: None, index: first },
            Ask::End => Self::End,
        }
    }
}

/// The part that a fetch is for.
#[derive(Clone, Debug)]
pub struct Wanting {
    /// What is asked.
    pub ask: Ask,
    /// The stored object that it completes; none: whatever object there is.
    pub of: Option<Arc<Object>>,
}

impl Wanting {
    /// The fields that ask for it.
    pub fn add_to(&self, node: &Node, headers: &mut HeaderMap) {
        headers.insert(RANGE, self.ask.range(node.store.layout()));
        if let Some(value) = self.of.as_ref().and_then(|object| if_range(&object.fields())) {
            headers.insert(IF_RANGE, value);
        }
    }
}

/// What those are told who wait for a part.
#[derive(Debug)]
pub struct PartHead {
    /// The object that it is a part of.
    pub object: Arc<Object>,
    /// The bytes that the fill brings.
    pub taken: ByteRange,
    /// The part is put together with others, in the store.
    pub is_stored: bool,
    /// It came with an Age: a cache before us had it.
    pub has_age: bool,
    /// Where it came from.
    pub origin: Origin,
}

/// How what is missing of a stored object is fetched.
pub struct Refetch {
    /// What is asked, and by which rules.
    pub job: Job,
    /// The object.
    pub object: Arc<Object>,
    /// What was known of purges when it was found.
    pub since: Since,
}

impl Refetch {
    /// Whoever reads a body on and on uses its head, too: it must not go before its segments.
    pub fn touch(&self, node: &Node) {
        let _ = node.store.memory().get(self.object.place());
    }

    /// A reader of the fetch of segment `index`, joined or begun. `wanted` is the last segment that the client wants.
    /// `None`: it has just been stored. Told also: whether the fetch is another's.
    pub fn ask(&self, node: &Arc<Node>, index: u64, wanted: u64) -> Option<(FillReader, bool)> {
        let Self { job, object, .. } = self;
        let version = object.version()?;
        self.touch(node);
        let layout = node.store.layout();
        if let Some(under) = &node.under {
            // What is on a disk is not fetched.
            under.look_for(version, index + 1, wanted.min(index + layout.index(LARGEST_PART)) + 1);
        }
        let place = |index| {
            let slot = Slot::Segment { version: Some(version.id()), index };
            (object.place().key, object.variant(), slot)
        };
        // What is fetched now comes after all purges that are known now.
        let since = Since { fence: node.positions.current(), ..self.since };
        let stored = |index| version.has(index);
        let at = Some(layout.start(index));
        let joined =
            node.fills
                .join_place(&node.store, &object.key(), place(index), since, at, || stored(index));
        let (mut task, ask) = match joined {
            Joined::Stored => return None,
            Joined::Reader(reader, _) => return Some((reader, true)),
            Joined::Begun(task) => {
                let has = |index| version.has(index);
                (task, next_ask(index, wanted, object.length(), layout, has))
            }
        };
        let mut ask = ask;
        if let Ask::Run { first, last } = &mut ask {
            // What others fetch already is theirs.
            *last = (*first + 1..=*last)
                .take_while(|index| task.also(node, place(*index)))
                .last()
                .unwrap_or(*first);
        }
        let mut job = job.clone();
        job.part = Some(Wanting { ask, of: Some(Arc::clone(object)) });
        Some((task.start(node, job), false))
    }
}

/// Takes the answer to a request for a part, unless it is one that [`receive`] takes: that comes back.
pub(super) async fn receive_part(
    node: &Arc<Node>,
    job: &Job,
    wanting: &Wanting,
    fetched: Fetched,
    writer: FillWriter,
    mut entry: Entry,
) {
    let layout = node.store.layout();
    let status = fetched.response.status();
    if status == StatusCode::PARTIAL_CONTENT {
        let length = fetched.response.body().size_hint().exact();
        let mut headers = fetched.response.headers().clone();
        strip_hop_by_hop(&mut headers);
        let part = judge(wanting.ask, layout, &headers, length);
        let differs = |part: &Part| {
            let of = wanting.of.as_ref();
            of.is_some_and(|object| {
                part.complete != object.length()
                    && same_strong_validator(&headers, &object.fields())
            })
        };
        match part.filter(|part| !differs(part)) {
            Some(part) => {
                return take(node, job, wanting, fetched, part, headers, writer, entry).await;
            }
            None => {
                tracing::warn!(
                    key = job.key.text(),
                    upstream = &*fetched.upstream,
                    "a part was asked for, and what came is none that can be used: the whole is asked for from now on"
                );
                node.store.mark_unsegmented(&job.key);
                return look_again(node, wanting, writer, &mut entry);
            }
        }
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        if wanting.of.is_some() {
            return look_again(node, wanting, writer, &mut entry);
        }
        let complete = match ContentRange::of(fetched.response.headers()) {
            Some(ContentRange::Unsatisfied { complete }) => Some(complete),
            _ => None,
        };
        // What is stored for the key is longer than what there is.
        job.stored.iter().for_each(|object| node.store.remove(object));
        entry.leave();
        let head = FillHead::Unsatisfied { complete, origin: origin_of(&fetched) };
        writer.share(Arc::new(head), false);
        return writer.finish(b"", drop);
    }
    if wanting.of.is_some() {
        if status.is_server_error() {
            entry.leave();
            return writer.fail(FetchError {
                reason: Reason::BadResponse,
                upstream: Arc::clone(&fetched.upstream),
                detail: format!("{status} to a request for a part of a stored object").into(),
            });
        }
        // RFC 9110 §13.1.5: the whole in place of the part says that it is another one, or that there are no parts.
        if same_strong_validator_as(wanting, fetched.response.headers()) {
            node.store.mark_unsegmented(&job.key);
        }
        return look_again(node, wanting, writer, &mut entry);
    }
    if status == StatusCode::OK {
        node.store.mark_unsegmented(&job.key);
    }
    receive(node, job, fetched, writer, entry).await;
}

fn same_strong_validator_as(wanting: &Wanting, headers: &HeaderMap) -> bool {
    wanting.of.as_ref().is_some_and(|object| same_strong_validator(headers, &object.fields()))
}

/// All who wait look again: what was stored cannot be completed, and is dropped.
fn look_again(node: &Node, wanting: &Wanting, writer: FillWriter, entry: &mut Entry) {
    if let Some(object) = &wanting.of {
        node.store.remove_version(object);
    }
    entry.leave();
    writer.share(Arc::new(FillHead::LookAgain), false);
    writer.finish(b"", drop);
}

#[expect(clippy::too_many_arguments, reason = "the parts of one exchange, each used once")]
async fn take(
    node: &Arc<Node>,
    job: &Job,
    wanting: &Wanting,
    mut fetched: Fetched,
    part: Part,
    mut headers: HeaderMap,
    writer: FillWriter,
    mut entry: Entry,
) {
    // Seen as the whole that it is a part of: what may be stored does not depend on the client's range.
    headers.remove(CONTENT_RANGE);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.complete));
    let same = same_strong_validator_as(wanting, &headers);
    // One that may be longer or shorter than it says is taken as a part, which is held against that to the end.
    let is_exact = fetched.response.body().size_hint().exact().is_some();
    if part.is_whole() && is_exact && !same {
        // RFC 9110 §15.3.7: all of it in one part is the whole.
        *fetched.response.status_mut() = StatusCode::OK;
        *fetched.response.headers_mut() = headers;
        if let Some(object) = &wanting.of {
            node.store.remove_version(object);
            entry.leave();
            writer.share(Arc::new(FillHead::LookAgain), false);
            return writer.finish(b"", drop);
        }
        return receive(node, job, fetched, writer, entry).await;
    }
    let layout = node.store.layout();
    let Judged { stored, vary, variant, .. } =
        judged(node, job, &fetched, &headers, StatusCode::OK, None);
    let mut held = Held::new(&node.fills);
    // As it is read, in a window where it is stored at the same time, and as it is put together for the store.
    let is_spilled = same_strong_validator(&headers, &headers);
    let window = if is_spilled { WINDOW + layout.size() } else { u64::MAX };
    let length = part.taken.length();
    let fits = held.take(length.min(window) + length.min(layout.size())).await;
    let (head, variant) = match (stored, variant) {
        (Ok(head), Some(variant)) if fits => (head, variant),
        (stored, _) => {
            if fits {
                node.store.mark_uncacheable(&job.key);
            }
            if wanting.of.is_some() {
                if fits {
                    return look_again(node, wanting, writer, &mut entry);
                }
                entry.leave();
                return writer.fail(FetchError {
                    reason: Reason::Overload,
                    upstream: Arc::clone(&fetched.upstream),
                    detail: "no memory is left for what is fetched".into(),
                });
            }
            entry.leave();
            let part = Some(part);
            return writer.keep_private(Fetched { not_stored: stored.err(), part, ..fetched });
        }
    };
    let audience = audience(&head);
    let version = match wanting.of.as_ref().and_then(|object| object.version()) {
        Some(version) if same => Arc::clone(version),
        _ => known_version(job, &headers)
            .unwrap_or_else(|| node.store.new_version(&job.key, variant)),
    };
    let object = match &wanting.of {
        // What is put together is as old as its oldest part.
        Some(object) if same && fetched.fence < object.fence() => {
            let head = StoredHead { fence: fetched.fence, ..object.head() };
            Arc::new(object.with_head(&head))
        }
        Some(object) if same => Arc::clone(object),
        _ => {
            let key = job.key.clone();
            let version = Arc::clone(&version);
            Arc::new(Object::segmented(key, variant, head, version, part.complete))
        }
    };
    let is_stored = object.is_combinable();
    writer.begin_at(part.taken.start);
    let (first, last) = (layout.index(part.taken.start), layout.index(part.taken.end));
    let mut spill = is_stored.then(|| Spill::new(node, &version, first, Some(part.complete)));
    if let Some(spill) = &spill {
        let id = Some(spill.version().id());
        for index in first..=last {
            let slot = Slot::Segment { version: id, index };
            entry.also((job.key.hash(), variant, slot));
        }
        if !wanting.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &object)) {
            node.store.note_vary(&job.key, &vary);
            keep(node, job, &object);
        }
    } else {
        // It can be put together with nothing: next time the whole, or, where that is too much, nothing is stored.
        match part.complete > node.store.memory().max_object() {
            true => node.store.mark_uncacheable(&job.key),
            false => node.store.mark_unsegmented(&job.key),
        }
    }
    if audience != Audience::All {
        entry.leave();
    }
    let origin = origin_of(&fetched);
    let has_age = fetched.response.headers().contains_key(AGE);
    let (taken, of) = (part.taken, Arc::clone(&object));
    let head = PartHead { object: of, taken, is_stored, has_age, origin };
    let head = Arc::new(FillHead::Part(Box::new(head)));
    // Who completes a stored object has been told that it may be used.
    let completes = wanting.of.is_some() && same;
    writer.share_with(if completes { Audience::All } else { audience }, head);
    let ended = bring(node, fetched, part, &writer, spill.as_mut()).await;
    if ended == Ended::Well {
        if let Some(spill) = spill.as_mut().filter(|_| part.taken.end + 1 == part.complete) {
            spill.finish();
        }
        return writer.finish(b"", |_| entry.leave());
    }
    tracing::warn!(key = job.key.text(), "a part of a response did not end as it said");
    if ended == Ended::Otherwise {
        node.store.remove_version(&object);
        node.store.mark_unsegmented(&job.key);
    }
}

/// The version that is stored already of what has this strong validator: a revalidation may be answered with a part of it.
fn known_version(job: &Job, headers: &HeaderMap) -> Option<Arc<Version>> {
    let same = |object: &&Arc<Object>| same_strong_validator(&object.fields(), headers);
    job.stored.iter().find(same).and_then(|object| object.version()).cloned()
}

/// How a part's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All of them came.
    Well,
    /// They were cut short.
    Cut,
    /// They were more or fewer than the part's fields say.
    Otherwise,
}

/// Brings a part's bytes to those who wait, and into the store.
async fn bring(
    node: &Node,
    fetched: Fetched,
    part: Part,
    writer: &FillWriter,
    mut spill: Option<&mut Spill>,
) -> Ended {
    let mut body = fetched.response.into_body();
    let mut skip = part.taken.start - part.sent.start;
    let mut left = part.taken.length();
    // Where all that is sent is taken, its end is part of what it says.
    let clipped = part.taken.end < part.sent.end;
    loop {
        if left == 0 && clipped {
            return Ended::Well;
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { continue };
                node.telemetry.bytes_in.add(data.len() as u64);
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
                skip -= skipped as u64;
                let _ = data.split_to(skipped);
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                if taken < data.len() && !clipped {
                    return Ended::Otherwise;
                }
                data.truncate(taken);
                left -= taken as u64;
                writer.push(&data);
                if let Some(spill) = &mut spill {
                    spill.push(&data);
                    writer.stored_through(spill.stored_through(writer.fill().start()));
                }
            }
            Some(Err(_)) => return Ended::Cut,
            None if left == 0 => return Ended::Well,
            None => return Ended::Otherwise,
        }
    }
}
