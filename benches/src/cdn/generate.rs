//! Draws the requests of a class, puts them in order and gives them a time of day.

use crate::random::{Random, mix};
use crate::trace::{Id, Request};

use super::fixed::{exp2, log2};
use super::table::{Bands, Popularity, Sizes};
use super::{CRAWLED, Class, HALVINGS};

/// The length of a trace before it has a clock.
const SPAN: u64 = 1 << 40;
/// log2 100, times 2³²: the longest life is a hundred times the shortest.
const LIVES: u64 = 31_000_000_000;
/// Requests for one object are at most this part of all: a trace is a sample, and its head is not.
const HEAD: u64 = 100;
/// A crawl comes in so many bursts.
const BURSTS: u64 = 12;
/// Requests of each hour of a day, in relation to one another: quiet before dawn, busy from noon to midnight.
const DAY: [u64; 24] = [
    60, 48, 38, 30, 26, 24, 26, 32, 42, 54, 66, 74, 80, 84, 84, 86, 88, 92, 98, 102, 104, 100, 90,
    76,
];
const HOUR_MS: u64 = 3_600_000;

/// A stream of requests.
#[derive(Clone, Debug)]
pub struct Trace {
    /// In the order of their time.
    pub requests: Vec<Request>,
    /// How many objects they ask for.
    pub objects: u64,
}

impl Class {
    /// The trace of its size.
    pub fn trace(&self) -> Trace {
        self.sample(self.objects, 0)
    }

    /// A trace over so many objects, with a crawl on top that makes `crawl` thousandths of all requests.
    pub fn sample(&self, objects: u64, crawl: u64) -> Trace {
        let cap = self.head(objects);
        let mut random = Random::new(self.seed);
        let mut moments: Vec<(u64, Id)> = Vec::new();
        for rank in 0..objects {
            let count = popularity(self.popularity, rank, objects).min(cap);
            // The rank tells how popular it is; the number of an object shall not.
            if count > 1 && random.below(1000) < self.churn {
                let life = exp2((40 << 32) - random.below(LIVES));
                let birth = random.below(SPAN - life + 1);
                moments.extend((0..count).map(|_| (birth + decaying(&mut random, life), rank)));
            } else {
                moments.extend((0..count).map(|_| (random.below(SPAN), rank)));
            }
        }
        let crawled = moments.len() as u64 * crawl / (1000 - crawl.min(999));
        for number in 0..crawled {
            // Bursts of a hundredth of the trace each, evenly spread.
            let burst = number % BURSTS;
            let at = SPAN / BURSTS * burst + SPAN / BURSTS / 2 + random.below(SPAN / 100);
            moments.push((at, CRAWLED | number));
        }
        moments.sort_unstable();
        let requests = moments.iter().map(|&(at, rank)| self.request(at, rank, objects, cap));
        Trace { requests: requests.collect(), objects: objects + crawled }
    }

    fn request(&self, at: u64, rank: Id, objects: u64, cap: u64) -> Request {
        let count = match rank & CRAWLED {
            0 => popularity(self.popularity, rank, objects).min(cap),
            _ => 1,
        };
        // One bit tells the crawled from the others.
        let hash = mix(rank ^ mix(self.seed)) & !CRAWLED | rank & CRAWLED;
        let bytes = size(band(self.sizes, count), self.quantile(rank));
        Request { at: clock(at, self.days), id: hash, bytes, ttl: self.ttl(hash) }
    }

    /// The quantile of the object's size, in 2⁻³²: the multiples of the golden ratio fill any range of ranks evenly.
    fn quantile(&self, rank: Id) -> u64 {
        let offset = mix(self.seed ^ 0x517e);
        rank.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(offset) >> 32
    }

    fn ttl(&self, hash: u64) -> u32 {
        let mut left = mix(hash) % 100;
        for (seconds, share) in self.ttl {
            if left < *share {
                return *seconds;
            }
            left -= share;
        }
        self.ttl.last().map_or(0, |(seconds, _)| *seconds)
    }

    /// How often one object may be asked for in a trace of so many.
    fn head(&self, objects: u64) -> u64 {
        let all = |cap: u64| -> u64 {
            (0..objects).map(|rank| popularity(self.popularity, rank, objects).min(cap)).sum()
        };
        // Lowering the head lowers the sum that it is a part of: a few rounds settle it.
        (0..8).fold(u64::MAX, |cap, _| (all(cap) / HEAD).max(1))
    }
}

/// How often the object of this rank is asked for.
fn popularity(table: Popularity, rank: u64, objects: u64) -> u64 {
    // The middle of the rank's place among the objects, in 2⁻³² of a thousand-millionth.
    let share = ((u128::from(2 * rank + 1) * 1_000_000_000) << 32) / u128::from(2 * objects);
    let place = table.partition_point(|(above, _)| (u128::from(*above) << 32) > share);
    let Some(&(above, count)) = table.get(place.saturating_sub(1)) else { return 1 };
    let Some(&(below, next)) = table.get(place) else { return count };
    if next == count + 1 {
        return count;
    }
    let fine = u64::try_from(share >> 16).unwrap_or(u64::MAX);
    let (top, here, end) = (log2(above << 16), log2(fine), log2(below << 16));
    let (low, high) = (log2(count), log2(next));
    let part =
        u128::from(high - low) * u128::from(top.saturating_sub(here)) / u128::from(top - end);
    exp2(low + u64::try_from(part).unwrap_or(0)).max(count)
}

fn band(bands: Bands, count: u64) -> Sizes {
    bands
        .iter()
        .rev()
        .find(|(from, _)| *from <= count)
        .or_else(|| bands.first())
        .map_or(&[], |(_, sizes)| sizes)
}

/// The size at a quantile in 2⁻³².
fn size(sizes: Sizes, quantile: u64) -> u64 {
    let at = (quantile * 1_000_000) >> 32;
    let above = sizes.partition_point(|(q, _)| *q <= at).clamp(1, sizes.len() - 1);
    let ((q0, b0), (q1, b1)) = (sizes[above - 1], sizes[above]);
    let fine = (quantile * 1_000_000 - (q0 << 32)) >> 12;
    b0 + (((u128::from(b1 - b0) * u128::from(fine)) >> 20) / u128::from(q1 - q0)) as u64
}

/// A moment of a life with an interest that halves [`HALVINGS`] times in it.
fn decaying(random: &mut Random, life: u64) -> u64 {
    const ONE: u64 = 1 << 32;
    let drawn = random.below(ONE - (ONE >> HALVINGS));
    let halvings = (32 << 32) - log2(ONE - drawn);
    ((u128::from(life) * u128::from(halvings) / u128::from(HALVINGS)) >> 32) as u64
}

/// The time in milliseconds since midnight of the first day.
fn clock(at: u64, days: u64) -> u64 {
    let day: u64 = DAY.iter().sum();
    let scaled = u128::from(at) * u128::from(day * days);
    let mut whole = (scaled >> 40) as u64;
    let fraction = (scaled & u128::from(SPAN - 1)) as u64;
    let mut hour = whole / day * 24;
    whole %= day;
    for weight in DAY {
        if whole < weight {
            let into = (u128::from(whole) << 40 | u128::from(fraction)) * u128::from(HOUR_MS);
            return hour * HOUR_MS + ((into / u128::from(weight)) >> 40) as u64;
        }
        whole -= weight;
        hour += 1;
    }
    hour * HOUR_MS
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::CLASSES;
    use super::*;

    /// Requests and size of every object.
    fn objects(requests: &[Request]) -> Vec<(u64, u64)> {
        let mut objects: HashMap<Id, (u64, u64)> = HashMap::new();
        for request in requests {
            let (count, bytes) = objects.entry(request.id).or_default();
            *count += 1;
            assert!(*bytes == 0 || *bytes == request.bytes, "an object has one size");
            *bytes = request.bytes;
        }
        objects.into_values().collect()
    }

    #[test]
    fn a_trace_is_the_same_everywhere() {
        let digests = CLASSES.map(|class| {
            let trace = class.sample(4_000, 100);
            trace.requests.iter().fold(0, |digest, request| {
                let Request { at, id, bytes, ttl } = *request;
                mix(digest ^ mix(at ^ mix(id ^ mix(bytes ^ u64::from(ttl)))))
            })
        });
        let wanted = [
            4_195_236_047_499_492_719,
            8_271_497_268_937_093_882,
            15_677_567_820_491_502_110,
            2_086_868_970_658_370_445,
            7_435_158_415_426_490_663,
        ];
        assert_eq!(digests, wanted);
    }

    /// What the published statistics say of each class.
    #[test]
    fn objects_are_like_those_of_the_class() {
        // Share of objects asked for once, median and mean size in KB, share of requests for the most popular
        // hundredth. The last is .62 to .77 of full web traces: of a tenth, whose head is capped ten times lower, less.
        let published = [
            ("web-us", 0.64..0.67, 10..15, 95..130, 0.54..0.60),
            ("web-eu", 0.66..0.69, 10..16, 200..270, 0.53..0.59),
            ("images", 0.76..0.78, 8..12, 18..25, 0.27..0.32),
            ("video", 0.55..0.58, 400..900, 1_700..2_600, 0.15..0.20),
            ("downloads", 0.17..0.20, 1_100..1_400, 1_100..1_400, 0.23..0.30),
        ];
        for (name, once, median, mean, head) in published {
            let class = Class::named(name).unwrap();
            let trace = class.sample(class.objects / 10, 0);
            let mut all = objects(&trace.requests);
            assert_eq!(all.len() as u64, trace.objects);
            let single = all.iter().filter(|(count, _)| *count == 1).count() as f64;
            assert!(once.contains(&(single / all.len() as f64)), "{name}: {single}");
            let average = all.iter().map(|(_, bytes)| bytes).sum::<u64>() / trace.objects / 1000;
            assert!(mean.contains(&average), "{name}: mean {average}");
            all.sort_unstable_by_key(|(_, bytes)| *bytes);
            let middle = all[all.len() / 2].1 / 1000;
            assert!(median.contains(&middle), "{name}: median {middle}");
            all.sort_unstable_by_key(|(count, _)| u64::MAX - count);
            let top = all[..all.len() / 100].iter().map(|(count, _)| count).sum::<u64>() as f64;
            let share = top / trace.requests.len() as f64;
            assert!(head.contains(&share), "{name}: the first hundredth takes {share}");
            assert!(all[0].0 <= trace.requests.len() as u64 / 80, "{name}: {}", all[0].0);
        }
    }

    #[test]
    fn requests_come_in_the_order_of_their_time_and_more_of_them_by_day() {
        let requests = CLASSES[0].sample(20_000, 0).requests;
        assert!(requests.is_sorted_by_key(|request| request.at));
        assert!(requests.iter().all(|request| request.at < 48 * HOUR_MS));
        let within = |from: u64, to: u64| {
            let hour = |request: &&Request| (from..to).contains(&(request.at / HOUR_MS % 24));
            requests.iter().filter(hour).count()
        };
        let (night, evening) = (within(3, 6), within(18, 21));
        assert!((3.0..5.0).contains(&(evening as f64 / night as f64)), "{evening} {night}");
    }

    #[test]
    fn a_crawl_is_a_share_of_all_requests_and_asks_for_nothing_twice() {
        let (plain, crawled) = (CLASSES[0].sample(5_000, 0), CLASSES[0].sample(5_000, 200));
        let more = (crawled.requests.len() - plain.requests.len()) as f64;
        assert!((0.199..0.201).contains(&(more / crawled.requests.len() as f64)));
        assert_eq!(crawled.objects, plain.objects + more as u64);
        assert_eq!(objects(&crawled.requests).len() as u64, crawled.objects);
    }

    #[test]
    fn what_lives_for_a_while_only_is_asked_for_more_at_its_beginning() {
        let mut random = Random::new(3);
        let life = 1 << 30;
        let moments: Vec<u64> = (0..10_000).map(|_| decaying(&mut random, life)).collect();
        assert!(moments.iter().all(|moment| *moment < life));
        let early = moments.iter().filter(|moment| **moment < life / 3).count();
        // It halves three times: 4/7 of the interest is in the first third.
        assert!((5_500..5_900).contains(&early), "{early}");
    }
}
