//! Fetches that go on, by what they bring: whoever wants the same joins them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::Notify;

use super::fetch::Fetched;
use super::fill_head::{FillHead, Since};
use super::node::Node;
use super::part::Slot;
use super::pool::FetchError;
use crate::fill::{Fill, Limits, Reader, Ticket, Writer};
use crate::key::CacheKey;
use crate::purge::Position;
use crate::semantics::vary::VariantKey;
use crate::store::{Object, Store};

/// What an unkept body may run ahead of its fastest reader…
const AHEAD: u64 = 1 << 20;
/// … and where each response may hold little.
const LITTLE_AHEAD: u64 = 16 << 10;
/// Those who wait for one fetch at most; more fetch for themselves.
const MAX_READERS: usize = 100_000;
/// Bytes that stay in a fill of what is stored as it arrives.
pub(super) const WINDOW: u64 = 1 << 20;
/// Bytes of a part at most.
pub(super) const LARGEST_PART: u64 = 8 << 20;
const SHARDS: usize = 64;

/// A fill as this program has it.
pub type FillShared = Fill<FillHead, Fetched, FetchError>;
/// Its reader.
pub type FillReader = Reader<FillHead, Fetched, FetchError>;
/// What a reader comes back with.
pub type FillTicket = Ticket<FillHead, Fetched, FetchError>;
pub(super) type FillWriter = Writer<FillHead, Fetched, FetchError>;

/// Fetches that go on, by key and variant.
pub struct Fills {
    shards: Vec<Shard>,
    /// Requests and fetches, in the order in which they came.
    arrivals: AtomicU64,
    /// Bytes that they hold, all together.
    held: AtomicU64,
    room: AtomicU64,
    /// Told when some of it is given back.
    given_back: Notify,
    waiting: AtomicUsize,
    keep: u64,
}

/// What a fetch brings.
pub type Place = (u128, VariantKey, Slot);
type Shard = Mutex<HashMap<Place, Going>>;

/// A fetch that goes on, and what it is known to have come after.
struct Going {
    fill: Arc<FillShared>,
    fence: Position,
    begun: u64,
}

/// What [`Fills::join`] found.
pub enum Joined {
    /// A fetch that goes on, and where it began.
    Reader(FillReader, Position),
    /// None: this one begins.
    Begun(Task),
    /// What was missing has just been stored.
    Stored,
}

/// A fetch that has been entered and must be [`Task::start`]ed.
pub struct Task {
    pub(super) writer: FillWriter,
    pub(super) reader: FillReader,
    pub(super) places: Vec<Place>,
    pub(super) fence: Position,
    pub(super) begun: u64,
}

impl Fills {
    /// For bodies of up to `max_object` bytes, in a memory of `memory` bytes.
    pub fn new(memory: u64, max_object: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            arrivals: AtomicU64::new(0),
            held: AtomicU64::new(0),
            room: AtomicU64::new((memory / 2).max(max_object)),
            given_back: Notify::new(),
            waiting: AtomicUsize::new(0),
            keep: max_object,
        }
    }

    /// A number for a request that may wait for a fetch, or for a fetch: larger than all that were given before.
    pub fn arrive(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::SeqCst)
    }

    /// Bytes of bodies on their way into the store.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// They may hold so much from now on, but always one whole body.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes.max(self.keep), Ordering::Relaxed);
    }

    fn tell_one(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.given_back.notify_one();
        }
    }

    /// The same as a share of what they may hold.
    pub fn fullness(&self) -> f64 {
        self.held() as f64 / self.room.load(Ordering::Relaxed).max(1) as f64
    }

    /// Fetches that others can join.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// Those who read from them, or wait to. A fetch that brings several places counts once.
    pub fn readers(&self) -> usize {
        let mut seen: HashMap<*const FillShared, usize> = HashMap::new();
        for shard in &self.shards {
            let fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            seen.extend(
                fills.values().map(|going| (Arc::as_ptr(&going.fill), going.fill.readers())),
            );
        }
        seen.values().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The longest body that is stored whole.
    pub const fn keep(&self) -> u64 {
        self.keep
    }

    fn limits(&self) -> Limits {
        Limits { keep: self.keep.max(LARGEST_PART), window: WINDOW, readers: MAX_READERS }
    }

    fn shard(&self, place: Place) -> Option<&Shard> {
        let part = match place.2 {
            Slot::Segment { index, .. } => index as usize,
            Slot::Whole | Slot::End => 0,
        };
        self.shards.get((place.0 as usize ^ place.1.0 as usize ^ part) % SHARDS)
    }

    /// A reader of the fetch of this key and variant, or of a part of it, or a new fetch. `known` is what the caller found
    /// stored: when something else is there by now, it looks again.
    #[expect(clippy::too_many_arguments, reason = "what is wanted, and what is known of it")]
    pub fn join(
        &self,
        store: &Store,
        key: &CacheKey,
        variant: VariantKey,
        headers: &HeaderMap,
        known: Option<&Arc<Object>>,
        since: Since,
        slot: Slot,
    ) -> Joined {
        // Whoever wants a part waits for the whole where that is being fetched.
        let whole = (key.hash(), variant, Slot::Whole);
        if slot != Slot::Whole
            && let Some(shard) = self.shard(whole)
            && let fills = shard.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some((reader, begun)) = current(&fills, whole, store, key, since, None)
        {
            return Joined::Reader(reader, begun);
        }
        let is_stored = || match store.lookup(key, headers, since.needed) {
            crate::store::Found::Object(object) => {
                known.is_none_or(|known| !Arc::ptr_eq(known, &object))
            }
            _ => false,
        };
        self.join_place(store, key, (key.hash(), variant, slot), since, None, is_stored)
    }

    /// The same for one place of a key, and what shows that it has been stored meanwhile. A fetch that began before a
    /// purge of what it brings is not joined, nor one that has let go of what is to be read, `at` this offset: the new one
    /// takes its place.
    pub fn join_place(
        &self,
        store: &Store,
        key: &CacheKey,
        place: Place,
        since: Since,
        at: Option<u64>,
        is_stored: impl FnOnce() -> bool,
    ) -> Joined {
        let Some(shard) = self.shard(place) else { return Joined::Begun(self.alone(since)) };
        let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((reader, begun)) = current(&fills, place, store, key, since, at) {
            return Joined::Reader(reader, begun);
        }
        // A fetch is stored before it leaves the table, so that under the table's lock one of the two shows it.
        if is_stored() {
            return Joined::Stored;
        }
        let (writer, reader) = Fill::begin(self.limits());
        let (fence, begun) = (since.fence, self.arrive());
        fills.insert(place, Going { fill: Arc::clone(writer.fill()), fence, begun });
        Joined::Begun(Task { writer, reader, places: vec![place], fence, begun })
    }

    /// Enters a fetch for a further place, unless somebody else fetches that and began no earlier.
    fn enter(&self, place: Place, fill: &Arc<FillShared>, fence: Position, begun: u64) -> bool {
        let Some(shard) = self.shard(place) else { return false };
        let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let going = Going { fill: Arc::clone(fill), fence, begun };
        match fills.entry(place) {
            MapEntry::Occupied(other) if other.get().fence >= fence => false,
            MapEntry::Occupied(mut older) => {
                older.insert(going);
                true
            }
            MapEntry::Vacant(vacant) => {
                vacant.insert(going);
                true
            }
        }
    }

    /// A fetch that nobody joins.
    pub fn alone(&self, since: Since) -> Task {
        let (writer, reader) = Fill::begin(self.limits());
        Task { writer, reader, places: Vec::new(), fence: since.fence, begun: self.arrive() }
    }
}

/// What an unkept body may run ahead of its fastest reader.
pub(super) fn ahead(node: &Node) -> u64 {
    if node.reads_ahead() { AHEAD } else { LITTLE_AHEAD }
}

/// A reader of the fetch of a place, if one goes on that began after all purges of what it brings.
fn current(
    fills: &HashMap<Place, Going>,
    place: Place,
    store: &Store,
    key: &CacheKey,
    since: Since,
    at: Option<u64>,
) -> Option<(FillReader, Position)> {
    let going = fills.get(&place)?;
    // What has passed on into the store may have gone from there.
    if at.is_some_and(|at| at < going.fill.start()) {
        return None;
    }
    let floor = since.needed.max(store.fences().of_key(key));
    let usable = |head: Arc<FillHead>| head.is_usable(store, key, floor, going.fence);
    let current = going.fence >= floor.newest() && going.fill.head().is_none_or(usable);
    let early = since.arrived.is_some_and(|arrived| arrived < going.begun);
    if current { Some((going.fill.join(early)?, going.fence)) } else { None }
}

impl Task {
    /// Enters it for a further place. `false`: somebody else fetches that.
    pub fn also(&mut self, node: &Node, place: Place) -> bool {
        let entered = node.fills.enter(place, self.writer.fill(), self.fence, self.begun);
        if entered {
            self.places.push(place);
        }
        entered
    }
}

/// The fetch's places in the table; left when dropped.
pub(super) struct Entry {
    pub(super) node: Arc<Node>,
    pub(super) places: Vec<Place>,
    pub(super) fill: Arc<FillShared>,
    pub(super) fence: Position,
    pub(super) begun: u64,
}

impl Entry {
    /// Enters it for a further place, unless somebody else fetches that, or nobody is to join it.
    pub(super) fn also(&mut self, place: Place) {
        if self.places.is_empty() || self.places.contains(&place) {
            return;
        }
        if self.node.fills.enter(place, &self.fill, self.fence, self.begun) {
            self.places.push(place);
        }
    }

    pub(super) fn leave(&mut self) {
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
pub(super) struct Held<'a> {
    fills: &'a Fills,
    bytes: u64,
}

/// For how long a fetch waits for room at most. Those that have room need no more of it to end.
const PATIENCE: Duration = Duration::from_secs(20);

impl<'a> Held<'a> {
    pub(super) const fn new(fills: &'a Fills) -> Self {
        Self { fills, bytes: 0 }
    }

    /// It holds this many now. `false` when there is no room for more than before.
    pub(super) fn set(&mut self, bytes: u64) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.fills.held.fetch_sub(before - bytes, Ordering::Relaxed);
            self.fills.tell_one();
            return true;
        }
        let more = bytes - before;
        let held = self.fills.held.fetch_add(more, Ordering::Relaxed) + more;
        held <= self.fills.room.load(Ordering::Relaxed)
    }

    /// It is to hold this many, and holds nothing yet: waits until there is room. `false` when that takes too long; it
    /// holds nothing then.
    pub(super) async fn take(&mut self, bytes: u64) -> bool {
        if self.try_take(bytes) {
            return true;
        }
        self.fills.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waits(&self.fills.waiting);
        // What was given back before it counted as one who waits was told to nobody.
        if self.try_take(bytes) {
            return true;
        }
        let taken = async {
            loop {
                // Told before it waits, it does not wait. In turn, so that a crowd is not woken for one.
                self.fills.given_back.notified().await;
                if self.try_take(bytes) {
                    return;
                }
            }
        };
        let taken = tokio::time::timeout(PATIENCE, taken).await.is_ok();
        // There may be room for the next one, too; who gives up passes on what it was told.
        self.fills.tell_one();
        taken
    }

    fn try_take(&mut self, bytes: u64) -> bool {
        let room = self.fills.room.load(Ordering::Relaxed);
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= room);
        let taken = self.fills.held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
