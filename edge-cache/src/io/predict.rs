//! The sample of what a node is asked, on its way to a thread of its own that makes predictions of it
//! ([`crate::predict::live`]).
//!
//! A request pays two additions, and one comparison of its key's hash; those of the sample, one in hundreds on a busy node,
//! are put into a queue that nobody waits for: what finds it full is lost, and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::metrics::{Family, Registry};

use crate::predict::Tally;
use crate::predict::live::{Fate, Predictor, Report, Seen, Shape};

/// Requests of the sample that wait for the thread.
const QUEUE: usize = 4096;
/// How often the thread looks at the sums.
const TICK: Duration = Duration::from_secs(1);

const RATIO: Family = Family {
    name: "edge_cache_predicted_hit_ratio",
    help: "Share of requests (of=\"objects\") or bytes (of=\"bytes\") of the last hour that this node would answer with the tier at this scale of its size, under the policy.",
    labels: &["tier", "policy", "scale", "of"],
};
const WORKING_SET: Family = Family {
    name: "edge_cache_working_set_bytes",
    help: "Bytes of the different objects that were asked for in the last hour or day, estimated from a sample.",
    labels: &["over"],
};
const SAMPLED: Family = Family {
    name: "edge_cache_prediction_sampled_ratio",
    help: "Share of the cache keys that predictions are made of.",
    labels: &[],
};
const LOST: Family = Family {
    name: "edge_cache_prediction_lost_total",
    help: "Sampled requests that predictions have not seen, because they came too fast.",
    labels: &[],
};

/// Sums of all requests. Of two numbers each, so that a hit adds to two only.
#[derive(Debug, Default)]
struct Sums {
    requests: AtomicU64,
    bytes: AtomicU64,
    missed: AtomicU64,
    missed_bytes: AtomicU64,
    lost: AtomicU64,
    lost_bytes: AtomicU64,
}

/// What the serving threads and the predicting one share.
#[derive(Debug)]
pub struct Predicting {
    bound: Arc<AtomicU64>,
    sums: Arc<Sums>,
    queue: SyncSender<Seen>,
    predictor: Arc<Mutex<Predictor>>,
}

impl Predicting {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(shape: Shape) -> std::io::Result<Self> {
        let predictor = Predictor::new(shape);
        let bound = Arc::new(AtomicU64::new(predictor.bound()));
        let predictor = Arc::new(Mutex::new(predictor));
        let sums = Arc::new(Sums::default());
        let (queue, seen) = sync_channel(QUEUE);
        let thread = Thread {
            predictor: Arc::clone(&predictor),
            bound: Arc::clone(&bound),
            sums: Arc::clone(&sums),
            began: Instant::now(),
        };
        std::thread::Builder::new().name("predict".to_owned()).spawn(move || {
            let mut ticked = thread.tick();
            loop {
                match seen.recv_timeout(TICK) {
                    Ok(seen) => thread.note(&seen),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if ticked.elapsed() >= TICK {
                    ticked = thread.tick();
                }
            }
        })?;
        Ok(Self { bound, sums, queue, predictor })
    }

    /// A request has been answered. `size`: bytes of its object, as far as they are known; `sent`: bytes sent.
    #[inline]
    pub fn note(&self, key: u128, size: u64, sent: u64, fate: Fate) {
        self.sums.requests.fetch_add(1, Ordering::Relaxed);
        self.sums.bytes.fetch_add(sent, Ordering::Relaxed);
        if fate != Fate::Hit {
            self.sums.missed.fetch_add(1, Ordering::Relaxed);
            self.sums.missed_bytes.fetch_add(sent, Ordering::Relaxed);
        }
        // The lower half: the store's tables lie by the upper one.
        let key = key as u64;
        if key > self.bound.load(Ordering::Relaxed) {
            return;
        }
        if self.queue.try_send(Seen { key, size, sent, fate }).is_err() {
            self.sums.lost.fetch_add(1, Ordering::Relaxed);
            self.sums.lost_bytes.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// What is predicted now.
    pub fn report(&self) -> Report {
        let mut predictor = self.predictor.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, lost) = self.sums.tally(predictor.bound());
        let now = predictor.now();
        predictor.tick(now, all, lost);
        predictor.report()
    }

    /// Sets the gauges.
    pub fn collect(&self, registry: &Registry) {
        let report = self.report();
        for prediction in &report.predictions {
            let labels =
                [prediction.tier.name(), &prediction.policy, &prediction.scale.to_string()];
            let [tier, policy, scale] = labels;
            let ratios = prediction.ratios;
            for (of, ratio) in [("objects", ratios.objects), ("bytes", ratios.bytes)] {
                registry.gauge(&RATIO, &[tier, policy, scale, of]).set(ratio);
            }
        }
        registry.gauge(&WORKING_SET, &["1h"]).set(report.working_set_hour);
        registry.gauge(&WORKING_SET, &["24h"]).set(report.working_set_day);
        registry.gauge(&SAMPLED, &[]).set(report.sampled);
        let lost = registry.counter(&LOST, &[]);
        lost.add(report.lost.saturating_sub(lost.get()));
    }
}

impl Sums {
    /// All requests but those that the lost ones stand for.
    fn tally(&self, bound: u64) -> (Tally, u64) {
        let get = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let (requests, bytes) = (get(&self.requests), get(&self.bytes));
        let (missed, missed_bytes) = (get(&self.missed), get(&self.missed_bytes));
        let weight = u64::MAX as f64 / bound.max(1) as f64;
        let lost = get(&self.lost);
        let standing = |all: u64, lost: u64| (all as f64 - lost as f64 * weight).max(0.0);
        let all = Tally {
            requests: standing(requests, lost),
            bytes: standing(bytes, get(&self.lost_bytes)),
            hits: requests.saturating_sub(missed) as f64,
            hit_bytes: bytes.saturating_sub(missed_bytes) as f64,
        };
        let all = Tally {
            hits: all.hits.min(all.requests),
            hit_bytes: all.hit_bytes.min(all.bytes),
            ..all
        };
        (all, lost)
    }
}

struct Thread {
    predictor: Arc<Mutex<Predictor>>,
    bound: Arc<AtomicU64>,
    sums: Arc<Sums>,
    began: Instant,
}

impl Thread {
    fn note(&self, seen: &Seen) {
        let mut predictor = self.predictor.lock().unwrap_or_else(PoisonError::into_inner);
        predictor.sampled(seen, self.began.elapsed());
        self.bound.store(predictor.bound(), Ordering::Relaxed);
    }

    fn tick(&self) -> Instant {
        let mut predictor = self.predictor.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, lost) = self.sums.tally(predictor.bound());
        predictor.tick(self.began.elapsed(), all, lost);
        Instant::now()
    }
}
