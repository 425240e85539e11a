//! What memory has not and the disks have, for a lookup: brought into memory, then decided on like everything else.
//!
//! Nothing is asked of a disk that its index does not name. What does not come in time is not waited for: the request goes
//! on without it.

use std::sync::Arc;

use http::HeaderMap;

use super::node::Node;
use crate::key::CacheKey;
use crate::purge::{Floor, Verdict};
use crate::semantics::vary::VariantKey;
use crate::store::{Below, Object, ObjectKey};

/// How often a lookup is begun anew, because something has changed under its key meanwhile.
const MAX_ROUNDS: usize = 8;
/// The same for somebody who wants to see all.
const MAX_SEEN: usize = 64;

/// What one request has had from the disks.
#[derive(Debug, Default)]
pub struct Brought {
    objects: Vec<Arc<Object>>,
    /// What could not be had.
    lost: Vec<(u128, VariantKey)>,
    no_variants: Vec<u128>,
}

impl Brought {
    /// The objects.
    pub fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }

    /// Whether this one has come from a disk for this request.
    pub fn has(&self, object: &Arc<Object>) -> bool {
        self.objects.iter().any(|brought| Arc::ptr_eq(brought, object))
    }
}

/// What is brought, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What answers a request: memory takes it like what a fetch brings.
    Memory,
    /// All that there is, for somebody who only looks: memory does not take it.
    Nothing,
}

/// Brings what a lookup for this request would ask for. `brought` is what the request has had before.
pub async fn bring(
    node: &Node,
    key: &CacheKey,
    headers: &HeaderMap,
    keep: Keep,
    brought: &mut Brought,
) {
    let Some(under) = &node.under else { return };
    let (store, hash) = (&node.store, key.hash());
    // What was brought for an earlier look may have been replaced since.
    brought.objects.retain(|object| !object.is_of(key));
    let rounds = if keep == Keep::Memory { MAX_ROUNDS } else { MAX_SEEN };
    for _ in 0..rounds {
        let turn = store.turn(hash);
        let missing = match keep {
            Keep::Memory => store.missing(key, headers),
            Keep::Nothing => store.missing_at_all(key),
        };
        if missing.variants && !brought.no_variants.contains(&hash) {
            let came = match under.variants(hash).await {
                Some(record) => store.promote_variants(hash, record, turn),
                None => false,
            };
            if !came && store.turn(hash) == turn {
                brought.no_variants.push(hash);
            }
            continue;
        }
        let known = |variant: &VariantKey| {
            let is = |object: &Arc<Object>| object.variant() == *variant && object.is_of(key);
            brought.lost.contains(&(hash, *variant)) || brought.objects.iter().any(is)
        };
        let Some(variant) = missing.objects.into_iter().find(|variant| !known(variant)) else {
            return;
        };
        let came = under.object(ObjectKey { key: hash, variant }).await;
        match came.filter(|object| object.is_of(key)) {
            Some(object) if store.judge(&object, Floor::default()) == Verdict::Purged => {
                // It is told apart from what never was there, and is not read again.
                brought.objects.push(Arc::clone(&object));
                if keep == Keep::Memory && store.turn(hash) == turn {
                    under.remove(object.place());
                }
            }
            Some(object) => {
                let current = match keep {
                    Keep::Memory => store.promote(&object, turn),
                    Keep::Nothing => store.turn(hash) == turn,
                };
                if current {
                    brought.objects.push(object);
                }
            }
            None => brought.lost.push((hash, variant)),
        }
    }
}

/// The key of a stored response that answers a request for this one because of its No-Vary-Search, if there is one.
pub async fn equivalent(
    node: &Node,
    key: &CacheKey,
    headers: &HeaderMap,
    needed: Floor,
    keep: Keep,
) -> Option<CacheKey> {
    let mut brought = Brought::default();
    if node.under.is_some() {
        for other in node.store.candidates(key) {
            bring(node, &other, headers, keep, &mut brought).await;
        }
    }
    node.store.equivalent(key, headers, needed, brought.objects())
}
