//! Which stored response answers a request with another query, because its No-Vary-Search says that the difference makes
//! none: for each path the few variances that its responses have had, and for each query as one of them sees it the key of
//! the newest response. Bounded; what is forgotten is a miss.
//!
//! It only names a candidate. Whether that is still stored, not purged and still says so, [`super::Store::equivalent`] sees.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::key::CacheKey;
use crate::semantics::search::{Canonical, Variance};

/// Variances of one path.
const MAX_VARIANCES: usize = 4;
/// What an entry costs beside its key's text.
const OVERHEAD: usize = 128;

/// The tables.
#[derive(Debug)]
pub(super) struct Searches {
    /// By [`CacheKey::without_query`], newest first.
    variances: moka::sync::Cache<u128, Arc<[Variance]>>,
    /// By the hash of path, variance and what of the query counts.
    newest: moka::sync::Cache<u128, CacheKey>,
}

impl Searches {
    /// For a store of `capacity` bytes: each table takes a hundredth of that at most.
    pub(super) fn new(capacity: u64) -> Self {
        let most = (capacity / 100).max(1 << 18);
        let cost = |length: usize| u32::try_from(length + OVERHEAD).unwrap_or(u32::MAX);
        Self {
            variances: moka::sync::Cache::builder()
                .max_capacity(most)
                .weigher(move |_, list: &Arc<[Variance]>| {
                    cost(list.iter().map(Variance::weight).sum())
                })
                .build(),
            newest: moka::sync::Cache::builder()
                .max_capacity(most)
                .weigher(move |_, key: &CacheKey| cost(key.text().len()))
                .build(),
        }
    }

    /// A response with this variance has been stored under a key.
    pub(super) fn learn(&self, key: &CacheKey, variance: &Variance) {
        let Some(canonical) = variance.canonical(key.query()) else { return };
        let path = key.without_query();
        let known = self.variances.get(&path);
        if known.as_ref().and_then(|list| list.first()) != Some(variance) {
            let others = known.iter().flat_map(|list| list.iter());
            let others = others.filter(|other| *other != variance).take(MAX_VARIANCES - 1);
            let list: Vec<_> = std::iter::once(variance).chain(others).cloned().collect();
            self.variances.insert(path, list.into());
        }
        self.newest.insert(place(path, variance, &canonical), key.clone());
    }

    /// The keys whose responses may answer a request for this one.
    pub(super) fn candidates(&self, key: &CacheKey) -> Vec<(CacheKey, Variance)> {
        let path = key.without_query();
        let Some(variances) = self.variances.get(&path) else { return Vec::new() };
        let candidate = |variance: &Variance| {
            let canonical = variance.canonical(key.query())?;
            let other = self.newest.get(&place(path, variance, &canonical))?;
            // Two that differ can have one hash.
            let same = other.same_but_query(key)
                && variance.canonical(other.query()).as_ref() == Some(&canonical);
            same.then(|| (other, variance.clone()))
        };
        variances.iter().filter_map(candidate).collect()
    }
}

fn place(path: u128, variance: &Variance, canonical: &Canonical) -> u128 {
    struct Feed(Xxh3);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            self.0.digest()
        }
    }
    let mut feed = Feed(Xxh3::new());
    (path, variance, canonical).hash(&mut feed);
    feed.0.digest128()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::key::KeyRules;

    fn key(query: Option<&str>) -> CacheKey {
        let none = HeaderMap::new();
        CacheKey::new("http", "a.test", "/a", query, &none, &KeyRules::default())
    }

    fn variance(value: &'static str) -> Variance {
        let mut headers = HeaderMap::new();
        headers.insert("no-vary-search", HeaderValue::from_static(value));
        Variance::of(&headers).unwrap()
    }

    #[test]
    fn no_vary_search_the_newest_equivalent_is_found() {
        let searches = Searches::new(1 << 20);
        assert!(searches.candidates(&key(Some("x=1"))).is_empty());
        searches.learn(&key(Some("id=1&x=1")), &variance("params=(\"x\")"));
        searches.learn(&key(Some("id=1&x=2")), &variance("params=(\"x\")"));
        let found = |query| {
            let found = searches.candidates(&key(query));
            found.iter().map(|(key, _)| key.url().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(Some("id=1&x=9")), ["http://a.test/a?id=1&x=2"]);
        assert_eq!(found(Some("id=1")), ["http://a.test/a?id=1&x=2"]);
        assert!(found(Some("id=2")).is_empty() && found(None).is_empty());
        searches.learn(&key(None), &variance("params, except=(\"id\")"));
        assert_eq!(found(Some("x=3")), ["http://a.test/a"]);
        for n in 0..10 {
            let text = format!("params=(\"p{n}\")");
            let mut headers = HeaderMap::new();
            headers.insert("no-vary-search", HeaderValue::from_str(&text).unwrap());
            searches.learn(&key(Some("z")), &Variance::of(&headers).unwrap());
        }
        let path = key(None).without_query();
        assert_eq!(searches.variances.get(&path).unwrap().len(), MAX_VARIANCES);
    }

    #[test]
    fn no_vary_search_other_keyed_fields_are_another_key() {
        let searches = Searches::new(1 << 20);
        let mut rules = KeyRules::default();
        rules.headers.push(http::HeaderName::from_static("x-a"));
        let key = |value: &'static str, query| {
            let mut headers = HeaderMap::new();
            headers.insert("x-a", HeaderValue::from_static(value));
            CacheKey::new("http", "a.test", "/a", Some(query), &headers, &rules)
        };
        searches.learn(&key("1", "x=1"), &variance("params"));
        assert_eq!(searches.candidates(&key("1", "x=2")).len(), 1);
        assert!(searches.candidates(&key("2", "x=2")).is_empty());
    }
}
