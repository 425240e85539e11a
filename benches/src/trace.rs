//! Request streams with fixed seeds: who is asked for, how often, and how large it is.
//!
//! Popularity follows Zipf's law (the object of rank r is asked for in proportion to r^-alpha). Four mixes:
//!
//! | mix | alpha | one-hit share | churn | sizes |
//! |---|---|---|---|---|
//! | `zipf-web` | 0.9 | none | none | web |
//! | `zipf-images` | 0.7 | none | none | images |
//! | `one-hit` | 0.9 | 30 % of requests | none | web |
//! | `churn` | 0.9 | 15 % of requests | the popular change all the time | web |
//!
//! A *one-hit wonder* is asked for once and never again: two thirds to three quarters of the objects that a CDN sees
//! are. With *churn* the ranks are handed on, so that an object is popular for a while and then forgotten, as two
//! thirds of the popular objects of a CDN are within hours.
//!
//! Sizes are drawn per object from a table of quantiles, straight lines between them:
//!
//! | quantile | web | images |
//! |---|---|---|
//! | 0 | 200 B | 300 B |
//! | 25 % | 3 KB | 4 KB |
//! | 50 % | 12 KB | 10 KB |
//! | 75 % | 50 KB | 24 KB |
//! | 90 % | 200 KB | 50 KB |
//! | 99 % | 2.5 MB | 180 KB |
//! | 100 % | 12 MB | 1 MB |

use crate::random::{Random, mix};

/// The number of an object.
pub type Id = u64;

/// Objects with this bit are asked for once.
const ONE_HIT: Id = 1 << 62;

/// Quantile in ten-thousandths, bytes.
type Sizes = &'static [(u64, u64)];

const WEB: Sizes = &[
    (0, 200),
    (2_500, 3_000),
    (5_000, 12_000),
    (7_500, 50_000),
    (9_000, 200_000),
    (9_900, 2_500_000),
    (10_000, 12_000_000),
];
const IMAGES: Sizes = &[
    (0, 300),
    (2_500, 4_000),
    (5_000, 10_000),
    (7_500, 24_000),
    (9_000, 50_000),
    (9_900, 180_000),
    (10_000, 1_000_000),
];

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Its name in tables and files.
    pub name: &'static str,
    /// Zipf's exponent.
    pub alpha: f64,
    /// Requests of a thousand that are for an object never seen before or after.
    pub one_hit: u64,
    /// How often in a trace a rank changes hands, on average. 0: never.
    pub churn: u64,
    sizes: Sizes,
    seed: u64,
}

/// The mixes of the module's table.
pub const MIXES: [Mix; 4] = [
    Mix { name: "zipf-web", alpha: 0.9, one_hit: 0, churn: 0, sizes: WEB, seed: 101 },
    Mix { name: "zipf-images", alpha: 0.7, one_hit: 0, churn: 0, sizes: IMAGES, seed: 102 },
    Mix { name: "one-hit", alpha: 0.9, one_hit: 300, churn: 0, sizes: WEB, seed: 103 },
    Mix { name: "churn", alpha: 0.9, one_hit: 150, churn: 8, sizes: WEB, seed: 104 },
];

/// A request for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The object.
    pub id: Id,
    /// The length of its body, the same in every request for it.
    pub bytes: u64,
}

impl Mix {
    /// A trace of so many requests over so many ranks.
    pub fn trace(&self, requests: usize, ranks: usize) -> Vec<Request> {
        let zipf = Zipf::new(ranks, self.alpha);
        let mut random = Random::new(self.seed);
        // How many requests pass, on average, until a rank is handed on: spread over all ranks.
        let handovers = self.churn * ranks as u64;
        let mut holders: Vec<u64> = vec![0; ranks];
        let total = requests as u64;
        (0..total)
            .map(|at| {
                if handovers > 0 && random.below(total) < handovers.min(total) {
                    // More handovers than requests: several at a time.
                    for _ in 0..handovers.div_ceil(total) {
                        let rank = random.below(ranks as u64) as usize;
                        holders[rank] += 1;
                    }
                }
                let id = if random.below(1000) < self.one_hit {
                    ONE_HIT | at
                } else {
                    let rank = zipf.draw(&mut random);
                    (holders[rank] << 32) | rank as u64
                };
                Request { id, bytes: self.size(id) }
            })
            .collect()
    }

    fn size(&self, id: Id) -> u64 {
        size(self.sizes, mix(id ^ self.seed) % 10_000)
    }
}

fn size(sizes: Sizes, quantile: u64) -> u64 {
    let above = sizes.iter().position(|(q, _)| *q > quantile).unwrap_or(sizes.len() - 1);
    let ((q0, b0), (q1, b1)) = (sizes[above - 1], sizes[above]);
    b0 + (b1 - b0) * (quantile - q0) / (q1 - q0)
}

/// Draws ranks by Zipf's law.
struct Zipf {
    /// The sums of the weights of all ranks up to each.
    sums: Vec<u64>,
}

impl Zipf {
    fn new(ranks: usize, alpha: f64) -> Self {
        let mut sum = 0;
        let weight = |rank: usize| (1e12 / (rank as f64).powf(alpha)) as u64;
        let add = |rank| {
            sum += weight(rank);
            sum
        };
        Self { sums: (1..=ranks).map(add).collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let all = self.sums.last().copied().unwrap_or(1);
        let point = random.below(all);
        self.sums.partition_point(|sum| *sum <= point)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn counts(trace: &[Request]) -> HashMap<Id, usize> {
        let mut counts = HashMap::new();
        for request in trace {
            *counts.entry(request.id).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_trace_is_the_same_each_time() {
        for mix in MIXES {
            assert_eq!(mix.trace(2_000, 500), mix.trace(2_000, 500), "{}", mix.name);
        }
    }

    #[test]
    fn ranks_follow_zipf() {
        let counts = counts(&MIXES[0].trace(200_000, 1_000));
        // The first rank is asked for 2^0.9 = 1.87 times as often as the second, 10^0.9 = 7.9 times as the tenth.
        let ratio = |rank| counts[&0] as f64 / counts[&rank] as f64;
        assert!((1.7..2.05).contains(&ratio(1)), "{}", ratio(1));
        assert!((7.0..9.0).contains(&ratio(9)), "{}", ratio(9));
    }

    #[test]
    fn one_hit_wonders_are_asked_for_once() {
        let trace = MIXES[2].trace(50_000, 5_000);
        let counts = counts(&trace);
        let wonders: Vec<_> = counts.iter().filter(|(id, _)| *id & ONE_HIT != 0).collect();
        assert!(wonders.iter().all(|(_, count)| **count == 1));
        let share = wonders.len() as f64 / trace.len() as f64;
        assert!((0.29..0.31).contains(&share), "{share}");
    }

    #[test]
    fn churn_replaces_the_popular() {
        let trace = MIXES[3].trace(100_000, 1_000);
        let holders: Vec<Id> = trace
            .iter()
            .map(|r| r.id)
            .filter(|id| id & 0xffff_ffff == 0 && id & ONE_HIT == 0)
            .collect();
        let mut distinct = holders.clone();
        distinct.dedup();
        assert!((4..20).contains(&distinct.len()), "the first rank had {} holders", distinct.len());
    }

    #[test]
    fn sizes_follow_the_table() {
        for sizes in [WEB, IMAGES] {
            for (quantile, bytes) in &sizes[..sizes.len() - 1] {
                assert_eq!(size(sizes, *quantile), *bytes);
            }
        }
        assert_eq!(size(WEB, 3_750), 7_500);
        let trace = MIXES[0].trace(10_000, 20_000);
        let mut sizes: Vec<u64> = trace
            .iter()
            .map(|r| (r.id, r.bytes))
            .collect::<HashMap<_, _>>()
            .into_values()
            .collect();
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2];
        assert!((10_000..14_500).contains(&median), "{median}");
    }
}
