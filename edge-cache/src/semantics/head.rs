//! A stored response without its body: what [`crate::lookup::decide`] looks at.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use shared::time::UnixMillis;

use super::freshness::{Exchange, Lifetimes};
use super::vary::Vary;
use crate::purge::{Position, Tags};
use crate::tier::name_hash;

use super::{Policy, Reason, compress, headers};

/// The head of a stored response.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// Its status. A stored 206 has the status 206.
    pub status: StatusCode,
    /// Its fields, without those of the connection, without Age, Cache-Status and Proxy-Status.
    pub headers: HeaderMap,
    /// When the request for it was sent (or the last revalidation's); see [`Self::arrived`].
    pub request_time: UnixMillis,
    /// When its head arrived (or the last revalidation's), by the clock of those who ask for its age.
    pub response_time: UnixMillis,
    /// Its age when it arrived (RFC 9111 §4.2.3: corrected_initial_age).
    pub initial_age: Duration,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
    /// Which request fields selected it.
    pub vary: Vary,
    /// Purges up to this one are known to have come before its fetch, or before its last revalidation. 0 until the fetch
    /// says more.
    pub fence: Position,
    /// What purges by tag find it by; none until the fetch reads them.
    pub tags: Tags,
}

/// What a stored response's age and lifetime are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// [`StoredHead::response_time`].
    pub response_time: UnixMillis,
    /// [`StoredHead::initial_age`].
    pub initial_age: Duration,
    /// How long it may be used.
    pub lifetimes: Lifetimes,
}

impl Life {
    /// RFC 9111 §4.2.3: current_age.
    pub fn current_age(&self, now: UnixMillis) -> Duration {
        self.initial_age.saturating_add(now.since(self.response_time))
    }

    /// What is left of its lifetime in milliseconds; negative once it is stale.
    pub fn remaining_millis(&self, now: UnixMillis) -> i64 {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        millis(self.lifetimes.fresh).saturating_sub(millis(self.current_age(now)))
    }
}

impl StoredHead {
    /// What its age and lifetime are counted from.
    pub const fn life(&self) -> Life {
        Life {
            response_time: self.response_time,
            initial_age: self.initial_age,
            lifetimes: self.lifetimes,
        }
    }

    /// The head to store for an exchange, or why it is not stored (RFC 9111 §3).
    ///
    /// The request headers are those of the *client*, before the fields that do not reach the origin are taken off:
    /// the caller computes the variant from the same ones.
    pub fn new(exchange: &Exchange<'_>, policy: &Policy) -> Result<Self, Reason> {
        let lifetimes = super::freshness::storable(exchange, policy)?;
        let Exchange { status, request_time, response_time, .. } = *exchange;
        let mut headers = exchange.response.clone();
        headers::strip_for_storage(&mut headers);
        headers::ensure_date(&mut headers, response_time);
        if !policy.compress.is_empty() && compress::may_be_encoded(status, &headers) {
            compress::mark(&mut headers);
        }
        Ok(Self {
            status,
            vary: Vary::of(&headers).of_sent(policy),
            initial_age: super::freshness::initial_age(
                exchange.response,
                request_time,
                response_time,
            ),
            headers,
            request_time,
            response_time,
            lifetimes,
            fence: Position::default(),
            tags: Tags::default(),
        })
    }

    /// With what purges judge it by. `origin` is scheme and authority of its URL.
    #[must_use]
    pub fn fenced(mut self, fence: Position, policy: &Policy, origin: &str) -> Self {
        self.tags = Tags::of(&self.headers, &policy.tags, origin);
        self.fence = fence;
        self
    }

    /// With a lifetime shortened by up to the share `jitter`, so that what was fetched together does not expire together.
    /// How much is drawn by key and node, not by chance: the same on every fetch, another on every node.
    #[must_use]
    pub fn jittered(mut self, jitter: f64, key: u128, node: &str) -> Self {
        if jitter > 0.0 {
            let draw = xxhash_rust::xxh3::xxh3_64_with_seed(&key.to_le_bytes(), name_hash(node));
            // 53 bits are what a double holds exactly: from 0 up to, never reaching, 1.
            let unit = (draw >> 11) as f64 / (1u64 << 53) as f64;
            self.lifetimes.fresh = self.lifetimes.fresh.mul_f64(1.0 - jitter.min(0.5) * unit);
        }
        self
    }

    /// With its times by another clock, on which it arrived then. Dates are compared by the wall clock, as their senders
    /// do; how long a response has rested is measured by one that is never set.
    #[must_use]
    pub fn arrived(mut self, then: UnixMillis) -> Self {
        let took = self.response_time.since(self.request_time);
        (self.request_time, self.response_time) = (then - took, then);
        self
    }

    /// RFC 9111 §4.2.3: current_age.
    pub fn current_age(&self, now: UnixMillis) -> Duration {
        self.life().current_age(now)
    }

    /// What is left of its lifetime in milliseconds; negative once it is stale.
    pub fn remaining_millis(&self, now: UnixMillis) -> i64 {
        self.life().remaining_millis(now)
    }

    /// Whether the response, as it arrived, may answer others than the client it was fetched for: it was fresh then, or may
    /// be used stale. Those who wait for it are released otherwise.
    pub fn may_be_shared(&self) -> bool {
        let Lifetimes { fresh, while_revalidate, no_cache, .. } = self.lifetimes;
        !no_cache && fresh.saturating_add(while_revalidate) > self.initial_age
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(784_111_777);

    fn head(fields: &[(&'static str, &'static str)]) -> Result<StoredHead, Reason> {
        let response: HeaderMap = fields
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect();
        let exchange = Exchange {
            method: &Method::GET,
            path: "/",
            request: &HeaderMap::new(),
            status: StatusCode::OK,
            response: &response,
            request_time: UnixMillis(NOW.0 - 500),
            response_time: NOW,
        };
        StoredHead::new(&exchange, &Policy::default())
    }

    /// RFC 9111 §4.2.3: Age counts in, time at rest counts on, and the clock set back does not make it younger than it came.
    #[test]
    fn rfc9111_4_2_3_age_and_life() {
        let head = head(&[
            ("cache-control", "max-age=60"),
            ("age", "10"),
            ("x-a", "b"),
            ("vary", "accept, x"),
        ])
        .unwrap();
        assert_eq!(head.headers.get("date").unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(!head.headers.contains_key("age") && head.headers.contains_key("x-a"));
        assert_eq!(head.vary.names(), ["accept", "x"]);
        for (after, age, left) in
            [(0, 10_500, 49_500), (30_000, 40_500, 19_500), (60_000, 70_500, -10_500)]
        {
            let now = UnixMillis(NOW.0 + after);
            assert_eq!(head.current_age(now).as_millis(), age);
            assert_eq!(head.remaining_millis(now), left);
        }
        assert_eq!(head.current_age(UnixMillis(0)).as_millis(), 10_500);
        assert!(head.remaining_millis(UnixMillis(u64::MAX)) < 0);
    }

    /// Pitfall 49: a step of the wall clock, between arrival and use or during the exchange, ages nothing.
    #[test]
    fn pitfall_49_steps_of_the_clock_do_not_age() {
        let steady = UnixMillis::from_secs(5_000);
        let head = head(&[("cache-control", "max-age=60")]).unwrap().arrived(steady);
        assert_eq!(head.response_time, steady);
        assert_eq!(head.request_time.0, steady.0 - 500);
        let later = steady + Duration::from_secs(30);
        assert_eq!(head.current_age(later).as_millis(), 30_500);
        assert_eq!(head.remaining_millis(later), 29_500);
    }

    #[test]
    fn jitter_spreads_the_ends_of_lifetimes() {
        let head = head(&[("cache-control", "max-age=1000")]).unwrap();
        let left = |jitter, key, node| {
            head.clone().jittered(jitter, key, node).remaining_millis(NOW).clamp(0, 1_000_000)
        };
        assert_eq!(left(0.0, 7, "e1"), 999_500);
        let drawn: Vec<_> = (0..1000u128)
            .map(|key| left(0.2, xxhash_rust::xxh3::xxh3_128(&key.to_le_bytes()), "e1"))
            .collect();
        assert!(drawn.iter().all(|left| (799_500..=999_500).contains(left)));
        let mean = drawn.iter().sum::<i64>() / 1000;
        assert!((890_000..910_000).contains(&mean), "{mean}");
        assert_eq!(left(0.2, 7, "e1"), left(0.2, 7, "e1"));
        assert_ne!(left(0.2, 7, "e1"), left(0.2, 7, "e2"));
    }

    /// Pitfall 27: what was stale or to be checked when it came is not for those who waited.
    #[test]
    fn pitfall_27_who_may_share() {
        const TAG: (&str, &str) = ("etag", "\"a\"");
        for (fields, expected) in [
            (&[("cache-control", "max-age=60")][..], true),
            (&[("cache-control", "max-age=60, no-cache"), TAG], false),
            (&[("cache-control", "max-age=0"), TAG], false),
            (&[("cache-control", "max-age=60"), ("age", "60"), TAG], false),
        ] {
            assert_eq!(head(fields).unwrap().may_be_shared(), expected, "{fields:?}");
        }
        assert_eq!(head(&[("cache-control", "private")]).err(), Some(Reason::Private));
    }
}
