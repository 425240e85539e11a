//! Whether a disk answers. Calls that wait for a device cannot be given up; a thread beside those that wait looks how long
//! they have, and says it to all who would add to them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::engine::{Engine, lock};
use super::read::THREADS;
use super::stats::State;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);
/// A disk whose readers have all waited for longer is asked for nothing until one of them is free.
const STALLED: Duration = Duration::from_secs(1);
/// One that has not answered for this long is left alone: its places go to the others.
const DEAD: Duration = Duration::from_secs(60);
/// The writer's place among those who wait.
pub(super) const WRITER: usize = THREADS;

/// Since when each of a disk's threads waits for its device.
#[derive(Debug)]
pub(super) struct Waiting {
    began: Instant,
    /// In milliseconds, from 1 on; 0: it does not.
    since: [AtomicU64; THREADS + 1],
    turn: Mutex<()>,
    wake: Condvar,
}

/// What is to be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Answers,
    Stalls,
    Dead,
}

impl Default for Waiting {
    fn default() -> Self {
        let (since, turn, wake) = Default::default();
        Self { began: Instant::now(), since, turn, wake }
    }
}

impl Waiting {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// Notes that a thread waits for what `work` does.
    pub(super) fn during<T>(&self, thread: usize, work: impl FnOnce() -> T) -> T {
        let note = |since| {
            if let Some(place) = self.since.get(thread) {
                place.store(since, Ordering::Relaxed);
            }
        };
        note(self.now());
        let done = work();
        note(0);
        done
    }

    /// The disk's state has changed.
    pub(super) fn notify(&self) {
        self.wake.notify_all();
    }

    fn verdict(&self) -> Verdict {
        let now = self.now();
        let [readers @ .., writer] = &self.since;
        let waits = |since: &AtomicU64| match since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now.saturating_sub(since)),
        };
        // As long as one comes back there is somebody who reads.
        let reads = readers.iter().map(waits).min().unwrap_or_default();
        judge(reads, waits(writer))
    }
}

fn judge(reads: Duration, writes: Duration) -> Verdict {
    if reads.max(writes) >= DEAD {
        Verdict::Dead
    } else if reads >= STALLED {
        Verdict::Stalls
    } else {
        Verdict::Answers
    }
}

/// What the thread does until the disk is closed, or left alone.
pub(super) fn watch(engine: &Arc<Engine>) {
    let waiting = &engine.waiting;
    let mut turn = lock(&waiting.turn);
    while !matches!(engine.state(), State::Isolated | State::Closed) {
        let verdict = waiting.verdict();
        let stalls = verdict != Verdict::Answers;
        let path = engine.path.display();
        match (engine.stall(stalls), stalls) {
            (false, true) => {
                tracing::error!(%path, "a disk does not answer: it is done without until it does")
            }
            (true, false) => tracing::warn!(%path, "a disk answers again"),
            _ => {}
        }
        if verdict == Verdict::Dead {
            tracing::error!(%path, "a disk has not answered for a minute: it is left alone until the node is started anew");
            engine.isolate();
        }
        turn = match waiting.wake.wait_timeout(turn, LOOK) {
            Ok((turn, _)) => turn,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_known() {
        let seconds = Duration::from_secs_f64;
        for (reads, writes, expected) in [
            (0.0, 0.0, Verdict::Answers),
            (0.9, 0.0, Verdict::Answers),
            // Much that is written at once takes its time.
            (0.0, 59.0, Verdict::Answers),
            (1.0, 0.0, Verdict::Stalls),
            (59.0, 59.0, Verdict::Stalls),
            (60.0, 0.0, Verdict::Dead),
            (0.0, 60.0, Verdict::Dead),
        ] {
            assert_eq!(judge(seconds(reads), seconds(writes)), expected, "{reads} {writes}");
        }
    }

    /// One reader that is free is enough.
    #[test]
    fn all_readers_must_wait() {
        let waiting = Waiting { began: Instant::now() - 2 * STALLED, ..Waiting::default() };
        assert_eq!(waiting.verdict(), Verdict::Answers);
        for place in &waiting.since[..THREADS] {
            assert_eq!(waiting.verdict(), Verdict::Answers);
            place.store(1, Ordering::Relaxed);
        }
        assert_eq!(waiting.verdict(), Verdict::Stalls);
        waiting.during(2, || ());
        assert_eq!(waiting.verdict(), Verdict::Answers);
    }
}
