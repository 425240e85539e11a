//! Where an origin waits until the test lets it go on.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::wait;

/// A place where an origin waits until the test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        lock(&self.0.0).open = true;
        self.0.1.notify_all();
    }

    /// Waits until `count` have come to the gate.
    #[track_caller]
    pub fn arrived(&self, count: usize) {
        wait::until("the origin to reach a gate", || {
            (lock(&self.0.0).arrived >= count).then_some(())
        });
    }

    pub(super) fn pass(&self, given_up: impl Fn() -> bool) {
        let mut state = lock(&self.0.0);
        state.arrived += 1;
        while !state.open && !given_up() {
            let pause = Duration::from_millis(50);
            state = self.0.1.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
