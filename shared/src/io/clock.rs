//! The readers of time.
#![expect(unsafe_code, reason = "the clock that goes on while the machine sleeps is not in std")]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::UnixMillis;

/// Wall-clock time. Before 1970 it is 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time that only goes forward.
pub fn instant() -> Instant {
    Instant::now()
}

/// Time that only goes forward, also while the machine sleeps, written as if it were the wall clock's: what that said when
/// this was first asked, and what has passed since. Steps of the wall clock do not move it, so that differences between
/// two such times are true. For times at rest inside one process; what goes out on the wire is [`now`].
pub fn steady() -> UnixMillis {
    static START: OnceLock<(UnixMillis, Duration)> = OnceLock::new();
    let (wall, since_boot) = START.get_or_init(|| (now(), boot_time()));
    *wall + boot_time().saturating_sub(*since_boot)
}

/// Time since the machine started, sleep included.
fn boot_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for what the call writes.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(failed, 0, "every Linux has this clock");
    let (secs, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(secs.unwrap_or(0), nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_goes_forward_from_the_wall_clock() {
        let (first, wall) = (steady(), now());
        assert!(first.0.abs_diff(wall.0) < 60_000, "{first} {wall}");
        let until = instant() + Duration::from_millis(5);
        let mut last = first;
        while instant() < until {
            let next = steady();
            assert!(next >= last);
            last = next;
        }
        assert!(last > first);
    }
}
