//! How long operations take, each measured alone, on a machine that does other things, too.
//!
//! What takes longer than 50 µs is weighed by the processor time of its thread, too, so that being put aside by the scheduler
//! is told from work: the lesser of both is its own time.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::time::{Duration, Instant};

/// Operations that are slower than this are looked at closer.
const SLOW: Duration = Duration::from_micros(50);
/// Operations between two looks at the processor time.
const BATCH: usize = 64;

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Measures one operation after another, of one thread.
#[derive(Debug)]
pub struct Meter {
    /// Processor time at the last look, and operations since.
    looked: Duration,
    since: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Self { looked: processor_time(), since: 0 }
    }
}

impl Meter {
    /// What came of an operation, its nanoseconds by the clock on the wall, and those of its own.
    pub fn measure<T>(&mut self, operation: impl FnOnce() -> T) -> (T, u64, u64) {
        if self.since == BATCH {
            self.looked = processor_time();
            self.since = 0;
        }
        self.since += 1;
        let start = Instant::now();
        let result = operation();
        let wall = start.elapsed();
        let mut own = wall;
        if wall > SLOW {
            let now = processor_time();
            own = own.min(now - self.looked);
            self.since = BATCH;
        }
        (result, wall.as_nanos() as u64, own.as_nanos() as u64)
    }
}
