//! The task that owns a fetch into the store: asks, judges the answer, and gives it to all who wait or to one.
//!
//! It runs until the response has ended, whoever still reads. While it runs, others who want the same find it in
//! [`Fills`].

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use super::ask::Outgoing;
use super::fenced::fetch_current;
use super::fetch::{Fetched, Wanted};
pub use super::fill_head::{FillHead, Origin, ResponseHead, Since};
use super::node::{Node, RouteTarget, Tier};
use super::pool::FetchError;
use super::spill::Spill;
use crate::fill::{Fill, Limits, Reader, Writer};
use crate::key::CacheKey;
use crate::lookup::is_origin_error;
use crate::purge::{Floor, Position, Tags, Verdict};
use crate::route::Route;
use crate::semantics::conditional::{Updated, add_revalidation, apply_304, select_by_304};
use crate::semantics::freshness::Exchange;
use crate::semantics::headers::strip_hop_by_hop;
use crate::semantics::vary::{VariantKey, Vary};
use crate::semantics::{Policy, Reason, StoredHead};
use crate::store::{Object, Store};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What an unkept body may run ahead of its fastest reader.
const AHEAD: u64 = 1 << 20;
/// Those who wait for one fetch at most; more fetch for themselves.
const MAX_READERS: usize = 100_000;
/// Bytes that stay in a fill of what is stored as it arrives.
const WINDOW: u64 = 1 << 20;
const SHARDS: usize = 64;

/// A fill as this program has it.
pub type FillShared = Fill<FillHead, Fetched, FetchError>;
/// Its reader.
pub type FillReader = Reader<FillHead, Fetched, FetchError>;
type FillWriter = Writer<FillHead, Fetched, FetchError>;

/// Fetches that go on, by key and variant.
pub struct Fills {
    shards: Vec<Shard>,
    /// Bytes that they hold, all together.
    held: AtomicU64,
    max_held: u64,
    keep: u64,
}

type Place = (u128, VariantKey);
type Shard = Mutex<HashMap<Place, Going>>;

/// A fetch that goes on, and what it is known to have come after.
struct Going {
    fill: Arc<FillShared>,
    fence: Position,
}

/// What [`Fills::join`] found.
pub enum Joined {
    /// A fetch that goes on.
    Reader(FillReader),
    /// None: this one begins.
    Begun(Task),
    /// What was missing has just been stored.
    Stored,
}

/// A fetch that has been entered and must be [`Task::start`]ed.
pub struct Task {
    writer: FillWriter,
    reader: FillReader,
    place: Option<Place>,
    fence: Position,
}

impl Fills {
    /// For bodies of up to `max_object` bytes, in a memory of `memory` bytes.
    pub fn new(memory: u64, max_object: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            held: AtomicU64::new(0),
            max_held: (memory / 2).max(max_object),
            keep: max_object,
        }
    }

    /// Bytes of bodies on their way into the store.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The same as a share of what they may hold.
    pub fn fullness(&self) -> f64 {
        self.held() as f64 / self.max_held.max(1) as f64
    }

    /// Fetches that others can join.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// Those who read from them, or wait to.
    pub fn readers(&self) -> usize {
        let of = |shard: &Shard| -> usize {
            let fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            fills.values().map(|going| going.fill.readers()).sum()
        };
        self.shards.iter().map(of).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn limits(&self) -> Limits {
        Limits { keep: self.keep, ahead: AHEAD, window: WINDOW, readers: MAX_READERS }
    }

    fn shard(&self, place: Place) -> Option<&Shard> {
        self.shards.get((place.0 as usize ^ place.1.0 as usize) % SHARDS)
    }

    /// A reader of the fetch of this key and variant, or a new fetch. `known` is what the caller found stored: when
    /// something else is there by now, it looks again. A fetch that began before a purge of what it brings is not joined:
    /// the new one takes its place.
    pub fn join(
        &self,
        store: &Store,
        key: &CacheKey,
        variant: VariantKey,
        headers: &HeaderMap,
        known: Option<&Arc<Object>>,
        since: Since,
    ) -> Joined {
        let place = (key.hash(), variant);
        let Some(shard) = self.shard(place) else { return Joined::Begun(self.alone(since)) };
        let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let current = fills.get(&place).filter(|going| {
            let fences = store.fences();
            let floor = since.needed.max(fences.of_key(key));
            match going.fill.head() {
                None => going.fence >= floor.newest(),
                Some(head) => {
                    going.fence >= floor.max(fences.of_tags(head.tags())).newest()
                        && head.is_usable(store, key, since.needed)
                }
            }
        });
        if let Some(reader) = current.and_then(|going| going.fill.join()) {
            return Joined::Reader(reader);
        }
        // A fetch is stored before it leaves the table, so that under the table's lock one of the two shows it.
        if let crate::store::Found::Object(object) = store.lookup(key, headers, since.needed)
            && known.is_none_or(|known| !Arc::ptr_eq(known, &object))
        {
            return Joined::Stored;
        }
        let (writer, reader) = Fill::begin(self.limits());
        let fence = since.fence;
        fills.insert(place, Going { fill: Arc::clone(writer.fill()), fence });
        Joined::Begun(Task { writer, reader, place: Some(place), fence })
    }

    /// A fetch that nobody joins.
    pub fn alone(&self, since: Since) -> Task {
        let (writer, reader) = Fill::begin(self.limits());
        Task { writer, reader, place: None, fence: since.fence }
    }
}

/// What a fetch is for.
pub struct Job {
    /// The key that it fills.
    pub key: CacheKey,
    /// The route.
    pub route: Arc<Route<RouteTarget>>,
    /// The route's policy.
    pub policy: Arc<Policy>,
    /// The site's parents, where they are to be asked.
    pub tier: Option<Arc<Tier>>,
    /// What is asked.
    pub wanted: Wanted,
    /// The client's fields, which select the variant.
    pub client: HeaderMap,
    /// Those of them that are not sent.
    pub unsent: Vec<HeaderName>,
    /// Those that are sent only because responses of the key vary by them.
    pub varied: Vec<HeaderName>,
    /// What is stored for the key: validated if possible.
    pub stored: Vec<Arc<Object>>,
    /// Whether a stored response may be served should this fail: an error then takes nothing's place.
    pub fallback: bool,
}

impl Task {
    /// Starts it; the reader is the client's that began it.
    pub fn start(self, node: &Arc<Node>, mut job: Job) -> FillReader {
        let Self { writer, reader, place, fence } = self;
        job.wanted.fence = fence;
        let node = Arc::clone(node);
        let entry = Entry {
            node: Arc::clone(&node),
            places: place.into_iter().collect(),
            fill: Arc::clone(writer.fill()),
            fence,
        };
        tokio::spawn(async move { run(&node, job, writer, entry).await });
        reader
    }
}

/// The fetch's places in the table; left when dropped.
struct Entry {
    node: Arc<Node>,
    places: Vec<Place>,
    fill: Arc<FillShared>,
    fence: Position,
}

impl Entry {
    /// Enters it for a further variant, unless somebody else fetches that and began no earlier.
    fn also(&mut self, place: Place) {
        if self.places.is_empty() || self.places.contains(&place) {
            return;
        }
        if let Some(shard) = self.node.fills.shard(place) {
            let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            if fills.get(&place).is_none_or(|going| going.fence < self.fence) {
                fills.insert(place, Going { fill: Arc::clone(&self.fill), fence: self.fence });
                self.places.push(place);
            }
        }
    }

    fn leave(&mut self) {
        for place in self.places.drain(..) {
            let Some(shard) = self.node.fills.shard(place) else { continue };
            let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            if fills.get(&place).is_some_and(|going| Arc::ptr_eq(&going.fill, &self.fill)) {
                fills.remove(&place);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Bytes held by a fill, taken from what all of them may hold.
struct Held<'a> {
    fills: &'a Fills,
    bytes: u64,
}

impl Held<'_> {
    /// It holds this many now. `false` when there is no room for more than before.
    fn set(&mut self, bytes: u64) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.fills.held.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let more = bytes - before;
        self.fills.held.fetch_add(more, Ordering::Relaxed) + more <= self.fills.max_held
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

async fn run(node: &Arc<Node>, job: Job, writer: FillWriter, mut entry: Entry) {
    let mut wanted = job.wanted.clone();
    let heads = || job.stored.iter().map(|object| &object.head.headers);
    let selects =
        |object: &Arc<Object>| object.head.vary.variant(&job.client) == Some(object.variant);
    let selected = job.stored.iter().all(selects);
    let conditional = add_revalidation(&mut wanted.headers, heads(), selected);
    let tier = job.tier.as_deref();
    let tags = &job.policy.tags;
    let fetch = |wanted| fetch_current(node, &job.route, tier, wanted, tags, Outgoing::Empty);
    let mut fetched = match fetch(&wanted).await {
        Ok(fetched) => fetched,
        Err(error) => return fail(writer, &mut entry, error),
    };
    if conditional && fetched.response.status() == StatusCode::NOT_MODIFIED {
        match revalidated(node, &job, &fetched) {
            Some(Validated { object, shared }) => {
                let origin = origin_of(&fetched);
                let head = Arc::new(FillHead::Revalidated(object, origin));
                entry.leave();
                if shared {
                    writer.share(head, false);
                } else {
                    writer.share_with_leader(head);
                }
                writer.finish(b"", drop);
                return;
            }
            // It speaks of nothing that we have: asked again, for the whole.
            None => {
                let floor = job.wanted.floor.max(node.store.fences().of_key(&job.key));
                let fence = node.positions.current();
                fetched = match fetch(&Wanted { fence, floor, ..job.wanted.clone() }).await {
                    Ok(fetched) => fetched,
                    Err(error) => return fail(writer, &mut entry, error),
                };
            }
        }
    }
    receive(node, &job, fetched, writer, entry).await;
}

fn fail(writer: FillWriter, entry: &mut Entry, error: FetchError) {
    // Those who come from now on try for themselves; all who wait learn this.
    entry.leave();
    writer.fail(error);
}

fn origin_of(fetched: &Fetched) -> Origin {
    let cache_status = fetched.response.headers().get_all(CACHE_STATUS);
    Origin {
        upstream: Arc::clone(&fetched.upstream),
        cache_status: cache_status.iter().cloned().collect(),
    }
}

/// A stored object that a 304 has updated.
struct Validated {
    object: Arc<Object>,
    /// It may answer others than the client that had it validated.
    shared: bool,
}

/// The stored object that a 304 speaks of, updated; `None` when there is none.
fn revalidated(node: &Node, job: &Job, fetched: &Fetched) -> Option<Validated> {
    let mut headers = fetched.response.headers().clone();
    strip_hop_by_hop(&mut headers);
    let at = select_by_304(job.stored.iter().map(|object| &object.head.headers), &headers)?;
    // Purged meanwhile: that it has not changed does not bring it back.
    let object = job
        .stored
        .get(at)
        .filter(|object| node.store.judge(object, job.wanted.floor) != Verdict::Purged)?;
    let updated = apply_304(
        &object.head,
        &job.wanted.path,
        &job.client,
        &headers,
        fetched.request_time,
        fetched.response_time,
        &job.policy,
    );
    match updated {
        Updated::Head(head) => {
            let head = head.arrived(fetched.arrived);
            let head = head.jittered(job.policy.ttl.jitter, job.key.hash(), &node.name);
            let head = head.fenced(fetched.fence, &job.policy, &job.wanted.origin());
            let mut new = object.with_head(head);
            new.head.vary = new.head.vary.with(&job.varied);
            // A 304 may say that another variant than the one selected answers this request, too.
            new.variant = new.head.vary.variant(&job.client)?;
            let new = Arc::new(new);
            if new.variant != object.variant
                && object.head.vary.variant(&job.client) == Some(object.variant)
            {
                // The 304 changed Vary: what it updated does not stay beside the update.
                node.store.remove(object);
            }
            keep(node, job, &new);
            Some(Validated { shared: new.head.may_be_shared(), object: new })
        }
        Updated::UseOnce(head, _) => {
            node.store.remove(object);
            let head = head.arrived(fetched.arrived);
            Some(Validated { object: Arc::new(object.with_head(head)), shared: false })
        }
        Updated::Changed => None,
    }
}

/// Stores what a fill has brought, unless it has been purged meanwhile: it would take the place of something newer.
/// `false`: it is too large.
fn keep(node: &Node, job: &Job, object: &Arc<Object>) -> bool {
    node.store.judge(object, Floor::default()) == Verdict::Purged
        || node.store.put(Arc::clone(object), job.policy.vary.max)
}

/// Gives a response to all who may have it, and keeps it for those to come.
async fn receive(
    node: &Arc<Node>,
    job: &Job,
    fetched: Fetched,
    writer: FillWriter,
    mut entry: Entry,
) {
    let (status, length) = (fetched.response.status(), fetched.response.body().size_hint().exact());
    let mut headers = fetched.response.headers().clone();
    strip_hop_by_hop(&mut headers);
    let exchange = Exchange {
        method: &Method::GET,
        path: &job.wanted.path,
        request: &job.client,
        status,
        response: &headers,
        request_time: fetched.request_time,
        response_time: fetched.response_time,
    };
    let layout = node.store.layout();
    let too_large = length.is_some_and(|length| length > node.store.memory().max_object());
    let head = StoredHead::new(&exchange, &job.policy);
    let fence = fetched.fence;
    let tags = Tags::of(&headers, &job.policy.tags, &job.wanted.origin());
    let at_rest = |head: StoredHead| {
        let head = head.arrived(fetched.arrived).jittered(
            job.policy.ttl.jitter,
            job.key.hash(),
            &node.name,
        );
        StoredHead { fence, tags: tags.clone(), ..head }
    };
    let mut stored = match head.map(at_rest) {
        Ok(_) if status == StatusCode::PARTIAL_CONTENT => Err(Reason::UnaskedPart),
        Ok(_) if too_large => Err(Reason::TooLarge),
        Ok(_) if job.fallback && is_origin_error(status) => Err(Reason::StaleIfError),
        other => other,
    };
    let vary = Vary::of(&headers).of_sent(&job.policy).with(&job.varied);
    if let Ok(stored) = &mut stored {
        stored.vary = vary.clone();
    }
    let mut variant = vary.variant(&job.client);
    if stored.is_ok() && vary.names().iter().any(|name| job.unsent.contains(name)) {
        node.store.note_vary(&job.key, &vary);
        stored = Err(Reason::VaryUnsent);
        variant = Some(VariantKey::NOBODYS);
    }
    let mut held = Held { fills: &node.fills, bytes: 0 };
    // What is longer than a segment is stored as it arrives: a window and a segment of it are held.
    let in_segments = length.is_none_or(|length| length > layout.size());
    let needed = length.unwrap_or(0).min(WINDOW + layout.size());
    if stored.is_ok() && !held.set(needed) {
        stored = Err(Reason::Overload);
    }
    // An error is told to all who wait: each asking for itself would be the worst that they could do to an origin that
    // fails. What is somebody's own is not.
    let common_error = status.is_server_error()
        && !too_large
        && matches!(
            stored,
            Err(Reason::NoLifetime
                | Reason::NoReuse
                | Reason::NotStoredByPolicy
                | Reason::StaleIfError)
        );
    let variant = match (&stored, variant) {
        (Ok(_) | Err(Reason::VaryUnsent), Some(variant)) => variant,
        _ if common_error => variant.unwrap_or(VariantKey::NONE),
        _ => {
            if !status.is_server_error() && !matches!(stored, Err(Reason::Overload)) {
                node.store.mark_uncacheable(&job.key);
            }
            entry.leave();
            writer.keep_private(Fetched { not_stored: stored.err(), ..fetched });
            return;
        }
    };
    let may_share = match &stored {
        Ok(stored) => stored.may_be_shared(),
        // All who wait learn that it is not theirs, and go on together by what they have of the field.
        Err(reason) => common_error || *reason == Reason::VaryUnsent,
    };
    if stored.is_ok() {
        node.store.note_vary(&job.key, &vary);
        if job.policy.no_vary_search {
            node.store.note_search(&job.key, &headers);
        }
    }
    if stored.is_ok() && may_share {
        entry.also((job.key.hash(), variant));
    } else {
        // An error is for those who wait already, not for those to come.
        entry.leave();
    }
    let origin = origin_of(&fetched);
    let stored_head = stored.as_ref().ok().cloned();
    let mut spill = (stored.is_ok() && in_segments)
        .then(|| Spill::new(node, node.store.new_version(), 0, length));
    let version = spill.as_ref().map(|spill| Arc::clone(spill.version()));
    let head = ResponseHead {
        status,
        headers,
        stored,
        variant,
        vary,
        length,
        version,
        origin,
        fence,
        tags,
    };
    let head = Arc::new(FillHead::Response(Box::new(head)));
    if may_share {
        writer.share(head, true);
    } else {
        writer.share_with_leader(head);
    }

    let mut body = fetched.response.into_body();
    let mut kept = true;
    let mut received = 0u64;
    let last = loop {
        if !poll_fn(|cx| writer.poll_room(cx)).await {
            tracing::debug!(key = job.key.text(), "nobody reads a body that is not kept any more");
            return;
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                node.telemetry.bytes_in.add(data.len() as u64);
                received += data.len() as u64;
                if body.is_end_stream() {
                    break data;
                }
                let mut keeps = writer.push(&data);
                if kept && keeps {
                    if let Some(spill) = &mut spill {
                        spill.push(&data);
                        writer.stored_through(spill.stored_through(writer.fill().start()));
                    }
                    if !held.set(needed.max(writer.fill().held())) {
                        writer.stop_keeping();
                        keeps = false;
                    }
                }
                if kept && !keeps {
                    kept = false;
                    held.set(0);
                    entry.leave();
                    node.store.mark_uncacheable(&job.key);
                }
            }
            Some(Err(error)) => {
                // Dropping the writer cuts all who read.
                let upstream = &*fetched.upstream;
                tracing::warn!(key = job.key.text(), upstream, %error, "a response was cut short; nothing of it is stored");
                return;
            }
            None => break Bytes::new(),
        }
    };
    kept &= received <= node.fills.keep;
    if let Some(spill) = spill.as_mut().filter(|_| kept && received > layout.size()) {
        spill.push(&last);
        spill.finish();
    }
    writer.finish(&last, |pieces| {
        if let (true, Some(head)) = (kept, stored_head) {
            let key = job.key.clone();
            let object = match (&spill, pieces) {
                (Some(spill), _) if received > layout.size() => {
                    let version = Arc::clone(spill.version());
                    Object::segmented(key, variant, head, version, received)
                }
                (_, pieces) => Object::new(key, variant, head, pieces.unwrap_or_default()),
            };
            if !keep(node, job, &Arc::new(object)) {
                node.store.mark_uncacheable(&job.key);
            }
        }
        entry.leave();
    });
}
