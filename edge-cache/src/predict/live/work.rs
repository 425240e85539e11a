//! How much may be simulated: a small part of a core, and of what the requests take themselves.
//!
//! Work is counted in entries that a request is looked up in, of all simulated nodes together: one for a short object, one for
//! each segment of a long one. It takes one to ten microseconds.

use std::time::Duration;

use crate::predict::Tally;

/// In a second, on the average of [`WINDOW`]: a fiftieth of a core at most.
const MOST_A_SECOND: u64 = 2048;
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// In a second, however little is asked of the node.
const LEAST_A_SECOND: f64 = 128.0;
/// Requests of which one entry may be simulated: hits take ten to twenty microseconds each.
const REQUESTS: f64 = 32.0;
/// Sending so many bytes takes as long as a request without any.
const BYTES: f64 = 65_536.0;
/// What may be saved up, and is there at the start: a second or two of a core, once.
const CREDIT: f64 = 150_000.0;
/// What there is at least after the sample has become smaller: time to see what that does.
const GRACE: f64 = 4096.0;

/// Whether a request for a sampled key is the one of two to the `thinned` that is simulated: one of each so many `turn`s, and
/// not always the same, for who asks may have turns as well.
pub const fn is_taken(turn: u64, thinned: u32) -> bool {
    let mask = (1 << thinned) - 1;
    let spread = (turn >> thinned).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    turn & mask == spread & mask
}

/// What has been simulated, and what may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// When the window began, and what has been spent and earned in it.
    since: Duration,
    spent: u64,
    earned: f64,
    credit: f64,
    /// When it was last earned for, and what had been served until then.
    served: (Duration, f64),
}

impl Work {
    pub(super) const fn new() -> Self {
        let (since, served) = (Duration::ZERO, (Duration::ZERO, 0.0));
        Self { since, spent: 0, earned: 0.0, credit: CREDIT, served }
    }

    /// So much is simulated.
    pub(super) fn spend(&mut self, entries: u64) {
        self.spent += entries;
        self.credit -= entries as f64;
    }

    /// `all` has been served until now.
    pub(super) fn earn(&mut self, now: Duration, all: &Tally) {
        let seconds = now.saturating_sub(self.served.0).as_secs_f64();
        // In shorter times too little is served to say how much that is.
        if seconds < 0.5 {
            return;
        }
        let served = all.requests + all.bytes / BYTES;
        let part = (served - self.served.1).max(0.0) / REQUESTS;
        let earned = (seconds * LEAST_A_SECOND + part).min(seconds * MOST_A_SECOND as f64);
        self.served = (now, served);
        self.earned += earned;
        self.credit = (self.credit + earned).min(CREDIT);
    }

    /// Whether less is to be simulated from now on.
    pub(super) fn is_too_much(&self) -> bool {
        self.spent > MOST_A_SECOND * WINDOW.as_secs() || self.credit < 0.0
    }

    /// Whether a window has ended, in which twice as much could have been simulated; another one begins.
    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        let has_ended = now.saturating_sub(self.since) >= WINDOW;
        let has_room = has_ended && self.spent as f64 * 2.0 <= self.earned;
        if has_ended {
            (self.since, self.spent, self.earned) = (now, 0, 0.0);
        }
        has_room
    }

    /// Less is simulated from now on.
    pub(super) fn begin(&mut self, now: Duration) {
        let credit = self.credit.max(GRACE);
        *self = Self { since: now, spent: 0, earned: 0.0, credit, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    /// A node that answers so many requests of so many bytes in a second, each of which is simulated: in how many seconds
    /// that is too much.
    fn lasts(requests: u64, bytes: u64) -> Option<u64> {
        let (mut work, mut all) = (Work::new(), Tally::default());
        (1..20_000).find(|at| {
            all.requests += requests as f64;
            all.bytes += (requests * bytes) as f64;
            work.spend(requests);
            work.earn(second(*at), &all);
            let is_too_much = work.is_too_much();
            work.has_room(second(*at));
            is_too_much
        })
    }

    #[test]
    fn little_is_always_simulated_and_much_never() {
        assert_eq!(lasts(100, 1000), None, "a thousandth of a core");
        assert_eq!(lasts(30_000, 1000), Some(1));
        assert_eq!(lasts(2100, 1000), Some(10), "more than a fiftieth of a core");
        let slowly = lasts(500, 1000).unwrap();
        assert!((350..450).contains(&slowly), "until the credit is spent: {slowly}");
        assert_eq!(lasts(500, 4 << 20), None, "long bodies take the node longer");
    }

    #[test]
    fn one_of_each_so_many_is_taken() {
        assert!((0..9).all(|turn| is_taken(turn, 0)));
        let places: Vec<u64> = (0..64).filter(|turn| is_taken(*turn, 3)).collect();
        assert!(places.iter().map(|place| place / 8).eq(0..8), "{places:?}");
        assert!(places.iter().any(|place| place % 8 != places[0]), "{places:?}");
    }

    #[test]
    fn there_is_room_where_half_is_left() {
        let (mut work, mut all) = (Work::new(), Tally::default());
        let mut rooms = |work: &mut Work, spent| {
            (0..30)
                .filter(|_| {
                    let now = work.served.0 + second(1);
                    all.requests += 6400.0;
                    work.spend(spent);
                    work.earn(now, &all);
                    work.has_room(now)
                })
                .count()
        };
        // It earns 128 and 200.
        assert_eq!(rooms(&mut work, 160), 3);
        assert_eq!(rooms(&mut work, 170), 0);
        work.spend(200_000);
        assert!(work.is_too_much());
        let now = work.served.0;
        work.begin(now);
        assert!(!work.is_too_much());
        work.earn(now, &all);
        assert_eq!(work.credit, GRACE, "no time has passed");
        assert!(!work.has_room(now + second(9)));
    }
}
