//! Turns probe results into a stable up or down.
//!
//! One bad probe must not move traffic and one good probe must not return it: after the first result a target changes
//! its state only after `down_after` failures or `up_after` successes in a row. This module decides; `io::probe` asks,
//! and whoever calls it owns the timer.

/// How many results in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures until down. At least 1.
    pub down_after: u16,
    /// Successes until up. At least 1.
    pub up_after: u16,
}

/// What is believed of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Never probed.
    Unknown,
    /// Answers.
    Up,
    /// Does not.
    Down,
}

impl State {
    /// Whether clients can be sent there. What was never probed gets the benefit of the doubt.
    pub const fn is_usable(self) -> bool {
        !matches!(self, Self::Down)
    }
}

/// The health of one target.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    state: State,
    /// Results in a row that speak against `state`.
    against: u16,
}

impl Health {
    /// A target of which nothing is known: the first result counts at once.
    pub const fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, state: State::Unknown, against: 0 }
    }

    /// What is believed now.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the last results speak against the state: it may change soon.
    pub const fn is_wavering(&self) -> bool {
        self.against > 0
    }

    /// The least number of further results that could change the state.
    pub const fn results_to_change(&self) -> u16 {
        let needed = match self.state {
            State::Unknown => 1,
            State::Up => self.thresholds.down_after,
            State::Down => self.thresholds.up_after,
        };
        needed.saturating_sub(self.against)
    }

    /// New thresholds for a target that goes on, on a reload.
    pub const fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Goes on with what somebody else has found: from here on it changes as if it had been found here.
    pub const fn believe(&mut self, state: State) {
        self.state = state;
        self.against = 0;
    }

    /// Takes one result. Returns the new state if it changed.
    pub fn record(&mut self, good: bool) -> Option<State> {
        let (seen, needed) = match good {
            true => (State::Up, self.thresholds.up_after),
            false => (State::Down, self.thresholds.down_after),
        };
        if seen == self.state {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.state != State::Unknown && self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = seen;
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after `+` and `-`, with 3 failures to fall and 2 successes to rise.
    fn after(results: &str) -> State {
        let mut health = Health::new(Thresholds { down_after: 3, up_after: 2 });
        for result in results.chars() {
            health.record(result == '+');
        }
        health.state()
    }

    #[test]
    fn the_first_result_counts_at_once() {
        assert_eq!(after(""), State::Unknown);
        assert_eq!(after("+"), State::Up);
        assert_eq!(after("-"), State::Down);
    }

    #[test]
    fn a_single_failure_does_not_move_traffic() {
        assert_eq!(after("+-"), State::Up);
        assert_eq!(after("+--+--"), State::Up);
        assert_eq!(after("+---"), State::Down);
    }

    #[test]
    fn a_single_success_does_not_return_it() {
        assert_eq!(after("-+-+-"), State::Down);
        assert_eq!(after("-++"), State::Up);
    }

    #[test]
    fn what_is_believed_changes_by_the_thresholds() {
        let mut health = Health::new(Thresholds { down_after: 2, up_after: 1 });
        health.believe(State::Up);
        assert_eq!(health.record(false), None);
        assert_eq!(health.record(false), Some(State::Down));
    }

    #[test]
    fn a_change_is_reported_once() {
        let mut health = Health::new(Thresholds { down_after: 2, up_after: 1 });
        assert_eq!(health.record(true), Some(State::Up));
        assert_eq!(health.record(true), None);
        assert_eq!(health.record(false), None);
        assert!(health.is_wavering());
        assert_eq!(health.results_to_change(), 1);
        assert_eq!(health.record(false), Some(State::Down));
        assert_eq!(health.record(false), None);
    }
}
