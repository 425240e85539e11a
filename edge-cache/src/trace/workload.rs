//! A log as what simulations need of it: a key, a size and a time each, in bounded memory.
//!
//! A log with more requests than there is room for is sampled by keys (see [`crate::predict`]): as often as needed, half of
//! the keys go, with all their requests. What all requests were in sum is kept for the adjustment.

use std::collections::HashMap;
use std::time::Duration;

use shared::time::UnixMillis;

use super::Request;
use crate::predict::Tally;
use crate::predict::sim::weight;

/// Requests that are kept, if nothing else is said: 32 bytes each.
pub const MOST: usize = 8 << 20;
/// Sums that are kept over time.
const SUMS: usize = 4096;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The object's.
    pub key: u64,
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes of the object: the most that was sent of it.
    pub size: u64,
    /// Milliseconds since the first request.
    pub at: u64,
}

/// The log.
#[derive(Clone, Debug)]
pub struct Workload {
    records: Vec<Record>,
    most: usize,
    /// So often the keys have been halved.
    halved: u32,
    first: Option<UnixMillis>,
    last: u64,
    /// Of all requests.
    all: Tally,
    /// What the log itself says was a hit, of the requests of which it says.
    said: Tally,
    /// All requests up to a time.
    sums: Vec<(u64, Tally)>,
    /// A sum is kept every so many requests.
    every: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Workload {
    /// With room for so many requests.
    pub fn new(most: usize) -> Self {
        Self {
            records: Vec::new(),
            most: most.max(1),
            halved: 0,
            first: None,
            last: 0,
            all: Tally::default(),
            said: Tally::default(),
            sums: Vec::new(),
            every: 1,
        }
    }

    /// Takes a request of the log.
    pub fn push(&mut self, request: &Request<'_>) {
        let first = *self.first.get_or_insert(request.at);
        // Lines are written as responses end: some are a little older than the one before.
        self.last = self.last.max(request.at.0.saturating_sub(first.0));
        let sent = request.size.unwrap_or_default();
        self.all.count(false, sent, 1.0);
        if (self.all.requests as u64).is_multiple_of(self.every) {
            self.sum();
        }
        if let Some(hit) = request.hit {
            self.said.count(hit, sent, 1.0);
        }
        let key = (request.key() >> 64) as u64;
        if !self.has(key) {
            return;
        }
        self.records.push(Record { key, sent, size: sent, at: self.last });
        while self.records.len() > self.most {
            self.halved += 1;
            let bound = self.bound();
            self.records.retain(|record| record.key <= bound);
        }
    }

    fn sum(&mut self) {
        self.sums.push((self.last, self.all));
        if self.sums.len() > SUMS {
            let mut odd = false;
            self.sums.retain(|_| {
                odd = !odd;
                odd
            });
            self.every *= 2;
        }
    }

    const fn bound(&self) -> u64 {
        match u64::MAX.checked_shr(self.halved) {
            Some(bound) => bound,
            None => 0,
        }
    }

    const fn has(&self, key: u64) -> bool {
        key <= self.bound()
    }

    /// The log has ended: objects have the size of the largest of their requests.
    pub fn finish(&mut self) {
        let mut sizes: HashMap<u64, u64> = HashMap::new();
        for record in &self.records {
            let size = sizes.entry(record.key).or_default();
            *size = record.sent.max(*size);
        }
        for record in &mut self.records {
            record.size = sizes.get(&record.key).copied().unwrap_or(record.sent);
        }
    }

    /// The requests for the sampled keys, in the log's order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Which share of the keys that is: 1 for all of them.
    pub fn share(&self) -> f64 {
        0.5_f64.powi(self.halved.cast_signed())
    }

    /// From the first request to the last.
    pub const fn length(&self) -> Duration {
        Duration::from_millis(self.last)
    }

    /// When the first request was.
    pub const fn first(&self) -> Option<UnixMillis> {
        self.first
    }

    /// All requests and their bytes; no hits.
    pub const fn all(&self) -> &Tally {
        &self.all
    }

    /// What the log says of its own cache. None: it says nothing.
    pub fn said(&self) -> Option<&Tally> {
        (self.said.requests > 0.0).then_some(&self.said)
    }

    /// Requests and bytes from a time on, where not all are kept as records. None: they are.
    pub fn since(&self, begin: Duration) -> Option<Tally> {
        if self.halved == 0 {
            return None;
        }
        let begin = u64::try_from(begin.as_millis()).unwrap_or(u64::MAX);
        let at = self.sums.partition_point(|(at, _)| *at < begin);
        let before = at.checked_sub(1).and_then(|at| self.sums.get(at)).map(|(_, sum)| *sum);
        Some(self.all.since(&before.unwrap_or_default()))
    }

    /// The different objects of the records.
    pub fn footprint(&self) -> Footprint {
        let sizes: HashMap<u64, u64> =
            self.records.iter().map(|record| (record.key, record.size)).collect();
        Footprint {
            objects: sizes.len() as u64,
            bytes: sizes.values().sum(),
            weight: sizes.values().map(|size| weight(*size)).sum(),
        }
    }
}

/// Different objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// How many.
    pub objects: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// What they take in memory.
    pub weight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: String, size: u64, at: u64) -> Request<'static> {
        Request {
            at: UnixMillis(at),
            host: "".into(),
            target: target.into(),
            is_head: false,
            status: 200,
            size: Some(size),
            hit: None,
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_stands_for_all() {
        let mut workload = Workload::new(1000);
        for n in 0..40_000u64 {
            workload.push(&request(format!("/{}", n % 4000), 10, n));
        }
        workload.finish();
        assert!(workload.records().len() <= 1000, "{}", workload.records().len());
        let stands_for = workload.records().len() as f64 / workload.share();
        assert!((30_000.0..50_000.0).contains(&stands_for), "{stands_for}");
        let mut keys: HashMap<u64, u32> = HashMap::new();
        for record in workload.records() {
            *keys.entry(record.key).or_default() += 1;
        }
        assert!(keys.values().all(|count| *count == 10), "a key is there with all of its requests");
        assert_eq!((workload.all().requests, workload.all().bytes), (40_000.0, 400_000.0));
        let half = workload.since(Duration::from_millis(20_000)).unwrap();
        assert!((half.requests - 20_000.0).abs() < 50.0, "{half:?}");
    }

    #[test]
    fn objects_have_the_size_of_their_largest_request() {
        let mut workload = Workload::default();
        let none = Request { size: None, ..request("/a".into(), 0, 5) };
        workload.push(&none);
        workload.push(&request("/a".into(), 70, 9));
        workload.push(&request("/a".into(), 30, 7));
        workload.push(&request("/b".into(), 5, 8));
        workload.finish();
        let seen: Vec<_> = workload.records().iter().map(|r| (r.sent, r.size, r.at)).collect();
        assert_eq!(seen, [(0, 70, 0), (70, 70, 4), (30, 70, 4), (5, 5, 4)]);
        let footprint = workload.footprint();
        assert_eq!((footprint.objects, footprint.bytes), (2, 75));
        assert_eq!(footprint.weight, weight(70) + weight(5));
        assert_eq!((workload.share(), workload.since(Duration::ZERO)), (1.0, None));
    }
}
