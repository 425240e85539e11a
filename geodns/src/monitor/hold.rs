//! How long a target that flaps stays down.
//!
//! The first fall costs nothing. One that comes soon after a return is followed by a time in which the target counts
//! as down whatever its checks say, and each further one doubles it. Who stays up for long enough starts afresh.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::time::UnixMillis;

/// How strict it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// What the second fall costs.
    pub first: Duration,
    /// What a fall costs at most. Zero: nothing ever.
    pub most: Duration,
}

impl Damping {
    /// For a check that notices a fall within `detection`.
    pub const fn new(detection: Duration, most: Duration) -> Self {
        Self { first: detection, most }
    }

    /// Who was up for so long starts afresh: as long as the longest time down, and never sooner than two falls can be
    /// told apart.
    fn quiet(&self) -> Duration {
        self.most.max(self.first * 2)
    }

    /// What the fall with this many falls before it costs.
    fn cost(&self, before: u32) -> Duration {
        match before.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.first.saturating_mul(factor).min(self.most)
            }
        }
    }
}

/// The past of one target, as far as it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// Falls before the last one, each soon after a return.
    falls: u32,
    /// When it last came back.
    returned: Option<UnixMillis>,
    /// Until when it stays down.
    until: Option<UnixMillis>,
}

impl Hold {
    /// It went down.
    pub fn fell(&mut self, damping: Damping, now: UnixMillis) {
        let soon = self.returned.is_some_and(|at| now.since(at) < damping.quiet());
        self.falls = if soon { self.falls.saturating_add(1) } else { 0 };
        let cost = damping.cost(self.falls);
        self.until = (cost > Duration::ZERO).then(|| now + cost);
    }

    /// It came back.
    pub const fn rose(&mut self, now: UnixMillis) {
        self.returned = Some(now);
        self.until = None;
    }

    /// Until when it stays down, if it must.
    pub fn until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAMPING: Damping =
        Damping { first: Duration::from_secs(6), most: Duration::from_secs(300) };

    /// Falls, stays down for at least `down` and as long as it must, comes back. Returns when, and what it cost.
    fn flap(hold: &mut Hold, damping: Damping, at: UnixMillis, down: u64) -> (UnixMillis, u64) {
        hold.fell(damping, at);
        let until = hold.until(at).unwrap_or(at);
        let back = until.max(at + Duration::from_secs(down));
        hold.rose(back);
        (back, until.since(at).as_secs())
    }

    #[test]
    fn the_first_fall_is_free_and_each_further_one_doubles_up_to_the_most() {
        let mut hold = Hold::default();
        let mut now = UnixMillis::from_secs(1000);
        let mut costs = Vec::new();
        for _ in 0..9 {
            let (back, cost) = flap(&mut hold, DAMPING, now, 4);
            costs.push(cost);
            now = back + Duration::from_secs(10);
        }
        assert_eq!(costs, [0, 6, 12, 24, 48, 96, 192, 300, 300]);
    }

    #[test]
    fn who_stays_up_for_long_starts_afresh() {
        let mut hold = Hold::default();
        let mut now = UnixMillis::from_secs(1000);
        for _ in 0..5 {
            now = flap(&mut hold, DAMPING, now, 4).0 + Duration::from_secs(10);
        }
        now = now + Duration::from_secs(290);
        assert_eq!(flap(&mut hold, DAMPING, now, 4).1, 0, "up for 300 s");
        now = now + Duration::from_secs(4 + 299);
        assert_eq!(flap(&mut hold, DAMPING, now, 4).1, 6, "up for 299 s");
    }

    #[test]
    fn zero_is_never() {
        let never = Damping { most: Duration::ZERO, ..DAMPING };
        let mut hold = Hold::default();
        for n in 0..10 {
            assert_eq!(flap(&mut hold, never, UnixMillis::from_secs(n * 5), 1).1, 0);
        }
    }

    proptest! {
        /// A day of any flapping: a hold is never longer than the most, never shorter than the one before while it
        /// goes on, and over the day a target that flaps without end falls seldom.
        #[test]
        fn a_day_of_flapping_is_bounded(seed in prop::collection::vec((1_u64..200, 1_u64..250), 2000)) {
            let mut hold = Hold::default();
            let (mut now, day) = (UnixMillis::from_secs(0), UnixMillis::from_secs(86_400));
            let (mut before, mut falls) = (0, 0_u64);
            for (up, down) in seed {
                let at = now + Duration::from_secs(up);
                if at >= day {
                    break;
                }
                let (back, cost) = flap(&mut hold, DAMPING, at, down);
                prop_assert!(cost <= 300);
                prop_assert!(cost >= before, "{cost} after {before}, up for {up} s");
                (before, now, falls) = (cost, back, falls + 1);
            }
            // Eight free or cheap ones, then one in 300 s and more.
            prop_assert!(falls <= 8 + 86_400 / 300, "{falls}");
        }
    }
}
