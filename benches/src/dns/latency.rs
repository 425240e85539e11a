//! Latencies counted in buckets of 3 % width, so that millions cost nothing.

use std::time::Duration;

/// Buckets per doubling.
const STEPS: u32 = 32;
/// Doublings above the finest: 32 ns to an hour and more.
const DOUBLINGS: u32 = 38;

/// How often each latency was seen.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; (STEPS * DOUBLINGS) as usize], count: 0, longest: 0 }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < u64::from(STEPS) {
        return nanos as usize;
    }
    let doublings = nanos.ilog2() - STEPS.ilog2();
    let step = (nanos >> doublings) as u32 - STEPS;
    (((doublings + 1) * STEPS + step) as usize).min((STEPS * DOUBLINGS) as usize - 1)
}

/// The shortest latency above a bucket.
fn above(bucket: usize) -> u64 {
    let (doublings, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    match doublings {
        0 => u64::from(step) + 1,
        _ => u64::from(STEPS + step + 1) << (doublings - 1),
    }
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// The latency in microseconds that this share of all did not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return above(bucket).min(self.longest) as f64 / 1e3;
            }
        }
        self.longest as f64 / 1e3
    }

    /// The longest, in microseconds.
    pub fn longest(&self) -> f64 {
        self.longest as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut latencies = Latencies::default();
        for micros in 1..=10_000u64 {
            latencies.add(Duration::from_micros(micros));
        }
        for (share, truth) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.001, 10.0)] {
            let got = latencies.quantile(share);
            assert!((truth..truth * 1.04).contains(&got), "{share}: {got}");
        }
        assert_eq!(latencies.quantile(1.0), 10_000.0);
        assert_eq!(latencies.longest(), 10_000.0);
    }

    #[test]
    fn every_latency_has_a_bucket_and_none_is_above_the_next() {
        for nanos in (0..2_000).chain([1 << 20, (1 << 32) + 12_345, u64::MAX / 2]) {
            let at = bucket(nanos);
            assert!(above(at) > nanos || at == (STEPS * DOUBLINGS) as usize - 1, "{nanos}");
            assert!(at == 0 || above(at - 1) <= nanos, "{nanos}");
        }
        assert_eq!(Latencies::default().quantile(0.5), 0.0);
    }
}
