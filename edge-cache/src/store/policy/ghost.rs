//! Who has been evicted of late, and what was known of them: a fingerprint, a number and the time of each, eight bytes.
//! Buckets of eight; in a full one the oldest is forgotten. A fingerprint that two keys share misleads a policy once in
//! ten thousand times or less, never a lookup.

use super::slab::Slab;

/// What is remembered in one place.
const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    /// Half of its hash; 0: nobody.
    print: u32,
    /// What was known of it, and in the upper 24 bits the lower part of its time.
    at_and_note: u32,
}

/// Those evicted of late.
#[derive(Clone, Debug, Default)]
pub struct Ghosts {
    buckets: Slab<[Ghost; WAYS]>,
}

impl Ghosts {
    /// Grows or shrinks by a bucket towards room for `count`.
    pub fn follow(&mut self, count: usize) {
        let wanted = count / WAYS + 1;
        if wanted > self.buckets.len() {
            self.split();
        } else if self.buckets.len() > 1 && wanted < self.buckets.len() / 2 {
            self.buckets.pop();
        }
    }

    /// Remembers one, evicted at a time, of which 24 bits count.
    pub fn note(&mut self, hash: u64, at: u32, note: u8) {
        let print = print(hash);
        let bucket = bucket(print, self.buckets.len());
        let Some(bucket) = self.buckets.get_mut(bucket) else { return };
        let rank = |ghost: &Ghost| match ghost.print {
            same if same == print => u32::MAX,
            0 => u32::MAX - 1,
            _ => age(at, ghost.at_and_note >> 8),
        };
        if let Some(oldest) = bucket.iter_mut().max_by_key(|ghost| rank(ghost)) {
            *oldest = Ghost { print, at_and_note: at << 8 | u32::from(note) };
        }
    }

    /// What was noted of one, and how long before `now` that was. It is forgotten by this.
    pub fn take(&mut self, hash: u64, now: u32) -> Option<(u32, u8)> {
        let print = print(hash);
        let bucket = bucket(print, self.buckets.len());
        let mut bucket = self.buckets.get_mut(bucket)?.iter_mut();
        let ghost = std::mem::take(bucket.find(|ghost| ghost.print == print)?);
        Some((age(now, ghost.at_and_note >> 8), ghost.at_and_note as u8))
    }

    /// Adds a bucket: takes from the one that has had its fingerprints so far.
    fn split(&mut self) {
        let new = self.buckets.len();
        self.buckets.push([Ghost::default(); WAYS]);
        let Some(highest) = new.checked_ilog2() else { return };
        let old = (new & !(1 << highest)) as u32;
        let count = self.buckets.len();
        let Some(from) = self.buckets.get_mut(old) else { return };
        let mut moved = [Ghost::default(); WAYS];
        for (to, from) in moved.iter_mut().zip(from) {
            if from.print != 0 && bucket(from.print, count) != old {
                *to = std::mem::take(from);
            }
        }
        if let Some(to) = self.buckets.get_mut(new as u32) {
            *to = moved;
        }
    }
}

/// The time between two moments, of which 24 bits are known.
const fn age(now: u32, at: u32) -> u32 {
    now.wrapping_sub(at) & 0xff_ffff
}

const fn print(hash: u64) -> u32 {
    // The lower half is what tables put keys in order by.
    let print = (hash >> 32) as u32;
    if print == 0 { 1 } else { print }
}

/// In which of `count` buckets a fingerprint is.
const fn bucket(print: u32, count: usize) -> u32 {
    if count == 0 {
        return 0;
    }
    let mask = count.next_power_of_two() - 1;
    let all = print as usize & mask;
    if all < count { all as u32 } else { (all & (mask >> 1)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;

    #[test]
    fn ghosts_are_found_once_while_there_is_room() {
        let mut ghosts = Ghosts::default();
        for n in 0..4000_u64 {
            ghosts.follow(10_000);
            ghosts.note(n.hash(1), n as u32, 7);
        }
        for n in 3000..4000_u64 {
            assert_eq!(ghosts.take(n.hash(1), 5000), Some((5000 - n as u32, 7)), "{n}");
            assert_eq!(ghosts.take(n.hash(1), 5000), None);
        }
        assert_eq!(ghosts.take(9_999_u64.hash(1), 5000), None);
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_room_goes_back() {
        let mut ghosts = Ghosts::default();
        for n in 0..50_000_u64 {
            ghosts.follow(1000);
            ghosts.note(n.hash(1), n as u32, 1);
        }
        let left = |ghosts: &Ghosts, range: std::ops::Range<u64>| {
            let mut ghosts = ghosts.clone();
            range.filter(|n| ghosts.take(n.hash(1), 50_000).is_some()).count()
        };
        assert!(left(&ghosts, 49_500..50_000) > 400);
        assert_eq!(left(&ghosts, 0..40_000), 0);
        (0..1000).for_each(|_| ghosts.follow(0));
        assert!(ghosts.buckets.len() <= 3);
    }

    #[test]
    fn one_that_returns_is_remembered_once() {
        let mut ghosts = Ghosts::default();
        ghosts.follow(1);
        (0..20).for_each(|n| ghosts.note(5, u32::from(n), n));
        assert_eq!(ghosts.take(5, (1 << 24) + 20), Some((1, 19)));
        assert_eq!(ghosts.take(5, 20), None);
    }
}
