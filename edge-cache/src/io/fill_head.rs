//! What a fetch tells all who wait for it, and what is known of purges where it begins.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::part::PartHead;
use crate::key::CacheKey;
use crate::purge::{Floor, Position, Tags, Verdict};
use crate::semantics::vary::{VariantKey, Vary};
use crate::semantics::{Reason, StoredHead};
use crate::store::{Object, Store, Version};

/// What a request knows of purges: to be asked for before the store is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    /// A fetch that it begins comes after these purges.
    pub fence: Position,
    /// What answers it must not be below: what the node that asks us needs.
    pub needed: Floor,
    /// When it came, as [`super::fills::Fills::arrive`] counts: a fetch that began later comes after it.
    pub arrived: Option<u64>,
}

/// What all who wait are told.
#[derive(Debug)]
pub enum FillHead {
    /// The stored response is good still.
    Revalidated {
        /// As updated.
        object: Arc<Object>,
        /// Why it is not stored any longer, if it is not.
        gone: Option<Reason>,
        /// Who said so.
        origin: Origin,
    },
    /// A part of an object; its bytes are read from the fill.
    Part(Box<PartHead>),
    /// No byte of what was asked for is there.
    Unsatisfied {
        /// The body's length, where that was told.
        complete: Option<u64>,
        /// Who said so.
        origin: Origin,
    },
    /// What was stored is no longer, or cannot be completed.
    LookAgain,
    /// A new response; its body is read from the fill.
    Response(Box<ResponseHead>),
}

/// Where a response came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `parent:NAME` or `origin:NAME`.
    pub upstream: Arc<str>,
    /// What a parent's cache said of it.
    pub cache_status: Vec<HeaderValue>,
}

/// A response that all who wait may have.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Fields, without those of the connection.
    pub headers: HeaderMap,
    /// The stored form, or why it is not stored.
    pub stored: Result<StoredHead, Reason>,
    /// The variant that it is.
    pub variant: VariantKey,
    /// Which request fields selected it.
    pub vary: Vary,
    /// The body's length, where it is known.
    pub length: Option<u64>,
    /// What its body is, when it is stored in segments as it arrives.
    pub version: Option<Arc<Version>>,
    /// Where it came from.
    pub origin: Origin,
    /// Purges up to this one came before its fetch.
    pub fence: Position,
    /// Its tags.
    pub tags: Tags,
}

impl FillHead {
    /// Whether it may answer who came later than its fetch, which began at `begun`: no purge of what it is has come since,
    /// hard or soft, and it is not below what is needed.
    pub(super) fn is_usable(
        &self,
        store: &Store,
        key: &CacheKey,
        needed: Floor,
        begun: Position,
    ) -> bool {
        let fences = store.fences();
        let of = |object: &Object| (object.fence(), fences.of_tags(object.tags()));
        let (fence, tagged) = match self {
            Self::Revalidated { object, .. } => of(object),
            Self::Part(part) => of(&part.object),
            Self::Response(head) => (head.fence, fences.of_tags(&head.tags)),
            Self::Unsatisfied { .. } | Self::LookAgain => return true,
        };
        let floor = needed.max(fences.of_key(key)).max(tagged);
        // A parent may have answered with what was purged softly, as it would have later.
        begun >= floor.newest() && floor.judge(fence) != Verdict::Purged
    }
}
