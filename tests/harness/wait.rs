//! Waiting for a condition with a deadline: the one place of the harness that lets time pass.

use std::time::{Duration, Instant};

/// How long a condition may take that needs no configured interval to pass. Far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `probe` until it gives a value; panics with `what` when [`PATIENCE`] is over.
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Polls `probe` until it gives a value; panics with `what` when `limit` is over.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match try_within(limit, probe) {
        Some(value) => value,
        None => panic!("waited {limit:?} for {what}"),
    }
}

/// Polls `probe` until it gives a value or `limit` is over. At least one poll is made after the limit.
pub fn try_within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        let late = Instant::now() >= deadline;
        if let Some(value) = probe() {
            return Some(value);
        }
        if late {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
