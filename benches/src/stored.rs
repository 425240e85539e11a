//! The memory tier of the cache node behind the interface of the compared policies.
//!
//! Objects are those that a fetch would store: key, head with the fields of a usual response, body in pieces. Only the
//! body's bytes are shared, all zeros, so that a cache of many gigabytes can be replayed on a small machine: the store
//! weighs lengths, not pages.

use std::sync::Arc;

use bytes::Bytes;
use edge_cache::key::{CacheKey, KeyRules};
use edge_cache::semantics::freshness::Exchange;
use edge_cache::semantics::vary::VariantKey;
use edge_cache::semantics::{Policy, StoredHead};
use edge_cache::store::{Memory, Object, ObjectKey};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::time::UnixMillis;

use crate::policy::{Cache, Item};
use crate::trace::Id;

/// The piece that bodies are read in.
const PIECE: usize = 64 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// The memory tier at its defaults.
pub struct Stored {
    memory: Memory,
}

impl Stored {
    /// An empty one. As in the node, a body may take an eighth of it at most.
    pub fn new(capacity: u64) -> Self {
        Self { memory: Memory::new(capacity, capacity / 8) }
    }
}

/// What an object of so many bytes weighs in the store.
pub fn weight(id: Id, bytes: u64) -> anyhow::Result<u64> {
    Ok(object(id, bytes)?.weight())
}

fn key(id: Id) -> CacheKey {
    let path = format!("/assets/{id:016x}.bin");
    let rules = KeyRules::default();
    CacheKey::new("http", "www.cdn.test", &path, None, &HeaderMap::new(), &rules)
}

/// An object as a fetch would store it.
pub fn object(id: Id, bytes: u64) -> anyhow::Result<Object> {
    let mut response = HeaderMap::new();
    response.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    response.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    response.insert(ETAG, HeaderValue::from_str(&format!("\"{id:x}\""))?);
    let now = UnixMillis::from_secs(1_800_000_000);
    let exchange = Exchange {
        method: &Method::GET,
        path: "/assets/object.bin",
        request: &HeaderMap::new(),
        status: StatusCode::OK,
        response: &response,
        request_time: now,
        response_time: now,
    };
    let head = StoredHead::new(&exchange, &Policy::default())
        .map_err(|reason| anyhow::anyhow!("the store refuses the benchmark's objects: {reason}"))?;
    let mut left = usize::try_from(bytes)?;
    let mut body = Vec::with_capacity(left.div_ceil(PIECE));
    while left > 0 {
        let piece = left.min(PIECE);
        body.push(Bytes::from_static(&ZEROS[..piece]));
        left -= piece;
    }
    Ok(Object::new(key(id), VariantKey::NONE, head, body))
}

impl Cache for Stored {
    fn request(&mut self, item: Item) -> bool {
        let place = ObjectKey { key: key(item.id).hash(), variant: VariantKey::NONE };
        if self.memory.get(place).is_some() {
            return true;
        }
        // `weight` has shown that the store takes such objects.
        if let Ok(object) = object(item.id, item.bytes) {
            self.memory.insert(Arc::new(object));
        }
        false
    }

    fn weight(&self) -> u64 {
        self.memory.stats().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_weigh_their_body_and_more() {
        let (small, large) = (weight(1, 100).unwrap(), weight(1, 1_000_000).unwrap());
        assert!((100..4_000).contains(&small), "{small}");
        assert!((1_000_000..1_010_000).contains(&large), "{large}");
    }

    #[test]
    fn the_store_keeps_what_it_is_given_within_its_capacity() {
        let mut stored = Stored::new(1 << 20);
        let item = |id, bytes| Item { id, bytes, weight: weight(id, bytes).unwrap() };
        assert!(!stored.request(item(1, 1_000)));
        assert!(stored.request(item(1, 1_000)));
        assert!(!stored.request(item(2, 1 << 18)), "more than an eighth is not stored");
        assert!(!stored.request(item(2, 1 << 18)));
        (3..500).for_each(|id| assert!(!stored.request(item(id, 10_000))));
        assert!(stored.weight() <= 1 << 20);
    }
}
