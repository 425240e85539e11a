//! What a node did in the last seconds, from counters that only grow: the rate at which it sends, and how warm its
//! store is. For the report that the nameservers read.

use std::collections::VecDeque;
use std::time::Duration;

/// The counters at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Since the start of the program.
    pub at: Duration,
    /// Bytes of content sent to clients.
    pub sent: u64,
    /// Requests that the store answered.
    pub hits: u64,
    /// Requests that it could have answered.
    pub asked: u64,
}

/// The rate is a mean over this.
const RATE_OVER: Duration = Duration::from_secs(10);
/// And warmth over this.
const WARMTH_OVER: Duration = Duration::from_secs(60);
/// As many misses are added to what was asked: a handful of hits proves no warmth.
const DOUBTS: u64 = 20;

/// The samples of the last minute.
#[derive(Clone, Debug)]
pub struct Meter {
    samples: VecDeque<Sample>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { samples: VecDeque::from([Sample::default()]) }
    }
}

impl Meter {
    /// Takes a sample. They come about once in a second.
    pub fn sample(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        // One that is older than needed stays, as the beginning of the oldest second.
        while self.samples.get(1).is_some_and(|second| sample.at - second.at >= WARMTH_OVER) {
            self.samples.pop_front();
        }
    }

    /// Bits a second sent to clients.
    pub fn egress_bps(&self) -> f64 {
        let Some((first, last)) = self.span(RATE_OVER) else { return 0.0 };
        last.sent.saturating_sub(first.sent) as f64 * 8.0 / (last.at - first.at).as_secs_f64()
    }

    /// How warm the store is, 0 to 1: as far as it is full, or as it answers what is asked of it now, whichever is
    /// more. A store that is larger than what is asked for never fills, one whose clients ask for much that nobody asked
    /// before is full and misses; both are as warm as they get.
    pub fn warmth(&self, fullness: f64) -> f64 {
        let answered = self.span(WARMTH_OVER).map_or(0.0, |(first, last)| {
            let hits = last.hits.saturating_sub(first.hits);
            let asked = last.asked.saturating_sub(first.asked);
            hits as f64 / (asked + DOUBTS) as f64
        });
        fullness.max(answered).clamp(0.0, 1.0)
    }

    /// The first and the last sample of the last `length`, some time apart.
    fn span(&self, length: Duration) -> Option<(&Sample, &Sample)> {
        let last = self.samples.back()?;
        let first = self.samples.iter().rev().find(|sample| last.at - sample.at >= length);
        let first = first.or_else(|| self.samples.front())?;
        (last.at > first.at).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples once a second: bytes sent, hits and misses in each.
    fn seconds(meter: &mut Meter, count: u64, sent: u64, hits: u64, misses: u64) {
        for _ in 0..count {
            let last = *meter.samples.back().unwrap();
            meter.sample(Sample {
                at: last.at + Duration::from_secs(1),
                sent: last.sent + sent,
                hits: last.hits + hits,
                asked: last.asked + hits + misses,
            });
        }
    }

    #[test]
    fn the_rate_is_of_the_last_ten_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.egress_bps(), 0.0);
        seconds(&mut meter, 1, 1000, 0, 0);
        assert_eq!(meter.egress_bps(), 8000.0, "of the one second that there was");
        seconds(&mut meter, 99, 1000, 0, 0);
        assert_eq!(meter.egress_bps(), 8000.0);
        seconds(&mut meter, 5, 0, 0, 0);
        assert_eq!(meter.egress_bps(), 4000.0);
        seconds(&mut meter, 5, 0, 0, 0);
        assert_eq!(meter.egress_bps(), 0.0);
        assert!(meter.samples.len() <= 62, "{}", meter.samples.len());
    }

    #[test]
    fn a_cold_store_grows_warm_by_filling_or_by_answering() {
        let mut meter = Meter::default();
        assert_eq!(meter.warmth(0.0), 0.0);
        seconds(&mut meter, 2, 0, 1, 0);
        assert!(meter.warmth(0.0) < 0.1, "two hits prove nothing");
        assert_eq!(meter.warmth(0.7), 0.7);
        seconds(&mut meter, 60, 0, 90, 10);
        assert!((0.89..0.9).contains(&meter.warmth(0.1)), "{}", meter.warmth(0.1));
        seconds(&mut meter, 60, 0, 0, 100);
        assert_eq!(meter.warmth(0.1), 0.1, "what was is past");
        assert_eq!(meter.warmth(3.0), 1.0);
    }
}
