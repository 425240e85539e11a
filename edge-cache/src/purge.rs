//! Purges by fences: what is stored is older than a purge, or it is not, and one comparison of numbers tells.
//!
//! Every purge has a [`Position`]; every stored object and every fetch has a *fence*: the position at which its fetch
//! began, the lower of its own and its parent's. A purge of a URL, prefix, host, tag or of everything writes its position
//! down once ([`Fences::apply`]); what has a lower fence is purged ([`Fences::judge`]). So a purge costs the same whatever
//! is stored, nothing is searched for, what a fetch brings that began before the purge is purged as it arrives, and the
//! order in which purges come makes no difference.
//!
//! Positions come from outside, see [`Positions`]. Memory is bounded: where there is no room to remember a purge for
//! itself, more is purged than was asked for, never less (`purge::table`). What purged objects take in the store is freed as
//! that of others is: by what is stored in their place, and by eviction.
//!
//! **Through the tiers.** A request to a parent says which [`Floor`] its answer must not be below, and the answer says its
//! fence ([`FENCE`]). A parent whose copy is older does not answer from it, nor from a fetch that began before; what it then
//! fetches has at least that position as its fence, for the request proves that the fetch began after it. So a purge on the
//! edge alone holds against a parent that has the old bytes still.
//!
//! **Restarts.** Where a node has a folder for it, purges are written down ([`log`]) and read again before anything stored
//! is looked at: what was purged stays purged, on this node and, by the floors of its requests, through its parents. What
//! it stores on disk has no fence above the last position that is written down, so that all purges after a restart are
//! above all fences from before it, whatever the wall clock says. Without such a folder a node that starts has nothing
//! stored and knows of no purge: one that was given to it alone is forgotten with its process. Positions must not begin
//! with the clock: a fence says what a fetch is known to have come after, and a node that has just started knows only of
//! what it has read.

pub mod log;
pub mod tags;
pub mod target;

mod ledger;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::time::UnixMillis;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{CacheKey, host_of};
use table::{Marks, Table};

pub use ledger::{Ledger, Record};
pub use tags::{TagList, Tags};
pub use target::Target;

/// Between nodes of one CDN. In a request to a parent: the [`Floor`] of its answer. In the answer: its fence.
pub const FENCE: HeaderName = HeaderName::from_static("meridian-fence");

const URL_SEED: u64 = 3;
const PREFIX_SEED: u64 = 4;
const HOST_SEED: u64 = 5;
/// A position further ahead of the clock is a mistake: after it, no other could be told apart for that long.
const MAX_AHEAD_MICROS: u64 = 3_600_000_000;

/// The place of a purge in the order of all purges. 0 is before every one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a purge does to what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is not used again.
    #[default]
    Hard,
    /// It is stale: validated before it is used again, or while it is, where the response allows that.
    Soft,
}

/// What a fence shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has come after all purges that concern it.
    Current,
    /// A soft purge has come after it.
    Stale,
    /// A hard one has.
    Purged,
}

/// Positions that an answer's fence must not be below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Of the last hard purge: what is below it is not used.
    pub hard: Position,
    /// Of the last soft one: what is below it is stale.
    pub soft: Position,
}

impl Floor {
    /// Both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) }
    }

    /// The later of the two.
    pub fn newest(self) -> Position {
        self.hard.max(self.soft)
    }

    /// What it says of something with this fence.
    pub fn judge(self, fence: Position) -> Verdict {
        if fence < self.hard {
            Verdict::Purged
        } else if fence < self.soft {
            Verdict::Stale
        } else {
            Verdict::Current
        }
    }

    /// For a request to a parent: `HARD/SOFT`; none where there is nothing to say.
    pub fn to_field(self) -> Option<HeaderValue> {
        if self == Self::default() {
            return None;
        }
        HeaderValue::try_from(format!("{}/{}", self.hard, self.soft)).ok()
    }

    /// From a request. Positions that no node can have given at `now` are not believed.
    pub fn of_request(headers: &HeaderMap, now: UnixMillis) -> Option<Self> {
        let (hard, soft) = headers.get(&FENCE)?.to_str().ok()?.split_once('/')?;
        let floor = Self { hard: number(hard)?, soft: number(soft)? };
        is_plausible(floor.newest(), now).then_some(floor)
    }
}

/// Takes the fence out of a parent's answer. A parent that tells none is not known to have come after anything.
pub fn take_fence(headers: &mut HeaderMap) -> Position {
    let told = headers.remove(&FENCE);
    told.and_then(|value| number(value.to_str().ok()?)).unwrap_or_default()
}

/// The field of an answer to a node of this CDN.
pub fn fence_field(fence: Position) -> HeaderValue {
    HeaderValue::from(fence.0)
}

fn number(text: &str) -> Option<Position> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Position)
}

/// Whether a position from outside can be one.
pub fn is_plausible(position: Position, now: UnixMillis) -> bool {
    position.0 <= micros(now).saturating_add(MAX_AHEAD_MICROS)
}

const fn micros(now: UnixMillis) -> u64 {
    now.0.saturating_mul(1000)
}

/// The last position that a node knows of, and how it numbers the purges that come without one.
///
/// Numbers grow over restarts and can be compared between nodes, as far as their clocks agree, because they are
/// microseconds since 1970. Where a log numbers the purges, its numbers take their place.
#[derive(Debug, Default)]
pub struct Positions(AtomicU64);

impl Positions {
    /// The fence of what begins now.
    pub fn current(&self) -> Position {
        Position(self.0.load(Ordering::SeqCst))
    }

    /// Another node knows of this one: what is numbered from here on is later.
    pub fn observe(&self, position: Position) {
        // Most requests bring nothing new, and do not write to what all cores read.
        if position > self.current() {
            self.0.fetch_max(position.0, Ordering::SeqCst);
        }
    }

    /// A position for a purge that has come without one.
    pub fn next(&self, now: UnixMillis) -> Position {
        let later = |last: u64| last.saturating_add(1).max(micros(now));
        let last =
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(later(last)));
        Position(later(last.unwrap_or_else(|last| last)))
    }

    /// The position at which a purge that has come with one takes effect here: that one, unless something later is known
    /// here already. A fetch that began since could have a higher fence and be older than this purge, where the clocks of the
    /// nodes do not agree; the next position is safe.
    pub fn claim(&self, wanted: Position, now: UnixMillis) -> Position {
        if self.0.fetch_max(wanted.0, Ordering::SeqCst) < wanted.0 {
            wanted
        } else {
            self.next(now)
        }
    }
}

/// What kind of thing a purge covers. The numbers stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Url = 1,
    Prefix = 2,
    Host = 3,
    /// A tag, or a group.
    Tag = 4,
    All = 5,
}

/// What a purge covers, as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    scope: Scope,
    hash: u64,
}

impl Subject {
    fn of(target: &Target) -> Self {
        let hash = |seed, text: &str| xxh3_64_with_seed(text.as_bytes(), seed);
        let (scope, hash) = match target {
            Target::Url(url) => (Scope::Url, hash(URL_SEED, url)),
            Target::Prefix(prefix) => (Scope::Prefix, hash(PREFIX_SEED, prefix)),
            Target::Host(host) => (Scope::Host, hash(HOST_SEED, host)),
            Target::Tag(tag) => (Scope::Tag, tags::tag_hash(tag)),
            Target::Group { origin, name } => (Scope::Tag, tags::group_hash(origin, name)),
            Target::All => (Scope::All, 0),
        };
        Self { scope, hash }
    }
}

/// The last purges of everything that was purged.
#[derive(Debug)]
pub struct Fences {
    /// The newest of all. Nothing else is looked at for what is not below it.
    latest: AtomicU64,
    all: Marks,
    urls: Table,
    prefixes: Table,
    hosts: Table,
    tags: Table,
}

impl Fences {
    /// For a node with a store of `capacity` bytes: the tables take a fiftieth of that at most, from their first purge on.
    pub fn new(capacity: u64) -> Self {
        let urls = usize::try_from(capacity / 2048).unwrap_or(usize::MAX).clamp(4096, 1 << 18);
        Self {
            latest: AtomicU64::new(0),
            all: Marks::default(),
            urls: Table::new(urls),
            prefixes: Table::new(urls / 16),
            hosts: Table::new(urls / 64),
            tags: Table::new(urls / 4),
        }
    }

    /// A purge at this position.
    pub fn apply(&self, target: &Target, kind: Kind, at: Position) {
        self.raise(Subject::of(target), kind, at);
    }

    fn raise(&self, subject: Subject, kind: Kind, at: Position) {
        match self.table(subject.scope) {
            Some(table) => table.raise(subject.hash, kind, at),
            None => self.all.raise(kind, at),
        }
        self.latest.fetch_max(at.0, Ordering::SeqCst);
    }

    /// The floor of a bucket, `(of so many, at)`, of a table that was written down; none where no table has such a bucket.
    fn raise_floor(&self, scope: Scope, (count, at): (usize, usize), floor: Floor) -> Option<()> {
        let table = self.table(scope).filter(|_| count.is_power_of_two() && at < count)?;
        table.raise_floor(count, at, floor);
        self.latest.fetch_max(floor.newest().0, Ordering::SeqCst);
        Some(())
    }

    const fn table(&self, scope: Scope) -> Option<&Table> {
        match scope {
            Scope::Url => Some(&self.urls),
            Scope::Prefix => Some(&self.prefixes),
            Scope::Host => Some(&self.hosts),
            Scope::Tag => Some(&self.tags),
            Scope::All => None,
        }
    }

    /// The newest purge of anything.
    pub fn latest(&self) -> Position {
        Position(self.latest.load(Ordering::SeqCst))
    }

    /// The last purges of a key by its URL, a prefix of it, its host, or of everything.
    pub fn of_key(&self, key: &CacheKey) -> Floor {
        self.of_url(key.url())
    }

    /// The same for the URL of a key ([`CacheKey::url`]).
    pub fn of_url(&self, url: &str) -> Floor {
        if self.latest() == Position::default() {
            return Floor::default();
        }
        let mut floor = self.all.get();
        let hash = |seed, text: &str| xxh3_64_with_seed(text.as_bytes(), seed);
        if self.urls.is_used() {
            floor = floor.max(self.urls.get(hash(URL_SEED, url)));
        }
        let (start, end) = path_of(url);
        if self.hosts.is_used() {
            let authority = url.get(..start).and_then(|url| url.split_once("://"));
            let host = host_of(authority.map_or("", |(_, authority)| authority));
            floor = floor.max(self.hosts.get(hash(HOST_SEED, host)));
        }
        if self.prefixes.is_used() {
            let path = url.get(start..end).unwrap_or_default();
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            for end in ends.take(target::MAX_DEPTH + 1) {
                let prefix = url.get(..start + end).unwrap_or_default();
                floor = floor.max(self.prefixes.get(hash(PREFIX_SEED, prefix)));
            }
        }
        floor
    }

    /// The last purges of any of these tags.
    pub fn of_tags<'a>(&self, tags: impl Into<TagList<'a>>) -> Floor {
        let tags = tags.into();
        if tags.is_empty() || !self.tags.is_used() {
            return Floor::default();
        }
        if tags.has_all() {
            return self.tags.newest();
        }
        tags.hashes().fold(Floor::default(), |floor, hash| floor.max(self.tags.get(hash)))
    }

    /// What the purges say of an object with this fence, and who asks for one that is not below `needed`. For an object
    /// that has come after all of them that is one comparison.
    pub fn judge<'a>(
        &self,
        url: &str,
        tags: impl Into<TagList<'a>>,
        fence: Position,
        needed: Floor,
    ) -> Verdict {
        if fence >= self.latest() {
            return needed.judge(fence);
        }
        needed.max(self.of_url(url)).max(self.of_tags(tags)).judge(fence)
    }
}

/// Where the path of a normalised URL begins, and where it ends.
fn path_of(url: &str) -> (usize, usize) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(authority..).unwrap_or_default();
    let start = authority + rest.find('/').unwrap_or(rest.len());
    (start, url.find('?').unwrap_or(url.len()).max(start))
}

#[cfg(test)]
mod tests;
