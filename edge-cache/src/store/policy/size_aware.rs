//! Who is worth least goes: how often it is asked for, by how long ago that was and by a power of its weight.
//!
//! `value = frequency / (age × weight^e)`. With e = 1 a byte goes to whom it brings the most hits; e = 13/16 keeps more of the
//! bytes for few of the hits. Ages that are short beside the time that an entry is kept for say nothing: to each is added a
//! 32nd of the number of entries, at most 256 requests.
//!
//! A part of something larger counts nearly as heavy as the whole, so that long bodies do not take the place of many short
//! ones: each for itself, as if it were short, parts bring bytes for requests (web mix at 1 % of the footprint: .795 of requests
//! and .687 of bytes; so, .816 and .661).
//!
//! Over a disk the value is also what it costs to get the entry back: a read, or a fetch. Who lies on the disk as well is
//! worth a part of what another one is, so that memory is above all for those that the disk has not taken yet, and answers
//! their second requests; parts count by themselves then, for the disk takes the others. On the web mix
//! (memory 1 %, disk 10 %) that spares the origin half a point of requests and a point and a half of bytes, for which the
//! disk is read for eight requests more in a hundred.
//!
//! The least is looked for in a sample, not in all: no heap, no list, and a hit writes eight bytes. The best of the samples
//! before are kept for the next time. Who comes back soon after it was evicted, comes with the frequency it had.
//!
//! A sample is of runs of neighbours, sixteen of which are in three cache lines that follow each other: as slots are filled
//! by who comes last, they have little to do with each other, and a run costs hardly more than one of them.

use super::ghost::Ghosts;
use super::slab::Slab;
use super::{Leaving, Policy, Weight};

/// Places that are looked at for one victim.
const RUNS: usize = 16;
/// Neighbours that are looked at in each.
const RUN: u32 = 16;
/// The least of the samples before, which are looked at again.
const POOL: usize = 8;
/// An entry that lies on the disk as well is worth this part of another one.
const BELOW: f32 = 64.0;
#[derive(Clone, Copy, Debug)]
struct Record {
    /// When it was last asked for: the lower half of that time.
    last: u32,
    /// A power of its weight, [`BELOW`] times that if it lies below as well.
    cost: f32,
    frequency: u8,
    is_below: bool,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct SizeAware {
    records: Slab<Record>,
    ghosts: Ghosts,
    pool: [Option<u32>; POOL],
    over_disk: bool,
    random: u64,
}

/// The ghosts' time: theirs has fewer bits.
const fn ghost_time(now: u64) -> u32 {
    (now >> 8) as u32
}

impl Record {
    /// `grace` is added to its age.
    fn value(&self, now: u64, grace: u32) -> f32 {
        let age = (now as u32).wrapping_sub(self.last).saturating_add(grace).max(1);
        f32::from(self.frequency) / (age as f32 * self.cost)
    }
}

impl SizeAware {
    /// For a table over a disk, or for one alone.
    pub fn new(over_disk: bool, seed: u64) -> Self {
        Self {
            records: Slab::default(),
            ghosts: Ghosts::default(),
            pool: [None; POOL],
            over_disk,
            random: seed,
        }
    }

    fn cost(&self, Weight { own, whole }: Weight) -> f32 {
        // Roots are the same on every machine.
        let sixteenth = |value: f32| value.sqrt().sqrt().sqrt().sqrt();
        let power = |weight: f32| {
            let fourth = weight.sqrt().sqrt();
            fourth * fourth * fourth * sixteenth(weight)
        };
        let own = own.max(1) as f32;
        let times = whole as f32 / own;
        if self.over_disk || times <= 1.0 {
            return power(own);
        }
        let times = power(times);
        power(own) * times / sixteenth(times).sqrt()
    }

    /// What is added to all ages.
    const fn grace(&self) -> u32 {
        let part = self.records.len() / 32;
        if part > 256 { 256 } else { part as u32 }
    }

    /// The next number of SplitMix64.
    const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = self.random;
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

impl Policy for SizeAware {
    fn hit(&mut self, slot: u32, now: u64) {
        if let Some(record) = self.records.get_mut(slot) {
            record.last = now as u32;
            record.frequency = record.frequency.saturating_add(1);
        }
    }

    fn insert(&mut self, hash: u64, weight: Weight, now: u64) {
        self.ghosts.follow(self.records.len());
        let before = self.ghosts.take(hash, ghost_time(now)).map_or(0, |(_, frequency)| frequency);
        let (cost, frequency) = (self.cost(weight), before.saturating_add(1));
        self.records.push(Record { last: now as u32, cost, frequency, is_below: false });
    }

    fn reweigh(&mut self, slot: u32, _: u64, new: Weight) {
        let cost = self.cost(new);
        if let Some(record) = self.records.get_mut(slot) {
            (record.cost, record.is_below) = (cost, false);
        }
    }

    fn settle(&mut self, slot: u32) {
        if let Some(record) = self.records.get_mut(slot)
            && !std::mem::replace(&mut record.is_below, true)
        {
            record.cost *= BELOW;
        }
    }

    fn remove(&mut self, slot: u32, leaving: Leaving, now: u64) {
        let Some(record) = self.records.swap_remove(slot) else { return };
        if leaving.evicted {
            self.ghosts.note(leaving.hash, ghost_time(now), record.frequency);
        }
        let last = self.records.len() as u32;
        for place in &mut self.pool {
            if *place == Some(slot) {
                *place = None;
            } else if *place == Some(last) {
                *place = Some(slot);
            }
        }
    }

    fn victim(&mut self, now: u64) -> Option<u32> {
        let count = self.records.len() as u64;
        if count == 0 {
            return None;
        }
        let grace = self.grace();
        // The least so far, in order.
        let mut least = [(f32::INFINITY, u32::MAX); POOL + 1];
        let mut most = f32::INFINITY;
        let mut consider = |slot: u32, records: &Slab<Record>| {
            let Some(value) = records.get(slot).map(|record| record.value(now, grace)) else {
                return;
            };
            if value >= most {
                return;
            }
            let at = least.partition_point(|(other, _)| *other < value);
            let same = least.iter().skip(at).take_while(|(other, _)| *other <= value);
            if same.into_iter().any(|(_, other)| *other == slot) {
                return;
            }
            if let Some(rest) = least.get_mut(at..) {
                rest.rotate_right(1);
                rest[0] = (value, slot);
            }
            most = least[POOL].0;
        };
        for slot in self.pool.into_iter().flatten() {
            consider(slot, &self.records);
        }
        for _ in 0..RUNS {
            let first = (((self.random() >> 32) * count) >> 32) as u32;
            for slot in first..first.saturating_add(RUN) {
                consider(slot, &self.records);
            }
        }
        let [(_, victim), rest @ ..] = least;
        for (place, (_, slot)) in self.pool.iter_mut().zip(rest) {
            *place = (slot != u32::MAX).then_some(slot);
        }
        (victim != u32::MAX).then_some(victim)
    }

    fn set_capacity(&mut self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;

    /// The victims are among the least of all, by the plain formula.
    #[test]
    fn victims_are_of_little_value() {
        let mut policy = SizeAware::new(false, 5);
        let mut plain: Vec<(u64, u64, u64)> = Vec::new();
        let mut ranks = 0.0;
        let mut now = 0;
        for n in 0..20_000_u64 {
            now += 1;
            if plain.len() < 1000 {
                let weight = 1 + n.hash(2) % 5000;
                policy.insert(n.hash(1), weight.into(), now);
                plain.push((now, 1, weight));
                continue;
            }
            let slot = (n.hash(3) % (1 + n.hash(4) % 1000)) as usize;
            policy.hit(slot as u32, now);
            plain[slot].0 = now;
            plain[slot].1 = (plain[slot].1 + 1).min(255);
            let victim = policy.victim(now).unwrap() as usize;
            let value = |(last, frequency, weight): &(u64, u64, u64)| {
                *frequency as f64
                    / ((now - last + 1000 / 32) as f64 * (*weight as f64).powf(0.8125))
            };
            let own = value(&plain[victim]);
            ranks += plain.iter().filter(|other| value(other) < own).count() as f64;
            let leaving = Leaving { hash: now.hash(9), weight: plain[victim].2, evicted: true };
            policy.remove(victim as u32, leaving, now);
            plain.swap_remove(victim);
        }
        assert_eq!(policy.records.len(), plain.len());
        let mean = ranks / 10_000.0;
        assert!(mean < 20.0, "of a thousand the victim is, on the average, the {mean}th");
    }

    /// A part of 4 KiB of 64 KiB, asked for five times as often as another entry: 5 < 16^(13/16 · 31/32).
    #[test]
    fn a_part_counts_nearly_like_its_whole() {
        for (over_disk, first) in [(false, 1), (true, 0)] {
            let mut policy = SizeAware::new(over_disk, 1);
            policy.insert(1, Weight::from(4096), 1);
            policy.insert(2, Weight { own: 4096, whole: 65_536 }, 1);
            (0..4).for_each(|_| policy.hit(1, 1));
            assert_eq!(policy.victim(10), Some(first), "over a disk: {over_disk}");
        }
    }

    /// Asked for thirty times, one that a disk has goes before one that was asked for once; not so when it is stored anew.
    #[test]
    fn who_lies_below_goes_first() {
        let mut policy = SizeAware::new(true, 1);
        policy.insert(1, Weight::from(1000), 1);
        policy.insert(2, Weight::from(1000), 1);
        (1..30).for_each(|_| policy.hit(0, 1));
        assert_eq!(policy.victim(9), Some(1));
        policy.settle(0);
        assert_eq!(policy.victim(9), Some(0));
        (1..30).for_each(|_| policy.hit(0, 1));
        policy.settle(0);
        assert_eq!(policy.victim(9), Some(0), "sixty times");
        policy.reweigh(0, 1000, Weight::from(1000));
        assert_eq!(policy.victim(9), Some(1));
    }

    #[test]
    fn who_comes_back_is_known() {
        let mut policy = SizeAware::new(true, 1);
        policy.insert(77, Weight::from(10), 1);
        (2..10).for_each(|now| policy.hit(0, now));
        policy.remove(0, Leaving { hash: 77, weight: 10, evicted: true }, 10);
        policy.insert(77, Weight::from(10), 11);
        assert_eq!(policy.records.get(0).map(|record| record.frequency), Some(10));
        policy.remove(0, Leaving { hash: 77, weight: 10, evicted: false }, 12);
        policy.insert(77, Weight::from(10), 13);
        assert_eq!(policy.records.get(0).map(|record| record.frequency), Some(1));
    }
}
