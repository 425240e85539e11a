//! The readers of time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
