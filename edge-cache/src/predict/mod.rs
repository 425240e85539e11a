//! What a cache would answer: of another size, under another policy, of somebody else's log.
//!
//! [`sim`] is a node without bytes: the tables and the disk log that the node itself runs, over requests that are a key and
//! a size. [`replay`] runs a log through it, [`live`] a sample of what a node is being asked. [`advice`] makes words of it,
//! [`ttl`] is the arithmetic of a sizing by hand, and why it overestimates; [`plot`] and [`report`] show it.
//!
//! **Samples.** Not all requests are simulated where there are many: only those for keys whose hash lies below a threshold,
//! a share R of them, in a cache of R times the size (Waldspurger et al., USENIX ATC 2017). A few giants that are not in
//! the sample would spoil that, so the ratios are adjusted: what the sample lacks of R times all requests, or of R times
//! all bytes, belongs to giants, and those are hits. See [`Tally::of_sample`].

pub mod advice;
mod disk;
pub mod live;
mod memory;
pub mod plot;
pub mod replay;
pub mod report;
pub mod sim;
pub mod ttl;

use serde::{Deserialize, Serialize};

/// Requests, and how many of them were answered here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// All.
    pub requests: f64,
    /// Answered here.
    pub hits: f64,
    /// Bytes of all.
    pub bytes: f64,
    /// Bytes of those answered here.
    pub hit_bytes: f64,
}

/// Shares of requests and of bytes, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Of requests.
    pub objects: f64,
    /// Of bytes.
    pub bytes: f64,
}

impl Tally {
    /// Counts a request that stands for `weight` of them.
    pub fn count(&mut self, hit: bool, bytes: u64, weight: f64) {
        self.count_part(hit, bytes, if hit { bytes } else { 0 }, weight);
    }

    /// The same where `had` of the bytes were there, of a request that may not be a hit.
    pub fn count_part(&mut self, hit: bool, bytes: u64, had: u64, weight: f64) {
        self.requests += weight;
        self.bytes += bytes as f64 * weight;
        self.hits += if hit { weight } else { 0.0 };
        self.hit_bytes += had as f64 * weight;
    }

    /// What was counted since an earlier state of it.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            hits: self.hits - earlier.hits,
            bytes: self.bytes - earlier.bytes,
            hit_bytes: self.hit_bytes - earlier.hit_bytes,
        }
    }

    /// The ratios as counted. None: nothing was.
    pub fn ratios(&self) -> Option<Ratios> {
        (self.requests > 0.0).then(|| Ratios {
            objects: self.hits / self.requests,
            bytes: if self.bytes > 0.0 { self.hit_bytes / self.bytes } else { 0.0 },
        })
    }

    /// The ratios of all requests, `all`, of which this is a sample, each request and byte in it counted as often as it
    /// stands for others: what it lacks, or has too much, are requests for giants, which are hits.
    pub fn of_sample(&self, all: &Self) -> Option<Ratios> {
        let adjusted = |hits: f64, sampled: f64, all: f64| {
            if all > 0.0 { ((hits + all - sampled) / all).clamp(0.0, 1.0) } else { 0.0 }
        };
        (all.requests > 0.0 && self.requests > 0.0).then(|| Ratios {
            objects: adjusted(self.hits, self.requests, all.requests),
            bytes: adjusted(self.hit_bytes, self.bytes, all.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sample_lacks_are_hits() {
        let mut sample = Tally::default();
        // A tenth of the keys, each for ten.
        sample.count(true, 100, 10.0);
        sample.count(false, 300, 10.0);
        assert_eq!(sample.ratios(), Some(Ratios { objects: 0.5, bytes: 0.25 }));
        let all = Tally { requests: 25.0, bytes: 5000.0, ..Tally::default() };
        let ratios = sample.of_sample(&all).unwrap();
        assert_eq!(ratios, Ratios { objects: 15.0 / 25.0, bytes: 2000.0 / 5000.0 });
        assert_eq!(sample.of_sample(&sample), sample.ratios());
        let fewer = Tally { requests: 9.0, bytes: 10.0, ..Tally::default() };
        assert_eq!(sample.of_sample(&fewer), Some(Ratios::default()), "never below none");
        assert_eq!(Tally::default().ratios(), None);
    }
}
