//! One server of an upstream: where it is, and what is known of its health.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shared::config::OriginUrl;

/// One server.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub url: OriginUrl,
    /// Stable hash of its URL.
    pub id: u64,
    /// Its share.
    pub weight: u32,
    /// What active checks say.
    pub healthy: AtomicBool,
    /// Requests to it now.
    pub in_flight: AtomicU32,
    /// Connection failures in a row.
    failures: AtomicU32,
    /// Milliseconds of the pool's clock until which failures keep it down.
    down_until: AtomicU64,
    epoch: Instant,
}

/// For how long failures take a server out, where no check says more.
const OUT: Duration = Duration::from_secs(5);

impl Server {
    pub(super) fn new(url: OriginUrl, weight: u32) -> Self {
        Self {
            id: crate::tier::name_hash(&url.to_string()),
            url,
            weight,
            healthy: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            down_until: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether requests should go to it.
    pub fn is_up(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
            && self.down_until.load(Ordering::Relaxed) <= self.elapsed()
    }

    /// A request to it failed to get a connection or an answer; `tolerated` such failures in a row take it out. True for
    /// the first one in a row.
    pub(super) fn failed(&self, tolerated: u32) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before + 1 >= tolerated {
            let until = self.elapsed().saturating_add(OUT.as_millis() as u64);
            self.down_until.store(until, Ordering::Relaxed);
        }
        before == 0
    }

    /// It answered, to a request or to a check.
    pub fn answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.down_until.store(0, Ordering::Relaxed);
    }
}
