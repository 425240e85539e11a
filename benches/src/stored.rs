//! Objects of the cache node's store.
//!
//! They are those that a fetch would store: key, head with the fields of a usual response, body in pieces. Only the
//! body's bytes are shared, all zeros, so that a cache of many gigabytes can be replayed on a small machine: the store
//! weighs lengths, not pages.

use bytes::Bytes;
use edge_cache::key::{CacheKey, KeyRules};
use edge_cache::semantics::freshness::Exchange;
use edge_cache::semantics::vary::VariantKey;
use edge_cache::semantics::{Policy, StoredHead};
use edge_cache::store::Object;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::time::UnixMillis;

use crate::trace::Id;

/// The piece that bodies are read in.
const PIECE: usize = 64 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_weigh_their_body_and_more() {
        let weight = |bytes| object(1, bytes).unwrap().weight();
        let (small, large) = (weight(100), weight(1_000_000));
        assert!((100..4_000).contains(&small), "{small}");
        assert!((1_000_000..1_010_000).contains(&large), "{large}");
    }
}
